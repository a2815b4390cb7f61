//! A mixture of views that learns whom to trust, and forgets it when the pattern changes.
//!
//! Weights follow "fixed share" (Herbster and Warmuth, Tracking the best expert, 1998), so that a view that was wrong for
//! days comes back within some requests; views with nothing to say sleep (Freund et al., Using and combining predictors
//! that specialize, 1997). A request costs O(views x models).

use super::experts::{self, Expert};
use super::{Event, EventKind, View};

/// Weight that each request hands out anew to all views.
const SHARE: f64 = 0.02;
/// Share of every view's prediction that goes to all models alike: nothing is impossible.
const UNIFORM: f64 = 0.05;

/// How likely each model is to be asked for next.
#[derive(Debug)]
pub struct Predictor {
    experts: Vec<Box<dyn Expert>>,
    weights: Vec<f64>,
    models: usize,
}

impl Default for Predictor {
    fn default() -> Self {
        let experts = experts::all();
        let weights = vec![1.0 / experts.len() as f64; experts.len()];
        Self { experts, weights, models: 0 }
    }
}

impl Predictor {
    /// Learns from an event; events come in order of time.
    pub fn observe(&mut self, event: &Event) {
        self.models = self.models.max(event.model + 1);
        if event.kind == EventKind::Request {
            self.weigh(event);
        }
        self.experts.iter_mut().for_each(|expert| expert.observe(event));
    }

    /// The share of each model in the next request, adding up to 1; as many as `models` or as were ever seen.
    pub fn shares(&self, at: f64, models: usize) -> Vec<f64> {
        let mut mixed = vec![0.0; self.models.max(models)];
        let mut awake = 0.0;
        for (weight, shares) in self.weights.iter().zip(self.predictions(at, mixed.len())) {
            let Some(shares) = shares else { continue };
            awake += weight;
            mixed.iter_mut().zip(shares).for_each(|(mixed, share)| *mixed += weight * share);
        }
        if awake == 0.0 {
            return vec![1.0 / mixed.len().max(1) as f64; mixed.len()];
        }
        mixed.iter_mut().for_each(|share| *share /= awake);
        mixed
    }

    /// The view that speaks most for each model, if any does; as many as `models` or as were ever seen.
    pub fn views(&self, at: f64, models: usize) -> Vec<Option<View>> {
        let mut best = vec![(0.0, None); self.models.max(models)];
        let predictions = self.predictions(at, best.len());
        for ((expert, weight), shares) in self.experts.iter().zip(&self.weights).zip(predictions) {
            let Some(shares) = shares else { continue };
            for (best, share) in best.iter_mut().zip(shares) {
                if weight * share > best.0 {
                    *best = (weight * share, Some(expert.view()));
                }
            }
        }
        best.into_iter().map(|(_, view)| view).collect()
    }

    /// Moves weight to the views that expected this request.
    fn weigh(&mut self, event: &Event) {
        let expected: Vec<Option<f64>> = self
            .predictions(event.at, self.models)
            .into_iter()
            .map(|shares| shares.map(|shares| shares[event.model]))
            .collect();
        let awake = |(weight, share): (&f64, &Option<f64>)| share.map(|share| (*weight, weight * share));
        let (before, after) = self
            .weights
            .iter()
            .zip(&expected)
            .filter_map(awake)
            .fold((0.0, 0.0), |sum, (weight, scored)| (sum.0 + weight, sum.1 + scored));
        for (weight, share) in self.weights.iter_mut().zip(&expected) {
            if let Some(share) = share {
                *weight *= share * before / after;
            }
        }
        let count = self.weights.len() as f64;
        self.weights.iter_mut().for_each(|weight| *weight = (1.0 - SHARE) * *weight + SHARE / count);
    }

    /// What each view says, smoothed; `None` for those that sleep.
    fn predictions(&self, at: f64, models: usize) -> Vec<Option<Vec<f64>>> {
        let predict = |expert: &dyn Expert| {
            let mut shares = vec![0.0; models];
            if !expert.predict(at, &mut shares) {
                return None;
            }
            let sum: f64 = shares.iter().sum();
            let smooth = |share: &mut f64| *share = (1.0 - UNIFORM) * *share / sum + UNIFORM / models as f64;
            (sum > 0.0).then(|| shares.iter_mut().for_each(smooth)).map(|()| shares)
        };
        self.experts.iter().map(|expert| predict(expert.as_ref())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(at: f64, model: usize) -> Event {
        Event { at, model, kind: EventKind::Request }
    }

    #[test]
    fn what_follows_what_is_learned_and_shares_add_up() {
        let mut predictor = Predictor::default();
        for turn in 0..200 {
            predictor.observe(&request(60.0 * f64::from(turn), (turn % 4) as usize));
        }
        let shares = predictor.shares(60.0 * 200.0, 4);
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(shares[0] > 0.7, "{shares:?}");
    }

    #[test]
    fn the_hour_of_a_daily_job_is_learned() {
        let mut predictor = Predictor::default();
        for day in 0..6 {
            for hour in 0..24 {
                let at = f64::from(day) * 86_400.0 + f64::from(hour) * 3600.0;
                predictor.observe(&request(at + 1000.0, 0));
                if hour == 3 {
                    predictor.observe(&request(at + 2800.0, 1));
                }
            }
        }
        let before = predictor.shares(6.0 * 86_400.0 + 3.0 * 3600.0 + 2705.0, 2)[1];
        let elsewhen = predictor.shares(6.0 * 86_400.0 + 15.0 * 3600.0 + 2705.0, 2)[1];
        let views = predictor.views(6.0 * 86_400.0 + 3.0 * 3600.0 + 2705.0, 2);
        assert_eq!(views[1], Some(View::TimeOfDay), "{views:?}");
        assert!(before > 2.0 * elsewhen, "{before} at its hour, {elsewhen} at another");
    }

    #[test]
    fn a_deployment_is_expected_to_be_used() {
        let mut predictor = Predictor::default();
        for turn in 0..50 {
            predictor.observe(&request(f64::from(turn) * 60.0, (turn % 3) as usize));
        }
        let quiet = predictor.shares(3000.0, 5)[4];
        predictor.observe(&Event { at: 3000.0, model: 4, kind: EventKind::Deploy });
        assert!(predictor.shares(3001.0, 5)[4] > 2.0 * quiet);
    }
}
