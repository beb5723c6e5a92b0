use std::net::SocketAddr;

use aegis_testing::{TestCa, TestMesh};
use aegis_tls::{ClientStream, ConnectError, Expected};
use aegis_transport::BoxIo;
use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use super::LIMIT;

/// A TLS connection of the node `id`, before HTTP/2.
pub(crate) async fn tls(
    ca: &TestCa,
    id: &str,
    address: SocketAddr,
) -> Result<ClientStream<BoxIo>, ConnectError> {
    dial(&ca.tls(id, "test"), address).await
}

pub(crate) async fn dial(
    tls: &aegis_tls::Tls,
    address: SocketAddr,
) -> Result<ClientStream<BoxIo>, ConnectError> {
    let io = TcpStream::connect(address).await.map_err(|source| ConnectError::Io { source })?;
    // As every client of HTTP/2: else what is small waits for an acknowledgement of what went before, 40 ms and more.
    io.set_nodelay(true).map_err(|source| ConnectError::Io { source })?;
    over(tls, Box::new(io)).await
}

/// The same over what stands for the network of a mesh.
pub(crate) async fn tls_in(mesh: &TestMesh, id: &str, address: SocketAddr) -> ClientStream<BoxIo> {
    let io = mesh.network().connect(&address.into()).await.unwrap();
    over(&mesh.ca().tls(id, "test"), io).await.unwrap()
}

async fn over(tls: &aegis_tls::Tls, io: BoxIo) -> Result<ClientStream<BoxIo>, ConnectError> {
    Ok(tls.connect(Expected::AnyMember, io).await?.stream)
}

/// A peer that speaks HTTP/2 and nothing of ours.
pub(crate) struct Peer {
    send: SendRequest<Bytes>,
    driver: AbortOnDropHandle<Result<(), h2::Error>>,
}

/// The whole answer to a call.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: http::response::Parts,
    pub(crate) data: Vec<u8>,
    pub(crate) trailers: HeaderMap,
}

impl Answer {
    /// What `grpc-status` says, in the trailers or, where there is nothing else, in the head.
    pub(crate) fn code(&self) -> Option<&str> {
        self.field("grpc-status")
    }

    pub(crate) fn text(&self) -> &str {
        self.field("grpc-message").unwrap_or_default()
    }

    fn field(&self, name: &str) -> Option<&str> {
        let value = self.trailers.get(name).or_else(|| self.head.headers.get(name));
        value.and_then(|value| value.to_str().ok())
    }
}

impl Peer {
    pub(crate) async fn connect(ca: &TestCa, id: &str, address: SocketAddr) -> Self {
        Self::over(tls(ca, id, address).await.unwrap()).await.unwrap()
    }

    pub(crate) async fn over(io: ClientStream<BoxIo>) -> Result<Self, h2::Error> {
        Self::with(&mut Builder::new(), io).await
    }

    pub(crate) async fn with(
        builder: &mut Builder,
        io: ClientStream<BoxIo>,
    ) -> Result<Self, h2::Error> {
        // Its own guards are none of what is tested here.
        let handshake = builder
            .data_frame_budget(256 << 20)
            // One stream's window times as many as are left unread here.
            .initial_connection_window_size(16 * 65_535)
            .max_local_error_reset_streams(None)
            .handshake(io);
        let (send, connection) = handshake.await?;
        let driver = AbortOnDropHandle::new(tokio::spawn(connection));
        Ok(Self { send: send.ready().await?, driver })
    }

    /// Begins a call; its request goes on with the stream.
    pub(crate) async fn open(
        &self,
        request: Request<()>,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        self.send.clone().ready().await?.send_request(request, false)
    }

    pub(crate) async fn send(
        &self,
        request: Request<()>,
        body: Bytes,
    ) -> Result<Response<RecvStream>, h2::Error> {
        let (response, mut stream) = self.open(request).await?;
        // A server that needs no body may have answered, and ended the stream, before it was sent.
        stream.send_data(body, true).ok();
        response.await
    }

    pub(crate) async fn call(
        &self,
        request: Request<()>,
        body: Bytes,
    ) -> Result<Answer, h2::Error> {
        read(self.send(request, body).await?).await
    }

    /// A call that any server answers at once; it has to go well.
    pub(crate) async fn ask(&self) -> String {
        let answer = tokio::time::timeout(LIMIT, self.call(post("Seen"), Bytes::new()));
        let answer = answer.await.expect("the call hangs").expect("the call broke");
        assert_eq!(answer.code(), Some("0"), "{answer:?}");
        String::from_utf8(answer.data[5..].to_vec()).unwrap()
    }

    /// Waits until the connection is closed.
    pub(crate) async fn closed(&mut self) {
        tokio::time::timeout(LIMIT, &mut self.driver).await.expect("still open").unwrap().ok();
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.driver.is_finished()
    }
}

pub(crate) async fn read(response: Response<RecvStream>) -> Result<Answer, h2::Error> {
    let (head, mut body) = response.into_parts();
    let mut data = Vec::new();
    while let Some(piece) = body.data().await.transpose()? {
        body.flow_control().release_capacity(piece.len())?;
        data.extend(piece);
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    Ok(Answer { head, data, trailers })
}

/// A gRPC request for a method of the lab.
pub(crate) fn post(method: &str) -> Request<()> {
    Request::post(format!("https://server/test.Lab/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}
