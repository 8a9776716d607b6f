//! The most that something can do: the fastest of several short repetitions.
//!
//! A limit is a maximum, and disturbance only adds time, so the fastest repetition counts and not the typical one. But
//! where hardly two repetitions agree, the fastest need not have met a quiet moment either: unless a few come close to
//! it there is no answer.

use super::meters;

/// Repetitions of which the fastest counts.
pub const REPETITIONS: u32 = 12;
/// Length of a repetition, in ns.
const REPETITION_NS: u64 = 1_000_000;
/// So many repetitions must come close to the fastest, itself included.
const CLOSE: usize = 3;
/// How close, as a ratio of times.
const CLOSE_RATIO: f64 = 1.10;
/// More calls in a repetition than this mean that the clock does not move, or that there is nothing to time.
const MOST_CALLS: u64 = 1 << 40;

/// Why there is no fastest call.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum NoFastest {
    /// However many calls, they took no time.
    #[error("the clock stands still")]
    ClockStands,
    /// The fastest repetition was alone.
    #[error(
        "disturbed: of {REPETITIONS} repetitions the fastest took {fastest_ns:.0} ns a call and the third {third_ns:.0} ns"
    )]
    Disturbed {
        /// Time of a call in the fastest repetition.
        fastest_ns: f64,
        /// In the third fastest.
        third_ns: f64,
    },
}

/// Time of one call in ns, in the fastest of [`REPETITIONS`] repetitions of about a millisecond. `run(n)` makes n calls.
///
/// # Errors
/// [`NoFastest`].
pub fn fastest_call_ns(run: &mut dyn FnMut(u64)) -> Result<f64, NoFastest> {
    fastest_by(&meters::wall_ns, run)
}

fn fastest_by(clock: &dyn Fn() -> u64, run: &mut dyn FnMut(u64)) -> Result<f64, NoFastest> {
    let mut time = |calls| {
        let start = clock();
        run(calls);
        clock().saturating_sub(start)
    };
    let mut calls = 1;
    while time(calls) < REPETITION_NS {
        calls *= 2;
        if calls > MOST_CALLS {
            return Err(NoFastest::ClockStands);
        }
    }
    // A disturbed trial looks long enough with too few calls, which would then time how work is handed out.
    let mut repetitions: Vec<u64> = (0..REPETITIONS).map(|_| time(calls)).collect();
    while let Some(fastest) = repetitions.iter().copied().min().filter(|ns| *ns < REPETITION_NS / 2) {
        calls *= (REPETITION_NS / fastest.max(1)).clamp(2, 1 << 10);
        if calls > MOST_CALLS {
            return Err(NoFastest::ClockStands);
        }
        repetitions = (0..REPETITIONS).map(|_| time(calls)).collect();
    }
    let mut call_ns: Vec<f64> = repetitions.into_iter().map(|ns| ns as f64 / calls as f64).collect();
    call_ns.sort_by(f64::total_cmp);
    let (fastest_ns, third_ns) = (call_ns[0], call_ns[CLOSE - 1]);
    if fastest_ns <= 0.0 {
        Err(NoFastest::ClockStands)
    } else if third_ns > fastest_ns * CLOSE_RATIO {
        Err(NoFastest::Disturbed { fastest_ns, third_ns })
    } else {
        Ok(fastest_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// A clock that each repetition moves on by what the script says of it, in ns a call.
    fn scripted(call_ns: impl Fn(u32) -> f64) -> Result<f64, NoFastest> {
        let (now, repetition) = (Cell::new(0), Cell::new(0));
        fastest_by(&|| now.get(), &mut |calls| {
            let scripted = calls as f64 * call_ns(repetition.get());
            now.set(now.get() + scripted as u64);
            repetition.set(repetition.get() + 1);
        })
    }

    #[test]
    fn the_fastest_repetition_counts_however_many_are_disturbed() {
        // 1 ms of calls of 1000 ns are found after 11 trials of the calibration.
        let disturbed = |n: u32| if n < 11 || n.is_multiple_of(4) { 1000.0 } else { 3000.0 + f64::from(n) };
        assert_eq!(scripted(disturbed), Ok(1000.0));
        assert_eq!(scripted(|_| 2e9), Ok(2e9), "one long call is a repetition");
        // The calibration's first trial is disturbed: one call looks long enough, and a repetition would be of one call.
        assert_eq!(scripted(|n| if n == 0 { 5e6 } else { 1000.0 }), Ok(1000.0));
    }

    #[test]
    fn a_repetition_is_not_of_too_few_calls() {
        let (now, last) = (Cell::new(0), Cell::new(0));
        let found = fastest_by(&|| now.get(), &mut |calls| {
            // 10 us to begin, 100 ns a call; the first trial is disturbed.
            let took = 10_000 + 100 * calls + if now.get() == 0 { 5_000_000 } else { 0 };
            last.set(took);
            now.set(now.get() + took);
        });
        assert!(last.get() >= REPETITION_NS / 2, "{last:?}");
        assert!(found.is_ok_and(|ns| ns < 103.0), "{found:?}");
    }

    #[test]
    fn a_fastest_repetition_that_is_alone_is_no_answer() {
        let alone = |n: u32| if n == 13 { 900.0 } else { 1000.0 + 100.0 * f64::from(n) };
        assert!(
            matches!(scripted(alone), Err(NoFastest::Disturbed { fastest_ns, .. }) if fastest_ns == 900.0)
        );
        assert_eq!(scripted(|_| 0.0), Err(NoFastest::ClockStands));
    }

    #[test]
    fn a_real_clock_gives_a_positive_time() {
        let mut sum = 0_u64;
        let found = fastest_call_ns(&mut |calls| {
            for call in 0..calls {
                sum = std::hint::black_box(sum.wrapping_mul(3) + call);
            }
        });
        assert!(found.map_or_else(|why| matches!(why, NoFastest::Disturbed { .. }), |ns| ns > 0.0));
    }
}
