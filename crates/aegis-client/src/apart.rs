use std::ops::Deref;

/// Keeps what many threads change at each call away from what they read: on cache lines of its own.
///
/// Two lines, since processors fetch them in pairs. Beside its neighbours, a counter that two threads change takes a look at the
/// view twice as long.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Apart<T>(pub(crate) T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
