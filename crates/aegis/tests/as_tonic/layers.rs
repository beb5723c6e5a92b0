//! Interceptors and tower layers, on both sides.

use bytes::Bytes;
use http::HeaderValue;
use http_body_util::BodyExt as _;
use tonic::body::Body;
use tonic::{Request, Status};
use tower::ServiceExt as _;

use super::describe::{say, stream, unary};
use super::row::Row;
use super::wire::{Answer, Wire};

/// Says what a layer or an interceptor left in the request.
fn marks(request: &Request<Bytes>) -> String {
    let mark = request.metadata().get("mark").map(|mark| mark.to_str().unwrap().to_owned());
    format!("{mark:?} {:?}", request.extensions().get::<Mark>())
}

#[derive(Clone, Debug)]
#[expect(dead_code, reason = "shown")]
struct Mark(&'static str);

/// An error that is no status.
#[derive(Debug, thiserror::Error)]
#[error("a layer's own error")]
struct Own;

fn refused() -> Status {
    let mut status = Status::with_details(
        tonic::Code::FailedPrecondition,
        "not like this",
        Bytes::from_static(&[1, 2, 3]),
    );
    status.metadata_mut().insert("why", "because".parse().unwrap());
    status
        .metadata_mut()
        .insert_bin("why-bin", tonic::metadata::MetadataValue::from_bytes(&[0, 255]));
    status
}

fn refusable() -> Request<Bytes> {
    let mut request = Request::new(Bytes::new());
    request.metadata_mut().insert("refuse", "yes".parse().unwrap());
    request
}

fn refuse(request: Request<()>) -> Result<Request<()>, Status> {
    if request.metadata().contains_key("refuse") { Err(refused()) } else { Ok(request) }
}

pub(crate) fn rows() -> Vec<Row> {
    [interceptors(), server_layers(), failing_server_layers(), client_layers()]
        .into_iter()
        .flatten()
        .collect()
}

fn interceptors() -> Vec<Row> {
    vec![
        Row::unary(
            "an interceptor of the client adds to the request",
            |request| async move { say(marks(&request)) },
            |mut client| async move { unary(client.unary(Bytes::new()).await) },
        )
        .client_intercept(|mut request| {
            request.metadata_mut().insert("mark", "client".parse().unwrap());
            Ok(request)
        })
        .shows([
            "head {content-type: \"application/grpc\", grpc-status: \"0\"}",
            "message \"Some(\\\"client\\\") None\"",
        ]),
        Row::unary(
            "an interceptor of the client answers instead",
            |_| async { say("called") },
            |mut client| async move { unary(client.unary(refusable()).await) },
        )
        .client_intercept(refuse),
        Row::unary(
            "an interceptor of the server adds to the request",
            |request| async move { say(marks(&request)) },
            |mut client| async move { unary(client.unary(Bytes::new()).await) },
        )
        .server_intercept(|mut request| {
            request.metadata_mut().insert("mark", "server".parse().unwrap());
            request.extensions_mut().insert(Mark("extension"));
            Ok(request)
        })
        .shows([
            "head {content-type: \"application/grpc\", grpc-status: \"0\"}",
            "message \"Some(\\\"server\\\") Some(Mark(\\\"extension\\\"))\"",
        ]),
        Row::unary(
            "an interceptor of the server sees where the call comes from",
            |request| async move { say(marks(&request)) },
            |mut client| async move { unary(client.unary(Bytes::new()).await) },
        )
        .server_intercept(|mut request| {
            let known = request.remote_addr().is_some() && request.local_addr().is_some();
            request.extensions_mut().insert(Mark(if known { "known" } else { "unknown" }));
            Ok(request)
        }),
        Row::unary(
            "an interceptor of the server refuses",
            |_| async { say("called") },
            |mut client| async move { unary(client.unary(refusable()).await) },
        )
        .server_intercept(refuse)
        .shows(["status FailedPrecondition \"not like this\" details [1, 2, 3] \
                 {content-type: \"application/grpc\", why: \"because\", why-bin: [0, 255]}"]),
        Row::down(
            "an interceptor of the server refuses a stream",
            |_| async { Err(Status::internal("called")) },
            |mut client| async move { stream(client.down(refusable()).await).await },
        )
        .server_intercept(refuse),
    ]
}

fn server_layers() -> Vec<Row> {
    vec![
        Row::unary(
            "a layer of the server sees the request and changes both",
            |request| async move { say(marks(&request)) },
            |mut client| async move { unary(client.unary(Bytes::new()).await) },
        )
        .server_layer(|mut request, inner| async move {
            let path = HeaderValue::from_str(request.uri().path()).unwrap();
            request.headers_mut().insert("mark", path);
            request.extensions_mut().insert(Mark("layer"));
            let mut response = inner.oneshot(request).await?;
            response.headers_mut().insert("stamp", HeaderValue::from_static("layer"));
            Ok(response)
        })
        .shows([
            "head {content-type: \"application/grpc\", grpc-status: \"0\", stamp: \"layer\"}",
            "message \"Some(\\\"/test.Echo/Call\\\") Some(Mark(\\\"layer\\\"))\"",
        ]),
        Row::unary(
            "the first layer of the server is the outermost",
            |request| async move { say(marks(&request)) },
            |mut client| async move { unary(client.unary(Bytes::new()).await) },
        )
        .server_layer(|request, inner| marking("first", request, inner))
        .second_server_layer(|request, inner| marking("second", request, inner))
        .shows([
            "head {content-type: \"application/grpc\", grpc-status: \"0\", stamp: \"second\" & \"first\"}",
            "message \"Some(\\\"second\\\") None\"",
        ]),
        Row::unary(
            "a layer of the server around a service that the server has not",
            |_| async { say("called") },
            |client| async move { unary(client.at("/test.Nobody/Call").unary(Bytes::new()).await) },
        )
        .server_layer(|request, inner| marking("first", request, inner))
        .differs(
            "the layers of a node are around its handlers, and an unknown name has none",
            ["status Unimplemented \"\" {content-length: \"0\", content-type: \"application/grpc\", \
              stamp: \"first\"}"],
            ["status Unimplemented \"this node serves nothing at \\\"/test.Nobody/Call\\\"\" \
              {content-type: \"application/grpc\"}"],
        ),
        Row::unary(
            "a layer of the server makes the body anew and adds a trailer",
            |request| async move { say(marks(&request)) },
            |mut client| async move { unary(client.unary(Bytes::new()).await) },
        )
        .server_layer(|request, inner| async move {
            let response = inner.oneshot(request).await?;
            Ok(response.map(with_trailer))
        }),
        Row::down(
            "a layer of the server adds a trailer to a stream",
            |_| async { Ok(tonic::Response::new(super::streams::of(&["a", "b"]))) },
            |mut client| async move { stream(client.down(Bytes::new()).await).await },
        )
        .server_layer(|request, inner| async move {
            let response = inner.oneshot(request).await?;
            Ok(response.map(with_trailer))
        }),
    ]
}

fn failing_server_layers() -> Vec<Row> {
    vec![
        Row::unary(
            "a layer of the server fails with a status",
            |_| async { say("called") },
            |mut client| async move { unary(client.unary(refusable()).await) },
        )
        .server_layer(|request, inner| async move {
            if request.headers().contains_key("refuse") {
                Err(refused().into())
            } else {
                inner.oneshot(request).await
            }
        }),
        Row::unary(
            "a layer of the server fails with an error of its own",
            |_| async { say("called") },
            |mut client| async move { unary(client.unary(refusable()).await) },
        )
        .server_layer(|request, inner| async move {
            if request.headers().contains_key("refuse") {
                Err(Own.into())
            } else {
                inner.oneshot(request).await
            }
        })
        .differs(
            "the error of a layer is a status, where plain tonic resets the stream",
            ["status Internal \"h2 protocol error: http2 error\""],
            ["status Unknown \"a layer's own error\" {content-type: \"application/grpc\"}"],
        ),
    ]
}

fn client_layers() -> Vec<Row> {
    vec![
        Row::unary(
            "a layer of the client changes the request and sees the response",
            |request| async move { say(marks(&request)) },
            |mut client| async move { unary(client.unary(Bytes::new()).await) },
        )
        .client_layer(|mut request, inner| async move {
            request.headers_mut().insert("mark", HeaderValue::from_static("layer"));
            request.extensions_mut().insert(Mark("of this process"));
            let mut response = inner.oneshot(request).await?;
            let status = response.status().as_u16();
            response.headers_mut().insert("http-status", HeaderValue::from(status));
            Ok(response)
        })
        .shows([
            "head {content-type: \"application/grpc\", grpc-status: \"0\", http-status: \"200\"}",
            "message \"Some(\\\"layer\\\") None\"",
        ]),
        Row::unary(
            "a layer of the client fails with a status",
            |_| async { say("called") },
            |mut client| async move { unary(client.unary(refusable()).await) },
        )
        .client_layer(|request, inner| async move {
            if request.headers().contains_key("refuse") {
                Err(refused().into())
            } else {
                inner.oneshot(request).await
            }
        }),
        Row::unary(
            "a layer of the client fails with an error of its own",
            |_| async { say("called") },
            |mut client| async move { unary(client.unary(refusable()).await) },
        )
        .client_layer(|request, inner| async move {
            if request.headers().contains_key("refuse") {
                Err(Own.into())
            } else {
                inner.oneshot(request).await
            }
        }),
        Row::unary(
            "a layer of the client calls again",
            |request| async move { say(marks(&request)) },
            |mut client| async move { unary(client.unary(Bytes::new()).await) },
        )
        .client_layer(|request, inner| async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let body = || Body::new(http_body_util::Full::new(body.clone()));
            inner.clone().oneshot(http::Request::from_parts(head.clone(), body())).await?;
            inner.oneshot(http::Request::from_parts(head, body())).await
        }),
    ]
}

/// Sets a mark in the request, and adds it to the answer.
async fn marking(mark: &'static str, mut request: http::Request<Body>, inner: Wire) -> Answer {
    request.headers_mut().insert("mark", HeaderValue::from_static(mark));
    let mut response = inner.oneshot(request).await?;
    response.headers_mut().append("stamp", HeaderValue::from_static(mark));
    Ok(response)
}

/// The same body with one more trailer.
fn with_trailer(body: Body) -> Body {
    let body = body.map_frame(|frame| match frame.into_trailers() {
        Ok(mut trailers) => {
            trailers.insert("late", HeaderValue::from_static("trailer"));
            http_body::Frame::trailers(trailers)
        }
        Err(frame) => frame,
    });
    Body::new(body)
}
