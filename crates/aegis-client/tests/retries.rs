//! What is sent again after a provider has had it: idempotent calls, within bounds, and nothing else.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use aegis_client::{CallPolicy, Failure, RequestExt as _, ServiceClient, ServicePool, Stopped};
use aegis_core::NodeId;
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use aegis_proto::identity::v1::{GetUserRequest, SubscribeSessionEventsRequest};
use aegis_testing::eventually;
use h2::Reason;
use tokio::task::JoinSet;
use tonic::{Code, Request, Status};
use tower_service::Service as _;

use crate::bodies::{Pieces, upload};
use crate::mesh::{
    Client, IDENTITY, Mesh, PATIENCE, assert_status, call, identity, request, send, timed,
};
use crate::provider::{Act, Provider};
use crate::raw::{Raw, RawPeer};

const METHOD: &str = "/aegis.identity.v1.IdentityService/ValidateSession";
const SERVICE: &str = "aegis.identity.v1.IdentityService";
const UNAVAILABLE: Act = Act::Fail(14);
const SHORT: Duration = Duration::from_millis(100);

pub(crate) async fn call_idempotent(client: &ServiceClient<Client>) -> Result<String, Status> {
    send(client, request().idempotent()).await
}

/// Clients of a channel on which the calls that the tests make are made like this.
pub(crate) fn with_policy(pool: &ServicePool, policy: CallPolicy) -> ServiceClient<Client> {
    identity(&pool.clone().with_policy(METHOD, policy))
}

#[track_caller]
pub(crate) fn stopped(status: &Status) -> (usize, Stopped) {
    let failure = Failure::from_status(status).expect("a status that keeps its failure");
    (failure.attempts_made(), failure.stopped())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_idempotent_call_is_sent_again_after_a_provider_has_failed_it() {
    let mesh = Mesh::new();
    let [a, b] = [Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await];
    let (_pool, client) = mesh.connected(&[&a, &b]).await;
    a.always(UNAVAILABLE);
    let outcomes = [call(&client).await, call(&client).await];
    let failures: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
    assert_eq!((failures.len(), a.requests(), b.requests()), (1, 1, 1));
    assert_eq!(stopped(&failures[0]), (1, Stopped::NotIdempotent));
    for _ in 0..4 {
        assert_eq!(call_idempotent(&client).await.unwrap(), "b");
    }
    assert_eq!((a.requests(), b.requests()), (3, 5));
    let explanation = client.explain();
    assert_eq!((explanation.attempts, explanation.retries, explanation.moved), (8, 2, 0));
    // The provider is told that it is not the first.
    let previous: Vec<_> = b
        .all_headers()
        .iter()
        .filter_map(|it| it.get("grpc-previous-rpc-attempts").cloned())
        .collect();
    assert_eq!(previous, ["1", "1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_connection_breaks_runs_once_unless_it_is_idempotent() {
    for (raw, reason) in [(Raw::Cut, "lost"), (Raw::GoAwayAfter, "closed")] {
        for idempotent in [false, true] {
            let mesh = Mesh::new();
            let bad = RawPeer::start(&mesh, "bad", raw).await;
            let good = Provider::start(&mesh, "good").await;
            let addresses = [("bad", bad.address), ("good", good.address)];
            let client = identity(&mesh.builder(&addresses).build().unwrap());
            client.wait_ready(2, PATIENCE).await.unwrap();
            let mark = |it: Request<_>| if idempotent { it.idempotent() } else { it };
            let outcomes =
                [send(&client, mark(request())).await, send(&client, mark(request())).await];
            let failed: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
            assert_eq!(bad.requests(), 1);
            assert_eq!((failed.len(), good.requests()), if idempotent { (0, 2) } else { (1, 1) });
            for status in failed {
                let words = ["node bad at", "attempt 1 of identity/v1", "not marked idempotent"];
                assert_status(&status, Code::Unavailable, &words);
                assert_eq!(stopped(&status), (1, Stopped::NotIdempotent), "{reason}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_that_the_policy_does_not_name_are_never_retried() {
    let mesh = Mesh::new();
    let [a, b] = [Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await];
    let (pool, client) = mesh.connected(&[&a, &b]).await;
    for code in (1..17).filter(|code| *code != 14) {
        let before = a.requests() + b.requests();
        a.always(Act::Fail(code));
        b.always(Act::Fail(code));
        let status = call_idempotent(&client).await.unwrap_err();
        assert_eq!(status.code(), Code::from(i32::from(code)));
        assert_eq!(stopped(&status), (1, Stopped::Code));
        assert_eq!(a.requests() + b.requests(), before + 1, "{code}");
    }
    // Named, they are, and what is not named any more is not.
    let client = with_policy(&pool, CallPolicy::new().idempotent().retry_on([Code::Aborted]));
    for (code, attempts) in [(10, 3), (14, 1)] {
        a.always(Act::Fail(code));
        b.always(Act::Fail(code));
        assert_eq!(stopped(&call(&client).await.unwrap_err()).0, attempts);
    }
    assert_eq!(client.explain().retries, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_is_for_its_method_or_its_service_and_for_no_other() {
    let mesh = Mesh::new();
    let [a, b] = [Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await];
    let addresses = [("a", a.address), ("b", b.address)];
    let policy = CallPolicy::new().idempotent();
    let other = "aegis.identity.v2.IdentityService";
    let built = |name| mesh.builder(&addresses).policy(name, policy).build().unwrap();
    let plain = mesh.builder(&addresses).build().unwrap();
    let by_factory = |name: &'static str| {
        ServiceClient::new(&plain, IDENTITY, move |channel| {
            IdentityServiceClient::new(channel.policy(name, policy))
        })
    };
    a.always(UNAVAILABLE);
    b.always(UNAVAILABLE);
    for (client, attempts) in [
        (identity(&built(METHOD)), 3),
        (identity(&built(SERVICE)), 3),
        (identity(&built(other)), 1),
        (identity(&built(SERVICE).with_policy(METHOD, CallPolicy::new())), 1),
        (identity(&plain.clone().with_policy(METHOD, policy)), 3),
        (by_factory(SERVICE), 3),
        (by_factory(other), 1),
        (identity(&plain), 1),
    ] {
        client.wait_ready(2, PATIENCE).await.unwrap();
        assert_eq!(stopped(&call(&client).await.unwrap_err()).0, attempts);
    }
    let client = identity(&built(METHOD));
    client.wait_ready(2, PATIENCE).await.unwrap();
    let status = client.get().unwrap().get_user(GetUserRequest::default()).await.unwrap_err();
    assert_eq!(stopped(&status), (1, Stopped::NotIdempotent));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_attempt_goes_to_another_provider_and_the_failure_names_them_all() {
    let mesh = Mesh::new();
    let ids = ["a", "b", "c"];
    let mut providers = Vec::new();
    for id in ids {
        let provider = Provider::start(&mesh, id).await;
        provider.always(Act::FailWith(14, vec![("grpc-message", format!("{id} is on fire"))]));
        providers.push(provider);
    }
    let (pool, client) = mesh.connected(&providers.iter().collect::<Vec<_>>()).await;
    let status = call_idempotent(&client).await.unwrap_err();
    let failure = Failure::from_status(&status).unwrap();
    assert_eq!((failure.attempts_made(), failure.stopped()), (3, Stopped::Attempts));
    let asked: HashSet<_> = failure.attempts().iter().map(|it| it.node_id.as_str()).collect();
    assert_eq!(asked, HashSet::from(ids));
    for attempt in failure.attempts() {
        let provider = providers.iter().find(|it| it.id == attempt.node_id.as_str()).unwrap();
        assert_eq!(attempt.address.to_string(), provider.address.to_string());
        assert_eq!((attempt.code, attempt.sent), (Code::Unavailable, true));
        assert_eq!(attempt.cause, format!("{} is on fire", provider.id));
        assert!(attempt.elapsed < PATIENCE);
    }
    let [first, second, third] = failure.attempts() else { panic!("{failure}") };
    let words = [
        &format!("node {} at {}: {} is on fire", third.node_id, third.address, third.node_id),
        &format!(
            "attempt 3 of identity/v1, after {}: Unavailable, {}: Unavailable",
            first.node_id, second.node_id
        ),
        "not sent again: it was sent as often as it may be",
    ];
    assert_status(&status, Code::Unavailable, &words);
    let policy = CallPolicy::new().idempotent();
    for attempts in [1, 2, 5] {
        let client = with_policy(&pool, policy.attempts(attempts));
        let made = stopped(&call(&client).await.unwrap_err()).0;
        assert_eq!(made, usize::try_from(attempts).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_of_a_single_provider_keeps_its_words_and_says_who_it_was() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let (_pool, client) = mesh.connected(&[&provider]).await;
    provider.always(Act::FailWith(
        5,
        vec![("grpc-message", "no such user".to_owned()), ("why", "it left".to_owned())],
    ));
    let status = call_idempotent(&client).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "no such user"));
    assert_eq!(status.metadata().get("why").unwrap(), "it left");
    let attempt = &Failure::from_status(&status).unwrap().attempts()[0];
    assert_eq!((attempt.node_id.as_str(), &*attempt.cause), ("a", "no such user"));
    assert!(status.to_string().contains("client::Failure(1 attempt by a at 127.0.0.1"), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_after_an_answer_has_begun_says_who_it_was() {
    let mesh = Mesh::new();
    let [a, b] = [Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await];
    let (_pool, client) = mesh.connected(&[&a, &b]).await;
    // A deadline of the provider's own is not the call's.
    for (act, code) in [
        (Act::FailAfterMessage(4), Code::DeadlineExceeded),
        (Act::FailAfterHead(5), Code::NotFound),
    ] {
        // The one that refuses it is the first attempt.
        for (first, second) in [(&a, &b), (&b, &a)] {
            first.always(Act::Reset(Reason::REFUSED_STREAM));
            second.always(act.clone());
            let status = loop {
                let status = call(&client).await.unwrap_err();
                if stopped(&status).0 == 2 {
                    break status;
                }
            };
            assert_eq!((status.code(), status.message()), (code, "too late"));
            assert_eq!(status.metadata().get("why").unwrap(), "it left");
            let failure = Failure::from_status(&status).unwrap();
            assert_eq!(failure.stopped(), Stopped::Begun);
            let attempt = failure.attempts().last().unwrap();
            assert_eq!((attempt.node_id.as_str(), attempt.code), (&*second.id, code));
            assert_eq!(attempt.cause, "too late");
            assert_eq!(attempt.address.to_string(), second.address.to_string());
            let text = status.to_string();
            let place = format!("2 attempts by {} at {}", second.id, second.address);
            assert!(text.contains(&place), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_every_provider_fails_attempts_stay_within_the_budget() {
    const CALLS: usize = 500;
    const FLOOR: usize = 30;
    let mesh = Mesh::new();
    let mut providers = Vec::new();
    for id in ["a", "b", "c"] {
        let provider = Provider::start(&mesh, id).await;
        provider.always(UNAVAILABLE);
        providers.push(provider);
    }
    let (_pool, client) = mesh.connected(&providers.iter().collect::<Vec<_>>()).await;
    let began = Instant::now();
    let calls = (0..CALLS).map(|_| call_idempotent(&client));
    let outcomes = futures_util::future::join_all(calls).await;
    let windows = 1 + usize::try_from(began.elapsed().as_secs() / 10).unwrap();
    let attempts: usize = providers.iter().map(Provider::requests).sum();
    assert!(CALLS < attempts, "nothing was retried");
    assert!(attempts <= CALLS + CALLS / 10 + FLOOR * windows, "{attempts} attempts");
    let of_budget =
        outcomes.iter().filter(|it| stopped(it.as_ref().unwrap_err()).1 == Stopped::Budget).count();
    let explanation = client.explain();
    assert!(0 < of_budget);
    assert_eq!(explanation.over_budget, u64::try_from(of_budget).unwrap());
    assert_eq!(explanation.attempts, u64::try_from(attempts).unwrap());
    assert_eq!(explanation.retries, u64::try_from(attempts - CALLS).unwrap());
}

/// Makes so many idempotent calls, so many at a time, and fails with the first that fails.
async fn call_many_idempotent(client: &ServiceClient<Client>, calls: usize, at_once: usize) {
    let mut tasks = JoinSet::new();
    for worker in 0..at_once {
        let client = client.clone();
        tasks.spawn(async move {
            for _ in (worker..calls).step_by(at_once) {
                call_idempotent(&client).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_that_always_fails_costs_no_idempotent_call() {
    let mesh = Mesh::new();
    let [a, b] = [Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await];
    let bad = Provider::start(&mesh, "bad").await;
    bad.always(UNAVAILABLE);
    let (_pool, client) = mesh.connected(&[&a, &b, &bad]).await;
    call_many_idempotent(&client, 3_000, 20).await;
    let explanation = client.explain();
    assert_eq!((explanation.calls, explanation.over_budget), (3_000, 0));
    // Each of its failures was made good, and it was left out before they were many.
    // Its requests count the questions after its health, too.
    let failures = explanation.candidate(&NodeId::new("bad").unwrap()).unwrap().picks;
    assert_eq!(explanation.retries, failures);
    assert!((5..300).contains(&failures), "{failures} attempts at the bad one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_dies_under_load_costs_no_idempotent_call() {
    let mesh = Mesh::new();
    let [a, b] = [Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await];
    let dying = Provider::start(&mesh, "dying").await;
    let (_pool, client) = mesh.connected(&[&a, &b, &dying]).await;
    for provider in [&a, &b, &dying] {
        provider.always(Act::AnswerAfter(Duration::from_millis(2)));
    }
    let killing = async {
        eventually(PATIENCE, || match dying.requests() {
            some if 200 < some => Ok(()),
            some => Err(format!("{some} requests")),
        })
        .await;
        dying.kill().await
    };
    tokio::join!(call_many_idempotent(&client, 3_000, 20), killing);
    let explanation = client.explain();
    assert!(0 < explanation.retries, "nothing was under way: {explanation}");
    assert_eq!(explanation.over_budget, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_provider_is_asked_again_after_a_while() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let (pool, client) = mesh.connected(&[&provider]).await;
    let pinned = client.pinned().unwrap();
    provider.once(UNAVAILABLE);
    provider.once(UNAVAILABLE);
    let began = Instant::now();
    assert_eq!(call_idempotent(&client).await.unwrap(), "a");
    // 50 ms and 100 ms, each 20 % less at most.
    assert!(Duration::from_millis(120) <= began.elapsed(), "{:?}", began.elapsed());
    provider.once(UNAVAILABLE);
    pinned.clone().validate_session(request().idempotent()).await.unwrap();
    assert_eq!((provider.requests(), client.explain().retries), (5, 3));
    // A pause that the deadline would not survive is not begun.
    provider.always(UNAVAILABLE);
    let patient = with_policy(&pool, CallPolicy::new().idempotent().attempts(100));
    let status = send(&patient, timed(Duration::from_secs(1))).await.unwrap_err();
    assert_status(&status, Code::Unavailable, &["there is no time left"]);
    assert_eq!(stopped(&status).1, Stopped::Deadline);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_which_too_much_was_sent_is_not_sent_again() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let pool = mesh.pool(&[&provider]).with_policy(METHOD, CallPolicy::new().idempotent());
    let mut channel = pool.channel(IDENTITY);
    channel.wait_ready(1, PATIENCE).await.unwrap();
    for (piece, attempts) in [(32 * 1024, 2), (64 * 1024, 1)] {
        let before = provider.requests();
        provider.once(Act::FailAfterReading(14));
        let outcome = channel.call(upload(Pieces::new(&[piece; 2], false))).await;
        assert_eq!(provider.requests(), before + attempts);
        match outcome {
            Ok(_) => assert_eq!(attempts, 2),
            Err(status) => assert_eq!(stopped(&status), (1, Stopped::NotReplayable)),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_has_begun_is_never_asked_for_again() {
    let mesh = Mesh::new();
    let [a, b] = [Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await];
    let (_pool, client) = mesh.connected(&[&a, &b]).await;
    for (act, message) in [(Act::FailAfterMessage(14), "too late"), (Act::CutAfterMessage, "lost")]
    {
        a.always(act.clone());
        b.always(act);
        let before = a.requests() + b.requests();
        let subscribe = Request::new(SubscribeSessionEventsRequest::default()).idempotent();
        let stream = client.get().unwrap().subscribe_session_events(subscribe).await.unwrap();
        let mut stream = stream.into_inner();
        assert!(stream.message().await.unwrap().is_some());
        let status = stream.message().await.unwrap_err();
        assert_status(&status, Code::Unavailable, &[message]);
        assert_eq!(stopped(&status), (1, Stopped::Begun));
        assert_eq!(a.requests() + b.requests(), before + 1);
        client.wait_ready(2, PATIENCE).await.unwrap();
    }
    assert_eq!(client.explain().retries, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_gives_a_deadline_to_calls_that_have_none() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let (pool, _client) = mesh.connected(&[&provider]).await;
    let client = with_policy(&pool, CallPolicy::new().deadline(SHORT));
    provider.always(Act::AnswerAfter(SHORT * 2));
    assert_eq!(call(&client).await.unwrap_err().code(), Code::DeadlineExceeded);
    assert!(provider.last_headers().contains_key("grpc-timeout"));
    send(&client, timed(PATIENCE)).await.unwrap();
    let inherited = Instant::now() + PATIENCE;
    aegis_client::deadline::scope(inherited, call(&client)).await.unwrap();
}
