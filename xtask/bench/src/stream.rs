//! Messages that a server sends as fast as they are read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use tokio::task::JoinSet;
use tonic::Status;

use crate::Outcome;
use crate::client::Client;
use crate::load::{Plan, Window, micros};

/// A bulk stream's messages.
pub(crate) const LARGE: usize = 1 << 20;

/// Reads a stream until it fails; `read` is told of each message how large it is.
pub(crate) async fn read(client: impl Client, size: usize, read: impl Fn(usize)) -> Status {
    let mut stream = match client.stream(size).await {
        Ok(stream) => stream,
        Err(status) => return status,
    };
    loop {
        match stream.message().await {
            Ok(Some(event)) => read(event.user_id.len()),
            Ok(None) => return Status::unknown("a stream without an end ended"),
            Err(status) => return status,
        }
    }
}

/// Reads as many streams as the plan has callers, and prints how many messages came.
#[expect(clippy::print_stdout, reason = "it is read by the program that started this one")]
pub(crate) async fn run(plan: Plan, client: impl Client, size: usize) -> Outcome<()> {
    let messages = Arc::new(AtomicU64::new(0));
    let mut readers = JoinSet::new();
    for _ in 0..plan.in_flight {
        let messages = Arc::clone(&messages);
        readers.spawn(read(client.clone(), size, move |_| {
            messages.fetch_add(1, Ordering::Relaxed);
        }));
    }
    let window = Window::new(&plan);
    let spent = window.pass(|| messages.store(0, Ordering::Relaxed)).await;
    let messages = u32::try_from(messages.load(Ordering::Relaxed))?;
    // None of them ends by itself.
    let failure = readers.try_join_next().transpose()?.map(|status| status.to_string());
    let per_message = |spent| micros(spent) / f64::from(messages.max(1));
    let line = json!({
        "calls": messages,
        "failed": u32::from(failure.is_some()),
        "failure": failure,
        "per_second": f64::from(messages) / spent.elapsed.as_secs_f64(),
        "client_cpu_us": per_message(spent.client),
        "server_cpu_us": per_message(spent.servers),
    });
    println!("{line}");
    Ok(())
}
