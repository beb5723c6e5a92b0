//! A row of the table.

use std::future::Future;
use std::sync::Arc;

use aegis::Limits;
use bytes::Bytes;
use tonic::codegen::BoxStream;
use tonic::{Request, Status, Streaming};

use super::echo::{Boxed, Client, EchoServer, Method, Reply, Settings};
use super::wire::{Answer, Around, Intercept, Wire};

/// What can be seen of a call, in lines.
pub(crate) type Outcome = Vec<String>;

pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) server: EchoServer,
    pub(crate) client: Settings,
    /// The first one added, and the second.
    pub(crate) server_layers: [Around; 2],
    pub(crate) server_intercept: Intercept,
    pub(crate) client_layer: Around,
    pub(crate) client_intercept: Intercept,
    /// Set on our node; plain tonic has none to set.
    pub(crate) limits: Limits,
    pub(crate) call: Box<dyn FnOnce(Client) -> Boxed<Outcome> + Send>,
    pub(crate) expected: Expected,
}

#[derive(Clone)]
pub(crate) enum Expected {
    /// Whatever plain tonic does.
    Same,
    /// This, from both.
    Both(Vec<&'static str>),
    /// Each its own, and why.
    Differs { why: &'static str, plain: Vec<&'static str>, ours: Vec<&'static str> },
}

impl Row {
    fn new<F>(
        name: &'static str,
        method: Method,
        call: impl FnOnce(Client) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        Self {
            name,
            server: EchoServer { method, settings: Settings::default() },
            client: Settings::default(),
            server_layers: [Around::default(), Around::default()],
            server_intercept: Intercept::default(),
            client_layer: Around::default(),
            client_intercept: Intercept::default(),
            limits: Limits::default(),
            call: Box::new(move |client| Box::pin(call(client))),
            expected: Expected::Same,
        }
    }

    pub(crate) fn unary<H, F>(
        name: &'static str,
        handle: impl Fn(Request<Bytes>) -> H + Send + Sync + 'static,
        call: impl FnOnce(Client) -> F + Send + 'static,
    ) -> Self
    where
        H: Future<Output = Reply<Bytes>> + Send + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        Self::new(name, Method::Unary(Arc::new(move |request| Box::pin(handle(request)))), call)
    }

    pub(crate) fn down<H, F>(
        name: &'static str,
        handle: impl Fn(Request<Bytes>) -> H + Send + Sync + 'static,
        call: impl FnOnce(Client) -> F + Send + 'static,
    ) -> Self
    where
        H: Future<Output = Reply<BoxStream<Bytes>>> + Send + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        Self::new(name, Method::Down(Arc::new(move |request| Box::pin(handle(request)))), call)
    }

    pub(crate) fn up<H, F>(
        name: &'static str,
        handle: impl Fn(Request<Streaming<Bytes>>) -> H + Send + Sync + 'static,
        call: impl FnOnce(Client) -> F + Send + 'static,
    ) -> Self
    where
        H: Future<Output = Reply<Bytes>> + Send + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        Self::new(name, Method::Up(Arc::new(move |request| Box::pin(handle(request)))), call)
    }

    pub(crate) fn both<H, F>(
        name: &'static str,
        handle: impl Fn(Request<Streaming<Bytes>>) -> H + Send + Sync + 'static,
        call: impl FnOnce(Client) -> F + Send + 'static,
    ) -> Self
    where
        H: Future<Output = Reply<BoxStream<Bytes>>> + Send + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        Self::new(name, Method::Both(Arc::new(move |request| Box::pin(handle(request)))), call)
    }

    pub(crate) fn server(mut self, settings: Settings) -> Self {
        self.server.settings = settings;
        self
    }

    pub(crate) fn client(mut self, settings: Settings) -> Self {
        self.client = settings;
        self
    }

    pub(crate) fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    pub(crate) fn server_layer<F>(
        mut self,
        around: impl Fn(http::Request<tonic::body::Body>, Wire) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        self.server_layers[0] = Around::new(around);
        self
    }

    pub(crate) fn second_server_layer<F>(
        mut self,
        around: impl Fn(http::Request<tonic::body::Body>, Wire) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        self.server_layers[1] = Around::new(around);
        self
    }

    pub(crate) fn client_layer<F>(
        mut self,
        around: impl Fn(http::Request<tonic::body::Body>, Wire) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        self.client_layer = Around::new(around);
        self
    }

    pub(crate) fn server_intercept(
        mut self,
        intercept: impl Fn(Request<()>) -> Result<Request<()>, Status> + Send + Sync + 'static,
    ) -> Self {
        self.server_intercept = Intercept::new(intercept);
        self
    }

    pub(crate) fn client_intercept(
        mut self,
        intercept: impl Fn(Request<()>) -> Result<Request<()>, Status> + Send + Sync + 'static,
    ) -> Self {
        self.client_intercept = Intercept::new(intercept);
        self
    }

    pub(crate) fn shows<const N: usize>(mut self, lines: [&'static str; N]) -> Self {
        self.expected = Expected::Both(lines.into());
        self
    }

    pub(crate) fn differs<const P: usize, const O: usize>(
        mut self,
        why: &'static str,
        plain: [&'static str; P],
        ours: [&'static str; O],
    ) -> Self {
        self.expected = Expected::Differs { why, plain: plain.into(), ours: ours.into() };
        self
    }
}
