//! The registry's protocols as routes behind the proxy's guard: what each of their calls asks of its caller.

use std::sync::Arc;

use axum::http::Method;
use helios_proxy::{Access, Bodies, Mount, Permission, refusal};
use helios_registry::{Registry, http};

/// Every protocol of a registry.
pub(crate) fn mounts(registry: &Arc<Registry>) -> Vec<Mount> {
    vec![Mount { name: http::ROUTE_PREFIX, access: own, refusal, router: http::router(registry.clone()) }]
}

/// The registry's own protocol, for the parts and the verbs of Helios.
fn own(_method: &Method, path: &str) -> Option<Access> {
    let rest = path.strip_prefix(http::ROUTE_PREFIX)?;
    let is_below = rest.is_empty() || rest.starts_with('/');
    is_below.then_some(Access { permission: Permission::Registry, bodies: Bodies::Json })
}
