use std::sync::{Arc, OnceLock};
use std::task::Poll;

use tokio::io::AsyncRead;
use tokio_util::io::InspectReader;

use crate::heard::Inspected;

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

impl HeaderList {
    /// The plain byte stream of a connection to a server, and what it says.
    pub fn of_server<IO: AsyncRead>(io: IO) -> (Inspected<IO>, Self) {
        Self::after(0, io)
    }

    /// The same of a client's connection.
    pub fn of_client<IO: AsyncRead>(io: IO) -> (Inspected<IO>, Self) {
        Self::after(PREFACE, io)
    }

    fn after<IO: AsyncRead>(skip: usize, io: IO) -> (Inspected<IO>, Self) {
        let list = Self::default();
        let mut greeting = Greeting::new(skip, list.clone());
        (InspectReader::new(io, Box::new(move |bytes| greeting.note(bytes))), list)
    }
}

/// Reads the peer's first SETTINGS as they pass: h2 keeps this one to itself.
#[derive(Debug)]
struct Greeting {
    /// Bytes that come before them.
    skip: usize,
    /// `None` once they have been read.
    reading: Option<(Vec<u8>, HeaderList)>,
}

impl Greeting {
    fn new(skip: usize, list: HeaderList) -> Self {
        Self { skip, reading: Some((Vec::new(), list)) }
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
            for preface in [&b""[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
                let list = HeaderList::default();
                let mut greeting = Greeting::new(preface.len(), list.clone());
                let bytes = [preface, bytes].concat();
                bytes.chunks(piece).for_each(|piece| greeting.note(piece));
                assert_eq!(list.get(), expected, "{bytes:?} in pieces of {piece}");
            }
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
        let mut greeting = Greeting::new(0, HeaderList::default());
        greeting.note(&[0, 0x40, 0, SETTINGS]);
        for _ in 0..100 {
            greeting.note(&[0; 1_000]);
            assert!(greeting.reading.as_ref().is_none_or(|(read, _)| read.len() <= HEAD + LONGEST));
        }
        assert!(greeting.reading.is_none());
    }
}
