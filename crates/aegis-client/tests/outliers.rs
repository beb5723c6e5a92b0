//! What becomes of a provider that fails its calls.

use std::time::Duration;

use aegis_client::{Balancer, OutlierDetection, ServiceClient, Verdict};
use aegis_core::NodeId;
use aegis_testing::eventually;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::mesh::{Client, Mesh, PATIENCE, call, identity};
use crate::provider::{Act, Provider};

const UNAVAILABLE: u8 = 14;
const NOT_FOUND: u8 = 5;

/// Ejections that pass before a test loses its patience.
fn short() -> OutlierDetection {
    let mut detection = OutlierDetection::default();
    detection.first_ejection = Duration::from_millis(100);
    detection.longest_ejection = Duration::from_millis(400);
    detection
}

/// A service's clients, with every provider connected.
async fn connected(
    mesh: &Mesh,
    providers: &[&Provider],
    detection: Option<OutlierDetection>,
    balancer: Balancer,
) -> ServiceClient<Client> {
    let addresses: Vec<_> = providers.iter().map(|it| (it.id.as_str(), it.address)).collect();
    let builder = mesh.builder(&addresses).balance(balancer);
    let builder = match detection {
        Some(detection) => builder.outlier_detection(detection),
        None => builder.no_outlier_detection(),
    };
    let client = identity(&builder.build().unwrap());
    client.wait_ready(providers.len(), PATIENCE).await.unwrap();
    client
}

fn verdict(client: &ServiceClient<Client>, id: &str) -> Verdict {
    client.explain().candidate(&NodeId::new(id).unwrap()).unwrap().verdict.clone()
}

/// Calls one after the other until a provider is ejected.
async fn call_until_ejected(
    client: &ServiceClient<Client>,
    id: &str,
) -> Vec<Result<String, Status>> {
    let mut answers = Vec::new();
    while !matches!(verdict(client, id), Verdict::Ejected { .. }) {
        assert!(answers.len() < 200, "never ejected: {}", client.explain());
        answers.push(call(client).await);
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_fails_is_ejected_and_gets_no_call_until_its_time_is_over() {
    let mesh = Mesh::new();
    let (good, bad) = (Provider::start(&mesh, "good").await, Provider::start(&mesh, "bad").await);
    bad.always(Act::Fail(UNAVAILABLE));
    let detection = OutlierDetection::default();
    let client = connected(&mesh, &[&bad, &good], Some(detection), Balancer::default()).await;
    let answers = call_until_ejected(&client, "bad").await;
    let failures = answers.iter().filter(|it| it.is_err()).count();
    assert!((5..8).contains(&failures), "{failures} failures");
    let before = bad.requests();
    for _ in 0..50 {
        assert_eq!(call(&client).await.unwrap(), "good");
    }
    assert_eq!(bad.requests(), before);
    let explanation = client.explain();
    let text = explanation.to_string();
    assert!(text.contains("ejected, 5 calls failed in a row; it is asked again in"), "{text}");
    assert!(text.contains("ejected once)"), "{text}");
    assert_eq!((explanation.ejections, explanation.panic), (1, false));
    let status = client.wait_ready(2, Duration::from_millis(50)).await.unwrap_err();
    assert!(status.to_string().contains("ejected"), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_whose_one_connection_is_lost_with_many_calls_is_not_ejected() {
    let mesh = Mesh::new();
    let (a, b) = (Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await);
    a.always(Act::Hang);
    let client = connected(&mesh, &[&a, &b], Some(short()), Balancer::default()).await;
    let mut calls = JoinSet::new();
    for _ in 0..34 {
        let client = client.clone();
        calls.spawn(async move { call(&client).await });
    }
    eventually(PATIENCE, || if a.requests() == 17 { Ok(()) } else { Err("on their way") }).await;
    a.once(Act::Cut);
    for _ in 0..2 {
        let client = client.clone();
        calls.spawn(async move { call(&client).await });
    }
    // The last one that hangs may take the cut before one of these two does.
    let lost = calls.join_all().await.iter().filter(|it| it.is_err()).count();
    assert!((17..=18).contains(&lost), "{lost} calls were lost");
    let again = || if a.connections() == 2 { Ok(()) } else { Err("not connected again") };
    eventually(PATIENCE, again).await;
    client.wait_ready(2, PATIENCE).await.unwrap();

    // The second to the fourth failure in a row, not about the twentieth.
    a.always(Act::Fail(UNAVAILABLE));
    for _ in 0..6 {
        drop(call(&client).await);
    }
    a.always(Act::Answer);
    let answers = [call(&client).await.unwrap(), call(&client).await.unwrap()];
    assert!(answers.contains(&"a".to_owned()), "{answers:?}: {}", client.explain());
    assert_eq!(client.explain().ejections, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handlers_no_is_no_failure() {
    let mesh = Mesh::new();
    let (good, bad) = (Provider::start(&mesh, "good").await, Provider::start(&mesh, "bad").await);
    bad.always(Act::Fail(NOT_FOUND));
    let client = connected(&mesh, &[&bad, &good], Some(short()), Balancer::default()).await;
    for _ in 0..40 {
        drop(call(&client).await);
    }
    assert_eq!(bad.requests(), 20);
    assert_eq!(client.explain().ejections, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ejected_provider_is_asked_by_us_and_returns_once_it_is_healthy() {
    let mesh = Mesh::new();
    let (good, bad) = (Provider::start(&mesh, "good").await, Provider::start(&mesh, "bad").await);
    bad.always(Act::Fail(UNAVAILABLE));
    let client = connected(&mesh, &[&bad, &good], Some(short()), Balancer::default()).await;
    call_until_ejected(&client, "bad").await;
    // It fails our question too, and stays out for longer.
    let before = bad.requests();
    eventually(PATIENCE, || match verdict(&client, "bad") {
        Verdict::Ejected { reason, .. } if reason.contains("healthy: ") => Ok(()),
        verdict => Err(verdict.to_string()),
    })
    .await;
    for _ in 0..20 {
        assert_eq!(call(&client).await.unwrap(), "good");
    }
    let asked = bad.paths().into_iter().skip(before).collect::<Vec<_>>();
    assert!(!asked.is_empty());
    assert!(asked.iter().all(|path| path == "/grpc.health.v1.Health/Check"), "{asked:?}");
    bad.always(Act::Answer);
    client.wait_ready(2, PATIENCE).await.unwrap();
    let answers: Vec<_> = [call(&client).await, call(&client).await].map(Result::unwrap).into();
    assert!(answers.contains(&"bad".to_owned()), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_returns_and_fails_is_out_with_its_first_failure() {
    let mesh = Mesh::new();
    let (good, bad) = (Provider::start(&mesh, "good").await, Provider::start(&mesh, "bad").await);
    bad.always(Act::Fail(UNAVAILABLE));
    let client = connected(&mesh, &[&bad, &good], Some(short()), Balancer::default()).await;
    call_until_ejected(&client, "bad").await;
    // It says that it is healthy, but is not.
    bad.healthy(true);
    client.wait_ready(2, PATIENCE).await.unwrap();
    let answers = call_until_ejected(&client, "bad").await;
    assert!(answers.iter().filter(|it| it.is_err()).count() <= 2, "{answers:?}");
    let text = verdict(&client, "bad").to_string();
    assert!(text.contains("it returned and failed again"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn providers_are_called_although_they_fail_where_there_is_no_other() {
    let mesh = Mesh::new();
    let (one, two) = (Provider::start(&mesh, "one").await, Provider::start(&mesh, "two").await);
    let mut detection = OutlierDetection::default();
    detection.first_ejection = Duration::from_secs(60);
    let client = connected(&mesh, &[&one, &two], Some(detection), Balancer::default()).await;
    one.always(Act::Fail(UNAVAILABLE));
    call_until_ejected(&client, "one").await;
    // The last one is never ejected, and when it is gone the ejected one has to do.
    two.always(Act::Fail(UNAVAILABLE));
    for _ in 0..20 {
        assert_eq!(call(&client).await.unwrap_err().code(), Code::Unavailable);
    }
    assert!(verdict(&client, "two").is_eligible());
    two.kill().await;
    one.always(Act::Answer);
    let explanation = eventually(PATIENCE, || {
        let explanation = client.explain();
        if explanation.panic { Ok(explanation) } else { Err(explanation.to_string()) }
    })
    .await;
    assert!(explanation.to_string().contains("panic mode"), "{explanation}");
    assert_eq!(call(&client).await.unwrap(), "one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ejection_can_be_switched_off() {
    let mesh = Mesh::new();
    let (good, bad) = (Provider::start(&mesh, "good").await, Provider::start(&mesh, "bad").await);
    bad.always(Act::Fail(UNAVAILABLE));
    let client = connected(&mesh, &[&bad, &good], None, Balancer::default()).await;
    for _ in 0..40 {
        drop(call(&client).await);
    }
    assert_eq!(bad.requests(), 20);
    assert_eq!(client.explain().ejections, 0);
}
