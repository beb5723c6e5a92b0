use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use aegis_core::Address;
use aegis_transport::{BoxFuture, BoxIo, Io, Listener, Network};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::mpsc;

/// Bytes in flight on one direction of a pipe.
const PIPE: usize = 64 * 1024;
/// Connections that wait for an accept.
const BACKLOG: usize = 128;
/// The first port that port 0 stands for.
const FIRST_PORT: u16 = 40_000;

/// A network of pipes within the process: what stands for the sockets of a [`TestMesh`](crate::TestMesh) in memory.
///
/// Only the sockets are replaced; TLS and HTTP/2 run over the pipes as they do over TCP.
/// All hosts are one host: an address means its port. [`at`](Self::at) gives the network as another host has it.
/// A clone is the same network.
#[derive(Debug, Clone, Default)]
pub struct MemoryNetwork {
    ports: Arc<Mutex<Ports>>,
    host: Option<IpAddr>,
}

#[derive(Debug, Default)]
struct Ports {
    listeners: HashMap<u16, Listening>,
    /// How many ports were given out, to listeners and to diallers.
    used: u16,
}

#[derive(Debug, Clone)]
struct Listening {
    host: Option<IpAddr>,
    /// Bound to an address of its own host only.
    inside: bool,
    accept: mpsc::Sender<BoxIo>,
}

impl Ports {
    fn next(&mut self) -> u16 {
        self.used = self.used.wrapping_add(1);
        FIRST_PORT.wrapping_add(self.used)
    }
}

impl MemoryNetwork {
    /// A network without listeners.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same network, seen from the host with this address: others see connections come from it, and a loopback address
    /// leads to this host's own listeners only, and what is bound to one is reached from here only.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// use aegis_testing::MemoryNetwork;
    /// use aegis_transport::Network as _;
    ///
    /// let network = MemoryNetwork::new();
    /// let (one, other) = (network.at("10.0.0.1".parse()?), network.at("10.0.0.2".parse()?));
    /// let _listener = one.bind(&"127.0.0.1:8443".parse()?).await?;
    /// assert!(one.connect(&"127.0.0.1:8443".parse()?).await.is_ok());
    /// assert!(other.connect(&"10.0.0.1:8443".parse()?).await.is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn at(&self, host: IpAddr) -> Self {
        Self { ports: Arc::clone(&self.ports), host: Some(host) }
    }

    /// Whether an address leads from here to a listener.
    fn leads_to(&self, address: &Address, listening: &Listening) -> bool {
        let Listening { host, inside, .. } = listening;
        match address.ip() {
            _ if *inside || address.is_loopback() => self.host == *host,
            Some(ip) => host.is_none_or(|host| host == ip),
            None => true,
        }
    }

    fn ports(&self) -> MutexGuard<'_, Ports> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Network for MemoryNetwork {
    fn connect(&self, address: &Address) -> BoxFuture<'static, io::Result<BoxIo>> {
        let (listening, port) = {
            let mut ports = self.ports();
            (ports.listeners.get(&address.port()).cloned(), ports.next())
        };
        let listening = listening.filter(|it| self.leads_to(address, it));
        let (address, own) = (address.clone(), self.host);
        Box::pin(async move {
            let refused = || {
                io::Error::new(
                    io::ErrorKind::ConnectionRefused,
                    format!("nobody listens on {address} in this test"),
                )
            };
            let Listening { host, accept, .. } = listening.ok_or_else(refused)?;
            let inside = address.is_loopback();
            let from = socket(own.filter(|_| !inside), port);
            let to = socket(host.filter(|_| !inside), address.port());
            let (near, far) = duplex(PIPE);
            let far: BoxIo = Box::new(Pipe { io: far, local: to, peer: from });
            accept.send(far).await.map_err(|_| refused())?;
            Ok(Box::new(Pipe { io: near, local: from, peer: to }) as BoxIo)
        })
    }

    fn bind(&self, address: &Address) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let mut ports = self.ports();
        let port = if address.port() == 0 { ports.next() } else { address.port() };
        // A listener that was dropped has freed its port.
        let taken = ports.listeners.get(&port).is_some_and(|it| !it.accept.is_closed());
        let result = if taken {
            Err(io::Error::from(io::ErrorKind::AddrInUse))
        } else {
            let (accept, incoming) = mpsc::channel(BACKLOG);
            let inside = address.is_loopback();
            let local = socket(self.host.filter(|_| !inside), port);
            ports.listeners.insert(port, Listening { host: self.host, inside, accept });
            Ok(Box::new(MemoryListener { local, incoming }) as Box<dyn Listener>)
        };
        Box::pin(std::future::ready(result))
    }
}

/// A port of a host, or of the one host that all are.
fn socket(host: Option<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::from((host.unwrap_or_else(|| Ipv4Addr::LOCALHOST.into()), port))
}

struct MemoryListener {
    local: SocketAddr,
    incoming: mpsc::Receiver<BoxIo>,
}

impl Listener for MemoryListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<BoxIo>> {
        Box::pin(async move {
            match self.incoming.recv().await {
                Some(io) => Ok(io),
                // Another listener took the port over; this one hears nothing any more.
                None => std::future::pending().await,
            }
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

struct Pipe {
    io: DuplexStream,
    local: SocketAddr,
    peer: SocketAddr,
}

impl Io for Pipe {
    fn peer_addr(&self) -> Option<SocketAddr> {
        Some(self.peer)
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        Some(self.local)
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
