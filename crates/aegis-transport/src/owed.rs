use h2::RecvStream;

/// The most that is kept back.
const AT_ONCE: usize = 8 << 10;

/// What was taken from a stream and is not given back to its window yet.
///
/// It is given back 8 KiB at a time. h2 takes its lock each time, and gives what is left when the stream has ended, so for a
/// small message it never pays. And it tells a sender that waits for window of each byte at once: were small messages given
/// back one by one, the sender would cut each one where an earlier one was cut, and once more each time it has used the
/// window up (the silly window syndrome, RFC 1122 §4.2.3.3).
#[derive(Debug)]
pub struct Owed {
    bytes: usize,
    at_once: usize,
}

impl Owed {
    /// For a stream with a window of so many bytes, most of which stays open however small it is.
    pub fn of(window: u32) -> Self {
        let quarter = usize::try_from(window / 4).unwrap_or(AT_ONCE);
        Self { bytes: 0, at_once: quarter.min(AT_ONCE) }
    }

    /// So many bytes were taken from the stream.
    pub fn add(&mut self, bytes: usize, stream: &mut RecvStream) {
        self.bytes += bytes;
        if self.at_once <= self.bytes {
            // Fails only for more than was received, or where the stream is gone, as its next poll says.
            drop(stream.flow_control().release_capacity(std::mem::take(&mut self.bytes)));
        }
    }
}
