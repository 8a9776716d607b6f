//! Build times as a recording: workloads `build/clean` and `build/incremental`, one launch for each repeat, since every
//! build is a fresh process.

use super::recording::{Launch, PlanRecord, PlannedWorkload, Recording, SCHEMA, Tool, now_utc};
use super::series::{Meter, Series};
use crate::measure::Fingerprint;

/// Whose times these are.
const BUILDER: &str = "cargo";

/// A recording of builds. `fingerprint` names the compiler, its flags and the project, so that other projects' builds are
/// another set of baselines.
pub fn build_recording(
    tool: Tool,
    fingerprint: Fingerprint,
    repeats: u32,
    [clean_ns, incremental_ns]: [&[u64]; 2],
    incomplete: Option<String>,
) -> Recording {
    let kinds = [("build/clean", clean_ns), ("build/incremental", incremental_ns)];
    let planned = |id: &str| PlannedWorkload {
        id: id.to_owned(),
        category: "build".to_owned(),
        class: "secondary".to_owned(),
        ..PlannedWorkload::default()
    };
    let series = |order: u32, workload: &str, times: &[u64]| Series {
        workload: workload.to_owned(),
        backend: BUILDER.to_owned(),
        reference: BUILDER.to_owned(),
        meter: Meter::WallNs,
        launch: (0..times.len() as u32).collect(),
        block: vec![0; times.len()],
        order: vec![order; times.len()],
        iterations: vec![1; times.len()],
        value_ns: times.to_vec(),
        context_switches: Vec::new(),
        extra: Default::default(),
    };
    let launch = |index: u32| Launch {
        index,
        started: now_utc(),
        cpu: None,
        disturbance: None,
        aa: false,
        stage: 1,
        extra: Default::default(),
    };
    Recording {
        schema: SCHEMA.to_owned(),
        tool,
        created: now_utc(),
        plan: PlanRecord {
            profile: "build-time".to_owned(),
            workloads: kinds.iter().map(|(id, _)| planned(id)).collect(),
            launches: repeats,
            blocks: 1,
            samples_per_block: 1,
            stop_rule: "fixed".to_owned(),
            ..PlanRecord::default()
        },
        fingerprint,
        ceilings: Default::default(),
        ceiling_setting: None,
        launches: (0..clean_ns.len().max(incremental_ns.len()) as u32).map(launch).collect(),
        series: (0..).zip(kinds).map(|(order, (id, times))| series(order, id, times)).collect(),
        agreements: Vec::new(),
        accuracy: Vec::new(),
        memory: Vec::new(),
        skipped: Vec::new(),
        incomplete,
        origin: None,
        extra: Default::default(),
    }
}
