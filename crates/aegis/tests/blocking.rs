//! Eight handlers that keep the two threads of their server, beside the same on plain tonic.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use aegis::ServiceClient;
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use aegis_proto::identity::v1::{GetUserRequest, GetUserResponse};
use aegis_testing::TestMesh;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

use crate::service::{IDENTITY_V1, LIMIT};

/// Blocks or computes for as long as it is told.
struct Keeping;

#[tonic::async_trait]
impl IdentityService for Keeping {
    async fn get_user(
        &self,
        request: Request<GetUserRequest>,
    ) -> Result<Response<GetUserResponse>, Status> {
        let user = request.into_inner().user_id;
        let (how, millis) = user.split_once(' ').unwrap();
        let time = Duration::from_millis(millis.parse().unwrap());
        if how == "sleep" {
            std::thread::sleep(time);
        } else {
            let end = Instant::now() + time;
            while Instant::now() < end {
                std::hint::spin_loop();
            }
        }
        Ok(Response::new(GetUserResponse::default()))
    }
}

/// A server on a thread of its own, on a runtime with two workers; it ends when this is dropped.
struct OnTwo {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl OnTwo {
    fn start<F>(serve: impl FnOnce(oneshot::Receiver<()>, mpsc::Sender<SocketAddr>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (told, address) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let serving = serve(stopped, told);
        std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            runtime.worker_threads(2).enable_all().build().unwrap().block_on(serving);
        });
        Self { address: address.recv().unwrap(), _stop: stop }
    }

    fn aegis(mesh: &TestMesh) -> Self {
        let node = mesh.builder("a").service(IDENTITY_V1, IdentityServiceServer::new(Keeping));
        let node = node.build().unwrap();
        Self::start(|stopped, told| async move {
            let server = node.start().await.unwrap();
            told.send(server.local_addr()).unwrap();
            stopped.await.ok();
            assert_eq!(server.stats().accepted, 1, "the connection was replaced");
        })
    }

    fn tonic() -> Self {
        Self::start(|stopped, told| async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            told.send(listener.local_addr().unwrap()).unwrap();
            let server = Server::builder().add_service(IdentityServiceServer::new(Keeping));
            let incoming = TcpListenerStream::new(listener);
            let stopped = async { stopped.await.unwrap_or(()) };
            server.serve_with_incoming_shutdown(incoming, stopped).await.unwrap();
        })
    }
}

/// How many of eight calls succeed.
async fn successes<C>(client: IdentityServiceClient<C>, how: &str) -> usize
where
    C: tonic::client::GrpcService<tonic::body::Body, Future: Send> + Clone + Send + 'static,
    C::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    C::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <C::ResponseBody as http_body::Body>::Error:
        Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let mut client = client.clone();
        let mut request = Request::new(GetUserRequest { user_id: how.to_owned() });
        // Four after another take longer than the ten seconds that a call without a deadline has.
        request.set_timeout(3 * LIMIT);
        calls.spawn(async move { client.get_user(request).await });
    }
    calls.join_all().await.into_iter().flatten().count()
}

#[track_caller]
fn check(how: &'static str) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let tonic = OnTwo::tonic();
        let channel = Channel::from_shared(format!("http://{}", tonic.address)).unwrap();
        let raw = IdentityServiceClient::new(channel.connect().await.unwrap());
        let raw = tokio::spawn(async move { successes(raw, how).await });

        let mesh = TestMesh::loopback();
        let server = OnTwo::aegis(&mesh);
        let node = mesh.builder("c").join([server.address.to_string()]).build().unwrap();
        let client = ServiceClient::new(&node.pool(), IDENTITY_V1, IdentityServiceClient::new);
        client.wait_ready(1, LIMIT).await.unwrap();
        let began = Instant::now();
        let ours = successes(client.get().unwrap(), how).await;
        let took = began.elapsed();
        assert_eq!((ours, raw.await.unwrap()), (8, 8), "{how}: ours, and tonic's");
        // Four after another on each of two threads; one more where the first is answered in place.
        let millis: u64 = how.split_once(' ').unwrap().1.parse().unwrap();
        let one = Duration::from_millis(millis);
        assert!(4 * one <= took && took < one * 11 / 2, "{how}: all of them took {took:?}");
    });
}

#[test]
fn handlers_that_block_for_700_ms_cost_no_call() {
    check("sleep 700");
}

#[test]
fn handlers_that_compute_for_700_ms_cost_no_call() {
    check("burn 700");
}

// Far beyond the second after which a connection that answers no PING is taken for stalled.
#[test]
fn handlers_that_block_for_3_s_cost_no_call() {
    check("sleep 3000");
}

#[test]
fn handlers_that_compute_for_3_s_cost_no_call() {
    check("burn 3000");
}
