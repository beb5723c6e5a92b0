//! Serves the audit service until Ctrl-C.
//!
//! `audit-provider [ADDRESS [CERT_DIR]]`, by default `127.0.0.1:8443` and `./certs`.

use std::process::ExitCode;

use aegis::{Chain, Node};
use own_service::pb::audit_service_server::AuditServiceServer;
use own_service::{AUDIT_V1, AuditLog};

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
    let address = args.next().unwrap_or_else(|| "127.0.0.1:8443".to_owned());
    let certs = args.next().unwrap_or_else(|| "./certs".to_owned());
    let node = Node::builder()
        .id("ledger-1")
        .node_type("audit-server")
        .address(address)
        .service(AUDIT_V1, AuditServiceServer::new(AuditLog::default()))
        .cert_dir(certs)
        .build()?;
    let server = node.start().await?;
    println!("listening on {}", server.local_addr());
    server.run_until_signal().await?;
    Ok(())
}
