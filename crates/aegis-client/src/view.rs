use std::sync::Arc;

use aegis_core::{NodeId, ServiceInfo};
use aegis_topology::NodeEntry;
use aegis_transport::{Connections, Lane, Link, LinkStatus, Slot, Taken, Target, Unavailable};
use tokio::time::Instant;

use crate::balance::{Balance, Balancing, Choices, Turn};
use crate::load::{Measure, Outcome};
use crate::outlier::{Outliers, Record};
use crate::profile::Profile;

/// How often a balancer is asked for a pick: its choice may be full. Then the next in order that is not is taken.
const CHOICES: usize = 3;

/// A provider of a service, and the demand for its connection.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) link: Link,
    pub(crate) foreign: bool,
    pub(crate) profile: Profile,
    pub(crate) record: Record,
    outliers: Arc<Outliers>,
}

impl Provider {
    pub(crate) fn new(
        connections: &Connections,
        entry: &Arc<NodeEntry>,
        info: &ServiceInfo,
        outliers: &Arc<Outliers>,
    ) -> Arc<Self> {
        let target = Target::new(entry.node_id().clone(), entry.addresses().to_vec())
            .record(entry.incarnation(), entry.revision());
        let foreign = entry.is_foreign();
        Arc::new(Self {
            link: connections.link(if foreign { target.foreign() } else { target }),
            foreign,
            profile: Profile::new(entry, info, Instant::now()),
            record: Record::default(),
            outliers: Arc::clone(outliers),
        })
    }

    /// Takes over what is new in the directory, and tells the link: other addresses, or another record of a node that may
    /// be back.
    pub(crate) fn heed(&self, entry: &Arc<NodeEntry>, info: &ServiceInfo) {
        if self.profile.heed(entry, info) {
            let addresses = entry.addresses().to_vec();
            self.link.set_record(addresses, entry.incarnation(), entry.revision());
        }
    }

    pub(crate) fn node_id(&self) -> &NodeId {
        self.link.node_id()
    }

    /// Begins an attempt that is given to it.
    pub(crate) fn begin(self: Arc<Self>, now: Instant) -> Measure {
        Measure::begin(self, now)
    }

    /// Counts an attempt's outcome, for it or against it.
    pub(crate) fn count(&self, outcome: Outcome, began: Instant, now: Instant) {
        let Some(detection) = &self.outliers.detection else { return };
        let suspect = match outcome {
            Outcome::Answered => {
                self.record.answered();
                false
            }
            Outcome::Failed => self.record.failed(detection),
            Outcome::Lost => self.record.lost(began, now) && self.record.failed(detection),
            Outcome::GivenUp | Outcome::Refused | Outcome::Unsent => false,
        };
        if suspect {
            self.outliers.accuse();
        }
    }
}

/// What calls of a service choose from: immutable, replaced as a whole when the directory or a link changes.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// Every provider, by node id.
    pub(crate) providers: Vec<Arc<Provider>>,
    /// Those that are called: connected, answering PINGs and not ejected; all such ejected ones where there is no other.
    pub(crate) ready: Vec<Ready>,
    /// Connected, but silent.
    stalled: Vec<Arc<Provider>>,
    /// Connected, but ejected.
    ejected: Vec<Arc<Provider>>,
    /// All that could be called are ejected, and are the ready ones therefore.
    pub(crate) panic: bool,
    /// The largest weight of the ready ones.
    heaviest: u32,
    outlook: Outlook,
}

/// A provider that is called.
///
/// Beside it lies its lane, so that a pick reads two places in memory that do not lead to each other, and which the
/// processor fetches at once.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) provider: Arc<Provider>,
    /// `None` where it has several connections.
    lane: Option<Lane>,
}

impl Ready {
    fn new(provider: &Arc<Provider>) -> Self {
        Self { provider: Arc::clone(provider), lane: provider.link.lane() }
    }

    fn is_same(&self, other: &Self) -> bool {
        let same_lane = match (&self.lane, &other.lane) {
            (Some(lane), Some(other)) => lane.is_same(other),
            (lane, other) => lane.is_none() && other.is_none(),
        };
        same_lane && Arc::ptr_eq(&self.provider, &other.provider)
    }

    /// Takes a slot.
    fn acquire(&self) -> Result<Held<'_>, Unavailable> {
        match self.lane.as_ref().and_then(Lane::take) {
            Some(slot) => Ok(Held::OfLane(slot)),
            None => self.provider.link.try_acquire().map(Held::OfLink),
        }
    }
}

/// What waiting may bring while nobody is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Outlook {
    /// Nothing soon: nobody provides the service, or everybody's last attempt failed.
    #[default]
    Bleak,
    /// A connection may be up in a moment.
    Connecting,
    /// The directory's first sync is under way.
    Syncing,
}

/// A slot on a provider's connection, taken by reference into the view: whoever goes on with it makes it its own, and
/// only then anything is counted in the provider's memory.
///
/// What is left are five atomic changes, of 5 to 8 ns each: two hold the view, one draws the turn, one takes the slot and one
/// gives it back. Where two threads pick at once among few, the turn and often the slot come from the other core, some 20 ns each.
#[derive(Debug)]
pub(crate) struct Chosen<'a> {
    slot: Held<'a>,
    provider: &'a Arc<Provider>,
}

#[derive(Debug)]
enum Held<'a> {
    OfLane(Taken<'a>),
    OfLink(Slot),
}

impl Chosen<'_> {
    pub(crate) fn keep(self) -> Picked {
        let slot = match self.slot {
            Held::OfLane(taken) => taken.into_slot(),
            Held::OfLink(slot) => slot,
        };
        Picked { slot, provider: Arc::clone(self.provider) }
    }
}

/// A slot on a provider's connection.
#[derive(Debug)]
pub(crate) struct Picked {
    pub(crate) slot: Slot,
    pub(crate) provider: Arc<Provider>,
}

/// Why nobody was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    /// Nobody is connected, and waiting is not likely to help.
    Bleak,
    /// Each stream that the connected ones allow is in use.
    Full,
    /// The same, and none of them answers PINGs.
    FullAndSilent,
    /// A connection or the first sync is under way.
    Pending,
    /// Those that are connected have had this request.
    Tried,
}

impl View {
    pub(crate) fn new(providers: Vec<(Arc<Provider>, LinkStatus)>, synced: bool) -> Self {
        let mut view = Self::default();
        if !synced {
            view.outlook = Outlook::Syncing;
        }
        for (provider, status) in providers {
            match status {
                LinkStatus::Connected { stalled: true, .. } => {
                    view.stalled.push(Arc::clone(&provider));
                }
                LinkStatus::Connected { .. } if provider.record.is_ejected() => {
                    view.ejected.push(Arc::clone(&provider));
                }
                LinkStatus::Connected { .. } => view.ready.push(Ready::new(&provider)),
                // After a failure an attempt is not worth a call's time until it succeeds.
                LinkStatus::Connecting { failures: 0, .. } if view.outlook == Outlook::Bleak => {
                    view.outlook = Outlook::Connecting;
                }
                _ => {}
            }
            view.providers.push(provider);
        }
        if view.ready.is_empty() && !view.ejected.is_empty() {
            view.panic = true;
            view.ready = view.ejected.iter().map(Ready::new).collect();
        }
        view.heaviest = view.callable().map(|it| it.profile.weight()).max().unwrap_or(1);
        view
    }

    /// Whether calls would do the same by it.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let same = |a: &[Arc<Provider>], b: &[Arc<Provider>]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        self.outlook == other.outlook
            && self.heaviest == other.heaviest
            && same(&self.providers, &other.providers)
            && self.ready.len() == other.ready.len()
            && self.ready.iter().zip(&other.ready).all(|(a, b)| a.is_same(b))
            && same(&self.stalled, &other.stalled)
            && same(&self.ejected, &other.ejected)
    }

    /// Whether a call has anybody to go to, now or soon.
    pub(crate) fn is_hopeful(&self) -> bool {
        !self.ready.is_empty() || !self.stalled.is_empty() || self.outlook != Outlook::Bleak
    }

    /// Those that are called.
    pub(crate) fn callable(&self) -> impl Iterator<Item = &Arc<Provider>> {
        self.ready.iter().map(|it| &it.provider)
    }

    /// Those that are connected, with or without calls.
    pub(crate) fn connected(&self) -> impl Iterator<Item = &Arc<Provider>> {
        let ejected = if self.panic { &[] } else { self.ejected.as_slice() };
        self.callable().chain(&self.stalled).chain(ejected)
    }

    /// The provider whose turn it is, whether or not it has a slot.
    pub(crate) fn turn(&self, balance: &Balancing) -> Option<&Arc<Provider>> {
        let index = match balance {
            Balancing::RoundRobin(rule) => {
                rule.turn(self.ready.len()).order(self.ready.len()).next()?
            }
            Balancing::Other(rule) => self.choose(&**rule)?,
        };
        self.ready.get(index).map(|it| &it.provider)
    }

    /// Picks a provider that is connected, has a free slot and is not among `tried`.
    pub(crate) fn pick(
        &self,
        balance: &Balancing,
        suspicion: bool,
        tried: &[NodeId],
    ) -> Result<Chosen<'_>, Missed> {
        let mut seen = Seen { suspicion, ..Seen::default() };
        let turn = match balance {
            Balancing::RoundRobin(rule) if tried.is_empty() => rule.turn(self.ready.len()),
            Balancing::RoundRobin(rule) => rule.go_on(self.ready.len()),
            Balancing::Other(rule) => {
                if let Some(picked) = self.pick_chosen(&**rule, tried, &mut seen) {
                    return Ok(picked);
                }
                Turn::any()
            }
        };
        let ready = turn.order(self.ready.len()).filter_map(|index| self.ready.get(index));
        for it in ready.clone() {
            if let Some(picked) = take_trusted(it, tried, &mut seen) {
                return Ok(picked);
            }
        }
        if seen.suspect {
            for it in ready {
                if let Some(picked) = take(&it.provider, || it.acquire(), tried, &mut seen) {
                    return Ok(picked);
                }
            }
        }
        // One that is full will have a slot before a silent one answers.
        if seen.full {
            return Err(Missed::Full);
        }
        let stalled = turn.order(self.stalled.len()).filter_map(|index| self.stalled.get(index));
        // A ready one may have fallen silent since the view was made.
        for provider in stalled.chain(self.callable()) {
            let acquire = || provider.link.try_acquire_stalled().map(Held::OfLink);
            if let Some(picked) = take(provider, acquire, tried, &mut seen) {
                return Ok(picked);
            }
        }
        Err(seen.missed(self.outlook))
    }

    /// Lets a balancer pick, a few times at most.
    fn pick_chosen(
        &self,
        rule: &dyn Balance,
        tried: &[NodeId],
        seen: &mut Seen,
    ) -> Option<Chosen<'_>> {
        let mut left: Vec<&Ready> = Vec::new();
        let mut choices = CHOICES;
        if tried.is_empty() {
            let chosen = self.choose(rule)?;
            if let Some(picked) = take_trusted(self.ready.get(chosen)?, tried, seen) {
                return Some(picked);
            }
            left.extend(self.ready.iter().enumerate().filter(|it| it.0 != chosen).map(|it| it.1));
            choices -= 1;
        } else {
            left.extend(self.ready.iter().filter(|it| !tried.contains(it.provider.node_id())));
        }
        for _ in 0..choices {
            let heaviest = left.iter().map(|it| it.provider.profile.weight()).max()?;
            let at = |index: usize| left.get(index).map(|it| &it.provider.profile);
            let chosen = left.remove(choose(rule, left.len(), &at, heaviest)?);
            if let Some(picked) = take_trusted(chosen, tried, seen) {
                return Some(picked);
            }
        }
        None
    }

    /// The index of a balancer's choice among all that are ready.
    fn choose(&self, rule: &dyn Balance) -> Option<usize> {
        let at = |index: usize| self.ready.get(index).map(|it| &it.provider.profile);
        choose(rule, self.ready.len(), &at, self.heaviest)
    }
}

/// Picks the one provider a client is pinned to.
pub(crate) fn pick_pinned(provider: &Arc<Provider>, tried: &[NodeId]) -> Result<Picked, Missed> {
    let mut seen = Seen::default();
    let acquire = || provider.link.try_acquire().map(Held::OfLink);
    if let Some(chosen) = take(provider, acquire, tried, &mut seen) {
        return Ok(chosen.keep());
    }
    if seen.full {
        return Err(Missed::Full);
    }
    let acquire = || provider.link.try_acquire_stalled().map(Held::OfLink);
    if let Some(chosen) = take(provider, acquire, tried, &mut seen) {
        return Ok(chosen.keep());
    }
    // The link itself was asked just now, so it also knows whether what was lost comes back.
    let outlook = match provider.link.status() {
        LinkStatus::Connecting { failures: 0, .. } | LinkStatus::Connected { .. } => {
            Outlook::Connecting
        }
        _ => Outlook::Bleak,
    };
    Err(Seen { lost: false, ..seen }.missed(outlook))
}

/// The index of a balancer's choice; `None` of nobody.
fn choose<'a>(
    rule: &dyn Balance,
    length: usize,
    at: &'a dyn Fn(usize) -> Option<&'a Profile>,
    heaviest: u32,
) -> Option<usize> {
    if length == 0 {
        return None;
    }
    rule.pick(&Choices::new(length, at, heaviest, Instant::now())).checked_rem(length)
}

/// Takes a slot of a provider that is no suspect.
#[expect(clippy::inline_always, reason = "what it returns in memory costs a pick 8 ns")]
#[inline(always)]
fn take_trusted<'a>(ready: &'a Ready, tried: &[NodeId], seen: &mut Seen) -> Option<Chosen<'a>> {
    if seen.suspicion && ready.provider.record.is_suspect() {
        seen.suspect = true;
        return None;
    }
    take(&ready.provider, || ready.acquire(), tried, seen)
}

fn take<'a>(
    provider: &'a Arc<Provider>,
    acquire: impl Fn() -> Result<Held<'a>, Unavailable>,
    tried: &[NodeId],
    seen: &mut Seen,
) -> Option<Chosen<'a>> {
    // Where there is nobody to compare it with, its id is memory that need not be read.
    if !tried.is_empty() && tried.contains(provider.node_id()) {
        seen.tried = true;
        return None;
    }
    match acquire() {
        Ok(slot) => return Some(Chosen { slot, provider }),
        Err(Unavailable::Full) => seen.full = true,
        Err(Unavailable::NotConnected) => seen.lost = true,
        Err(_) => {}
    }
    None
}

/// What was met on the way through a view.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each may be met, or not, by itself")]
struct Seen {
    full: bool,
    lost: bool,
    suspect: bool,
    /// There may be a suspect.
    suspicion: bool,
    tried: bool,
}

impl Seen {
    fn missed(&self, outlook: Outlook) -> Missed {
        if self.full {
            Missed::FullAndSilent
        } else if self.tried {
            Missed::Tried
        } else if self.lost || outlook != Outlook::Bleak {
            // A connection lost since the view was made: the next view says whether a successor is on its way.
            Missed::Pending
        } else {
            Missed::Bleak
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use aegis_testing::{MemoryNetwork, TestCa};

    use super::*;
    use crate::ServicePool;

    #[tokio::test]
    async fn each_thread_takes_turns_by_itself_among_many_providers() {
        let mut builder = ServicePool::builder().tls(TestCa::new().options("vicky-1", "gateway"));
        let info = ServiceInfo::from_static("identity", "v1");
        for number in 0..128 {
            builder = builder.provider(format!("node-{number}"), "127.0.0.1:9443", [info.clone()]);
        }
        let pool = builder.network(Arc::new(MemoryNetwork::new())).build().unwrap();
        let service = pool.channel(info).service;
        let of_all = || {
            let ready = service.view.load().providers.iter().map(Ready::new).collect();
            View { ready, ..View::default() }
        };
        let view = of_all();
        let turn = || {
            let provider = view.turn(&service.balance).unwrap();
            view.callable().position(|it| Arc::ptr_eq(it, provider)).unwrap()
        };
        service.publish(of_all());
        let first = turn();
        // A round has more than one thread, but one in eight of them.
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(turn).join().unwrap();
            }
        });
        let turns = (turn() + 128 - first) % 128;
        assert!(turns < 17, "{turns} turns were drawn from this thread's round");
    }
}
