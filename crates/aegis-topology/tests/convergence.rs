//! A sync makes two directories equal and sends no record twice.

use std::collections::HashMap;

use aegis_topology::{
    BodyHash, Exchange, Limits, Precedence, Progress, Publisher, Replica, Root, SignedRecord,
    Snapshot, Stamp, SyncRequest, SyncResponse,
};
use proptest::collection::vec;
use proptest::prelude::{Strategy, any};
use proptest::{prop_assert, prop_assert_eq, proptest};

use crate::fake::{HOUR, NOW, left, record, verified, verify};

/// Runs an exchange as a driver does; returns its calls and what travelled, by receiver.
fn sync(caller: &mut Replica, other: &mut Replica) -> (usize, HashMap<(bool, BodyHash), usize>) {
    let (mut exchange, mut request) = Exchange::open(caller, None, NOW);
    let (mut calls, mut sent) = (0, HashMap::new());
    loop {
        calls += 1;
        take(other, &request.records, |hash| *sent.entry((false, hash)).or_default() += 1);
        let response = other.answer(&request);
        take(caller, &response.records, |hash| *sent.entry((true, hash)).or_default() += 1);
        match exchange.proceed(caller, &response) {
            Progress::Call(next) => request = next,
            Progress::Equal => return (calls, sent),
            end => panic!("{end:?} after {calls} calls"),
        }
    }
}

fn take(replica: &mut Replica, records: &[SignedRecord], mut count: impl FnMut(BodyHash)) {
    for record in records {
        count(record.body_hash());
        replica.merge(verify(record.clone()).unwrap(), NOW);
    }
}

fn replica(nodes: &[(u16, u64)], limits: Limits) -> Replica {
    let mut replica = Replica::new(limits);
    for (node, revision) in nodes {
        replica.merge(verified(&record(&format!("n{node}"), (1, *revision), 1)), NOW);
    }
    replica
}

fn any_nodes() -> impl Strategy<Value = Vec<(u16, u64)>> {
    vec((0..400_u16, 0..3_u64), 0..150)
}

proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 64, ..Default::default() })]
    #[test]
    fn two_directories_end_equal_and_no_record_travels_twice(
        common in any_nodes(),
        mine in any_nodes(),
        theirs in any_nodes(),
        page in proptest::sample::select(vec![2_000_usize, 20_000, 1 << 20]),
    ) {
        let mut limits = Limits::default();
        limits.page = page;
        let mut a = replica(&[common.clone(), mine].concat(), limits.clone());
        let mut b = replica(&[common, theirs].concat(), limits);
        let (calls, sent) = sync(&mut a, &mut b);
        prop_assert_eq!(a.root(), b.root());
        prop_assert!(a.stamps().eq(b.stamps()));
        prop_assert!(sent.values().all(|times| *times == 1));
        if page == 1 << 20 {
            prop_assert!(calls <= 3, "{} calls", calls);
        }
    }
}

#[test]
fn equal_directories_need_one_call_without_records() {
    let nodes: Vec<_> = (0..1_000).map(|node| (node, 1)).collect();
    let [mut a, mut b] = [(); 2].map(|()| replica(&nodes, Limits::default()));
    let (calls, sent) = sync(&mut a, &mut b);
    assert_eq!((calls, sent.len()), (1, 0));
}

#[test]
fn idle_directories_exchange_nothing_but_their_roots() {
    let nodes: Vec<_> = (0..1_000).map(|node| (node, 1)).collect();
    let replica = replica(&nodes, Limits::default());
    let (_, news) = Exchange::open(&replica, None, NOW);
    assert_eq!(news.recent.len(), 32);
    let (_, idle) = Exchange::open(&replica, None, NOW.saturating_add(HOUR));
    let mut expected = SyncRequest::default();
    (expected.root, expected.nodes) = (replica.root(), 1_000);
    assert_eq!(idle, expected);
}

#[test]
fn one_change_needs_two_calls() {
    let nodes: Vec<_> = (0..1_000).map(|node| (node, 1)).collect();
    for caller_knows in [true, false] {
        let [mut a, mut b] = [(); 2].map(|()| replica(&nodes, Limits::default()));
        let change = verified(&left(record("n7", (1, 2), 1)));
        if caller_knows {
            a.merge(change, NOW)
        } else {
            b.merge(change, NOW)
        };
        let (calls, sent) = sync(&mut a, &mut b);
        assert_eq!((calls, sent.len()), (2, 1));
        assert_eq!(a.root(), b.root());
    }
}

#[test]
fn an_introduction_makes_two_strangers_equal_in_one_call_each_way() {
    let mut a = replica(&[(1, 1)], Limits::default());
    let mut b = replica(&[(2, 1)], Limits::default());
    let own = a.stamps().next().unwrap().key;
    let (mut exchange, request) = Exchange::open(&a, Some(own), NOW);
    take(&mut b, &request.records, drop);
    assert_eq!(b.len(), 2);
    let response = b.answer(&request);
    take(&mut a, &response.records, drop);
    let Progress::Call(request) = exchange.proceed(&a, &response) else { panic!() };
    let response = b.answer(&request);
    take(&mut a, &response.records, drop);
    assert_eq!(exchange.proceed(&a, &response), Progress::Equal);
}

#[test]
fn an_exchange_with_a_node_that_refuses_ends() {
    let a = replica(&[(1, 1), (2, 1), (3, 1)], Limits::default());
    let b = replica(&[(4, 1)], Limits::default());
    let (mut exchange, mut request) = Exchange::open(&a, None, NOW);
    // `b` merges nothing, and `a` nothing of what it gets.
    for _ in 0..10 {
        match exchange.proceed(&a, &b.answer(&request)) {
            Progress::Call(next) => request = next,
            end => return assert_eq!(end, Progress::Different),
        }
    }
    panic!("it does not end");
}

fn any_stamp() -> impl Strategy<Value = Stamp> {
    (0..4_u16, 0..4_u64, any::<u64>()).prop_map(|(node, revision, hash)| {
        let key = record(&format!("n{node}"), (1, 0), 1).key();
        Stamp::new(key, Precedence::new(1, revision), hash)
    })
}

proptest! {
    /// A peer that answers nonsense costs a bounded number of calls, and gets each record once.
    #[test]
    fn an_exchange_with_a_liar_ends(
        lies in vec(
            (any::<u128>(), vec(any_stamp(), 0..6), vec(any_stamp(), 0..6), vec(any::<u8>(), 0..300), any::<bool>()),
            1..20,
        ),
    ) {
        let replica = replica(&[(0, 1), (1, 1), (2, 1)], Limits::default());
        let (mut exchange, request) = Exchange::open(&replica, None, NOW);
        let mut sent = request.records.len();
        let mut calls = 1;
        for (root, stamps, want, differing, more) in lies.into_iter().cycle() {
            let mut lie = SyncResponse::default();
            lie.root = Root::from_bytes(root.to_be_bytes());
            lie.recent = stamps.clone();
            lie.stamps = stamps;
            lie.want = want.iter().map(|stamp| stamp.key).collect();
            lie.differing = differing;
            lie.more = more;
            let Progress::Call(request) = exchange.proceed(&replica, &lie) else { break };
            sent += request.records.len();
            calls += 1;
        }
        prop_assert!(calls <= 256 && sent <= 3, "{} calls, {} records", calls, sent);
    }

    #[test]
    fn no_question_of_a_peer_panics(
        root in any::<u128>(), recent in vec(any_stamp(), 0..9), stamps in vec(any_stamp(), 0..9),
        buckets in proptest::sample::select(vec![0_usize, 256]),
    ) {
        let replica = replica(&[(0, 1), (1, 1), (2, 1)], Limits::default());
        let mut request = SyncRequest::default();
        request.root = Root::from_bytes(root.to_be_bytes());
        request.recent = recent;
        request.stamps = stamps;
        request.buckets = std::vec![Root::default(); buckets];
        let response = replica.answer(&request);
        prop_assert!(response.records.len() <= 3 && response.want.len() <= 4);
    }
}

#[test]
fn changes_are_read_page_by_page() {
    let mut limits = Limits::default();
    limits.page = 600;
    let nodes: Vec<_> = (0..20).map(|node| (node, 1)).collect();
    let mut replica = replica(&nodes, limits);
    replica.merge(verified(&record("n3", (1, 2), 1)), NOW);
    let (mut at, mut read) = (0, Vec::new());
    while at < replica.change() {
        let (page, next) = replica.changes_after(at);
        assert!(at < next && page.len() < 10);
        read.extend(page.into_iter().cloned());
        at = next;
    }
    assert_eq!(read.len(), 20);
    assert_eq!(read[19].record().precedence.revision, 2);
}

#[test]
fn the_index_is_what_a_rebuild_from_the_records_gives() {
    let mut replica = Replica::new(Limits::default());
    let publisher = Publisher::new();
    let read = |snapshot: &Snapshot| -> Vec<_> { snapshot.nodes().to_vec() };
    for step in 0..60_u64 {
        let next = record(&format!("n{}", step % 7), (1, step), 1);
        let next = if step % 5 == 0 { left(next) } else { next };
        replica.merge(verified(&next), NOW);
        publisher.publish(replica.root(), replica.entries());
        let rebuilt = Publisher::new();
        let mut fresh = Replica::new(Limits::default());
        let records: Vec<_> =
            replica.stamps().map(|it| replica.record(it.key).unwrap().clone()).collect();
        records.into_iter().rev().for_each(|record| drop(fresh.merge(record, NOW)));
        rebuilt.publish(fresh.root(), fresh.entries());
        let (a, b) = (publisher.directory().snapshot(), rebuilt.directory().snapshot());
        assert_eq!((read(&a), a.version().root), (read(&b), b.version().root));
        let info = "identity/v1".parse().unwrap();
        assert_eq!(a.providers(&info), b.providers(&info));
        assert!(
            a.providers(&info).iter().all(|node| node.state() == aegis_topology::NodeState::Active)
        );
    }
}
