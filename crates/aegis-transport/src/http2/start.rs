use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::SendStream;
use http_body::{Body, Frame};

use crate::http2::connection::Connection;
use crate::http2::pump::{Pump, body_error};

/// Up to so many bytes a first frame is queued together with the head, before the window is asked for.
const SMALL: usize = 16 << 10;

/// How a request body begins.
pub(crate) enum Start {
    Empty,
    /// All of it.
    Small(Bytes),
    /// The first frame, and the second if it is there already.
    Some(Bytes, Option<Frame<Bytes>>),
    /// A first frame that has to wait for the window, or that is none of data.
    First(Frame<Bytes>),
    Later,
}

impl Start {
    pub(crate) fn of<B>(body: &mut B, cx: &mut Context<'_>) -> Result<Self, tonic::Status>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        if body.is_end_stream() {
            return Ok(Self::Empty);
        }
        let mut next = || match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(frame) => {
                frame.transpose().map(Poll::Ready).map_err(|error| body_error(error.into()))
            }
            Poll::Pending => Ok(Poll::Pending),
        };
        let first = match next()? {
            Poll::Pending => return Ok(Self::Later),
            Poll::Ready(None) => return Ok(Self::Empty),
            Poll::Ready(Some(frame)) => frame,
        };
        if first.data_ref().is_none_or(|data| SMALL < data.len()) {
            return Ok(Self::First(first));
        }
        let Ok(data) = first.into_data() else {
            return Ok(Self::Later);
        };
        Ok(match next()? {
            Poll::Pending => Self::Some(data, None),
            Poll::Ready(None) => Self::Small(data),
            Poll::Ready(second) => Self::Some(data, second),
        })
    }

    /// Sends what need not wait; what is left is for the pump.
    pub(crate) fn go_on<B>(
        self,
        body: B,
        mut stream: SendStream<Bytes>,
        connection: &Arc<Connection>,
    ) -> Option<Pump<B>>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        // A stream that is closed already takes nothing; its response says why.
        match self {
            Self::Empty => None,
            Self::Small(data) => {
                drop(stream.send_data(data, true));
                None
            }
            Self::Some(data, second) => {
                drop(stream.send_data(data, false));
                let pump = Pump::new(body, stream, Arc::clone(connection));
                Some(match second {
                    Some(frame) => pump.with(frame),
                    None => pump,
                })
            }
            Self::First(frame) => Some(Pump::new(body, stream, Arc::clone(connection)).with(frame)),
            Self::Later => Some(Pump::new(body, stream, Arc::clone(connection))),
        }
    }
}
