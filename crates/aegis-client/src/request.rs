use http::Extensions;

/// What a single call may ask for, set on its request.
///
/// ```
/// use aegis_client::RequestExt as _;
///
/// let request = tonic::Request::new(()).wait_ready();
/// # let _ = request;
/// ```
pub trait RequestExt: Sized {
    /// Waits for a provider until the call's deadline, instead of failing when none can be reached.
    ///
    /// Without a deadline the pool's response limit ends the wait.
    #[must_use]
    fn wait_ready(self) -> Self;

    /// Leaves the deadline of the handler that makes this call aside: work that must outlive it.
    ///
    /// See [`deadline`](crate::deadline).
    #[must_use]
    fn without_inherited_deadline(self) -> Self;
}

// Request extensions become the extensions of the http request, which is how the marks reach the channel.
impl<T> RequestExt for tonic::Request<T> {
    fn wait_ready(mut self) -> Self {
        self.extensions_mut().insert(WaitReady);
        self
    }

    fn without_inherited_deadline(mut self) -> Self {
        self.extensions_mut().insert(WithoutInheritedDeadline);
        self
    }
}

#[derive(Clone, Copy, Debug)]
struct WaitReady;

#[derive(Clone, Copy, Debug)]
struct WithoutInheritedDeadline;

/// The marks found on a request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Marks {
    pub(crate) wait_ready: bool,
    pub(crate) without_inherited_deadline: bool,
}

impl Marks {
    pub(crate) fn of(extensions: &Extensions) -> Self {
        Self {
            wait_ready: extensions.get::<WaitReady>().is_some(),
            without_inherited_deadline: extensions.get::<WithoutInheritedDeadline>().is_some(),
        }
    }
}
