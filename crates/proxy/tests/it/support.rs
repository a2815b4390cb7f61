//! A proxy on a free port, workers that follow a script, and a model whose tokens are bytes.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use helios_api::ApiError;
use helios_api::worker::{ChunkStream, UpdateStream, Worker, WorkerError, v1};
use helios_model::MemoryProfile;
use helios_proxy::{Discovery, Member, Models, Mount, Parts, Proxy, ProxyConfig, ResolvedModel, TextFiles};
use helios_runtime::telemetry::Metrics;
use helios_runtime::{Shutdown, Tasks};
use helios_text::SpecialTokens;
use helios_types::{Digest, ErrorCode, ModelRef};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::WatchStream;

pub(crate) const MODEL: &str = "bytes:tiny";
pub(crate) const CONTEXT_TOKENS: u32 = 200;
/// Bound on waiting for what has to happen; generous, because it is no measurement.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Token ids below are bytes.
pub(crate) const IM_START: u32 = 256;
pub(crate) const IM_END: u32 = 257;

pub(crate) fn digest(seed: u8) -> Digest {
    Digest::from_bytes([seed; 32])
}

pub(crate) fn bytes_of(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

/// One step of a scripted answer.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Chunk(v1::GenerateChunk),
    Fail(ErrorCode),
    Hang,
    Panic,
}

/// What a worker does when asked to generate.
pub(crate) type Script = Result<Vec<Step>, ErrorCode>;

/// An answer in pieces, ended by `reason`.
pub(crate) fn says(pieces: &[&str], reason: v1::FinishReason) -> Vec<Step> {
    let mut steps = pieces_of(pieces);
    let first_index = pieces.concat().len() as u32;
    let finish = Some(v1::Finish { reason: reason.into(), stop_token: None });
    steps.push(Step::Chunk(v1::GenerateChunk { first_index, finish, ..Default::default() }));
    steps
}

/// The pieces alone, without an end.
pub(crate) fn pieces_of(pieces: &[&str]) -> Vec<Step> {
    let mut first_index = 0;
    let mut steps = Vec::new();
    for piece in pieces {
        let tokens = bytes_of(piece);
        let prompt = (first_index == 0).then(|| v1::PromptInfo { cached_tokens: 3, ..Default::default() });
        let chunk = v1::GenerateChunk { first_index, tokens, prompt, ..Default::default() };
        first_index += piece.len() as u32;
        steps.push(Step::Chunk(chunk));
    }
    steps
}

/// A worker that follows a script and tells what happens to it.
pub(crate) struct FakeWorker {
    script: Mutex<Script>,
    pub(crate) status: watch::Sender<Option<v1::Status>>,
    requests: Mutex<Vec<v1::GenerateRequest>>,
    ended: mpsc::UnboundedSender<()>,
    pub(crate) manifest_digest: Digest,
    pub(crate) context_tokens_max: u32,
}

/// The worker, and a message for each of its answers that ended or was dropped.
pub(crate) fn fake_worker(script: Script) -> (Arc<FakeWorker>, mpsc::UnboundedReceiver<()>) {
    let (ended, endings) = mpsc::unbounded_channel();
    let worker = FakeWorker {
        script: Mutex::new(script),
        status: watch::Sender::new(Some(ready_status())),
        requests: Mutex::default(),
        ended,
        manifest_digest: digest(1),
        context_tokens_max: CONTEXT_TOKENS,
    };
    (Arc::new(worker), endings)
}

pub(crate) fn ready_status() -> v1::Status {
    v1::Status { ready: true, kv_blocks_total: 10, ..Default::default() }
}

impl FakeWorker {
    pub(crate) fn requests(&self) -> Vec<v1::GenerateRequest> {
        self.requests.lock().expect("no test panics here").clone()
    }

    pub(crate) fn set_script(&self, script: Script) {
        *self.script.lock().expect("no test panics here") = script;
    }

    pub(crate) fn member(self: &Arc<Self>, id: &str) -> Member {
        Member {
            id: id.to_owned(),
            reference: MODEL.parse().expect("a model name"),
            manifest_digest: self.manifest_digest,
            worker: self.clone(),
        }
    }
}

struct Ended(mpsc::UnboundedSender<()>);

impl Drop for Ended {
    fn drop(&mut self) {
        let _nobody_listens = self.0.send(());
    }
}

impl Worker for FakeWorker {
    fn describe(&self) -> BoxFuture<'_, Result<v1::DescribeResponse, WorkerError>> {
        let model = v1::ModelInfo {
            reference: MODEL.to_owned(),
            manifest_digest: self.manifest_digest.to_string(),
            context_tokens_max: self.context_tokens_max,
            ..Default::default()
        };
        let told = v1::DescribeResponse { model: Some(model), memory_bytes: 1 << 30, ..Default::default() };
        async { Ok(told) }.boxed()
    }

    fn generate(&self, request: v1::GenerateRequest) -> BoxFuture<'_, Result<ChunkStream, WorkerError>> {
        self.requests.lock().expect("no test panics here").push(request);
        let script = self.script.lock().expect("no test panics here").clone();
        let ended = Ended(self.ended.clone());
        async move {
            let steps = script.map_err(|code| WorkerError::new(code, "scripted refusal"))?;
            let state = (steps.into_iter(), ended);
            let chunks = stream::unfold(state, |(mut steps, ended)| async move {
                let chunk = match steps.next()? {
                    Step::Chunk(chunk) => Ok(chunk),
                    Step::Fail(code) => Err(WorkerError::new(code, "scripted failure")),
                    Step::Hang => std::future::pending().await,
                    Step::Panic => unreachable!("scripted"),
                };
                Some((chunk, (steps, ended)))
            });
            Ok(chunks.boxed() as ChunkStream)
        }
        .boxed()
    }

    fn watch(&self) -> BoxFuture<'_, Result<UpdateStream, WorkerError>> {
        let updates =
            WatchStream::new(self.status.subscribe()).enumerate().map(|(index, status)| match status {
                Some(status) => Ok(v1::WatchUpdate {
                    sequence: index as u64 + 1,
                    status: Some(status),
                    ..Default::default()
                }),
                None => Err(WorkerError::new(ErrorCode::Unavailable, "scripted loss")),
            });
        async { Ok(updates.boxed() as UpdateStream) }.boxed()
    }
}

/// A store that knows [`MODEL`], `asleep:latest` (which nobody serves) and their text files.
#[derive(Default)]
struct FakeModels {
    /// What was asked for, in order.
    asked: Mutex<Vec<ModelRef>>,
    /// Whose profile was asked for, in order.
    profiles_asked: Mutex<Vec<Digest>>,
}

impl Models for FakeModels {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ResolvedModel, ApiError>> {
        let known = |reference: &str, manifest_digest| {
            Ok(ResolvedModel { reference: reference.parse().expect("a model name"), manifest_digest })
        };
        let resolved = match name {
            "bytes" | MODEL => known(MODEL, digest(1)),
            "asleep" => known("asleep:latest", digest(9)),
            _ => Err(ApiError::new(ErrorCode::ModelNotFound, "unknown")),
        };
        async { resolved }.boxed()
    }

    fn text_files(&self, _manifest_digest: Digest) -> BoxFuture<'_, Result<TextFiles, ApiError>> {
        let special_tokens = SpecialTokens { eos: vec![IM_END], ..SpecialTokens::default() };
        let chat_template = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}\
            <|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
        let files = TextFiles {
            tokenizer_json: tokenizer_json().into(),
            special_tokens,
            chat_template: Some(chat_template.to_owned()),
        };
        async { Ok(files) }.boxed()
    }

    fn asked_for(&self, model: &ModelRef) {
        self.asked.lock().expect("no panic").push(model.clone());
    }

    fn memory_profile(&self, manifest_digest: Digest) -> BoxFuture<'_, Result<MemoryProfile, ApiError>> {
        self.profiles_asked.lock().expect("no panic").push(manifest_digest);
        async { Ok(helios_registry::CATALOGUE[0].memory_profile()) }.boxed()
    }
}

/// A byte-level vocabulary without merges: token `n` is byte `n`.
fn tokenizer_json() -> String {
    let mut vocabulary = serde_json::Map::new();
    let mut next = 256;
    for byte in 0..=255_u32 {
        let printable = matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
        let code_point = if printable { byte } else { next };
        next += u32::from(!printable);
        vocabulary.insert(char::from_u32(code_point).expect("a letter").to_string(), json!(byte));
    }
    let added = |id: u32, content: &str| {
        json!({ "id": id, "content": content, "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false })
    };
    let byte_level =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
    json!({
        "version": "1.0",
        "added_tokens": [added(IM_START, "<|im_start|>"), added(IM_END, "<|im_end|>")],
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": { "type": "BPE", "vocab": vocabulary, "merges": [] },
    })
    .to_string()
}

/// Lists that a test sends.
pub(crate) struct FakeDiscovery(pub(crate) watch::Sender<Vec<Member>>);

impl Discovery for FakeDiscovery {
    fn lists(&self) -> BoxStream<'static, Vec<Member>> {
        WatchStream::new(self.0.subscribe()).boxed()
    }
}

/// A running proxy.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) client: reqwest::Client,
    pub(crate) members: Arc<FakeDiscovery>,
    models: Arc<FakeModels>,
    tasks: Tasks,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.shutdown().trigger();
    }
}

/// A proxy with `config` before `members`.
pub(crate) async fn start(config: ProxyConfig, members: Vec<Member>, mounts: Vec<Mount>) -> Server {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    helios_runtime::install_tls_provider();
    let metrics = METRICS.get_or_init(|| Metrics::install().expect("the first recorder of this process"));
    let listener =
        helios_runtime::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    config.validate(address).expect("a valid configuration");
    let tasks = Tasks::new(Shutdown::default());
    let discovery = Arc::new(FakeDiscovery(watch::Sender::new(members)));
    let models = Arc::new(FakeModels::default());
    let parts = Parts {
        config,
        models: models.clone(),
        discovery: discovery.clone(),
        metrics: metrics.clone(),
        mounts,
    };
    let proxy = Proxy::start(parts, &tasks);
    let owner = tasks.clone();
    tokio::spawn(async move { proxy.serve(listener, &owner).await });
    let client = reqwest::Client::new();
    Server { url: format!("http://{address}"), client, members: discovery, models, tasks }
}

/// A proxy before one worker that is ready.
pub(crate) async fn start_with(script: Script) -> (Server, Arc<FakeWorker>, mpsc::UnboundedReceiver<()>) {
    let (worker, endings) = fake_worker(script);
    let server = start(ProxyConfig::default(), vec![worker.member("w1")], Vec::new()).await;
    server.wait_ready(true).await;
    (server, worker, endings)
}

impl Server {
    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(format!("{}{path}", self.url)).send().await.expect("a response")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.client.post(format!("{}{path}", self.url)).json(body)
    }

    /// Asks `/v1/completions` and reads the whole answer.
    pub(crate) async fn complete(&self, extra: Value) -> (u16, Value) {
        let mut body = json!({ "model": MODEL, "prompt": "hi", "max_tokens": 50 });
        body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        let response = self.post("/v1/completions", &body).send().await.expect("a response");
        (response.status().as_u16(), response.json().await.expect("JSON"))
    }

    /// Asks for a stream and reads its events to the end.
    pub(crate) async fn stream(&self, path: &str, extra: Value) -> Vec<String> {
        let mut body = json!({ "model": MODEL, "stream": true, "max_tokens": 50 });
        body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        let response = self.post(path, &body).send().await.expect("a response");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-cache");
        let text = response.text().await.expect("a whole stream");
        let events = text.split_terminator("\n\n");
        events.map(|event| event.strip_prefix("data: ").expect("a data line").to_owned()).collect()
    }

    /// What the store was told of models asked for, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.models.asked.lock().expect("no panic").iter().map(ToString::to_string).collect()
    }

    /// Whose profile the store was asked for, in order.
    pub(crate) fn profiles_asked(&self) -> Vec<Digest> {
        self.models.profiles_asked.lock().expect("no panic").clone()
    }

    /// A figure among the metrics, which all proxies of this process share.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let text = self.get("/metrics").await.text().await.expect("text");
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits until `/ready` says so, or the contrary.
    pub(crate) async fn wait_ready(&self, ready: bool) {
        let reached = async {
            while self.get("/ready").await.status().is_success() != ready {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect("readiness never came");
    }
}

/// Waits for what has to happen.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it never happened")
}

/// The error of an envelope, checked to be whole.
pub(crate) fn envelope(body: &Value) -> &Value {
    let error = &body["error"];
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
    assert!(error["type"].is_string() && error["code"].is_string(), "{body}");
    assert!(error.as_object().is_some_and(|error| error.contains_key("param")), "{body}");
    error
}

pub(crate) fn model(reference: &str) -> ModelRef {
    reference.parse().expect("a model name")
}
