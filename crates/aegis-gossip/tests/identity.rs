//! Nobody speaks for anybody else.

use std::time::Duration;

use aegis_core::NodeId;
use aegis_gossip::{Member, MemberStatus, Settings, SyncError};
use aegis_testing::{TestCa, eventually};
use aegis_tls::Tls;
use aegis_topology::{Precedence, SignedRecord};
use bytes::Bytes;

use crate::log;
use crate::mesh::{Node, SOON, connections, describe, now, push, record, shows, sign};

/// A record about `about` in the name of another, at a port of its own.
fn claim(from: &Tls, about: &str, precedence: Precedence, port: u16) -> SignedRecord {
    let mut record = record(from, about);
    record.precedence = precedence;
    record.description = describe(&format!("127.0.0.1:{port}").parse().unwrap());
    sign(from, &record)
}

#[tokio::test]
async fn a_node_with_a_valid_certificate_cannot_publish_a_record_for_another_id() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let b = Node::start(&ca, "b", &[&a.address]).await;
    shows(&a.directory(), &["a", "b"]).await;
    let mallory = ca.tls("mallory", "worker");
    let later = Precedence::new(now().as_millis() + 1_000, 1);
    push(&mallory, &a, [claim(&mallory, "b", later, 1)]).await;
    push(&mallory, &a, [claim(&mallory, "ghost", later, 1)]).await;
    assert_eq!(a.member.counters().refused, 2);
    let snapshot = a.directory().snapshot();
    let entry = snapshot.node(&NodeId::from_static("b")).unwrap();
    assert_eq!(entry.addresses(), std::slice::from_ref(&b.address));
    assert!(snapshot.node(&NodeId::from_static("ghost")).is_none());
    // The same record about itself is taken.
    push(&mallory, &a, [claim(&mallory, "mallory", later, 1)]).await;
    shows(&a.directory(), &["a", "b", "mallory"]).await;
    assert_eq!(a.member.counters().refused, 2);
}

#[tokio::test]
async fn an_owner_that_signs_two_records_with_one_number_is_counted() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let b = ca.tls("b", "worker");
    for port in [1, 2] {
        push(&b, &a, [claim(&b, "b", Precedence::new(5, 5), port)]).await;
    }
    assert_eq!(a.member.counters().equivocations, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_last_run_had_a_later_clock_is_shown_all_the_same() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let an_hour_ahead = Precedence::new(now().as_millis() + 3_600_000, 7);
    let past = ca.tls("b", "worker");
    push(&past, &a, [claim(&past, "b", an_hour_ahead, 1)]).await;
    let b = Node::start(&ca, "b", &[&a.address]).await;
    let id = NodeId::from_static("b");
    for node in [&a, &b] {
        node.directory()
            .wait_for(|it| it.node(&id).is_some_and(|it| it.addresses()[0] == b.address), SOON)
            .await
            .unwrap();
    }
    // b itself was right from the start; what counts is that it won.
    let won = |it: &aegis_topology::Snapshot| {
        an_hour_ahead.incarnation < it.node(&id).unwrap().incarnation()
    };
    b.directory().wait_for(won, SOON).await.unwrap();
    let seen = a.directory().snapshot().node(&id).unwrap().incarnation();
    assert!(an_hour_ahead.incarnation < seen);
    assert_eq!(b.member.counters().conflicts, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_with_one_id_the_later_one_is_shown_and_the_other_returns_when_it_is_gone()
{
    let ca = TestCa::new();
    let mut settings = Settings::default();
    settings.conflict_every = Duration::from_millis(200);
    let a = Node::start(&ca, "a", &[]).await;
    let first = Node::start_with(&ca, "b", "127.0.0.1:0", &[&a.address], settings.clone()).await;
    shows(&a.directory(), &["a", "b"]).await;
    let second = Node::start_with(&ca, "b", "127.0.0.1:0", &[&a.address], settings).await;
    let id = NodeId::from_static("b");
    let at = |address: &aegis_core::Address| {
        let (directory, address) = (a.directory(), address.clone());
        let id = id.clone();
        async move {
            let shown = |it: &aegis_topology::Snapshot| {
                it.node(&id).is_some_and(|it| it.addresses()[0] == address)
            };
            directory.wait_for(shown, SOON).await.unwrap();
        }
    };
    at(&second.address).await;
    let displaced = MemberStatus::Displaced { address: second.address.clone() };
    eventually(SOON, || {
        let status = first.member.status();
        if status == displaced { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    for node in [&first, &second] {
        eventually(SOON, || {
            if 1 <= node.member.counters().conflicts { Ok(()) } else { Err("not reported") }
        })
        .await;
    }
    drop(second);
    at(&first.address).await;
    assert!(matches!(first.member.status(), MemberStatus::Advertised { .. }));
}

#[tokio::test]
async fn a_node_whose_only_seed_is_another_process_with_its_id_is_told_and_so_is_that_one() {
    let (lines, _listening) = log::listen();
    let ca = TestCa::new();
    let first = Node::start(&ca, "b", &[]).await;
    let second = Node::start(&ca, "b", &[&first.address]).await;
    let displaced = MemberStatus::Displaced { address: second.address.clone() };
    eventually(SOON, || {
        let status = first.member.status();
        let conflicts = second.member.counters().conflicts;
        if status == displaced && conflicts == 1 { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    for said in ["so this one stops advertising", "has to stop advertising"] {
        let warnings = lines.of("WARN", said);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        for address in [&first.address, &second.address] {
            assert!(warnings[0].contains(&address.to_string()), "{}", warnings[0]);
        }
    }
    assert!(!second.directory().snapshot().is_synced());
    // The seed knows whose id it is now.
    let error = second.member.sync_now(&first.address).await.unwrap_err();
    assert!(matches!(error, SyncError::OwnNode { .. }), "{error}");
    let error = first.member.sync_now(&second.address).await.unwrap_err();
    assert!(matches!(error, SyncError::Duplicate { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_followed_the_mesh_before_it_started_outbids_its_past_life() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let an_hour_ahead = Precedence::new(now().as_millis() + 3_600_000, 7);
    let tls = ca.tls("b", "worker");
    push(&tls, &a, [claim(&tls, "b", an_hour_ahead, 1)]).await;
    let member = Member::new(tls.clone(), connections(&tls), Settings::default());
    let following = member.observe([a.address.clone()]);
    shows(&member.directory(), &["a", "b"]).await;
    drop(following);
    let address = "127.0.0.1:2".parse().unwrap();
    member.start(describe(&address), [a.address.clone()]).unwrap();
    let id = NodeId::from_static("b");
    for directory in [member.directory(), a.directory()] {
        let moved = |it: &aegis_topology::Snapshot| {
            it.node(&id).is_some_and(|it| it.addresses() == std::slice::from_ref(&address))
        };
        directory.wait_for(moved, SOON).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_changed_bit_of_a_record_is_refused() {
    let ca = TestCa::new();
    let mut settings = Settings::default();
    settings.verify_rate = 1_000_000;
    let a = Node::start_with(&ca, "a", "127.0.0.1:0", &[], settings).await;
    let b = ca.tls("b", "worker");
    let good = sign(&b, &record(&b, "b"));
    let flips = |bytes: &Bytes| {
        let bytes = bytes.to_vec();
        (0..bytes.len() * 8).map(move |bit| {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            Bytes::from(bytes)
        })
    };
    let changed = |change: &dyn Fn(&mut SignedRecord)| {
        let mut record = good.clone();
        change(&mut record);
        record
    };
    let mut bad: Vec<_> =
        flips(&good.body).map(|body| changed(&|it| it.body = body.clone())).collect();
    for (at, certificate) in good.chain.iter().enumerate() {
        // Nine is no divisor of a byte's bits: one bit of each byte, and each of the eight.
        bad.extend(flips(certificate).step_by(9).map(|certificate| {
            let mut chain = good.chain.to_vec();
            chain[at] = certificate;
            changed(&|it| it.chain = chain.clone().into())
        }));
    }
    bad.extend(flips(&good.signature).map(|bits| changed(&|it| it.signature = bits.clone())));
    bad.extend((0..16).map(|bit| changed(&|it| it.scheme ^= 1 << bit)));
    assert!(2_000 < bad.len(), "{}", bad.len());
    for records in bad.chunks(1_000) {
        push(&b, &a, records.to_vec()).await;
    }
    assert_eq!(a.directory().snapshot().nodes().len(), 1);
    // Those whose time is over by a flip are not worth a refusal.
    assert!(bad.len() - 100 < usize::try_from(a.member.counters().refused).unwrap());
    push(&b, &a, [good]).await;
    shows(&a.directory(), &["a", "b"]).await;
}
