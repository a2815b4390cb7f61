//! The table of routes. A path that is not in it does not exist, and every entry names its permission.

pub(crate) mod admin;
pub(crate) mod cors;
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
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use tower::ServiceExt;

use crate::proxy::Inner;
use crate::reply;

/// What a caller needs to be allowed. Where an API key is set, it opens everything for now.
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
}

/// Another part's routes, all below one path, behind the proxy's guard.
#[derive(Clone)]
pub struct Mount {
    /// Path that all of them begin with, such as `/registry/v1`.
    pub prefix: &'static str,
    /// What they need.
    pub permission: Permission,
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
pub static ROUTES: [Route; 8] = [
    route("/v1/chat/completions", POST, Permission::Inference, Endpoint::Answer(Kind::Chat)),
    route("/v1/completions", POST, Permission::Inference, Endpoint::Answer(Kind::Completion)),
    route("/v1/models", GET, Permission::Inference, Endpoint::Models),
    route("/v1/models/*", GET, Permission::Inference, Endpoint::Model),
    route("/health", GET, Permission::Open, Endpoint::Health),
    route("/ready", GET, Permission::Open, Endpoint::Ready),
    route("/metrics", GET, Permission::Admin, Endpoint::Metrics),
    route("/admin/v1/workers", GET, Permission::Admin, Endpoint::Workers),
];

impl Route {
    /// What `*` stands for in `path`, or nothing but a match.
    fn matches<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self.path.strip_suffix('*') {
            Some(prefix) => path.strip_prefix(prefix).filter(|rest| !rest.is_empty()),
            None => (self.path == path).then_some(""),
        }
    }
}

/// What a request's path and method lead to.
pub(crate) enum Found {
    Route {
        route: &'static Route,
        /// What the `*` of its path stands for.
        rest: String,
    },
    Mount(Mount),
    WrongMethod(&'static Route),
    Nothing,
}

/// Looks `path` up in the table, then among the mounts.
pub(crate) fn find(mounts: &[Mount], method: &str, path: &str) -> Found {
    let mut matches = ROUTES.iter().filter_map(|route| Some((route, route.matches(path)?)));
    if let Some((route, rest)) = matches.next() {
        return match route.methods.contains(&method) {
            true => Found::Route { route, rest: rest.to_owned() },
            false => Found::WrongMethod(route),
        };
    }
    let below = |mount: &&Mount| {
        path.strip_prefix(mount.prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    mounts.iter().find(below).cloned().map_or(Found::Nothing, Found::Mount)
}

impl Found {
    /// What the caller needs; `None` where there is no route at all.
    pub(crate) fn permission(&self) -> Option<Permission> {
        match self {
            Self::Route { route, .. } | Self::WrongMethod(route) => Some(route.permission),
            Self::Mount(mount) => Some(mount.permission),
            Self::Nothing => None,
        }
    }

    /// For metrics: as many values as there are routes.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Route { route, .. } | Self::WrongMethod(route) => route.path,
            Self::Mount(mount) => mount.prefix,
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
        Found::Mount(mount) => return Ok(mounted(mount, parts, body).await),
        Found::WrongMethod(route) => return Ok(wrong_method(route, &parts)),
        Found::Nothing => {
            let path: String = parts.uri.path().chars().take(200).collect();
            return Err(ApiError::new(ErrorCode::NotFound, format!("there is no route `{path}`")));
        }
    };
    match route.endpoint {
        Endpoint::Answer(kind) => inference::answer(proxy, kind, id, &parts, body).await,
        Endpoint::Models => Ok(models::list(proxy)),
        Endpoint::Model => models::one(proxy, &rest).await,
        Endpoint::Health => Ok(health::alive()),
        Endpoint::Ready => health::ready(proxy),
        Endpoint::Metrics => Ok(admin::metrics(proxy)),
        Endpoint::Workers => Ok(admin::workers(proxy)),
    }
}

async fn mounted(mount: Mount, parts: Parts, body: Incoming) -> Response<Body> {
    match mount.router.oneshot(Request::from_parts(parts, Body::new(body))).await {
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
    use super::{Found, Permission, ROUTES, find};

    #[test]
    fn only_health_and_readiness_are_open() {
        let open = ROUTES.iter().filter(|route| route.permission == Permission::Open);
        assert_eq!(open.map(|route| route.path).collect::<Vec<_>>(), ["/health", "/ready"]);
    }

    #[test]
    fn paths_lead_to_one_route_or_to_none() {
        let label = |method, path| match find(&[], method, path) {
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
}
