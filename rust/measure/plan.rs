//! What is decided before anything is timed, and what is refused.

/// No sample is shorter: below it, the timer and a single interrupt are too large a part of it.
pub const MIN_SAMPLE_NS: u64 = 1_000_000;

/// A sample lasts at least so many timer resolutions: at most 0.1 % quantisation.
pub(super) const RESOLUTIONS_PER_SAMPLE: u64 = 1000;

/// How one group of sides is measured. Written into the recording before the first sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Decides the order of the sides in every block.
    pub seed: u64,
    /// Blocks wanted. In each, every side takes one turn.
    pub blocks: u32,
    /// The budget may lower the number of blocks to this, not below.
    pub min_blocks: u32,
    /// Adjacent samples in a turn.
    pub samples_per_block: u32,
    /// Length a sample should have, at least [`MIN_SAMPLE_NS`].
    pub min_sample_ns: u64,
    /// Untimed calls before each turn.
    pub warmup_calls: u32,
    /// Wall time that the blocks of one group may take, by the calibration's estimate.
    pub budget_ns: u64,
}

impl Plan {
    /// 12 blocks of 3 samples of 1 ms, one warm-up call, 10 s.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            blocks: 12,
            min_blocks: 6,
            samples_per_block: 3,
            min_sample_ns: MIN_SAMPLE_NS,
            warmup_calls: 1,
            budget_ns: 10_000_000_000,
        }
    }

    /// Refuses plans that cannot give evidence.
    pub fn check(&self) -> Result<(), MeasureError> {
        let bad = |field, why: &str| Err(MeasureError::Plan { field, why: why.to_owned() });
        if self.min_blocks == 0 {
            return bad("min_blocks", "is 0, expected at least 1");
        }
        if !(self.min_blocks..=100_000).contains(&self.blocks) {
            return bad("blocks", &format!("is {}, expected min_blocks to 100000", self.blocks));
        }
        if !(1..=1000).contains(&self.samples_per_block) {
            return bad("samples_per_block", &format!("is {}, expected 1 to 1000", self.samples_per_block));
        }
        if !(MIN_SAMPLE_NS..=60_000_000_000).contains(&self.min_sample_ns) {
            return bad("min_sample_ns", &format!("is {}, expected 1 ms to 60 s", self.min_sample_ns));
        }
        if self.warmup_calls == 0 {
            return bad("warmup_calls", "is 0, expected at least 1");
        }
        Ok(())
    }
}

/// What the untimed calibration fixed for one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SideSchedule {
    /// Calls per sample, the same in every sample.
    pub iterations: u64,
    /// Calibrated time of one call, rounded up; an estimate for planning, not a result.
    pub call_ns: u64,
}

/// What the untimed calibration fixed for the whole group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Per side, in the caller's order.
    pub sides: Vec<SideSchedule>,
    /// Blocks that will be run.
    pub blocks: u32,
    /// Expected wall time of one block.
    pub block_ns: u64,
    /// The sample length that was aimed at.
    pub sample_ns: u64,
    /// The wall clock's observed resolution.
    pub timer_resolution_ns: u64,
}

/// Why nothing was measured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeasureError {
    /// Timing code that was built without optimisation says nothing about the code.
    #[error(
        "{what} was built with optimisation level {level:?}; build with --release (-O2 or more) to time it"
    )]
    Unoptimised {
        /// Which build.
        what: String,
        /// Its level as given.
        level: String,
    },
    /// The build does not say how it was optimised.
    #[error("{what} does not state its optimisation level; it cannot be shown to be an optimised build")]
    OptimisationUnknown {
        /// Which build.
        what: String,
    },
    /// A plan that cannot give evidence.
    #[error("plan: {field} {why}")]
    Plan {
        /// The field.
        field: &'static str,
        /// Its value and the rule.
        why: String,
    },
    /// Nothing to compare.
    #[error("{sides} side(s) to measure, expected a reference and at least one subject")]
    Sides {
        /// How many were given.
        sides: usize,
    },
    /// The platform's wall clock did not move in ten million readings.
    #[error("the wall clock stands still; nothing can be timed on this platform")]
    ClockStands,
}

/// Refuses to time `what` if its optimisation `level` is none: `0`, `-O0`, `-Og`, `debug`, `dev`, `none`.
///
/// # Errors
/// [`MeasureError::Unoptimised`]; [`MeasureError::OptimisationUnknown`] for an empty or unknown level.
pub fn refuse_unoptimised(what: &str, level: &str) -> Result<(), MeasureError> {
    let bare = level.trim().trim_start_matches('-').trim_start_matches(['O', 'o']);
    match bare.to_ascii_lowercase().as_str() {
        "1" | "2" | "3" | "s" | "z" | "fast" | "release" => Ok(()),
        "0" | "g" | "debug" | "dev" | "none" => {
            Err(MeasureError::Unoptimised { what: what.to_owned(), level: level.to_owned() })
        }
        _ => Err(MeasureError::OptimisationUnknown { what: what.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unoptimised_builds_are_refused() {
        for level in ["0", "-O0", "O0", "g", "-Og", "debug", "dev", "none", " 0 "] {
            let error = refuse_unoptimised("cpp-avx2", level).expect_err(level);
            assert!(matches!(error, MeasureError::Unoptimised { .. }), "{level}: {error}");
            assert!(error.to_string().contains("cpp-avx2"));
        }
        for level in ["1", "2", "3", "s", "z", "-O3", "-O2", "-Os", "-Ofast", "release"] {
            assert_eq!(refuse_unoptimised("cpp-avx2", level), Ok(()), "{level}");
        }
        for level in ["", "  ", "33", "-march=native", "00"] {
            let error = refuse_unoptimised("plugin", level).expect_err(level);
            assert_eq!(error, MeasureError::OptimisationUnknown { what: "plugin".into() });
        }
    }

    #[test]
    fn plans_without_evidence_are_refused() {
        let plan = Plan::new(42);
        assert_eq!(plan.check(), Ok(()));
        let bad = [
            ("min_blocks", Plan { min_blocks: 0, ..plan }),
            ("blocks", Plan { blocks: 0, ..plan }),
            ("blocks", Plan { blocks: 5, ..plan }),
            ("blocks", Plan { blocks: u32::MAX, ..plan }),
            ("samples_per_block", Plan { samples_per_block: 0, ..plan }),
            ("samples_per_block", Plan { samples_per_block: u32::MAX, ..plan }),
            ("min_sample_ns", Plan { min_sample_ns: MIN_SAMPLE_NS - 1, ..plan }),
            ("min_sample_ns", Plan { min_sample_ns: u64::MAX, ..plan }),
            ("warmup_calls", Plan { warmup_calls: 0, ..plan }),
        ];
        for (name, plan) in bad {
            match plan.check() {
                Err(MeasureError::Plan { field, .. }) => assert_eq!(field, name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}
