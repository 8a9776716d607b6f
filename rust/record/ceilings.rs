//! Ceilings by name, and what they were measured with.
//!
//! ```text
//! l2_read_t1_gb_per_s             bytes read from that cache level (dram: from memory) by one thread
//! int8_dot_avx2_t2_gop_per_s      int8 products of that instruction set in registers, on two threads together
//! f32_fma_avx2_t1_gop_per_s       f32 likewise; 2 operations for a product that is added
//! ```

use super::recording::Extra;
use crate::measure::Cache;
use serde::{Deserialize, Serialize};

/// What the ceilings of a recording were measured with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CeilingSetting {
    /// Of so many short repetitions the fastest counts: a ceiling is a maximum.
    pub repetitions: u32,
    /// Data caches of the machine, the nearest first.
    pub caches: Vec<Cache>,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The name of a bandwidth: of a cache level, or of memory.
pub fn bandwidth_name(level: Option<u32>, threads: u32) -> String {
    let place = level.map_or("dram".to_owned(), |level| format!("l{level}"));
    format!("{place}_read_t{threads}_gb_per_s")
}

/// The name of arithmetic (`int8_dot_avx2`) on so many threads.
pub fn arithmetic_name(arithmetic: &str, threads: u32) -> String {
    format!("{arithmetic}_t{threads}_gop_per_s")
}
