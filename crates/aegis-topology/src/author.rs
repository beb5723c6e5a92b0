use aegis_core::SpiffeId;

use crate::{Description, Instance, Key, Limits, NodeState, Precedence, Record, Timestamp};

/// Writes a node's own records: one run of one process.
///
/// A plain value; signing and sending is the driver's part.
#[derive(Clone, Debug)]
pub struct Author {
    owner: SpiffeId,
    instance: Instance,
    precedence: Precedence,
    state: NodeState,
    description: Description,
    issued_at: Timestamp,
    expires_at: Timestamp,
}

impl Author {
    /// A run that starts at `now`; `persisted` is the incarnation of the last run, if somebody kept it.
    ///
    /// A clock that was set back since that run does not make the new run look older: see [`outbid`](Self::outbid) too.
    pub fn new(
        owner: SpiffeId,
        instance: Instance,
        description: Description,
        persisted: Option<u64>,
        now: Timestamp,
    ) -> Self {
        let after_last = persisted.map_or(0, |last| last.saturating_add(1));
        Self {
            owner,
            instance,
            precedence: Precedence::new(now.as_millis().max(after_last), 0),
            state: NodeState::Active,
            description,
            issued_at: Timestamp::default(),
            expires_at: Timestamp::default(),
        }
    }

    /// The next record, valid for a lease but not beyond `not_after`, the end of the certificate that will sign it.
    pub fn write(&mut self, now: Timestamp, limits: &Limits, not_after: Timestamp) -> Record {
        self.precedence = self.precedence.next();
        // Not backwards, so that a later record does not expire before an earlier one could be replayed; but a clock
        // that was far ahead and is corrected must not silence the node. Replays of then, the floors of peers refuse.
        self.issued_at =
            if self.is_from_the_future(now, limits) { now } else { self.issued_at.max(now) };
        self.expires_at = self.issued_at.saturating_add(limits.lease).min(not_after);
        let description = match self.state {
            NodeState::Left => self.description.without_services(),
            NodeState::Active | NodeState::Draining => self.description.clone(),
        };
        Record {
            owner: self.owner.clone(),
            instance: self.instance,
            precedence: self.precedence,
            state: self.state,
            description,
            issued_at: self.issued_at,
            expires_at: self.expires_at,
        }
    }

    /// Makes the next record win over one that another process signed with this identity.
    pub fn outbid(&mut self, other: Precedence) {
        if self.precedence <= other {
            self.precedence = Precedence::new(other.incarnation.saturating_add(1), 0);
        }
    }

    /// Changes what the next record says about taking calls. A node that left does not come back.
    pub fn set_state(&mut self, state: NodeState) {
        if self.state != NodeState::Left {
            self.state = state;
        }
    }

    /// Whether the record has to be written again: in the middle of its time, or when the clock was set back so far
    /// that peers take the record for one of the future.
    pub fn is_due(&self, now: Timestamp, limits: &Limits) -> bool {
        let half = self.issued_at.saturating_add(self.expires_at.since(self.issued_at) / 2);
        half <= now || self.is_from_the_future(now, limits)
    }

    fn is_from_the_future(&self, now: Timestamp, limits: &Limits) -> bool {
        now.saturating_add(limits.skew) < self.issued_at
    }

    /// The identity.
    pub fn owner(&self) -> &SpiffeId {
        &self.owner
    }

    /// The process.
    pub fn instance(&self) -> Instance {
        self.instance
    }

    /// Where the record is kept.
    pub fn key(&self) -> Key {
        Key::of(self.owner.trust_domain(), self.owner.node_id())
    }

    /// Whether the node takes calls.
    pub fn state(&self) -> NodeState {
        self.state
    }

    /// The place of the last record among its owner's.
    pub fn precedence(&self) -> Precedence {
        self.precedence
    }

    /// The description.
    pub fn description(&self) -> &Description {
        &self.description
    }
}
