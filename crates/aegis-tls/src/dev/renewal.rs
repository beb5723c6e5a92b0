use std::path::Path;
use std::time::SystemTime;

use aegis_core::{NodeId, SpiffeId};

use crate::clock::Utc;
use crate::{Rejection, Subject};

use super::issue;

/// Why a node gets a new certificate.
#[derive(Debug)]
pub(super) enum Renewal {
    /// It has none.
    First,
    /// The one it has ran out, or is about to.
    Age { not_after: SystemTime },
    /// What is there is of no use to this node, for this reason; maybe it was put there by mistake.
    Unfit(String),
}

impl Renewal {
    /// What is wrong with a certificate of these names, if anything but its age is.
    pub(super) fn of_names(
        wanted: &SpiffeId,
        subject: &Subject,
        found: &SpiffeId,
        dns_names: &[String],
    ) -> Option<Self> {
        let (id, node_type) = (found.node_id(), found.node_type());
        if (id, node_type) != (wanted.node_id(), wanted.node_type()) {
            return Some(Self::Unfit(format!("it was issued for {id}, type {node_type}")));
        }
        if found.trust_domain() != wanted.trust_domain() {
            let domain = found.trust_domain();
            return Some(Self::Unfit(format!("it belongs to the trust domain {domain}")));
        }
        if dns_names != issue::dns_names(wanted.node_id(), subject) {
            let reason = "it was issued for other services than this node has";
            return Some(Self::Unfit(reason.to_owned()));
        }
        None
    }

    pub(super) fn of_chain(rejection: Rejection) -> Self {
        Self::Unfit(match rejection {
            Rejection::UnknownCa { .. } => "it was issued by another CA".to_owned(),
            rejection => rejection.to_string(),
        })
    }

    /// Says what was written and why: a file that somebody put there is not replaced without a word.
    pub(super) fn announce(&self, file: &Path, id: &NodeId) {
        let file = file.display();
        match self {
            Self::First => tracing::info!(%file, %id, "issued a development certificate"),
            Self::Age { not_after } => tracing::info!(
                %file, %id,
                "renewed the development certificate of this node: it ends at {}", Utc(*not_after)
            ),
            Self::Unfit(reason) => tracing::warn!(
                %file, %id,
                "replaced the development certificate of this node: {reason}"
            ),
        }
    }
}
