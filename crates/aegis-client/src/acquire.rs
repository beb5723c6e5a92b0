use std::time::Duration;

use aegis_transport::Changes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::attempts::Attempts;
use crate::call::Call;
use crate::failure::Stopped;
use crate::line::Line;
use crate::outcome::{Ended, Failed, How};
use crate::service::Service;
use crate::view::{Missed, Picked};

/// How long a call waits, in total, for the first sync and for connections that are on their way.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How often a call that waits for a stream of a silent provider looks again: such streams are given to nobody in line.
const SLOT_PACE: Duration = Duration::from_millis(100);
/// The first pause before a request that was not processed returns to a provider; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The first pause before a provider is asked again that has failed the call; each further one is twice as long. As in
/// gRFC A6 they grow up to a limit and have jitter, so that callers who failed together do not return together.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);
const JITTER: f64 = 0.2;

/// What a call has waited for so far, and how long it still will.
#[derive(Debug)]
pub(crate) struct Patience {
    news: Option<News>,
    /// When waiting for a connection ends; set by the first wait.
    give_up: Option<Instant>,
    pause: Duration,
    backoff: Duration,
    /// A provider asked for so long a pause before anybody is asked.
    pushback: Option<Duration>,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            news: None,
            give_up: None,
            pause: FIRST_PAUSE,
            backoff: FIRST_BACKOFF,
            pushback: None,
        }
    }
}

impl Patience {
    /// Makes the next attempt wait. It takes the place of our own backoff, which begins anew after it (gRFC A6).
    pub(crate) fn push_back(&mut self, delay: Duration) {
        self.pushback = Some(delay);
        self.backoff = FIRST_BACKOFF;
    }

    fn next_backoff(&mut self) -> Duration {
        let backoff = self.backoff;
        self.backoff = (backoff * 2).min(LONGEST_BACKOFF);
        backoff.mul_f64(1.0 + JITTER * (2.0 * fastrand::f64() - 1.0))
    }
}

/// What may let a pick succeed that failed before.
#[derive(Debug)]
struct News {
    views: watch::Receiver<()>,
    /// A pinned provider may be in no view, and a connection that was replaced at once makes no new one.
    links: Changes,
}

impl News {
    fn of(service: &Service) -> Self {
        Self { views: service.views.subscribe(), links: service.pool.connections.changes() }
    }

    async fn comes(&mut self) {
        tokio::select! {
            // The sender lives in the service, which the call holds.
            _ = self.views.changed() => {}
            () = self.links.changed() => {}
        }
    }
}

impl Attempts<'_> {
    /// Gets a slot for a call that nobody has had yet, if there is one now.
    pub(crate) fn first_choice(&self) -> Result<Option<Picked>, Ended> {
        if self.last.is_some() {
            return Ok(None);
        }
        self.call.service().pool.check_under_way()?;
        Ok(self.call.pick(&[]).ok())
    }

    /// Gets a slot, waiting where that may help.
    pub(crate) async fn acquire(&mut self) -> Result<Picked, Ended> {
        let mut rested = false;
        if let Some(delay) = self.patience.pushback.take() {
            self.stage.pause();
            tokio::time::sleep(delay).await;
            rested = true;
        }
        loop {
            self.call.service().pool.check_under_way()?;
            let missed = match self.call.pick(&self.tried) {
                Ok(picked) if is_worse_than_again(self.last.as_ref(), self.call, &picked) => {
                    Missed::Tried
                }
                Ok(picked) => return Ok(picked),
                Err(missed) => missed,
            };
            let Some(news) = &mut self.patience.news else {
                // Subscribed first and picked again after, so that no change falls in between.
                self.patience.news = Some(News::of(self.call.service()));
                continue;
            };
            match missed {
                Missed::Full => {
                    self.stage.slot();
                    if let Some(picked) = self.line_up().await? {
                        return Ok(picked);
                    }
                }
                Missed::FullAndSilent => {
                    self.stage.slot();
                    drop(timeout(SLOT_PACE, news.comes()).await);
                }
                Missed::Tried => match self.last.as_ref().map(|last| last.how) {
                    Some(How::NotSent | How::Refused) => {
                        self.tried.clear();
                        let pause = self.patience.pause;
                        self.patience.pause = (pause * 2).min(SLOT_PACE);
                        self.wait_up_to(pause).await?;
                    }
                    // Whoever asked for a pause has had it.
                    Some(How::Answered | How::Broken { .. } | How::Left) if rested => {
                        rested = false;
                        self.tried.clear();
                    }
                    Some(How::Answered | How::Broken { .. } | How::Left) => {
                        if let Some(picked) = self.back_off().await? {
                            return Ok(picked);
                        }
                    }
                    Some(How::NotServed | How::Own | How::Unsendable) | None
                        if !self.call.wait_ready =>
                    {
                        return Err(self.out_of_providers());
                    }
                    Some(How::NotServed | How::Own | How::Unsendable) | None => {
                        self.wait_up_to(Duration::MAX).await?;
                    }
                },
                Missed::Bleak if !self.call.wait_ready => return Err(self.out_of_providers()),
                Missed::Bleak | Missed::Pending => self.wait_up_to(Duration::MAX).await?,
            }
        }
    }

    /// Waits before those are asked again that have failed the call; a provider that comes meanwhile is asked at once.
    async fn back_off(&mut self) -> Result<Option<Picked>, Ended> {
        let pause = self.patience.next_backoff();
        if self.call.ends_within(pause)
            && let Some(last) = self.last.take()
        {
            return Err(self.end(last, Stopped::Deadline));
        }
        let Some(news) = &mut self.patience.news else { return Ok(None) };
        self.stage.pause();
        let mut end = std::pin::pin!(sleep_until(Instant::now() + pause));
        loop {
            tokio::select! {
                () = &mut end => break,
                () = news.comes() => {}
            }
            self.call.service().pool.check_under_way()?;
            match self.call.pick(&self.tried) {
                Ok(picked) if !is_worse_than_again(self.last.as_ref(), self.call, &picked) => {
                    return Ok(Some(picked));
                }
                _ => {}
            }
        }
        self.tried.clear();
        Ok(None)
    }

    /// Waits in line for a slot; `None` once it is not for want of one that nobody is picked.
    async fn line_up(&mut self) -> Result<Option<Picked>, Ended> {
        let Some(news) = &mut self.patience.news else { return Ok(None) };
        let mut line = Line::default();
        loop {
            line.stand_at(&self.call.candidates(&self.tried));
            tokio::select! {
                biased;
                // Refused where another call of the same client chose another provider first.
                picked = line.turn() => return Ok(self.call.accept(picked).ok()),
                () = news.comes() => {}
            }
            self.call.service().pool.check_under_way()?;
            match self.call.pick(&self.tried) {
                Ok(picked) => return Ok(Some(picked)),
                // Who could have given a slot may be others now: the places at those that stay are kept.
                Err(Missed::Full) => {}
                Err(_) => return Ok(None),
            }
        }
    }

    /// Waits for a change of the directory or a connection, or for so long; fails once the call has waited enough.
    async fn wait_up_to(&mut self, pause: Duration) -> Result<(), Ended> {
        self.stage.provider();
        let now = Instant::now();
        let give_up = *self.patience.give_up.get_or_insert_with(|| now + LONGEST_WAIT);
        if !self.call.wait_ready && give_up <= now {
            return Err(self.out_of_providers());
        }
        let Some(news) = &mut self.patience.news else { return Ok(()) };
        let until = match now.checked_add(pause) {
            Some(until) if self.call.wait_ready => until,
            Some(until) => until.min(give_up),
            None if self.call.wait_ready => {
                news.comes().await;
                return Ok(());
            }
            None => give_up,
        };
        drop(timeout_at(until, news.comes()).await);
        Ok(())
    }
}

/// Whether a provider that has failed the call is a better choice than this one: it answers at least.
fn is_worse_than_again(last: Option<&Failed>, call: &Call, picked: &Picked) -> bool {
    last.is_some_and(|last| last.how.was_sent())
        && picked.slot.pulse().is_stalled()
        && call.has_ready(None)
}
