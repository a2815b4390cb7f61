//! Traces of requests to many models, generated from published statistics; the same seed gives the same trace.
//!
//! | parameter | value | from |
//! |---|---|---|
//! | popularity | power law, exponent 0.9: a fifth of the models gets half of the requests | MuxServe (Duan et al., ICML 2024), section 4 |
//! | gaps between requests | Gamma, shape 0.5: burstier than Poisson | BurstGPT (Wang et al., 2024; Gamma fits the Azure services); ServeGen (Xiang et al., 2025; Gamma and Weibull beat Poisson) |
//! | day and night | half of the peak is constant, the rest follows the hour, by region | Serverless in the Wild (Shahrad et al., ATC 2020), figure 4; SageServe (2025) for regions |
//! | models used by a timer | 16 % | ibid.: timers are 16 % of functions and 2 % of invocations |
//! | models in fixed sequences | 7 % | ibid.: orchestrations are 7 % of functions |
//! | sizes | 1 to 140 GB | 0.5 B to 70 B parameters in two bytes each, as published for Qwen 2.5 and Llama 3 |
//! | fetching | 0.5 s and 3 GB/s | this project's measurement of a cold load |
//!
//! How many deployments there are (one a day) and how soon they are used (within the quarter of an hour) are assumptions.

use super::random::Random;
use super::{Event, EventKind, ModelCost, ModelIndex};

const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;
/// Length of a trace.
pub(crate) const DAYS: usize = 14;
/// Models of a trace.
pub const MODELS: usize = 48;
const REQUESTS_PER_DAY: f64 = 600.0;
const POPULARITY_EXPONENT: f64 = 0.9;
const GAP_SHAPE: f64 = 0.5;
const CONSTANT_SHARE: f64 = 0.5;
const TIMER_SHARE: f64 = 0.16;
const SEQUENCE_SHARE: f64 = 0.07;
const SIZES_GB: [f64; 8] = [1.0, 3.0, 6.0, 14.0, 16.0, 28.0, 64.0, 140.0];
const SIZE_WEIGHTS: [f64; 8] = [4.0, 4.0, 5.0, 6.0, 6.0, 3.0, 2.0, 1.0];

/// What a trace has in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Popularity and bursts only: the next model does not depend on anything.
    None,
    /// Each model has hours of its own.
    Diurnal,
    /// Jobs at fixed times of the day.
    Timers,
    /// Models that follow each other.
    Sequences,
    /// Deployments, each used soon after.
    Deployments,
    /// All of these.
    Mixed,
    /// All of these, with models in other roles from half-time on.
    Shift,
}

impl Pattern {
    /// Every pattern.
    pub const ALL: [Self; 7] = [
        Self::Diurnal,
        Self::Timers,
        Self::Sequences,
        Self::Deployments,
        Self::Mixed,
        Self::None,
        Self::Shift,
    ];

    /// The name in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "no pattern",
            Self::Diurnal => "hours",
            Self::Timers => "timers",
            Self::Sequences => "sequences",
            Self::Deployments => "deployments",
            Self::Mixed => "mixed",
            Self::Shift => "changing half-way",
        }
    }

    fn has(self, other: Self) -> bool {
        self == other || matches!(self, Self::Mixed | Self::Shift)
    }
}

/// Requests and deployments in order of time, and what the models cost.
#[derive(Clone, Debug)]
pub struct Trace {
    /// What happened.
    pub events: Vec<Event>,
    /// What each model costs.
    pub costs: Vec<ModelCost>,
}

impl Trace {
    /// The trace of a pattern and a seed.
    pub fn generate(pattern: Pattern, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let costs = (0..MODELS).map(|_| cost(&mut random)).collect();
        let mut events = Vec::new();
        let periods: &[(f64, f64)] = match pattern {
            Pattern::Shift => &[(0.0, 0.5), (0.5, 1.0)],
            _ => &[(0.0, 1.0)],
        };
        for (from, to) in periods {
            let whole = DAYS as f64 * DAY;
            Period::new(pattern, &mut random).generate(from * whole, to * whole, &mut random, &mut events);
        }
        events.sort_by(|a, b| a.at.total_cmp(&b.at));
        Self { events, costs }
    }

    /// Bytes of all models.
    pub fn bytes(&self) -> u64 {
        self.costs.iter().map(|cost| cost.bytes).sum()
    }
}

fn cost(random: &mut Random) -> ModelCost {
    const START_SECONDS: f64 = 0.5;
    const BYTES_PER_SECOND: f64 = 3e9;
    let bytes = SIZES_GB[random.weighted(&SIZE_WEIGHTS)] * 1e9 * (0.9 + 0.2 * random.unit());
    ModelCost { bytes: bytes as u64, fetch_seconds: START_SECONDS + bytes / BYTES_PER_SECOND }
}

/// The roles of the models for a while.
struct Period {
    pattern: Pattern,
    popularity: Vec<f64>,
    /// The hour at which each model's day is highest.
    peak_hour: Vec<f64>,
    /// Models that run by timer, each with its times of the day.
    timers: Vec<(ModelIndex, Vec<f64>)>,
    /// Models that follow each other.
    sequences: Vec<Vec<ModelIndex>>,
}

impl Period {
    fn new(pattern: Pattern, random: &mut Random) -> Self {
        let mut order: Vec<ModelIndex> = (0..MODELS).collect();
        random.shuffle(&mut order);
        let mut popularity = vec![0.0; MODELS];
        for (rank, model) in order.iter().enumerate() {
            popularity[*model] = ((rank + 1) as f64).powf(-POPULARITY_EXPONENT);
        }
        const REGION_HOURS: [f64; 3] = [2.0, 10.0, 18.0];
        let peak_hour = (0..MODELS).map(|_| REGION_HOURS[random.below(3)] + 3.0 * random.unit()).collect();
        // Timers and sequences are the business of models that people do not ask for much.
        let mut quiet: Vec<ModelIndex> = order[MODELS / 3..].to_vec();
        random.shuffle(&mut quiet);
        let timed = (TIMER_SHARE * MODELS as f64).round() as usize;
        let timers = quiet.iter().take(timed).map(|model| (*model, times(random))).collect();
        let in_sequence = (SEQUENCE_SHARE * MODELS as f64).round() as usize;
        let followers: Vec<ModelIndex> = quiet[timed..].iter().take(2 * in_sequence).copied().collect();
        let sequences = followers
            .chunks(2)
            .enumerate()
            .map(|(index, rest)| [&order[index..=index], rest].concat())
            .collect();
        Self { pattern, popularity, peak_hour, timers, sequences }
    }

    fn generate(&self, from: f64, to: f64, random: &mut Random, events: &mut Vec<Event>) {
        self.visits(from, to, random, events);
        if self.pattern.has(Pattern::Timers) {
            self.jobs(from, to, random, events);
        }
        if self.pattern.has(Pattern::Deployments) {
            deployments(from, to, random, events);
        }
    }

    /// What people ask for: bursts of gaps, models by popularity and hour, and what follows them.
    fn visits(&self, from: f64, to: f64, random: &mut Random, events: &mut Vec<Event>) {
        const FOLLOWED: f64 = 0.8;
        let mut at = from;
        loop {
            at += DAY / REQUESTS_PER_DAY * random.gamma(GAP_SHAPE);
            if at >= to {
                return;
            }
            let model = random.weighted(&self.rates(at));
            events.push(request(at, model));
            let sequence = self.sequences.iter().find(|sequence| sequence[0] == model);
            let Some(sequence) = sequence.filter(|_| self.pattern.has(Pattern::Sequences)) else { continue };
            let mut then = at;
            for follower in &sequence[1..] {
                if random.unit() > FOLLOWED {
                    break;
                }
                then += 40.0 + 60.0 * random.unit();
                events.push(request(then, *follower));
            }
        }
    }

    fn rates(&self, at: f64) -> Vec<f64> {
        if !self.pattern.has(Pattern::Diurnal) {
            return self.popularity.clone();
        }
        let hour = (at / HOUR).rem_euclid(24.0);
        let of_day = |peak: &f64| {
            let wave = (1.0 + ((hour - peak) / 24.0 * std::f64::consts::TAU).cos()) / 2.0;
            // Sharper than a cosine: business hours.
            CONSTANT_SHARE * 0.1 + (1.0 - CONSTANT_SHARE) * wave.powi(3)
        };
        self.popularity.iter().zip(&self.peak_hour).map(|(rate, peak)| rate * of_day(peak)).collect()
    }

    fn jobs(&self, from: f64, to: f64, random: &mut Random, events: &mut Vec<Event>) {
        for (model, times) in &self.timers {
            for day in (from / DAY) as usize..=(to / DAY) as usize {
                for time in times {
                    let at = day as f64 * DAY + time + 60.0 * random.unit();
                    let burst = 1 + random.below(4);
                    let ats = (0..burst).map(|turn| at + 45.0 * turn as f64);
                    events.extend(ats.filter(|at| (from..to).contains(at)).map(|at| request(at, *model)));
                }
            }
        }
    }
}

/// A job's times of the day: once, or every few hours.
fn times(random: &mut Random) -> Vec<f64> {
    let first = DAY * random.unit();
    let runs = [1, 1, 2, 4][random.below(4)];
    (0..runs).map(|run| (first + DAY / f64::from(runs) * f64::from(run)) % DAY).collect()
}

/// New versions, and the first requests to them.
fn deployments(from: f64, to: f64, random: &mut Random, events: &mut Vec<Event>) {
    const PER_DAY: f64 = 1.0;
    let mut at = from;
    loop {
        at += DAY / PER_DAY * random.gamma(1.0);
        if at >= to {
            return;
        }
        let model = random.below(MODELS);
        events.push(Event { at, model, kind: EventKind::Deploy });
        for turn in 0..6 {
            let then = at + 300.0 + 600.0 * random.unit() + 120.0 * f64::from(turn);
            events.push(request(then, model));
        }
    }
}

fn request(at: f64, model: ModelIndex) -> Event {
    Event { at, model, kind: EventKind::Request }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_trace_and_a_fifth_of_the_models_gets_half_of_the_requests() {
        let trace = Trace::generate(Pattern::None, 3);
        assert_eq!(trace.events, Trace::generate(Pattern::None, 3).events);
        assert_ne!(trace.events, Trace::generate(Pattern::None, 4).events);
        let mut counts = vec![0_usize; MODELS];
        trace.events.iter().for_each(|event| counts[event.model] += 1);
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let top: usize = counts[..MODELS / 5].iter().sum();
        let share = top as f64 / trace.events.len() as f64;
        assert!((0.45..0.65).contains(&share), "{share}");
    }
}
