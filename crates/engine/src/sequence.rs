//! One request on its way through the engine: its tokens, its KV blocks, and its line to the client.

use helios_types::{BLOCK_TOKENS, BlockHash, TokenId};
use tokio::sync::mpsc;

use crate::blocks::BlockId;
use crate::handle::Place;
use crate::sampler::{History, sample};
use crate::{EngineError, Event, Finish, FinishReason, Request, Token, TokenLogprobs};

/// A request with its state.
pub(crate) struct Sequence {
    request: Request,
    /// Prompt and answer.
    tokens: Vec<TokenId>,
    /// How many of the tokens have their KV in blocks.
    computed: usize,
    /// The blocks, in order; shared ones only in front.
    pub(crate) blocks: Vec<BlockId>,
    /// How many of the blocks were offered to the prefix cache or came from it.
    blocks_stored: usize,
    /// The hash of the empty prefix, then of every whole block so far.
    hashes: Vec<BlockHash>,
    history: Option<History>,
    /// Those of the prompt so far; none when not wanted or delivered.
    prompt_logprobs: Option<Vec<Option<TokenLogprobs>>>,
    /// Tokens found in the prefix cache at the first start.
    cached_tokens: Option<usize>,
    events: mpsc::Sender<Event>,
    /// Counts the sequence among the requests in flight as long as it lives.
    _place: Place,
}

/// What a row of logits is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// The log-probability of the prompt's token at this position.
    PromptLogprob {
        /// The position.
        position: usize,
    },
    /// The next token of the answer.
    NextToken,
}

/// What was made of a row of logits.
pub(crate) enum Outcome {
    PromptLogprob(TokenLogprobs),
    NextToken(TokenId, Option<TokenLogprobs>),
}

impl Sequence {
    /// A sequence for a checked request. `root` is the block hash of its empty prefix.
    pub(crate) fn new(request: Request, root: BlockHash, events: mpsc::Sender<Event>, place: Place) -> Self {
        let mut history = History::of_prompt(&request.sampling, &request.prompt);
        if let Some(history) = &mut history {
            request.emitted.iter().for_each(|&token| history.add(token));
        }
        let tokens = [request.prompt.as_slice(), &request.emitted].concat();
        // The first token of a prompt has no log-probability.
        let prompt_logprobs = request.prompt_logprobs.map(|_| vec![None]);
        Self {
            request,
            tokens,
            computed: 0,
            blocks: Vec::new(),
            blocks_stored: 0,
            hashes: vec![root],
            history,
            prompt_logprobs,
            cached_tokens: None,
            events,
            _place: place,
        }
    }

    /// All tokens known so far.
    pub(crate) fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// How many tokens have their KV in blocks.
    pub(crate) fn computed(&self) -> usize {
        self.computed
    }

    /// Tokens that must be computed before the next one can be drawn.
    pub(crate) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Blocks that the first `tokens` tokens need beyond those that are held.
    pub(crate) fn blocks_missing(&self, tokens: usize) -> usize {
        tokens.div_ceil(BLOCK_TOKENS).saturating_sub(self.blocks.len())
    }

    /// Whether nobody listens any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.events.is_closed()
    }

    /// Whether nothing is left to compute.
    pub(crate) fn is_complete(&self) -> bool {
        self.answer_tokens() >= self.request.max_tokens && self.prompt_logprobs.is_none()
    }

    /// The hashes under which a prefix of this sequence may be cached. One token at least is left to compute, because
    /// its logits are needed; all are if the prompt's log-probabilities are wanted.
    pub(crate) fn reusable_hashes(&mut self) -> &[BlockHash] {
        self.extend_hashes();
        let reusable = match self.prompt_logprobs {
            Some(_) => 0,
            None => (self.tokens.len() - 1) / BLOCK_TOKENS,
        };
        &self.hashes[1..][..reusable]
    }

    /// Begins with the blocks of a cached prefix.
    pub(crate) fn start(&mut self, prefix: Vec<BlockId>) {
        assert!(self.blocks.is_empty(), "a sequence starts while it holds blocks");
        self.computed = prefix.len() * BLOCK_TOKENS;
        self.blocks_stored = prefix.len();
        self.blocks = prefix;
        if self.cached_tokens.is_none() {
            self.cached_tokens = Some(self.computed);
            let prompt_tokens = self.request.prompt.len();
            self.send(Event::Started { prompt_tokens, cached_tokens: self.computed });
            self.deliver_prompt_logprobs();
        }
    }

    /// Forgets what was computed, after its blocks were given away.
    pub(crate) fn reset(&mut self) {
        assert!(self.blocks.is_empty(), "a sequence is reset while it holds blocks");
        self.computed = 0;
        self.blocks_stored = 0;
        if let Some(logprobs) = &mut self.prompt_logprobs {
            logprobs.truncate(1);
        }
    }

    /// What the logits of a chunk of `tokens` tokens from the first pending one on are wanted for: offsets in the
    /// chunk, with the purpose.
    pub(crate) fn wants(&self, tokens: usize) -> Vec<(usize, Want)> {
        let mut wants = Vec::new();
        if self.prompt_logprobs.is_some() {
            let predicted = self.computed + 1..(self.computed + tokens + 1).min(self.request.prompt.len());
            wants
                .extend(predicted.enumerate().map(|(row, position)| (row, Want::PromptLogprob { position })));
        }
        if tokens == self.pending() && self.answer_tokens() < self.request.max_tokens {
            wants.push((tokens - 1, Want::NextToken));
        }
        wants
    }

    /// Reads a row of logits. Changes nothing, so that many sequences can do it at the same time.
    pub(crate) fn read_logits(&self, want: Want, logits: &[f32]) -> Result<Outcome, EngineError> {
        match want {
            Want::PromptLogprob { position } => {
                let top = self.request.prompt_logprobs.unwrap_or(0);
                let logprobs = crate::logprobs::token_logprobs(logits, self.tokens[position], top);
                Ok(Outcome::PromptLogprob(logprobs))
            }
            Want::NextToken => {
                let early = self.answer_tokens() < self.request.min_tokens;
                let suppressed = if early { self.request.stop_tokens.as_slice() } else { &[] };
                let history = self.history.as_ref();
                let id = sample(logits, &self.request.sampling, history, suppressed, self.tokens.len())?;
                let logprobs =
                    self.request.logprobs.map(|top| crate::logprobs::token_logprobs(logits, id, top));
                Ok(Outcome::NextToken(id, logprobs))
            }
        }
    }

    /// Takes note that the next `tokens` pending tokens are computed. Gives the blocks that became full, with their
    /// hashes.
    pub(crate) fn advance(&mut self, tokens: usize) -> Vec<(BlockId, BlockHash)> {
        self.computed += tokens;
        self.extend_hashes();
        let full = self.blocks_stored..self.computed / BLOCK_TOKENS;
        self.blocks_stored = full.end;
        full.map(|index| (self.blocks[index], self.hashes[index + 1])).collect()
    }

    /// Takes what was read from a row of logits; says whether it is a stop token.
    pub(crate) fn accept(&mut self, outcome: Outcome) -> Option<FinishReason> {
        match outcome {
            Outcome::PromptLogprob(logprobs) => {
                self.prompt_logprobs.get_or_insert_default().push(Some(logprobs));
                self.deliver_prompt_logprobs();
            }
            Outcome::NextToken(token, _) if self.request.stop_tokens.contains(&token) => {
                return Some(FinishReason::Stop { token });
            }
            Outcome::NextToken(id, logprobs) => {
                let index = self.answer_tokens();
                self.tokens.push(id);
                if let Some(history) = &mut self.history {
                    history.add(id);
                }
                self.send(Event::Token(Token { index, id, logprobs }));
            }
        }
        None
    }

    /// Sends the prompt's log-probabilities once there is one for each of its tokens.
    fn deliver_prompt_logprobs(&mut self) {
        let prompt_tokens = self.request.prompt.len();
        if let Some(logprobs) = self.prompt_logprobs.take_if(|logprobs| logprobs.len() == prompt_tokens) {
            self.send(Event::PromptLogprobs(logprobs));
        }
    }

    /// Tells the client how the answer ended.
    pub(crate) fn finish(self, reason: FinishReason) {
        let finish = Finish {
            reason,
            prompt_tokens: self.request.prompt.len(),
            cached_tokens: self.cached_tokens.unwrap_or(0),
            completion_tokens: self.answer_tokens(),
        };
        self.send(Event::Finished(finish));
    }

    /// Tells the client that the answer ended in a fault.
    pub(crate) fn fail(self, error: EngineError) {
        self.send(Event::Failed(error));
    }

    fn answer_tokens(&self) -> usize {
        self.tokens.len() - self.request.prompt.len()
    }

    fn extend_hashes(&mut self) {
        while let Some(block) = self.tokens.chunks_exact(BLOCK_TOKENS).nth(self.hashes.len() - 1) {
            let parent = self.hashes[self.hashes.len() - 1];
            self.hashes.push(parent.child(block));
        }
    }

    /// A client that is gone is noticed by `is_cancelled`; the channel has room for every event of a request.
    fn send(&self, event: Event) {
        let _ = self.events.try_send(event);
    }
}
