//! One file over HTTP: once however many pulls want it.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use helios_model::{is_pickle, refuse_pickle};
use helios_storage::{BlobInfo, StorageError, Tree};
use helios_types::Digest;
use http::header::{HeaderMap, HeaderValue, IF_RANGE, RANGE};
use reqwest::{Response, StatusCode, Url};

use super::origin::{Fetcher, check_status, shown, unreachable};
use super::{Context, Expected, Gathered, file_name};
use crate::progress::Phase;
use crate::swarm::{SHARED_BYTES_MIN, SwarmFile};
use crate::transfer::{self, Answer, Origin, SourceKind, Transfer, range_header};
use crate::{RegistryError, Secret};

/// A file at an origin.
pub(super) struct Remote {
    pub(super) url: Url,
    /// Sent to the origin of `url` only.
    pub(super) bearer: Option<Secret>,
    /// Its name in reports.
    pub(super) name: String,
    pub(super) digest: Option<Digest>,
    pub(super) size: Option<u64>,
}

/// The file behind an `https:` source.
pub(super) async fn gather(
    context: &Context,
    url: &Url,
    expected: Option<&Expected>,
) -> Result<Gathered, RegistryError> {
    let name = file_name(url.path());
    if is_pickle(name) {
        return Err(refuse_pickle(url.as_str(), name).into());
    }
    if !name.ends_with(".gguf") {
        return Err(RegistryError::invalid_source(url.as_str(), "its path does not end in .gguf"));
    }
    let remote = Remote {
        url: url.clone(),
        bearer: None,
        name: name.to_owned(),
        digest: expected.map(|expected| expected.digest),
        size: expected.map(|expected| expected.size),
    };
    Ok(Gathered::one(name, download(context, &remote).await?))
}

/// Brings the file into the store, unless it is there already.
pub(super) async fn download(context: &Context, remote: &Remote) -> Result<BlobInfo, RegistryError> {
    let origin = HttpFile {
        fetcher: context.registry.fetcher(),
        url: &remote.url,
        bearer: remote.bearer.as_ref(),
        landed: Mutex::default(),
    };
    let wanted = Wanted { name: &remote.name, digest: remote.digest, size: remote.size };
    context.bring(wanted, None, &origin).await
}

/// What a file is called in reports, and what is known of it.
pub(crate) struct Wanted<'a> {
    pub(super) name: &'a str,
    pub(super) digest: Option<Digest>,
    pub(super) size: Option<u64>,
}

impl<'a> Wanted<'a> {
    /// A blob that a manifest names.
    pub(crate) fn of_blob(name: &'a str, info: &BlobInfo) -> Self {
        Self { name, digest: Some(info.digest), size: Some(info.size) }
    }
}

impl Context {
    /// Brings a file into the store and pins it, unless it is there already or somebody else just brought it.
    pub(crate) async fn bring(
        &self,
        wanted: Wanted<'_>,
        tree: Option<Tree>,
        origin: &dyn Origin,
    ) -> Result<BlobInfo, RegistryError> {
        let Some(digest) = wanted.digest else { return self.transfer(&wanted, origin, None).await };
        let mut turn = self.registry.turns().take(digest).await;
        let known = self.adopt(&digest).await;
        if let Some(info) = known.or((*turn).filter(|_| self.intake.adopt(digest))) {
            return Ok(info);
        }
        let info = match wanted.size.filter(|size| self.shares(*size)) {
            Some(size) => self.share(&wanted, (digest, size), tree, origin).await?,
            None => self.transfer(&wanted, origin, None).await?,
        };
        *turn = Some(info);
        Ok(info)
    }

    /// Whether a blob of that size is fetched together with the fleet.
    pub(crate) fn shares(&self, size: u64) -> bool {
        size >= SHARED_BYTES_MIN && !self.registry.swarm().is_alone()
    }

    /// Fetches together with the fleet; alone, if what came of that is not the file.
    async fn share(
        &self,
        wanted: &Wanted<'_>,
        blob: (Digest, u64),
        tree: Option<Tree>,
        origin: &dyn Origin,
    ) -> Result<BlobInfo, RegistryError> {
        let stall_timeout = self.registry.fetcher().config().stall_timeout;
        let shared = SwarmFile::new(self.registry.swarm(), origin, blob, tree, stall_timeout);
        match self.transfer(wanted, &shared, Some(&shared)).await {
            Err(error @ RegistryError::OriginLied { .. }) if shared.blame(&error) => {
                tracing::warn!(%error, file = wanted.name, "the fleet gave something else; the origin is asked alone");
                self.transfer(wanted, origin, None).await
            }
            result => result,
        }
    }

    async fn transfer(
        &self,
        wanted: &Wanted<'_>,
        origin: &dyn Origin,
        shared: Option<&SwarmFile<'_>>,
    ) -> Result<BlobInfo, RegistryError> {
        let report = |done, total| {
            self.reporter.file(Phase::Downloading, wanted.name, done, total);
            shared.iter().for_each(|shared| shared.wrote(done));
        };
        let transfer = Transfer {
            origin,
            blobs: self.intake.blobs(),
            limits: self.registry.fetcher().config(),
            address: origin.address(),
            digest: wanted.digest,
            size: wanted.size,
            report: &report,
        };
        let (intake, digest) = (Arc::clone(&self.intake), wanted.digest);
        let downloaded = transfer::download(&transfer, move |writer| intake.commit(writer, digest)).await;
        let info = downloaded.map_err(|error| match error {
            RegistryError::Storage(error @ StorageError::DigestMismatch { .. }) => {
                RegistryError::OriginLied { url: origin.shown(), problem: error.to_string() }
            }
            error => error,
        })?;
        if let Some(shared) = shared {
            shared.finish(info).await;
        }
        Ok(info)
    }
}

/// A file of an HTTP server.
struct HttpFile<'a> {
    fetcher: &'a Fetcher,
    url: &'a Url,
    bearer: Option<&'a Secret>,
    /// Where redirects led the last time: asked first, so that a hub is not asked again for each range.
    landed: Mutex<Option<Url>>,
}

impl HttpFile<'_> {
    /// The answer from where redirects led before, else from the start.
    async fn ask(&self, headers: &HeaderMap) -> Result<Response, RegistryError> {
        let landed = self.landed.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(landed) = landed {
            let response = self.fetcher.get_redirected(self.url, landed, self.bearer, headers).await?;
            // A signed address ends after a while; the way there is then asked for again.
            if !matches!(response.status().as_u16(), 400 | 401 | 403 | 404 | 410) {
                return Ok(self.landed_at(response));
            }
        }
        let response = self.fetcher.get(self.url, self.bearer, headers).await?;
        Ok(self.landed_at(response))
    }

    fn landed_at(&self, response: Response) -> Response {
        if response.status().is_success() && response.url() != self.url {
            let landed = Some(response.url().clone());
            *self.landed.lock().unwrap_or_else(PoisonError::into_inner) = landed;
        }
        response
    }
}

impl Origin for HttpFile<'_> {
    fn shown(&self) -> String {
        shown(self.url)
    }

    fn address(&self) -> String {
        self.url.to_string()
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Origin
    }

    fn open<'a>(
        &'a self,
        range: Range<u64>,
        validator: Option<&'a HeaderValue>,
    ) -> BoxFuture<'a, Result<Answer, RegistryError>> {
        async move {
            let mut headers = HeaderMap::from_iter([(RANGE, range_header(&range))]);
            headers.extend(validator.map(|validator| (IF_RANGE, validator.clone())));
            let mut response = self.ask(&headers).await?;
            if response.status() != StatusCode::RANGE_NOT_SATISFIABLE {
                response = check_status(self.url, response)?;
            }
            let url = self.url.clone();
            Answer::of_http(&self.shown(), &range, response, move |error| unreachable(&url, error))
        }
        .boxed()
    }
}
