use std::cell::{Cell, RefCell};

use super::*;
use crate::measure::MIN_SAMPLE_NS;

/// A clock that moves only when work is done, plus one step per reading.
struct FakeClocks<'a> {
    now_ns: &'a Cell<u64>,
    step_ns: u64,
    cpu_known: bool,
}

impl Clocks for FakeClocks<'_> {
    fn wall_ns(&self) -> u64 {
        self.now_ns.set(self.now_ns.get() + self.step_ns);
        self.now_ns.get()
    }

    fn thread_cpu_ns(&self) -> Option<u64> {
        self.cpu_known.then(|| self.now_ns.get())
    }

    fn switches(&self) -> Option<Switches> {
        None
    }
}

fn go_on(_: Progress) -> ControlFlow<String> {
    ControlFlow::Continue(())
}

/// Runs sides that take `costs_ns` a call; also returns how often each was called.
fn simulate(plan: &Plan, costs_ns: &[u64], observer: &mut Observer<'_>) -> (GroupSamples, Vec<u64>) {
    let now_ns = Cell::new(0);
    let calls: Vec<Cell<u64>> = costs_ns.iter().map(|_| Cell::new(0)).collect();
    let mut work: Vec<Box<dyn FnMut()>> = Vec::new();
    for (cost, count) in costs_ns.iter().zip(&calls) {
        let now_ns = &now_ns;
        work.push(Box::new(move || {
            now_ns.set(now_ns.get() + cost);
            count.set(count.get() + 1);
        }));
    }
    let clocks = FakeClocks { now_ns: &now_ns, step_ns: 20, cpu_known: true };
    let mut sides: Vec<Side<'_>> = work.iter_mut().map(|run| Side::new(run)).collect();
    let group = measure_with(&clocks, plan, &mut sides, observer).expect("a good plan");
    drop(sides);
    drop(work);
    (group, calls.into_iter().map(Cell::into_inner).collect())
}

#[test]
fn every_block_holds_every_side_once_and_all_samples_adjacent() {
    let plan = Plan { blocks: 40, ..Plan::new(1) };
    let (group, _) = simulate(&plan, &[10_000, 20_000, 5_000], &mut go_on);
    assert_eq!((group.blocks.len(), group.samples.len(), group.incomplete), (40, 40 * 3 * 3, None));
    for (block, samples) in group.samples.chunks(9).enumerate() {
        let turns = &group.blocks[block].turns;
        for (position, sample) in samples.iter().enumerate() {
            assert_eq!((sample.block, sample.order), (block as u32, position as u32));
            assert_eq!(sample.side, turns[position / 3], "three adjacent samples per turn");
        }
        let mut sorted = turns.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2]);
    }
}

#[test]
fn samples_are_long_enough_equally_long_and_raw() {
    let plan = Plan { blocks: 8, ..Plan::new(1) };
    let costs = [300, 7_000, 40_000_000];
    let (group, _) = simulate(&plan, &costs, &mut go_on);
    assert_eq!(group.schedule.sample_ns, MIN_SAMPLE_NS);
    assert_eq!(group.schedule.timer_resolution_ns, 20);
    for sample in &group.samples {
        let side = sample.side as usize;
        assert_eq!(sample.iterations, group.schedule.sides[side].iterations, "frozen");
        // All calls together, and the one step that the clock makes by being read.
        assert_eq!(sample.wall_ns, sample.iterations * costs[side] + 20);
        assert!(sample.wall_ns >= MIN_SAMPLE_NS, "{sample:?}");
        assert!(sample.wall_ns < MIN_SAMPLE_NS + MIN_SAMPLE_NS / 50 + 2 * costs[side], "{sample:?}");
    }
    assert_eq!(group.schedule.sides[2].iterations, 1);
}

/// A clock of 5 us needs samples of 5 ms.
#[test]
fn a_coarse_timer_lengthens_samples() {
    let now_ns = Cell::new(0);
    let clocks = FakeClocks { now_ns: &now_ns, step_ns: 5_000, cpu_known: false };
    let (mut first, mut second) = (|| now_ns.set(now_ns.get() + 1000), || now_ns.set(now_ns.get() + 1000));
    let sides = &mut [Side::new(&mut first), Side::new(&mut second)];
    let group = measure_with(&clocks, &Plan::new(1), sides, &mut go_on).expect("a good plan");
    assert_eq!(group.schedule.sample_ns, 5_000_000);
    assert!(group.samples.iter().all(|sample| sample.wall_ns >= 5_000_000 && sample.cpu_ns.is_none()));
    assert_eq!(disturbance(&group.samples), None);
}

#[test]
fn warm_up_calls_are_made_and_not_timed() {
    let calls_of = |warmup_calls| {
        let plan = Plan { blocks: 10, warmup_calls, ..Plan::new(1) };
        let (group, calls) = simulate(&plan, &[10_000, 10_000], &mut go_on);
        let timed: u64 = group.samples.iter().filter(|s| s.side == 0).map(|s| s.iterations).sum();
        (calls[0], timed)
    };
    let ((calls_1, timed_1), (calls_4, timed_4)) = (calls_of(1), calls_of(4));
    assert_eq!(timed_1, timed_4);
    assert_eq!(calls_4 - calls_1, 10 * 3, "three calls more in each of ten turns");
}

#[test]
fn orders_are_fair_and_decided_by_the_seed() {
    let turns = |seed| {
        let plan = Plan { blocks: 2000, budget_ns: u64::MAX, ..Plan::new(seed) };
        let (group, _) = simulate(&plan, &[1_000_000; 2], &mut go_on);
        assert_eq!(group.blocks.len(), 2000);
        group.blocks.into_iter().map(|note| note.turns).collect::<Vec<_>>()
    };
    let first = turns(42);
    assert_eq!(first, turns(42));
    assert_ne!(first, turns(43));
    // Four standard deviations of 2000 fair coins.
    let reference_first = first.iter().filter(|order| order[0] == 0).count();
    assert!(reference_first.abs_diff(1000) <= 90, "{reference_first} of 2000");
    let repeats = first.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert!(repeats.abs_diff(1000) <= 90, "{repeats} of 1999 orders equal the one before");

    let mut rng = Rng::new(5);
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..6000 {
        *seen.entry(random_order(3, &mut rng)).or_insert(0_u32) += 1;
    }
    // Six orders, 1000 each; four standard deviations are 116.
    assert!(seen.len() == 6 && seen.values().all(|count| count.abs_diff(1000) <= 116), "{seen:?}");
}

#[test]
fn the_budget_lowers_blocks_to_the_minimum_only() {
    // A block of 2 sides * (3 samples + 1 warm-up) * 10 ms = 80 ms.
    let blocks = |budget_ms: u64| {
        let plan = Plan { blocks: 20, min_blocks: 6, budget_ns: budget_ms * 1_000_000, ..Plan::new(1) };
        let (group, _) = simulate(&plan, &[10_000_000, 10_000_000], &mut go_on);
        assert_eq!(group.blocks.len() as u32, group.schedule.blocks);
        assert_eq!(group.incomplete, None, "the schedule was known beforehand");
        group.schedule.blocks
    };
    assert_eq!((blocks(10_000), blocks(850), blocks(0)), (20, 10, 6));
}

#[test]
fn the_observer_is_asked_between_blocks_and_may_stop() {
    let seen = RefCell::new(Vec::new());
    let mut observer = |progress: Progress| {
        seen.borrow_mut().push(progress.blocks_done);
        if progress.blocks_done == 3 { ControlFlow::Break("interrupted".into()) } else { go_on(progress) }
    };
    let (group, _) = simulate(&Plan::new(1), &[10_000, 10_000], &mut observer);
    assert_eq!(*seen.borrow(), [0, 1, 2, 3]);
    assert_eq!(group.incomplete.as_deref(), Some("interrupted"));
    assert_eq!((group.blocks.len(), group.samples.len()), (3, 3 * 2 * 3), "whole blocks are kept");
}

#[test]
fn stopping_first_keeps_nothing_and_stopping_last_loses_nothing() {
    let at = |block| {
        move |progress: Progress| {
            if progress.blocks_done == block { ControlFlow::Break("stop".into()) } else { go_on(progress) }
        }
    };
    let plan = Plan { blocks: 6, ..Plan::new(1) };
    let (none, _) = simulate(&plan, &[10_000, 10_000], &mut at(0));
    assert_eq!((none.samples.len(), none.incomplete.as_deref()), (0, Some("stop")));
    let (all, _) = simulate(&plan, &[10_000, 10_000], &mut at(6));
    assert_eq!((all.blocks.len(), all.incomplete), (6, None));
}

#[test]
fn each_turn_ends_with_the_side_s_own_quiesce() {
    let log = RefCell::new(String::new());
    let now_ns = Cell::new(0_u64);
    let clocks = FakeClocks { now_ns: &now_ns, step_ns: 10, cpu_known: true };
    let work = |name: char| {
        let (log, now_ns) = (&log, &now_ns);
        move || {
            now_ns.set(now_ns.get() + 2_000_000);
            log.borrow_mut().push(name);
        }
    };
    let (mut run_a, mut run_b, mut rest_a, mut rest_b) = (work('a'), work('b'), work('A'), work('B'));
    let sides = &mut [
        Side { run: &mut run_a, quiesce: Some(&mut rest_a) },
        Side { run: &mut run_b, quiesce: Some(&mut rest_b) },
    ];
    let plan = Plan { blocks: 6, ..Plan::new(1) };
    measure_with(&clocks, &plan, sides, &mut go_on).expect("a good plan");
    let log = log.borrow();
    // Calibration, then per turn one warm-up and three samples of one call.
    let turns = log.split_inclusive(['A', 'B']).skip(2).collect::<Vec<_>>();
    assert_eq!(turns.len(), 12, "{log}");
    assert!(turns.iter().all(|turn| ["aaaaA", "bbbbB"].contains(turn)), "{log}");
}

#[test]
fn a_clock_that_stands_is_an_error() {
    let now_ns = Cell::new(0);
    let clocks = FakeClocks { now_ns: &now_ns, step_ns: 0, cpu_known: true };
    let (mut first, mut second) = (|| (), || ());
    let sides = &mut [Side::new(&mut first), Side::new(&mut second)];
    let error = measure_with(&clocks, &Plan::new(1), sides, &mut go_on);
    assert_eq!(error, Err(MeasureError::ClockStands));
}

#[test]
fn one_side_is_nothing_to_compare() {
    let mut run = || ();
    let error = measure_group(&Plan::new(1), &mut [Side::new(&mut run)], &mut go_on);
    assert_eq!(error, Err(MeasureError::Sides { sides: 1 }));
    assert_eq!(measure_group(&Plan::new(1), &mut [], &mut go_on), Err(MeasureError::Sides { sides: 0 }));
}

#[test]
fn disturbance_is_the_share_beyond_two_percent() {
    let sample = |wall_ns, cpu_ns| Sample {
        side: 0,
        block: 0,
        order: 0,
        iterations: 1,
        wall_ns,
        cpu_ns,
        switches: None,
    };
    let samples =
        [sample(1020, Some(1000)), sample(1021, Some(1000)), sample(9, Some(1000)), sample(9000, None)];
    assert_eq!(disturbance(&samples), Some(1.0 / 3.0));
    assert_eq!(disturbance(&samples[3..]), None);
    assert_eq!(disturbance(&[]), None);
}

/// With the real clocks: a subject that does three times the work is seen to take about three times as long.
/// Wide bounds, since other programs run beside the tests; what must not happen is no difference or a swap.
#[test]
fn real_clocks_see_three_times_the_work() {
    let spin = |rounds: u64| {
        move || {
            let mut x = 1_u64;
            for i in 0..rounds {
                x = std::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(i));
            }
            std::hint::black_box(x);
        }
    };
    let plan = Plan { blocks: 9, ..Plan::new(1) };
    let group = measure_pair(&plan, &mut spin(20_000), &mut spin(60_000), &mut go_on).expect("a good plan");
    let fastest_call = |side| {
        let calls = group.samples.iter().filter(|sample| sample.side == side);
        calls.map(|s| s.wall_ns as f64 / s.iterations as f64).fold(f64::INFINITY, f64::min)
    };
    let ratio = fastest_call(1) / fastest_call(0);
    assert!((2.0..4.5).contains(&ratio), "ratio {ratio}, expected about 3");
}
