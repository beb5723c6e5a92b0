use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aegis_core::NodeId;
use aegis_transport::deadline::Deadline;
use aegis_transport::timeout::{self, GRPC_TIMEOUT};
use aegis_transport::{CallError, RequestHead, Slot};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::attempts::Attempts;
use crate::body::ResponseBody;
use crate::headers::SERVICE_HEADER;
use crate::limit::ResponseLimit;
use crate::outcome::Ended;
use crate::policy::CallPolicy;
use crate::replay::{Attempt, Replay};
use crate::request::Marks;
use crate::service::Service;
use crate::shared::UnderWay;
use crate::stage::Stage;
use crate::view::{Missed, Picked, Provider, pick_pinned};
use crate::{ServiceChannel, deadline};

/// gRFC A6: how often the request was sent before.
const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
/// A peer that cancels a call so shortly before its deadline does so for the deadline, by a clock a little ahead of ours.
const CLOSE: Duration = Duration::from_millis(5);

/// One call through a channel, from the request to the head of its answer.
pub(crate) struct Call {
    under_way: UnderWay,
    pin: Option<Arc<OnceLock<Arc<Provider>>>>,
    head: RequestHead,
    pub(crate) replay: Replay,
    pub(crate) started: Instant,
    pub(crate) deadline: Option<Deadline>,
    limit: ResponseLimit,
    pub(crate) policy: CallPolicy,
    pub(crate) wait_ready: bool,
}

impl Call {
    /// Takes a request over.
    ///
    /// To be called in the caller's task, whose inherited deadline it reads. Fails on a `grpc-timeout` that is none.
    pub(crate) fn new(channel: &ServiceChannel, request: Request<Body>) -> Result<Self, Status> {
        let (mut head, body) = request.into_parts();
        let marks = Marks::of(&head.extensions);
        head.headers.insert(SERVICE_HEADER, channel.service.header.clone());
        let mut policy = channel.policies.of(head.uri.path());
        policy.idempotent |= marks.idempotent;
        let own = timeout::parse(&head.headers)?.map(Deadline::after);
        let inherited =
            deadline::inherited().filter(|_| !marks.without_inherited_deadline).map(Deadline::from);
        let deadline =
            own.into_iter().chain(inherited).min().or_else(|| policy.deadline.map(Deadline::after));
        if deadline.is_some() {
            // Each attempt puts what is left in this place.
            head.headers.insert(GRPC_TIMEOUT, HeaderValue::from_static("0n"));
        }
        Ok(Self {
            under_way: UnderWay::begin(&channel.service),
            pin: channel.pin.clone(),
            head: RequestHead::new(head),
            replay: Replay::new(body),
            started: Instant::now(),
            deadline,
            limit: channel.limit,
            policy,
            wait_ready: marks.wait_ready,
        })
    }

    /// Makes the call, up to the head of its answer.
    ///
    /// # Cancel safety
    /// Dropping the future resets the request's stream.
    pub(crate) async fn run(&mut self) -> Result<Response<ResponseBody>, Status> {
        let stage = Stage::default();
        if self.deadline.is_some_and(Deadline::has_passed) {
            return Err(stage.deadline_passed(self).into_status(stage));
        }
        let mut attempts = Attempts::new(self, &stage);
        let outcome = tokio::select! {
            biased;
            // Time first: a call must not take, when its own time is over, the slot of one that ends with it.
            status = self.expired(&stage) => Err(status),
            outcome = attempts.run() => outcome,
        };
        match outcome {
            Ok((answer, measure)) => {
                let attempt = stage.into_attempt();
                let under_way = self.under_way.hand_over();
                let deadline = self.deadline;
                Ok(answer
                    .map(|body| ResponseBody::new(body, deadline, attempt, under_way, measure)))
            }
            // A peer whose clock is a little ahead resets the stream before our own timer fires.
            Err(ended)
                if ended.status.code() == Code::Cancelled
                    && self.deadline.is_some_and(|it| it.remaining() <= CLOSE) =>
            {
                Err(stage.deadline_passed(self).into_status(stage))
            }
            Err(ended) => Err(ended.into_status(stage)),
        }
    }

    /// Waits until the call's time is over, and says how it ends.
    async fn expired(&self, stage: &Stage) -> Ended {
        if let Some(deadline) = self.deadline {
            deadline.passed().await;
            return stage.deadline_passed(self);
        }
        let mut slept_until = None;
        while let Some(limit) = self.limit.towards(stage.is_foreign()) {
            let since = self.replay.progress().unwrap_or(self.started);
            // A limit beyond what the clock can say is none.
            let Some(at) = since.checked_add(limit) else { break };
            if slept_until.is_some_and(|slept| at <= slept) {
                return stage.limit_passed(self, limit);
            }
            tokio::time::sleep_until(at).await;
            slept_until = Some(at);
        }
        std::future::pending().await
    }

    pub(crate) fn service(&self) -> &Arc<Service> {
        &self.under_way.service
    }

    /// Picks a provider that is not among `tried`.
    pub(crate) fn pick(&self, tried: &[NodeId]) -> Result<Picked, Missed> {
        let service = self.service();
        let Some(pin) = &self.pin else {
            return service.pick(tried);
        };
        if let Some(provider) = pin.get() {
            return pick_pinned(provider, tried);
        }
        let picked = service.pick(tried)?;
        self.accept(picked).or_else(|pinned| pick_pinned(pinned, tried))
    }

    /// Pins a client that is to be pinned by its first call to who was picked; fails with the provider that it is
    /// pinned to already.
    pub(crate) fn accept(&self, picked: Picked) -> Result<Picked, &Arc<Provider>> {
        let Some(pin) = &self.pin else { return Ok(picked) };
        let pinned = pin.get_or_init(|| Arc::clone(&picked.provider));
        if pinned.node_id() == picked.provider.node_id() { Ok(picked) } else { Err(pinned) }
    }

    /// The connected providers that the call may go to.
    pub(crate) fn candidates(&self, tried: &[NodeId]) -> Vec<Arc<Provider>> {
        if let Some(provider) = self.pinned_to() {
            return vec![Arc::clone(provider)];
        }
        let view = self.service().view.load();
        view.callable().filter(|it| !tried.contains(it.node_id())).cloned().collect()
    }

    /// Whether anybody but this node could be given the call now: connected, and answering.
    pub(crate) fn has_ready(&self, besides: Option<&NodeId>) -> bool {
        let view = self.service().view.load();
        let is_for_us = |it: &Arc<Provider>| {
            besides != Some(it.node_id())
                && self.pinned_to().is_none_or(|pin| pin.node_id() == it.node_id())
        };
        view.callable().any(is_for_us)
    }

    /// Whether the call's time is over before such a pause is.
    pub(crate) fn ends_within(&self, pause: Duration) -> bool {
        if let Some(deadline) = self.deadline {
            return deadline.remaining() <= pause;
        }
        let Some(limit) = self.limit.towards(false) else { return false };
        limit <= self.replay.progress().unwrap_or(self.started).elapsed().saturating_add(pause)
    }

    /// The node that every attempt has to go to.
    pub(crate) fn pinned_to(&self) -> Option<&Arc<Provider>> {
        self.pin.as_ref()?.get()
    }

    /// Sends an attempt, after how many that may have been processed.
    pub(crate) async fn send(
        &self,
        slot: Slot,
        body: Attempt,
        processed: u32,
    ) -> Result<Response<aegis_transport::ResponseBody>, CallError> {
        let finish = |headers: &mut HeaderMap| {
            if 0 < processed {
                headers.insert(PREVIOUS_ATTEMPTS, processed.into());
            }
            if let Some(deadline) = self.deadline {
                headers.insert(GRPC_TIMEOUT, timeout::encode(deadline.remaining()));
            }
        };
        slot.send_head(&self.head, finish, body).await
    }
}
