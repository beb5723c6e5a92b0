//! Only the owner's signature changes a record.

use aegis_topology::{Author, Instance, Limits, Merged, Refusal, Replica, Timestamp, check_size};
use bytes::Bytes;

use crate::fake::{
    HOUR, LEASE, NOW, identity, left, record, sign, sign_as, verified, verify, verify_at,
};

fn replica() -> Replica {
    Replica::new(Limits::default())
}

#[test]
fn a_record_for_another_id_is_refused() {
    let refusal = verify(sign_as(&identity("mallory"), &record("a", (1, 1), 1))).unwrap_err();
    let Refusal::NotTheOwner { owner, signer } = refusal else { panic!("{refusal}") };
    assert_eq!((owner.node_id().as_str(), signer.node_id().as_str()), ("a", "mallory"));
    assert!(verify(sign(&record("a", (1, 1), 1))).is_ok());
}

#[test]
fn a_record_must_keep_to_the_rules_of_time() {
    let at = |change: &dyn Fn(&mut aegis_topology::Record)| {
        let mut record = record("a", (NOW.as_millis(), 1), 1);
        change(&mut record);
        verify(sign(&record)).map(drop)
    };
    let minute = HOUR / 60;
    assert!(at(&|_| {}).is_ok());
    assert!(at(&|it| it.issued_at = NOW.saturating_add(5 * minute)).is_ok());
    let ahead = |it: &mut aegis_topology::Record| it.issued_at = NOW.saturating_add(6 * minute);
    assert!(matches!(at(&ahead), Err(Refusal::Clock { .. })));
    let long = |it: &mut aegis_topology::Record| it.expires_at = NOW.saturating_add(LEASE + minute);
    assert!(matches!(at(&long), Err(Refusal::Lease { .. })));
    let over = |it: &mut aegis_topology::Record| it.expires_at = NOW;
    assert!(matches!(at(&over), Err(Refusal::Expired { .. })));
    let day = |hours: u32| NOW.saturating_add(hours * HOUR).as_millis();
    assert!(at(&|it| it.precedence.incarnation = day(24)).is_ok());
    let poison = |it: &mut aegis_topology::Record| it.precedence.incarnation = day(25);
    assert!(matches!(at(&poison), Err(Refusal::Incarnation { .. })));
}

#[test]
fn a_record_does_not_outlive_its_certificate() {
    let mut record = record("a", (1, 1), 1);
    let almost_a_year = NOW.saturating_add((24 * 365 - 6) * HOUR);
    record.issued_at = almost_a_year;
    record.expires_at = almost_a_year.saturating_add(LEASE);
    let refused = verify_at(sign(&record), almost_a_year).unwrap_err();
    assert!(matches!(refused, Refusal::OutlivesCertificate { .. }));
    record.expires_at = almost_a_year.saturating_add(LEASE / 2);
    assert!(verify_at(sign(&record), almost_a_year).is_ok());
}

#[test]
fn sizes_are_checked_before_anything_else() {
    let good = sign(&record("a", (1, 1), 1));
    let check = |change: &dyn Fn(&mut aegis_topology::SignedRecord)| {
        let mut record = good.clone();
        change(&mut record);
        check_size(&record, &Limits::default())
    };
    assert!(check(&|_| {}).is_ok());
    let too_large: [&dyn Fn(&mut aegis_topology::SignedRecord); 4] = [
        &|it| it.body = vec![0; (4 << 10) + 1].into(),
        &|it| it.chain = vec![Bytes::from(vec![0; (8 << 10) + 1])].into(),
        &|it| it.chain = vec![Bytes::new(); 5].into(),
        &|it| it.signature = vec![0; 2_000].into(),
    ];
    for change in too_large {
        assert!(matches!(check(change), Err(Refusal::TooLarge { .. })));
    }
}

#[test]
fn an_owner_that_equivocates_is_flagged_and_all_nodes_keep_the_same_record() {
    let [a, b] = [1, 2].map(|port| verified(&record("a", (1, 1), port)));
    let key = a.key();
    let kept = [[&a, &b], [&b, &a]].map(|order| {
        let mut replica = replica();
        assert!(matches!(replica.merge(order[0].clone(), NOW), Merged::Changed));
        assert!(matches!(replica.merge(order[1].clone(), NOW), Merged::Equivocation { .. }));
        // One proof is enough.
        let loser = order.into_iter().find(|it| it.stamp() != replica.stamp(key).unwrap()).unwrap();
        assert!(!replica.wants(key, loser.precedence(), loser.body_hash()));
        replica.stamp(key).unwrap()
    });
    assert_eq!(kept[0], kept[1]);
    let mut replica = replica();
    replica.merge(a, NOW);
    replica.merge(b, NOW);
    replica.merge(verified(&record("a", (1, 2), 1)), NOW);
    let [c, d] = [1, 2].map(|port| verified(&record("a", (1, 3), port)));
    replica.merge(c, NOW);
    assert!(replica.wants(key, d.precedence(), d.body_hash()), "an honest record mends it");
}

#[test]
fn a_full_directory_refuses_new_nodes_and_updates_known_ones() {
    let mut limits = Limits::default();
    limits.nodes = 2;
    let mut replica = Replica::new(limits);
    let mut merge = |id, revision| replica.merge(verified(&record(id, (1, revision), 1)), NOW);
    assert!(matches!(merge("a", 1), Merged::Changed));
    assert!(matches!(merge("b", 1), Merged::Changed));
    assert!(matches!(merge("c", 1), Merged::Full));
    assert!(matches!(merge("a", 2), Merged::Changed));
}

#[test]
fn a_record_of_another_process_with_our_identity_is_reported_and_not_merged() {
    let mut replica = replica();
    let mut mine = record("a", (5, 1), 1);
    mine.instance = Instance::from_bytes([2; 16]);
    replica.own(mine.key(), mine.instance);
    replica.merge(verified(&mine), NOW);
    for precedence in [(1, 9), (9, 1)] {
        let theirs = verified(&record("a", precedence, 2));
        assert!(replica.wants(theirs.key(), theirs.precedence(), theirs.body_hash()));
        assert!(matches!(replica.merge(theirs, NOW), Merged::OwnIdentity(_)));
        assert_eq!(replica.stamp(mine.key()).unwrap().precedence, mine.precedence);
    }
    replica.disown();
    assert!(matches!(replica.merge(verified(&record("a", (9, 1), 2)), NOW), Merged::Changed));
}

#[test]
fn a_restarted_node_wins_even_with_its_clock_set_back() {
    let description = record("a", (0, 0), 1).description;
    let mut replica = replica();
    let start = |now| {
        Author::new(identity("a"), Instance::from_bytes([7; 16]), description.clone(), None, now)
    };
    let forever = NOW.saturating_add(24 * 30 * HOUR);
    let first = verified(&start(NOW).write(NOW, &Limits::default(), forever));
    replica.merge(first.clone(), NOW);
    let hour_ago = Timestamp::from_millis(NOW.as_millis() - 3_600_000);
    let mut second = start(hour_ago);
    assert!(matches!(
        replica.merge(verified(&second.write(hour_ago, &Limits::default(), forever)), NOW),
        Merged::Known
    ));
    second.outbid(first.precedence());
    assert!(matches!(
        replica.merge(verified(&second.write(hour_ago, &Limits::default(), forever)), NOW),
        Merged::Changed
    ));
    // Kept on disk, the number needs no peer to remember it.
    let last = second.precedence().incarnation;
    let third = Author::new(
        identity("a"),
        Instance::from_bytes([8; 16]),
        description,
        Some(last),
        hour_ago,
    );
    assert!(last < third.precedence().incarnation);
}

#[test]
fn a_node_that_left_serves_nothing() {
    let mut lie = record("a", (1, 1), 1);
    lie.state = aegis_topology::NodeState::Left;
    assert!(matches!(verify(sign(&lie)), Err(Refusal::LeftWithServices { .. })));
    assert!(verify(sign(&left(lie))).is_ok());
}
