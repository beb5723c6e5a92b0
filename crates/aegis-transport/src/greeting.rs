use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The length of a frame's head (RFC 9113 §4.1), and the longest frame that we let a peer send.
const HEAD: usize = 9;
const LONGEST: usize = 16 << 10;
/// RFC 9113 §6.5 and §6.5.2.
const SETTINGS: u8 = 4;
const MAX_HEADER_LIST_SIZE: u16 = 6;

/// What a client sends before its SETTINGS (RFC 9113 §3.4), in bytes.
const PREFACE: usize = 24;

/// The longest header list that the peer takes, once its first SETTINGS are here and if they say so.
#[derive(Debug, Clone, Default)]
pub struct HeaderList(Arc<OnceLock<u32>>);

impl HeaderList {
    /// `SETTINGS_MAX_HEADER_LIST_SIZE`, in bytes as RFC 9113 §6.5.2 counts them.
    pub fn get(&self) -> Option<u32> {
        self.0.get().copied()
    }
}

/// A plain byte stream that reads the peer's first SETTINGS as they pass: h2 keeps this one to itself.
#[derive(Debug)]
pub struct Greeted<IO> {
    io: IO,
    /// Bytes that come before them.
    skip: usize,
    /// `None` once they have been read.
    reading: Option<(Vec<u8>, HeaderList)>,
}

impl<IO> Greeted<IO> {
    /// A connection to a server.
    pub fn by_server(io: IO) -> (Self, HeaderList) {
        Self::after(0, io)
    }

    /// A connection of a client.
    pub fn by_client(io: IO) -> (Self, HeaderList) {
        Self::after(PREFACE, io)
    }

    fn after(skip: usize, io: IO) -> (Self, HeaderList) {
        let list = HeaderList::default();
        (Self { io, skip, reading: Some((Vec::new(), list.clone())) }, list)
    }

    fn note(&mut self, bytes: &[u8]) {
        let Some((read, list)) = &mut self.reading else { return };
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        let bytes = bytes.get(skipped..).unwrap_or_default();
        // The rest of what came with it is not kept.
        read.extend(bytes.iter().take(HEAD + LONGEST - read.len()));
        let Poll::Ready(payload) = settings(read) else { return };
        // Of several the last counts.
        let said = payload.chunks_exact(6).rev().find_map(|setting| match setting {
            [a, b, value @ ..] if u16::from_be_bytes([*a, *b]) == MAX_HEADER_LIST_SIZE => {
                value.try_into().ok().map(u32::from_be_bytes)
            }
            _ => None,
        });
        if let Some(said) = said {
            list.0.get_or_init(|| said);
        }
        self.reading = None;
    }
}

/// The payload of the first frame once all of it is there; empty where that is none of SETTINGS.
fn settings(read: &[u8]) -> Poll<&[u8]> {
    let [a, b, c, kind, ..] = read else { return Poll::Pending };
    let length = u32::from_be_bytes([0, *a, *b, *c]);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if *kind != SETTINGS || LONGEST < length {
        return Poll::Ready(&[]);
    }
    read.get(HEAD..HEAD + length).map_or(Poll::Pending, Poll::Ready)
}

impl<IO: AsyncRead + Unpin> AsyncRead for Greeted<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if self.reading.is_some() {
            self.note(buf.filled().get(before..).unwrap_or_default());
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Greeted<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, settings: &[(u16, u32)]) -> Vec<u8> {
        let mut frame = vec![0, 0, u8::try_from(settings.len() * 6).unwrap(), kind, 0, 0, 0, 0, 0];
        for (id, value) in settings {
            frame.extend(id.to_be_bytes());
            frame.extend(value.to_be_bytes());
        }
        frame
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: Option<u32>) {
        // However the bytes are cut.
        for piece in [1, 2, 7, bytes.len()] {
            let (mut greeted, list) = Greeted::by_server(());
            bytes.chunks(piece).for_each(|piece| greeted.note(piece));
            assert_eq!(list.get(), expected, "{bytes:?} in pieces of {piece}");

            let (mut greeted, list) = Greeted::by_client(());
            let bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", bytes].concat();
            bytes.chunks(piece).for_each(|piece| greeted.note(piece));
            assert_eq!(list.get(), expected, "{bytes:?} in pieces of {piece}");
        }
    }

    #[test]
    fn the_first_settings_are_read_and_nothing_else_is() {
        let limit = |limit| frame(SETTINGS, &[(3, 256), (MAX_HEADER_LIST_SIZE, limit), (4, 1)]);
        check(&limit(16_384), Some(16_384));
        check(&limit(u32::MAX), Some(u32::MAX));
        check(&[limit(7), limit(8)].concat(), Some(7));
        check(&[frame(SETTINGS, &[]), limit(8)].concat(), None);
        check(&[frame(6, &[(MAX_HEADER_LIST_SIZE, 7)]), limit(8)].concat(), None);
        check(&[&[0xFF; 20][..], &limit(8)].concat(), None);
        // Half of it says nothing yet.
        check(&limit(16_384)[..20], None);
    }

    #[test]
    fn what_is_kept_of_a_peer_is_bounded() {
        let (mut greeted, _list) = Greeted::by_server(());
        greeted.note(&[0, 0x40, 0, SETTINGS]);
        for _ in 0..100 {
            greeted.note(&[0; 1_000]);
            assert!(greeted.reading.as_ref().is_none_or(|(read, _)| read.len() <= HEAD + LONGEST));
        }
        assert!(greeted.reading.is_none());
    }
}
