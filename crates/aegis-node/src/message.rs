//! The bound on the length of one message, read off the length prefixes of a body.
//!
//! Handlers arrive already built, with limits of their own or none (tonic sends messages of any length),
//! so the server looks at the prefixes as they pass: one flag byte and four bytes of length before each message.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

const PREFIX: usize = 5;

/// Follows the message boundaries of a body that passes in pieces.
#[derive(Debug)]
pub(crate) struct LengthCheck {
    limit: usize,
    prefix: [u8; PREFIX],
    filled: usize,
    /// Bytes of the current message still to come.
    rest: usize,
}

impl LengthCheck {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, prefix: [0; PREFIX], filled: 0, rest: 0 }
    }

    /// Notes the next piece of the body.
    ///
    /// # Errors
    /// The length of a message that is above the limit.
    pub(crate) fn pass(&mut self, mut piece: &[u8]) -> Result<(), usize> {
        loop {
            let skip = self.rest.min(piece.len());
            self.rest -= skip;
            piece = piece.get(skip..).unwrap_or_default();
            // The common case of small messages, of which a piece holds hundreds: a whole prefix.
            if self.filled == 0
                && let Some((&prefix, after)) = piece.split_first_chunk::<PREFIX>()
            {
                self.rest = self.length(prefix)?;
                piece = after;
                continue;
            }
            let Some((&byte, after)) = piece.split_first() else { return Ok(()) };
            if let Some(slot) = self.prefix.get_mut(self.filled) {
                *slot = byte;
            }
            self.filled += 1;
            piece = after;
            if self.filled == PREFIX {
                self.rest = self.length(self.prefix)?;
                self.filled = 0;
            }
        }
    }

    /// The length that a prefix tells; as an error where that is too much.
    fn length(&self, [_, a, b, c, d]: [u8; PREFIX]) -> Result<usize, usize> {
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if self.limit < length { Err(length) } else { Ok(length) }
    }

    pub(crate) fn too_long(&self, length: usize) -> Status {
        Status::resource_exhausted(format!(
            "a message of {length} bytes is longer than this server's limit of {} bytes (Limits::max_message_bytes)",
            self.limit
        ))
    }
}

/// A request body whose messages are within the limit, or end in a `Status`.
#[derive(Debug)]
pub(crate) struct Limited<B> {
    body: B,
    check: LengthCheck,
    over: bool,
}

impl<B> Limited<B> {
    pub(crate) fn new(body: B, limit: usize) -> Self {
        Self { body, check: LengthCheck::new(limit), over: false }
    }
}

impl<B> Body for Limited<B>
where
    B: Body<Data = Bytes, Error = Status> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Err(length) = self.check.pass(data)
        {
            self.over = true;
            return Poll::Ready(Some(Err(self.check.too_long(length))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
        bytes.resize(PREFIX + length, 7);
        bytes
    }

    proptest::proptest! {
        #[test]
        fn boundaries_are_found_wherever_the_pieces_are_cut(lengths in proptest::collection::vec(0_usize..40, 0..8), cut in 1_usize..9, limit in 0_usize..40) {
            let body: Vec<u8> = lengths.iter().flat_map(|length| message(*length)).collect();
            let mut check = LengthCheck::new(limit);
            let found = body.chunks(cut).find_map(|piece| check.pass(piece).err());
            assert_eq!(found, lengths.into_iter().find(|length| limit < *length));
        }
    }
}
