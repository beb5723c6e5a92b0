use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use aegis_core::{Chain, NodeId, ServiceInfo};
use tonic::Status;

use crate::Explanation;

/// Why no call could be made.
///
/// `Debug` prints the text with its causes, as a `main` that returns it shows it.
///
/// As a [`Status`], which keeps it, so that [`Error::from_status`] finds it again:
///
/// | error | code | who acts |
/// |---|---|---|
/// | `Closed` | unavailable | the caller: it closed the pool |
/// | `NoProviders`, `NotReady`, `PinLost` | unavailable | the operator, or a retry |
/// | `NoTlsConfig` | internal | the operator |
///
/// # What it tells, and to whom
/// The text, and that of the status, is for the process that made the call: node ids, addresses, and why each could
/// not be reached. The same holds for the statuses of calls that failed with a node. A handler that returns such a
/// status with `?` tells all that to its own caller. Where the caller must not know, map it:
///
/// ```
/// # use tonic::Status;
/// # fn log(_: &Status) {}
/// # fn example(answer: Result<(), Status>) -> Result<(), Status> {
/// let answer = answer.map_err(|status| {
///     log(&status);
///     Status::new(status.code(), "the identity service cannot be called")
/// })?;
/// # Ok(answer)
/// # }
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The pool was closed. The caller made the call too late.
    #[error("the pool is closed")]
    Closed,
    /// Nobody can be called: no node advertises the service, or each that does failed to connect. The operator
    /// starts a provider or mends what `explanation` says; a retry may find one.
    #[error("no provider of {service} can be called: {}", .explanation.summary())]
    NoProviders {
        /// The service asked for.
        service: ServiceInfo,
        /// What there is instead.
        explanation: Box<Explanation>,
    },
    /// Our own certificate cannot be used now. The operator renews it.
    #[error("there is no certificate to call with")]
    NoTlsConfig {
        /// What is wrong with it. Its type is not part of the contract.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The one provider that the client is pinned to cannot be called. The caller asks for another client.
    #[error("node {node}, to which this client of {service} is pinned, cannot be called: {}", .explanation.verdict_on(.node))]
    PinLost {
        /// The service asked for.
        service: ServiceInfo,
        /// The provider.
        node: NodeId,
        /// What the pool knows of it and of the others.
        explanation: Box<Explanation>,
    },
    /// Fewer providers than asked for were connected in time. The operator acts, as for `NoProviders`.
    #[error("{connected} of the {wanted} providers of {service} waited for are connected: {}", .explanation.summary())]
    NotReady {
        /// The service asked for.
        service: ServiceInfo,
        /// How many were waited for.
        wanted: usize,
        /// How many there are.
        connected: usize,
        /// What keeps the others away.
        explanation: Box<Explanation>,
    },
}

impl Error {
    /// The error that a call failed with, if it was ours and not an answer of the provider.
    ///
    /// It looks through the sources of the status, so a layer that wraps statuses hides nothing.
    ///
    /// ```
    /// use aegis_client::{Error, RequestExt as _};
    /// use aegis_core::ServiceInfo;
    /// use aegis_proto::identity::v1::{GetUserRequest, identity_service_client::IdentityServiceClient};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let pool = aegis_testing::TestMesh::in_memory().node("vicky-1").pool();
    /// let mut identity = IdentityServiceClient::new(pool.channel(ServiceInfo::from_static("identity", "v1")));
    /// let status = identity.get_user(GetUserRequest::default()).await.unwrap_err();
    /// match Error::from_status(&status) {
    ///     Some(Error::NoProviders { explanation, .. }) => println!("nobody there: {explanation}"),
    ///     Some(error) => println!("no call was made: {error}"),
    ///     None => println!("a provider, or the way to it, failed: {status}"),
    /// }
    /// # assert!(matches!(Error::from_status(&status), Some(Error::NoProviders { .. })));
    /// # }
    /// ```
    pub fn from_status(status: &Status) -> Option<&Self> {
        let mut source = status.source();
        while let Some(error) = source {
            if let Some(Kept(found)) = error.downcast_ref() {
                return Some(found);
            }
            source = error.source();
        }
        None
    }

    /// Its code and words, without the error itself.
    pub(crate) fn status(&self) -> Status {
        // With its causes, which would be lost where only the message travels: to a log, or through a handler's `?`.
        let text = Chain::new(self).to_string();
        match self {
            Self::NoTlsConfig { .. } => Status::internal(text),
            Self::Closed
            | Self::NoProviders { .. }
            | Self::NotReady { .. }
            | Self::PinLost { .. } => Status::unavailable(text),
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Closed => "Closed",
            Self::NoProviders { .. } => "NoProviders",
            Self::NoTlsConfig { .. } => "NoTlsConfig",
            Self::NotReady { .. } => "NotReady",
            Self::PinLost { .. } => "PinLost",
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Chain::new(self), f)
    }
}

/// An error within a status, whose message tells it already: tonic prints the source of a status behind its message.
pub(crate) struct Kept(pub(crate) Error);

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client::Error::{}", self.0.word())
    }
}

impl StdError for Kept {}

impl From<Error> for Status {
    /// With all that the error says, for our own caller: see [`Error`] on handlers that pass it on.
    fn from(error: Error) -> Self {
        let mut status = error.status();
        status.set_source(Arc::new(Kept(error)));
        status
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn an_error_is_found_again_in_its_status() {
        let status = Status::from(Error::Closed);
        assert_eq!(status.code(), Code::Unavailable);
        assert!(matches!(Error::from_status(&status), Some(Error::Closed)));
    }

    #[test]
    fn an_error_is_found_in_a_status_that_was_wrapped() {
        #[derive(Debug, thiserror::Error)]
        #[error("a layer of the user")]
        struct Layer(#[source] Status);
        let wrapped = Status::from_error(Box::new(Layer(Error::Closed.into())));
        assert!(matches!(Error::from_status(&wrapped), Some(Error::Closed)));
    }

    #[test]
    fn a_status_is_printed_as_its_message_and_the_name_of_its_error() {
        let status = Status::from(Error::NoTlsConfig { source: "it expired".into() });
        let expected = "code: 'Internal error', message: \"there is no certificate to call with: it expired\", \
                        source: client::Error::NoTlsConfig";
        assert_eq!(status.to_string(), expected);
        assert_eq!(Chain::new(&status).to_string(), expected);
    }

    #[test]
    fn a_main_that_returns_it_shows_the_causes() {
        let error = Error::NoTlsConfig { source: "it expired".into() };
        assert_eq!(format!("{error:?}"), "there is no certificate to call with: it expired");
    }

    #[test]
    fn an_answer_of_the_provider_is_none_of_ours() {
        assert!(Error::from_status(&Status::unavailable("the pool is closed")).is_none());
    }

    #[test]
    fn a_missing_certificate_says_why() {
        let error = Error::NoTlsConfig { source: "it expired".into() };
        let status = Status::from(error);
        assert_eq!(status.code(), Code::Internal);
        assert!(status.message().contains("it expired"), "{status}");
    }
}
