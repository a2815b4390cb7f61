//! How many tokens a step may compute, so that running streams do not wait long for somebody's prompt.

use std::time::Duration;

/// Share of the newest step in the average: three steps to follow a change of speed.
const NEWEST_SHARE: f64 = 0.3;

/// The first guess, before anything was measured.
const TOKENS_AT_START: usize = 64;

/// Learns how long a token takes and gives the budget of the next step.
pub(crate) struct StepBudget {
    target: Duration,
    tokens_min: usize,
    tokens_max: usize,
    /// Average over steps of at least `tokens_min` tokens: small ones say nothing about what a token costs in a large
    /// one, because they read all weights for a few rows.
    seconds_per_token: Option<f64>,
    /// Average over all steps.
    tokens_per_second: f64,
}

impl StepBudget {
    /// A budget between `tokens_min` and `tokens_max` that aims at steps of `target`.
    pub(crate) fn new(target: Duration, tokens_min: usize, tokens_max: usize) -> Self {
        Self { target, tokens_min, tokens_max, seconds_per_token: None, tokens_per_second: 0.0 }
    }

    /// Most tokens of the next step.
    pub(crate) fn tokens(&self) -> usize {
        let tokens = match self.seconds_per_token {
            Some(seconds) => (self.target.as_secs_f64() / seconds) as usize,
            None => TOKENS_AT_START,
        };
        tokens.clamp(self.tokens_min, self.tokens_max)
    }

    /// Tokens computed per second, over the last steps.
    pub(crate) fn tokens_per_second(&self) -> f64 {
        self.tokens_per_second
    }

    /// Learns from a step.
    pub(crate) fn observe(&mut self, tokens: usize, took: Duration) {
        if tokens == 0 || took.is_zero() {
            return;
        }
        let seconds = took.as_secs_f64() / tokens as f64;
        let blend = |old: f64, new: f64| old + NEWEST_SHARE * (new - old);
        if tokens >= self.tokens_min {
            self.seconds_per_token = Some(self.seconds_per_token.map_or(seconds, |old| blend(old, seconds)));
        }
        self.tokens_per_second = match self.tokens_per_second {
            0.0 => 1.0 / seconds,
            old => blend(old, 1.0 / seconds),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::StepBudget;

    #[test]
    fn the_budget_follows_the_speed_within_its_bounds() {
        let mut budget = StepBudget::new(Duration::from_millis(40), 16, 512);
        for _ in 0..30 {
            budget.observe(100, Duration::from_millis(50));
        }
        assert!((79..=80).contains(&budget.tokens()), "{}", budget.tokens());
        for _ in 0..30 {
            budget.observe(100, Duration::from_millis(1));
        }
        assert_eq!(budget.tokens(), 512);
        for _ in 0..30 {
            budget.observe(16, Duration::from_secs(1));
        }
        assert_eq!(budget.tokens(), 16);
    }

    #[test]
    fn steps_of_a_few_tokens_do_not_shrink_the_budget() {
        let mut budget = StepBudget::new(Duration::from_millis(40), 16, 512);
        budget.observe(200, Duration::from_millis(40));
        for _ in 0..100 {
            budget.observe(1, Duration::from_millis(8));
        }
        assert_eq!(budget.tokens(), 200);
        assert!((budget.tokens_per_second() - 125.0).abs() < 1.0);
    }
}
