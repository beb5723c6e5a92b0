use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use aegis_core::Address;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, lookup_host};

/// A boxed future, as the methods of [`Network`] and [`Listener`] return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A byte stream between two processes, before TLS.
pub type BoxIo = Box<dyn Io>;

/// Where byte streams come from: sockets ([`Tcp`]), or pipes in memory in tests.
///
/// The only door of aegis to the outside; TLS and HTTP/2 always run above it. It is there for tests, `aegis-testing` above all:
/// nothing in production needs another than [`Tcp`], and with [`Io`] and [`Listener`] it may change with any release.
pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// Opens a byte stream to an address; dropping the future gives the attempt up.
    ///
    /// It need not end by itself: the dialler has a limit of its own.
    ///
    /// # Errors
    ///
    /// What the system says; it becomes the source of [`DialError::Unreachable`](crate::DialError::Unreachable).
    fn connect(&self, address: &Address) -> BoxFuture<'static, io::Result<BoxIo>>;

    /// Listens on an address; port 0 lets the system choose one.
    ///
    /// # Errors
    ///
    /// What the system says; the operator has to free or change the address.
    fn bind(&self, address: &Address) -> BoxFuture<'static, io::Result<Box<dyn Listener>>>;
}

/// One byte stream.
///
/// Part of the test seam, see [`Network`]: its supertraits are tokio's, so whoever implements it depends on tokio 1 as aegis does.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// The other end's socket address, where there is one.
    fn peer_addr(&self) -> Option<SocketAddr>;

    /// This end's socket address, where there is one.
    fn local_addr(&self) -> Option<SocketAddr>;
}

/// Accepts byte streams; dropping it stops listening.
///
/// Part of the test seam, see [`Network`].
pub trait Listener: Send + 'static {
    /// Waits for the next one.
    ///
    /// # Errors
    ///
    /// What the system says; the next call may succeed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no stream.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<BoxIo>>;

    /// The address that was bound, with the port the system chose.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// TCP sockets with `TCP_NODELAY`: the default.
///
/// A host name is resolved for each connection, on tokio's blocking threads; of several addresses the first that works is
/// taken. Its futures have to be polled inside a tokio runtime with I/O.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Tcp;

impl Network for Tcp {
    fn connect(&self, address: &Address) -> BoxFuture<'static, io::Result<BoxIo>> {
        let address = address.clone();
        Box::pin(async move {
            let mut last = None;
            for address in resolve(&address).await? {
                match TcpStream::connect(address).await {
                    Ok(stream) => {
                        set_nodelay(&stream);
                        return Ok(Box::new(stream) as BoxIo);
                    }
                    Err(error) => last = Some(error),
                }
            }
            Err(last.unwrap_or_else(|| no_such_host(&address)))
        })
    }

    fn bind(&self, address: &Address) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let address = address.clone();
        Box::pin(async move {
            let mut last = None;
            for address in resolve(&address).await? {
                match TcpListener::bind(address).await {
                    Ok(listener) => return Ok(Box::new(listener) as Box<dyn Listener>),
                    Err(error) => last = Some(error),
                }
            }
            Err(last.unwrap_or_else(|| no_such_host(&address)))
        })
    }
}

impl Io for TcpStream {
    fn peer_addr(&self) -> Option<SocketAddr> {
        Self::peer_addr(self).ok()
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        Self::local_addr(self).ok()
    }
}

impl Io for BoxIo {
    fn peer_addr(&self) -> Option<SocketAddr> {
        (**self).peer_addr()
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        (**self).local_addr()
    }
}

impl Listener for TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<BoxIo>> {
        Box::pin(async move {
            let (stream, _) = Self::accept(self).await?;
            set_nodelay(&stream);
            Ok(Box::new(stream) as BoxIo)
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }
}

async fn resolve(address: &Address) -> io::Result<Vec<SocketAddr>> {
    match address.ip() {
        // No resolver, and no blocking thread, for what is an address already.
        Some(ip) => Ok(vec![SocketAddr::new(ip, address.port())]),
        None => Ok(lookup_host((address.host(), address.port())).await?.collect()),
    }
}

/// A socket that is broken already says so at its first read; it must not look like a failure to accept.
fn set_nodelay(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
}

fn no_such_host(address: &Address) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("the name {} has no address", address.host()))
}
