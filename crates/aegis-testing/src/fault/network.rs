use std::io;
use std::sync::Arc;

use aegis_core::Address;
use aegis_transport::{BoxFuture, BoxIo, Listener, Network};
use tokio::time::sleep;

use super::rules::{Ends, Shared, State};
use super::stream::FaultyStream;

/// A network whose dials and connections meet faults.
///
/// The dialler's end carries those of both directions, so the listener's needs none.
#[derive(Debug)]
pub(crate) struct FaultyNetwork {
    shared: Arc<Shared>,
    own: Option<String>,
    network: Arc<dyn Network>,
}

impl FaultyNetwork {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        own: Option<String>,
        network: Arc<dyn Network>,
    ) -> Self {
        Self { shared: Arc::clone(shared), own, network }
    }
}

impl Network for FaultyNetwork {
    fn connect(&self, address: &Address) -> BoxFuture<'static, io::Result<BoxIo>> {
        let (shared, network) = (Arc::clone(&self.shared), Arc::clone(&self.network));
        let (ends, address) = (Ends::new(self.own.clone(), address), address.clone());
        Box::pin(async move {
            let draws = shared.dialled(&ends);
            let mut own = draws("dial");
            if let Some(delay) = shared.rule(&ends).0.delay {
                // There and back.
                sleep(shared.draw(delay, &mut own)).await;
                sleep(shared.draw(delay, &mut own)).await;
            }
            let (rule, version) = loop {
                let (rule, version) = shared.rule(&ends);
                match rule.state {
                    Some(State::BlackHole) => shared.changed(version).await,
                    Some(State::Refusing) => {
                        return Err(io::Error::new(
                            io::ErrorKind::ConnectionRefused,
                            format!("a fault of this test refuses connections to {address}"),
                        ));
                    }
                    _ => break (rule, version),
                }
            };
            let accept = rule.accept.map(|delay| shared.draw(delay, &mut own));
            let dial = network.connect(&address);
            let (seen, draws) = ((rule, version), [draws("to"), draws("from")]);
            let stream = if accept.is_some() || rule.state == Some(State::Hanging) {
                FaultyStream::unaccepted(shared, ends, seen, draws, dial, accept)
            } else {
                FaultyStream::accepted(shared, ends, seen, draws, dial.await?)
            };
            Ok(Box::new(stream) as BoxIo)
        })
    }

    fn bind(&self, address: &Address) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let (shared, own) = (Arc::clone(&self.shared), self.own.clone());
        let binding = self.network.bind(address);
        Box::pin(async move {
            let listener = binding.await?;
            if let Some(id) = own {
                shared.name(&listener.local_addr()?.into(), &id);
            }
            Ok(listener)
        })
    }
}
