//! Streams in either direction, and whoever ends them first.

use std::pin::Pin;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::describe::{drain, message, next, say, stream, unary};
use super::row::Row;
use super::seen::{Guarded, Seen};

/// These messages, and the end.
pub(crate) fn of(messages: &[&str]) -> BoxStream<Bytes> {
    let messages: Vec<_> =
        messages.iter().map(|text| Ok(Bytes::copy_from_slice(text.as_bytes()))).collect();
    Box::pin(tokio_stream::iter(messages))
}

/// These messages, and a failure.
pub(crate) fn failing(messages: &[&str], status: Status) -> BoxStream<Bytes> {
    Box::pin(of(messages).chain(tokio_stream::once(Err(status))))
}

/// What comes in goes out.
pub(crate) fn echo(stream: Streaming<Bytes>) -> BoxStream<Bytes> {
    Box::pin(stream)
}

/// These messages of a caller, and the end.
fn sent(messages: &[&str]) -> impl Stream<Item = Bytes> + Send + 'static + use<> {
    let messages: Vec<_> =
        messages.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect();
    tokio_stream::iter(messages)
}

/// A caller that sends what it is fed and does not end by itself.
fn fed() -> (mpsc::UnboundedSender<Bytes>, UnboundedReceiverStream<Bytes>) {
    let (feed, stream) = mpsc::unbounded_channel();
    (feed, UnboundedReceiverStream::new(stream))
}

fn down(name: &'static str, make: impl Fn() -> BoxStream<Bytes> + Send + Sync + 'static) -> Row {
    Row::down(
        name,
        move |_| {
            let stream = make();
            async { Ok(Response::new(stream)) }
        },
        |mut client| async move { stream(client.down(Bytes::new()).await).await },
    )
}

fn up(name: &'static str, messages: &'static [&'static str]) -> Row {
    Row::up(
        name,
        |request| async move { say(drain(&mut request.into_inner()).await) },
        move |mut client| async move { unary(client.up(sent(messages)).await) },
    )
}

fn whole() -> Vec<Row> {
    vec![
        down("a stream of three", || of(&["a", "", "c"])),
        down("a stream of nothing", || of(&[])),
        down("a stream of many", || of(&["x"; 5_000])),
        down("a stream that fails at once", || failing(&[], Status::aborted("at once"))),
        down("a stream that fails in the middle", || failing(&["a", "b"], Status::aborted("now"))),
        Row::down(
            "a stream that is read on after it has failed",
            |_| async { Ok(Response::new(failing(&["a"], Status::aborted("now")))) },
            |mut client| async move {
                let mut stream = client.down(Bytes::new()).await.unwrap().into_inner();
                let mut reads = Vec::new();
                for _ in 0..4 {
                    reads.push(drain(&mut stream).await);
                }
                reads
            },
        )
        .differs(
            "tonic tells a failure twice unless it makes it itself, and its own cannot say which node it is of",
            ["message \"a\", status Aborted", "", "", ""],
            ["message \"a\", status Aborted", "status Aborted", "", ""],
        ),
        up("an upload of three", &["a", "", "c"]),
        up("an upload of nothing", &[]),
        up("an upload of many", &["x"; 5_000]),
        Row::both(
            "an echo of three",
            |request| async move { Ok(Response::new(echo(request.into_inner()))) },
            |mut client| async move { stream(client.both(sent(&["a", "", "c"])).await).await },
        ),
        Row::both(
            "an echo of nothing",
            |request| async move { Ok(Response::new(echo(request.into_inner()))) },
            |mut client| async move { stream(client.both(sent(&[])).await).await },
        ),
        Row::both(
            "a conversation, each word after the one before",
            |request| async move { Ok(Response::new(echo(request.into_inner()))) },
            |mut client| async move {
                let (feed, words) = fed();
                let mut answers = client.both(words).await.unwrap().into_inner();
                let mut lines = Vec::new();
                for word in ["one", "two", "three"] {
                    feed.send(Bytes::from(word)).unwrap();
                    lines.push(message(&next(&mut answers).await.unwrap().unwrap()));
                }
                drop(feed);
                lines.push(drain(&mut answers).await);
                lines
            },
        ),
        Row::both(
            "a server that goes on after the caller has ended",
            |request| async move {
                let read = drain(&mut request.into_inner()).await;
                Ok(Response::new(of(&[&read, "and", "more"])))
            },
            |mut client| async move { stream(client.both(sent(&["a", "b"])).await).await },
        ),
    ]
}

/// The handler has heard enough while the caller still sends.
fn early() -> Vec<Row> {
    async fn first(request: Request<Streaming<Bytes>>) -> Result<String, Status> {
        let first = next(&mut request.into_inner()).await?;
        Ok(first.map_or_else(String::new, |first| message(&first)))
    }
    vec![
        Row::up(
            "a handler that answers before the upload has ended",
            |request| async move { say(first(request).await?) },
            |mut client| async move {
                let (feed, words) = fed();
                feed.send(Bytes::from("a")).unwrap();
                let answer = unary(client.up(words).await);
                [answer, vec![closed(feed).await]].concat()
            },
        ),
        Row::up(
            "a handler that fails before the upload has ended",
            |request| async move { Err(Status::aborted(first(request).await?)) },
            |mut client| async move {
                let (feed, words) = fed();
                feed.send(Bytes::from("a")).unwrap();
                let answer = unary(client.up(words).await);
                [answer, vec![closed(feed).await]].concat()
            },
        ),
        Row::up(
            "a handler that fails without reading a long upload",
            |_| async { Err(Status::aborted("unread")) },
            |mut client| async move {
                let messages = (0..64).map(|_| Bytes::from(vec![7; 64 << 10])).collect::<Vec<_>>();
                unary(client.up(tokio_stream::iter(messages)).await)
            },
        ),
        Row::up(
            "a handler that answers without reading a long upload",
            |_| async { say("unread") },
            |mut client| async move {
                let messages = (0..64).map(|_| Bytes::from(vec![7; 64 << 10])).collect::<Vec<_>>();
                unary(client.up(tokio_stream::iter(messages)).await)
            },
        ),
        Row::both(
            "a stream that ends before the caller's",
            |request| async move { Ok(Response::new(of(&[&first(request).await?]))) },
            |mut client| async move {
                let (feed, words) = fed();
                feed.send(Bytes::from("a")).unwrap();
                let lines = stream(client.both(words).await).await;
                [lines, vec![closed(feed).await]].concat()
            },
        ),
        Row::both(
            "a stream that fails before the caller's has ended",
            |request| async move {
                let first = first(request).await?;
                Ok(Response::new(failing(&[&first], Status::data_loss("lost"))))
            },
            |mut client| async move {
                let (feed, words) = fed();
                feed.send(Bytes::from("a")).unwrap();
                let lines = stream(client.both(words).await).await;
                [lines, vec![closed(feed).await]].concat()
            },
        ),
    ]
}

/// What a caller's stream comes to once nobody wants it.
async fn closed(feed: mpsc::UnboundedSender<Bytes>) -> String {
    let closed = tokio::time::timeout(super::LIMIT, feed.closed()).await;
    closed.map_or("the caller's stream lives", |()| "the caller's stream was dropped").to_owned()
}

/// What nothing happens in does not happen.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(3);

/// The caller is gone before the end.
fn dropped() -> Vec<Row> {
    let seen = [(); 5].map(|()| Seen::default());
    let [unary_seen, down_seen, up_seen, both_seen, cut_seen] = seen.clone();
    let [unary_end, down_end, up_end, both_end, cut_end] = seen;
    let (began, mut has_begun) = mpsc::unbounded_channel();
    let (up_began, mut up_has_begun) = mpsc::unbounded_channel();
    vec![
        Row::unary(
            "a caller that gives up before the answer",
            move |_| {
                let (guard, began) = (unary_seen.guard(), began.clone());
                async move {
                    began.send(()).unwrap();
                    std::future::pending::<()>().await;
                    guard.done();
                    say("")
                }
            },
            |mut client| async move {
                let call = tokio::spawn(async move { client.unary(Bytes::new()).await });
                has_begun.recv().await.unwrap();
                call.abort();
                vec![unary_end.dropped().await]
            },
        ),
        Row::down(
            "a caller that drops a stream",
            move |_| {
                let stream = endless(&down_seen);
                async { Ok(Response::new(stream)) }
            },
            |mut client| async move {
                let mut stream = client.down(Bytes::new()).await.unwrap().into_inner();
                let first = message(&next(&mut stream).await.unwrap().unwrap());
                drop(stream);
                vec![first, down_end.dropped().await]
            },
        ),
        Row::up(
            "a caller that gives up in the middle of an upload",
            move |request| {
                let (guard, began) = (up_seen.guard(), up_began.clone());
                async move {
                    let mut stream = request.into_inner();
                    next(&mut stream).await?;
                    began.send(()).unwrap();
                    // Ends with the call, by being dropped or by hearing of it.
                    drop(stream.message().await);
                    drop(guard);
                    say("")
                }
            },
            |mut client| async move {
                let (feed, words) = fed();
                feed.send(Bytes::from("a")).unwrap();
                let call = tokio::spawn(async move { client.up(words).await });
                up_has_begun.recv().await.unwrap();
                call.abort();
                vec![up_end.dropped().await]
            },
        ),
        Row::both(
            "a caller that drops both streams",
            move |request| {
                let stream = Guarded(request.into_inner(), both_seen.guard());
                async { Ok(Response::new(Box::pin(stream) as Pin<Box<_>>)) }
            },
            |mut client| async move {
                let (feed, words) = fed();
                feed.send(Bytes::from("a")).unwrap();
                let mut stream = client.both(words).await.unwrap().into_inner();
                let first = message(&next(&mut stream).await.unwrap().unwrap());
                drop((stream, feed));
                vec![first, both_end.dropped().await]
            },
        ),
        Row::both(
            "a caller that drops its answer and would go on sending",
            move |request| {
                let stream = Guarded(request.into_inner(), cut_seen.guard());
                async { Ok(Response::new(Box::pin(stream) as Pin<Box<_>>)) }
            },
            |mut client| async move {
                let (_feed, words) = fed();
                let stream = client.both(words).await.unwrap();
                drop(stream);
                let dropped = tokio::time::timeout(PATIENCE, cut_end.dropped()).await;
                vec![dropped.unwrap_or_else(|_| "the handler lives".to_owned())]
            },
        )
        .differs(
            "a call ends with its answer, where plain tonic waits until the caller has something to send",
            ["the handler lives"],
            ["the handler was dropped"],
        ),
    ]
}

/// Messages without end, a hundredth of a second apart.
fn endless(seen: &Seen) -> BoxStream<Bytes> {
    let ticks = tokio::time::interval(std::time::Duration::from_millis(10));
    let ticks = tokio_stream::wrappers::IntervalStream::new(ticks);
    Box::pin(Guarded(ticks.map(|_| Ok(Bytes::from("tick"))), seen.guard()))
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = whole();
    rows.extend(early());
    rows.extend(dropped());
    rows
}
