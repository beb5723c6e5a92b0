//! Nothing that ended comes back.

use aegis_topology::{Author, Instance, Limits, Merged, NodeState, Refusal, Replica, Verified};
use proptest::prelude::{Strategy, any};
use proptest::{prop_assert, proptest};

use crate::fake::{HOUR, LEASE, NOW, identity, left, record, sign, verified, verify_at};

#[test]
fn a_node_that_left_is_not_brought_back_by_old_records() {
    let mut replica = Replica::new(Limits::default());
    let active = verified(&record("a", (1, 1), 1));
    let gone = verified(&left(record("a", (1, 2), 1)));
    let key = active.key();
    replica.merge(active.clone(), NOW);
    replica.merge(gone, NOW);
    for hours in 0..30 {
        let now = NOW.saturating_add(hours * HOUR);
        replica.expire(now);
        // Where the record itself has expired, it is refused before it is merged.
        if let Ok(active) = verify_at(active.signed().clone(), now) {
            assert!(matches!(replica.merge(active, now), Merged::Known), "hour {hours}");
        }
        let state = replica.record(key).map(|it| it.record().state);
        assert!(state.is_none_or(|state| state == NodeState::Left), "hour {hours}: {state:?}");
    }
    assert!(replica.is_empty());
}

#[test]
fn a_record_that_outlived_its_successor_is_not_taken_again() {
    let mut replica = Replica::new(Limits::default());
    let long = verified(&record("a", (1, 1), 1));
    let mut short = left(record("a", (1, 2), 1));
    short.expires_at = NOW.saturating_add(HOUR);
    replica.merge(long.clone(), NOW);
    replica.merge(verified(&short), NOW);
    let later = NOW.saturating_add(2 * HOUR);
    assert_eq!(replica.expire(later), 1);
    assert!(!replica.wants(long.key(), long.precedence(), long.body_hash()));
    assert!(matches!(replica.merge(long, later), Merged::Known));
    let mut restarted = record("a", (2, 1), 1);
    restarted.issued_at = later;
    let restarted = verified(&restarted);
    assert!(replica.wants(restarted.key(), restarted.precedence(), restarted.body_hash()));
    assert!(matches!(replica.merge(restarted, later), Merged::Changed));
}

#[test]
fn an_expired_record_bars_an_older_one_that_was_never_seen_until_none_can_be_valid() {
    let mut replica = Replica::new(Limits::default());
    let long = verified(&record("a", (1, 1), 1));
    let mut short = record("a", (1, 2), 1);
    short.issued_at = NOW.saturating_add(HOUR / 60);
    short.expires_at = NOW.saturating_add(HOUR);
    replica.merge(verified(&short), short.issued_at);
    assert_eq!(replica.expire(NOW.saturating_add(HOUR)), 1);
    // From somebody who did not hear of the short one.
    let almost = NOW.saturating_add(11 * HOUR);
    replica.expire(almost);
    assert!(!replica.wants(long.key(), long.precedence(), long.body_hash()));
    assert!(matches!(replica.merge(long.clone(), almost), Merged::Known));
    replica.expire(short.issued_at.saturating_add(LEASE));
    assert!(replica.wants(long.key(), long.precedence(), long.body_hash()), "it is forgotten");
}

#[test]
fn the_owner_signs_again_in_the_middle_of_the_lease_and_never_beyond_its_certificate() {
    let description = record("a", (0, 0), 1).description;
    let mut author =
        Author::new(identity("a"), Instance::from_bytes([1; 16]), description, None, NOW);
    let certificate_ends = NOW.saturating_add(10 * HOUR);
    let limits = Limits::default();
    let first = author.write(NOW, &limits, certificate_ends);
    assert_eq!(first.expires_at, certificate_ends);
    let due = |hours| author.is_due(NOW.saturating_add(hours * HOUR), &limits);
    assert_eq!([due(0), due(4), due(5)], [false, false, true]);
    // A clock that was set back a little does not make a later record expire earlier.
    let earlier = NOW.saturating_sub(HOUR / 15);
    assert!(!author.is_due(earlier, &limits));
    let second = author.write(earlier, &limits, certificate_ends);
    assert_eq!((second.issued_at, second.expires_at), (first.issued_at, first.expires_at));
    assert!(first.precedence < second.precedence);
    author.set_state(NodeState::Left);
    author.set_state(NodeState::Active);
    let last = author.write(NOW, &limits, certificate_ends);
    assert_eq!((last.state, last.description.services().len()), (NodeState::Left, 0));
}

#[test]
fn a_node_whose_clock_was_hours_ahead_is_heard_once_it_is_corrected() {
    let description = record("a", (0, 0), 1).description;
    let limits = Limits::default();
    let ahead = NOW.saturating_add(3 * HOUR);
    let mut author =
        Author::new(identity("a"), Instance::from_bytes([1; 16]), description, None, ahead);
    let first = sign(&author.write(ahead, &limits, NOW.saturating_add(240 * HOUR)));
    assert!(matches!(verify_at(first.clone(), NOW), Err(Refusal::Clock { .. })));
    // A peer with the same wrong clock took it.
    let mut misled = Replica::new(Limits::default());
    misled.merge(verify_at(first.clone(), ahead).unwrap(), ahead);

    assert!(author.is_due(NOW, &limits));
    author.set_state(NodeState::Left);
    let goodbye = sign(&author.write(NOW, &limits, NOW.saturating_add(240 * HOUR)));
    for replica in [&mut misled, &mut Replica::new(Limits::default())] {
        let goodbye = verify_at(goodbye.clone(), NOW).unwrap();
        assert!(matches!(replica.merge(goodbye, NOW), Merged::Changed));
    }
    // The goodbye is over before the first record is, which is not taken again all the same.
    let later = NOW.saturating_add(13 * HOUR);
    assert_eq!(misled.expire(later), 1);
    let replayed = verify_at(first, later).unwrap();
    assert!(matches!(misled.merge(replayed, later), Merged::Known));
}

proptest! {
    /// A history of one owner that ends with a goodbye, delivered late, doubled and in any order.
    #[test]
    fn no_order_of_deliveries_brings_a_node_back(
        leases in proptest::collection::vec(1_u32..=12, 1..6),
        deliveries in proptest::collection::vec((any::<proptest::sample::Index>(), 0_u32..40), 1..40)
            .prop_map(|mut deliveries| { deliveries.sort_by_key(|it| it.1); deliveries }),
    ) {
        let last = leases.len() as u64 - 1;
        let history: Vec<_> = (0..).zip(&leases).map(|(revision, hours)| {
            let mut record = record("a", (1, revision), 1);
            // The goodbye holds as long as anything before it, as `Author` writes it.
            record.expires_at = NOW.saturating_add(if revision == last { LEASE } else { *hours * HOUR });
            sign(&if revision == last { left(record) } else { record })
        }).collect();
        let mut replica = Replica::new(Limits::default());
        let mut seen_goodbye = false;
        for (at, hour) in deliveries {
            let now = NOW.saturating_add(hour * HOUR);
            replica.expire(now);
            let signed = at.get(&history).clone();
            seen_goodbye |= signed == history[history.len() - 1];
            if let Ok(record) = verify_at(signed, now) {
                replica.merge(record, now);
            }
            let active = |it: Verified| it.record().state == NodeState::Active;
            let alive = replica.record(verified(&record("a", (1, 1), 1)).key()).cloned().is_some_and(active);
            prop_assert!(!(alive && seen_goodbye));
        }
    }
}
