//! Several sides of one piece of work, timed in one thread, block by block, in random order.
//!
//! ```text
//! calibrate every side, untimed: iterations per sample, number of blocks; both frozen
//! for each block
//!     draw an order of the sides
//!     for each side in that order
//!         warm-up calls, untimed
//!         k samples: clocks, `iterations` calls, clocks
//!         quiesce, untimed
//!     ask the observer whether to go on
//! ```
//!
//! One reference may serve several subjects: every block runs all sides. The observer is asked between blocks
//! only, so that nothing of ours (a progress bar, a signal) runs inside one.
//! Samples are raw: `wall_ns` is the time of all `iterations` calls together.

use std::ops::ControlFlow;

use super::meters::{self, Switches};
use super::plan::{MeasureError, Plan, RESOLUTIONS_PER_SAMPLE, Schedule, SideSchedule};
use crate::rng::Rng;

/// One thing to time.
pub struct Side<'a> {
    /// One call of the work. It must not fail: what can, is tried before.
    pub run: &'a mut dyn FnMut(),
    /// Called after each of its turns, untimed: returns when none of its threads runs or spins.
    pub quiesce: Option<&'a mut dyn FnMut()>,
}

impl<'a> Side<'a> {
    /// A side with nothing to quiesce.
    pub fn new(run: &'a mut dyn FnMut()) -> Self {
        Self { run, quiesce: None }
    }

    pub(super) fn rest(&mut self) {
        if let Some(quiesce) = &mut self.quiesce {
            quiesce();
        }
    }
}

/// One timed measurement, raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Index of the side; 0 is the reference.
    pub side: u32,
    /// Index of the block.
    pub block: u32,
    /// Position of this sample among all of its block, from 0.
    pub order: u32,
    /// Calls in it.
    pub iterations: u64,
    /// Wall time of all calls together.
    pub wall_ns: u64,
    /// CPU time of this thread for all calls together, where the platform tells.
    pub cpu_ns: Option<u64>,
    /// Context switches of this thread meanwhile, where the platform tells.
    pub switches: Option<Switches>,
}

/// What is known of a block besides its samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockNote {
    /// Sides in the order of their turns.
    pub turns: Vec<u32>,
    /// Clock ticks that the hypervisor took from all CPUs meanwhile, where the platform tells.
    pub steal_ticks: Option<u64>,
}

/// Everything one group of sides gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSamples {
    /// What was fixed before the first sample.
    pub schedule: Schedule,
    /// In the order they were taken; whole blocks only.
    pub samples: Vec<Sample>,
    /// One per block that was run.
    pub blocks: Vec<BlockNote>,
    /// Why blocks of the schedule are missing, if some are.
    pub incomplete: Option<String>,
}

/// Where the measurement stands, told between blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Blocks finished.
    pub blocks_done: u32,
    /// Blocks of the schedule.
    pub blocks: u32,
    /// Wall time since the first block began.
    pub elapsed_ns: u64,
    /// Expected wall time of the blocks left, by the calibration.
    pub remaining_ns: u64,
}

/// Told the progress between blocks; breaks with a reason to stop (Ctrl-C, a deadline).
pub type Observer<'a> = dyn FnMut(Progress) -> ControlFlow<String> + 'a;

/// Share of samples whose wall time exceeds their CPU time by more than 2 %: below 10 % the machine is quiet,
/// to 50 % busy, above in a storm (`docs/STATISTICS.md`). For work on one thread; `None` without CPU times.
pub fn disturbance(samples: &[Sample]) -> Option<f64> {
    let known: Vec<(u64, u64)> = samples.iter().filter_map(|s| Some((s.wall_ns, s.cpu_ns?))).collect();
    let disturbed = known.iter().filter(|(wall, cpu)| *wall as f64 > 1.02 * *cpu as f64).count();
    (!known.is_empty()).then(|| disturbed as f64 / known.len() as f64)
}

/// Times `reference` (side 0) and `subject` (side 1): [`measure_group`] with two sides.
///
/// # Errors
/// [`MeasureError::Plan`], [`MeasureError::ClockStands`].
pub fn measure_pair(
    plan: &Plan,
    reference: &mut dyn FnMut(),
    subject: &mut dyn FnMut(),
    observer: &mut Observer<'_>,
) -> Result<GroupSamples, MeasureError> {
    measure_group(plan, &mut [Side::new(reference), Side::new(subject)], observer)
}

/// Times all `sides` against each other; `sides[0]` is the reference.
///
/// The observer is called after the calibration and after every block. When it breaks, the blocks measured so
/// far are returned with its reason in [`GroupSamples::incomplete`].
///
/// # Errors
/// [`MeasureError::Plan`], [`MeasureError::Sides`], [`MeasureError::ClockStands`].
pub fn measure_group(
    plan: &Plan,
    sides: &mut [Side<'_>],
    observer: &mut Observer<'_>,
) -> Result<GroupSamples, MeasureError> {
    measure_with(&SystemClocks, plan, sides, observer)
}

/// What a sample is read from; tests bring their own.
trait Clocks {
    fn wall_ns(&self) -> u64;
    fn thread_cpu_ns(&self) -> Option<u64>;
    fn switches(&self) -> Option<Switches>;
}

struct SystemClocks;

impl Clocks for SystemClocks {
    fn wall_ns(&self) -> u64 {
        meters::wall_ns()
    }

    fn thread_cpu_ns(&self) -> Option<u64> {
        meters::thread_cpu_ns()
    }

    fn switches(&self) -> Option<Switches> {
        meters::thread_switches()
    }
}

fn measure_with(
    clocks: &impl Clocks,
    plan: &Plan,
    sides: &mut [Side<'_>],
    observer: &mut Observer<'_>,
) -> Result<GroupSamples, MeasureError> {
    plan.check()?;
    if sides.len() < 2 {
        return Err(MeasureError::Sides { sides: sides.len() });
    }
    let schedule = calibrate(clocks, plan, sides)?;
    let mut rng = Rng::for_part(plan.seed, "order of sides");
    let mut group = GroupSamples { schedule, samples: Vec::new(), blocks: Vec::new(), incomplete: None };
    let start_ns = clocks.wall_ns();
    for blocks_done in 0..=group.schedule.blocks {
        let blocks_left = group.schedule.blocks - blocks_done;
        let progress = Progress {
            blocks_done,
            blocks: group.schedule.blocks,
            elapsed_ns: clocks.wall_ns().saturating_sub(start_ns),
            remaining_ns: group.schedule.block_ns.saturating_mul(u64::from(blocks_left)),
        };
        let answer = observer(progress);
        if blocks_left == 0 {
            break;
        }
        if let ControlFlow::Break(reason) = answer {
            group.incomplete = Some(reason);
            break;
        }
        run_block(clocks, plan, sides, &mut rng, &mut group);
    }
    Ok(group)
}

/// One turn of every side, in random order.
fn run_block(
    clocks: &impl Clocks,
    plan: &Plan,
    sides: &mut [Side<'_>],
    rng: &mut Rng,
    group: &mut GroupSamples,
) {
    let block = group.blocks.len() as u32;
    let steal_before = meters::steal_ticks();
    let turns = random_order(sides.len(), rng);
    let mut order = 0;
    for &index in &turns {
        let side = &mut sides[index as usize];
        let iterations = group.schedule.sides[index as usize].iterations;
        for _ in 0..plan.warmup_calls {
            (side.run)();
        }
        for _ in 0..plan.samples_per_block {
            let (wall_ns, cpu_ns, switches) = take_sample(clocks, iterations, side.run);
            group.samples.push(Sample { side: index, block, order, iterations, wall_ns, cpu_ns, switches });
            order += 1;
        }
        side.rest();
    }
    let steal_ticks = steal_before.zip(meters::steal_ticks()).map(|(then, now)| now.saturating_sub(then));
    group.blocks.push(BlockNote { turns, steal_ticks });
}

/// All sides in an order of which every one is equally likely (Fisher and Yates); for two, a fair coin.
fn random_order(sides: usize, rng: &mut Rng) -> Vec<u32> {
    let mut order: Vec<u32> = (0..sides as u32).collect();
    for last in (1..sides).rev() {
        order.swap(last, rng.below(last as u64 + 1) as usize);
    }
    order
}

/// The wall clock is read innermost: what reading the others costs is not in it.
fn take_sample(
    clocks: &impl Clocks,
    iterations: u64,
    run: &mut dyn FnMut(),
) -> (u64, Option<u64>, Option<Switches>) {
    let switches_before = clocks.switches();
    let cpu_before = clocks.thread_cpu_ns();
    let wall_before = clocks.wall_ns();
    for _ in 0..iterations {
        run();
    }
    let wall_ns = clocks.wall_ns().saturating_sub(wall_before);
    let cpu_ns = cpu_before.zip(clocks.thread_cpu_ns()).map(|(then, now)| now.saturating_sub(then));
    let switches = switches_before.zip(clocks.switches()).map(|(then, now)| Switches {
        voluntary: now.voluntary.saturating_sub(then.voluntary),
        involuntary: now.involuntary.saturating_sub(then.involuntary),
    });
    (wall_ns, cpu_ns, switches)
}

/// Calls per calibration trial never exceed this, so that work too cheap to see ends too.
const MAX_ITERATIONS: u64 = 1 << 30;

/// Fixes iterations and blocks. The fastest of three trials counts: disturbance only adds time, and a side
/// that was disturbed now would get samples that are too short for the whole run.
fn calibrate(clocks: &impl Clocks, plan: &Plan, sides: &mut [Side<'_>]) -> Result<Schedule, MeasureError> {
    let timer_resolution_ns =
        meters::observed_resolution_ns(|| clocks.wall_ns()).ok_or(MeasureError::ClockStands)?;
    let sample_ns = plan.min_sample_ns.max(timer_resolution_ns.saturating_mul(RESOLUTIONS_PER_SAMPLE));
    let side_schedules: Vec<SideSchedule> = sides
        .iter_mut()
        .map(|side| {
            let schedule = calibrate_side(clocks, sample_ns, timer_resolution_ns, side.run);
            side.rest();
            schedule
        })
        .collect();
    let calls_ns = |side: &SideSchedule| {
        let calls = side.iterations * u64::from(plan.samples_per_block) + u64::from(plan.warmup_calls);
        side.call_ns.saturating_mul(calls)
    };
    let block_ns = side_schedules.iter().map(calls_ns).fold(0, u64::saturating_add).max(1);
    let affordable = u32::try_from(plan.budget_ns / block_ns).unwrap_or(u32::MAX);
    let blocks = affordable.clamp(plan.min_blocks, plan.blocks);
    Ok(Schedule { sides: side_schedules, blocks, block_ns, sample_ns, timer_resolution_ns })
}

/// A trial may read one timer step too long; without that step, samples are not shorter than aimed at.
fn calibrate_side(
    clocks: &impl Clocks,
    sample_ns: u64,
    timer_step_ns: u64,
    run: &mut dyn FnMut(),
) -> SideSchedule {
    run();
    let mut time = |iterations| take_sample(clocks, iterations, run).0.saturating_sub(timer_step_ns).max(1);
    let mut iterations = 1;
    let mut fastest_ns = time(iterations);
    // Long enough to extrapolate from: an eighth of the sample.
    while fastest_ns < sample_ns / 8 && iterations < MAX_ITERATIONS {
        iterations *= 2;
        fastest_ns = time(iterations);
    }
    // One long call is its own sample; more trials would only cost.
    if fastest_ns < sample_ns {
        fastest_ns = fastest_ns.min(time(iterations)).min(time(iterations));
    }
    let needed = (u128::from(sample_ns) * u128::from(iterations)).div_ceil(u128::from(fastest_ns));
    let iterations_needed = u64::try_from(needed).unwrap_or(u64::MAX).clamp(1, MAX_ITERATIONS);
    SideSchedule { iterations: iterations_needed, call_ns: fastest_ns.div_ceil(iterations) }
}

#[cfg(test)]
mod tests;
