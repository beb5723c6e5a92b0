//! The merge rule is a join: the order, the grouping and the number of messages do not matter.
//!
//! And only its owner's signature changes a record. The checkers take any store and any verifier, so that rules
//! broken on purpose show that they can fail.

use std::collections::BTreeMap;

use aegis_topology::{
    Evidence, Key, Limits, Precedence, Refusal, Replica, Root, SignedRecord, Stamp, Verified,
    Verify,
};
use proptest::collection::vec;
use proptest::prelude::{Strategy, TestCaseError, prop_assert_eq};
use proptest::prop_assert;
use proptest::test_runner::{Config, TestError, TestRunner};

use crate::fake::{DOMAIN, FakeCa, NOW, identity, record, sign_as, verified};

trait Store: Default {
    fn merge(&mut self, record: Verified);
    fn stamps(&self) -> BTreeMap<Key, Stamp>;
    fn root(&self) -> Option<Root>;
}

/// The shipped one.
struct Shipped(Replica);

impl Default for Shipped {
    fn default() -> Self {
        Self(Replica::new(Limits::default()))
    }
}

impl Store for Shipped {
    fn merge(&mut self, record: Verified) {
        self.0.merge(record, NOW);
    }

    fn stamps(&self) -> BTreeMap<Key, Stamp> {
        self.0.stamps().map(|stamp| (stamp.key, stamp)).collect()
    }

    fn root(&self) -> Option<Root> {
        Some(self.0.root())
    }
}

/// A store with another rule: whether the second replaces the first.
#[derive(Default)]
struct Other<const RULE: u8>(BTreeMap<Key, Stamp>);

const LAST_WINS: u8 = 0;
const TIE_TO_THE_FIRST: u8 = 1;
const REVISION_BEFORE_INCARNATION: u8 = 2;

impl<const RULE: u8> Store for Other<RULE> {
    fn merge(&mut self, record: Verified) {
        let new = record.stamp();
        let by_revision = |it: Precedence| (it.revision, it.incarnation);
        let replace = self.0.get(&new.key).is_none_or(|held| match RULE {
            LAST_WINS => true,
            TIE_TO_THE_FIRST => held.precedence < new.precedence,
            _ => by_revision(held.precedence) < by_revision(new.precedence),
        });
        if replace {
            self.0.insert(new.key, new);
        }
    }

    fn stamps(&self) -> BTreeMap<Key, Stamp> {
        self.0.clone()
    }

    fn root(&self) -> Option<Root> {
        None
    }
}

fn fill<S: Store>(records: &[Verified]) -> S {
    let mut store = S::default();
    for record in records {
        store.merge(record.clone());
    }
    store
}

/// What a store holds after it merged all that another one was given, like a peer that catches up.
fn join<S: Store>(parts: [&[Verified]; 2]) -> S {
    fill(&parts.concat())
}

fn check_laws<S: Store>() -> Result<(), TestError<[Vec<Verified>; 3]>> {
    let mut runner =
        TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let records = || vec(any_record(), 0..8);
    let sets = (records(), records(), records()).prop_map(|(a, b, c)| [a, b, c]);
    runner.run(&sets, |[a, b, c]| {
        let state = |store: S| (store.stamps(), store.root());
        let ab = state(join::<S>([&a, &b]));
        prop_assert_eq!(&ab, &state(join::<S>([&b, &a])), "not commutative");
        prop_assert_eq!(&ab, &state(join::<S>([&[&*a, &b].concat(), &b])), "not idempotent");
        let left = state(join::<S>([&[&*a, &b].concat(), &c]));
        prop_assert_eq!(left, state(join::<S>([&a, &[&*c, &b].concat()])), "not associative");
        monotone::<S>(&[a, b, c].concat())
    })
}

/// No message takes a node back to an older record, and none is passed over.
fn monotone<S: Store>(records: &[Verified]) -> Result<(), TestCaseError> {
    let mut store = S::default();
    for record in records {
        let before = store.stamps();
        store.merge(record.clone());
        let after = store.stamps();
        for (key, stamp) in &before {
            prop_assert!(stamp.precedence <= after[key].precedence, "went back");
        }
        prop_assert!(record.precedence() <= after[&record.key()].precedence, "passed over");
    }
    Ok(())
}

/// Few owners and numbers, so that the interesting cases are common.
fn any_record() -> impl Strategy<Value = Verified> {
    (0..3_usize, 0..3_u64, 0..3_u64, 1..4_u16).prop_map(|(owner, incarnation, revision, port)| {
        verified(&record(["a", "b", "c"][owner], (incarnation, revision), port))
    })
}

/// Takes the word of whoever holds a certificate.
struct Credulous;

impl Verify for Credulous {
    fn verify(&self, signed: &SignedRecord) -> Result<Evidence, Refusal> {
        let mut evidence = FakeCa.verify(signed)?;
        evidence.signer = evidence.record.owner.clone();
        Ok(evidence)
    }
}

/// Who signs about whom, with which number and port.
type Claim = (usize, usize, u64, u16);

/// What others sign about an owner leaves no trace, whatever came before and comes after.
fn check_ownership(verify: &impl Verify) -> Result<(), TestError<Vec<Claim>>> {
    let mut runner =
        TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let signed = vec((0..3_usize, 0..3_usize, 0..4_u64, 1..4_u16), 0..12);
    let ids = ["a", "b", "c"];
    runner.run(&signed, |claims| {
        let take = |honest_only: bool| {
            let claims =
                claims.iter().filter(|(signer, owner, ..)| !honest_only || signer == owner);
            let records = claims.filter_map(|(signer, owner, revision, port)| {
                let record = record(ids[*owner], (1, *revision), *port);
                let signed = sign_as(&identity(ids[*signer]), &record);
                Verified::new(signed, verify, &DOMAIN, &Limits::default(), NOW).ok()
            });
            fill::<Shipped>(&records.collect::<Vec<_>>()).stamps()
        };
        prop_assert_eq!(take(false), take(true), "somebody else changed a record");
        Ok(())
    })
}

#[test]
fn only_the_owners_signature_changes_a_record() {
    check_ownership(&FakeCa).unwrap();
}

#[test]
fn the_checker_of_ownership_catches_a_verifier_that_does_not_compare_signer_and_owner() {
    check_ownership(&Credulous).unwrap_err();
}

#[test]
fn merging_is_commutative_associative_idempotent_and_monotone() {
    check_laws::<Shipped>().unwrap();
}

#[test]
fn the_checker_catches_broken_rules() {
    check_laws::<Other<LAST_WINS>>().unwrap_err();
    check_laws::<Other<TIE_TO_THE_FIRST>>().unwrap_err();
    check_laws::<Other<REVISION_BEFORE_INCARNATION>>().unwrap_err();
}

#[test]
fn equal_roots_mean_equal_records() {
    let records = |ids: &[(&str, u64)]| {
        let records: Vec<_> =
            ids.iter().map(|(id, revision)| verified(&record(id, (1, *revision), 1))).collect();
        fill::<Shipped>(&records).0
    };
    let root = |ids| records(ids).root();
    assert_eq!(root(&[("a", 1), ("b", 2)]), root(&[("b", 1), ("b", 2), ("a", 1)]));
    assert_ne!(root(&[("a", 1), ("b", 2)]), root(&[("a", 2), ("b", 1)]));
    assert_ne!(root(&[("a", 1)]), root(&[]));
}
