//! Deadlines, and handlers that panic.

use std::time::Duration;

use bytes::Bytes;
use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status};

use super::describe::{code, message, next, say, stream, unary};
use super::row::Row;

const LATE: &str = "a deadline is told as such, where plain tonic says that the call was cancelled";
const PANIC: &str =
    "a panic is the server's fault, where plain tonic says that the call was cancelled";
const SHORT: Duration = Duration::from_millis(100);

fn timed(timeout: Duration) -> Request<Bytes> {
    let mut request = Request::new(Bytes::new());
    request.set_timeout(timeout);
    request
}

fn slow(name: &'static str, timeout: Duration) -> Row {
    Row::unary(
        name,
        |_| async {
            tokio::time::sleep(SHORT * 2).await;
            say("in time")
        },
        move |mut client| async move {
            match client.unary(timed(timeout)).await {
                Ok(answer) => vec![message(answer.get_ref())],
                Err(status) => vec![code(&status)],
            }
        },
    )
}

pub(crate) fn rows() -> Vec<Row> {
    vec![
        slow("a deadline that is far away", Duration::from_secs(60)),
        slow("a deadline of 30 days", Duration::from_secs(30 * 86_400)),
        slow("a deadline that passes", SHORT).differs(
            LATE,
            ["status Cancelled"],
            ["status DeadlineExceeded"],
        ),
        slow("a deadline that has passed", Duration::ZERO).differs(
            LATE,
            ["status Cancelled"],
            ["status DeadlineExceeded"],
        ),
        Row::down(
            "a deadline that passes in the middle of a stream",
            |_| async {
                let ticks = tokio::time::interval(SHORT / 2);
                let ticks = tokio_stream::wrappers::IntervalStream::new(ticks).take(6);
                let messages = ticks.map(|_| Ok(Bytes::from("tick")));
                Ok(Response::new(Box::pin(messages) as _))
            },
            |mut client| async move {
                let mut stream = client.down(timed(SHORT)).await.unwrap().into_inner();
                let mut messages = 0;
                loop {
                    match next(&mut stream).await {
                        Ok(Some(_)) => messages += 1,
                        Ok(None) => return vec![format!("ended well: {}", messages == 6)],
                        Err(status) => return vec![code(&status)],
                    }
                }
            },
        )
        .differs(
            "a deadline covers the whole call, where plain tonic forgets it at the head of the answer",
            ["ended well: true"],
            ["status DeadlineExceeded"],
        ),
        Row::unary(
            "a handler that panics",
            |_| async { panic!("on purpose") },
            |mut client| async move { unary(client.unary(Bytes::new()).await) },
        )
        .differs(
            PANIC,
            ["status Cancelled \"h2 protocol error: http2 error\""],
            ["status Internal \"the handler panicked\" {content-type: \"application/grpc\"}"],
        ),
        Row::down(
            "a stream that panics",
            |_| async {
                let messages = tokio_stream::iter(["a", "b"]).map(|text| match text {
                    "a" => Ok::<_, Status>(Bytes::from(text)),
                    _ => panic!("on purpose"),
                });
                Ok(Response::new(Box::pin(messages) as _))
            },
            |mut client| async move { stream(client.down(Bytes::new()).await).await },
        )
        .differs(
            PANIC,
            [
                "head {content-type: \"application/grpc\"}",
                "status Cancelled \"h2 protocol error: error reading a body from connection\"",
            ],
            [
                "head {content-type: \"application/grpc\"}",
                "status Internal \"the handler panicked\"",
            ],
        ),
    ]
}
