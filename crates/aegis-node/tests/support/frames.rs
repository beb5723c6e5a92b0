use std::net::SocketAddr;
use std::time::Duration;

use aegis_testing::TestCa;
use aegis_tls::ClientStream;
use aegis_transport::BoxIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::time::timeout;

use super::{LIMIT, tls};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a server may take no bytes before a flood is given up.
const PATIENCE: Duration = Duration::from_millis(500);
pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Data = 0,
    Headers = 1,
    Priority = 2,
    Reset = 3,
    Settings = 4,
    Ping = 6,
    GoAway = 7,
    WindowUpdate = 8,
    Continuation = 9,
    Other = 0xff,
}

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// A number in the payload, four bytes each: an error code, a window, a last stream.
    pub(crate) fn word(&self, index: usize) -> u32 {
        u32::from_be_bytes(self.payload[4 * index..4 * index + 4].try_into().unwrap())
    }
}

/// A client's end of a connection, frame by frame; it answers nothing by itself.
pub(crate) struct Frames {
    read: ReadHalf<ClientStream<BoxIo>>,
    write: WriteHalf<ClientStream<BoxIo>>,
}

impl Frames {
    /// Connects, and sends the preface and empty SETTINGS.
    pub(crate) async fn connect(ca: &TestCa, id: &str, address: SocketAddr) -> Self {
        Self::over(tls(ca, id, address).await.unwrap()).await
    }

    pub(crate) async fn over(io: ClientStream<BoxIo>) -> Self {
        let (read, write) = split(io);
        let mut frames = Self { read, write };
        frames.write(PREFACE).await;
        frames.send(Kind::Settings, 0, 0, &[]).await;
        frames
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.write.write_all(bytes).await.unwrap();
        self.write.flush().await.unwrap();
    }

    pub(crate) async fn send(&mut self, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
        let mut bytes = Vec::new();
        put(&mut bytes, kind, flags, stream, payload);
        self.write(&bytes).await;
    }

    /// Writes while the server takes it, and forgets what comes meanwhile; false once it closed or took no more.
    pub(crate) async fn pour(&mut self, bytes: &[u8]) -> bool {
        let Self { read, write } = self;
        let swallowing = async {
            let mut bytes = vec![0; 1 << 16];
            while let Ok(1..) = read.read(&mut bytes).await {}
        };
        tokio::select! {
            poured = pour(write, bytes) => poured,
            () = swallowing => false,
        }
    }

    /// As [`pour`](Self::pour), without reading anything.
    pub(crate) async fn pour_deaf(&mut self, bytes: &[u8]) -> bool {
        pour(&mut self.write, bytes).await
    }

    /// The next frame; `None` once the server has closed.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        let read = &mut self.read;
        timeout(LIMIT, async {
            let mut head = [0; 9];
            read.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            read.read_exact(&mut payload).await.ok()?;
            let kind = match head[3] {
                0 => Kind::Data,
                1 => Kind::Headers,
                2 => Kind::Priority,
                3 => Kind::Reset,
                4 => Kind::Settings,
                6 => Kind::Ping,
                7 => Kind::GoAway,
                8 => Kind::WindowUpdate,
                9 => Kind::Continuation,
                _ => Kind::Other,
            };
            let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
            Some(Frame { kind, flags: head[4], stream, payload })
        })
        .await
        .expect("the server neither sends nor closes")
    }

    /// The next frame of a kind that is no acknowledgement; others are skipped.
    pub(crate) async fn next(&mut self, kind: Kind) -> Frame {
        loop {
            let frame = self.frame().await.unwrap_or_else(|| panic!("closed before {kind:?}"));
            let acknowledges =
                matches!(kind, Kind::Settings | Kind::Ping) && frame.flags & ACK != 0;
            if frame.kind == kind && !acknowledges {
                return frame;
            }
        }
    }

    /// All frames until the server closes.
    pub(crate) async fn rest(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.frame().await {
            frames.push(frame);
        }
        frames
    }
}

async fn pour(write: &mut WriteHalf<ClientStream<BoxIo>>, bytes: &[u8]) -> bool {
    let pouring = async {
        write.write_all(bytes).await?;
        write.flush().await
    };
    matches!(timeout(PATIENCE, pouring).await, Ok(Ok(())))
}

pub(crate) fn put(bytes: &mut Vec<u8>, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    bytes.extend(&length[1..]);
    bytes.extend([kind as u8, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
}

/// The header block of a gRPC request for a path (RFC 7541, literals without indexing).
pub(crate) fn request_block(path: &str) -> Vec<u8> {
    // `:method: POST` and `:scheme: https` of the static table.
    let mut block = vec![0x83, 0x87];
    for (name, value) in [
        (":path", path),
        (":authority", "server"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        block.extend(field(name, value));
    }
    block
}

/// A literal header field, not indexed (RFC 7541 §6.2.2), for names and values below 127 bytes.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).ok().filter(|it| *it < 127).unwrap();
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}
