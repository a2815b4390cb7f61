//! From a row of logits to a token: bias, penalties, temperature, min-p, top-k, top-p, and one draw.
//!
//! Semantics and order are vLLM's. The vocabulary is never sorted: thresholds and partial selection leave few
//! candidates, and only those are ordered. Every choice among equals goes to the smaller id, and sums run in a fixed
//! order, so that the same logits, history and position give the same token everywhere.

use std::borrow::Cow;
use std::collections::BTreeMap;

use helios_kernels::{argmax, exp_in_place};
use helios_types::TokenId;

use crate::draw::uniform;
use crate::{EngineError, Sampling};

/// How often the tokens of a sequence occurred; kept only where a penalty asks for it.
#[derive(Debug, Default)]
pub(crate) struct History {
    seen: BTreeMap<TokenId, Seen>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Occurrences in the answer; the prompt counts for the repetition penalty only.
    in_answer: u32,
}

impl History {
    /// The history of a prompt, or none if `sampling` has no penalties.
    pub(crate) fn of_prompt(sampling: &Sampling, prompt: &[TokenId]) -> Option<Self> {
        let counts_answer = sampling.presence_penalty != 0.0 || sampling.frequency_penalty != 0.0;
        if !counts_answer && sampling.repetition_penalty == 1.0 {
            return None;
        }
        Some(Self { seen: prompt.iter().map(|&token| (token, Seen::default())).collect() })
    }

    /// Counts a token of the answer.
    pub(crate) fn add(&mut self, token: TokenId) {
        self.seen.entry(token).or_default().in_answer += 1;
    }

    /// Subtracts the penalties. O(distinct tokens).
    fn penalise(&self, sampling: &Sampling, logits: &mut [f32]) {
        for (&token, seen) in &self.seen {
            let logit = &mut logits[token as usize];
            *logit = match *logit > 0.0 {
                true => *logit / sampling.repetition_penalty,
                false => *logit * sampling.repetition_penalty,
            };
            if seen.in_answer > 0 {
                *logit -= sampling.frequency_penalty * seen.in_answer as f32 + sampling.presence_penalty;
            }
        }
    }
}

/// Takes the token for `position` of a sequence. `suppressed` tokens cannot come.
///
/// # Errors
/// Logits that leave nothing to choose: no finite one.
pub(crate) fn sample(
    logits: &[f32],
    sampling: &Sampling,
    history: Option<&History>,
    suppressed: &[TokenId],
    position: usize,
) -> Result<TokenId, EngineError> {
    let logits = adjust(logits, sampling, history, suppressed);
    let likeliest =
        argmax(&logits).filter(|&id| logits[id].is_finite()).ok_or_else(|| EngineError::Internal {
            problem: format!("the logits at position {position} leave no token to choose"),
        })?;
    if sampling.temperature == 0.0 {
        return Ok(likeliest as TokenId);
    }
    let scores = scaled_scores(&logits, logits[likeliest], sampling);
    let scores = keep_top_k(scores, sampling.top_k as usize);
    let weights = keep_top_p(exponentials(scores), f64::from(sampling.top_p));
    Ok(draw(&weights, uniform(sampling.seed, position)))
}

/// A token with its score or weight.
type Candidate = (TokenId, f32);

fn adjust<'a>(
    logits: &'a [f32],
    sampling: &Sampling,
    history: Option<&History>,
    suppressed: &[TokenId],
) -> Cow<'a, [f32]> {
    if sampling.logit_bias.is_empty() && history.is_none() && suppressed.is_empty() {
        return Cow::Borrowed(logits);
    }
    let mut adjusted = logits.to_vec();
    for &(token, bias) in &sampling.logit_bias {
        adjusted[token as usize] += bias;
    }
    for &token in suppressed {
        adjusted[token as usize] = f32::NEG_INFINITY;
    }
    if let Some(history) = history {
        history.penalise(sampling, &mut adjusted);
    }
    Cow::Owned(adjusted)
}

/// Logits relative to the greatest, over the temperature: 0 and below. Leaves out what min-p excludes, and tokens that
/// cannot come at all.
fn scaled_scores(logits: &[f32], max: f32, sampling: &Sampling) -> Vec<Candidate> {
    let least = sampling.min_p.ln();
    let scores =
        logits.iter().enumerate().map(|(id, logit)| (id as TokenId, (logit - max) / sampling.temperature));
    scores.filter(|&(_, score)| score >= least && score > f32::NEG_INFINITY).collect()
}

fn keep_top_k(mut candidates: Vec<Candidate>, count: usize) -> Vec<Candidate> {
    if count > 0 && count < candidates.len() {
        order_greatest(&mut candidates, count);
        candidates.truncate(count);
    }
    candidates
}

fn exponentials(scores: Vec<Candidate>) -> Vec<Candidate> {
    let mut weights: Vec<f32> = scores.iter().map(|&(_, score)| score).collect();
    exp_in_place(&mut weights);
    scores.into_iter().zip(weights).map(|((id, _), weight)| (id, weight)).collect()
}

/// Keeps the fewest of the heaviest candidates that hold `share` of the weight.
fn keep_top_p(mut candidates: Vec<Candidate>, share: f64) -> Vec<Candidate> {
    /// Of sharp distributions 64 hold nearly everything; flat ones need few more rounds.
    const FIRST_LOOK: usize = 64;
    const GROWTH: usize = 8;
    if share >= 1.0 {
        return candidates;
    }
    let wanted = share * total(&candidates);
    let mut count = FIRST_LOOK;
    loop {
        count = count.min(candidates.len());
        order_greatest(&mut candidates, count);
        if let Some(kept) = reaching(&candidates[..count], wanted) {
            candidates.truncate(kept);
            return candidates;
        }
        if count == candidates.len() {
            return candidates;
        }
        count *= GROWTH;
    }
}

/// How many of the first candidates weigh `wanted` together.
fn reaching(candidates: &[Candidate], wanted: f64) -> Option<usize> {
    let mut sum = 0.0;
    let place = candidates.iter().position(|&(_, weight)| {
        sum += f64::from(weight);
        sum >= wanted
    });
    place.map(|place| place + 1)
}

/// Brings the `count` greatest to the front, greatest first, the smaller id first among equals.
fn order_greatest(candidates: &mut [Candidate], count: usize) {
    let order = |a: &Candidate, b: &Candidate| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if count < candidates.len() {
        candidates.select_nth_unstable_by(count, order);
    }
    candidates[..count].sort_unstable_by(order);
}

fn total(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|&(_, weight)| f64::from(weight)).sum()
}

/// The candidate in whose part of the total weight `uniform` (in `[0, 1)`) falls.
fn draw(candidates: &[Candidate], uniform: f64) -> TokenId {
    let place = uniform * total(candidates);
    let mut sum = 0.0;
    let hit = candidates.iter().find(|&&(_, weight)| {
        sum += f64::from(weight);
        sum > place
    });
    hit.or(candidates.last()).expect("invariant: the likeliest token is always a candidate").0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{History, Sampling, sample};

    const LOGITS: [f32; 5] = [0.0, 2.0, 1.0, -1.0, 2.0];

    fn many(sampling: &Sampling) -> Vec<u32> {
        (0..500).map(|position| sample(&LOGITS, sampling, None, &[], position).unwrap()).collect()
    }

    #[test]
    fn greedy_takes_the_first_of_equals_after_bias_and_suppression() {
        let mut sampling = Sampling::greedy();
        assert_eq!(sample(&LOGITS, &sampling, None, &[], 0).unwrap(), 1);
        assert_eq!(sample(&LOGITS, &sampling, None, &[1, 4], 0).unwrap(), 2);
        sampling.logit_bias = vec![(3, 10.0)];
        assert_eq!(sample(&LOGITS, &sampling, None, &[], 0).unwrap(), 3);
    }

    #[test]
    fn penalties_count_answer_and_prompt_as_vllm_does() {
        let sampling = Sampling { repetition_penalty: 2.0, frequency_penalty: 0.4, ..Sampling::greedy() };
        let sampling = Sampling { presence_penalty: 0.3, ..sampling };
        let mut history = History::of_prompt(&sampling, &[1, 3]).unwrap();
        history.add(4);
        history.add(4);
        let mut logits = LOGITS;
        history.penalise(&sampling, &mut logits);
        assert_eq!(logits, [0.0, 1.0, 1.0, -2.0, 2.0 / 2.0 - 0.8 - 0.3]);
        assert!(History::of_prompt(&Sampling::default(), &[1]).is_none());
    }

    #[test]
    fn top_k_top_p_and_min_p_leave_only_what_they_should() {
        let only = |sampling: Sampling, allowed: &[u32]| {
            let drawn = many(&sampling);
            assert!(drawn.iter().all(|id| allowed.contains(id)), "{sampling:?}");
            assert!(allowed.iter().all(|id| drawn.contains(id)), "{sampling:?}");
        };
        only(Sampling { top_k: 1, ..Sampling::default() }, &[1]);
        only(Sampling { top_k: 3, ..Sampling::default() }, &[1, 2, 4]);
        only(Sampling { top_p: 0.3, ..Sampling::default() }, &[1]);
        only(Sampling { top_p: 0.7, ..Sampling::default() }, &[1, 4]);
        only(Sampling { min_p: 0.3, ..Sampling::default() }, &[1, 2, 4]);
        only(Sampling { min_p: 1.0, ..Sampling::default() }, &[1, 4]);
        only(Sampling { temperature: 1e-30, ..Sampling::default() }, &[1, 4]);
        only(Sampling { temperature: 50.0, ..Sampling::default() }, &[0, 1, 2, 3, 4]);
    }

    #[test]
    fn frequencies_are_those_of_the_softmax() {
        let drawn: Vec<u32> = (0..20_000)
            .map(|position| sample(&LOGITS, &Sampling::default(), None, &[], position).unwrap())
            .collect();
        let sum: f64 = LOGITS.iter().map(|logit| f64::from(*logit).exp()).sum();
        for (id, logit) in LOGITS.iter().enumerate() {
            let share = drawn.iter().filter(|&&drawn| drawn as usize == id).count() as f64 / 20_000.0;
            assert!((share - f64::from(*logit).exp() / sum).abs() < 0.015, "token {id}: {share}");
        }
    }

    #[test]
    fn logits_without_a_number_are_an_error() {
        assert!(sample(&[f32::NAN; 4], &Sampling::greedy(), None, &[], 0).is_err());
        assert!(sample(&LOGITS, &Sampling::greedy(), None, &[0, 1, 2, 3, 4], 0).is_err());
        assert!(sample(&[0.0, f32::INFINITY], &Sampling::default(), None, &[], 0).is_err());
    }

    proptest! {
        /// Against the definition: sort everything, walk down.
        #[test]
        fn selection_matches_a_full_sort(
            logits in prop::collection::vec(-8.0_f32..8.0, 1..400),
            top_k in 0_u32..50,
            top_p in 0.05_f32..1.0,
            position in 0_usize..1000,
        ) {
            let sampling = Sampling { top_k, top_p, ..Sampling::default() };
            let id = sample(&logits, &sampling, None, &[], position).unwrap();
            let mut sorted: Vec<usize> = (0..logits.len()).collect();
            sorted.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
            if top_k > 0 {
                sorted.truncate(top_k as usize);
            }
            let weight = |id: usize| f64::from(logits[id]).exp();
            let total: f64 = sorted.iter().map(|&id| weight(id)).sum();
            let before: f64 = sorted.iter().take_while(|&&other| other != id as usize).map(|&id| weight(id)).sum();
            prop_assert!(sorted.contains(&(id as usize)));
            prop_assert!(before / total < f64::from(top_p) + 1e-5);
        }
    }
}
