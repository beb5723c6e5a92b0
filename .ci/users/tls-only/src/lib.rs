//! An existing service on plain tonic that takes over certificates and the
//! identity of its callers from aegis, and nothing else.

use aegis_core::NodeId;
use aegis_tls::{Expected, Tls};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Error};

tonic::include_proto!("shop.orders.v1");

/// A channel to one node, whose id its certificate has to say.
pub async fn connect(tls: Tls, node: NodeId, address: String) -> Result<Channel, Error> {
    let connector = tower::service_fn(move |_| {
        let (tls, node, address) = (tls.clone(), node.clone(), address.clone());
        async move {
            let io = TcpStream::connect(address).await?;
            io.set_nodelay(true)?;
            let connected = tls.connect(Expected::Node(&node), io).await;
            connected.map(|it| TokioIo::new(it.stream)).map_err(std::io::Error::other)
        }
    });
    // The connector does TLS, so tonic must not: the address names no scheme that asks for it.
    Endpoint::from_static("http://node").connect_with_connector(connector).await
}
