use aegis_tls::ServerStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A server's end of a connection, frame by frame; the preface has been read.
pub(crate) struct Raw {
    io: ServerStream<TcpStream>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Data = 0,
    Headers = 1,
    Reset = 3,
    Settings = 4,
    Ping = 6,
    GoAway = 7,
    WindowUpdate = 8,
    Continuation = 9,
    Other = 0xff,
}

impl Frame {
    pub(crate) fn ends_stream(&self) -> bool {
        self.flags & 1 != 0
    }

    /// The first number of the payload: an error code, a window, a last stream.
    pub(crate) fn word(&self) -> u32 {
        u32::from_be_bytes(self.payload[..4].try_into().unwrap())
    }
}

const MAX_CONCURRENT_STREAMS: u16 = 3;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
pub(crate) const STATUS_200: &[u8] = &[0x88];

impl Raw {
    pub(crate) async fn new(mut io: ServerStream<TcpStream>) -> Self {
        let mut preface = [0; 24];
        io.read_exact(&mut preface).await.unwrap();
        Self { io }
    }

    /// The next frame; `None` once the client has closed.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.io.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.io.read_exact(&mut payload).await.ok()?;
        let kind = match head[3] {
            0 => Kind::Data,
            1 => Kind::Headers,
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
    }

    /// The next frame of a kind; others are skipped, PINGs answered.
    pub(crate) async fn next(&mut self, kind: Kind) -> Frame {
        loop {
            let frame = self.frame().await.unwrap_or_else(|| panic!("closed before {kind:?}"));
            if frame.kind == Kind::Ping && frame.flags & ACK == 0 {
                self.send(Kind::Ping, ACK, 0, &frame.payload).await;
            }
            if frame.kind == kind && (kind != Kind::Settings || frame.flags & ACK == 0) {
                return frame;
            }
        }
    }

    pub(crate) async fn send(&mut self, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([kind as u8, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        self.io.write_all(&bytes).await.unwrap();
        self.io.flush().await.unwrap();
    }

    /// Sends our SETTINGS, takes and acknowledges the client's.
    pub(crate) async fn greet(&mut self, max_streams: u32) {
        self.settings(max_streams).await;
        self.next(Kind::Settings).await;
        self.send(Kind::Settings, ACK, 0, &[]).await;
    }

    pub(crate) async fn settings(&mut self, max_streams: u32) {
        let mut payload = MAX_CONCURRENT_STREAMS.to_be_bytes().to_vec();
        payload.extend(max_streams.to_be_bytes());
        self.send(Kind::Settings, 0, 0, &payload).await;
    }

    /// SETTINGS and a GOAWAY that the client reads together; then it is gone.
    pub(crate) async fn settings_and_go_away(mut self, max_streams: u16) {
        let [high, low] = max_streams.to_be_bytes();
        let settings = [0, 0, 6, Kind::Settings as u8, 0, 0, 0, 0, 0, 0, 3, 0, 0, high, low];
        let go_away = [0, 0, 8, Kind::GoAway as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        self.io.write_all(&[&settings[..], &go_away[..]].concat()).await.unwrap();
        self.io.flush().await.unwrap();
        self.closed().await;
    }

    /// Waits until the client has read everything so far: it has answered a PING.
    pub(crate) async fn ping(&mut self) {
        self.send(Kind::Ping, 0, 0, &[7; 8]).await;
        loop {
            let frame = self.next(Kind::Ping).await;
            if frame.flags & ACK != 0 && frame.payload == [7; 8] {
                return;
            }
        }
    }

    /// The id of the next stream that the client opens.
    pub(crate) async fn opened(&mut self) -> u32 {
        self.next(Kind::Headers).await.stream
    }

    /// The head of a response, without its end.
    pub(crate) async fn head(&mut self, stream: u32) {
        self.send(Kind::Headers, END_HEADERS, stream, STATUS_200).await;
    }

    pub(crate) async fn data(&mut self, stream: u32, data: &[u8]) {
        self.send(Kind::Data, 0, stream, data).await;
    }

    /// `grpc-status: 0` as trailers, or as the whole response.
    pub(crate) async fn trailers(&mut self, stream: u32) {
        self.send(Kind::Headers, END_HEADERS | END_STREAM, stream, &field("grpc-status", "0"))
            .await;
    }

    /// A whole response without data.
    pub(crate) async fn answer(&mut self, stream: u32) {
        self.head(stream).await;
        self.trailers(stream).await;
    }

    pub(crate) async fn trailers_only(&mut self, stream: u32, fields: &[(&str, &[u8])]) {
        let mut block = STATUS_200.to_vec();
        for (name, value) in fields {
            block.extend(field(name, value));
        }
        self.send(Kind::Headers, END_HEADERS | END_STREAM, stream, &block).await;
    }

    pub(crate) async fn headers(&mut self, stream: u32, flags: u8, block: &[u8]) {
        self.send(Kind::Headers, flags, stream, block).await;
    }

    pub(crate) async fn reset(&mut self, stream: u32, code: u32) {
        self.send(Kind::Reset, 0, stream, &code.to_be_bytes()).await;
    }

    pub(crate) async fn go_away(&mut self, last: u32, code: u32, debug: &str) {
        let payload = [&last.to_be_bytes(), &code.to_be_bytes(), debug.as_bytes()].concat();
        self.send(Kind::GoAway, 0, 0, &payload).await;
    }

    pub(crate) async fn window(&mut self, stream: u32, more: u32) {
        self.send(Kind::WindowUpdate, 0, stream, &more.to_be_bytes()).await;
    }

    /// Whether the client closes the connection, after whatever it still sends.
    pub(crate) async fn closed(&mut self) {
        while self.frame().await.is_some() {}
    }
}

/// A literal header field, not indexed (RFC 7541 §6.2.2), for names and values below 127 bytes.
pub(crate) fn field(name: &str, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    let length = |text: &[u8]| u8::try_from(text.len()).ok().filter(|it| *it < 127).unwrap();
    [&[0, length(name.as_bytes())], name.as_bytes(), &[length(value)], value].concat()
}
