//! The peers: tonic's server, its channel on one connection, its balancer, and tower's over such channels.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use aegis::NodeId;
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use aegis_tls::{Accepted, Expected, Tls};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::{StdError, http};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, Uri};
use tower::balance::p2c::Balance;
use tower::buffer::Buffer;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PeakEwma};
use tower::util::BoxCloneSyncService;

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
    let stopping = signal(SignalKind::terminate())?;
    let (connections, incoming) = mpsc::channel(64);
    tokio::spawn(accept(listener, tls, connections));
    Server::builder()
        .initial_stream_window_size(SERVER_STREAM_WINDOW)
        .initial_connection_window_size(SERVER_CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .add_service(service::service(serve.behaviour))
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), stopped(stopping))
        .await?;
    Ok(())
}

async fn stopped(mut stopping: Signal) {
    stopping.recv().await;
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
    Ok(IdentityServiceClient::new(channel(certs, 1, address).await?))
}

async fn channel(certs: &Path, number: u32, address: SocketAddr) -> Outcome<Channel> {
    let tls = certificates::tls(certs, certificates::CLIENT)?;
    let node: NodeId = certificates::server(number).parse()?;
    let connector = tower::service_fn(move |_: Uri| {
        let (tls, node) = (tls.clone(), node.clone());
        async move {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            let connected = tls.connect(Expected::Node(&node), socket).await;
            Ok::<_, io::Error>(TokioIo::new(connected.map_err(io::Error::other)?.stream))
        }
    });
    let endpoint = windows(Endpoint::from_static("http://server-1"));
    Ok(endpoint.connect_with_connector(connector).await?)
}

/// A service whose name is short.
type Boxed = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, StdError>;

/// tower's choice of the less loaded of two, by in flight and Peak-EWMA, over channels that are connected.
pub(crate) async fn p2c(
    certs: &Path,
    providers: &Providers,
) -> Outcome<IdentityServiceClient<Boxed>> {
    let mut channels = Vec::new();
    for (number, &address) in (1..).zip(&providers.addresses) {
        let channel = channel(certs, number, address).await?;
        // linkerd's decay, and a first guess of the latency that is near.
        channels.push(PeakEwma::new(
            channel,
            Duration::from_millis(1),
            10e9,
            CompleteOnResponse::default(),
        ));
    }
    let balance = Balance::new(ServiceList::new::<http::Request<Body>>(channels));
    Ok(IdentityServiceClient::new(Boxed::new(Buffer::new(balance, 1_024))))
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
