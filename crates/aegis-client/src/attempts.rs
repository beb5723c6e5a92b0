use std::error::Error as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aegis_core::NodeId;
use aegis_transport::{CallError, Changes, NeverSent, ResponseBody};
use http::Response;
use http_body::Body as _;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::{Code, Status};

use crate::Error;
use crate::call::Call;
use crate::headers::{NOT_SERVED, REFUSED_HEADER};
use crate::line::Line;
use crate::load::{Measure, Outcome};
use crate::service::Service;
use crate::stage::{Attempt, Stage};
use crate::view::{Missed, Picked};

/// How long a call waits, in total, for the first sync and for connections that are on their way.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How often a call that waits for a stream of a silent provider looks again: such streams are given to nobody in line.
const SLOT_PACE: Duration = Duration::from_millis(100);
/// The first pause before a request returns to a provider that it already had; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// A peer that refuses is asked so many times at most, whatever the budget says.
const MOST_REFUSALS: u32 = 5;

/// Gives a call to one provider after the other until one has it.
///
/// Only what was never processed moves. What never left us goes to each other provider once; what a peer refused
/// goes on once for free and then under the service's budget. Where there is no other provider it waits for that
/// provider's next connection.
pub(crate) struct Attempts<'a> {
    call: &'a Call,
    stage: &'a Stage,
    /// Who had the request in this round.
    tried: Vec<NodeId>,
    sent: u32,
    refusals: u32,
    /// Why the last attempt failed.
    last: Option<Last>,
    news: Option<News>,
    /// When waiting for a connection ends; set by the first wait.
    give_up: Option<Instant>,
    pause: Duration,
}

struct Last {
    status: Status,
    /// Whether asking the same node again may end otherwise.
    worth_repeating: bool,
}

/// What may let a pick succeed that failed before.
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

impl<'a> Attempts<'a> {
    pub(crate) fn new(call: &'a Call, stage: &'a Stage) -> Self {
        Self {
            call,
            stage,
            tried: Vec::new(),
            sent: 0,
            refusals: 0,
            last: None,
            news: None,
            give_up: None,
            pause: FIRST_PAUSE,
        }
    }

    pub(crate) async fn run(mut self) -> Result<(Response<ResponseBody>, Measure), Status> {
        // Asked once: a pool that is closed from now on waits for this call.
        if self.call.service().pool.is_closed() {
            return Err(Error::Closed.into());
        }
        loop {
            let Picked { slot, provider } = self.acquire().await?;
            let Some(body) = self.call.replay.attempt() else {
                return Err(self.out_of_providers());
            };
            if 0 < self.sent {
                self.call.service().counts.moved.fetch_add(1, Ordering::Relaxed);
            }
            self.sent += 1;
            let node_id = provider.node_id().clone();
            let foreign = provider.foreign;
            let mut measure = provider.begin(Instant::now());
            self.stage.answer(Attempt {
                node_id: node_id.clone(),
                address: slot.address().clone(),
                number: self.sent,
                foreign,
            });
            let outcome = slot.send(self.call.request(body)).await;
            measure.finish(judge(&outcome), Instant::now());
            let (last, refused) = match outcome {
                Ok(mut answer) => match not_served(&mut answer) {
                    None => {
                        self.call.replay.settle();
                        return Ok((answer, measure));
                    }
                    Some(status) => {
                        let status = self.not_served(&status);
                        (Last { status, worth_repeating: false }, true)
                    }
                },
                Err(error) => {
                    let never_sent = error.never_sent();
                    let status = self.failed(error);
                    match never_sent {
                        None => return Err(status),
                        Some(how) => (
                            Last { status, worth_repeating: true },
                            !matches!(how, NeverSent::SlotLost),
                        ),
                    }
                }
            };
            self.may_move(last, refused)?;
            self.tried.push(node_id);
        }
    }

    /// Remembers a failure, if the request may go out once more in spite of it.
    fn may_move(&mut self, last: Last, refused: bool) -> Result<(), Status> {
        if !self.call.replay.is_possible() {
            return Err(last.status);
        }
        if refused {
            self.refusals += 1;
            // The first is free: a peer that drains refuses everything it has not begun.
            let free = self.refusals == 1;
            if MOST_REFUSALS <= self.refusals || !free && !self.call.service().may_repeat() {
                return Err(last.status);
            }
        }
        self.last = Some(last);
        Ok(())
    }

    /// Gets a slot, waiting where that may help.
    async fn acquire(&mut self) -> Result<Picked, Status> {
        loop {
            self.call.service().pool.check_under_way()?;
            let missed = match self.call.pick(&self.tried) {
                Ok(picked) => return Ok(picked),
                Err(missed) => missed,
            };
            let Some(news) = &mut self.news else {
                // Subscribed first and picked again after, so that no change falls in between.
                self.news = Some(News::of(self.call.service()));
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
                Missed::Tried if self.last.as_ref().is_some_and(|it| it.worth_repeating) => {
                    self.tried.clear();
                    let pause = self.pause;
                    self.pause = (pause * 2).min(SLOT_PACE);
                    self.wait_up_to(pause).await?;
                }
                Missed::Bleak | Missed::Tried if !self.call.wait_ready => {
                    return Err(self.out_of_providers());
                }
                Missed::Bleak | Missed::Pending | Missed::Tried => {
                    self.wait_up_to(Duration::MAX).await?;
                }
            }
        }
    }

    /// Waits in line for a slot; `None` once it is not for want of one that nobody is picked.
    async fn line_up(&mut self) -> Result<Option<Picked>, Status> {
        let Some(news) = &mut self.news else { return Ok(None) };
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
    async fn wait_up_to(&mut self, pause: Duration) -> Result<(), Status> {
        self.stage.provider();
        let now = Instant::now();
        let give_up = *self.give_up.get_or_insert_with(|| now + LONGEST_WAIT);
        if !self.call.wait_ready && give_up <= now {
            return Err(self.out_of_providers());
        }
        let Some(news) = &mut self.news else { return Ok(()) };
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

    /// What the call ends with when nobody is left: why the last one did not take it, or who there is.
    fn out_of_providers(&mut self) -> Status {
        if let Some(last) = self.last.take() {
            return last.status;
        }
        let service = self.call.service();
        let error = match self.call.pinned_to() {
            Some(provider) => Error::PinLost {
                service: service.info.clone(),
                node: provider.node_id().clone(),
                explanation: Box::new(service.pool.explain(&service.info)),
            },
            None => service.pool.no_providers(&service.info),
        };
        error.into()
    }

    /// The status of a failed attempt.
    fn failed(&self, error: CallError) -> Status {
        let is_callers = error.source().and_then(|it| it.downcast_ref::<Status>()).is_some();
        let cause = Status::from(error);
        if is_callers {
            // The request's own body failed, and its status is the caller's.
            return cause;
        }
        let text = cause.message().to_owned();
        self.numbered(&cause, &text)
    }

    /// The status of a refused attempt, which says where it was.
    fn not_served(&self, cause: &Status) -> Status {
        let text = match self.stage.attempt() {
            Some(Attempt { node_id, address, .. }) => {
                format!("node {node_id} at {address} refused the call: {}", cause.message())
            }
            None => cause.message().to_owned(),
        };
        self.numbered(cause, &text)
    }

    /// The status of an attempt, with its number.
    fn numbered(&self, cause: &Status, text: &str) -> Status {
        Status::new(
            cause.code(),
            format!("{text} (attempt {} of {})", self.sent, self.call.service().info),
        )
    }
}

/// What an attempt says about its provider.
fn judge(outcome: &Result<Response<ResponseBody>, CallError>) -> Outcome {
    match outcome {
        Ok(answer) if answer.headers().contains_key(REFUSED_HEADER) => Outcome::Refused,
        Ok(answer) => match Status::from_header_map(answer.headers()) {
            Some(status) => Outcome::of(status.code()),
            None => Outcome::Answered,
        },
        Err(error) => match error.never_sent() {
            Some(NeverSent::SlotLost) => Outcome::Unsent,
            Some(_) => Outcome::Refused,
            None if error.source().is_some_and(<dyn std::error::Error>::is::<Status>) => {
                Outcome::Unsent
            }
            None => Outcome::Failed,
        },
    }
}

/// The status of an answer that says that the node does not serve what was asked for. The mark is taken off in any
/// case: a handler that passes the answer on would say of its own call that it was never processed.
fn not_served(answer: &mut Response<ResponseBody>) -> Option<Status> {
    let mark = answer.headers_mut().remove(REFUSED_HEADER)?;
    // A node that refuses says nothing else: what has a body was processed, whatever its headers say.
    if mark != NOT_SERVED || !answer.body().is_end_stream() {
        return None;
    }
    Status::from_header_map(answer.headers()).filter(|it| it.code() == Code::Unimplemented)
}
