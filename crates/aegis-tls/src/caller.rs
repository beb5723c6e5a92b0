use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use aegis_core::{NodeId, NodeType, SpiffeId};
use rustls_pki_types::CertificateDer;
use tonic::Status;

use crate::leaf::Leaf;

/// The node at the other end of a call, as its certificate proves it.
///
/// Read once per connection; a clone is a reference count. Only [`Tls::accept`](crate::Tls::accept) makes one.
///
/// ```
/// use aegis_tls::Caller;
/// use tonic::{Request, Response, Status};
///
/// async fn whoami(request: Request<()>) -> Result<Response<String>, Status> {
///     let caller = Caller::from_request(&request)?;
///     Ok(Response::new(format!("{} of type {}", caller.node_id(), caller.node_type())))
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// // A request that came over no connection has no caller.
/// let refused = whoami(Request::new(())).await.unwrap_err();
/// assert_eq!(refused.code(), tonic::Code::Unauthenticated);
/// # }
/// ```
#[derive(Clone)]
pub struct Caller {
    inner: Arc<Inner>,
}

struct Inner {
    spiffe_id: SpiffeId,
    not_after: SystemTime,
    certificate: CertificateDer<'static>,
    intermediates: Vec<CertificateDer<'static>>,
}

impl Caller {
    pub(crate) fn new(leaf: &Leaf, mut chain: Vec<CertificateDer<'static>>) -> Self {
        let certificate = if chain.is_empty() { Vec::new().into() } else { chain.remove(0) };
        Self {
            inner: Arc::new(Inner {
                spiffe_id: leaf.spiffe_id.clone(),
                not_after: leaf.not_after,
                certificate,
                intermediates: chain,
            }),
        }
    }

    /// Who sent this request.
    ///
    /// # Errors
    /// [`CallerError`] when the request did not come over a connection of the mesh; `?` makes it `UNAUTHENTICATED`.
    pub fn from_request<T>(request: &tonic::Request<T>) -> Result<Self, CallerError> {
        Self::from_extensions(request.extensions())
    }

    /// Who sent the request with these extensions: for tower layers.
    ///
    /// # Errors
    /// [`CallerError`] when the request did not come over a connection of the mesh.
    pub fn from_extensions(extensions: &http::Extensions) -> Result<Self, CallerError> {
        extensions.get().cloned().ok_or(CallerError::Missing)
    }

    /// Which node it is.
    pub fn node_id(&self) -> &NodeId {
        self.inner.spiffe_id.node_id()
    }

    /// What kind of node it is, by its certificate.
    pub fn node_type(&self) -> &NodeType {
        self.inner.spiffe_id.node_type()
    }

    /// Its whole identity, trust domain included.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.inner.spiffe_id
    }

    /// Its certificate, DER. It is verified already; parse it for what else a CA of yours writes into it.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.inner.certificate
    }

    /// Its certificate and the intermediates that it sent along, leaf first.
    pub fn chain(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        std::iter::once(&self.inner.certificate).chain(&self.inner.intermediates)
    }

    /// When its certificate ends; a connection may outlive it.
    pub fn not_after(&self) -> SystemTime {
        self.inner.not_after
    }
}

impl PartialEq for Caller {
    /// The same certificate.
    fn eq(&self, other: &Self) -> bool {
        self.inner.certificate == other.inner.certificate
    }
}

impl Eq for Caller {}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Caller").field(&self.inner.spiffe_id).finish()
    }
}

/// Why a request has no caller.
///
/// | variant | `Status` |
/// |---|---|
/// | `Missing` | `UNAUTHENTICATED` |
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallerError {
    /// The request did not come over a connection that this mesh accepted. The server's developer has to act.
    #[error("the call came over no authenticated connection of the mesh")]
    Missing,
}

impl From<CallerError> for Status {
    fn from(error: CallerError) -> Self {
        Self::unauthenticated(error.to_string())
    }
}
