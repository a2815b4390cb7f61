//! A Helios to talk to: one that runs already, or one started in this process.

use anyhow::Context;
use helios_runtime::telemetry::Metrics;
use helios_runtime::{Shutdown, Tasks};
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::Config;
use crate::environment;
use crate::models;
use crate::parts::Platform;

/// How long a running server may take to say that it is there.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);
const STOP_GRACE: Duration = Duration::from_secs(15);

/// Where requests go, and with which key.
pub(crate) struct Server {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
    /// The parts, if they run in this process.
    own: Option<Tasks>,
}

impl Server {
    /// The running server, if it answers and serves `model`; else one of our own on a free port of 127.0.0.1.
    pub(crate) async fn find_or_start(config: &Config, model: &str) -> anyhow::Result<Self> {
        match Self::running().await? {
            Some(server) => Ok(server),
            None => Self::start(config, model).await,
        }
    }

    /// The server at HELIOS_HOST, if one answers there.
    pub(crate) async fn running() -> anyhow::Result<Option<Self>> {
        let http = reqwest::Client::builder().connect_timeout(GREETING_TIMEOUT).build()?;
        let key = environment::api_key();
        let server = Self { http, base: environment::host(), key, own: None };
        let greeting = server.request(reqwest::Method::GET, "/health").timeout(GREETING_TIMEOUT).send().await;
        Ok(greeting.is_ok_and(|answer| answer.status().is_success()).then_some(server))
    }

    async fn start(config: &Config, model: &str) -> anyhow::Result<Self> {
        let registry = models::open_registry(config).await?;
        let listener = helios_runtime::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let base = format!("http://{}", listener.local_addr()?);
        let key = config.proxy.api_key.as_ref().map(|key| key.expose().to_owned());
        let platform = Platform::start(config, registry, &[model.to_owned()], Metrics::install()?).await?;
        let tasks = Tasks::new(Shutdown::default());
        let shutdown = tasks.shutdown().clone();
        tasks.spawn("own server", async move { platform.serve(listener, &shutdown).await });
        Ok(Self { http: reqwest::Client::new(), base, key, own: Some(tasks) })
    }

    /// A request with the key, if there is one.
    pub(crate) fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// The body of a GET, as JSON.
    pub(crate) async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let response = self.request(reqwest::Method::GET, path).send().await?;
        let status = response.status();
        let text = response.text().await?;
        if !status.is_success() {
            let message = crate::sse::error_message(&text);
            anyhow::bail!(message.unwrap_or_else(|| format!("the server answered {status}")));
        }
        serde_json::from_str(&text)
            .with_context(|| format!("{}{path} answered no JSON; is it Helios?", self.base))
    }

    /// The server's address.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The key it wants, as far as known.
    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Ends the parts that run in this process.
    pub(crate) async fn stop(&self) {
        if let Some(tasks) = &self.own {
            tasks.stop(STOP_GRACE).await;
        }
    }
}
