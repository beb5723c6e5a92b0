//! A gRPC service without a proto: its messages are bytes, and its one method does what a row of the table says.
//!
//! Server and client are what tonic generates, except that there are four kinds of the one method.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::{
    Codec, CompressionEncoding, DecodeBuf, Decoder, EnabledCompressionEncodings, EncodeBuf, Encoder,
};
use tonic::codegen::{BoxStream, Service};
use tonic::server::NamedService;
use tonic::{IntoRequest, IntoStreamingRequest, Request, Response, Status, Streaming};
use tower::service_fn;

use super::wire::Wire;

pub(crate) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
pub(crate) type Reply<T> = Result<Response<T>, Status>;

type Handle<M, R> = Arc<dyn Fn(Request<M>) -> Boxed<Reply<R>> + Send + Sync>;

/// What `Call` does. `Down` and `Both` answer with a stream, `Up` and `Both` take one.
#[derive(Clone)]
pub(crate) enum Method {
    Unary(Handle<Bytes, Bytes>),
    Down(Handle<Bytes, BoxStream<Bytes>>),
    Up(Handle<Streaming<Bytes>, Bytes>),
    Both(Handle<Streaming<Bytes>, BoxStream<Bytes>>),
}

/// What a generated server and a generated client let their user set.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    pub(crate) accept: Vec<CompressionEncoding>,
    pub(crate) send: Option<CompressionEncoding>,
    pub(crate) decode: Option<usize>,
    pub(crate) encode: Option<usize>,
}

#[derive(Clone)]
pub(crate) struct EchoServer {
    pub(crate) method: Method,
    pub(crate) settings: Settings,
}

impl NamedService for EchoServer {
    const NAME: &'static str = "test.Echo";
}

impl Service<http::Request<Body>> for EchoServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Boxed<Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Self { method, settings } = self.clone();
        Box::pin(async move {
            let mut accept = EnabledCompressionEncodings::default();
            settings.accept.into_iter().for_each(|encoding| accept.enable(encoding));
            let mut send = EnabledCompressionEncodings::default();
            settings.send.into_iter().for_each(|encoding| send.enable(encoding));
            let mut grpc = tonic::server::Grpc::new(Raw)
                .apply_compression_config(accept, send)
                .apply_max_message_size_config(settings.decode, settings.encode);
            Ok(match (request.uri().path(), method) {
                ("/test.Echo/Ping", _) => {
                    let ping =
                        |request: Request<Bytes>| async { Ok(Response::new(request.into_inner())) };
                    grpc.unary(service_fn(ping), request).await
                }
                ("/test.Echo/Call", Method::Unary(call)) => {
                    grpc.unary(service_fn(move |request| call(request)), request).await
                }
                ("/test.Echo/Call", Method::Down(call)) => {
                    grpc.server_streaming(service_fn(move |request| call(request)), request).await
                }
                ("/test.Echo/Call", Method::Up(call)) => {
                    grpc.client_streaming(service_fn(move |request| call(request)), request).await
                }
                ("/test.Echo/Call", Method::Both(call)) => {
                    grpc.streaming(service_fn(move |request| call(request)), request).await
                }
                _ => Status::unimplemented("").into_http(),
            })
        })
    }
}

/// A client of the service, and where the server listens.
#[derive(Clone)]
pub(crate) struct Client {
    grpc: Grpc<Wire>,
    path: &'static str,
    pub(crate) server: SocketAddr,
}

impl Client {
    pub(crate) fn new(wire: Wire, settings: Settings, server: SocketAddr) -> Self {
        let mut grpc = Grpc::new(wire);
        for encoding in settings.accept {
            grpc = grpc.accept_compressed(encoding);
        }
        if let Some(encoding) = settings.send {
            grpc = grpc.send_compressed(encoding);
        }
        if let Some(limit) = settings.decode {
            grpc = grpc.max_decoding_message_size(limit);
        }
        if let Some(limit) = settings.encode {
            grpc = grpc.max_encoding_message_size(limit);
        }
        Self { grpc, path: "/test.Echo/Call", server }
    }

    /// Calls something else.
    pub(crate) fn at(self, path: &'static str) -> Self {
        Self { path, ..self }
    }

    pub(crate) async fn unary(&mut self, request: impl IntoRequest<Bytes>) -> Reply<Bytes> {
        let path = self.ready().await?;
        self.grpc.unary(request.into_request(), path, Raw).await
    }

    pub(crate) async fn down(
        &mut self,
        request: impl IntoRequest<Bytes>,
    ) -> Reply<Streaming<Bytes>> {
        let path = self.ready().await?;
        self.grpc.server_streaming(request.into_request(), path, Raw).await
    }

    pub(crate) async fn up(
        &mut self,
        request: impl IntoStreamingRequest<Message = Bytes>,
    ) -> Reply<Bytes> {
        let path = self.ready().await?;
        self.grpc.client_streaming(request.into_streaming_request(), path, Raw).await
    }

    pub(crate) async fn both(
        &mut self,
        request: impl IntoStreamingRequest<Message = Bytes>,
    ) -> Reply<Streaming<Bytes>> {
        let path = self.ready().await?;
        self.grpc.streaming(request.into_streaming_request(), path, Raw).await
    }

    async fn ready(&mut self) -> Result<http::uri::PathAndQuery, Status> {
        self.grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        Ok(http::uri::PathAndQuery::from_static(self.path))
    }
}

/// A codec of messages that are their own encoding.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
