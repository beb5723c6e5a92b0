use std::time::Duration;

use aegis_core::SpiffeId;

use crate::{Description, Instance, Key, NodeState, Precedence, Record, Timestamp};

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
    pub fn write(&mut self, now: Timestamp, lease: Duration, not_after: Timestamp) -> Record {
        self.precedence = self.precedence.next();
        // Never backwards, so that a later record never expires before an earlier one could be replayed.
        self.issued_at = self.issued_at.max(now);
        self.expires_at = self.issued_at.saturating_add(lease).min(not_after);
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

    /// Changes what the next record says about addresses and services.
    pub fn describe(&mut self, description: Description) {
        self.description = description;
    }

    /// When the record has to be written again: in the middle of its time.
    pub fn due_at(&self) -> Timestamp {
        self.issued_at.saturating_add(self.expires_at.since(self.issued_at) / 2)
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
