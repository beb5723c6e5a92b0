use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use crate::replica::{BUCKETS, Page};
use crate::{Key, Replica, Root, SignedRecord, Stamp, Timestamp};

/// What a node asks another in one call of a sync.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SyncRequest {
    /// What the caller holds, the records of this message included.
    pub root: Root,
    /// How many records that are.
    pub nodes: u64,
    /// What changed last at the caller.
    pub recent: Vec<Stamp>,
    /// The sums of the caller's 256 buckets, or nothing.
    pub buckets: Vec<Root>,
    /// What the caller wants to have newer.
    pub stamps: Vec<Stamp>,
    /// Records for the other.
    pub records: Vec<SignedRecord>,
    /// How many more came that could not be read.
    pub unreadable: usize,
}

/// What the other answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SyncResponse {
    /// What the answering node holds, now that it took the request's records.
    pub root: Root,
    /// What changed last there.
    pub recent: Vec<Stamp>,
    /// What it wants of the caller.
    pub want: Vec<Key>,
    /// The buckets whose sums differ.
    pub differing: Vec<u8>,
    /// All stamps of those buckets.
    pub stamps: Vec<Stamp>,
    /// Records for the caller.
    pub records: Vec<SignedRecord>,
    /// How many more came that could not be read.
    pub unreadable: usize,
    /// Whether there are more records than fitted: the caller asks again for what it did not get.
    pub more: bool,
}

/// Stamps of recent changes that a call carries.
const RECENT: usize = 32;
/// For how long a change is news: two idle nodes exchange nothing but their roots.
const NEWS: Duration = Duration::from_secs(30);
/// Bytes that a stamp takes in a message.
const STAMP_BYTES: usize = 48;

impl Replica {
    /// Answers a call, whose records have been merged already.
    pub fn answer(&self, request: &SyncRequest) -> SyncResponse {
        let mut response = SyncResponse { root: self.root(), ..SyncResponse::default() };
        if request.root == self.root() {
            return response;
        }
        if request.buckets.is_empty() && request.stamps.is_empty() {
            response.recent = self.recent(RECENT);
        }
        if request.buckets.len() == BUCKETS {
            let pairs = (0..=u8::MAX).zip(self.buckets().iter().zip(&request.buckets));
            response.differing =
                pairs.filter(|(_, (ours, theirs))| ours != theirs).map(|(at, _)| at).collect();
            response.stamps = response.differing.iter().flat_map(|at| self.bucket(*at)).collect();
        }
        let room = self.limits().page.saturating_sub(response.stamps.len() * STAMP_BYTES);
        let mut page = Page::new(room);
        let mut seen = HashSet::new();
        for theirs in request.recent.iter().chain(&request.stamps) {
            if !seen.insert(theirs.key) {
                continue;
            }
            match self.record(theirs.key) {
                Some(ours) if is_newer(&ours.stamp(), theirs) => {
                    if !response.more {
                        response.more = !page.push(ours.signed());
                    }
                }
                Some(ours) if !is_newer(theirs, &ours.stamp()) => {}
                None if *theirs == Stamp::unknown(theirs.key) => {}
                _ => response.want.push(theirs.key),
            }
        }
        response.records = page.records;
        response
    }
}

/// The caller's side of a sync: from the first question to equal directories, one call after the other.
///
/// Anti-entropy in three steps, each of which sends less the more equal the two directories are:
///
/// ```text
/// open     root, recent stamps            ──►   equal? done. Else recent stamps, records, wants
/// compare  bucket sums, wanted records    ──►   equal? done. Else stamps of the differing buckets
/// repair   what is missing there, stamps of what is missing here; page by page until nothing is left
/// ```
/// Before each answer is passed in, its records are to be verified and merged. An exchange ends after 256 calls at the latest.
/// Dropping it loses nothing but the comparison.
#[derive(Debug)]
pub struct Exchange {
    step: Step,
    calls: usize,
    /// What they have newer and did not send yet.
    asks: BTreeSet<Key>,
    /// What we have newer and did not send yet.
    offers: BTreeSet<Key>,
    sent: HashSet<Key>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Open,
    Compare,
    Repair,
}

/// What happens after an answer.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// There is more to ask.
    Call(SyncRequest),
    /// Both directories are equal.
    Equal,
    /// All that one had was offered to the other, and they still differ: something was refused, or changed meanwhile.
    Different,
}

impl Exchange {
    /// The most calls of one exchange: 16,384 records of 12 KiB in pages of 1 MiB, and some.
    const MAX_CALLS: usize = 256;

    /// Begins an exchange; `introduce` names a record that the first call carries, such as the own one to a stranger.
    pub fn open(replica: &Replica, introduce: Option<Key>, now: Timestamp) -> (Self, SyncRequest) {
        let mut exchange = Self {
            step: Step::Open,
            calls: 1,
            asks: BTreeSet::new(),
            offers: introduce.into_iter().collect(),
            sent: HashSet::new(),
        };
        let records = exchange.next_page(replica);
        let recent = replica.recent_since(now.saturating_sub(NEWS), RECENT);
        let request = SyncRequest { recent, records, ..request(replica) };
        (exchange, request)
    }

    /// Continues after an answer whose records have been merged.
    pub fn proceed(&mut self, replica: &Replica, response: &SyncResponse) -> Progress {
        if response.root == replica.root() {
            return Progress::Equal;
        }
        if self.calls == Self::MAX_CALLS {
            return Progress::Different;
        }
        self.offers.extend(response.want.iter().filter(|key| replica.stamp(**key).is_some()));
        // What was asked for and did not come is not to be had, unless the page was full.
        if !response.more || response.records.is_empty() {
            self.asks.clear();
        }
        match self.step {
            Step::Open => {
                self.ask_for(replica, &response.recent);
                self.step = Step::Compare;
            }
            Step::Compare => {
                self.ask_for(replica, &response.stamps);
                self.offer_missing(replica, response);
                self.step = Step::Repair;
            }
            Step::Repair => {}
        }
        self.offers.retain(|key| !self.sent.contains(key));
        if self.step == Step::Repair && self.asks.is_empty() && self.offers.is_empty() {
            return Progress::Different;
        }
        self.calls += 1;
        let records = self.next_page(replica);
        let mut request = SyncRequest { records, ..request(replica) };
        request.stamps = self
            .asks
            .iter()
            .take(replica.limits().stamps)
            .map(|key| replica.stamp(*key).unwrap_or_else(|| Stamp::unknown(*key)))
            .collect();
        if self.step == Step::Compare {
            request.buckets = replica.buckets().to_vec();
        }
        Progress::Call(request)
    }

    fn ask_for(&mut self, replica: &Replica, theirs: &[Stamp]) {
        let newer = theirs
            .iter()
            .filter(|theirs| replica.stamp(theirs.key).is_none_or(|ours| is_newer(theirs, &ours)));
        self.asks.extend(newer.map(|stamp| stamp.key));
    }

    fn offer_missing(&mut self, replica: &Replica, response: &SyncResponse) {
        let theirs: BTreeMap<Key, &Stamp> =
            response.stamps.iter().map(|stamp| (stamp.key, stamp)).collect();
        let ours = response.differing.iter().flat_map(|bucket| replica.bucket(*bucket));
        let missing = ours.filter(|ours| theirs.get(&ours.key).is_none_or(|it| is_newer(ours, it)));
        self.offers.extend(missing.map(|stamp| stamp.key));
    }

    fn next_page(&mut self, replica: &Replica) -> Vec<SignedRecord> {
        let mut page = Page::new(replica.limits().page);
        while let Some(key) = self.offers.first().copied() {
            if let Some(record) = replica.record(key)
                && !page.push(record.signed())
            {
                break;
            }
            self.offers.remove(&key);
            self.sent.insert(key);
        }
        page.records
    }
}

fn request(replica: &Replica) -> SyncRequest {
    let nodes = u64::try_from(replica.len()).unwrap_or(u64::MAX);
    SyncRequest { root: replica.root(), nodes, ..SyncRequest::default() }
}

/// The merge rule on stamps; the first bytes of a hash order as the hash does.
fn is_newer(a: &Stamp, b: &Stamp) -> bool {
    (b.precedence, std::cmp::Reverse(b.hash)) < (a.precedence, std::cmp::Reverse(a.hash))
}
