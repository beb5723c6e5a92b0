use std::ops::Deref;

/// Keeps what many threads change at each call away from what they read: on cache lines of its own.
///
/// Two lines, since processors fetch them in pairs. A look at the view would otherwise wait until the counter beside it has come back
/// from the core that changed it last, which takes as long as three changes of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Apart<T>(pub(crate) T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
