//! A registry elsewhere, over HTTP. Errors are those of the registry there, with their codes and hints.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use helios_model::{Manifest, MemoryProfile};
use helios_runtime::Clock;
use helios_storage::tiers::TierReport;
use helios_storage::{Blob, BlobInfo, Tiers, Tree};
use helios_types::{Digest, ModelRef};
use http::Method;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, HeaderMap, HeaderValue, RANGE};
use reqwest::{RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::blocking::blocking;
use crate::fetch::{authorization, causes};
use crate::http::ROUTE_PREFIX;
use crate::http::wire::{
    ErrorBody, Model, ModelQuery, Models, Nothing, Pointer, PullBody, PullLine, RenewBody, RollbackBody,
    TagBody, TierList, UsesBody, Warm, WarmBody,
};
use crate::swarm::wire::{Ask, Holdings, Place};
use crate::transfer::{Answer, Drip, Origin, SourceKind, fetch_blob, range_header};
use crate::{
    GcReport, MembersSnapshot, ModelSummary, ModelUse, Progress, PushReport, RegistryError, Resolved, Secret,
    TagEntry, WarmLevel, WarmRecord, WorkerLease, registry, via,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest silence: a blob of 100 GB may have to be verified before its first byte.
const READ_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest push.
const PUSH_TIMEOUT: Duration = Duration::from_secs(6 * 3600);
/// Longest pull.
const PULL_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// Longest time in which a pull does not move: half a terabyte may have to be hashed.
const STANDSTILL_MAX: Duration = Duration::from_secs(3600);
/// Bytes of one line of a pull's progress.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Bytes of one answer: a manifest has under 100 KiB.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Bytes of a list: 100,000 models have some 30 MB.
const LIST_BYTES_MAX: usize = 256 << 20;

/// A registry elsewhere. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RegistryClient {
    base: Url,
    client: reqwest::Client,
    /// The registry that asks, where one does: questions then say which way they came.
    child: Option<Arc<str>>,
}

/// What a registry elsewhere says of a model.
#[derive(Clone, Debug)]
pub struct RemoteModel {
    /// Name and version.
    pub resolved: Resolved,
    /// What the tag pointed to, oldest first.
    pub history: Vec<TagEntry>,
    /// The folders of the store there, fastest first; of use on the same host only.
    pub stores: Vec<PathBuf>,
}

impl RegistryClient {
    /// A client of the registry at `base`, such as `http://127.0.0.1:8090`, with the cluster token if it wants one. The
    /// process's TLS provider must be installed.
    ///
    /// # Errors
    /// [`RegistryError::InvalidRequest`] for an address that is none.
    pub fn new(base: &str, token: Option<&Secret>) -> Result<Self, RegistryError> {
        let url = Url::parse(base).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let base = url.ok_or_else(|| {
            registry::invalid_request(format!(
                "`{base}` is no address of a registry: expected http://HOST:PORT"
            ))
        })?;
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, authorization(token)?);
        }
        let built = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .default_headers(headers)
            .build();
        let client =
            built.map_err(|error| RegistryError::Internal { problem: format!("no HTTP client: {error}") })?;
        Ok(Self { base, client, child: None })
    }

    /// As [`new`](Self::new), for the registry of that name to ask its parent.
    pub(crate) fn of_child(base: &str, token: Option<&Secret>, child: &str) -> Result<Self, RegistryError> {
        Ok(Self { child: Some(child.into()), ..Self::new(base, token)? })
    }

    /// Its address.
    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// The version that a name points to, with more that only a registry elsewhere says.
    ///
    /// # Errors
    /// [`RegistryError::Remote`] with the code there; [`RegistryError::RegistryUnreachable`], as with all methods.
    pub async fn model(&self, model: &ModelRef) -> Result<RemoteModel, RegistryError> {
        let url = self.url(&["model"], &[("model", &model.to_string())]);
        let answer: Model = self.json(self.client.get(url)).await?;
        // The digest is what blocks and caches are keyed by: it must be the manifest's.
        let digest = registry::digest_of(&answer.manifest.to_bytes());
        if digest != answer.digest {
            let subject = format!("manifest {}", answer.digest);
            return Err(RegistryError::InvalidManifest {
                subject,
                problem: format!("its bytes have digest {digest}"),
            });
        }
        let manifest = Arc::new(answer.manifest);
        let resolved = Resolved { reference: answer.model, digest: answer.digest, manifest };
        Ok(RemoteModel { resolved, history: answer.history, stores: answer.stores })
    }

    /// The version that a name points to.
    ///
    /// # Errors
    /// As [`model`](Self::model).
    pub async fn resolve(&self, model: &ModelRef) -> Result<Resolved, RegistryError> {
        self.model(model).await.map(|model| model.resolved)
    }

    /// The models, ordered by name and tag.
    ///
    /// # Errors
    /// As [`model`](Self::model).
    pub async fn list(&self) -> Result<Vec<ModelSummary>, RegistryError> {
        let response = self.send(self.client.get(self.url(&["models"], &[]))).await?;
        let answer: Models = self.parse(&self.whole(response, LIST_BYTES_MAX).await?)?;
        Ok(answer.models)
    }

    /// The manifest of that digest.
    ///
    /// # Errors
    /// As [`model`](Self::model).
    pub async fn manifest(&self, digest: &Digest) -> Result<Arc<Manifest>, RegistryError> {
        let response = self.send(self.client.get(self.url(&["manifests", &digest.to_string()], &[]))).await?;
        registry::parse_manifest(digest, &self.whole(response, ANSWER_BYTES_MAX).await?).map(Arc::new)
    }

    /// The memory profile of a version, with its details.
    ///
    /// # Errors
    /// As [`model`](Self::model).
    pub async fn profile(&self, digest: &Digest) -> Result<MemoryProfile, RegistryError> {
        self.json(self.client.get(self.url(&["profiles", &digest.to_string()], &[]))).await
    }

    /// Gives a version another name, too.
    ///
    /// # Errors
    /// As [`model`](Self::model).
    pub async fn tag(&self, from: &ModelRef, to: &ModelRef) -> Result<(), RegistryError> {
        let body = TagBody { from: from.clone(), to: to.clone() };
        self.json::<Pointer>(self.with_body(Method::POST, &["tag"], &body)).await.map(drop)
    }

    /// Points a tag at an earlier version again: `to` is a digest, its beginning, or steps back.
    ///
    /// # Errors
    /// As [`model`](Self::model).
    pub async fn rollback(&self, model: &ModelRef, to: &str) -> Result<(ModelRef, Digest), RegistryError> {
        let body = RollbackBody { model: model.clone(), to: to.to_owned() };
        let pointer: Pointer = self.json(self.with_body(Method::POST, &["rollback"], &body)).await?;
        Ok((pointer.model, pointer.digest))
    }

    /// Removes a tag.
    ///
    /// # Errors
    /// As [`model`](Self::model).
    pub async fn remove(&self, model: &ModelRef) -> Result<(), RegistryError> {
        let url = self.url(&["model"], &[("model", &model.to_string())]);
        self.json::<Nothing>(self.client.delete(url)).await.map(drop)
    }

    /// Collects garbage there.
    ///
    /// # Errors
    /// As [`model`](Self::model).
    pub async fn gc(&self) -> Result<GcReport, RegistryError> {
        self.json(self.with_body(Method::POST, &["gc"], &Nothing {})).await
    }

    /// The directories of the store there.
    ///
    /// # Errors
    /// As [`model`](Self::model).
    pub async fn tiers(&self) -> Result<Vec<TierReport>, RegistryError> {
        let answer: TierList = self.json(self.client.get(self.url(&["tiers"], &[]))).await?;
        Ok(answer.tiers)
    }

    /// Has it put a model into its remote store.
    ///
    /// # Errors
    /// As [`model`](Self::model).
    pub async fn push(&self, model: &ModelRef) -> Result<PushReport, RegistryError> {
        let body = ModelQuery { model: model.clone() };
        // Gigabytes may have to go up before the answer.
        self.json(self.with_body(Method::POST, &["push"], &body).timeout(PUSH_TIMEOUT)).await
    }

    /// See [`Registry::deduplicate`](crate::Registry::deduplicate).
    ///
    /// # Errors
    /// As [`model`](Self::model).
    pub async fn deduplicate(&self) -> Result<crate::DedupReport, RegistryError> {
        self.json(self.with_body(Method::POST, &["dedup"], &Nothing {})).await
    }

    /// Fetches a model there; see [`Registry::pull`](crate::Registry::pull).
    ///
    /// # Errors
    /// As [`model`](Self::model).
    pub async fn pull(
        &self,
        spec: &str,
        name: Option<ModelRef>,
        report: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Resolved, RegistryError> {
        let body = PullBody { model: Some(spec.to_owned()), source: None, name };
        let request = self.with_body(Method::POST, &["pull"], &body).timeout(PULL_TIMEOUT);
        let lines = Lines::of(self, self.send(request).await?);
        let pointer = self.follow_pull(lines, STANDSTILL_MAX, report).await?;
        self.resolve(&pointer.model).await
    }

    /// Follows a pull to its end, as long as it moves.
    async fn follow_pull(
        &self,
        mut lines: Lines<'_>,
        standstill_max: Duration,
        report: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Pointer, RegistryError> {
        let mut moved = (Progress::default(), Clock.now());
        loop {
            match lines.next().await? {
                PullLine::Progress(progress) if progress != moved.0 => {
                    moved = (progress.clone(), Clock.now());
                    report(progress);
                }
                PullLine::Progress(_) if moved.1.elapsed() >= standstill_max => {
                    let problem = format!("the pull there stood still for {standstill_max:?}");
                    return Err(self.no_answer(problem));
                }
                PullLine::Progress(progress) => report(progress),
                PullLine::Done(pointer) => return Ok(pointer),
                PullLine::Error(detail) => return Err(detail.into()),
            }
        }
    }

    /// Brings a blob into `store` unless it is there, verified, and maps it.
    ///
    /// # Errors
    /// As [`model`](Self::model), and [`RegistryError::Storage`].
    pub async fn blob(&self, info: BlobInfo, store: &Arc<Tiers>) -> Result<Blob, RegistryError> {
        let local = Arc::clone(store);
        if store.contains(&info.digest)
            && let Ok(blob) = blocking(move || Ok(local.get(&info)?)).await
        {
            return Ok(blob);
        }
        fetch_blob(&info, &self.blob_origin(info.digest), store, &|_, _| {}).await?;
        let local = Arc::clone(store);
        blocking(move || Ok(local.get(&info)?)).await
    }

    /// A blob there.
    pub(crate) fn blob_origin(&self, digest: Digest) -> RemoteBlob {
        let url = self.url(&["blobs", &digest.to_string()], &[]);
        RemoteBlob { client: self.clone(), url, kind: SourceKind::Parent }
    }

    /// One piece of a blob that is there or on its way there; always whole.
    pub(crate) fn piece_origin(&self, digest: Digest, index: u64) -> RemoteBlob {
        let url = self.url(&["pieces", &digest.to_string(), &index.to_string()], &[]);
        RemoteBlob { client: self.clone(), url, kind: SourceKind::Peer }
    }

    /// The tree of a blob there; it counts only if it has the blob's root.
    pub(crate) async fn tree(&self, info: &BlobInfo) -> Result<Tree, RegistryError> {
        let url = self.url(&["trees", &info.digest.to_string()], &[]);
        let response = self.send(self.client.get(url)).await?;
        let bytes = self.whole(response, Tree::bytes_of(info.size) as usize).await?;
        Ok(Tree::from_bytes(info.blake3, info.size, &bytes)?)
    }

    /// Asks the tracker there where a piece is.
    pub(crate) async fn ask_tracker(&self, digest: &Digest, ask: &Ask) -> Result<Place, RegistryError> {
        self.json(self.with_body(Method::POST, &["swarms", &digest.to_string()], ask)).await
    }

    /// Tells the tracker there which blobs a node has.
    pub(crate) async fn announce(&self, holdings: &Holdings) -> Result<(), RegistryError> {
        self.json::<Nothing>(self.with_body(Method::PUT, &["holdings"], holdings)).await.map(drop)
    }

    /// Reports how often models were asked for; see [`Registry::note_uses`](crate::Registry::note_uses).
    ///
    /// # Errors
    /// As [`model`](Self::model).
    pub async fn note_uses(&self, uses: Vec<ModelUse>) -> Result<(), RegistryError> {
        self.json::<Nothing>(self.with_body(Method::POST, &["uses"], &UsesBody { uses })).await.map(drop)
    }

    /// Which models should be where, which are, and why; see [`Registry::warm`](crate::Registry::warm).
    ///
    /// # Errors
    /// As [`model`](Self::model).
    pub async fn warm(&self, model: Option<&ModelRef>) -> Result<Vec<WarmRecord>, RegistryError> {
        let model = model.map(ModelRef::to_string);
        let query: Vec<(&str, &str)> = model.iter().map(|model| ("model", model.as_str())).collect();
        let answer: Warm = self.json(self.client.get(self.url(&["warm"], &query))).await?;
        Ok(answer.records)
    }

    /// Has it keep a model near; see [`Registry::keep_warm`](crate::Registry::keep_warm).
    ///
    /// # Errors
    /// As [`model`](Self::model).
    pub async fn keep_warm(
        &self,
        model: &ModelRef,
        level: WarmLevel,
    ) -> Result<Vec<WarmRecord>, RegistryError> {
        let body = WarmBody { model: model.clone(), level };
        let answer: Warm = self.json(self.with_body(Method::PUT, &["warm"], &body)).await?;
        Ok(answer.records)
    }

    /// Has it keep a model no more.
    ///
    /// # Errors
    /// As [`model`](Self::model).
    pub async fn keep_warm_no_more(&self, model: &ModelRef) -> Result<(), RegistryError> {
        let url = self.url(&["warm"], &[("model", &model.to_string())]);
        self.json::<Nothing>(self.client.delete(url)).await.map(drop)
    }

    /// Begins or renews a lease.
    ///
    /// # Errors
    /// As [`model`](Self::model).
    pub async fn renew(&self, worker: &WorkerLease, ttl: Duration) -> Result<(), RegistryError> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let body = RenewBody { ttl_ms, worker: worker.clone() };
        self.json::<Nothing>(self.with_body(Method::PUT, &["workers", &worker.id], &body)).await.map(drop)
    }

    /// Ends a lease.
    ///
    /// # Errors
    /// As [`model`](Self::model).
    pub async fn leave(&self, id: &str) -> Result<(), RegistryError> {
        self.json::<Nothing>(self.client.delete(self.url(&["workers", id], &[]))).await.map(drop)
    }

    /// The live workers; with `seen`, once their version is another, or after `wait` as they are.
    ///
    /// # Errors
    /// As [`model`](Self::model).
    pub async fn members(&self, seen: Option<u64>, wait: Duration) -> Result<MembersSnapshot, RegistryError> {
        let url = match seen {
            None => self.url(&["workers"], &[]),
            Some(seen) => {
                let query = [("after", &*seen.to_string()), ("wait_ms", &*wait.as_millis().to_string())];
                self.url(&["workers"], &query)
            }
        };
        self.json(self.client.get(url)).await
    }

    pub(crate) fn url(&self, segments: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .expect("invariant: an http address is a base")
            .pop_if_empty()
            .extend(ROUTE_PREFIX.split('/').skip(1))
            .extend(segments);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// A request without a body.
    pub(crate) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.client.request(method, url)
    }

    fn with_body(&self, method: Method, segments: &[&str], body: &impl Serialize) -> RequestBuilder {
        self.client.request(method, self.url(segments, &[])).json(body)
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, RegistryError> {
        let response = self.send(request).await?;
        self.parse(&self.whole(response, ANSWER_BYTES_MAX).await?)
    }

    fn parse<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, RegistryError> {
        serde_json::from_slice(bytes)
            .map_err(|error| self.no_answer(format!("what came is no registry's answer: {error}")))
    }

    /// All of an answer, if it is no longer than `bytes_max`.
    async fn whole(&self, response: Response, bytes_max: usize) -> Result<BytesMut, RegistryError> {
        self.gather(self.body(response), bytes_max, READ_TIMEOUT).await
    }

    fn body(&self, response: Response) -> BoxStream<'static, Result<Bytes, RegistryError>> {
        let client = self.clone();
        response.bytes_stream().map_err(move |error| client.unreachable(&error)).boxed()
    }

    /// All of a body that is no longer than `bytes_max`, and does not drip.
    async fn gather(
        &self,
        mut body: BoxStream<'static, Result<Bytes, RegistryError>>,
        bytes_max: usize,
        silence_max: Duration,
    ) -> Result<BytesMut, RegistryError> {
        let mut bytes = BytesMut::new();
        let mut drip = Drip::new(silence_max);
        while let Some(chunk) = body.try_next().await? {
            if bytes.len() + chunk.len() > bytes_max {
                return Err(self.no_answer(format!("an answer over {bytes_max} bytes")));
            }
            bytes.extend_from_slice(&chunk);
            drip.pass(chunk.len()).map_err(|problem| self.no_answer(problem))?;
        }
        Ok(bytes)
    }

    /// The answer, unless it is an error.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, RegistryError> {
        let mut request = request.header(http::header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(child) = &self.child {
            request = request.header(via::VIA_HEADER, via::header(child)?);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let encoding = response.headers().get(CONTENT_ENCODING);
        if let Some(encoding) = encoding.filter(|encoding| *encoding != "identity") {
            return Err(self.no_answer(format!("content encoding {encoding:?}, which was not asked for")));
        }
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = self.whole(response, ANSWER_BYTES_MAX).await?;
        match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(body) => Err(body.error.into()),
            Err(_) => {
                Err(self.no_answer(format!("status {status} without an explanation; is it a registry?")))
            }
        }
    }

    pub(crate) fn unreachable(&self, error: &reqwest::Error) -> RegistryError {
        self.no_answer(causes(error))
    }

    pub(crate) fn no_answer(&self, problem: String) -> RegistryError {
        RegistryError::RegistryUnreachable { url: self.base.to_string(), problem }
    }
}

/// An answer of JSON lines, of which the last one says that it is.
pub(crate) struct Lines<'a> {
    client: &'a RegistryClient,
    body: BoxStream<'static, Result<Bytes, RegistryError>>,
    buffer: BytesMut,
}

impl<'a> Lines<'a> {
    pub(crate) fn of(client: &'a RegistryClient, response: Response) -> Self {
        Self { client, body: client.body(response), buffer: BytesMut::new() }
    }

    /// The next line. Whoever sends them says something every few seconds: it has to be whole in time.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<T, RegistryError> {
        let client = self.client;
        let line = Clock.timeout(READ_TIMEOUT, self.next_line()).await;
        let line = line.map_err(|elapsed| client.no_answer(format!("no whole line: {elapsed}")))??;
        serde_json::from_slice(&line).map_err(|error| client.no_answer(error.to_string()))
    }

    async fn next_line(&mut self) -> Result<BytesMut, RegistryError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                return Ok(self.buffer.split_to(end + 1));
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(self.client.no_answer(format!("a line over {LINE_BYTES_MAX} bytes")));
            }
            let chunk = self.body.try_next().await?;
            let chunk = chunk.ok_or_else(|| self.client.no_answer("it broke off".to_owned()))?;
            self.buffer.extend_from_slice(&chunk);
        }
    }
}

/// A blob of a registry elsewhere, or one piece of it.
pub(crate) struct RemoteBlob {
    client: RegistryClient,
    url: Url,
    kind: SourceKind,
}

impl Origin for RemoteBlob {
    fn shown(&self) -> String {
        self.url.to_string()
    }

    fn kind(&self) -> SourceKind {
        self.kind
    }

    fn open<'a>(
        &'a self,
        range: Range<u64>,
        _validator: Option<&'a HeaderValue>,
    ) -> BoxFuture<'a, Result<Answer, RegistryError>> {
        async move {
            let mut request = self.client.client.get(self.url.clone());
            if self.kind == SourceKind::Parent {
                request = request.header(RANGE, range_header(&range));
            }
            let response = self.client.send(request).await?;
            let client = self.client.clone();
            Answer::of_http(&self.shown(), &range, response, move |error| client.unreachable(error))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::{Bytes, BytesMut};
    use futures::StreamExt;
    use futures::stream::{self, BoxStream};
    use helios_runtime::Clock;

    use super::{Lines, RegistryClient};
    use crate::RegistryError;

    fn client() -> RegistryClient {
        helios_runtime::install_tls_provider();
        RegistryClient::new("http://127.0.0.1:1", None).expect("a client")
    }

    /// `chunk` again and again, with a moment before each.
    fn forever(chunk: &'static [u8]) -> BoxStream<'static, Result<Bytes, RegistryError>> {
        let moment = |()| async { Clock.sleep(Duration::from_millis(1)).await };
        stream::repeat(()).then(moment).map(move |()| Ok(Bytes::from_static(chunk))).boxed()
    }

    #[tokio::test]
    async fn an_answer_that_drips_is_given_up_and_a_slow_one_is_not() {
        let client = client();
        let problem = client.gather(forever(b"x"), 16 << 20, Duration::from_millis(50)).await;
        assert!(problem.expect_err("it drips").to_string().contains("it drips"));
        let slow = forever(&[0; 4 << 10]).take(20);
        let whole = client.gather(slow.boxed(), 16 << 20, Duration::from_millis(50)).await;
        assert_eq!(whole.expect("all of it").len(), 20 * (4 << 10));
    }

    #[tokio::test]
    async fn a_pull_that_reports_the_same_forever_is_given_up() {
        let client = client();
        let line = b"{\"progress\":{\"phase\":\"downloading\",\"file\":\"f\",\"done\":1}}\n";
        let lines = Lines { client: &client, body: forever(line), buffer: BytesMut::new() };
        let mut reports = 0;
        let followed = client.follow_pull(lines, Duration::from_millis(50), &mut |_| reports += 1).await;
        assert!(followed.expect_err("no end").to_string().contains("stood still"));
        assert!(reports > 1, "until then it was followed");
    }

    #[tokio::test]
    async fn a_pull_that_moves_slowly_is_followed_to_its_end() {
        let client = client();
        // Longer in all than it may stand still, and each step much shorter.
        let moves = stream::iter(0..60).then(|done| async move {
            Clock.sleep(Duration::from_millis(20)).await;
            let progress = format!("{{\"phase\":\"downloading\",\"file\":\"f\",\"done\":{done}}}");
            // Said again before it moves on, as by a server that reports now and then.
            Ok(Bytes::from(format!("{{\"progress\":{progress}}}\n{{\"progress\":{progress}}}\n")))
        });
        let lines = Lines { client: &client, body: moves.boxed(), buffer: BytesMut::new() };
        let followed = client.follow_pull(lines, Duration::from_secs(1), &mut |_| {}).await;
        assert!(followed.expect_err("no last line").to_string().contains("broke off"));
    }
}
