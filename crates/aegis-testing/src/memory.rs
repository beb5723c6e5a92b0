use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
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
/// All hosts are one host: an address means its port.
#[derive(Debug, Clone, Default)]
pub struct MemoryNetwork(Arc<Mutex<Ports>>);

#[derive(Debug, Default)]
struct Ports {
    listeners: HashMap<u16, mpsc::Sender<BoxIo>>,
    /// How many ports were given out, to listeners and to diallers.
    used: u16,
}

impl Ports {
    fn next(&mut self) -> SocketAddr {
        self.used = self.used.wrapping_add(1);
        local(FIRST_PORT.wrapping_add(self.used))
    }
}

impl MemoryNetwork {
    /// A network without listeners.
    pub fn new() -> Self {
        Self::default()
    }

    fn ports(&self) -> MutexGuard<'_, Ports> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Network for MemoryNetwork {
    fn connect(&self, address: &Address) -> BoxFuture<'static, io::Result<BoxIo>> {
        let (listener, from) = {
            let mut ports = self.ports();
            (ports.listeners.get(&address.port()).cloned(), ports.next())
        };
        let to = local(address.port());
        Box::pin(async move {
            let refused = || {
                io::Error::new(
                    io::ErrorKind::ConnectionRefused,
                    format!("nobody listens on {to} in this test"),
                )
            };
            let listener = listener.ok_or_else(refused)?;
            let (near, far) = duplex(PIPE);
            let far: BoxIo = Box::new(Pipe { io: far, local: to, peer: from });
            listener.send(far).await.map_err(|_| refused())?;
            Ok(Box::new(Pipe { io: near, local: from, peer: to }) as BoxIo)
        })
    }

    fn bind(&self, address: &Address) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let mut ports = self.ports();
        let local = if address.port() == 0 { ports.next() } else { local(address.port()) };
        // A listener that was dropped has freed its port.
        let taken =
            ports.listeners.get(&local.port()).is_some_and(|listener| !listener.is_closed());
        let result = if taken {
            Err(io::Error::from(io::ErrorKind::AddrInUse))
        } else {
            let (sender, incoming) = mpsc::channel(BACKLOG);
            ports.listeners.insert(local.port(), sender);
            Ok(Box::new(MemoryListener { local, incoming }) as Box<dyn Listener>)
        };
        Box::pin(std::future::ready(result))
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
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
