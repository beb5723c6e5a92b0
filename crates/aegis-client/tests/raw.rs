//! A peer that writes HTTP/2 frames by hand: what no well-behaved library would send.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::mesh::Mesh;

pub(crate) const PREFACE: usize = 24;
const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;

/// What it does when a request's HEADERS arrive.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Raw {
    /// GOAWAY whose last stream is the one before: this one was not processed.
    GoAwayBefore,
    /// GOAWAY that counts the stream among the processed, then the end of the connection.
    GoAwayAfter,
    /// `RST_STREAM` with this code.
    Reset(u32),
    /// The end of the connection.
    Cut,
    /// A frame that breaks the protocol, so that the client ends the connection.
    Nonsense,
    /// Nothing, from then on, on whichever connection: a process that is stopped. Before, it allowed so many streams.
    Silence { streams: u32 },
    /// [`GoAwayBefore`](Self::GoAwayBefore) with the first request, `INTERNAL_ERROR` with the others.
    GoAwayOnceThenReset,
}

pub(crate) struct RawPeer {
    pub(crate) address: SocketAddr,
    requests: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl RawPeer {
    pub(crate) async fn start(mesh: &Mesh, id: &str, raw: Raw) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = mesh.tls(id);
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (io, _) = listener.accept().await.unwrap();
                let (tls, count) = (tls.clone(), Arc::clone(&count));
                connections.spawn(async move {
                    if matches!(raw, Raw::Silence { .. }) && 0 < count.load(Ordering::SeqCst) {
                        return std::future::pending().await;
                    }
                    if let Ok(accepted) = tls.accept(io).await {
                        drop(play(accepted.stream, raw, &count).await);
                    }
                });
            }
        });
        Self { address, requests, _tasks: tasks }
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn play<IO>(mut io: IO, raw: Raw, count: &AtomicUsize) -> std::io::Result<()>
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    io.read_exact(&mut [0; PREFACE]).await?;
    let mut settings = Vec::new();
    if let Raw::Silence { streams } = raw {
        settings.extend_from_slice(&MAX_CONCURRENT_STREAMS.to_be_bytes());
        settings.extend_from_slice(&streams.to_be_bytes());
    }
    write(&mut io, SETTINGS, 0, 0, &settings).await?;
    loop {
        let mut head = [0; 9];
        io.read_exact(&mut head).await?;
        let (kind, flags) = (head[3], head[4]);
        // The length has three bytes; the fourth here is the type.
        let length = u32::from_be_bytes([head[0], head[1], head[2], 0]) >> 8;
        let mut payload = vec![0; length as usize];
        io.read_exact(&mut payload).await?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match kind {
            SETTINGS if flags & ACK == 0 => write(&mut io, SETTINGS, ACK, 0, &[]).await?,
            PING if flags & ACK == 0 => write(&mut io, PING, ACK, 0, &payload).await?,
            HEADERS => {
                let before = count.fetch_add(1, Ordering::SeqCst);
                let raw = match raw {
                    Raw::GoAwayOnceThenReset if before == 0 => Raw::GoAwayBefore,
                    Raw::GoAwayOnceThenReset => Raw::Reset(h2::Reason::INTERNAL_ERROR.into()),
                    raw => raw,
                };
                match raw {
                    Raw::GoAwayBefore => go_away(&mut io, stream.saturating_sub(2)).await?,
                    Raw::GoAwayAfter => {
                        go_away(&mut io, stream).await?;
                        return Ok(());
                    }
                    Raw::Reset(code) => {
                        write(&mut io, RST_STREAM, 0, stream, &code.to_be_bytes()).await?;
                    }
                    Raw::Cut => return Ok(()),
                    // DATA on stream 0.
                    Raw::Nonsense => write(&mut io, DATA, 0, 0, &[0; 4]).await?,
                    Raw::Silence { .. } => return std::future::pending().await,
                    Raw::GoAwayOnceThenReset => unreachable!("replaced above"),
                }
            }
            _ => {}
        }
    }
}

async fn go_away<IO: tokio::io::AsyncWrite + Unpin>(io: &mut IO, last: u32) -> std::io::Result<()> {
    let mut payload = last.to_be_bytes().to_vec();
    payload.extend_from_slice(&[0; 4]);
    write(io, GOAWAY, 0, 0, &payload).await
}

pub(crate) async fn write<IO: tokio::io::AsyncWrite + Unpin>(
    io: &mut IO,
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &[u8],
) -> std::io::Result<()> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![a, b, c, kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    io.write_all(&frame).await?;
    io.flush().await
}
