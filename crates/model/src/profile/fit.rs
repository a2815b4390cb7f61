//! Does a model fit, where, and with what context for how many sequences: arithmetic over its profile, nothing else.
//!
//! A rank needs its weights, its working memory, and KV for every sequence. What a place keeps back is subtracted first.
//! Of the ways to divide a model over the devices of a place, the one with the fewest ranks that fits is taken.

use serde::{Deserialize, Serialize};

use super::ProfileDetails;
use super::parallel::{Degrees, KvPrecision, Precision, STEP_TOKENS};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// How weights are held.
    pub precision: Precision,
    /// How keys and values are held.
    pub kv_precision: KvPrecision,
    /// Tokens of each sequence; `None` for the model's own limit.
    pub context_tokens: Option<u64>,
    /// Sequences at once.
    pub sequences: u64,
    /// Tokens of one step.
    pub step_tokens: u64,
}

impl Default for Question {
    /// One sequence of the model's own limit, as the native engine runs it.
    fn default() -> Self {
        Self {
            precision: Precision::Stored,
            kv_precision: KvPrecision::F16,
            context_tokens: None,
            sequences: 1,
            step_tokens: STEP_TOKENS,
        }
    }
}

/// Where it may run: equal devices, or the memory of one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// What to call it.
    pub name: String,
    /// Devices that may share the model.
    pub devices: u64,
    /// Memory of each.
    pub device_bytes: u64,
    /// Share of each that is kept back for what no profile knows: runtime, fragments, other programs.
    pub reserve_percent: u64,
    /// The only degrees to try; `None` for those that the devices allow.
    pub degrees: Option<Degrees>,
}

/// The answer for one place and one way to divide the model. Bytes are those of the fullest rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fit {
    /// [`Place::name`].
    pub place: String,
    /// Whether it fits.
    pub fits: bool,
    /// How it is divided.
    pub degrees: Degrees,
    /// Memory of each device.
    pub device_bytes: u64,
    /// What of that is kept back.
    pub reserve_bytes: u64,
    /// Weights.
    pub weight_bytes: u64,
    /// Peak of working memory.
    pub activation_bytes: u64,
    /// KV of one sequence of `context_tokens`.
    pub kv_bytes_per_sequence: u64,
    /// Tokens of each sequence that were asked for.
    pub context_tokens: u64,
    /// Sequences that were asked for.
    pub sequences: u64,
    /// Bytes that remain; below 0 where it does not fit.
    pub left_bytes: i128,
    /// The longest context that fits with as many sequences; 0 if not even one token.
    pub context_tokens_max: u64,
    /// The most sequences of that context that fit.
    pub sequences_max: u64,
}

/// The answer for one place: the division with the fewest ranks that fits, else the one that lacks least. `None` where
/// the model cannot be divided as asked.
pub fn fit(details: &ProfileDetails, question: &Question, place: &Place) -> Option<Fit> {
    let mut fits: Vec<Fit> = divisions(details, place)
        .into_iter()
        .map(|degrees| fit_divided(details, question, place, degrees))
        .collect();
    fits.sort_by_key(|fit| (fit.degrees.ranks(), fit.degrees.pipeline));
    let chosen = fits.iter().position(|fit| fit.fits);
    let chosen = chosen.or_else(|| (0..fits.len()).max_by_key(|&index| fits[index].left_bytes))?;
    Some(fits.swap_remove(chosen))
}

/// The ways to divide the model over the devices of a place: tensor-parallel degrees of two, and stages.
fn divisions(details: &ProfileDetails, place: &Place) -> Vec<Degrees> {
    let all = match place.degrees {
        Some(degrees) => vec![degrees],
        None => {
            let tensor = std::iter::successors(Some(1), |degree| Some(degree * 2));
            let tensor = tensor.take_while(|degree| *degree <= place.devices);
            tensor.flat_map(|tensor| stages(tensor, place.devices / tensor)).collect()
        }
    };
    all.into_iter().filter(|degrees| degrees.divide(&details.shape)).collect()
}

fn stages(tensor: u64, most: u64) -> impl Iterator<Item = Degrees> {
    (1..=most).map(move |pipeline| Degrees { tensor, pipeline })
}

fn fit_divided(details: &ProfileDetails, question: &Question, place: &Place, degrees: Degrees) -> Fit {
    let reserve_bytes = place.device_bytes / 100 * place.reserve_percent;
    let context_tokens = question.context_tokens.unwrap_or(details.shape.context_tokens);
    let needs = Needs { details, question, degrees, room: place.device_bytes - reserve_bytes };
    let left_bytes = needs.left(context_tokens, question.sequences);
    Fit {
        place: place.name.clone(),
        fits: left_bytes >= 0,
        degrees,
        device_bytes: place.device_bytes,
        reserve_bytes,
        weight_bytes: needs.weights(),
        activation_bytes: needs.activations(question.sequences),
        kv_bytes_per_sequence: needs.kv(context_tokens),
        context_tokens,
        sequences: question.sequences,
        left_bytes,
        context_tokens_max: largest(details.shape.context_tokens, |tokens| {
            needs.left(tokens, question.sequences) >= 0
        }),
        sequences_max: largest(SEQUENCES_MAX, |sequences| needs.left(context_tokens, sequences) >= 0),
    }
}

/// More sequences than any engine runs at once.
const SEQUENCES_MAX: u64 = 1 << 16;

/// What the fullest rank needs.
struct Needs<'a> {
    details: &'a ProfileDetails,
    question: &'a Question,
    degrees: Degrees,
    room: u64,
}

impl Needs<'_> {
    fn weights(&self) -> u64 {
        self.details.weight_bytes(self.question.precision, self.degrees)
    }

    fn activations(&self, sequences: u64) -> u64 {
        self.details.shape.activation_bytes(self.question.step_tokens, sequences, self.degrees)
    }

    fn kv(&self, tokens: u64) -> u64 {
        self.details.shape.kv_bytes(tokens, self.question.kv_precision, self.degrees)
    }

    fn left(&self, tokens: u64, sequences: u64) -> i128 {
        let kv = i128::from(self.kv(tokens)) * i128::from(sequences);
        i128::from(self.room) - i128::from(self.weights()) - i128::from(self.activations(sequences)) - kv
    }
}

/// The largest number up to `most` that holds, where smaller ones hold too; 0 if none does.
fn largest(most: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if holds(middle) { low = middle } else { high = middle - 1 }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{AttentionWindow, ModelShape, WeightParts, Weights};

    fn weights(elements: u64) -> Weights {
        Weights { elements, bytes: 2 * elements }
    }

    /// Llama 3 8B, whose published size is 16.06 GB in bf16.
    pub(in crate::profile) fn llama_8b() -> ProfileDetails {
        let shape = ModelShape {
            architecture: "llama".to_owned(),
            layers: 32,
            hidden: 4096,
            ffn: 14_336,
            heads: 32,
            kv_heads: 8,
            head_dim: 128,
            kv_head_elements: None,
            vocab: 128_256,
            context_tokens: 8192,
            window: None,
        };
        let parts = WeightParts {
            embedding: weights(128_256 * 4096),
            output: weights(128_256 * 4096),
            kv_projections: weights(32 * 2 * 1024 * 4096),
            matrices: weights(32 * (2 * 4096 * 4096 + 3 * 14_336 * 4096)),
            vectors: weights(65 * 4096),
        };
        ProfileDetails { shape, parts, packed: false, accelerate: None }
    }

    fn place(devices: u64, device_bytes: u64) -> Place {
        Place { name: "test".to_owned(), devices, device_bytes, reserve_percent: 10, degrees: None }
    }

    #[test]
    fn one_rank_holds_what_the_files_hold() {
        let details = llama_8b();
        let held = details.weight_bytes(Precision::Stored, Degrees::ONE);
        assert_eq!(held, 16_060_522_496);
        assert_eq!(held, details.weight_bytes(Precision::F16, Degrees::ONE));
        assert_eq!(2 * held, details.weight_bytes(Precision::F32, Degrees::ONE));
        assert_eq!(details.shape.kv_bytes_per_token(KvPrecision::F16), 131_072);
    }

    #[test]
    fn ranks_together_hold_everything_and_none_much_more_than_its_share() {
        let details = llama_8b();
        for precision in Precision::ALL {
            let whole = details.weight_bytes(precision, Degrees::ONE);
            for (tensor, pipeline) in [(2, 1), (4, 1), (8, 1), (16, 1), (1, 2), (2, 2), (1, 5), (4, 3)] {
                let degrees = Degrees { tensor, pipeline };
                let rank = details.weight_bytes(precision, degrees);
                assert!(rank * degrees.ranks() >= whole, "{precision:?} {degrees:?}");
                assert!(rank < whole, "{precision:?} {degrees:?}: {rank} of {whole}");
            }
        }
        assert!(!Degrees { tensor: 3, pipeline: 1 }.divide(&details.shape));
        assert!(!Degrees { tensor: 1, pipeline: 33 }.divide(&details.shape));
    }

    #[test]
    fn a_model_goes_to_as_few_devices_as_hold_it() {
        const GIB: u64 = 1 << 30;
        let (details, question) = (llama_8b(), Question::default());
        let alone = fit(&details, &question, &place(8, 24 * GIB)).expect("an answer");
        assert!(alone.fits && alone.degrees == Degrees::ONE, "{alone:?}");
        let shared = fit(&details, &question, &place(8, 8 * GIB)).expect("an answer");
        assert!(shared.fits && shared.degrees == Degrees { tensor: 1, pipeline: 3 }, "{shared:?}");
        let hopeless = fit(&details, &question, &place(1, 8 * GIB)).expect("an answer");
        assert!(!hopeless.fits && hopeless.left_bytes < 0 && hopeless.sequences_max == 0, "{hopeless:?}");
        let forced = Place { degrees: Some(Degrees { tensor: 3, pipeline: 1 }), ..place(8, 24 * GIB) };
        assert_eq!(fit(&details, &question, &forced), None);
    }

    #[test]
    fn the_limits_that_are_named_are_the_limits() {
        let details = llama_8b();
        let asked = |context, sequences| {
            let question = Question { context_tokens: Some(context), sequences, ..Question::default() };
            fit(&details, &question, &place(1, 20_000_000_000)).expect("an answer")
        };
        let answer = asked(1024, 2);
        assert!(answer.fits);
        assert!(asked(answer.context_tokens_max, 2).fits && asked(1024, answer.sequences_max).fits);
        assert!(!asked(1024, answer.sequences_max + 1).fits);
        assert!(answer.context_tokens_max == 8192 || !asked(answer.context_tokens_max + 1, 2).fits);
    }

    #[test]
    fn a_window_bounds_the_kv_of_its_layers() {
        let mut shape = llama_8b().shape;
        let whole = shape.kv_bytes(8192, KvPrecision::F16, Degrees::ONE);
        shape.window = Some(AttentionWindow { layers: 24, tokens: 1024 });
        let windowed = shape.kv_bytes(8192, KvPrecision::F16, Degrees::ONE);
        assert_eq!(windowed, whole / 32 * 8 + whole / 32 * 24 / 8);
        assert_eq!(shape.kv_bytes(512, KvPrecision::F16, Degrees::ONE), whole / 16);
    }
}
