//! What can be seen of a call, in words that are the same for the same thing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tonic::{Response, Status, Streaming};

use super::echo::Reply;
use super::row::Outcome;

/// What the two differ in with every call, on purpose: hyper's servers send the date, each client names itself and
/// ours the service that it means.
const ASIDE: [&str; 3] = ["date", "user-agent", "aegis-service"];

/// Long enough for a busy machine; what takes it hangs.
const HANGS: Duration = Duration::from_secs(10);

pub(crate) fn unary(reply: Reply<Bytes>) -> Outcome {
    match reply {
        Ok(response) => {
            vec![format!("head {}", metadata(response.metadata())), message(response.get_ref())]
        }
        Err(error) => vec![status(&error)],
    }
}

/// All of a stream, to its end.
pub(crate) async fn stream(reply: Reply<Streaming<Bytes>>) -> Outcome {
    let mut lines = Vec::new();
    let mut stream = match reply {
        Ok(response) => {
            lines.push(format!("head {}", metadata(response.metadata())));
            response.into_inner()
        }
        Err(error) => return vec![format!("no stream: {}", status(&error))],
    };
    loop {
        match next(&mut stream).await {
            Ok(Some(bytes)) => lines.push(message(&bytes)),
            Ok(None) => break,
            Err(error) => {
                lines.push(status(&error));
                return lines;
            }
        }
    }
    lines.push(match stream.trailers().await {
        Ok(Some(trailers)) => format!("end {}", metadata(&trailers)),
        Ok(None) => "end".to_owned(),
        Err(error) => format!("no trailers: {}", status(&error)),
    });
    lines
}

pub(crate) async fn next(stream: &mut Streaming<Bytes>) -> Result<Option<Bytes>, Status> {
    tokio::time::timeout(HANGS, stream.message())
        .await
        .unwrap_or_else(|_| panic!("the stream hangs"))
}

/// The messages of a stream, and how it ended.
pub(crate) async fn drain(stream: &mut Streaming<Bytes>) -> String {
    let mut words = Vec::new();
    loop {
        match next(stream).await {
            Ok(Some(bytes)) => words.push(message(&bytes)),
            Ok(None) => break,
            Err(error) => {
                words.push(code(&error));
                break;
            }
        }
    }
    words.join(", ")
}

pub(crate) fn message(bytes: &Bytes) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.len() < 1_000 => format!("message {text:?}"),
        _ => {
            let sum = bytes.iter().fold(0_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
            format!("message of {} bytes, {sum:x}", bytes.len())
        }
    }
}

pub(crate) fn status(status: &Status) -> String {
    let mut text = format!("status {:?} {}", status.code(), shortened(status.message()));
    if !status.details().is_empty() {
        write!(text, " details {:?}", status.details()).unwrap();
    }
    if !status.metadata().is_empty() {
        write!(text, " {}", metadata(status.metadata())).unwrap();
    }
    text
}

fn shortened(text: &str) -> String {
    if text.len() < 1_000 {
        return format!("{text:?}");
    }
    let begin: String = text.chars().take(10).collect();
    let end: String = text.chars().skip(text.chars().count() - 15).collect();
    format!("{begin:?} to {end:?}, {} bytes", text.len())
}

/// Where the text is nobody's promise.
pub(crate) fn code(status: &Status) -> String {
    format!("status {:?}", status.code())
}

/// Names in order, the values of one name in theirs.
pub(crate) fn metadata(map: &MetadataMap) -> String {
    let mut lines: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in map.iter() {
        let (key, value) = match entry {
            KeyAndValueRef::Ascii(key, value) => {
                (key.as_str(), shortened(&String::from_utf8_lossy(value.as_encoded_bytes())))
            }
            KeyAndValueRef::Binary(key, value) => (
                key.as_str(),
                match value.to_bytes() {
                    Ok(bytes) => format!("{:?}", bytes.as_ref()),
                    Err(_) => "no base64".to_owned(),
                },
            ),
        };
        if !ASIDE.contains(&key) {
            lines.entry(key.to_owned()).or_default().push(value);
        }
    }
    let lines: Vec<_> =
        lines.into_iter().map(|(key, values)| format!("{key}: {}", values.join(" & "))).collect();
    format!("{{{}}}", lines.join(", "))
}

/// An answer that says what a handler saw.
#[expect(clippy::unnecessary_wraps, reason = "what a handler returns")]
pub(crate) fn say(text: impl Into<String>) -> Reply<Bytes> {
    Ok(Response::new(Bytes::from(text.into())))
}
