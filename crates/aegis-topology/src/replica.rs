use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::merge::Claim;
use crate::{
    BodyHash, Instance, Key, Limits, NodeEntry, Precedence, Root, SignedRecord, Stamp, Timestamp,
    Verified,
};

/// One node's copy of the directory: merges records, forgets expired ones, and knows what changed when.
///
/// A plain value: no clock, no lock, no task. Whoever drives it verifies records first
/// ([`Verified`]), says what time it is, and carries the messages of [`Exchange`](crate::Exchange).
#[derive(Debug)]
pub struct Replica {
    limits: Limits,
    held: BTreeMap<Key, Held>,
    /// Records that expired while an older one of their owner, valid for longer, may still be about: one that we have
    /// seen, or one that somebody has who did not hear of its successor.
    floors: HashMap<Key, Floor>,
    own: Option<(Key, Instance)>,
    root: Root,
    buckets: Box<[Root]>,
    changes: BTreeMap<u64, Key>,
    change: u64,
}

#[derive(Debug)]
struct Held {
    record: Verified,
    entry: Arc<NodeEntry>,
    /// The last expiry of all records of this owner that we have seen.
    last_expiry: Timestamp,
    change: u64,
    changed_at: Timestamp,
    equivocates: bool,
}

#[derive(Debug)]
struct Floor {
    claim: Claim,
    until: Timestamp,
}

/// What became of a record.
#[derive(Debug)]
#[non_exhaustive]
pub enum Merged {
    /// It is new, or newer than what was held: the directory changed.
    Changed,
    /// It is held already, or an older one, or over. Nothing changed.
    Known,
    /// Its owner signed two records with one number. The one with the smaller hash stays, on every node;
    /// `changed` says whether that is the new one.
    Equivocation {
        /// Whether the directory changed.
        changed: bool,
    },
    /// The directory is full and the node is new. Nothing changed.
    Full,
    /// Another process signed it with our own identity: a past life of ours, or a second process. Nothing changed.
    OwnIdentity(Box<Verified>),
}

impl Replica {
    /// An empty directory.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            held: BTreeMap::new(),
            floors: HashMap::new(),
            own: None,
            root: Root::default(),
            buckets: vec![Root::default(); BUCKETS].into(),
            changes: BTreeMap::new(),
            change: 0,
        }
    }

    /// Says which record is ours: from others, a record under this key by another instance is not merged but
    /// reported as [`Merged::OwnIdentity`].
    pub fn own(&mut self, key: Key, instance: Instance) {
        self.own = Some((key, instance));
    }

    /// Gives the own key up: from now on its records are merged like any other.
    pub fn disown(&mut self) {
        self.own = None;
    }

    /// Takes a record over if it is newer than what is held: a greater [`Precedence`], or with the same one the smaller hash.
    ///
    /// The order is total, so replicas that merged the same records are equal, whatever the order of merging.
    pub fn merge(&mut self, record: Verified, now: Timestamp) -> Merged {
        let key = record.key();
        let expires_at = record.record().expires_at;
        if let Some((own, instance)) = self.own
            && own == key
            && record.record().instance != instance
        {
            return Merged::OwnIdentity(Box::new(record));
        }
        if expires_at <= now
            || self.floors.get(&key).is_some_and(|it| Claim::of(&record) <= it.claim)
        {
            return Merged::Known;
        }
        let Some(held) = self.held.get_mut(&key) else {
            if self.limits.nodes <= self.held.len() && self.own.is_none_or(|(own, _)| own != key) {
                return Merged::Full;
            }
            self.insert(record, expires_at, false, now);
            return Merged::Changed;
        };
        // Also of a record that loses: it may come back when ours has expired.
        held.last_expiry = held.last_expiry.max(expires_at);
        let (theirs, ours) = (Claim::of(&record), Claim::of(&held.record));
        let equivocates = theirs.equivocates(&ours);
        let last_expiry = held.last_expiry;
        if equivocates {
            held.equivocates = true;
        }
        let changed = ours < theirs;
        if changed {
            self.insert(record, last_expiry, equivocates, now);
        }
        match (equivocates, changed) {
            (true, changed) => Merged::Equivocation { changed },
            (false, true) => Merged::Changed,
            (false, false) => Merged::Known,
        }
    }

    /// Forgets what has expired; returns how many records that were.
    pub fn expire(&mut self, now: Timestamp) -> usize {
        self.floors.retain(|_, floor| now < floor.until);
        let expired: Vec<Key> = self
            .held
            .iter()
            .filter(|(_, held)| held.record.record().expires_at <= now)
            .map(|(key, _)| *key)
            .collect();
        for key in &expired {
            let Some(held) = self.remove(*key) else { continue };
            // An owner's times of issue do not go back, so nothing older is valid for longer than a lease from here.
            let end_of_older = held.record.record().issued_at.saturating_add(self.limits.lease);
            let until = held.last_expiry.max(end_of_older);
            if now < until && self.floors.len() < self.limits.nodes {
                self.floors.insert(*key, Floor { claim: Claim::of(&held.record), until });
            }
        }
        if !expired.is_empty() {
            // Watchers expire by themselves; the number only has to differ.
            self.change += 1;
        }
        expired.len()
    }

    /// Whether a record would change anything, so that only those are verified that would.
    pub fn wants(&self, key: Key, precedence: Precedence, hash: BodyHash) -> bool {
        let claim = Claim { precedence, hash };
        if self.floors.get(&key).is_some_and(|floor| claim <= floor.claim) {
            return false;
        }
        let Some(held) = self.held.get(&key) else { return true };
        let ours = Claim::of(&held.record);
        // Another process under our own name is news even if it is the older one, and so is the first proof
        // that an owner signs two records with one number.
        let own = self.own.is_some_and(|(own, _)| own == key);
        ours < claim || own && ours != claim || claim.equivocates(&ours) && !held.equivocates
    }

    /// The bounds that this directory keeps.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What is held, in 16 bytes.
    pub fn root(&self) -> Root {
        self.root
    }

    /// How many records are held, those of nodes that left included.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// A number that grows with each change.
    pub fn change(&self) -> u64 {
        self.change
    }

    /// The record of a node.
    pub fn record(&self, key: Key) -> Option<&Verified> {
        self.held.get(&key).map(|held| &held.record)
    }

    /// The stamp of a node's record.
    pub fn stamp(&self, key: Key) -> Option<Stamp> {
        self.record(key).map(Verified::stamp)
    }

    /// All nodes, as the directory shows them.
    pub fn entries(&self) -> impl Iterator<Item = Arc<NodeEntry>> {
        self.held.values().map(|held| Arc::clone(&held.entry))
    }

    /// All stamps, by key.
    pub fn stamps(&self) -> impl Iterator<Item = Stamp> {
        self.held.values().map(|held| held.record.stamp())
    }

    /// The stamps of what changed last, latest first, at most `count`.
    pub fn recent(&self, count: usize) -> Vec<Stamp> {
        self.latest().take(count).map(|held| held.record.stamp()).collect()
    }

    /// Those of them that changed after a time, by the clock that [`merge`](Self::merge) was told.
    pub fn recent_since(&self, since: Timestamp, count: usize) -> Vec<Stamp> {
        let recent = self.latest().take_while(|held| since < held.changed_at).take(count);
        recent.map(|held| held.record.stamp()).collect()
    }

    fn latest(&self) -> impl Iterator<Item = &Held> {
        self.changes.values().rev().filter_map(|key| self.held.get(key))
    }

    /// The next page of records that changed after `change`: the page, and the number to continue with,
    /// which is [`change`](Self::change) when nothing is left.
    pub fn changes_after(&self, change: u64) -> (Vec<&Verified>, u64) {
        let (mut page, mut left) = (Vec::new(), self.limits.page);
        for (at, key) in self.changes.range((Bound::Excluded(change), Bound::Unbounded)) {
            let Some(record) = self.record(*key) else { continue };
            let weight = record.signed().weight();
            if left < weight && !page.is_empty() {
                return (page, at - 1);
            }
            left = left.saturating_sub(weight);
            page.push(record);
        }
        (page, self.change)
    }

    /// The sums of the 256 buckets.
    pub(crate) fn buckets(&self) -> &[Root] {
        &self.buckets
    }

    /// The stamps in one bucket.
    pub(crate) fn bucket(&self, bucket: u8) -> impl Iterator<Item = Stamp> {
        self.held.range(Key::bounds(bucket)).map(|(_, held)| held.record.stamp())
    }

    fn insert(
        &mut self,
        record: Verified,
        last_expiry: Timestamp,
        equivocates: bool,
        now: Timestamp,
    ) {
        let key = record.key();
        self.remove(key);
        self.floors.remove(&key);
        let stamp = record.stamp();
        self.root.add(&stamp);
        if let Some(bucket) = self.buckets.get_mut(usize::from(key.bucket())) {
            bucket.add(&stamp);
        }
        self.change += 1;
        self.changes.insert(self.change, key);
        let entry = Arc::new(NodeEntry::from(record.record()));
        let change = self.change;
        let held = Held { record, entry, last_expiry, change, changed_at: now, equivocates };
        self.held.insert(key, held);
    }

    fn remove(&mut self, key: Key) -> Option<Held> {
        let held = self.held.remove(&key)?;
        let stamp = held.record.stamp();
        self.root.remove(&stamp);
        if let Some(bucket) = self.buckets.get_mut(usize::from(key.bucket())) {
            bucket.remove(&stamp);
        }
        self.changes.remove(&held.change);
        Some(held)
    }
}

/// How many parts a directory is compared in.
pub(crate) const BUCKETS: usize = 256;

/// Records up to a number of bytes.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) records: Vec<SignedRecord>,
    left: usize,
}

impl Page {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { records: Vec::new(), left: bytes }
    }

    /// Adds a record unless the page is full; one always fits.
    pub(crate) fn push(&mut self, record: &SignedRecord) -> bool {
        let weight = record.weight();
        if self.left < weight && !self.records.is_empty() {
            return false;
        }
        self.left = self.left.saturating_sub(weight);
        self.records.push(record.clone());
        true
    }
}
