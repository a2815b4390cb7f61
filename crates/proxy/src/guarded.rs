//! The guard before routes that another process of Helios serves by itself: the registry's own listener.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Body as _;

use crate::guard::Guard;
use crate::routes::{self, Found, cors};
use crate::{Mount, ProxyConfig, reply};

/// The routes of `mounts`, behind the same guard as the proxy's own. The keys of `config` are asked for on every call:
/// for an internal listener, that is the cluster token.
pub fn guarded(mounts: Vec<Mount>, config: &ProxyConfig) -> Router {
    let (guard, mounts) = (Arc::new(Guard::new(config)), Arc::new(mounts));
    Router::new().fallback(move |request: Request| run(guard.clone(), mounts.clone(), request))
}

async fn run(guard: Arc<Guard>, mounts: Arc<Vec<Mount>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let origin = guard.origin(&parts).ok().flatten().map(str::to_owned);
    let found = routes::find_mounted(&mounts, &parts.method, parts.uri.path());
    let refusal = found.refusal();
    let mut response = match guard.check(found.access(), &parts, !body.is_end_stream()) {
        Ok(Some(response)) => response,
        Ok(None) => match found {
            Found::Mount(mount, _) => routes::mounted(mount, Request::from_parts(parts, body)).await,
            _ => reply::error(&routes::no_route(&parts)),
        },
        Err(error) => refusal(&error),
    };
    if let Some(origin) = origin {
        cors::allow(&origin, response.headers_mut());
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use http::Request;
    use tower::ServiceExt;

    use super::guarded;
    use crate::{Access, ApiKey, Bodies, Mount, Permission, ProxyConfig, reply};

    #[tokio::test]
    async fn the_guard_stands_before_routes_and_before_what_is_no_route() {
        let config = ProxyConfig { api_key: Some(ApiKey::new("token")), ..ProxyConfig::default() };
        const ACCESS: Access = Access { permission: Permission::Registry, bodies: Bodies::Json };
        let mount = Mount {
            name: "registry",
            access: |_, path| (path == "/a").then_some(ACCESS),
            refusal: reply::error,
            router: Router::new().route("/a", get(async || "a")).route("/unlisted", get(async || "b")),
        };
        let router = guarded(vec![mount], &config);
        for (path, key, status) in [
            ("/a", "", 401),
            ("/b", "", 401),
            ("/a", "token", 200),
            ("/b", "token", 404),
            ("/unlisted", "token", 404),
        ] {
            let request = Request::builder().uri(path).header("authorization", format!("Bearer {key}"));
            let request = request.body(Body::empty()).expect("a request");
            let response = router.clone().oneshot(request).await.expect("a response");
            assert_eq!(response.status(), status, "{path} with `{key}`");
        }
    }
}
