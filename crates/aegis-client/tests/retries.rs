//! What is sent again after a provider has had it: idempotent calls, within bounds, and nothing else.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use aegis_client::{CallPolicy, Failure, RequestExt as _, ServiceClient, Stopped};
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use aegis_proto::identity::v1::{GetUserRequest, SubscribeSessionEventsRequest};
use aegis_testing::eventually;
use h2::Reason;
use tonic::{Code, Request, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
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

async fn call_idempotent(client: &ServiceClient<Client>) -> Result<String, Status> {
    send(client, request().idempotent()).await
}

/// Clients of a channel on which the calls that the tests make are made like this.
fn with_policy(pool: &aegis_client::ServicePool, policy: CallPolicy) -> ServiceClient<Client> {
    identity(&pool.clone().with_policy(METHOD, policy))
}

#[track_caller]
fn stopped(status: &Status) -> (usize, Stopped) {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_provider_is_asked_again_after_a_while() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let (_pool, client) = mesh.connected(&[&provider]).await;
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
    // What is not worth the wait is not waited for.
    provider.always(UNAVAILABLE);
    let hurried = timed(Duration::from_millis(30)).idempotent();
    let status = send(&client, hurried).await.unwrap_err();
    assert_eq!((status.code(), stopped(&status)), (Code::Unavailable, (1, Stopped::Deadline)));
}

fn pushback(millis: &str) -> Act {
    Act::FailWith(14, vec![("grpc-retry-pushback-ms", millis.to_owned())])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_pushes_back_is_heeded() {
    let mesh = Mesh::new();
    let [a, b] = [Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await];
    let (_pool, client) = mesh.connected(&[&a, &b]).await;
    let details = ErrorDetails::with_retry_info(Some(SHORT));
    let status = Status::with_error_details(Code::Unavailable, "", details);
    let info =
        status.into_http::<()>().headers()["grpc-status-details-bin"].to_str().unwrap().to_owned();
    let info = Act::FailWith(14, vec![("grpc-status-details-bin", info)]);
    let mut expected = 0;
    for (act, pause) in [(pushback("100"), SHORT), (info, SHORT), (pushback("0"), Duration::ZERO)] {
        a.once(act.clone());
        b.once(act);
        let began = Instant::now();
        call_idempotent(&client).await.unwrap();
        assert!(pause * 2 <= began.elapsed(), "{:?}", began.elapsed());
        expected += 3;
        assert_eq!(a.requests() + b.requests(), expected);
    }
    for never in ["-1", "soon", "99999999"] {
        a.always(pushback(never));
        b.always(pushback(never));
        let status = call_idempotent(&client).await.unwrap_err();
        assert_eq!(stopped(&status), (1, Stopped::Pushback));
        expected += 1;
        assert_eq!(a.requests() + b.requests(), expected);
    }
    assert_eq!(client.explain().pushbacks, 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pushback_beyond_the_deadline_ends_the_call_at_once() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let (pool, client) = mesh.connected(&[&provider]).await;
    provider.always(pushback("200000"));
    let status = send(&client, timed(Duration::from_secs(100)).idempotent()).await.unwrap_err();
    assert_eq!((status.code(), stopped(&status)), (Code::Unavailable, (1, Stopped::Deadline)));
    // So does one beyond the response limit.
    let status = call_idempotent(&client).await.unwrap_err();
    assert_eq!(stopped(&status), (1, Stopped::Deadline));
    let mut patient = IdentityServiceClient::new(pool.channel(IDENTITY).no_response_limit());
    let waiting =
        tokio::spawn(async move { patient.validate_session(request().idempotent()).await });
    eventually(PATIENCE, || match provider.requests() {
        3 => Ok(()),
        some => Err(format!("{some} requests")),
    })
    .await;
    tokio::time::sleep(SHORT).await;
    assert!(!waiting.is_finished());
    waiting.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_given_up_while_it_waits_to_be_sent_again_is_not_sent_again() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let (pool, client) = mesh.connected(&[&provider]).await;
    provider.always(pushback("300"));
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { call_idempotent(&client).await }
    });
    eventually(PATIENCE, || match client.explain().pushbacks {
        1 => Ok(()),
        some => Err(format!("{some} pushbacks")),
    })
    .await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    // Nothing is under way any more, so it closes at once.
    tokio::time::timeout(PATIENCE, pool.close()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(provider.requests(), 1);
    // Where its deadline would pass meanwhile, the last answer is its answer.
    let (_pool, client) = mesh.connected(&[&provider]).await;
    let status = send(&client, timed(Duration::from_millis(500)).idempotent()).await.unwrap_err();
    assert_status(&status, Code::Unavailable, &["attempt 2", "there is no time left"]);
    assert_eq!(stopped(&status), (2, Stopped::Deadline));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_provider_is_left_after_the_try_timeout() {
    let mesh = Mesh::new();
    let [a, b] = [Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await];
    let (pool, _client) = mesh.connected(&[&a, &b]).await;
    a.always(Act::Hang);
    let client = with_policy(&pool, CallPolicy::new().idempotent().try_timeout(SHORT));
    for _ in 0..4 {
        assert_eq!(call(&client).await.unwrap(), "b");
    }
    assert_eq!((a.requests(), b.requests(), client.explain().try_timeouts), (2, 4, 2));
    // The slow one learns that nobody waits for it.
    eventually(PATIENCE, || match a.reset() {
        2 => Ok(()),
        some => Err(format!("{some} of 2 streams were reset")),
    })
    .await;
    // When both are slow, the deadline has the last word, and the failure tells of both.
    b.always(Act::Hang);
    let status = send(&client, timed(SHORT * 5)).await.unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, &["attempt 3 of identity/v1, after"]);
    let failure = Failure::from_status(&status).unwrap();
    assert_eq!((failure.attempts_made(), failure.stopped()), (3, Stopped::Deadline));
    assert!(failure.attempts()[0].cause.contains("try_timeout of 100ms"), "{failure}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_may_not_be_sent_again_waits_beyond_its_try_timeout() {
    let mesh = Mesh::new();
    let [a, b] = [Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await];
    let (pool, _client) = mesh.connected(&[&a, &b]).await;
    a.always(Act::AnswerAfter(SHORT * 3));
    b.always(Act::AnswerAfter(SHORT * 3));
    let policy = CallPolicy::new().try_timeout(SHORT);
    for policy in [policy, policy.idempotent().attempts(1)] {
        call(&with_policy(&pool, policy)).await.unwrap();
    }
    assert_eq!((a.requests() + b.requests(), a.reset() + b.reset()), (2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idempotent_calls_leave_a_stalled_connection_and_others_stay() {
    let mesh = Mesh::new();
    let silent = RawPeer::start(&mesh, "silent", Raw::Silence { streams: 100 }).await;
    let good = Provider::start(&mesh, "good").await;
    let addresses = [("good", good.address), ("silent", silent.address)];
    let client = identity(&mesh.builder(&addresses).build().unwrap());
    client.wait_ready(2, PATIENCE).await.unwrap();
    let began = Instant::now();
    let calls = (0..8).map(|index| {
        let client = &client;
        async move {
            let request = timed(PATIENCE);
            // In pairs, since of two calls one is with the silent one.
            let idempotent = index % 4 < 2;
            let outcome =
                send(client, if idempotent { request.idempotent() } else { request }).await;
            (idempotent, outcome, began.elapsed())
        }
    });
    let outcomes = futures_util::future::join_all(calls).await;
    assert!(outcomes.iter().filter(|(idempotent, ..)| *idempotent).all(|it| it.1.is_ok()));
    let late: Vec<_> = outcomes.iter().filter(|it| Duration::from_secs(1) < it.2).collect();
    // It stops reading with the first of them.
    assert_eq!((late.len(), silent.requests()), (4, 1));
    for (idempotent, outcome, elapsed) in late {
        if *idempotent {
            // A PING after 1 s of silence, 1 s for the answer.
            assert!(*elapsed < PATIENCE, "{elapsed:?}");
        } else {
            assert_eq!(outcome.as_ref().unwrap_err().code(), Code::DeadlineExceeded);
        }
    }
    assert_eq!(client.explain().stalls_left, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_black_hole_a_stream_ends_and_new_calls_go_elsewhere() {
    let mesh = Mesh::new();
    let silent = RawPeer::start(&mesh, "silent", Raw::Silence { streams: 100 }).await;
    let mut settings = aegis_client::Settings::default();
    settings.keepalive.dead_after = Duration::from_secs(3);
    settings.keepalive.idle.answer = Duration::from_secs(1);
    let good = Provider::start(&mesh, "good").await;
    let addresses = [("good", good.address), ("silent", silent.address)];
    let client = identity(&mesh.builder(&addresses).settings(settings).build().unwrap());
    client.wait_ready(2, PATIENCE).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..2 {
        let client = client.clone();
        streams.push(tokio::spawn(async move {
            client
                .get()?
                .subscribe_session_events(SubscribeSessionEventsRequest::default())
                .await?;
            Ok::<_, Status>(())
        }));
    }
    eventually(PATIENCE, || match silent.requests() {
        1 => Ok(()),
        some => Err(format!("{some} streams")),
    })
    .await;
    let mut ends = Vec::new();
    for stream in streams {
        ends.extend(stream.await.unwrap().err());
    }
    let [status] = ends.as_slice() else { panic!("{ends:?}") };
    assert_status(status, Code::Unavailable, &["node silent at", "has not answered for too long"]);
    for _ in 0..10 {
        assert_eq!(call(&client).await.unwrap(), "good");
    }
    assert_eq!(silent.requests(), 1);
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
    for (act, message) in [(Act::FailAfterMessage(14), None), (Act::CutAfterMessage, Some("lost"))]
    {
        a.always(act.clone());
        b.always(act);
        let before = a.requests() + b.requests();
        let subscribe = Request::new(SubscribeSessionEventsRequest::default()).idempotent();
        let stream = client.get().unwrap().subscribe_session_events(subscribe).await.unwrap();
        let mut stream = stream.into_inner();
        assert!(stream.message().await.unwrap().is_some());
        let status = stream.message().await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        if let Some(message) = message {
            assert_status(&status, Code::Unavailable, &[message]);
            assert_eq!(stopped(&status), (1, Stopped::Begun));
        }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_cancels_for_the_deadline_is_no_cancellation() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let (_pool, client) = mesh.connected(&[&provider]).await;
    // A little before our own clock says so.
    provider.always(Act::ResetAfter(Duration::from_millis(98), Reason::CANCEL));
    for _ in 0..20 {
        let status = send(&client, timed(SHORT)).await.unwrap_err();
        assert_status(&status, Code::DeadlineExceeded, &["node a at"]);
    }
    provider.always(Act::ResetAfter(SHORT, Reason::CANCEL));
    let status = send(&client, timed(PATIENCE)).await.unwrap_err();
    assert_status(&status, Code::Cancelled, &["node a at"]);
}
