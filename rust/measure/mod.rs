//! How long did it take: closures and clocks. Knows nothing of what the closures compute.
//!
//! [`measure_group`] times one reference and its subjects in the same thread, in blocks, in random order:
//! whatever is slow against a block (frequency, a busy neighbour) hits all sides alike, and the random order
//! turns the rest into noise without a sign. Everything that could be tuned to a result is fixed before the
//! first timed sample: the [`Plan`] by the caller, the [`Schedule`] (iterations per sample, number of blocks)
//! by one untimed calibration. Raw samples come back; nothing is removed, averaged or judged here.

mod affinity;
mod caches;
mod callgrind;
mod counter;
mod fastest;
mod fingerprint;
mod group;
mod meters;
mod plan;

pub use affinity::{Lifted, Pin, pin_to_least_busy_cpu};
pub use caches::{Cache, data_caches};
pub use counter::{CountError, CountSample, Counter, CounterKind, GroupCounts, count_group};
pub use fastest::{NoFastest, REPETITIONS, fastest_call_ns};
pub use fingerprint::{Compiler, CpuFacts, Fingerprint, parse_cpuinfo};
pub use group::{
    BlockNote, GroupSamples, Observer, Progress, Sample, Side, disturbance, measure_group, measure_pair,
};
pub use meters::{
    Switches, peak_rss_bytes, steal_ticks, thread_cpu_ns, thread_switches, timer_resolution_ns, wall_ns,
};
pub use plan::{MIN_SAMPLE_NS, MeasureError, Plan, Schedule, SideSchedule, refuse_unoptimised};
