use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use aegis_core::{Address, NodeId, SpiffeId};
use aegis_tls::{ClientStream, ConnectError, Connected, Expected, RefusalSlot, Tls};
use bytes::Bytes;
use h2::client::SendRequest;
use tokio::time::{Instant, timeout_at};

use crate::clock::later;
use crate::error::DialError;
use crate::greeting::HeaderList;
use crate::heard::{Heard, Inspected};
use crate::network::{BoxIo, Network};
use crate::settings::Settings;

type BoxError = Box<dyn Error + Send + Sync>;

/// What a driver drives: TLS over a byte stream that notes when it was read.
pub(crate) type Stream = Inspected<ClientStream<Inspected<BoxIo>>>;

/// A connection whose peer has accepted us, and which nobody drives yet.
pub(crate) struct Dialled {
    pub(crate) sender: SendRequest<Bytes>,
    pub(crate) http2: h2::client::Connection<Stream, Bytes>,
    pub(crate) heard: Heard,
    pub(crate) header_list: HeaderList,
    pub(crate) peer: SpiffeId,
    pub(crate) address: Address,
}

/// How to dial: the same for every node of a process.
#[derive(Debug)]
pub(crate) struct Dialler {
    pub(crate) tls: Tls,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) settings: Settings,
}

impl Dialler {
    /// Tries each address in turn within the one limit; of the failures, the one that tells most is reported.
    pub(crate) async fn dial(
        &self,
        expected: Option<&NodeId>,
        addresses: &[Address],
    ) -> Result<Dialled, DialError> {
        let until = later(Instant::now(), self.settings.dial_limit);
        let mut worst = DialError::NoAddress;
        for (tried, address) in addresses.iter().enumerate() {
            // An address that swallows packets must leave time for those after it.
            let left = until.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            match self.dial_one(expected, address, share).await {
                Ok(dialled) => return Ok(dialled),
                Err(error) if worst.weight() < error.weight() => worst = error,
                Err(_) => {}
            }
        }
        Err(worst)
    }

    async fn dial_one(
        &self,
        expected: Option<&NodeId>,
        address: &Address,
        limit: Duration,
    ) -> Result<Dialled, DialError> {
        let until = later(Instant::now(), limit);
        let io = self.reach(address, until, limit).await?;
        let (io, heard) = Heard::on(io);
        let expected = expected.map_or(Expected::AnyMember, Expected::Node);
        let Connected { stream, peer, refusal, .. } =
            timeout_at(until, self.tls.connect(expected, io))
                .await
                .map_err(|_| DialError::NoHandshake { address: address.clone(), limit })?
                .map_err(|error| tls_error(address, error))?;
        let (stream, header_list) = HeaderList::of_server(stream);
        let (sender, http2) = timeout_at(until, self.greet(stream))
            .await
            .map_err(|_| DialError::NoSettings { address: address.clone(), limit })?
            .map_err(|error| http2_error(address, error, &refusal))?;
        Ok(Dialled { sender, http2, heard, header_list, peer, address: address.clone() })
    }

    async fn reach(
        &self,
        address: &Address,
        until: Instant,
        limit: Duration,
    ) -> Result<BoxIo, DialError> {
        let silent = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {limit:?}"));
        timeout_at(until, self.network.connect(address))
            .await
            .unwrap_or_else(|_| Err(silent()))
            .map_err(|source| DialError::Unreachable { address: address.clone(), source })
    }

    /// Exchanges SETTINGS: in TLS 1.3 nothing before the peer's shows that it takes our certificate.
    async fn greet(
        &self,
        stream: Stream,
    ) -> Result<(SendRequest<Bytes>, h2::client::Connection<Stream, Bytes>), BoxError> {
        let settings = &self.settings;
        let (sender, mut http2) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(settings.stream_window)
            .initial_connection_window_size(settings.connection_window)
            .max_header_list_size(settings.header_list)
            .initial_max_send_streams(0)
            // The defaults of the flood guards below end connections of healthy callers that cancel or read slowly.
            .max_concurrent_reset_streams(1_024)
            .max_local_error_reset_streams(None)
            .data_frame_budget(256 << 20)
            .handshake::<_, Bytes>(stream)
            .await?;
        poll_fn(|cx| match Pin::new(&mut http2).poll(cx) {
            // One that greeted and left in one breath is connected; its driver will see that it is gone.
            Poll::Ready(Ok(())) | Poll::Pending if 0 < sender.current_max_send_streams() => {
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(())) => Poll::Ready(Err("it closed the connection".into())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(BoxError::from(error))),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        Ok((sender, http2))
    }
}

fn tls_error(address: &Address, error: ConnectError) -> DialError {
    let address = address.clone();
    match error {
        ConnectError::WrongNode { expected, found } => {
            DialError::WrongNode { address, expected, found }
        }
        ConnectError::Refused(refusal) => DialError::Refused { address, refusal },
        source => DialError::Tls { address, source },
    }
}

/// What ends a connection before the peer's SETTINGS is most often its alert, which HTTP/2 does not know of.
fn http2_error(address: &Address, source: BoxError, refusal: &RefusalSlot) -> DialError {
    let address = address.clone();
    match refusal.get() {
        Some(refusal) => DialError::Refused { address, refusal },
        None => DialError::Http2 { address, source },
    }
}
