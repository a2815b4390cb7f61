//! The engine's thread: takes commands, runs steps, parks when there is nothing to do.
//!
//! A step: `schedule` picks chunks, `forward` computes them, `sample` reads logits and draws tokens, `deliver` hands
//! them out. A panic in the computation fails the sequences of that step; one anywhere else in the loop fails
//! everything in flight and begins anew with an empty cache. Neither ends the thread.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use helios_kernels::{KvPool, Span};
use helios_types::BLOCK_TOKENS;
use tokio::sync::{broadcast, watch};

use crate::cache_feed::DELTAS_BUFFERED;
use crate::decoder::{Batch, Decoder, LOGIT_ROWS_MAX};
use crate::handle::{Command, Shared};
use crate::scheduler::{Chunk, Scheduler};
use crate::sequence::{Outcome, Want};
use crate::step_budget::StepBudget;
use crate::{
    CacheChange, CacheDelta, CacheFeed, EngineError, EngineHandle, EngineOptions, EngineStatus, FinishReason,
    Model, StepReport,
};

/// The native engine. Only a name for [`Engine::start`]: what runs is reached through the [`EngineHandle`].
#[derive(Debug)]
pub struct Engine;

impl Engine {
    /// Takes KV memory and starts the engine's thread.
    ///
    /// # Errors
    /// Options that contradict each other or the model, or a system that refuses the thread.
    pub fn start(model: Arc<Model>, options: EngineOptions) -> Result<EngineHandle, EngineError> {
        options.validate()?;
        let blocks = kv_blocks(&model, &options)?;
        let context_tokens_max = context_tokens_max(&model, &options, blocks);
        let (commands, inbox) = mpsc::channel();
        let (status, status_receiver) = watch::channel(EngineStatus::default());
        let mut shared = Shared {
            model: Arc::clone(&model),
            manifest: options.manifest,
            context_tokens_max,
            in_flight_max: options.sequences_max.saturating_add(options.queue_max),
            in_flight: Arc::new(AtomicUsize::new(0)),
            commands,
            status: status_receiver,
            thread: Mutex::new(None),
        };
        let decoder = Decoder::new(model, Arc::clone(&options.team), blocks, context_tokens_max);
        let mut engine_loop = Loop::new(decoder, blocks, options, inbox, status);
        engine_loop.publish();
        let thread = thread::Builder::new()
            .name("helios-engine".to_owned())
            .spawn(move || engine_loop.run())
            .map_err(|error| EngineError::Stopped {
                problem: format!("its thread could not be started: {error}"),
            })?;
        shared.thread = Mutex::new(Some(thread));
        Ok(EngineHandle::new(shared))
    }
}

/// How many blocks fit the KV memory.
fn kv_blocks(model: &Model, options: &EngineOptions) -> Result<usize, EngineError> {
    let config = model.config();
    let block_bytes = KvPool::block_size_of(config.layers, config.kv_heads, config.head_dim);
    let blocks = options.kv_bytes / block_bytes;
    if blocks == 0 || u32::try_from(blocks).is_err() {
        let problem = format!("of {} makes {blocks} blocks of {block_bytes} bytes", options.kv_bytes);
        return Err(EngineError::Options { option: "kv_bytes", problem });
    }
    Ok(blocks)
}

fn context_tokens_max(model: &Model, options: &EngineOptions, blocks: usize) -> usize {
    let wanted = options.context_tokens_max.unwrap_or(usize::MAX);
    wanted.min(model.config().context_tokens).min(blocks.saturating_mul(BLOCK_TOKENS))
}

/// All that the engine's thread owns.
struct Loop {
    decoder: Decoder,
    scheduler: Scheduler,
    budget: StepBudget,
    options: EngineOptions,
    inbox: mpsc::Receiver<Command>,
    status: watch::Sender<EngineStatus>,
    deltas: broadcast::Sender<CacheDelta>,
    delta_sequence: u64,
    totals: Totals,
}

/// Totals since start.
#[derive(Default)]
struct Totals {
    steps: u64,
    prefill_tokens: u64,
    generated_tokens: u64,
    failures: u64,
}

/// What became of a running sequence in a step.
enum Verdict {
    Finished(FinishReason),
    Failed(EngineError),
}

/// A row of logits that somebody wants: its index in the batch, for whom and what.
struct Row {
    index: usize,
    sequence: usize,
    want: Want,
}

impl Loop {
    fn new(
        decoder: Decoder,
        blocks: usize,
        options: EngineOptions,
        inbox: mpsc::Receiver<Command>,
        status: watch::Sender<EngineStatus>,
    ) -> Self {
        Self {
            decoder,
            scheduler: Scheduler::new(options.sequences_max, blocks),
            budget: StepBudget::new(options.step_target, options.step_tokens_min, options.step_tokens_max),
            options,
            inbox,
            status,
            deltas: broadcast::channel(DELTAS_BUFFERED).0,
            delta_sequence: 0,
            totals: Totals::default(),
        }
    }

    /// The life of the thread.
    fn run(mut self) {
        while self.take_commands() {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.tick())) {
                self.begin_anew(panic);
            }
            self.publish();
        }
        for sequence in self.scheduler.drain() {
            sequence.finish(FinishReason::Cancelled);
        }
    }

    /// Obeys what was asked for, and waits for it if there is nothing else to do; false when the engine should end.
    fn take_commands(&mut self) -> bool {
        if self.scheduler.is_idle() {
            let Ok(command) = self.inbox.recv() else { return false };
            if !self.obey(command) {
                return false;
            }
        }
        while let Ok(command) = self.inbox.try_recv() {
            if !self.obey(command) {
                return false;
            }
        }
        true
    }

    fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Submit(sequence) => self.scheduler.add(*sequence),
            Command::Feed(reply) => {
                let stored = self.scheduler.blocks().stored().collect();
                let deltas = self.deltas.subscribe();
                // Whoever asked may have gone away.
                let _ = reply.send(CacheFeed { sequence: self.delta_sequence, stored, deltas });
            }
            Command::Stop => return false,
        }
        true
    }

    fn tick(&mut self) {
        self.scheduler.drop_cancelled();
        let chunks = self.scheduler.schedule(self.budget.tokens());
        if chunks.is_empty() {
            return;
        }
        let verdicts = match catch_unwind(AssertUnwindSafe(|| self.forward(&chunks))) {
            Ok(()) => self.sample(&chunks),
            Err(panic) => self.fail_chunks(&chunks, &panic),
        };
        let failures = &mut self.totals.failures;
        self.scheduler.remove(verdicts, |sequence, verdict| match verdict {
            Verdict::Finished(reason) => sequence.finish(reason),
            Verdict::Failed(error) => {
                *failures += 1;
                sequence.fail(error);
            }
        });
    }

    /// Computes the chunks, and takes note of how long that took.
    fn forward(&mut self, chunks: &[Chunk]) {
        let started = (self.options.clock)();
        let batch = assemble(&self.scheduler, chunks);
        self.decoder.forward(&batch);
        let tokens = batch.tokens.len();
        let decode_tokens =
            chunks.iter().filter(|chunk| self.scheduler.running()[chunk.sequence].pending() == 1).count();
        let took = (self.options.clock)().saturating_sub(started);
        self.budget.observe(tokens, took);
        self.totals.steps += 1;
        self.totals.prefill_tokens += (tokens - decode_tokens) as u64;
        if let Some(observe) = &self.options.observer {
            let prefill_tokens = tokens - decode_tokens;
            observe(&StepReport { sequences: chunks.len(), prefill_tokens, decode_tokens, forward: took });
        }
    }

    /// Reads the logits that are wanted and moves every sequence of the step on.
    fn sample(&mut self, chunks: &[Chunk]) -> Vec<Option<Verdict>> {
        let rows = wanted_rows(&self.scheduler, chunks);
        chunks.iter().for_each(|&chunk| self.scheduler.advance(chunk));
        let mut verdicts: Vec<Option<Verdict>> = self.scheduler.running().iter().map(|_| None).collect();
        for rows in rows.chunks(LOGIT_ROWS_MAX) {
            let outcomes = self.read_rows(rows);
            for (row, outcome) in rows.iter().zip(outcomes) {
                let verdict = &mut verdicts[row.sequence];
                if verdict.is_none() {
                    *verdict = self.accept(row.sequence, outcome);
                }
            }
        }
        for chunk in chunks {
            if self.scheduler.running()[chunk.sequence].is_complete() {
                verdicts[chunk.sequence].get_or_insert(Verdict::Finished(FinishReason::Length));
            }
        }
        verdicts
    }

    /// Reads up to [`LOGIT_ROWS_MAX`] rows, all threads at once; a panic is the error of its row alone.
    fn read_rows(&mut self, rows: &[Row]) -> Vec<Result<Outcome, EngineError>> {
        let indices: Vec<usize> = rows.iter().map(|row| row.index).collect();
        let logits = self.decoder.logits(&indices);
        let vocab = logits.len() / rows.len();
        let running = self.scheduler.running();
        let mut outcomes: Vec<_> = rows.iter().map(|_| None).collect();
        self.options.team.run_chunks(&mut outcomes, 1, &|index, outcome| {
            let (row, logits) = (&rows[index], &logits[index * vocab..][..vocab]);
            let read = || running[row.sequence].read_logits(row.want, logits);
            outcome[0] =
                Some(catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| Err(fault(&panic))));
        });
        outcomes.into_iter().map(|outcome| outcome.expect("invariant: the team ran every row")).collect()
    }

    fn accept(&mut self, sequence: usize, outcome: Result<Outcome, EngineError>) -> Option<Verdict> {
        match outcome {
            Ok(outcome) => {
                self.totals.generated_tokens += u64::from(matches!(outcome, Outcome::NextToken(..)));
                self.scheduler.running_mut(sequence).accept(outcome).map(Verdict::Finished)
            }
            Err(error) => Some(Verdict::Failed(error)),
        }
    }

    fn fail_chunks(&self, chunks: &[Chunk], panic: &Box<dyn Any + Send>) -> Vec<Option<Verdict>> {
        let mut verdicts: Vec<Option<Verdict>> = self.scheduler.running().iter().map(|_| None).collect();
        for chunk in chunks {
            verdicts[chunk.sequence] = Some(Verdict::Failed(fault(panic)));
        }
        verdicts
    }

    /// After a panic in the books themselves nothing in them can be trusted: everything in flight fails, and the cache
    /// is empty.
    fn begin_anew(&mut self, panic: Box<dyn Any + Send>) {
        let error = fault(&panic);
        tracing::error!(%error, "the engine's loop begins anew with an empty cache");
        let blocks = self.scheduler.blocks().total();
        let mut changes = self.scheduler.blocks_mut().take_changes();
        changes.extend(self.scheduler.blocks().stored().map(CacheChange::Removed));
        let old = std::mem::replace(&mut self.scheduler, Scheduler::new(self.options.sequences_max, blocks));
        for sequence in old.abandon() {
            self.totals.failures += 1;
            sequence.fail(error.clone());
        }
        self.publish_changes(changes);
    }

    fn publish(&mut self) {
        let changes = self.scheduler.blocks_mut().take_changes();
        self.publish_changes(changes);
        let (scheduler, blocks, totals) = (&self.scheduler, self.scheduler.blocks(), self.scheduler.totals());
        let status = EngineStatus {
            ready: self.totals.generated_tokens > 0,
            last_tick: (self.options.clock)(),
            running: scheduler.running().len(),
            queued: scheduler.queued(),
            queued_prefill_tokens: scheduler.queued_prefill_tokens(),
            kv_blocks_total: blocks.total(),
            kv_blocks_used: blocks.used(),
            kv_blocks_cached: blocks.cached(),
            step_tokens: self.budget.tokens(),
            tokens_per_second: self.budget.tokens_per_second(),
            steps_total: self.totals.steps,
            prefill_tokens_total: self.totals.prefill_tokens,
            generated_tokens_total: self.totals.generated_tokens,
            prefix_query_tokens_total: totals.prefix_query_tokens,
            prefix_hit_tokens_total: totals.prefix_hit_tokens,
            preemptions_total: totals.preemptions,
            failures_total: self.totals.failures,
        };
        self.status.send_replace(status);
    }

    fn publish_changes(&mut self, changes: Vec<CacheChange>) {
        if !changes.is_empty() {
            self.delta_sequence += 1;
            // Nobody may be listening.
            let _ = self.deltas.send(CacheDelta { sequence: self.delta_sequence, changes });
        }
    }
}

/// The tokens and places of all chunks, one behind the other.
fn assemble<'a>(scheduler: &'a Scheduler, chunks: &[Chunk]) -> Batch<'a> {
    let mut batch = Batch { tokens: Vec::new(), spans: Vec::with_capacity(chunks.len()) };
    for chunk in chunks {
        let sequence = &scheduler.running()[chunk.sequence];
        let start = sequence.computed();
        batch.tokens.extend_from_slice(&sequence.tokens()[start..start + chunk.tokens]);
        batch.spans.push(Span { blocks: &sequence.blocks, start, tokens: chunk.tokens });
    }
    batch
}

/// The rows of the batch whose logits are wanted, those of one sequence in order.
fn wanted_rows(scheduler: &Scheduler, chunks: &[Chunk]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut first = 0;
    for &Chunk { sequence, tokens } in chunks {
        let wants = scheduler.running()[sequence].wants(tokens);
        rows.extend(wants.into_iter().map(|(offset, want)| Row { index: first + offset, sequence, want }));
        first += tokens;
    }
    rows
}

/// The error that a request hears of when a step panicked.
fn fault(panic: &Box<dyn Any + Send>) -> EngineError {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    EngineError::Internal { problem: text.unwrap_or_else(|| "a fault without a message".to_owned()) }
}
