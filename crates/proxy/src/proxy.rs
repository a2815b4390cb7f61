//! The proxy as a whole: what it is made of, and the way of one HTTP request through the guard to its route.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::Body;
use futures::FutureExt;
use helios_api::ApiError;
use helios_runtime::telemetry::Metrics;
use helios_runtime::{Shutdown, Tasks};
use helios_types::ErrorCode;
use http::{Request, Response};
use hyper::body::{Body as _, Incoming};
use tokio::net::TcpListener;

use crate::admit::Admission;
use crate::fleet::Fleet;
use crate::guard::Guard;
use crate::model_text::ModelTexts;
use crate::profiles::Profiles;
use crate::route::Router;
use crate::routes::{self, Found, cors};
use crate::{Discovery, Models, Mount, ProxyConfig, metrics, reply, request_id, server};

/// What a proxy is made of.
pub struct Parts {
    /// Validated by the caller ([`ProxyConfig::validate`]) against the address it listens on.
    pub config: ProxyConfig,
    /// Names and text files of models.
    pub models: Arc<dyn Models>,
    /// Who serves them.
    pub discovery: Arc<dyn Discovery>,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// Other parts' routes, behind the same guard.
    pub mounts: Vec<Mount>,
}

/// A running proxy. Cheap to clone.
#[derive(Clone)]
pub struct Proxy {
    inner: Arc<Inner>,
}

/// What all requests share.
pub(crate) struct Inner {
    pub(crate) config: ProxyConfig,
    pub(crate) guard: Guard,
    pub(crate) admission: Admission,
    pub(crate) models: Arc<dyn Models>,
    pub(crate) texts: ModelTexts,
    pub(crate) profiles: Profiles,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) router: Router,
    pub(crate) metrics: Metrics,
    pub(crate) mounts: Vec<Mount>,
}

impl Proxy {
    /// Starts to follow the workers. Everything ends with `tasks`.
    pub fn start(parts: Parts, tasks: &Tasks) -> Self {
        metrics::describe_metrics();
        let inner = Inner {
            guard: Guard::new(&parts.config),
            admission: Admission::new(&parts.config),
            models: parts.models,
            texts: ModelTexts::default(),
            profiles: Profiles::default(),
            fleet: Fleet::start(parts.discovery, tasks),
            router: Router::default(),
            metrics: parts.metrics,
            mounts: parts.mounts,
            config: parts.config,
        };
        let inner = Arc::new(inner);
        tasks.spawn("load texts", inner.clone().load_texts(tasks.shutdown().clone()));
        Self { inner }
    }

    /// Answers on `listener` until `tasks` are told to stop, and then until open answers have ended or
    /// `drain_ms_max` has passed.
    pub async fn serve(&self, listener: TcpListener, tasks: &Tasks) {
        server::serve(self.clone(), &self.inner.config, listener, tasks).await;
    }

    /// Answers one request. Never fails: what goes wrong is in the response.
    pub(crate) async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let id = request_id::of(request.headers());
        let (parts, body) = request.into_parts();
        let origin = self.inner.guard.origin(&parts).ok().flatten().map(str::to_owned);
        let found = routes::find(&self.inner.mounts, &parts.method, parts.uri.path());
        let (label, refusal) = (found.label(), found.refusal());
        let answer = AssertUnwindSafe(self.inner.answer(found, &id, parts, body)).catch_unwind().await;
        let mut response = match answer {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => refusal(&error),
            Err(_panic) => reply::error(&ApiError::new(ErrorCode::Internal, "the server made a mistake")),
        };
        metrics::responded(label, response.status());
        response.headers_mut().insert(request_id::REQUEST_ID, request_id::header(&id));
        if let Some(origin) = origin {
            cors::allow(&origin, response.headers_mut());
        }
        response
    }
}

impl Inner {
    /// Loads what each model on the list needs of text before the first request asks, so that no request waits for
    /// it and a registry that is lost later is not missed.
    async fn load_texts(self: Arc<Self>, shutdown: Shutdown) {
        let mut replaced = self.fleet.replacements();
        while let Some(Ok(())) = shutdown.race(replaced.changed()).await {
            for worker in self.fleet.workers().iter() {
                let digest = worker.member.manifest_digest;
                if let Err(error) = self.texts.get(self.models.as_ref(), digest).await {
                    tracing::warn!(model = %worker.member.reference, %error, "loading a model's text files failed");
                }
            }
        }
    }

    /// Guard, then route.
    async fn answer(
        self: &Arc<Self>,
        found: Found,
        id: &str,
        parts: http::request::Parts,
        body: Incoming,
    ) -> Result<Response<Body>, ApiError> {
        match self.guard.check(found.access(), &parts, !body.is_end_stream())? {
            Some(response) => Ok(response),
            None => routes::answer(self, found, id, parts, body).await,
        }
    }
}
