use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use aegis_core::{NodeId, SpiffeId};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::cause::Cause;
use crate::clock::Clock;
use crate::handshake::PeerVerifier;
use crate::verify::ChainVerifier;
use crate::{ALPN_H2, ConnectError, RefusalSlot, Tls, goodbye};

/// Sent as SNI where no node is expected; nobody's trust rests on it.
const ANY_MEMBER: &str = "node.aegis.invalid";

/// Who has to answer at the other end of a connection.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Expected<'a> {
    /// Any node of the own trust domain: for seeds, of which only an address is known.
    AnyMember,
    /// This node and no other.
    Node(&'a NodeId),
}

/// A finished handshake with a server.
///
/// In TLS 1.3 the server may still refuse us: that shows on the first read of `stream`, and in `refusal`.
#[derive(Debug)]
#[non_exhaustive]
pub struct Connected<IO> {
    /// The encrypted stream; ALPN has settled on `h2`.
    pub stream: ClientStream<IO>,
    /// Who answered, proven.
    pub peer: SpiffeId,
    /// The alert of a server that refuses us, once it came.
    pub refusal: RefusalSlot,
}

impl Tls {
    /// Makes a TLS connection over `io` and checks within the handshake who answers.
    ///
    /// Has no time limit of its own. The chain is verified by rustls-webpki (RFC 5280), the leaf by the rules of
    /// [`TlsOptions`](crate::TlsOptions), and a node that is expected is compared before our own certificate is sent.
    ///
    /// # Errors
    /// [`ConnectError`]; the peer was told by an alert, and got nothing else.
    ///
    /// # Cancel safety
    /// Dropping the future closes `io`; the handshake cannot be taken up again.
    pub async fn connect<IO>(
        &self,
        expected: Expected<'_>,
        io: IO,
    ) -> Result<Connected<IO>, ConnectError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.check_usable()?;
        let snapshot = self.snapshot();
        let (pin, name) = match expected {
            Expected::AnyMember => (None, ANY_MEMBER),
            Expected::Node(id) => (Some(id.clone()), id.server_name()),
        };
        let name = ServerName::try_from(name.to_owned())
            .map_err(|error| ConnectError::Protocol { source: Box::new(error) })?;
        let verifier = Arc::new(PeerVerifier::new(Arc::clone(&snapshot.verifier), pin));
        // A clone is a handful of reference counts.
        let mut config = snapshot.client.clone();
        config.dangerous().set_certificate_verifier(Arc::clone(&verifier) as _);

        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, io)
            .await
            .map_err(|error| Cause::new(error, &verifier))?;
        if stream.get_ref().1.alpn_protocol() != Some(ALPN_H2) {
            return Err(ConnectError::NoAlpn);
        }
        let Some(Ok(leaf)) = verifier.outcome() else {
            return Err(ConnectError::Protocol { source: "no certificate was verified".into() });
        };
        let refusal = RefusalSlot::default();
        let stream = ClientStream { inner: stream, refusal: refusal.clone(), answered: false };
        Ok(Connected { stream, peer: leaf.spiffe_id.clone(), refusal })
    }
}

pub(crate) fn client_config(
    provider: &Arc<CryptoProvider>,
    clock: &Clock,
    certified: &Arc<CertifiedKey>,
    chain: &Arc<ChainVerifier>,
) -> Result<ClientConfig, rustls::Error> {
    // Each connection puts its own verifier in the place of this one.
    let verifier = Arc::new(PeerVerifier::new(Arc::clone(chain), None));
    let resolver = Arc::new(SingleCertAndKey::from(Arc::clone(certified)));
    let mut config =
        ClientConfig::builder_with_details(Arc::clone(provider), Arc::new(clock.clone()))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(resolver);
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    // A resumed session would not look at the certificate again.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The client's end of a TLS connection. Dropping it drops `IO` without a word; shut it down first to say goodbye.
pub struct ClientStream<IO> {
    inner: TlsStream<IO>,
    refusal: RefusalSlot,
    /// The server sent data, so it had accepted us.
    answered: bool,
}

impl<IO> ClientStream<IO> {
    /// The stream below the TLS connection.
    pub fn get_ref(&self) -> &IO {
        self.inner.get_ref().0
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> ClientStream<IO> {
    /// After a failed write: the alert that explains it may wait to be read.
    ///
    /// Nothing is lost, since before the first answer there is only an alert to come, and the connection is dead.
    fn explain(&mut self, cx: &mut Context<'_>, error: io::Error) -> io::Error {
        if self.answered || self.refusal.get().is_some() {
            return error;
        }
        let mut bytes = [0; 64];
        match Pin::new(&mut self.inner).poll_read(cx, &mut ReadBuf::new(&mut bytes)) {
            Poll::Ready(Err(read)) => {
                self.refusal.remember(&read);
                if self.refusal.get().is_some() { read } else { error }
            }
            _ => error,
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for ClientStream<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut this.inner).poll_read(cx, buf));
        match &result {
            Ok(()) => this.answered |= before < buf.filled().len(),
            Err(error) => this.refusal.remember(error),
        }
        Poll::Ready(result.map_err(goodbye::explain))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientStream<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = ready!(Pin::new(&mut this.inner).poll_write(cx, buf));
        Poll::Ready(result.map_err(|error| this.explain(cx, error)))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, bufs));
        Poll::Ready(result.map_err(|error| this.explain(cx, error)))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = ready!(Pin::new(&mut this.inner).poll_flush(cx));
        Poll::Ready(result.map_err(|error| this.explain(cx, error)))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

impl<IO: fmt::Debug> fmt::Debug for ClientStream<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientStream").field("io", self.get_ref()).finish_non_exhaustive()
    }
}
