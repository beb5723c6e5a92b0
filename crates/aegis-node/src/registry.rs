//! What a node serves and what it advertises, on the way from the builder to the table.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use aegis_core::{ServiceInfo, ServiceName};
use aegis_topology::ServiceEntry;
use http::{Request, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tower_service::Service;

use crate::dispatch::{Route, Routes};
use crate::error::BuildError;
use crate::handler::Handler;
use crate::usage::Served;

/// Names that aegis serves itself: exact, and as prefixes.
const RESERVED: [&str; 2] = ["aegis.MeshService", "grpc.health.v1.Health"];
const RESERVED_PREFIXES: [&str; 2] = ["aegis.mesh.v1.", "grpc.reflection."];

type Wrap = Box<dyn Fn(Handler) -> Handler + Send + Sync>;

/// Handlers, the names they are advertised by, and the layers around them, in the order of the builder's calls.
#[derive(Default)]
pub(crate) struct Registry {
    pub(crate) handlers: Vec<Handler>,
    pub(crate) services: Vec<(ServiceInfo, Vec<String>)>,
    layers: Vec<Wrap>,
}

impl Registry {
    pub(crate) fn wrap(&mut self, wrap: impl Fn(Handler) -> Handler + Send + Sync + 'static) {
        self.layers.push(Box::new(wrap));
    }

    pub(crate) fn has_services(&self) -> bool {
        !self.handlers.is_empty() || !self.services.is_empty()
    }

    /// The names that the node's certificate has to grant.
    pub(crate) fn names(&self) -> BTreeSet<ServiceName> {
        self.services.iter().map(|(info, _)| info.name().clone()).collect()
    }

    /// The table of handlers, and what the directory says of them.
    pub(crate) fn table(&self, mistakes: &mut Vec<BuildError>) -> (Routes, Vec<ServiceEntry>) {
        let mut routes = Routes::default();
        for handler in &self.handlers {
            let name = handler.name();
            if RESERVED.contains(&name)
                || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            {
                mistakes.push(BuildError::Reserved { grpc_service: name.to_owned() });
                continue;
            }
            // The first layer is the outermost, as it is with tonic's own server and tower's `ServiceBuilder`.
            let handler =
                self.layers.iter().rev().fold(handler.clone(), |handler, wrap| wrap(handler));
            if !routes.add(Route::new(handler, Some(Vec::new()))) {
                mistakes.push(BuildError::Duplicate { grpc_service: name.to_owned() });
            }
        }
        let mut merged: BTreeMap<ServiceInfo, Vec<String>> = BTreeMap::new();
        for (info, names) in &self.services {
            let entry = merged.entry(info.clone()).or_default();
            for name in names {
                match routes.get_mut(name) {
                    Some(Route { served: Some(served), .. })
                        if !served.iter().any(|it| it.info() == info) =>
                    {
                        served.push(Served::new(info.clone()));
                    }
                    Some(_) => {}
                    None => mistakes.push(BuildError::Advertised {
                        service: info.clone(),
                        grpc_service: name.clone(),
                    }),
                }
                if !entry.contains(name) {
                    entry.push(name.clone());
                }
            }
        }
        let mut entries = Vec::new();
        for (info, names) in merged {
            if names.is_empty() {
                mistakes.push(BuildError::Empty { service: info });
                continue;
            }
            match ServiceEntry::new(info).served_by(names) {
                Ok(entry) => entries.push(entry),
                Err(source) => mistakes.push(BuildError::Description { source }),
            }
        }
        (routes, entries)
    }
}

/// Handlers that a node serves without advertising them, as [`NodeBuilder::routes`](crate::NodeBuilder::routes) collects
/// them.
#[derive(Debug)]
#[must_use]
pub struct Registrations(pub(crate) Vec<Handler>);

impl Registrations {
    /// Adds a generated server, with or without an interceptor.
    ///
    /// Two of one gRPC name are a mistake that [`build`](crate::NodeBuilder::build) reports.
    #[expect(
        clippy::should_implement_trait,
        reason = "the word of tonic's builders; nothing is summed up"
    )]
    pub fn add<S, B>(mut self, handler: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.0.push(Handler::new(handler));
        self
    }
}
