//! How a call that does not go well ends.

use bytes::Bytes;
use http::HeaderValue;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Response, Status};
use tower::ServiceExt as _;

use super::describe::{code, stream, unary};
use super::row::Row;

const CODES: [Code; 17] = [
    Code::Ok,
    Code::Cancelled,
    Code::Unknown,
    Code::InvalidArgument,
    Code::DeadlineExceeded,
    Code::NotFound,
    Code::AlreadyExists,
    Code::PermissionDenied,
    Code::ResourceExhausted,
    Code::FailedPrecondition,
    Code::Aborted,
    Code::OutOfRange,
    Code::Unimplemented,
    Code::Internal,
    Code::Unavailable,
    Code::DataLoss,
    Code::Unauthenticated,
];

/// A `google.rpc.Status` with an `ErrorInfo`, as tonic-types writes it.
const DETAILS: &[u8] =
    b"\x08\x05\x12\x04gone\x1a\x2e\x0a\x28type.googleapis.com/google.rpc.ErrorInfo\x12\x02\x0a\x00";

fn fails(name: &'static str, status: impl Fn() -> Status + Send + Sync + 'static) -> Row {
    Row::unary(
        name,
        move |_| {
            let status = status();
            async { Err(status) }
        },
        |mut client| async move { unary(client.unary(Bytes::new()).await) },
    )
}

/// Texts that have to come through as they are.
fn text(name: &'static str, text: &'static str) -> Row {
    fails(name, move || Status::not_found(text))
}

fn all_metadata() -> Status {
    let mut map = MetadataMap::new();
    map.insert("ascii", "text".parse().unwrap());
    map.append("double", "first".parse().unwrap());
    map.append("double", "second".parse().unwrap());
    map.insert_bin("some-bin", MetadataValue::from_bytes(&[0, 1, 255]));
    Status::with_details_and_metadata(Code::Aborted, "why", Bytes::from_static(DETAILS), map)
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = vec![
        fails("details", || {
            Status::with_details(Code::NotFound, "gone", Bytes::from_static(DETAILS))
        }),
        fails("details of every byte", || {
            Status::with_details(Code::NotFound, "", (0..=255).collect::<Vec<u8>>().into())
        }),
        fails("details and metadata", all_metadata),
        fails("reserved names in the metadata of a status", || {
            let mut status = Status::not_found("gone");
            for name in ["te", "grpc-message", "grpc-status", "content-type"] {
                status.metadata_mut().insert(name, "mine".parse().unwrap());
            }
            status
        }),
        text("an empty text", ""),
        text("a text of percent signs", "100% %zz %41 %"),
        text("a text of many languages", "100% \u{e9}\n\u{1f600} %zz"),
        text("a text of control characters", "\0\t\r\n\x7f end"),
        text("a text with spaces around it", "  inside  "),
        fails("a text of 8,000 characters", || Status::internal("e".repeat(8_000))),
        fails("a code that gRPC does not know", || Status::new(Code::from(99), "odd")),
        fails("the code OK as a failure", || Status::ok("odd")),
        Row::down(
            "a stream that is refused",
            |_| async { Err(all_metadata()) },
            |mut client| async move { stream(client.down(Bytes::new()).await).await },
        ),
        Row::down(
            "a stream that fails with details and metadata",
            |_| async { Ok(Response::new(super::streams::failing(&["a"], all_metadata()))) },
            |mut client| async move { stream(client.down(Bytes::new()).await).await },
        ),
        Row::unary(
            "a method that the service has not",
            |_| async { super::describe::say("called") },
            |client| async move { unary(client.at("/test.Echo/Nothing").unary(Bytes::new()).await) },
        ),
        Row::unary(
            "a service that the server has not",
            |_| async { super::describe::say("called") },
            |client| async move { unary(client.at("/test.Nobody/Call").unary(Bytes::new()).await) },
        )
        .differs(
            "the text names what nobody serves",
            ["status Unimplemented \"\" {content-length: \"0\", content-type: \"application/grpc\"}"],
            ["status Unimplemented \"this node serves nothing at \\\"/test.Nobody/Call\\\"\" \
              {content-type: \"application/grpc\"}"],
        ),
        Row::down(
            "a stream of a method that the service has not",
            |_| async { Err(Status::internal("called")) },
            |client| async move {
                stream(client.at("/test.Echo/Nothing").down(Bytes::new()).await).await
            },
        ),
        Row::unary(
            "an answer in HTTP, without a status of gRPC",
            |_| async { super::describe::say("called") },
            |mut client| async move {
                let answer = client.unary(Bytes::new()).await;
                vec![answer.map_or_else(|status| code(&status), |_| "answered".to_owned())]
            },
        )
        .server_layer(|request, inner| async move {
            if request.uri().path().ends_with("Ping") {
                return inner.oneshot(request).await;
            }
            let mut response = http::Response::new(tonic::body::Body::empty());
            *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            Ok(response)
        }),
        Row::unary(
            "a status that a layer breaks",
            |_| async { Err(Status::not_found("gone")) },
            |mut client| async move { unary(client.unary(Bytes::new()).await) },
        )
        .server_layer(|request, inner| async move {
            let mut response = inner.oneshot(request).await?;
            if response.headers().contains_key("grpc-status") {
                response.headers_mut().insert("grpc-message", HeaderValue::from_static("%E4%B8"));
            }
            Ok(response)
        })
        .differs(
            "a broken text does not cost the code",
            ["status Unknown \"Error deserializing status message header: incomplete utf-8 byte sequence \
              from index 0\" {content-type: \"application/grpc\"}"],
            ["status NotFound \"\u{fffd}\" {content-type: \"application/grpc\"}"],
        ),
    ];
    for code in CODES {
        let name = Box::leak(format!("the code {code:?}").into_boxed_str());
        if code != Code::Ok {
            rows.push(fails(name, move || Status::new(code, "why")));
        }
    }
    rows
}
