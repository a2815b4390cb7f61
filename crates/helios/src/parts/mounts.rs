//! The registry's protocols as routes behind the proxy's guard: what each of their calls asks of its caller.

use std::sync::Arc;

use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use helios_distribution::{Route, hub, oci};
use helios_proxy::{Access, Bodies, Mount, Permission, refusal};
use helios_registry::{Registry, http};
use helios_runtime::telemetry::Metrics;

/// Every protocol of a registry.
pub(crate) fn mounts(registry: &Arc<Registry>, limits: hub::Limits) -> Vec<Mount> {
    let own =
        Mount { name: http::ROUTE_PREFIX, access: own, refusal, router: http::router(registry.clone()) };
    let hub = Mount {
        name: "hub",
        access: |method, path| hub::route(method, path).map(access),
        refusal: hub::refusal,
        router: hub::router(registry.clone(), limits),
    };
    let oci = Mount {
        name: "oci",
        access: |method, path| oci::route(method, path).map(access),
        refusal: oci::refusal,
        router: oci::router(registry.clone()),
    };
    vec![own, hub, oci]
}

/// What this process counts, as the proxy shows it, for a listener that is no proxy's.
pub(crate) fn metrics_mount(metrics: Metrics) -> Mount {
    const ACCESS: Access = Access { permission: Permission::Admin, bodies: Bodies::Json };
    const PATH: &str = "/metrics";
    let show = move || {
        let text = metrics.render();
        async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text) }
    };
    Mount {
        name: PATH,
        access: |method, path| {
            let reads = matches!(*method, Method::GET | Method::HEAD);
            (reads && path == PATH).then_some(ACCESS)
        },
        refusal,
        router: axum::Router::new().route(PATH, get(show)),
    }
}

/// Reading models takes the permission that asking them takes.
fn access(route: Route) -> Access {
    let permission = if route.writes { Permission::WriteModels } else { Permission::Inference };
    let bodies = match route.bodies {
        helios_distribution::Bodies::Protocol => Bodies::Protocol,
        helios_distribution::Bodies::Any => Bodies::Any,
    };
    Access { permission, bodies }
}

/// The registry's own protocol, for the parts and the verbs of Helios.
fn own(method: &Method, path: &str) -> Option<Access> {
    let rest = path.strip_prefix(http::ROUTE_PREFIX)?;
    let is_below = rest.is_empty() || rest.starts_with('/');
    let bodies = if http::takes_archive(method, path) { Bodies::Protocol } else { Bodies::Json };
    is_below.then_some(Access { permission: Permission::Registry, bodies })
}
