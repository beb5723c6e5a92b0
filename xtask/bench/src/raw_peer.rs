//! The peer: tonic's server and channel, on one connection.

use std::io;
use std::path::PathBuf;

use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use aegis_tls::{Accepted, Expected, Tls};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Server, Uri};

use crate::load::{Plan, announce};
use crate::{Outcome, certificates, load, service};

/// Those of aegis, so that neither side waits for a window the other does not.
const SERVER_STREAM_WINDOW: u32 = 128 << 10;
const SERVER_CONNECTION_WINDOW: u32 = 32 << 20;
const CLIENT_STREAM_WINDOW: u32 = 256 << 10;
const CLIENT_CONNECTION_WINDOW: u32 = 64 << 20;
/// Above what the load keeps in flight: no call ever waits for a stream.
const STREAMS: u32 = 1_024;

pub(crate) async fn serve(certs: PathBuf) -> Outcome<()> {
    let tls = certificates::tls(&certs, certificates::SERVER)?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    announce(listener.local_addr()?);
    let (connections, incoming) = mpsc::channel(64);
    tokio::spawn(accept(listener, tls, connections));
    Server::builder()
        .initial_stream_window_size(SERVER_STREAM_WINDOW)
        .initial_connection_window_size(SERVER_CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .add_service(service::service())
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

pub(crate) async fn call(certs: PathBuf, address: String, plan: Plan) -> Outcome<()> {
    let channel = connect(certs, address).await?;
    let client = IdentityServiceClient::new(channel);
    load::run(plan, move || {
        let mut client = client.clone();
        async move { client.validate_session(service::request()).await.map(drop) }
    })
    .await
}

async fn connect(certs: PathBuf, address: String) -> Outcome<Channel> {
    let tls = certificates::tls(&certs, certificates::CLIENT)?;
    let connector = tower::service_fn(move |_: Uri| {
        let (tls, address) = (tls.clone(), address.clone());
        async move {
            let node = certificates::SERVER.parse().map_err(io::Error::other)?;
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            let connected = tls.connect(Expected::Node(&node), socket).await;
            Ok::<_, io::Error>(TokioIo::new(connected.map_err(io::Error::other)?.stream))
        }
    });
    let endpoint = Endpoint::from_static("http://server-1")
        .initial_stream_window_size(CLIENT_STREAM_WINDOW)
        .initial_connection_window_size(CLIENT_CONNECTION_WINDOW);
    Ok(endpoint.connect_with_connector(connector).await?)
}
