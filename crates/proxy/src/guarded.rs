//! The guard before a router that another process of Helios serves by itself: the registry's own listener.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use hyper::body::Body as _;

use crate::guard::Guard;
use crate::routes::cors;
use crate::{Permission, ProxyConfig, reply};

/// `router`, behind the same guard as the proxy's routes. The key of `config` is asked for on every call: for an
/// internal listener, that is the cluster token.
pub fn guarded(router: Router, config: &ProxyConfig, permission: Permission) -> Router {
    let guard = Arc::new(Guard::new(config));
    router.layer(from_fn(move |request: Request, next: Next| run(guard.clone(), permission, request, next)))
}

async fn run(guard: Arc<Guard>, permission: Permission, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let origin = guard.origin(&parts).ok().flatten().map(str::to_owned);
    let mut response = match guard.check(Some(permission), &parts, !body.is_end_stream()) {
        Ok(Some(response)) => response,
        Ok(None) => next.run(Request::from_parts(parts, body)).await,
        Err(error) => reply::error(&error),
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
    use crate::{ApiKey, Permission, ProxyConfig};

    #[tokio::test]
    async fn the_guard_stands_before_routes_and_before_what_is_no_route() {
        let config = ProxyConfig { api_key: Some(ApiKey::new("token")), ..ProxyConfig::default() };
        let router = guarded(Router::new().route("/a", get(async || "a")), &config, Permission::Registry);
        for (path, key, status) in
            [("/a", "", 401), ("/b", "", 401), ("/a", "token", 200), ("/b", "token", 404)]
        {
            let request = Request::builder().uri(path).header("authorization", format!("Bearer {key}"));
            let request = request.body(Body::empty()).expect("a request");
            let response = router.clone().oneshot(request).await.expect("a response");
            assert_eq!(response.status(), status, "{path} with `{key}`");
        }
    }
}
