//! A run that takes longer by a known share: what the self-test plants, and must find.
//!
//! Every call is followed by spinning for that share of the time it took, so the slow-down is right whatever the machine does.
//! It adds work of the CPU and none of memory, as a kernel with more instructions would.

use crate::backends::BackendError;
use crate::workloads::{Output, Run};
use std::time::Instant;

/// A run slowed down by a share.
pub(super) struct Slowed<'a> {
    pub run: Box<dyn Run + 'a>,
    /// Slow-down, ratio - 1.
    pub share: f64,
}

impl Run for Slowed<'_> {
    fn run(&mut self) -> Result<(), BackendError> {
        let begin = Instant::now();
        let result = self.run.run();
        let until = begin.elapsed().mul_f64(1.0 + self.share.max(0.0));
        while begin.elapsed() < until {
            std::hint::spin_loop();
        }
        result
    }

    fn outputs(&self) -> Vec<(&'static str, Output<'_>)> {
        self.run.outputs()
    }

    fn poison(&mut self) {
        self.run.poison();
    }

    fn copies(&self) -> usize {
        self.run.copies()
    }
}
