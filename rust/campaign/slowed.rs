//! A run that takes longer by a known share: what the self-test plants, and must find.
//!
//! Every call is followed by spinning for that share of the time it took, so the slow-down is right whatever the machine
//! does. Reading the clock costs time of its own, which would be 0.6 % of a call of 16 us: it is measured and left out. Spinning
//! adds work of the CPU and none of memory, as a kernel with more instructions would.

use crate::backends::BackendError;
use crate::workloads::{Output, Run};
use std::time::{Duration, Instant};

/// A run slowed down by a share.
pub(super) struct Slowed<'a> {
    run: Box<dyn Run + 'a>,
    /// Slow-down, ratio - 1.
    share: f64,
    /// What one reading of the clock costs.
    reading: Duration,
}

impl<'a> Slowed<'a> {
    /// `run`, slowed down by `share` (ratio - 1); by nothing at all if it is 0.
    pub fn new(run: Box<dyn Run + 'a>, share: f64) -> Self {
        const READINGS: u32 = 1000;
        let begin = Instant::now();
        for _ in 0..READINGS {
            std::hint::black_box(Instant::now());
        }
        Self { run, share, reading: begin.elapsed() / READINGS }
    }
}

impl Run for Slowed<'_> {
    fn run(&mut self) -> Result<(), BackendError> {
        if self.share <= 0.0 {
            return self.run.run();
        }
        let begin = Instant::now();
        let result = self.run.run();
        // One reading lies in the time taken; begun and ended with one each, the whole takes two more than the spinning.
        let taken = begin.elapsed().saturating_sub(self.reading);
        let until = taken.mul_f64(1.0 + self.share).saturating_sub(self.reading);
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
