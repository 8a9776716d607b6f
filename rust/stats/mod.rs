//! What numbers mean: float64 slices in, estimates out. Knows nothing of clocks, backends or files.
//!
//! The walk of one comparison: raw samples -> [`block_minima_log_ratios`] -> [`hodges_lehmann`] (how much) and
//! [`signed_rank_interval`] (how sure). [`median`] and [`quantile`] are for tables. What is implemented, what is
//! not yet, and what was measured about it stands in `docs/STATISTICS.md`.
//!
//! Nothing here invents a number: too little data is [`Interval::NotEnough`], and a value that has no
//! logarithm or is not finite is an error with its place.

mod blocks;
mod hodges_lehmann;
mod normal;
mod quantile;
mod signed_rank;

pub use blocks::{BlockRatios, Column, block_minima_log_ratios};
pub use hodges_lehmann::{MAX_OBSERVATIONS, hodges_lehmann};
pub use normal::normal_quantile;
pub use quantile::{median, quantile};
pub use signed_rank::{EXACT_UP_TO, Interval, signed_rank_interval};

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
