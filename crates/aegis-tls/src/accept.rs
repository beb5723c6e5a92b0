use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ServerConfig, ServerConnection};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::cause::Cause;
use crate::clock::Clock;
use crate::handshake::PeerVerifier;
use crate::{ALPN_H2, AcceptError, Caller, Tls, goodbye};

/// How long a refused client may take to read the alert.
const LINGER: Duration = Duration::from_millis(250);

/// A finished handshake with a client that proved who it is.
#[derive(Debug)]
#[non_exhaustive]
pub struct Accepted<IO> {
    /// The encrypted stream; ALPN has settled on `h2`.
    pub stream: ServerStream<IO>,
    /// Who called; belongs into the extensions of each request, where tonic puts it by the feature `tonic-server`.
    pub caller: Caller,
}

impl Tls {
    /// Makes the server's end of a TLS connection over `io`; the client has to prove an identity of the trust domain.
    ///
    /// Has no time limit of its own, except that a refused client gets a quarter of a second to read the alert.
    /// Needs a tokio runtime with its timer.
    ///
    /// # Errors
    /// [`AcceptError`]; the client was told by an alert where TLS has one for it.
    ///
    /// # Cancel safety
    /// Dropping the future closes `io`; the handshake cannot be taken up again.
    ///
    /// # Panics
    /// Outside a tokio runtime with its timer, when a client is refused.
    pub async fn accept<IO>(&self, io: IO) -> Result<Accepted<IO>, AcceptError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let snapshot = self.snapshot();
        let verifier = Arc::new(PeerVerifier::new(Arc::clone(&snapshot.verifier), None));
        let config = snapshot
            .server
            .config(Arc::clone(&verifier))
            .map_err(|error| AcceptError::Protocol { source: Box::new(error) })?;
        let handshake = TlsAcceptor::from(Arc::new(config)).accept(io).into_fallible().await;
        if verifier.outcome().is_some() {
            self.count_parsed();
        }
        let mut stream = match handshake {
            Ok(stream) => stream,
            Err((error, io)) => {
                let cause = Cause::new(error, &verifier);
                linger(io).await;
                return Err(cause.into());
            }
        };
        if stream.get_ref().1.alpn_protocol() != Some(ALPN_H2) {
            drop(tokio::time::timeout(LINGER, stream.shutdown()).await);
            return Err(AcceptError::NoAlpn);
        }
        let (Some(Ok(leaf)), Some(chain)) = (verifier.outcome(), peer_chain(stream.get_ref().1))
        else {
            return Err(AcceptError::NoCertificate);
        };
        let caller = Caller::new(leaf, chain);
        Ok(Accepted { stream: ServerStream { inner: stream }, caller })
    }
}

fn peer_chain(connection: &ServerConnection) -> Option<Vec<CertificateDer<'static>>> {
    connection.peer_certificates().map(<[_]>::to_vec)
}

/// Lets a refused client read the alert: closing a socket with unread bytes in it resets the connection, and the alert
/// may be lost with it.
async fn linger<IO: AsyncRead + AsyncWrite + Unpin>(mut io: IO) {
    let drain = async {
        io.shutdown().await?;
        let mut bytes = [0; 1024];
        // Bounded by time alone: a flood is read slower than it is sent, and ends with the deadline.
        while io.read(&mut bytes).await? != 0 {}
        io::Result::Ok(())
    };
    drop(tokio::time::timeout(LINGER, drain).await);
}

/// What the server's side of each connection has in common.
pub(crate) struct ServerTemplate {
    provider: Arc<CryptoProvider>,
    clock: Arc<dyn TimeProvider>,
    resolver: Arc<dyn ResolvesServerCert>,
}

impl ServerTemplate {
    pub(crate) fn new(
        provider: &Arc<CryptoProvider>,
        clock: &Clock,
        certified: &Arc<CertifiedKey>,
    ) -> Self {
        Self {
            provider: Arc::clone(provider),
            clock: Arc::new(clock.clone()),
            resolver: Arc::new(SingleCertAndKey::from(Arc::clone(certified))),
        }
    }

    /// A configuration for one connection, since its verifier keeps the typed outcome of that one.
    fn config(&self, verifier: Arc<PeerVerifier>) -> Result<ServerConfig, rustls::Error> {
        let mut config =
            ServerConfig::builder_with_details(Arc::clone(&self.provider), Arc::clone(&self.clock))
                .with_protocol_versions(&[&TLS13])?
                .with_client_cert_verifier(verifier)
                .with_cert_resolver(Arc::clone(&self.resolver));
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        // A resumed session would not look at the certificate again.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(config)
    }
}

/// The server's end of a TLS connection. Dropping it drops `IO` without a word; shut it down first to say goodbye.
pub struct ServerStream<IO> {
    inner: TlsStream<IO>,
}

impl<IO> ServerStream<IO> {
    /// The stream below the TLS connection.
    pub fn get_ref(&self) -> &IO {
        self.inner.get_ref().0
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for ServerStream<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(cx, buf).map_err(goodbye::explain)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ServerStream<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

impl<IO: fmt::Debug> fmt::Debug for ServerStream<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerStream").field("io", self.get_ref()).finish_non_exhaustive()
    }
}
