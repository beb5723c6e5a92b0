//! From the path of a request to its handler: a table by gRPC service name.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use aegis_client::{NOT_SERVED, REFUSED_HEADER, SERVICE_HEADER};
use aegis_core::ServiceInfo;
use http::header::ALLOW;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use tonic::Status;
use tonic::body::Body;

use crate::handler::Handler;
use crate::in_place::Pace;
use crate::usage::{Served, ServiceUsage, sums};

/// One entry of the table.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) handler: Handler,
    /// The services that this gRPC service is advertised by; `None` for our own, which nobody names.
    pub(crate) served: Option<Vec<Served>>,
    /// How long its calls keep a thread.
    pub(crate) pace: Arc<Pace>,
}

impl Route {
    pub(crate) fn new(handler: Handler, served: Option<Vec<Served>>) -> Self {
        Self { handler, served, pace: Arc::new(Pace::new(Instant::now())) }
    }
}

/// Which handler serves which gRPC service.
#[derive(Debug, Clone, Default)]
pub(crate) struct Routes(HashMap<&'static str, Route>);

impl Routes {
    /// Adds a route; false where the name is taken.
    pub(crate) fn add(&mut self, route: Route) -> bool {
        let name = route.handler.name();
        let free = !self.0.contains_key(name);
        if free {
            self.0.insert(name, route);
        }
        free
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Route> {
        self.0.get_mut(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.keys().copied()
    }

    /// How often each advertised service was called.
    pub(crate) fn usage(&self) -> Vec<ServiceUsage> {
        sums(self.0.values().filter_map(|it| it.served.as_ref()).flatten().map(Served::usage))
    }

    /// The route of a request, or the answer that refuses it.
    ///
    /// Only the path decides, never the query; it is compared byte for byte.
    pub(crate) fn find<T>(&self, request: &Request<T>) -> Result<&Route, Refusal> {
        if request.method() != Method::POST {
            return Err(Refusal::Http(StatusCode::METHOD_NOT_ALLOWED));
        }
        if !is_grpc(request.headers()) {
            return Err(Refusal::Http(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let path = request.uri().path();
        let service = path
            .strip_prefix('/')
            .and_then(|path| path.split_once('/'))
            .map(|(service, _)| service);
        let Some(route) = service.and_then(|service| self.0.get(service)) else {
            return Err(Refusal::Unknown { path: path.chars().take(200).collect() });
        };
        let Some(served) = &route.served else { return Ok(route) };
        let Some(wanted) = request.headers().get(SERVICE_HEADER) else {
            served.iter().for_each(Served::count_unnamed);
            return Ok(route);
        };
        if served.iter().any(|it| it.is_named(wanted.as_bytes())) {
            return Ok(route);
        }
        Err(Refusal::NotServed { wanted: wanted.to_str().ok().and_then(|it| it.parse().ok()) })
    }
}

/// `application/grpc`, alone or with a suffix (`+proto`) or parameters.
fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(http::header::CONTENT_TYPE) else { return false };
    let Some(rest) = value.as_bytes().strip_prefix(b"application/grpc") else { return false };
    matches!(rest.first(), None | Some(b'+' | b';'))
}

/// Why no handler gets to see a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Http(StatusCode),
    NotServed { wanted: Option<ServiceInfo> },
    Unknown { path: String },
}

impl Refusal {
    pub(crate) fn into_response(self) -> Response<Body> {
        match self {
            Self::Http(status) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = status;
                if status == StatusCode::METHOD_NOT_ALLOWED {
                    // RFC 9110 §15.5.6 wants it said.
                    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
                }
                response
            }
            Self::NotServed { wanted } => {
                let message = match wanted {
                    Some(wanted) => format!("this node does not serve {wanted}"),
                    None => format!("the header {SERVICE_HEADER} is not written name/version"),
                };
                let mut response = Status::unimplemented(message).into_http();
                response.headers_mut().insert(REFUSED_HEADER, NOT_SERVED);
                response
            }
            Self::Unknown { path } => {
                Status::unimplemented(format!("this node serves nothing at {path:?}")).into_http()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::task::{Context, Poll};

    use tonic::server::NamedService;
    use tower_service::Service;

    use super::*;

    #[derive(Clone)]
    struct Echo;

    impl NamedService for Echo {
        const NAME: &'static str = "pkg.Echo";
    }

    impl Service<Request<Body>> for Echo {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            std::future::ready(Ok(Response::new(Body::empty())))
        }
    }

    #[track_caller]
    fn check(path: &str, service: Option<&str>, expected: &Result<(), Refusal>) {
        let mut routes = Routes::default();
        let served = Served::new(ServiceInfo::from_static("echo", "v1"));
        assert!(routes.add(Route::new(Handler::new(Echo), Some(vec![served]))));
        let mut request =
            Request::post(path).header("content-type", "application/grpc").body(()).unwrap();
        if let Some(service) = service {
            request.headers_mut().insert(SERVICE_HEADER, service.parse().unwrap());
        }
        assert_eq!(&routes.find(&request).map(|_| ()), expected);
    }

    fn unknown(path: &str) -> Result<(), Refusal> {
        Err(Refusal::Unknown { path: path.to_owned() })
    }

    #[test]
    fn the_path_is_compared_byte_for_byte() {
        check("/pkg.Echo/Say", None, &Ok(()));
        check("/pkg.Echo/Say?x=1", None, &Ok(()));
        check("//pkg.Echo/Say", None, &unknown("//pkg.Echo/Say"));
        check("/pkg.echo/Say", None, &unknown("/pkg.echo/Say"));
        check("/pkg.%45cho/Say", None, &unknown("/pkg.%45cho/Say"));
        check("/pkg.Echo", None, &unknown("/pkg.Echo"));
        check("/", None, &unknown("/"));
    }

    #[test]
    fn a_caller_of_ours_names_the_service_it_means() {
        check("/pkg.Echo/Say", Some("echo/v1"), &Ok(()));
        check(
            "/pkg.Echo/Say",
            Some("echo/v2"),
            &Err(Refusal::NotServed { wanted: Some(ServiceInfo::from_static("echo", "v2")) }),
        );
        check("/pkg.Echo/Say", Some("echo"), &Err(Refusal::NotServed { wanted: None }));
    }

    #[test]
    fn calls_are_counted_for_each_service_they_may_mean() {
        let (v1, v2) =
            (ServiceInfo::from_static("echo", "v1"), ServiceInfo::from_static("echo", "v2"));
        let served = [&v1, &v2].map(|info| Served::new(info.clone()));
        let mut routes = Routes::default();
        routes.add(Route::new(Handler::new(Echo), Some(served.to_vec())));
        for named in [None, Some("echo/v2"), Some("echo/v2"), Some("echo/v3")] {
            let mut request =
                Request::post("/pkg.Echo/Say").header("content-type", "application/grpc");
            if let Some(named) = named {
                request = request.header(SERVICE_HEADER, named);
            }
            assert_eq!(routes.find(&request.body(()).unwrap()).is_ok(), named != Some("echo/v3"));
        }
        let usage = |service, calls| ServiceUsage { service, calls, unnamed: 1 };
        assert_eq!(routes.usage(), [usage(v1, 0), usage(v2, 2)]);
    }

    #[test]
    fn only_grpc_requests_reach_a_handler() {
        for (content_type, accepted) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;x=y", true),
            ("application/grpcx", false),
            ("text/html", false),
        ] {
            let headers = HeaderMap::from_iter([(
                http::header::CONTENT_TYPE,
                HeaderValue::from_static(content_type),
            )]);
            assert_eq!(is_grpc(&headers), accepted, "{content_type}");
        }
    }
}
