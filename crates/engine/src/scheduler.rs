//! Which sequences take part in the next step, and with how many tokens.
//!
//! A step has a budget of tokens. Sequences that are due one token come first, so that running streams keep their
//! pace; what is left goes to prompts, in the order in which they were admitted, a chunk at a time; then requests are
//! admitted from the queue while there is room. When KV blocks run out, the youngest running sequence loses its own
//! and goes back to the head of the queue, to be computed again: the oldest therefore always gets on, and every
//! request ends.

use std::collections::VecDeque;

use crate::blocks::BlockManager;
use crate::sequence::Sequence;

/// A part of a step: the next `tokens` pending tokens of a running sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Index among the running sequences.
    pub(crate) sequence: usize,
    /// How many tokens.
    pub(crate) tokens: usize,
}

/// Totals since start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SchedulerTotals {
    pub(crate) preemptions: u64,
    pub(crate) prefix_query_tokens: u64,
    pub(crate) prefix_hit_tokens: u64,
}

/// The queue, the running sequences and the KV blocks they share.
pub(crate) struct Scheduler {
    sequences_max: usize,
    waiting: VecDeque<Sequence>,
    /// In the order in which they were admitted.
    running: Vec<Sequence>,
    blocks: BlockManager,
    totals: SchedulerTotals,
}

impl Scheduler {
    /// An empty scheduler over `blocks` KV blocks.
    pub(crate) fn new(sequences_max: usize, blocks: usize) -> Self {
        let blocks = BlockManager::new(blocks);
        let totals = SchedulerTotals::default();
        Self { sequences_max, waiting: VecDeque::new(), running: Vec::new(), blocks, totals }
    }

    /// Puts a sequence at the end of the queue.
    pub(crate) fn add(&mut self, sequence: Sequence) {
        self.waiting.push_back(sequence);
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// The chunks of a step of at most `budget` tokens, each with its blocks. Empty only if there is nothing to do.
    pub(crate) fn schedule(&mut self, budget: usize) -> Vec<Chunk> {
        let mut step = Step { chunks: Vec::new(), left: budget };
        self.schedule_running(&mut step, |pending| pending == 1);
        self.schedule_running(&mut step, |pending| pending > 1);
        while step.left > 0 && self.admit() {
            self.schedule_at(self.running.len() - 1, &mut step);
        }
        step.chunks.sort_unstable_by_key(|chunk| chunk.sequence);
        step.chunks
    }

    fn schedule_running(&mut self, step: &mut Step, takes: impl Fn(usize) -> bool) {
        let mut index = 0;
        while index < self.running.len() && step.left > 0 {
            if takes(self.running[index].pending()) {
                self.schedule_at(index, step);
            }
            index += 1;
        }
    }

    /// Adds the running sequence at `index` to the step, at the expense of younger ones if blocks are short. Does
    /// nothing if it is the youngest and loses its own.
    fn schedule_at(&mut self, index: usize, step: &mut Step) {
        let sequence = &self.running[index];
        let tokens = sequence.pending().min(step.left);
        let missing = sequence.blocks_missing(sequence.computed() + tokens);
        while self.blocks.free() < missing {
            self.preempt_youngest(step);
            if index == self.running.len() {
                return;
            }
        }
        for _ in 0..missing {
            let block = self.blocks.allocate().expect("invariant: enough blocks are free");
            self.running[index].blocks.push(block);
        }
        step.chunks.push(Chunk { sequence: index, tokens });
        step.left -= tokens;
    }

    /// Moves the first of the queue to the running sequences if it fits; says whether it did.
    fn admit(&mut self) -> bool {
        if self.running.len() == self.sequences_max {
            return false;
        }
        let promised: usize =
            self.running.iter().map(|running| running.blocks_missing(running.tokens().len())).sum();
        let Some(sequence) = self.waiting.front_mut() else { return false };
        let blocks = &mut self.blocks;
        let mut prefix: Vec<_> =
            sequence.reusable_hashes().iter().map_while(|hash| blocks.acquire(hash)).collect();
        let prompt_blocks = sequence.blocks_missing(sequence.tokens().len());
        if prompt_blocks - prefix.len() + promised > blocks.free() {
            blocks.release_all(&mut prefix);
            return false;
        }
        self.totals.prefix_query_tokens += sequence.tokens().len() as u64;
        sequence.start(prefix);
        self.totals.prefix_hit_tokens += sequence.computed() as u64;
        self.running.extend(self.waiting.pop_front());
        true
    }

    /// Sends the youngest running sequence back to the head of the queue, and out of the step.
    fn preempt_youngest(&mut self, step: &mut Step) {
        let mut sequence = self.running.pop().expect("invariant: whoever needs blocks is running");
        let index = self.running.len();
        step.left += step
            .chunks
            .extract_if(.., |chunk| chunk.sequence == index)
            .map(|chunk| chunk.tokens)
            .sum::<usize>();
        self.blocks.release_all(&mut sequence.blocks);
        sequence.reset();
        self.waiting.push_front(sequence);
        self.totals.preemptions += 1;
    }

    /// The running sequences, in the order that chunks count.
    pub(crate) fn running(&self) -> &[Sequence] {
        &self.running
    }

    /// A running sequence.
    pub(crate) fn running_mut(&mut self, index: usize) -> &mut Sequence {
        &mut self.running[index]
    }

    /// Takes note that a chunk is computed: its full blocks become known to the prefix cache.
    pub(crate) fn advance(&mut self, chunk: Chunk) {
        for (block, hash) in self.running[chunk.sequence].advance(chunk.tokens) {
            self.blocks.store(block, hash);
        }
    }

    /// Takes out running sequences, frees their blocks, and hands each to `end` with what `verdicts` has at its
    /// index; where it has none the sequence stays.
    pub(crate) fn remove<T>(&mut self, verdicts: Vec<Option<T>>, mut end: impl FnMut(Sequence, T)) {
        let mut kept = Vec::with_capacity(self.running.len());
        for (mut sequence, verdict) in self.running.drain(..).zip(verdicts) {
            match verdict {
                None => kept.push(sequence),
                Some(verdict) => {
                    self.blocks.release_all(&mut sequence.blocks);
                    end(sequence, verdict);
                }
            }
        }
        self.running = kept;
    }

    /// Drops what nobody listens to any more.
    pub(crate) fn drop_cancelled(&mut self) {
        self.waiting.retain(|sequence| !sequence.is_cancelled());
        let cancelled = self.running.iter().map(|sequence| sequence.is_cancelled().then_some(())).collect();
        self.remove(cancelled, |sequence, ()| drop(sequence));
    }

    /// Takes out every sequence, for an end or a new beginning.
    pub(crate) fn drain(&mut self) -> Vec<Sequence> {
        let mut all: Vec<Sequence> = self.running.drain(..).chain(self.waiting.drain(..)).collect();
        all.iter_mut().for_each(|sequence| self.blocks.release_all(&mut sequence.blocks));
        all
    }

    /// Takes out every sequence without a look at the books.
    pub(crate) fn abandon(self) -> impl Iterator<Item = Sequence> {
        self.running.into_iter().chain(self.waiting)
    }

    /// Requests that wait.
    pub(crate) fn queued(&self) -> usize {
        self.waiting.len()
    }

    /// Tokens that must be computed before every waiting and running sequence is due its next token.
    pub(crate) fn queued_prefill_tokens(&self) -> usize {
        let pending = self.waiting.iter().chain(&self.running).map(Sequence::pending);
        pending.filter(|&pending| pending > 1).sum()
    }

    /// The books of the KV blocks.
    pub(crate) fn blocks(&self) -> &BlockManager {
        &self.blocks
    }

    /// The books of the KV blocks, to take the changes out.
    pub(crate) fn blocks_mut(&mut self) -> &mut BlockManager {
        &mut self.blocks
    }

    /// Totals since start.
    pub(crate) fn totals(&self) -> SchedulerTotals {
        self.totals
    }
}

/// A step while it is put together.
struct Step {
    chunks: Vec<Chunk>,
    /// Tokens left of the budget.
    left: usize,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use helios_types::{BlockHash, TokenId};
    use proptest::prelude::*;

    use super::{Chunk, Scheduler};
    use crate::handle::Place;
    use crate::sequence::{Outcome, Sequence, Want};
    use crate::{Event, Events, FinishReason, Request};

    const BLOCKS: usize = 12;

    fn sequence(prompt: Vec<TokenId>, max_tokens: usize, in_flight: &Arc<AtomicUsize>) -> (Sequence, Events) {
        let (sender, events) = Events::channel(max_tokens);
        let place = Place::take(in_flight, usize::MAX).unwrap();
        let request = Request { prompt, max_tokens, ..Request::default() };
        (Sequence::new(request, BlockHash::from_bytes([0; 16]), sender, place), events)
    }

    /// What the engine does with a schedule, without a model: every token that is due is a 7.
    fn step(scheduler: &mut Scheduler, chunks: &[Chunk]) {
        let wants: Vec<_> = chunks.iter().map(|c| scheduler.running()[c.sequence].wants(c.tokens)).collect();
        chunks.iter().for_each(|&chunk| scheduler.advance(chunk));
        for (chunk, wants) in chunks.iter().zip(wants) {
            for (_, want) in wants {
                assert_eq!(want, Want::NextToken);
                assert_eq!(scheduler.running_mut(chunk.sequence).accept(Outcome::NextToken(7, None)), None);
            }
        }
        let complete = scheduler.running().iter().map(|s| s.is_complete().then_some(())).collect();
        scheduler.remove(complete, |sequence, ()| sequence.finish(FinishReason::Length));
    }

    fn assert_books(scheduler: &Scheduler) {
        let held = scheduler.running().iter().flat_map(|sequence| sequence.blocks.iter().copied());
        scheduler.blocks().assert_consistent(held);
        assert!(scheduler.waiting.iter().all(|sequence| sequence.blocks.is_empty()));
    }

    proptest! {
        #[test]
        fn every_request_ends_within_the_bounds_and_no_block_leaks(
            arrivals in prop::collection::vec((0_u32..3, 1_usize..100, 1_usize..90, any::<bool>(), 0_usize..6), 1..20),
            sequences_max in 1_usize..6,
            budget in 1_usize..60,
        ) {
            let in_flight = Arc::new(AtomicUsize::new(0));
            let mut scheduler = Scheduler::new(sequences_max, BLOCKS);
            let mut kept = Vec::new();
            let (mut arrivals, mut steps) = (arrivals.into_iter(), 0);
            let mut next = arrivals.next();
            while next.is_some() || !scheduler.is_idle() {
                if let Some((prefix, prompt, max_tokens, stays, _)) = next.take_if(|next| next.4 == 0) {
                    let (sequence, events) = sequence(vec![prefix; prompt], max_tokens, &in_flight);
                    scheduler.add(sequence);
                    kept.extend(stays.then_some((events, max_tokens)));
                    next = arrivals.next();
                } else if let Some(next) = &mut next {
                    next.4 -= 1;
                }
                scheduler.drop_cancelled();
                let chunks = scheduler.schedule(budget);
                prop_assert_eq!(chunks.is_empty(), scheduler.is_idle());
                prop_assert!(chunks.iter().map(|chunk| chunk.tokens).sum::<usize>() <= budget);
                prop_assert!(scheduler.running().len() <= sequences_max);
                prop_assert!(chunks.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
                assert_books(&scheduler);
                step(&mut scheduler, &chunks);
                assert_books(&scheduler);
                steps += 1;
                prop_assert!(steps < 100_000, "requests do not end");
            }
            prop_assert_eq!(scheduler.blocks().used(), 0);
            prop_assert_eq!(in_flight.load(std::sync::atomic::Ordering::SeqCst), 0);
            for (mut events, max_tokens) in kept {
                let events: Vec<Event> = std::iter::from_fn(|| events.try_next()).collect();
                prop_assert_eq!(events.len(), max_tokens + 2);
                prop_assert!(matches!(events.last(), Some(Event::Finished(_))));
            }
        }
    }

    #[test]
    fn running_streams_get_their_token_before_a_prompt_gets_its_chunk() {
        let in_flight = Arc::new(AtomicUsize::new(0));
        let mut scheduler = Scheduler::new(4, BLOCKS);
        let mut lines = Vec::new();
        for (token, prompt) in [(1, 5), (2, 40), (3, 5)] {
            let (sequence, events) = sequence(vec![token; prompt], 10, &in_flight);
            scheduler.add(sequence);
            lines.push(events);
        }
        let chunks = scheduler.schedule(8);
        assert_eq!(chunks, [Chunk { sequence: 0, tokens: 5 }, Chunk { sequence: 1, tokens: 3 }]);
        step(&mut scheduler, &chunks);
        let chunks = scheduler.schedule(8);
        assert_eq!(chunks, [Chunk { sequence: 0, tokens: 1 }, Chunk { sequence: 1, tokens: 7 }]);
    }
}
