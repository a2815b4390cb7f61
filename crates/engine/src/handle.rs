//! The way into a running engine: checks requests, hands them to the engine's thread, and ends it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use helios_types::{BLOCK_TOKENS, BlockRoot, Digest, NumericsId};
use tokio::sync::{oneshot, watch};

use crate::sequence::Sequence;
use crate::{
    CacheFeed, EngineError, EngineStatus, Event, Events, Model, Request, Sampling, TOP_LOGPROBS_MAX,
};

/// What the engine's thread is asked to do.
pub(crate) enum Command {
    Submit(Box<Sequence>),
    Feed(oneshot::Sender<CacheFeed>),
    Stop,
}

/// A place among the requests in flight; frees itself.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Place {
    /// Takes a place if fewer than `max` are taken; else says how many are.
    pub(crate) fn take(in_flight: &Arc<AtomicUsize>, max: usize) -> Result<Self, usize> {
        let add = |taken| (taken < max).then_some(taken + 1);
        in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).map(|_| Self(Arc::clone(in_flight)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A running engine. Clones share it; the last one to go shuts it down.
#[derive(Clone)]
pub struct EngineHandle {
    shared: Arc<Shared>,
}

/// What the engine's thread and the handles agree on at start.
pub(crate) struct Shared {
    pub(crate) model: Arc<Model>,
    pub(crate) manifest: Digest,
    pub(crate) context_tokens_max: usize,
    pub(crate) in_flight_max: usize,
    pub(crate) in_flight: Arc<AtomicUsize>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) status: watch::Receiver<EngineStatus>,
    pub(crate) thread: Mutex<Option<JoinHandle<()>>>,
}

impl EngineHandle {
    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    /// Queues a request. Never blocks.
    ///
    /// # Errors
    /// A parameter out of range, a request that can never fit, a full queue (retryable), or a stopped engine.
    pub fn submit(&self, request: Request) -> Result<Events, EngineError> {
        let shared = &*self.shared;
        request.validate(shared.model.config().vocab)?;
        let (prompt_tokens, max_tokens) = (request.prompt.len(), request.max_tokens);
        let limit_tokens = shared.context_tokens_max;
        if prompt_tokens.saturating_add(max_tokens) > limit_tokens {
            return Err(EngineError::ContextLength { prompt_tokens, max_tokens, limit_tokens });
        }
        let place = Place::take(&shared.in_flight, shared.in_flight_max)
            .map_err(|in_flight| EngineError::QueueFull { in_flight })?;
        let root = BlockRoot {
            manifest: shared.manifest,
            adapter: None,
            numerics: shared.model.numerics_id(),
            block_tokens: BLOCK_TOKENS as u32,
            tenant_salt: &request.salt,
        }
        .hash();
        let (sender, events) = Events::channel(max_tokens);
        let sequence = Sequence::new(request, root, sender, place);
        self.command(Command::Submit(Box::new(sequence)))?;
        Ok(events)
    }

    /// The engine's figures, renewed after every step.
    pub fn status(&self) -> watch::Receiver<EngineStatus> {
        self.shared.status.clone()
    }

    /// What the prefix cache holds now, and every change from then on. Answered between two steps.
    ///
    /// # Errors
    /// A stopped engine.
    pub async fn cache_feed(&self) -> Result<CacheFeed, EngineError> {
        let (sender, receiver) = oneshot::channel();
        self.command(Command::Feed(sender))?;
        receiver.await.map_err(|_| stopped())
    }

    /// Produces one token, after which the engine counts as ready.
    ///
    /// # Errors
    /// Whatever a request can meet.
    pub async fn warm_up(&self) -> Result<(), EngineError> {
        let sampling = Sampling::greedy();
        let request = Request { prompt: vec![0], max_tokens: 1, sampling, ..Request::default() };
        let mut events = self.submit(request)?;
        while let Some(event) = events.next().await {
            match event {
                Event::Finished(_) => return Ok(()),
                Event::Failed(error) => return Err(error),
                Event::Started { .. } | Event::PromptLogprobs(_) | Event::Token(_) => {}
            }
        }
        Err(stopped())
    }

    /// The model that runs.
    pub fn model(&self) -> &Arc<Model> {
        &self.shared.model
    }

    /// What must be equal in another engine for tokens to be equal.
    pub fn numerics_id(&self) -> &NumericsId {
        self.shared.model.numerics_id()
    }

    /// Most tokens of prompt and answer together: the model's limit, the option's, or what KV memory holds.
    pub fn context_tokens_max(&self) -> usize {
        self.shared.context_tokens_max
    }

    /// Ends the engine: what is in flight finishes as cancelled. Blocks until the thread has ended (one step).
    pub fn shutdown(&self) {
        self.shared.shutdown();
    }

    fn command(&self, command: Command) -> Result<(), EngineError> {
        self.shared.commands.send(command).map_err(|_| stopped())
    }
}

impl std::fmt::Debug for EngineHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineHandle").field("status", &*self.shared.status.borrow()).finish_non_exhaustive()
    }
}

impl Shared {
    fn shutdown(&self) {
        // An engine that has ended already takes no commands, which is as good.
        let _ = self.commands.send(Command::Stop);
        let thread = self.thread.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // The loop catches panics of steps; one outside of them was logged by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.shutdown();
    }
}

fn stopped() -> EngineError {
    EngineError::Stopped { problem: "it was shut down".to_owned() }
}

impl Request {
    /// Refuses parameters that are out of range for a vocabulary of `vocab` tokens.
    fn validate(&self, vocab: usize) -> Result<(), EngineError> {
        let check = |good: bool, parameter, problem: &str| match good {
            true => Ok(()),
            false => Err(EngineError::InvalidRequest { parameter, problem: problem.to_owned() }),
        };
        let known = |tokens: &[u32]| tokens.iter().all(|&token| (token as usize) < vocab);
        let top_fits = |top: Option<u32>| top.is_none_or(|top| top <= TOP_LOGPROBS_MAX);
        check(!self.prompt.is_empty(), "prompt", "has no tokens")?;
        check(known(&self.prompt), "prompt", "has a token beyond the vocabulary")?;
        check(known(&self.emitted), "emitted", "has a token beyond the vocabulary")?;
        check(known(&self.stop_tokens), "stop_tokens", "has a token beyond the vocabulary")?;
        check(self.emitted.len() <= self.max_tokens, "emitted", "has more tokens than `max_tokens`")?;
        let wants_something = self.max_tokens > 0 || self.prompt_logprobs.is_some();
        check(wants_something, "max_tokens", "is 0")?;
        check(top_fits(self.logprobs), "logprobs", "asks for more than 20 alternatives")?;
        check(top_fits(self.prompt_logprobs), "prompt_logprobs", "asks for more than 20 alternatives")?;
        self.sampling.validate(vocab, &check)
    }
}

impl Sampling {
    fn validate<F>(&self, vocab: usize, check: &F) -> Result<(), EngineError>
    where
        F: Fn(bool, &'static str, &str) -> Result<(), EngineError>,
    {
        let share = |value: f32| (0.0..=1.0).contains(&value);
        let bias_fits = |&(token, bias): &(u32, f32)| (token as usize) < vocab && bias.is_finite();
        check(
            self.temperature >= 0.0 && self.temperature.is_finite(),
            "temperature",
            "is not a number from 0 up",
        )?;
        check(share(self.top_p) && self.top_p > 0.0, "top_p", "is not above 0 and up to 1")?;
        check(share(self.min_p), "min_p", "is not from 0 to 1")?;
        let repetition = self.repetition_penalty;
        check(repetition > 0.0 && repetition.is_finite(), "repetition_penalty", "is not a number above 0")?;
        check(self.presence_penalty.is_finite(), "presence_penalty", "is not a number")?;
        check(self.frequency_penalty.is_finite(), "frequency_penalty", "is not a number")?;
        check(
            self.logit_bias.iter().all(bias_fits),
            "logit_bias",
            "has an unknown token or a bias that is no number",
        )
    }
}
