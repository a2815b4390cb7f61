//! The parts of Helios as processes of their own: registry, worker, proxy.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use helios_model::Role;
use helios_proxy::{ApiKey, NamedKey, Parts, Proxy, ProxyConfig, guarded};
use helios_registry::{FromSource, ModelStore, ModelUse, RegistryClient, RegistryError, Resolved, Secret};
use helios_runtime::telemetry::Metrics;
use helios_runtime::{Clock, Shutdown, Tasks};
use helios_types::{Classify, ErrorCode, ModelRef};
use helios_worker::{Host, Machine, ServeOptions, keep_lease};

use crate::cli::{PartArgs, ProxyArgs, RegistryArgs, WorkerArgs};
use crate::config::Config;
use crate::models;
use crate::parts::{
    Interrupt, Neighbours, RegistryFleet, StoreTexts, announce, check_internal, metrics_mount, mounts,
};
use crate::progress::PullProgress;

/// How often a worker that loads says so: thrice within the time that what was handed out is safe.
const KEEP_FILES_EVERY: Duration = Duration::from_secs(20);

fn secret(part: &PartArgs) -> Option<Secret> {
    part.cluster_token.clone().map(Secret::from)
}

/// `helios registry`.
pub(crate) async fn registry(config: &Config, args: &RegistryArgs) -> anyhow::Result<()> {
    if let Some(command) = &args.command {
        return super::database::database(config, command).await;
    }
    let part = args.part().context("`helios registry` needs --listen")?;
    check_internal(part.listen, part.cluster_token.as_deref())?;
    let interrupt = Interrupt::listen()?;
    let metrics = metrics_mount(Metrics::install()?);
    helios_registry::describe_metrics();
    let listener = helios_runtime::bind(part.listen).await?;
    let address = listener.local_addr()?;
    let registry = models::open_registry(config).await?;
    let mounts = mounts(&registry, config.store.hub_limits()?).into_iter().chain([metrics]).collect();
    let routes = guarded(mounts, &guard_rules(config, &part));
    let tasks = Tasks::new(interrupt.shutdown().child());
    registry.keep_scrubbed(&tasks, Arc::new(FromSource));
    registry.keep_prefetched(&tasks);
    announce(address);
    let shutdown = interrupt.shutdown().clone();
    let routes = routes.into_make_service_with_connect_info::<SocketAddr>();
    let served =
        axum::serve(listener, routes).with_graceful_shutdown(async move { shutdown.triggered().await });
    let ended = async {
        interrupt.shutdown().triggered().await;
        helios_runtime::Clock.sleep(config.worker.grace()).await;
    };
    let announced = async {
        registry.announce(interrupt.shutdown()).await;
        std::future::pending::<()>().await
    };
    let outcome = tokio::select! {
        served = served => served.context("the registry's listener failed"),
        () = ended => Ok(()),
        () = announced => Ok(()),
    };
    tasks.stop(config.worker.grace()).await;
    outcome
}

/// The guard's rules for a listener whose callers bring the cluster token instead of a client's key; it opens everything.
fn guard_rules(config: &Config, part: &PartArgs) -> ProxyConfig {
    let api_key = part.cluster_token.clone().map(ApiKey::new);
    let named = |key| NamedKey { name: "cluster token".to_owned(), key, write_models: true };
    let keys = api_key.clone().map(named).into_iter().collect();
    ProxyConfig { api_key, keys, ..config.proxy.clone() }
}

/// `helios worker`.
pub(crate) async fn worker(config: &Config, args: &WorkerArgs) -> anyhow::Result<()> {
    check_internal(args.part.listen, args.part.cluster_token.as_deref())?;
    let interrupt = Interrupt::listen()?;
    Metrics::install()?;
    helios_worker::describe_metrics();
    let listener = helios_runtime::bind(args.part.listen).await?;
    let address = listener.local_addr()?;
    let registry = RegistryClient::new(&args.registry, secret(&args.part).as_ref())?;
    let advertised = args.advertise.clone().unwrap_or_else(|| format!("http://{address}"));
    let tasks = Tasks::new(interrupt.shutdown().child());
    let host = interrupt.or(start_host(config, args, &registry, &advertised, &tasks)).await?;
    eprintln!("{}: {}", args.model, host.kv_budget());
    announce(address);
    let options = ServeOptions { cluster_token: secret(&args.part), grace: config.worker.grace() };
    let served = interrupt.shutdown().child();
    let serve = async {
        let outcome = helios_worker::serve(host.clone(), listener, options, interrupt.shutdown()).await;
        served.trigger();
        outcome
    };
    let lease = keep_lease(&host, &registry, advertised, &config.worker, &served);
    let (outcome, ()) = tokio::join!(serve, lease);
    Ok(outcome?)
}

/// The model in memory, its files from the registry's folder, from neighbours or from the registry.
async fn start_host(
    config: &Config,
    args: &WorkerArgs,
    registry: &RegistryClient,
    advertised: &str,
    tasks: &Tasks,
) -> anyhow::Result<Host> {
    let machine = Machine::new(&config.worker, 1)?;
    let neighbours = Neighbours {
        registry,
        listen: args.share_listen.unwrap_or_else(|| SocketAddr::new(args.part.listen.ip(), 0)),
        advertised,
        token: secret(&args.part),
        rules: guard_rules(config, &args.part),
    };
    let store = neighbours.store(config, tasks).await?;
    let resolved = resolve(&store, registry, &args.model).await?;
    note_use(&store, &resolved).await;
    let load = async { Ok(Host::start(&machine, models::files(&store, &resolved).await?).await?) };
    let host: anyhow::Result<Host> = tokio::select! {
        biased;
        host = load => host,
        never = keep_files(registry, &resolved) => match never {},
    };
    if host.is_ok()
        && let Err(error) = store.remove_leftovers().await
    {
        tracing::warn!(%error, "what interrupted downloads left stays in the cache");
    }
    host
}

/// Tells the registry that the model is asked for here, if its weights have to be fetched: else somebody has told before.
async fn note_use(store: &ModelStore, resolved: &Resolved) {
    let told = async {
        if store.is_here(resolved.manifest.required(Role::Weights)?).await? {
            return Ok(());
        }
        let model = resolved.reference.clone();
        store.note_uses(vec![ModelUse { model, count: 1, ago_ms: 0 }]).await
    };
    let told: Result<(), RegistryError> = told.await;
    if let Err(error) = told {
        tracing::warn!(%error, "the registry was not told that the model is used");
    }
}

/// Has the registry keep the files of a version until the worker's lease does: a large model loads for longer than
/// what was handed out is safe.
async fn keep_files(registry: &RegistryClient, resolved: &Resolved) -> Infallible {
    loop {
        Clock.sleep(KEEP_FILES_EVERY).await;
        if let Err(error) = registry.manifest(&resolved.digest).await {
            tracing::warn!(%error, "the registry was not told that its files are still being loaded");
        }
    }
}

/// The version that `name` means; the registry fetches it first if need be. The store is asked, which learns where the
/// registry's files are, should they be on this host.
async fn resolve(store: &ModelStore, registry: &RegistryClient, name: &str) -> anyhow::Result<Resolved> {
    let known = match name.parse::<ModelRef>() {
        Ok(reference) => store.resolve(&reference).await,
        Err(error) if !models::is_source(name) => return Err(error.into()),
        Err(_) => pull(store, registry, name).await,
    };
    match known {
        Err(error) if error.code() == ErrorCode::ModelNotFound => {
            let pulled = pull(store, registry, name).await;
            pulled.with_context(|| format!("the registry could not fetch {name}"))
        }
        known => Ok(known?),
    }
}

/// Has the registry fetch a model, and asks the store for what it then has.
async fn pull(store: &ModelStore, registry: &RegistryClient, name: &str) -> Result<Resolved, RegistryError> {
    let mut progress = PullProgress::new();
    let pulled = registry.pull(name, None, &mut |report| progress.report(&report)).await;
    progress.finish();
    store.resolve(&pulled?.reference).await
}

async fn remote_store(config: &Config, registry: &RegistryClient) -> anyhow::Result<ModelStore> {
    let cache = config.store_dir()?.join("cache");
    let registry = registry.clone();
    Ok(tokio::task::spawn_blocking(move || ModelStore::remote(registry, &cache)).await??)
}

/// `helios proxy`.
pub(crate) async fn proxy(config: &Config, args: &ProxyArgs) -> anyhow::Result<()> {
    let interrupt = Interrupt::listen()?;
    let metrics = Metrics::install()?;
    let listener = helios_runtime::bind(args.part.listen).await?;
    let address = listener.local_addr()?;
    let registry = RegistryClient::new(&args.registry, secret(&args.part).as_ref())?;
    let store = remote_store(config, &registry).await?;
    let tasks = Tasks::new(Shutdown::default());
    let parts = Parts {
        config: config.proxy.clone(),
        models: Arc::new(StoreTexts::new(store, &tasks)),
        discovery: Arc::new(RegistryFleet::new(registry, args.part.cluster_token.clone())),
        metrics,
        mounts: Vec::new(),
    };
    let proxy = Proxy::start(parts, &tasks);
    announce(address);
    proxy.serve(listener, &Tasks::new(interrupt.shutdown().child())).await;
    tasks.stop(config.worker.grace()).await;
    Ok(())
}
