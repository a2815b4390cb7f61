//! The views of the history that a [`Predictor`](super::Predictor) mixes: each a distribution over the next request.

use super::{Event, EventKind, ModelIndex, View};

/// One view.
pub(super) trait Expert: std::fmt::Debug + Send {
    /// Which one.
    fn view(&self) -> View;

    /// Takes note of an event.
    fn observe(&mut self, event: &Event);

    /// Fills `shares`, one entry a model, with weights of the next request's model, of any sum. `false`: nothing to say.
    fn predict(&self, at: f64, shares: &mut [f64]) -> bool;
}

/// Every view, with the parameters that were tuned on traces of other seeds than those reported.
pub(super) fn all() -> Vec<Box<dyn Expert>> {
    vec![
        Box::new(Frequency::new(View::OftenLately, 60.0)),
        Box::new(Frequency::new(View::Often, 1500.0)),
        Box::new(Recency::default()),
        Box::new(TimeOfDay::default()),
        Box::new(Follows::default()),
        Box::new(Deployed::default()),
    ]
}

/// The slot of a model in a list that grows.
fn slot<T: Default + Clone>(list: &mut Vec<T>, index: usize) -> &mut T {
    if list.len() <= index {
        list.resize(index + 1, T::default());
    }
    &mut list[index]
}

/// How often, where a request counts half as much after as many others.
#[derive(Debug)]
struct Frequency {
    view: View,
    counts: Vec<f64>,
    /// What the next request counts: older ones stay as they are while this grows.
    unit: f64,
    growth: f64,
}

impl Frequency {
    fn new(view: View, half_life_requests: f64) -> Self {
        Self { view, counts: Vec::new(), unit: 1.0, growth: 0.5_f64.powf(-1.0 / half_life_requests) }
    }
}

impl Expert for Frequency {
    fn view(&self) -> View {
        self.view
    }

    fn observe(&mut self, event: &Event) {
        const UNIT_MAX: f64 = 1e12;
        if event.kind != EventKind::Request {
            return;
        }
        *slot(&mut self.counts, event.model) += self.unit;
        self.unit *= self.growth;
        if self.unit > UNIT_MAX {
            self.counts.iter_mut().for_each(|count| *count /= self.unit);
            self.unit = 1.0;
        }
    }

    fn predict(&self, _at: f64, shares: &mut [f64]) -> bool {
        shares.iter_mut().zip(&self.counts).for_each(|(share, count)| *share = *count);
        !self.counts.is_empty()
    }
}

/// How lately: the share falls with the number of requests since.
#[derive(Debug, Default)]
struct Recency {
    requests: u64,
    /// The number of the last request of each model.
    last: Vec<Option<u64>>,
}

impl Expert for Recency {
    fn view(&self) -> View {
        View::Recently
    }

    fn observe(&mut self, event: &Event) {
        if event.kind == EventKind::Request {
            self.requests += 1;
            *slot(&mut self.last, event.model) = Some(self.requests);
        }
    }

    fn predict(&self, _at: f64, shares: &mut [f64]) -> bool {
        for (share, last) in shares.iter_mut().zip(&self.last) {
            *share = last.map_or(0.0, |last| 1.0 / (1 + self.requests - last) as f64);
        }
        self.requests > 0
    }
}

const DAY_SECONDS: f64 = 86_400.0;
const BINS: usize = 96;

/// What was asked for at this time on earlier days, in quarters of an hour; a day counts less than the one after it.
#[derive(Debug, Default)]
struct TimeOfDay {
    counts: Vec<Option<Box<[f64; BINS]>>>,
    first_day: u64,
    day: u64,
    /// What a request of today counts.
    unit: f64,
}

impl TimeOfDay {
    const DAY_GROWTH: f64 = 1.4;

    /// The bin of a time and how much of it has passed.
    fn bin(at: f64) -> (usize, f64) {
        let position = (at.rem_euclid(DAY_SECONDS) / DAY_SECONDS * BINS as f64).min(BINS as f64 - 1e-9);
        (position as usize, position.fract())
    }
}

impl Expert for TimeOfDay {
    fn view(&self) -> View {
        View::TimeOfDay
    }

    fn observe(&mut self, event: &Event) {
        if event.kind != EventKind::Request {
            return;
        }
        let day = (event.at / DAY_SECONDS) as u64;
        if self.unit == 0.0 {
            (self.unit, self.first_day, self.day) = (1.0, day, day);
        }
        let passed = day.saturating_sub(self.day).min(1000);
        self.unit *= Self::DAY_GROWTH.powi(passed as i32);
        self.day = self.day.max(day);
        let bins = slot(&mut self.counts, event.model).get_or_insert_with(|| Box::new([0.0; BINS]));
        bins[Self::bin(event.at).0] += self.unit;
    }

    /// The rest of this bin and the beginning of the next.
    fn predict(&self, at: f64, shares: &mut [f64]) -> bool {
        let (bin, passed) = Self::bin(at);
        for (share, bins) in shares.iter_mut().zip(&self.counts) {
            let Some(bins) = bins else { continue };
            *share = (1.0 - passed) * bins[bin] + passed * bins[(bin + 1) % BINS];
        }
        self.day > self.first_day && shares.iter().sum::<f64>() > 0.5 * self.unit
    }
}

/// What usually follows the last model that was asked for.
#[derive(Debug, Default)]
struct Follows {
    counts: Vec<Vec<(ModelIndex, f64)>>,
    last: Option<(ModelIndex, f64)>,
}

impl Follows {
    /// A request later than this after another has nothing to do with it.
    const GAP_SECONDS_MAX: f64 = 900.0;
    const SUCCESSORS_MAX: usize = 32;
    const DECAY: f64 = 0.97;

    fn last(&self, at: f64) -> Option<ModelIndex> {
        self.last.filter(|(_, then)| at - then <= Self::GAP_SECONDS_MAX).map(|(model, _)| model)
    }

    fn count(&mut self, from: ModelIndex, to: ModelIndex) {
        let row = slot(&mut self.counts, from);
        row.iter_mut().for_each(|(_, count)| *count *= Self::DECAY);
        match row.iter_mut().find(|(model, _)| *model == to) {
            Some((_, count)) => *count += 1.0,
            None => row.push((to, 1.0)),
        }
        if row.len() > Self::SUCCESSORS_MAX {
            row.sort_by(|a, b| b.1.total_cmp(&a.1));
            row.truncate(Self::SUCCESSORS_MAX);
        }
    }
}

impl Expert for Follows {
    fn view(&self) -> View {
        View::Follows
    }

    fn observe(&mut self, event: &Event) {
        if event.kind != EventKind::Request {
            return;
        }
        if let Some(last) = self.last(event.at) {
            self.count(last, event.model);
        }
        self.last = Some((event.model, event.at));
    }

    fn predict(&self, at: f64, shares: &mut [f64]) -> bool {
        const EVIDENCE_MIN: f64 = 3.0;
        let Some(row) = self.last(at).and_then(|last| self.counts.get(last)) else { return false };
        for (model, count) in row {
            if let Some(share) = shares.get_mut(*model) {
                *share = *count;
            }
        }
        row.iter().map(|(_, count)| count).sum::<f64>() >= EVIDENCE_MIN
    }
}

/// What was deployed a moment ago and not asked for since.
#[derive(Debug, Default)]
struct Deployed {
    waiting: Vec<(ModelIndex, f64)>,
}

impl Deployed {
    const MEMORY_SECONDS: f64 = 7200.0;
    const WAITING_MAX: usize = 64;
}

impl Expert for Deployed {
    fn view(&self) -> View {
        View::Deployed
    }

    fn observe(&mut self, event: &Event) {
        self.waiting.retain(|(model, at)| *model != event.model && event.at - at < Self::MEMORY_SECONDS);
        if event.kind == EventKind::Deploy && self.waiting.len() < Self::WAITING_MAX {
            self.waiting.push((event.model, event.at));
        }
    }

    fn predict(&self, at: f64, shares: &mut [f64]) -> bool {
        let awake = self.waiting.iter().filter(|(_, then)| at - then < Self::MEMORY_SECONDS);
        let mut any = false;
        for (model, _) in awake {
            if let Some(share) = shares.get_mut(*model) {
                (*share, any) = (1.0, true);
            }
        }
        any
    }
}
