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

    /// So many bytes were taken from the stream; how many are to be given back to its window now, if any are.
    #[must_use]
    pub fn add(&mut self, bytes: usize) -> Option<usize> {
        self.bytes += bytes;
        (self.at_once <= self.bytes).then(|| std::mem::take(&mut self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is given back after each of these pieces.
    #[track_caller]
    fn check(window: u32, pieces: &[usize], expected: &[Option<usize>]) {
        let mut owed = Owed::of(window);
        let given: Vec<_> = pieces.iter().map(|bytes| owed.add(*bytes)).collect();
        assert_eq!(given, expected);
    }

    #[test]
    fn it_is_given_back_eight_kilobytes_at_a_time() {
        check(1 << 20, &[AT_ONCE - 1, 1, 1], &[None, Some(AT_ONCE), None]);
        check(1 << 20, &[3 * AT_ONCE], &[Some(3 * AT_ONCE)]);
    }

    #[test]
    fn a_small_window_stays_open_by_three_quarters() {
        check(4_000, &[999, 1, 0], &[None, Some(1_000), None]);
    }
}
