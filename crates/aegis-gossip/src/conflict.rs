use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aegis_core::{Address, Chain};
use aegis_proto::convert::decode_record;
use aegis_proto::mesh::v1 as wire;
use aegis_proto::mesh::v1::directory_service_client::DirectoryServiceClient;
use aegis_topology::{
    Instance, NodeState, SignedRecord, Stamp, SyncRequest, SyncResponse, Verified,
};
use aegis_transport::Target;
use tokio::time::{Instant, timeout_at};
use tonic::Request;

use crate::core::{Core, Met};
use crate::inbox::Origin;
use crate::member::Shared;
use crate::own::Own;

/// How long another process may take to show that it lives.
const PROBE: Duration = Duration::from_secs(2);
/// Other processes that are remembered.
const REMEMBERED: usize = 16;

/// The other process that has our identity, while it does.
#[derive(Debug, Default)]
pub(crate) struct Conflict {
    address: Mutex<Option<Address>>,
}

impl Conflict {
    pub(crate) fn address(&self) -> Option<Address> {
        self.lock().clone()
    }

    fn set(&self, address: Option<Address>) {
        *self.lock() = address;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Address>> {
        self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Deals with records that another process signed with our identity.
///
/// Mostly that is an earlier run of this node, which is outbid. Only another instance that answers proves a second
/// process; of two, the one that started later stays in the directory, and both say so.
pub(crate) async fn resolve(shared: Arc<Shared>) {
    let core = &shared.core;
    let Some(own) = shared.own.get() else { return };
    let mut met = core.met();
    // Peers may have called before this task began to listen.
    met.mark_changed();
    let mut remembered: Vec<Instance> = Vec::new();
    loop {
        if !own.advertises() {
            tokio::time::sleep(crate::settings::jittered(core.settings.conflict_every)).await;
            try_return(&shared, own).await;
            continue;
        }
        if met.changed().await.is_err() {
            return;
        }
        let Some(Met { record, first_hand }) = met.borrow_and_update().clone() else { continue };
        let theirs = record.record();
        let newer = own.precedence() < record.precedence();
        if theirs.instance == own.instance() || !newer && remembered.contains(&theirs.instance) {
            continue;
        }
        if remembered.len() == REMEMBERED {
            remembered.remove(0);
        }
        remembered.push(theirs.instance);
        let other = if first_hand {
            theirs.description.addresses().first().cloned()
        } else {
            find(core, own, &record).await
        };
        let Some(other) = other else {
            if newer {
                tracing::info!(
                    "an earlier run of this node had a later clock; its record is replaced"
                );
                report(own.claim(core, record.precedence()));
            }
            continue;
        };
        core.inbox.count_conflict();
        let (node, address) = (core.own_id(), own.addresses());
        if newer {
            tracing::warn!(
                %node, ?address, %other,
                "two processes use this node id: the other one started later, so this one stops advertising"
            );
            shared.conflict.set(Some(other));
            own.yield_to(core, (*record).clone());
        } else {
            tracing::warn!(
                %node, ?address, %other,
                "two processes use this node id: the other one started earlier and has to stop advertising"
            );
        }
    }
}

/// Advertises again once the other process is gone.
async fn try_return(shared: &Shared, own: &Own) {
    let core = &shared.core;
    let held = core.replica().record(own.key()).cloned();
    let other = match &held {
        Some(record) => find(core, own, record).await,
        None => None,
    };
    if other.is_none() {
        tracing::info!(node = %core.own_id(), "the other process with this node id is gone, advertising again");
        shared.conflict.set(None);
        report(own.claim(core, held.map(|record| record.precedence()).unwrap_or_default()));
    }
}

/// Where the process that signed a record with our identity answers, if it does and is not this one.
async fn find(core: &Core, own: &Own, record: &Verified) -> Option<Address> {
    let theirs = record.record();
    if theirs.state == NodeState::Left {
        return None;
    }
    // At our own addresses we are.
    let ours = own.addresses();
    let addresses: Vec<_> =
        theirs.description.addresses().iter().filter(|it| !ours.contains(it)).cloned().collect();
    let first = addresses.first()?.clone();
    let (instance, _) = ask(core, own, addresses, true).await?;
    (instance != own.instance()).then_some(first)
}

/// Whether another process answers at an address where our identity does; if so, it is dealt with.
///
/// Not if it does not answer: mostly the address is our own, as one list of seeds is given to all.
pub(crate) async fn is_other(shared: &Shared, address: &Address) -> bool {
    let core = &shared.core;
    let Some(own) = shared.own.get() else { return false };
    // Who does not advertise answers with the record of the other one.
    if !own.advertises() && own.addresses().contains(address) {
        return false;
    }
    let ask = async |introduce| ask(core, own, vec![address.clone()], introduce).await;
    // Not introduced at once: the other one might give way before it answers.
    let Some((instance, record)) = ask(false).await else { return false };
    if instance == own.instance() {
        return false;
    }
    ask(true).await;
    core.admit(&core.own_id(), Origin::Asked, vec![record], 0).await;
    true
}

/// Which process of our identity the node at some addresses holds to be the real one: itself, if it advertises.
async fn ask(
    core: &Core,
    own: &Own,
    addresses: Vec<Address>,
    introduce: bool,
) -> Option<(Instance, SignedRecord)> {
    // Apart from the shared connections, where our own id means ourselves.
    let apart = core.connections.apart();
    // Once, and without a word in the log: mostly there is nobody.
    let target = Target::new(core.own_id(), addresses);
    let until = Instant::now() + PROBE;
    let link = timeout_at(until, apart.dial(target)).await.ok()?.ok()?;
    let mut request = SyncRequest::default();
    request.stamps = vec![Stamp::unknown(own.key())];
    if introduce && own.advertises() {
        // So the other one learns of us too, first-hand.
        request.records =
            core.replica().record(own.key()).map(|it| it.signed().clone()).into_iter().collect();
    }
    let mut request = Request::new(wire::SyncRequest::from(request));
    request.set_timeout(until - Instant::now());
    let mut client = DirectoryServiceClient::new(link.channel());
    let response = timeout_at(until, client.sync(request)).await.ok()?.ok()?;
    let response = SyncResponse::try_from(response.into_inner()).ok()?;
    let signed = response.records.into_iter().next()?;
    let record = decode_record(&signed.body).ok()?;
    (record.key() == own.key()).then_some((record.instance, signed))
}

fn report(published: Result<(), crate::PublishError>) {
    if let Err(error) = published {
        let error = Chain::new(&error);
        tracing::warn!(%error, "cannot publish the own record");
    }
}
