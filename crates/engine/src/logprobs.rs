//! Log-probabilities as OpenAI's interface and vLLM report them: from the raw logits.

use helios_kernels::SoftmaxStats;
use helios_types::TokenId;

use crate::TokenLogprobs;

/// The log-probability of `id` and those of the `top` likeliest tokens.
pub(crate) fn token_logprobs(logits: &[f32], id: TokenId, top: u32) -> TokenLogprobs {
    let stats = SoftmaxStats::of(logits);
    let logprob = |logit: f32| stats.log_probability(logit) as f32;
    let top = greatest(logits, top as usize).into_iter().map(|(id, logit)| (id, logprob(logit))).collect();
    TokenLogprobs { id, logprob: logprob(logits[id as usize]), top }
}

/// The `count` greatest logits, greatest first, the smaller id first among equals. One pass; nearly every logit is
/// refused by one comparison.
fn greatest(logits: &[f32], count: usize) -> Vec<(TokenId, f32)> {
    let mut best: Vec<(TokenId, f32)> = Vec::with_capacity(count + 1);
    if count == 0 {
        return best;
    }
    let mut least = f32::NEG_INFINITY;
    for (id, &logit) in logits.iter().enumerate() {
        if best.len() == count && logit <= least {
            continue;
        }
        let place = best.partition_point(|&(_, other)| other >= logit);
        best.insert(place, (id as TokenId, logit));
        best.truncate(count);
        least = best[best.len() - 1].1;
    }
    best
}

#[cfg(test)]
mod tests {
    use super::{greatest, token_logprobs};

    #[test]
    fn the_greatest_come_in_order_and_the_smaller_id_first() {
        let logits = [1.0, 5.0, 3.0, 5.0, -2.0];
        assert_eq!(greatest(&logits, 3), [(1, 5.0), (3, 5.0), (2, 3.0)]);
        assert_eq!(greatest(&logits, 9).len(), 5);
        assert!(greatest(&logits, 0).is_empty());
    }

    #[test]
    fn logprobs_are_those_of_the_softmax() {
        let logprobs = token_logprobs(&[0.0, 0.0, 0.0, 0.0], 2, 1);
        assert!((logprobs.logprob - 0.25_f32.ln()).abs() < 1e-6);
        assert_eq!(logprobs.top.len(), 1);
        assert_eq!(logprobs.top[0].0, 0);
    }
}
