//! A worker as a node of its fleet: what it fetches of a model comes from its neighbours before the registry, and they
//! take it from here, at a listener of its own that is up before the model is.

use std::net::SocketAddr;

use anyhow::Context;
use helios_proxy::{Access, Bodies, Mount, Permission, ProxyConfig, guarded, refusal};
use helios_registry::{ModelStore, RegistryClient, Secret, http};
use helios_runtime::Tasks;
use reqwest::Url;

use super::check_internal;
use crate::config::Config;

/// Where a worker shares what it has.
pub(crate) struct Neighbours<'a> {
    pub(crate) registry: &'a RegistryClient,
    pub(crate) listen: SocketAddr,
    /// Address at which the worker itself is reached.
    pub(crate) advertised: &'a str,
    pub(crate) token: Option<Secret>,
    /// The guard's rules for the listener.
    pub(crate) rules: ProxyConfig,
}

impl Neighbours<'_> {
    /// The registry's models as the worker reads them. `tasks` get the listener and the announcements.
    pub(crate) async fn store(self, config: &Config, tasks: &Tasks) -> anyhow::Result<ModelStore> {
        check_internal(self.listen, self.token.as_ref().map(Secret::expose))?;
        let listener = helios_runtime::bind(self.listen).await?;
        let address = beside(self.advertised, listener.local_addr()?.port())?;
        let (client, cache) = (self.registry.clone(), config.store_dir()?.join("cache"));
        let budget = config.store.cache_bytes()?;
        let opened = tokio::task::spawn_blocking(move || {
            ModelStore::node(client, &cache, budget, address, self.token)
        });
        let (store, node) = opened.await??;
        let pieces = Mount {
            name: "pieces",
            access,
            refusal,
            router: http::node_router(std::sync::Arc::clone(&node)),
        };
        let routes = guarded(vec![pieces], &self.rules);
        let shutdown = tasks.shutdown().clone();
        tasks.spawn("pieces", async move {
            let served = async { axum::serve(listener, routes).await };
            if let Some(Err(error)) = shutdown.race(served).await {
                tracing::error!(%error, "pieces of models are not given to others any more");
            }
        });
        let shutdown = tasks.shutdown().clone();
        tasks.spawn("announce", async move { node.announce(&shutdown).await });
        Ok(store)
    }
}

/// The routes of a node are the registry's own.
fn access(_method: &axum::http::Method, path: &str) -> Option<Access> {
    let is_piece = path.strip_prefix(http::ROUTE_PREFIX).is_some_and(|rest| rest.starts_with("/pieces/"));
    is_piece.then_some(Access { permission: Permission::Registry, bodies: Bodies::Json })
}

/// The same host as `advertised`, at another port.
fn beside(advertised: &str, port: u16) -> anyhow::Result<String> {
    let url = Url::parse(advertised).ok().and_then(|url| url.host_str().map(str::to_owned));
    let host =
        url.with_context(|| format!("--advertise `{advertised}` is no address: expected http://HOST:PORT"))?;
    Ok(format!("http://{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::beside;

    #[test]
    fn pieces_are_at_the_workers_own_host() {
        let at = |advertised: &str| beside(advertised, 9).ok();
        assert_eq!(at("http://10.0.0.7:8101").as_deref(), Some("http://10.0.0.7:9"));
        assert_eq!(at("https://gpu-1.example:443/x").as_deref(), Some("http://gpu-1.example:9"));
        assert_eq!(at("http://[::1]:8101").as_deref(), Some("http://[::1]:9"));
        assert_eq!(at("gpu-1"), None);
    }
}
