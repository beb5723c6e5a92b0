//! What a request says, and what users may put around the channel.

use aegis_client::{ServiceChannel, ServiceClient};
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Request, Status};

use crate::mesh::{IDENTITY, Mesh, assert_status, call, request, send};
use crate::provider::Provider;

#[tokio::test]
async fn each_request_names_its_service_and_a_forged_name_is_replaced() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let (_pool, client) = mesh.connected(&[&provider]).await;
    let mut forged = request();
    for name in ["admin/v1", "identity/v2"] {
        forged.metadata_mut().append("aegis-service", name.parse().unwrap());
    }
    forged.metadata_mut().insert("x-user", "kept".parse().unwrap());
    send(&client, forged).await.unwrap();
    let headers = provider.last_headers();
    let names: Vec<_> = headers.get_all("aegis-service").iter().collect();
    assert_eq!(names, ["identity/v1"]);
    assert_eq!(headers["x-user"], "kept");
    assert_eq!(headers["te"], "trailers");
    assert!(headers["user-agent"].to_str().unwrap().contains("aegis/"));
}

fn sign(mut request: Request<()>) -> Result<Request<()>, Status> {
    if request.metadata().contains_key("forbidden") {
        return Err(Status::permission_denied("the interceptor says no"));
    }
    request.metadata_mut().insert("signed-by", "interceptor".parse().unwrap());
    Ok(request)
}

#[tokio::test]
async fn an_interceptor_adds_to_requests_or_answers_them() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let pool = mesh.pool(&[&provider]);
    let client = ServiceClient::new(&pool, IDENTITY, |channel| {
        IdentityServiceClient::with_interceptor(channel, sign).max_decoding_message_size(1 << 20)
    });
    let mut intercepted = client.get().unwrap();
    intercepted.validate_session(request()).await.unwrap();
    assert_eq!(provider.last_headers()["signed-by"], "interceptor");
    let mut forbidden = request();
    forbidden.metadata_mut().insert("forbidden", "yes".parse().unwrap());
    let status = intercepted.validate_session(forbidden).await.unwrap_err();
    assert_status(&status, Code::PermissionDenied, &["the interceptor says no"]);
    assert_eq!(provider.requests(), 1);
}

#[tokio::test]
async fn a_channel_is_shared_between_clients_layers_and_tasks() {
    fn check<T: Clone + Send + Sync + 'static>(_: &T) {}
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let (pool, client) = mesh.connected(&[&provider]).await;
    let channel: ServiceChannel = pool.channel(IDENTITY);
    check(&channel);
    check(&client);
    check(&pool);
    let mut layered = IdentityServiceClient::new(InterceptedService::new(channel, sign));
    layered.validate_session(request()).await.unwrap();
    call(&client).await.unwrap();
    assert_eq!(client.explain().calls, 2, "channels of one service count together");
    assert_eq!(provider.connections(), 1);
}
