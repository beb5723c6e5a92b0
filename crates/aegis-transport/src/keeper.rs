use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aegis_core::Address;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::backoff::{Attempts, Say};
use crate::cache::Registry;
use crate::clock::later;
use crate::error::DialError;
use crate::http2::connection::Connection;
use crate::http2::dial::{Dialled, Dialler};
use crate::http2::driver::Driver;
use crate::keepalive::Watchdog;
use crate::network::BoxFuture;
use crate::node::{Adopted, Dialling, Node};
use crate::past::Trouble;
use crate::signals::Counters;
use crate::slots::Phase;
use crate::task::report;

/// At most one WARN about a node in this time.
const WARN_PACE: Duration = Duration::from_secs(60);

/// Keeps one node connected as long as somebody wants it; owns its connections.
///
/// It compares what there is with what is wanted whenever something has happened, so no event has to be handled in its place.
pub(crate) struct Keeper {
    node: Arc<Node>,
    registry: Arc<Registry>,
    dialler: Arc<Dialler>,
    drivers: JoinSet<Arc<Connection>>,
    kept: Vec<Kept>,
    dial: Option<BoxFuture<'static, Result<Dialled, DialError>>>,
    /// What is dialled.
    dialled_at: Arc<[Address]>,
    attempts: Attempts,
    /// Not before this is dialled again.
    not_before: Instant,
    /// The count of the node's news that has been acted upon.
    news: u64,
    last_error: Option<Arc<DialError>>,
    last_good: Option<Address>,
    warned: Option<Instant>,
    /// The log's last word about the node is that it is down.
    said_down: bool,
}

/// One connection, as the keeper knows it.
struct Kept {
    connection: Arc<Connection>,
    since: Instant,
    /// Its end, or its leaving, has been acted upon.
    settled: bool,
    /// How many streams it had been given when it was last looked at, and since when that is so.
    opened: u64,
    quiet_since: Instant,
}

impl Keeper {
    pub(crate) fn new(node: Arc<Node>, registry: Arc<Registry>, dialler: Arc<Dialler>) -> Self {
        let past = node.take_past();
        let (attempts, not_before, last_error, warned, said_down) = match past {
            Some(past) => (past.attempts, past.not_before, past.error, past.warned, past.said_down),
            None => (Attempts::default(), Instant::now(), None, None, false),
        };
        Self {
            // Also what came before the keeper is news.
            news: 0,
            node,
            registry,
            dialler,
            drivers: JoinSet::new(),
            kept: Vec::new(),
            dial: None,
            dialled_at: Arc::default(),
            attempts,
            not_before,
            last_error,
            last_good: None,
            warned,
            said_down,
        }
    }

    /// Runs until nobody wants the node and its last connection is gone.
    pub(crate) async fn run(mut self) {
        loop {
            let again = self.look(Instant::now());
            if self.kept.is_empty()
                && self.dial.is_none()
                && self.registry.forget(&self.node, || self.trouble())
            {
                return;
            }
            tokio::select! {
                () = self.node.signals.keeper_woken() => {}
                // Its connection knows what it ended of.
                Some(ended) = self.drivers.join_next() => report(ended.map(drop)),
                outcome = finish(&mut self.dial) => {
                    self.dial = None;
                    self.dialled(outcome, Instant::now());
                }
                () = wait(again) => {}
            }
        }
    }

    /// What whoever wants the node again should know, if it could not be reached.
    fn trouble(&self) -> Option<Trouble> {
        let in_trouble = 0 < self.attempts.failures() || self.said_down;
        in_trouble.then(|| Trouble {
            attempts: self.attempts,
            not_before: self.not_before,
            error: self.last_error.clone(),
            warned: self.warned,
            said_down: self.said_down,
            addresses: self.node.addresses(),
            record: self.node.record(),
        })
    }

    /// Brings what there is nearer to what is wanted, and says when to look again at the latest.
    fn look(&mut self, now: Instant) -> Option<Instant> {
        let news = self.node.news();
        if self.news != news {
            self.news = news;
            self.attempts.reset();
            self.not_before = now;
            self.last_error = None;
            // One that is under way to where the node was may take long to fail.
            if self.dialled_at != self.node.addresses() {
                self.dial = None;
            }
        }
        // Dropped, and with that told, when the connections are published below.
        let mut told = Vec::new();
        for Adopted { dialled, known } in self.node.take_adopted() {
            told.push(known);
            if self.node.is_wanted() && self.needs_more() {
                self.keep(dialled, now);
            }
        }
        self.settle_ended(now);
        if self.node.is_wanted() {
            self.replace_worn();
        } else {
            // What was begun after a failure is brought to its end: else who asks for the node and gives up, time and again,
            // would begin as often.
            if self.attempts.failures() == 0 || self.node.signals.is_closed() {
                self.dial = None;
            }
            self.leave(|_| true);
        }
        for kept in &self.kept {
            if kept.connection.phase() == Phase::Leaving && kept.connection.in_flight() == 0 {
                kept.connection.close();
            }
        }
        let spare = self.drop_spare(now);
        let dial = self.dial_if_needed(now);
        self.publish();
        drop(told);
        [spare, dial].into_iter().flatten().min()
    }

    /// Acts on connections that are no longer open, once each, and forgets those that are gone.
    fn settle_ended(&mut self, now: Instant) {
        let ended: Vec<_> = self
            .kept
            .iter_mut()
            .filter(|kept| !kept.settled && !kept.connection.is_open())
            .map(|kept| {
                kept.settled = true;
                (Arc::clone(&kept.connection), now.saturating_duration_since(kept.since))
            })
            .collect();
        self.kept.retain(|kept| kept.connection.phase() != Phase::Ended);
        for (connection, lived) in ended {
            self.ended(&connection, lived, now);
        }
    }

    fn ended(&mut self, connection: &Connection, lived: Duration, now: Instant) {
        let (node, address) = (&self.node.id, &connection.address);
        let orderly = connection.was_sent_away();
        let reason = connection.lost().unwrap_or_else(|| "it was sent away".into());
        if !orderly {
            Counters::add(&self.node.signals.counters.lost);
            tracing::debug!(%node, %address, reason = &*reason, "a connection was lost");
        }
        let pace = &self.dialler.settings.backoff;
        let Some((wait, say)) = self.attempts.ended(pace, lived, orderly, fastrand::f64()) else {
            return;
        };
        self.not_before = later(now, wait);
        self.last_error = None;
        if 0 < self.attempts.failures() {
            let error = DialError::ShortLived { address: address.clone(), reason };
            self.report(&error, say, now);
            self.last_error = Some(Arc::new(error));
        }
    }

    fn open(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.kept.iter().map(|kept| &kept.connection).filter(|connection| connection.is_open())
    }

    /// Whether another connection would help: there is none, or small calls have a hard time on each.
    fn needs_more(&self) -> bool {
        self.would_need_more(None)
    }

    /// The same, if there were one connection less.
    fn would_need_more(&self, without: Option<&Arc<Connection>>) -> bool {
        let stays = |it: &&Arc<Connection>| without.is_none_or(|gone| !Arc::ptr_eq(it, gone));
        let mut fresh = self.open().filter(stays).filter(|it| !it.is_worn()).peekable();
        if fresh.peek().is_none() {
            return true;
        }
        let hard = |it: &Arc<Connection>| it.is_crowded() || it.is_bulk() || it.is_stalled();
        self.open().filter(stays).count() < self.dialler.settings.connections && fresh.all(hard)
    }

    fn leave(&mut self, which: impl Fn(&Connection) -> bool) {
        for kept in &mut self.kept {
            if kept.connection.is_open() && which(&kept.connection) {
                kept.settled = true;
                kept.connection.leave();
            }
        }
    }

    /// Make before break: a worn connection leaves when a fresh one is up.
    fn replace_worn(&mut self) {
        if self.open().any(|connection| !connection.is_worn()) {
            self.leave(Connection::is_worn);
        }
    }

    /// Closes a further connection that was not used for long, unless it would be dialled again at once; says when to look next.
    fn drop_spare(&mut self, now: Instant) -> Option<Instant> {
        let patience = self.dialler.settings.spare_idle;
        if self.open().count() < 2 {
            return None;
        }
        let mut idle = Vec::new();
        for kept in &mut self.kept {
            let opened = kept.connection.opened();
            if kept.opened != opened || 0 < kept.connection.in_flight() {
                kept.opened = opened;
                kept.quiet_since = now;
            } else if patience <= now.saturating_duration_since(kept.quiet_since)
                && kept.connection.is_open()
            {
                idle.push(Arc::clone(&kept.connection));
            }
        }
        if let Some(idle) = idle.into_iter().find(|it| !self.would_need_more(Some(it))) {
            self.leave(|connection| std::ptr::eq(connection, &raw const *idle));
        }
        Some(later(now, patience / 4))
    }

    /// Starts a dial that is due; says when one will be.
    fn dial_if_needed(&mut self, now: Instant) -> Option<Instant> {
        if self.dial.is_some() || !self.node.is_wanted() || !self.needs_more() {
            return None;
        }
        if now < self.not_before {
            return Some(self.not_before);
        }
        Counters::add(&self.node.signals.counters.dials);
        self.dialled_at = self.node.addresses();
        let addresses = self.addresses();
        let (node, dialler) = (Arc::clone(&self.node), Arc::clone(&self.dialler));
        self.dial = Some(Box::pin(async move { dialler.dial(Some(&node.id), &addresses).await }));
        None
    }

    /// The addresses to dial, the last good one first.
    fn addresses(&self) -> Vec<Address> {
        let mut addresses = self.dialled_at.to_vec();
        // A stable sort, so the others keep their order.
        addresses.sort_by_key(|address| Some(address) != self.last_good.as_ref());
        addresses
    }

    fn dialled(&mut self, outcome: Result<Dialled, DialError>, now: Instant) {
        match outcome {
            Ok(dialled) => {
                self.keep(dialled, now);
            }
            Err(error) => {
                Counters::add(&self.node.signals.counters.dial_failures);
                let pace = &self.dialler.settings.backoff;
                let (wait, say) = self.attempts.failed(pace, now, fastrand::f64());
                self.not_before = later(now, wait);
                self.report(&error, say, now);
                self.last_error = Some(Arc::new(error));
            }
        }
    }

    fn report(&mut self, error: &DialError, say: Say, now: Instant) {
        let (node, error) = (&self.node.id, error.chain());
        let lately = self.warned.is_some_and(|at| now < at + WARN_PACE);
        // Beside a connection that works, a further one that does not is no news.
        let fine = self.open().next().is_some();
        match say {
            Say::First if !lately && !fine => {
                tracing::warn!(%node, error, "cannot connect to node; dialling it again in the background");
            }
            Say::GivingUp if !fine => {
                let pace = self.dialler.settings.backoff.give_up_pace;
                tracing::warn!(
                    %node, error,
                    "node could not be reached for long; dialling it every {pace:?} only, and when its record changes"
                );
            }
            _ => {
                tracing::debug!(%node, error, "cannot connect to node");
                return;
            }
        }
        self.warned = Some(now);
        self.said_down = true;
    }

    fn keep(&mut self, dialled: Dialled, now: Instant) {
        let Dialled { sender, http2, heard, header_list, address, .. } = dialled;
        if std::mem::take(&mut self.said_down) {
            tracing::info!(node = %self.node.id, %address, "node is reachable again");
        }
        self.attempts.connected();
        self.last_error = None;
        self.last_good = Some(address.clone());
        let signals = &self.node.signals;
        Counters::add(&signals.counters.connected);
        let settings = &self.dialler.settings;
        let connection = Arc::new(Connection::new(
            self.node.id.clone(),
            address,
            sender.clone(),
            &header_list,
            settings,
            Arc::clone(signals),
            &self.registry.rows,
        ));
        let doubled = signals.too_many_pings.load(Ordering::Relaxed);
        let watchdog = Watchdog::new(settings.keepalive.clone(), self.node.foreign, doubled);
        self.drivers.spawn(Driver::new(http2, sender, Arc::clone(&connection), heard, watchdog));
        self.kept.push(Kept {
            connection,
            since: now,
            settled: false,
            opened: 0,
            quiet_since: now,
        });
    }

    fn publish(&mut self) {
        let open: Vec<_> = self.open().cloned().collect();
        let known = self.node.connections();
        let same =
            open.len() == known.len() && open.iter().zip(&*known).all(|(a, b)| Arc::ptr_eq(a, b));
        if !same {
            self.node.set_connections(open);
        }
        let failures = self.attempts.failures();
        let error = self.last_error.clone();
        self.node.set_dialling(match error {
            Some(error) if self.dial.is_none() => {
                Dialling::Later { failures, at: self.not_before, error }
            }
            error => Dialling::Now { failures, error },
        });
    }
}

async fn finish<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}
