//! Records an event, then prints all that are kept.
//!
//! `audit-consumer ACTION SUBJECT [SEED [CERT_DIR]]`; the last two are by default `127.0.0.1:8443` and `./certs`.

use std::process::ExitCode;

use aegis::{Chain, Node, ServiceClient};
use own_service::AUDIT_V1;
use own_service::pb::audit_service_client::AuditServiceClient;
use own_service::pb::{ListRequest, RecordRequest};

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", Chain::new(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(action), Some(subject)) = (args.next(), args.next()) else {
        return Err("usage: audit-consumer ACTION SUBJECT [SEED [CERT_DIR]]".into());
    };
    let seed = args.next().unwrap_or_else(|| "127.0.0.1:8443".to_owned());
    let certs = args.next().unwrap_or_else(|| "./certs".to_owned());

    let node =
        Node::builder().id("vicky-1").node_type("storage").join([seed]).cert_dir(certs).build()?;
    let pool = node.pool();
    let audit = ServiceClient::new(&pool, AUDIT_V1, AuditServiceClient::new);

    let reply = audit.get()?.record(RecordRequest { action, subject }).await?;
    println!("recorded as {}", reply.into_inner().sequence);

    let mut events = audit.get()?.list(ListRequest::default()).await?.into_inner();
    while let Some(event) = events.message().await? {
        println!("{} {} {} by {}", event.sequence, event.action, event.subject, event.recorded_by);
    }
    pool.close().await;
    Ok(())
}
