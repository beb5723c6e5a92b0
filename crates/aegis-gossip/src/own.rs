use std::sync::{Mutex, MutexGuard, PoisonError};

use aegis_core::Address;
use aegis_proto::convert::encode_record;
use aegis_topology::{
    Author, Description, Instance, Key, NodeState, Precedence, Record, SignedRecord, Timestamp,
    Verified,
};
use bytes::Bytes;

use crate::PublishError;
use crate::core::Core;

/// The own record of a member: written, signed and merged here and nowhere else.
#[derive(Debug)]
pub(crate) struct Own {
    /// Outside the lock: who looks the record up in the replica holds that lock, which signing takes second.
    key: Key,
    instance: Instance,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    author: Author,
    advertises: bool,
    /// The end of the certificate that signed last: another one means another certificate.
    signed_until: Timestamp,
}

impl Own {
    pub(crate) fn new(core: &Core, instance: Instance, description: Description) -> Self {
        let last = core.settings.last_incarnation;
        let author = Author::new(core.tls.spiffe_id(), instance, description, last, core.now());
        let key = author.key();
        let inner = Inner { author, advertises: true, signed_until: Timestamp::default() };
        Self { key, instance, inner: Mutex::new(inner) }
    }

    /// Changes what the record says, and signs and merges the new one.
    pub(crate) fn publish(
        &self,
        core: &Core,
        change: impl FnOnce(&mut Author),
    ) -> Result<(), PublishError> {
        let mut inner = self.lock();
        change(&mut inner.author);
        if !inner.advertises {
            return Ok(());
        }
        inner.sign(core)?;
        drop(inner);
        core.announce();
        Ok(())
    }

    /// Signs again where half of the record's time is over, or the certificate is another.
    pub(crate) fn renew(&self, core: &Core) -> Result<(), PublishError> {
        let due = {
            let inner = self.lock();
            let certificate: Timestamp = core.tls.not_after().into();
            inner.advertises
                && (inner.author.is_due(core.now(), &core.settings.limits)
                    || inner.signed_until != certificate)
        };
        if !due {
            return Ok(());
        }
        // Without a certificate that holds, there is nothing to try.
        core.tls.check_usable().map_err(|error| PublishError::Sign { source: error.into() })?;
        self.publish(core, |_| {})
    }

    /// Takes the identity, back or for the first time: the next record wins over `other`, and over what the directory
    /// holds from another process.
    pub(crate) fn claim(&self, core: &Core, other: Precedence) -> Result<(), PublishError> {
        self.lock().advertises = true;
        let held = {
            let mut replica = core.replica();
            replica.own(self.key, self.instance);
            let held = replica.record(self.key);
            held.filter(|held| held.record().instance != self.instance).map(Verified::precedence)
        };
        self.publish(core, |author| author.outbid(other.max(held.unwrap_or_default())))
    }

    /// Stops advertising: from now on the other process's record is ours to pass on.
    pub(crate) fn yield_to(&self, core: &Core, other: Verified) {
        self.lock().advertises = false;
        core.replica().disown();
        core.merge(&core.own_id(), other);
        core.announce();
    }

    pub(crate) fn advertises(&self) -> bool {
        self.lock().advertises
    }

    pub(crate) fn state(&self) -> NodeState {
        self.lock().author.state()
    }

    pub(crate) fn addresses(&self) -> Vec<Address> {
        self.lock().author.description().addresses().to_vec()
    }

    pub(crate) fn precedence(&self) -> Precedence {
        self.lock().author.precedence()
    }

    pub(crate) fn key(&self) -> Key {
        self.key
    }

    pub(crate) fn instance(&self) -> Instance {
        self.instance
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn sign(&mut self, core: &Core) -> Result<(), PublishError> {
        let not_after = core.tls.not_after().into();
        let record = self.author.write(core.now(), &core.settings.limits, not_after);
        let signed = sign(core, &record)?;
        let verified = core.verify_own(signed).map_err(|source| PublishError::Record { source })?;
        core.merge(self.author.owner().node_id(), verified);
        self.signed_until = not_after;
        Ok(())
    }
}

fn sign(core: &Core, record: &Record) -> Result<SignedRecord, PublishError> {
    let body = encode_record(record);
    let signed = core.tls.sign_record(&body).map_err(|source| PublishError::Sign { source })?;
    let chain: Vec<_> = signed.chain.iter().map(|der| Bytes::copy_from_slice(der)).collect();
    Ok(SignedRecord::new(body, chain, signed.scheme, signed.signature.into()))
}
