//! usage: client CERTIFICATE KEY CA ADDRESS

use aegis_tls::{Subject, TlsOptions};
use tls_only::PlaceRequest;
use tls_only::orders_client::OrdersClient;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [certificate, key, ca, address] = &*arguments else {
        return Err("usage: client CERTIFICATE KEY CA ADDRESS".into());
    };
    let tls = TlsOptions::files(certificate, key, ca).allow_development().load(&Subject::any())?;
    let channel = tls_only::connect(tls.clone(), "shop-1".parse()?, address.clone()).await?;
    let reply = OrdersClient::new(channel).place(PlaceRequest { article: "ink".into() }).await?;
    let reply = reply.into_inner();
    assert_eq!((&*reply.article, &*reply.placed_by), ("ink", "batch-1"));

    // The address alone is no proof: another node would be refused within the handshake.
    let error = tls_only::connect(tls, "shop-2".parse()?, address.clone()).await.unwrap_err();
    let error = std::error::Error::source(&error).ok_or("no reason")?.to_string();
    assert!(error.contains("shop-2") && error.contains("shop-1"), "{error}");
    Ok(())
}
