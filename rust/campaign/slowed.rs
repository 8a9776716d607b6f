//! A run that takes longer by a known share: what the self-test plants, and must find.
//!
//! Every call is followed by spinning for that share of the time it took, so the slow-down is right whatever the machine
//! does. Reading the clock costs time of its own, which would be 0.6 % of a call of 16 us: it is measured and left out. Spinning
//! adds work of the CPU and none of memory, as a kernel with more instructions would. Where instructions are counted, the
//! extra work is a number of instructions.

use crate::backends::BackendError;
use crate::measure::{CountError, Counter};
use crate::workloads::{Output, Run};
use std::time::{Duration, Instant};

/// A run slowed down by a share.
pub(super) struct Slowed<'a> {
    run: Box<dyn Run + 'a>,
    extra: Extra,
}

/// What comes on top of every call.
enum Extra {
    /// A share of its time; `reading` is what one reading of the clock costs.
    Time { share: f64, reading: Duration },
    /// Rounds of an empty loop.
    Rounds(u64),
}

fn spin(rounds: u64) {
    for round in 0..rounds {
        std::hint::black_box(round);
    }
}

impl<'a> Slowed<'a> {
    /// `run`, slowed down by `share` (ratio - 1); by nothing at all if it is 0.
    pub fn new(run: Box<dyn Run + 'a>, share: f64) -> Self {
        const READINGS: u32 = 1000;
        let begin = Instant::now();
        for _ in 0..READINGS {
            std::hint::black_box(Instant::now());
        }
        Self { run, extra: Extra::Time { share, reading: begin.elapsed() / READINGS } }
    }

    /// `run` with so many instructions more in every call.
    pub fn by_work(
        run: Box<dyn Run + 'a>,
        instructions: f64,
        counter: &mut Counter,
    ) -> Result<Self, CountError> {
        const ROUNDS: u64 = 10_000;
        let per_round = counter.per_call(&mut || spin(ROUNDS))? / ROUNDS as f64;
        Ok(Self { run, extra: Extra::Rounds((instructions / per_round) as u64) })
    }
}

impl Run for Slowed<'_> {
    fn run(&mut self) -> Result<(), BackendError> {
        let (share, reading) = match self.extra {
            Extra::Time { share, reading } if share > 0.0 => (share, reading),
            Extra::Time { .. } => return self.run.run(),
            Extra::Rounds(rounds) => {
                spin(rounds);
                return self.run.run();
            }
        };
        let begin = Instant::now();
        let result = self.run.run();
        // One reading lies in the time taken; begun and ended with one each, the whole takes two more than the spinning.
        let taken = begin.elapsed().saturating_sub(reading);
        let until = taken.mul_f64(1.0 + share).saturating_sub(reading);
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
