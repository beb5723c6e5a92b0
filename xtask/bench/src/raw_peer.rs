//! The peer: tonic's server, its channel on one connection, and its balancer.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use aegis_tls::{Accepted, Expected, Tls};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, Uri};

use crate::arguments::{Providers, Serve};
use crate::load::announce;
use crate::{Outcome, certificates, service};

/// Those of aegis, so that neither side waits for a window the other does not.
const SERVER_STREAM_WINDOW: u32 = 128 << 10;
const SERVER_CONNECTION_WINDOW: u32 = 32 << 20;
const CLIENT_STREAM_WINDOW: u32 = 256 << 10;
const CLIENT_CONNECTION_WINDOW: u32 = 64 << 20;
/// Above what the load keeps in flight: no call ever waits for a stream.
const STREAMS: u32 = 1_024;

pub(crate) async fn serve(certs: &Path, serve: Serve) -> Outcome<()> {
    let tls = certificates::tls(certs, &certificates::server(serve.behaviour.number))?;
    let listener = TcpListener::bind(serve.listen).await?;
    announce(listener.local_addr()?);
    let (connections, incoming) = mpsc::channel(64);
    tokio::spawn(accept(listener, tls, connections));
    Server::builder()
        .initial_stream_window_size(SERVER_STREAM_WINDOW)
        .initial_connection_window_size(SERVER_CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .add_service(service::service(serve.behaviour))
        .serve_with_incoming(ReceiverStream::new(incoming))
        .await?;
    Ok(())
}

async fn accept(
    listener: TcpListener,
    tls: Tls,
    connections: mpsc::Sender<io::Result<Accepted<TcpStream>>>,
) {
    while let Ok((socket, _)) = listener.accept().await {
        let (tls, connections) = (tls.clone(), connections.clone());
        tokio::spawn(async move {
            if socket.set_nodelay(true).is_ok()
                && let Ok(accepted) = tls.accept(socket).await
            {
                // A server that is gone needs no connection.
                drop(connections.send(Ok(accepted)).await);
            }
        });
    }
}

/// A channel on one connection.
pub(crate) async fn connect(
    certs: &Path,
    address: SocketAddr,
) -> Outcome<IdentityServiceClient<Channel>> {
    let tls = certificates::tls(certs, certificates::CLIENT)?;
    let connector = tower::service_fn(move |_: Uri| {
        let tls = tls.clone();
        async move {
            let node = certificates::server(1).parse().map_err(io::Error::other)?;
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            let connected = tls.connect(Expected::Node(&node), socket).await;
            Ok::<_, io::Error>(TokioIo::new(connected.map_err(io::Error::other)?.stream))
        }
    });
    let endpoint = windows(Endpoint::from_static("http://server-1"));
    Ok(IdentityServiceClient::new(endpoint.connect_with_connector(connector).await?))
}

/// tonic's own balancer, over connections that tonic makes.
pub(crate) fn balance(
    certs: &Path,
    providers: &Providers,
) -> Outcome<IdentityServiceClient<Channel>> {
    let identity = certificates::pem(certs, certificates::CLIENT)?;
    let mut endpoints = Vec::new();
    for (id, address) in providers.named() {
        let tls = ClientTlsConfig::new()
            .domain_name(id)
            .identity(Identity::from_pem(&identity.certificate, &identity.key))
            .ca_certificate(Certificate::from_pem(&identity.ca));
        let endpoint = Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?;
        endpoints.push(windows(endpoint.tcp_nodelay(true)));
    }
    Ok(IdentityServiceClient::new(Channel::balance_list(endpoints.into_iter())))
}

fn windows(endpoint: Endpoint) -> Endpoint {
    endpoint
        .initial_stream_window_size(CLIENT_STREAM_WINDOW)
        .initial_connection_window_size(CLIENT_CONNECTION_WINDOW)
}
