//! Traces of requests to many models, generated; the same seed gives the same trace.
//!
//! Studies have published how much there is of each pattern. `mixed` has as much, which the tests measure:
//!
//! | parameter | `mixed` | from |
//! |---|---|---|
//! | popularity | power law, exponent 0.9: a fifth of 48 models gets 58 % of what people ask for | MuxServe (Duan et al., ICML 2024), section 4: of its fewer models, a fifth gets half |
//! | gaps between requests | Gamma: burstier than Poisson | BurstGPT (Wang et al., 2024; Gamma fits the Azure services); ServeGen (Xiang et al., 2025; Gamma and Weibull beat Poisson) |
//! | day and night | half of the peak is constant | Serverless in the Wild (Shahrad et al., ATC 2020), figure 4 |
//! | models used by a timer | 16 %, with 2 % of the requests | ibid.: timers are 16 % of functions and 2 % of invocations |
//! | models in a fixed sequence | 3 of 48, with 2 % of the requests | ibid.: orchestrations are 7 % of functions and 2 % of invocations |
//! | sizes | 1 to 140 GB | 0.5 B to 70 B parameters in two bytes each, as published for Qwen 2.5 and Llama 3 |
//! | fetching | 0.5 s and 3 GB/s | this project's measurement of a cold load |
//!
//! The traces of one pattern are made to have one that can be learned, and the one that changes half-way to have much
//! that turns wrong. So these have more of it than any study found: 6 % of the requests come from timers; sequences
//! are nine models (19 %), begun by the three most popular, with more than half of the requests; a model's hours differ
//! elevenfold.
//!
//! Assumed, for want of a study: Gamma's shape of 0.5; 600 requests of people a day, weekends like other days; each
//! model's own hours, in one of three regions eight hours apart, which differ twofold in `mixed`; that a timer runs
//! once a day (elsewhere up to four times) for one or two requests (elsewhere up to four) 45 s apart; that each step of
//! a sequence is taken four times of five, 40 to 100 s after the last; a deployment a day, of any model, used six times
//! within the next half hour.

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
/// What is asked for in the quietest hour, as a share of the busiest.
const CONSTANT_SHARE: f64 = 0.5;
const TIMER_SHARE: f64 = 0.16;
/// Models of a sequence.
const SEQUENCE_LENGTH: usize = 3;
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
    /// All of these, as much of each as studies found.
    Mixed,
    /// All of these, as much of each as where it is alone, with models in other roles from half-time on.
    Shift,
}

/// How much of each pattern a trace has.
#[derive(Debug)]
struct Dose {
    /// What is asked of a model in its quietest hour, as a share of its busiest.
    quietest_hour: f64,
    /// Runs of a timer in a day, each number as likely as the others.
    timer_runs: &'static [u32],
    /// Most requests of one run.
    timer_requests_max: usize,
    /// The models that begin sequences, by their rank in popularity.
    sequence_heads: &'static [usize],
}

/// As much as studies found.
const STUDIED: Dose =
    Dose { quietest_hour: 0.5, timer_runs: &[1], timer_requests_max: 2, sequence_heads: &[26] };
/// Enough to be learned.
const STRONG: Dose = Dose {
    quietest_hour: 0.09,
    timer_runs: &[1, 1, 2, 4],
    timer_requests_max: 4,
    sequence_heads: &[0, 1, 2],
};

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

    fn dose(self) -> &'static Dose {
        if self == Self::Mixed { &STUDIED } else { &STRONG }
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
            events.extend(
                Period::new(pattern, &mut random).events(from * whole, to * whole, &mut random).concat(),
            );
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
    dose: &'static Dose,
    popularity: Vec<f64>,
    /// The hour at which each model's day is highest.
    peak_hour: Vec<f64>,
    /// Models that run by timer, each with its times of the day.
    timers: Vec<(ModelIndex, Vec<f64>)>,
    /// Models that follow each other.
    sequences: Vec<Vec<ModelIndex>>,
}

/// What happens in a period, by why it does.
struct Happenings {
    /// What people ask for.
    visits: Vec<Event>,
    /// What follows visits to the head of a sequence.
    followers: Vec<Event>,
    /// What timers ask for.
    jobs: Vec<Event>,
    /// Deployments and their first uses.
    deployments: Vec<Event>,
}

impl Happenings {
    fn concat(self) -> Vec<Event> {
        [self.visits, self.followers, self.jobs, self.deployments].concat()
    }
}

impl Period {
    fn new(pattern: Pattern, random: &mut Random) -> Self {
        let dose = pattern.dose();
        let mut order: Vec<ModelIndex> = (0..MODELS).collect();
        random.shuffle(&mut order);
        let mut popularity = vec![0.0; MODELS];
        for (rank, model) in order.iter().enumerate() {
            popularity[*model] = ((rank + 1) as f64).powf(-POPULARITY_EXPONENT);
        }
        const REGION_HOURS: [f64; 3] = [2.0, 10.0, 18.0];
        let peak_hour = (0..MODELS).map(|_| REGION_HOURS[random.below(3)] + 3.0 * random.unit()).collect();
        let heads: Vec<ModelIndex> = dose.sequence_heads.iter().map(|rank| order[*rank]).collect();
        // Timers and the later steps of sequences are the business of models that people do not ask for much.
        let mut quiet: Vec<ModelIndex> = order[MODELS / 3..].to_vec();
        quiet.retain(|model| !heads.contains(model));
        random.shuffle(&mut quiet);
        let followers = quiet.split_off((TIMER_SHARE * MODELS as f64).round() as usize);
        let timers = quiet.into_iter().map(|model| (model, times(dose, random))).collect();
        let followers = followers.chunks(SEQUENCE_LENGTH - 1);
        let sequences = heads.into_iter().zip(followers).map(|(head, rest)| [&[head], rest].concat());
        Self { pattern, dose, popularity, peak_hour, timers, sequences: sequences.collect() }
    }

    fn events(&self, from: f64, to: f64, random: &mut Random) -> Happenings {
        let visits = self.visits(from, to, random);
        let mut happenings =
            Happenings { visits, followers: Vec::new(), jobs: Vec::new(), deployments: Vec::new() };
        if self.pattern.has(Pattern::Sequences) {
            happenings.followers = self.followers(&happenings.visits, random);
        }
        if self.pattern.has(Pattern::Timers) {
            happenings.jobs = self.jobs(from, to, random);
        }
        if self.pattern.has(Pattern::Deployments) {
            happenings.deployments = deployments(from, to, random);
        }
        happenings
    }

    /// What people ask for: bursts of gaps, more in the day than at night, models by popularity and hour.
    fn visits(&self, from: f64, to: f64, random: &mut Random) -> Vec<Event> {
        let mut visits = Vec::new();
        let mut at = from;
        loop {
            at += DAY / REQUESTS_PER_DAY * random.gamma(GAP_SHAPE) / self.intensity(at);
            if at >= to {
                return visits;
            }
            visits.push(request(at, random.weighted(&self.rates(at))));
        }
    }

    /// How much is asked for at an hour; 1 on average.
    fn intensity(&self, at: f64) -> f64 {
        const BUSIEST_HOUR: f64 = 14.0;
        if !self.pattern.has(Pattern::Diurnal) {
            return 1.0;
        }
        let average = (1.0 + CONSTANT_SHARE) / 2.0;
        (CONSTANT_SHARE + (1.0 - CONSTANT_SHARE) * wave(at, BUSIEST_HOUR)) / average
    }

    /// How likely people ask for each model.
    fn rates(&self, at: f64) -> Vec<f64> {
        if !self.pattern.has(Pattern::Diurnal) {
            return self.popularity.clone();
        }
        let quietest = self.dose.quietest_hour;
        // Sharper than the wave: business hours.
        let of_day = |peak: &f64| quietest + (1.0 - quietest) * wave(at, *peak).powi(3);
        self.popularity.iter().zip(&self.peak_hour).map(|(rate, peak)| rate * of_day(peak)).collect()
    }

    fn followers(&self, visits: &[Event], random: &mut Random) -> Vec<Event> {
        const TAKEN: f64 = 0.8;
        let mut followers = Vec::new();
        for visit in visits {
            let sequence = self.sequences.iter().find(|sequence| sequence[0] == visit.model);
            let mut then = visit.at;
            for follower in sequence.iter().flat_map(|sequence| &sequence[1..]) {
                if random.unit() > TAKEN {
                    break;
                }
                then += 40.0 + 60.0 * random.unit();
                followers.push(request(then, *follower));
            }
        }
        followers
    }

    fn jobs(&self, from: f64, to: f64, random: &mut Random) -> Vec<Event> {
        let mut jobs = Vec::new();
        for (model, times) in &self.timers {
            for day in (from / DAY) as usize..=(to / DAY) as usize {
                for time in times {
                    let at = day as f64 * DAY + time + 60.0 * random.unit();
                    let requests = 1 + random.below(self.dose.timer_requests_max);
                    let ats = (0..requests).map(|turn| at + 45.0 * turn as f64);
                    jobs.extend(ats.filter(|at| (from..to).contains(at)).map(|at| request(at, *model)));
                }
            }
        }
        jobs
    }
}

/// Between 0 and 1 over the day, 1 at the hour `peak`.
fn wave(at: f64, peak: f64) -> f64 {
    let hour = (at / HOUR).rem_euclid(24.0);
    (1.0 + ((hour - peak) / 24.0 * std::f64::consts::TAU).cos()) / 2.0
}

/// A job's times of the day, evenly spread.
fn times(dose: &Dose, random: &mut Random) -> Vec<f64> {
    let first = DAY * random.unit();
    let runs = dose.timer_runs[random.below(dose.timer_runs.len())];
    (0..runs).map(|run| (first + DAY / f64::from(runs) * f64::from(run)) % DAY).collect()
}

/// New versions, and the first requests to them.
fn deployments(from: f64, to: f64, random: &mut Random) -> Vec<Event> {
    const PER_DAY: f64 = 1.0;
    const FIRST_USES: u32 = 6;
    let mut events = Vec::new();
    let mut at = from;
    loop {
        at += DAY / PER_DAY * random.gamma(1.0);
        if at >= to {
            return events;
        }
        let model = random.below(MODELS);
        events.push(Event { at, model, kind: EventKind::Deploy });
        for turn in 0..FIRST_USES {
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

    /// Seeds that neither tuning nor the bench uses.
    const SEEDS: std::ops::Range<u64> = 31..36;

    /// The traces of a pattern, each with the roles of its models.
    fn generated(pattern: Pattern) -> Vec<(Period, Happenings)> {
        let generate = |seed| {
            let mut random = Random::new(seed);
            let period = Period::new(pattern, &mut random);
            let happenings = period.events(0.0, DAYS as f64 * DAY, &mut random);
            (period, happenings)
        };
        SEEDS.map(generate).collect()
    }

    /// Shares of the requests that come from timers, and that are part of a sequence, in percent.
    fn shares(pattern: Pattern) -> (f64, f64) {
        let (mut requests, mut of_timers, mut in_sequences) = (0, 0, 0);
        for (period, happenings) in generated(pattern) {
            let heads: Vec<ModelIndex> = period.sequences.iter().map(|sequence| sequence[0]).collect();
            let begun = happenings.visits.iter().filter(|visit| heads.contains(&visit.model)).count();
            of_timers += happenings.jobs.len();
            in_sequences += begun + happenings.followers.len();
            requests += happenings.concat().iter().filter(|event| event.kind == EventKind::Request).count();
        }
        let percent = |count: usize| 100.0 * count as f64 / requests as f64;
        (percent(of_timers), percent(in_sequences))
    }

    /// Models that a timer uses, and models in sequences.
    fn roles(pattern: Pattern) -> (usize, usize) {
        let period = Period::new(pattern, &mut Random::new(31));
        let timed = period.timers.iter().map(|(model, _)| *model);
        let in_sequences = period.sequences.concat();
        let mut all: Vec<ModelIndex> = timed.chain(in_sequences.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), period.timers.len() + in_sequences.len(), "a model has one role");
        (period.timers.len(), in_sequences.len())
    }

    #[test]
    fn a_seed_is_a_trace() {
        let trace = Trace::generate(Pattern::None, 3);
        assert_eq!(trace.events, Trace::generate(Pattern::None, 3).events);
        assert_ne!(trace.events, Trace::generate(Pattern::None, 4).events);
    }

    #[test]
    fn a_fifth_of_the_models_gets_more_than_half_of_the_visits() {
        for pattern in [Pattern::None, Pattern::Mixed] {
            let (mut top, mut all) = (0, 0);
            for (_, happenings) in generated(pattern) {
                let mut counts = vec![0_usize; MODELS];
                happenings.visits.iter().for_each(|visit| counts[visit.model] += 1);
                counts.sort_unstable_by(|a, b| b.cmp(a));
                top += counts[..MODELS / 5].iter().sum::<usize>();
                all += happenings.visits.len();
            }
            let share = 100.0 * top as f64 / all as f64;
            assert!((56.0..61.0).contains(&share), "{pattern:?}: {share} %");
        }
    }

    #[test]
    fn mixed_has_the_shares_of_the_studies() {
        let (of_timers, in_sequences) = shares(Pattern::Mixed);
        assert!((1.7..2.3).contains(&of_timers), "{of_timers} % of requests from timers");
        assert!((1.9..2.7).contains(&in_sequences), "{in_sequences} % of requests in sequences");
        assert_eq!(roles(Pattern::Mixed), (8, 3));
    }

    #[test]
    fn traces_to_learn_from_have_what_the_table_says() {
        let (of_timers, _) = shares(Pattern::Timers);
        assert!((5.0..7.5).contains(&of_timers), "{of_timers} % of requests from timers");
        let (_, in_sequences) = shares(Pattern::Sequences);
        assert!((52.0..64.0).contains(&in_sequences), "{in_sequences} % of requests in sequences");
        for pattern in [Pattern::Timers, Pattern::Sequences, Pattern::Shift] {
            assert_eq!(roles(pattern), (8, 9), "{pattern:?}");
        }
    }

    #[test]
    fn half_of_the_peak_is_constant() {
        for pattern in [Pattern::Mixed, Pattern::Diurnal] {
            let mut by_hour = [0_u32; 24];
            for (_, happenings) in generated(pattern) {
                let hour = |event: &Event| (event.at / HOUR).rem_euclid(24.0) as usize;
                happenings.visits.iter().for_each(|visit| by_hour[hour(visit)] += 1);
            }
            let (least, most) = by_hour.iter().fold((u32::MAX, 0), |(a, b), &n| (a.min(n), b.max(n)));
            let constant = f64::from(least) / f64::from(most);
            assert!((0.4..0.6).contains(&constant), "{pattern:?}: {constant} of the peak: {by_hour:?}");
        }
    }

    #[test]
    fn a_models_hours_differ_as_the_table_says() {
        for (pattern, times) in [(Pattern::Mixed, 2.0), (Pattern::Diurnal, 11.0)] {
            let period = Period::new(pattern, &mut Random::new(31));
            let rates = (0..24 * 60).map(|minute| period.rates(60.0 * f64::from(minute))[0]);
            let (least, most) = rates.fold((f64::MAX, 0.0_f64), |(a, b), rate| (a.min(rate), b.max(rate)));
            assert!((most / least / times - 1.0).abs() < 0.05, "{pattern:?}: {least} to {most}");
        }
    }
}
