//! What numbers mean: float64 slices in, estimates out. Knows nothing of clocks, backends or files.
//!
//! | file | answers |
//! |---|---|
//! | `blocks` | raw samples to one log-ratio per block |
//! | `hodges_lehmann`, `signed_rank` | how much, and how sure, within the blocks at hand |
//! | `effect` | the same over several launches, never surer than A/A results allow |
//! | `batches` | how sure within one process whose states last |
//! | `sequential` | bounds that hold whenever one stops |
//! | `prediction` | is today like the earlier sessions |
//! | `power` | what a design can see |
//! | `binomial` | how large a rate may be |
//! | `suite` | many workloads at once |
//! | `quantile`, `normal`, `student` | what the others need |
//!
//! Nothing here invents a number: too little data is `None` or [`Interval::NotEnough`], and a value that has no
//! logarithm or is not finite is an error with its place. What was measured about it stands in `docs/STATISTICS.md`.

mod batches;
mod binomial;
mod blocks;
mod effect;
mod hodges_lehmann;
mod normal;
mod power;
mod prediction;
mod quantile;
mod sequential;
mod signed_rank;
mod student;
mod suite;

pub use batches::{batch_half_width, unpaired_difference};
pub use binomial::binomial_upper;
pub use blocks::{BlockRatios, Column, block_minima_log_ratios};
pub use effect::{ENOUGH_AA, Effect, FEW_AA_FLOOR, aa_floor, aa_scale, effect};
pub use hodges_lehmann::{MAX_OBSERVATIONS, hodges_lehmann};
pub use normal::normal_quantile;
pub use power::{Design, Spread, best_blocks_per_launch, launches_needed, minimum_detectable_effect, spread};
pub use prediction::{Prediction, prediction_interval};
pub use quantile::{median, quantile};
pub use sequential::always_valid_bounds;
pub use signed_rank::{EXACT_UP_TO, Interval, signed_rank_interval};
pub use student::{student_quantile, student_tail};
pub use suite::{Shift, benjamini_hochberg, suite_shift};

/// Why an input has no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StatsError {
    /// A NaN or an infinity.
    #[error("value {index} is {value}, expected finite numbers")]
    NotFinite {
        /// Its position.
        index: usize,
        /// The value.
        value: f64,
    },
    /// A ratio needs positive times.
    #[error("value {index} is {value}, expected positive finite numbers")]
    NotPositive {
        /// Its position.
        index: usize,
        /// The value.
        value: f64,
    },
    /// Columns of one table differ in length.
    #[error("{blocks} block numbers for {values} values, expected as many")]
    Length {
        /// Entries of the block column.
        blocks: usize,
        /// Entries of the value column.
        values: usize,
    },
    /// Pairs are formed from all observations: their number is bounded.
    #[error("{n} observations, expected at most {MAX_OBSERVATIONS}")]
    TooMany {
        /// How many there are.
        n: usize,
    },
    /// A probability outside its range.
    #[error("probability {value}, expected {expected}")]
    Probability {
        /// The value.
        value: f64,
        /// Its range.
        expected: &'static str,
    },
}
