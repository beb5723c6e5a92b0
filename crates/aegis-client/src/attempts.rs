use std::time::Duration;

use aegis_core::NodeId;
use aegis_transport::{Pulse, ResponseBody};
use http::Response;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Status;

use crate::Error;
use crate::acquire::Patience;
use crate::call::Call;
use crate::failure::Stopped;
use crate::load::{Measure, Outcome};
use crate::outcome::{Ended, Failed, How, judge};
use crate::pushback::Pushback;
use crate::replay;
use crate::service::Counts;
use crate::stage::{Attempt, Stage};
use crate::view::Picked;

/// A peer that refuses is asked so many times at most, whatever the budget says.
const MOST_REFUSALS: u32 = 5;
/// How often a call that would leave its provider, and may not, looks whether it may now.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Gives a call to one provider after the other until one answers it.
///
/// What was never processed moves: what never left us goes to each other provider once; what a peer refused goes on
/// once for free and then under the service's budget. What may have been processed is repeated only if the call is
/// idempotent, as its policy says and always under the budget. Other providers come first; where there is none, it waits
/// for that provider's next connection, or for a while.
pub(crate) struct Attempts<'a> {
    pub(crate) call: &'a Call,
    pub(crate) stage: &'a Stage,
    /// Who had the request in this round.
    pub(crate) tried: Vec<NodeId>,
    /// Why the last attempt failed.
    pub(crate) last: Option<Failed>,
    pub(crate) patience: Patience,
    sent: u32,
    /// How many of them a handler may have seen.
    processed: u32,
    refusals: u32,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(call: &'a Call, stage: &'a Stage) -> Self {
        Self {
            call,
            stage,
            tried: Vec::new(),
            last: None,
            patience: Patience::default(),
            sent: 0,
            processed: 0,
            refusals: 0,
        }
    }

    pub(crate) async fn run(&mut self) -> Result<(Response<ResponseBody>, Measure), Ended> {
        // Asked once: a pool that is closed from now on waits for this call.
        if self.call.service().pool.is_closed() {
            return Err(Error::Closed.into());
        }
        loop {
            // Almost always somebody is there at once; waiting takes much more room.
            let picked = match self.first_choice()? {
                Some(picked) => picked,
                None => Box::pin(self.acquire()).await?,
            };
            let Some(body) = self.call.replay.attempt() else {
                return Err(self.out_of_providers());
            };
            match self.attempt(picked, body).await {
                Ok(answer) => {
                    self.call.replay.settle();
                    return Ok(answer);
                }
                Err(failed) => self.go_on(failed)?,
            }
        }
    }

    /// Makes one attempt.
    async fn attempt(
        &mut self,
        picked: Picked,
        body: replay::Attempt,
    ) -> Result<(Response<ResponseBody>, Measure), Failed> {
        let Picked { slot, provider } = picked;
        let counts = &self.call.service().counts;
        Counts::add(&counts.attempts);
        if let Some(last) = &self.last {
            Counts::add(if last.how.was_sent() { &counts.retries } else { &counts.moved });
        }
        let began = Instant::now();
        self.sent += 1;
        let attempt = Attempt {
            node_id: provider.node_id().clone(),
            address: slot.address().clone(),
            number: self.sent,
            foreign: provider.foreign,
            began,
        };
        let mut measure = provider.begin(began);
        let pulse = self.call.policy.idempotent.then(|| slot.pulse());
        let sent = self.call.send(slot, body, self.processed);
        let outcome = if let Some(pulse) = &pulse {
            self.stage.answer(attempt.clone());
            tokio::select! {
                biased;
                outcome = sent => judge(outcome),
                status = Box::pin(self.given_up(&attempt, pulse)) => Err(Failed::left(status)),
            }
        } else {
            self.stage.answer(attempt);
            judge(sent.await)
        };
        measure.finish(
            outcome.as_ref().map_or_else(Failed::outcome, |_| Outcome::Answered),
            Instant::now(),
        );
        outcome.map(|answer| (answer, measure))
    }

    /// Waits until the call leaves its provider for another one, which the budget has paid for then.
    async fn given_up(&self, attempt: &Attempt, pulse: &Pulse) -> Status {
        let Attempt { node_id, address, began, .. } = attempt;
        let counts = &self.call.service().counts;
        let timeout = self.call.policy.try_timeout;
        // A timeout beyond what the clock can say is none.
        let end = timeout.and_then(|timeout| began.checked_add(timeout));
        let mut refused = false;
        loop {
            let too_slow = tokio::select! {
                biased;
                () = until(end) => timeout,
                () = pulse.stalled() => None,
            };
            if self.may_leave(node_id, too_slow.is_some()) {
                if self.call.service().may_repeat(!refused) {
                    let Some(timeout) = too_slow else {
                        Counts::add(&counts.stalls_left);
                        return Status::unavailable(format!(
                            "the connection to node {node_id} at {address} has stalled: it does not answer PINGs"
                        ));
                    };
                    Counts::add(&counts.try_timeouts);
                    return Status::deadline_exceeded(format!(
                        "node {node_id} at {address} did not begin to answer within the try_timeout of {timeout:?}"
                    ));
                }
                refused = true;
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Whether the call may leave its provider, budget aside: it can be sent again, and there is somebody to ask.
    fn may_leave(&self, node_id: &NodeId, too_slow: bool) -> bool {
        let somebody = if too_slow {
            // Who was slow may be quicker the second time; who is silent will not.
            self.call.has_ready(None)
        } else {
            self.call.pinned_to().is_none() && self.call.has_ready(Some(node_id))
        };
        somebody && self.processed + 1 < self.call.policy.attempts && self.call.replay.is_possible()
    }

    /// Remembers a failure, if the request may go out once more in spite of it.
    fn go_on(&mut self, failed: Failed) -> Result<(), Ended> {
        self.tried.extend(self.stage.failed(&failed.status, failed.how.was_sent()));
        if failed.pushback.is_some() {
            Counts::add(&self.call.service().counts.pushbacks);
        }
        if let Some(stopped) = self.obstacle(&failed) {
            return Err(self.end(failed, stopped));
        }
        self.last = Some(failed);
        Ok(())
    }

    /// Why there can be no further attempt.
    fn obstacle(&mut self, failed: &Failed) -> Option<Stopped> {
        let Call { policy, replay, .. } = self.call;
        let processed = matches!(failed.how, How::Answered | How::Broken { .. });
        if processed {
            // In this order: the first is what a caller would have to change first.
            if !policy.retries(failed.status.code()) {
                return Some(Stopped::Code);
            }
            if !policy.idempotent {
                return Some(Stopped::NotIdempotent);
            }
        }
        if !replay.is_possible() {
            return Some(Stopped::NotReplayable);
        }
        match failed.how {
            How::Answered | How::Broken { .. } => {
                self.processed += 1;
                if policy.attempts <= self.processed {
                    return Some(Stopped::Attempts);
                }
                match failed.pushback {
                    Some(Pushback::Never) => return Some(Stopped::Pushback),
                    Some(Pushback::After(delay)) if self.call.ends_within(delay) => {
                        return Some(Stopped::Deadline);
                    }
                    Some(Pushback::After(delay)) => self.patience.push_back(delay),
                    None => {}
                }
                let may = self.call.service().may_repeat(true);
                (!may).then_some(Stopped::Budget)
            }
            How::Left => {
                self.processed += 1;
                None
            }
            How::NotServed | How::Refused => {
                self.refusals += 1;
                // The first is free: a peer that drains refuses everything it has not begun.
                let free = self.refusals == 1;
                if MOST_REFUSALS <= self.refusals {
                    Some(Stopped::Attempts)
                } else {
                    let may = free || self.call.service().may_repeat(true);
                    (!may).then_some(Stopped::Budget)
                }
            }
            How::NotSent => None,
            How::Own | How::Unsendable => Some(Stopped::Code),
        }
    }

    /// What the call ends with when nobody is left: why the last one did not answer, or who there is.
    pub(crate) fn out_of_providers(&mut self) -> Ended {
        if let Some(last) = self.last.take() {
            return self.end(last, Stopped::OutOfProviders);
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

    /// The status that a call ends with after an attempt that failed, in words that say where and when.
    pub(crate) fn end(&self, failed: Failed, stopped: Stopped) -> Ended {
        let Failed { status, how, .. } = failed;
        let text = match how {
            // Its status is the caller's own.
            How::Own => return Ended { status, stopped: None, error: None },
            // A single answer is the provider's, word by word.
            How::Answered if self.sent == 1 => {
                return Ended { status, stopped: Some(stopped), error: None };
            }
            How::Answered => format!("{}: {}", self.stage.place(), status.message()),
            How::NotServed => {
                format!("{} refused the call: {}", self.stage.place(), status.message())
            }
            How::Broken { .. } | How::Left | How::NotSent | How::Refused | How::Unsendable => {
                status.message().to_owned()
            }
        };
        let text = self.stage.numbered(&text, &self.call.service().info, stopped);
        let status = match how {
            How::Answered => Status::with_details_and_metadata(
                status.code(),
                text,
                status.details().to_vec().into(),
                status.metadata().clone(),
            ),
            _ => Status::new(status.code(), text),
        };
        Ended { status, stopped: Some(stopped), error: None }
    }
}

/// Waits until then; for ever without a then.
async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}
