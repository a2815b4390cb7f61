//! The table of routes. A path that is not in it does not exist, and every entry names its permission.

pub(crate) mod admin;
pub(crate) mod cors;
mod fit;
mod health;
mod inference;
mod models;

use std::sync::Arc;

use axum::body::Body;
use helios_api::ApiError;
use helios_api::openai::Kind;
use helios_types::ErrorCode;
use http::header::ALLOW;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use tower::ServiceExt;

use crate::proxy::Inner;
use crate::reply;

/// What a caller needs to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Nothing: health and readiness.
    Open,
    /// To ask models.
    Inference,
    /// To see and change how the system runs.
    Admin,
    /// To read and change the model store.
    Registry,
    /// To add versions of models by the protocols of other tools.
    WriteModels,
}

/// Which bodies a route takes: the second defence against web pages, after their `Origin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bodies {
    /// `application/json`.
    Json,
    /// Whatever the route's protocol has, except what a page can send without asking first.
    Protocol,
    /// Forms too: for routes that change nothing.
    Any,
}

/// What a route asks of its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// What the caller needs to be allowed.
    pub permission: Permission,
    /// What it may send.
    pub bodies: Bodies,
}

/// Another part's routes, behind the proxy's guard.
#[derive(Clone)]
pub struct Mount {
    /// What metrics call them.
    pub name: &'static str,
    /// What the route of that method and path asks; `None` where there is none. What this does not know does not exist.
    pub access: fn(&Method, &str) -> Option<Access>,
    /// How their protocol says no.
    pub refusal: fn(&ApiError) -> Response<Body>,
    /// The routes, with their whole paths.
    pub router: axum::Router,
}

/// One entry of the table.
#[derive(Debug)]
pub struct Route {
    /// The path; `*` at its end stands for one or more characters of any kind.
    pub path: &'static str,
    /// The methods it takes.
    pub methods: &'static [&'static str],
    /// What its caller needs to be allowed.
    pub permission: Permission,
    endpoint: Endpoint,
}

#[derive(Clone, Copy, Debug)]
enum Endpoint {
    Answer(Kind),
    Models,
    Model,
    Health,
    Ready,
    Metrics,
    Workers,
    Profile,
    Fit,
}

const GET: &[&str] = &["GET", "HEAD"];
const POST: &[&str] = &["POST"];

const fn route(
    path: &'static str,
    methods: &'static [&'static str],
    permission: Permission,
    endpoint: Endpoint,
) -> Route {
    Route { path, methods, permission, endpoint }
}

/// Every route of the proxy's own.
pub static ROUTES: [Route; 10] = [
    route("/v1/chat/completions", POST, Permission::Inference, Endpoint::Answer(Kind::Chat)),
    route("/v1/completions", POST, Permission::Inference, Endpoint::Answer(Kind::Completion)),
    route("/v1/models", GET, Permission::Inference, Endpoint::Models),
    route("/v1/models/*", GET, Permission::Inference, Endpoint::Model),
    route("/health", GET, Permission::Open, Endpoint::Health),
    route("/ready", GET, Permission::Open, Endpoint::Ready),
    route("/metrics", GET, Permission::Admin, Endpoint::Metrics),
    route("/admin/v1/workers", GET, Permission::Admin, Endpoint::Workers),
    route("/admin/v1/profile", GET, Permission::Admin, Endpoint::Profile),
    route("/admin/v1/fit", GET, Permission::Admin, Endpoint::Fit),
];

impl Route {
    /// What `*` stands for in `path`, or nothing but a match.
    fn matches<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self.path.strip_suffix('*') {
            Some(prefix) => path.strip_prefix(prefix).filter(|rest| !rest.is_empty()),
            None => (self.path == path).then_some(""),
        }
    }

    fn access(&self) -> Access {
        let bodies = if self.permission == Permission::Open { Bodies::Protocol } else { Bodies::Json };
        Access { permission: self.permission, bodies }
    }
}

/// What a request's path and method lead to.
pub(crate) enum Found {
    Route {
        route: &'static Route,
        /// What the `*` of its path stands for.
        rest: String,
    },
    Mount(Mount, Access),
    WrongMethod(&'static Route),
    Nothing,
}

/// Looks `path` up in the table, then among the mounts.
pub(crate) fn find(mounts: &[Mount], method: &Method, path: &str) -> Found {
    let mut matches = ROUTES.iter().filter_map(|route| Some((route, route.matches(path)?)));
    if let Some((route, rest)) = matches.next() {
        return match route.methods.contains(&method.as_str()) {
            true => Found::Route { route, rest: rest.to_owned() },
            false => Found::WrongMethod(route),
        };
    }
    find_mounted(mounts, method, path)
}

/// Looks `path` up among the mounts.
pub(crate) fn find_mounted(mounts: &[Mount], method: &Method, path: &str) -> Found {
    let mut mounted = mounts.iter().filter_map(|mount| Some((mount, (mount.access)(method, path)?)));
    mounted.next().map_or(Found::Nothing, |(mount, access)| Found::Mount(mount.clone(), access))
}

impl Found {
    /// What the route asks; `None` where there is no route at all.
    pub(crate) fn access(&self) -> Option<Access> {
        match self {
            Self::Route { route, .. } | Self::WrongMethod(route) => Some(route.access()),
            Self::Mount(_, access) => Some(*access),
            Self::Nothing => None,
        }
    }

    /// How the guard's refusal is said.
    pub(crate) fn refusal(&self) -> fn(&ApiError) -> Response<Body> {
        match self {
            Self::Mount(mount, _) => mount.refusal,
            _ => reply::error,
        }
    }

    /// For metrics: as many values as there are routes.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Route { route, .. } | Self::WrongMethod(route) => route.path,
            Self::Mount(mount, _) => mount.name,
            Self::Nothing => "none",
        }
    }
}

/// Answers a request that has passed the guard.
pub(crate) async fn answer(
    proxy: &Arc<Inner>,
    found: Found,
    id: &str,
    parts: Parts,
    body: Incoming,
) -> Result<Response<Body>, ApiError> {
    let (route, rest) = match found {
        Found::Route { route, rest } => (route, rest),
        Found::Mount(mount, _) => {
            return Ok(mounted(mount, Request::from_parts(parts, Body::new(body))).await);
        }
        Found::WrongMethod(route) => return Ok(wrong_method(route, &parts)),
        Found::Nothing => return Err(no_route(&parts)),
    };
    match route.endpoint {
        Endpoint::Answer(kind) => inference::answer(proxy, kind, id, &parts, body).await,
        Endpoint::Models => Ok(models::list(proxy)),
        Endpoint::Model => models::one(proxy, &rest).await,
        Endpoint::Health => Ok(health::alive()),
        Endpoint::Ready => health::ready(proxy),
        Endpoint::Metrics => Ok(admin::metrics(proxy)),
        Endpoint::Workers => Ok(admin::workers(proxy)),
        Endpoint::Profile => fit::profile(proxy, &parts.uri).await,
        Endpoint::Fit => fit::answer(proxy, &parts.uri).await,
    }
}

/// The error for a path that leads nowhere.
pub(crate) fn no_route(parts: &Parts) -> ApiError {
    let path: String = parts.uri.path().chars().take(200).collect();
    ApiError::new(ErrorCode::NotFound, format!("there is no route `{path}`"))
}

pub(crate) async fn mounted(mount: Mount, request: Request<Body>) -> Response<Body> {
    match mount.router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn wrong_method(route: &Route, parts: &Parts) -> Response<Body> {
    let allowed = route.methods.join(", ");
    let message = format!("`{}` does not take {}, only {allowed}", route.path, parts.method);
    let mut response = reply::error(&ApiError::new(ErrorCode::MethodNotAllowed, message));
    let allow = HeaderValue::from_str(&allowed).expect("invariant: method names are ASCII");
    response.headers_mut().insert(ALLOW, allow);
    response
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::{Access, Bodies, Found, Mount, Permission, ROUTES, find};
    use crate::reply;

    #[test]
    fn only_health_and_readiness_are_open() {
        let open = ROUTES.iter().filter(|route| route.permission == Permission::Open);
        assert_eq!(open.map(|route| route.path).collect::<Vec<_>>(), ["/health", "/ready"]);
    }

    #[test]
    fn paths_lead_to_one_route_or_to_none() {
        let label = |method: &str, path| match find(&[], &method.parse().expect("a method"), path) {
            Found::WrongMethod(_) => "wrong method",
            found => found.label(),
        };
        assert_eq!(label("GET", "/v1/models"), "/v1/models");
        assert_eq!(label("HEAD", "/v1/models/org/name:tag"), "/v1/models/*");
        assert_eq!(label("GET", "/v1/chat/completions"), "wrong method");
        for path in ["/", "/v1/models/", "/v1/model", "/health/", "/HEALTH", "/v1/chat/completions/x"] {
            assert_eq!(label("GET", path), "none", "{path}");
        }
    }

    #[test]
    fn a_mount_has_the_routes_that_it_names_and_no_others() {
        let access = |method: &Method, path: &str| {
            let permission = match (method.as_str(), path) {
                ("GET", "/v2/") => Permission::Inference,
                ("PUT", "/v2/") => Permission::WriteModels,
                _ => return None,
            };
            Some(Access { permission, bodies: Bodies::Protocol })
        };
        let router = axum::Router::new();
        let mounts = [Mount { name: "oci", access, refusal: reply::error, router }];
        let permission =
            |method: Method, path| find(&mounts, &method, path).access().map(|access| access.permission);
        assert_eq!(permission(Method::GET, "/v2/"), Some(Permission::Inference));
        assert_eq!(permission(Method::PUT, "/v2/"), Some(Permission::WriteModels));
        assert_eq!(permission(Method::DELETE, "/v2/"), None);
        assert_eq!(permission(Method::GET, "/v2/x"), None);
        assert_eq!(permission(Method::GET, "/health"), Some(Permission::Open), "the proxy's own come first");
    }
}
