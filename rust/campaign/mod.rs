//! Run it all: the only place where workloads, backends and meters meet.
//!
//! ```text
//! for each task (a workload, over seeded inputs or a tensor of a file)
//!     the oracle computes the expected results
//!     every other backend prepares, runs once, and is compared on the buffers that will be timed
//!     those that agree are timed together, the reference among them, in random order
//!     and compared once more, after the timing
//! accuracy against float64, for each format and backend
//! the machine's ceilings, once in a run that times
//! ```
//!
//! What failed to agree is not timed; what was not done is listed with its reason. Nothing is judged here.

mod accuracy;
mod agree;
mod cast;
mod ceilings;
mod launch;
mod selection;
mod slowed;
mod tasks;
mod timing;
pub mod worker;

use crate::backends::{Backend, BackendError};
use crate::bitnet::model::gguf::GgufError;
use crate::measure::{self, CountError, Counter, MeasureError};
use crate::record::{
    Launch, Memory, Meter, PlanRecord, PlannedWorkload, Recording, SCHEMA, Skipped, Tool, now_utc,
};
use crate::workloads::catalog::Profile;
use crate::workloads::{Category, Inputs, Run, Workload};
pub use cast::{Cast, Group};
pub use ceilings::{Ceilings, measure_ceilings};
pub use launch::{LaunchOrder, WorkerCommand, launch};
pub use selection::{Brought, Builds, Find, Selection, SelectionError, find_none, load};
use serde::{Deserialize, Serialize};
use slowed::Slowed;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;
pub use tasks::{ModelFile, Task};
pub use timing::TimingPlan;
use timing::{Contender, Ready};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// How much.
    pub profile: Profile,
    /// Seed of inputs and orders.
    pub seed: u64,
    /// Categories to run, by name; empty means all.
    pub categories: Vec<String>,
    /// Workload ids to run; empty means all of the profile.
    pub workloads: Vec<String>,
    /// Run over the ternary tensors of this GGUF file instead of seeded weights.
    pub model: Option<PathBuf>,
    /// How to time; `None` compares results only.
    pub timing: Option<TimingPlan>,
}

/// Which launch of a run this is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Its number, from 0. Plain loops, and backends that are only shown, take part in launch 0 alone: they cost most of
    /// the time.
    pub index: u32,
    /// 1, or 2 for what looked too slow.
    pub stage: u8,
    /// Ids of the request's workloads to measure; `None` means all.
    pub workloads: Option<Vec<String>>,
    /// Whether a second instance of the reference is timed too.
    pub twin: bool,
    /// Whether the measuring thread stays on one CPU, the least busy one at the start.
    pub pin: bool,
    /// Slow-downs (ratio - 1) injected into further instances of the reference, for the self-test.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub injected: Vec<f64>,
    /// Slow-downs of the very backends that are judged: what a gate that works must find.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub planted: Vec<Planted>,
    /// The folder of the dumps, in a process that was started to be counted by callgrind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dumps: Option<PathBuf>,
}

/// A slow-down of one backend on one workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planted {
    /// The workload's id.
    pub workload: String,
    /// The backend's name.
    pub backend: String,
    /// Extra work, ratio - 1.
    pub share: f64,
}

impl Order {
    /// The only launch: everything, with a second instance of the reference, on whatever CPU.
    pub fn alone() -> Self {
        Self {
            index: 0,
            stage: 1,
            workloads: None,
            twin: true,
            pin: false,
            injected: Vec::new(),
            planted: Vec::new(),
            dumps: None,
        }
    }

    /// Seed of the order of sides: another one in every launch, while the inputs stay the same.
    fn seed(&self, seed: u64) -> u64 {
        crate::rng::Rng::for_part(seed, &format!("launch {}", self.index)).next_u64()
    }

    fn wants(&self, id: &str) -> bool {
        self.workloads.as_ref().is_none_or(|wanted| wanted.iter().any(|workload| workload == id))
    }
}

/// Why a campaign could not run at all.
#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    /// The model file cannot be used.
    #[error(transparent)]
    Model(#[from] GgufError),
    /// The model file has nothing to compare.
    #[error("{}: holds no tensor of type I2_S, TL1 or TL2: nothing to compare", path.display())]
    NoTernaryTensor {
        /// The file.
        path: PathBuf,
    },
    /// A tensor's bytes are not what its type says.
    #[error("{}: tensor {tensor}: {why}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        why: BackendError,
    },
    /// An id that is in no catalogue.
    #[error("no workload is called {id:?}{}", nearest.as_ref().map_or(String::new(), |id| format!("; did you mean {id:?}?")))]
    UnknownWorkload {
        /// What was asked for.
        id: String,
        /// The nearest id there is.
        nearest: Option<String>,
    },
    /// A category that does not exist.
    #[error("no category is called {name:?}; known: {}", known.join(", "))]
    UnknownCategory {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The backends cannot take part.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// A fresh process could not be started, or said something that is no answer.
    #[error("the measuring process {command}: {what}")]
    Worker {
        /// Its command line.
        command: String,
        /// What is wrong.
        what: String,
    },
    /// A fresh process met an error of its own; its text.
    #[error("{message}")]
    Reported {
        /// Whether the operating system refused a file, as against unusable input.
        file: bool,
        /// The text.
        message: String,
    },
    /// The timing plan cannot give evidence.
    #[error(transparent)]
    Plan(#[from] MeasureError),
    /// Instructions cannot be counted.
    #[error(transparent)]
    Count(#[from] CountError),
    /// The oracle itself failed; without it nothing can be compared.
    #[error("{workload}: the oracle failed: {why}")]
    Oracle {
        /// The workload.
        workload: String,
        /// Why.
        why: BackendError,
    },
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Comparing results.
    Agreement,
    /// Timing.
    Timing,
    /// Comparing with float64.
    Accuracy,
    /// Measuring what the machine can do at most.
    Ceilings,
}

impl Phase {
    /// `agreement`, `timing`, `accuracy`, `ceilings`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Agreement => "agreement",
            Self::Timing => "timing",
            Self::Accuracy => "accuracy",
            Self::Ceilings => "ceilings",
        }
    }
}

/// Where a campaign stands.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Tasks finished.
    pub done: usize,
    /// Tasks in all.
    pub total: usize,
    /// Part of the current task that is finished, 0 to 1.
    pub fraction: f64,
    /// The current workload.
    pub what: &'a str,
    /// What is being done with it.
    pub phase: Phase,
}

/// Told every step, never inside a timed block; breaks with a reason to stop. What was measured is kept.
pub type Watcher<'a> = dyn FnMut(&Step<'_>) -> ControlFlow<String> + 'a;

/// The recording that [`run`] would fill: the plan, the sides, and what is skipped beforehand. Computes nothing.
///
/// # Errors
/// [`CampaignError`] when nothing can be measured.
pub fn plan(request: &Request, cast: &Cast) -> Result<Recording, CampaignError> {
    let model = request.model.as_deref().map(ModelFile::open).transpose()?;
    let (tasks, mut skipped) = tasks::plan(request, model.as_ref())?;
    skipped.extend(cast.absent().iter().map(|(what, reason)| skip(what, reason)));
    Ok(new_recording(request, cast, model.as_ref(), &tasks, skipped))
}

/// Runs the request with these backends in this process and returns everything measured, raw.
///
/// # Errors
/// [`CampaignError`] when nothing can be measured; an interruption is no error but `incomplete` in the recording.
pub fn run(request: &Request, cast: &Cast, watcher: &mut Watcher<'_>) -> Result<Recording, CampaignError> {
    run_order(request, cast, &Order::alone(), watcher)
}

/// The same for one launch of several.
///
/// # Errors
/// As [`run`].
pub fn run_order(
    request: &Request,
    cast: &Cast,
    order: &Order,
    watcher: &mut Watcher<'_>,
) -> Result<Recording, CampaignError> {
    let model = request.model.as_deref().map(ModelFile::open).transpose()?;
    let (mut tasks, mut skipped) = tasks::plan(request, model.as_ref())?;
    skipped.extend(cast.absent().iter().map(|(what, reason)| skip(what, reason)));
    tasks.retain(|task| {
        let lacking = cast.lacks(&task.workload);
        skipped.extend(lacking.iter().map(|reason| skip(&task.workload.id, reason)));
        lacking.is_none()
    });
    let started = now_utc();
    let pin = order.pin.then(|| measure::pin_to_least_busy_cpu(order.seed(request.seed))).flatten();
    let cpu = pin.as_ref().map(|pin| pin.cpu());
    let recording = new_recording(request, cast, model.as_ref(), &tasks, skipped);
    tasks.retain(|task| order.wants(&task.workload.id));
    let counts = request.timing.as_ref().is_some_and(TimingPlan::counts);
    let counter = counts.then(|| Counter::open(order.dumps.as_deref())).transpose()?;
    let mut found = Findings { recording, samples: Vec::new(), counter };
    let with_accuracy = model.is_none() && order.index == 0 && !cast.compares_builds();
    let with_ceilings = request.timing.is_some() && !counts && order.index == 0 && order.injected.is_empty();
    let total = tasks.len() + usize::from(with_accuracy) + usize::from(with_ceilings);
    for (done, task) in tasks.iter().enumerate() {
        let mut step = |fraction: f64, phase: Phase| {
            watcher(&Step { done, total, fraction, what: &task.workload.id, phase })
        };
        // Threads start on the CPUs of the thread that starts them: one CPU would be no place for two.
        let free = pin.as_ref().filter(|_| task.workload.kind.threads() > 1).map(measure::Pin::lifted);
        let flow = perform(request, (cast, order), task, model.as_ref(), &mut found, &mut step)?;
        drop(free);
        if let ControlFlow::Break(reason) = flow {
            found.recording.incomplete = Some(reason);
            break;
        }
    }
    let Findings { mut recording, samples, counter } = found;
    if with_accuracy && recording.incomplete.is_none() {
        let done = tasks.len();
        let step = Step { done, total, fraction: 0.0, what: "accuracy", phase: Phase::Accuracy };
        match watcher(&step) {
            ControlFlow::Continue(()) => accuracy::record(request.seed, cast, &mut recording),
            ControlFlow::Break(reason) => recording.incomplete = Some(reason),
        }
    }
    // A process that is counted by valgrind holds valgrind's memory too.
    if let Some(value_bytes) = measure::peak_rss_bytes().filter(|_| counter.is_none()) {
        let launch = Some(order.index);
        recording.memory.push(Memory {
            meter: "peak_rss_bytes".into(),
            value_bytes,
            launch,
            ..Memory::default()
        });
    }
    if with_ceilings && recording.incomplete.is_none() {
        let done = total - 1;
        match watcher(&Step { done, total, fraction: 0.0, what: "ceilings", phase: Phase::Ceilings }) {
            ControlFlow::Continue(()) => record_ceilings(&tasks, cast, pin.as_ref(), &mut recording),
            ControlFlow::Break(reason) => recording.incomplete = Some(reason),
        }
    }
    recording.launches = vec![Launch {
        index: order.index,
        started,
        cpu,
        disturbance: measure::disturbance(&samples),
        aa: recording.series.iter().any(|series| series.backend.ends_with(timing::TWIN)),
        stage: order.stage,
        extra: Default::default(),
    }];
    Ok(recording)
}

/// Ceilings of one thread, and of as many as the products of the plan have.
fn record_ceilings(tasks: &[Task<'_>], cast: &Cast, pin: Option<&measure::Pin>, recording: &mut Recording) {
    let optimisation = cast.oracle().build_info().optimisation;
    if let Err(why) = measure::refuse_unoptimised("the loops of the ceilings", &optimisation) {
        recording.skipped.push(skip("ceilings", &why.to_string()));
        return;
    }
    let is_product =
        |task: &&Task<'_>| matches!(task.workload.category, Category::Kernels | Category::MixedPrecision);
    let products = tasks.iter().filter(is_product);
    let threads: BTreeSet<usize> = products.map(|task| task.workload.kind.threads()).chain([1]).collect();
    let Ceilings { values, setting, absent } =
        measure_ceilings(&threads.into_iter().collect::<Vec<_>>(), pin);
    recording.ceilings = values;
    recording.ceiling_setting = Some(setting);
    recording.skipped.extend(absent.iter().map(|(name, why)| skip(&format!("ceiling {name}"), why)));
}

/// What a campaign has found so far.
struct Findings {
    recording: Recording,
    /// Every sample of every side, for the disturbance of the whole launch.
    samples: Vec<measure::Sample>,
    /// Where instructions are counted.
    counter: Option<Counter>,
}

/// One task: expected results, agreement, timing, agreement again.
fn perform(
    request: &Request,
    (cast, order): (&Cast, &Order),
    task: &Task<'_>,
    model: Option<&ModelFile>,
    found: &mut Findings,
    step: &mut dyn FnMut(f64, Phase) -> ControlFlow<String>,
) -> Result<ControlFlow<String>, CampaignError> {
    if let ControlFlow::Break(reason) = step(0.0, Phase::Agreement) {
        return Ok(ControlFlow::Break(reason));
    }
    let workload = &task.workload;
    let oracle_failed = |why: BackendError| match (&why, model, &task.tensor) {
        (BackendError::Format(_), Some(model), Some(tensor)) => {
            CampaignError::Tensor { path: model.path().into(), tensor: tensor.clone(), why }
        }
        _ => CampaignError::Oracle { workload: workload.id.clone(), why },
    };
    let inputs = task.inputs(request.seed).map_err(|why| oracle_failed(why.into()))?;
    let first_copy = inputs.one_copy();
    let expecting = expectation(workload, (cast, order));
    let mut oracle = workload.on_one_thread().prepare(&first_copy, expecting).map_err(oracle_failed)?;
    oracle.run().map_err(oracle_failed)?;
    let plan = request.timing.as_ref().filter(|_| task.timed);
    let mut agreed = Vec::new();
    // Who is prepared last finds other memory than who is first, in every process alike; so they take turns.
    let mut sides: Vec<_> = cast.compared().iter().collect();
    if order.index % 2 == 1 {
        sides.reverse();
    }
    for backend in sides {
        // Asked before every side: the plain loops of one workload alone may take seconds.
        if let ControlFlow::Break(reason) = step(0.0, Phase::Agreement) {
            return Ok(ControlFlow::Break(reason));
        }
        let backend = backend.as_ref();
        // Whom no rule depends on is compared and timed once: a verdict is no surer for the rest of it.
        if order.index > 0 && cast.is_bystander(backend.name()) {
            continue;
        }
        let asked_for = cast.is_requested(backend.name());
        if !asked_for && timing::beside_the_point(workload, backend) {
            continue;
        }
        let untimed = timing::why_untimed(workload, backend.isa())
            .or_else(|| timing::why_not_repacked(workload, backend).filter(|_| !asked_for));
        let plain = matches!(backend.isa(), "scalar" | "portable");
        if let Some(reason) = timing::why_unbearable(workload, backend.isa()) {
            let what = format!("{} on {}", workload.id, backend.name());
            found.recording.skipped.push(skip(&what, reason));
            continue;
        }
        let counts = plan.is_some_and(TimingPlan::counts);
        let wanted = !plain || !counts || cast.requires_plain_loops(backend.name());
        let timed = plan.is_some() && untimed.is_none() && wanted;
        if let Some(reason) = untimed.filter(|_| plan.is_some()) {
            let what = format!("timing of {} on {}", workload.id, backend.name());
            found.recording.skipped.push(skip(&what, reason));
        }
        // Counts do not depend on what lies in which cache.
        let over = if timed && !counts { &inputs } else { &first_copy };
        match agree::first_run(workload, over, backend, oracle.as_ref()) {
            agree::First::Unsupported(reason) => {
                found
                    .recording
                    .skipped
                    .push(skip(&format!("{} on {}", workload.id, backend.name()), &reason));
            }
            agree::First::Failed(row) => {
                // Whoever was interrupted has not failed.
                if let ControlFlow::Break(reason) = step(0.0, Phase::Agreement) {
                    return Ok(ControlFlow::Break(reason));
                }
                found.recording.agreements.push(*row);
            }
            agree::First::Agreed(mut row, run) => {
                if expecting.name() != cast.oracle().name() {
                    row.extra.insert("expected_by".into(), expecting.name().into());
                }
                found.recording.agreements.push(*row);
                // The same in every launch.
                let bytes = run.prepared_bytes().filter(|_| order.index == 0);
                found.recording.memory.extend(bytes.map(|bytes| Memory {
                    workload: workload.id.clone(),
                    backend: backend.name().to_owned(),
                    meter: "prepared_bytes".into(),
                    launch: Some(order.index),
                    value_bytes: bytes as u64,
                    ..Memory::default()
                }));
                if timed {
                    let run = planted(run, order, &workload.id, backend.name(), &mut found.counter)?;
                    agreed.push(Contender { name: backend.name().to_owned(), backend, run });
                }
            }
        }
    }
    if plan.is_some_and(|plan| !plan.counts()) {
        instances(workload, &inputs, (cast, order), oracle.as_ref(), &mut agreed, &mut found.recording);
    }
    match plan {
        Some(plan) => timing::time(
            plan,
            (cast, order),
            Ready { workload, inputs: &inputs, oracle, agreed },
            found,
            step,
        ),
        None => Ok(ControlFlow::Continue(())),
    }
}

/// Who says what is right: the oracle, but for whole models that would take its plain loops minutes. There the C++
/// reference does, and what agrees with it shows that two programs by different hands give the same bits; the model that
/// the oracle can bear is held against it in the first launch, and inputs are the same in every launch.
fn expectation<'a>(workload: &Workload, (cast, order): (&'a Cast, &Order)) -> &'a dyn Backend {
    let whole_model = workload.category == Category::Inference;
    match cast.reference() {
        Some(reference) if whole_model && (order.index > 0 || !timing::bearable(workload)) => {
            reference.as_ref()
        }
        _ => cast.oracle(),
    }
}

/// The run with the slow-down that is planted into it, if one is.
fn planted<'a>(
    mut run: Box<dyn Run + 'a>,
    order: &Order,
    workload: &str,
    backend: &str,
    counter: &mut Option<Counter>,
) -> Result<Box<dyn Run + 'a>, CampaignError> {
    let wanted = |planted: &&Planted| planted.workload == workload && planted.backend == backend;
    let Some(Planted { share, .. }) = order.planted.iter().find(wanted) else { return Ok(run) };
    Ok(match counter {
        None => Box::new(Slowed::new(run, *share)),
        Some(counter) => {
            let mut failed = Ok(());
            let per_call = counter.per_call(&mut || failed = run.run())?;
            failed.map_err(|why| CampaignError::Oracle { workload: workload.to_owned(), why })?;
            Box::new(Slowed::by_work(run, per_call * share, counter)?)
        }
    })
}

/// Further instances of the reference: its twin for the A/A arm, and slowed ones for the self-test.
fn instances<'a>(
    workload: &Workload,
    inputs: &'a Inputs<'_>,
    (cast, order): (&'a Cast, &Order),
    oracle: &dyn Run,
    agreed: &mut Vec<Contender<'a>>,
    recording: &mut Recording,
) {
    let Some(reference) = cast.reference() else { return };
    if !agreed.iter().any(|contender| contender.name == reference.name()) {
        return;
    }
    let twin = order.twin.then_some((timing::TWIN.to_owned(), None));
    let slowed = order.injected.iter().map(|share| (format!("+{:.0}%", share * 100.0), Some(*share)));
    for (suffix, share) in twin.into_iter().chain(slowed) {
        let name = format!("{}{suffix}", reference.name());
        match agree::first_run(workload, inputs, reference.as_ref(), oracle) {
            agree::First::Agreed(_, run) => {
                let run: Box<dyn Run + 'a> = match share {
                    None => run,
                    Some(share) => Box::new(Slowed::new(run, share)),
                };
                agreed.push(Contender { name, backend: reference.as_ref(), run });
            }
            agree::First::Failed(row) => {
                recording.agreements.push(crate::record::AgreementRow { backend: name, ..*row });
            }
            agree::First::Unsupported(reason) => recording.skipped.push(skip(&name, &reason)),
        }
    }
}

fn new_recording(
    request: &Request,
    cast: &Cast,
    model: Option<&ModelFile>,
    tasks: &[Task<'_>],
    skipped: Vec<Skipped>,
) -> Recording {
    let timing = request.timing.as_ref();
    let mut plan = PlanRecord {
        profile: request.profile.name().into(),
        seed: request.seed,
        workloads: tasks.iter().map(|task| planned(&task.workload)).collect(),
        backends: cast.records(),
        required: cast.required().into(),
        requested: cast.requested_names().into(),
        profile_workloads: if model.is_some() { 0 } else { profile_workloads(request.profile, cast) },
        launches: timing.map_or(0, |plan| plan.launches),
        blocks: timing.map_or(0, |plan| plan.blocks),
        samples_per_block: timing.map_or(0, |plan| plan.samples_per_block),
        budget_s: timing
            .map_or(0.0, |plan| plan.budget_ns as f64 * 1e-9 * tasks.len() as f64 * f64::from(plan.launches)),
        stop_rule: if timing.is_some() { "fixed" } else { "agreement only" }.into(),
        meter: timing.map_or(Meter::WallNs, |plan| plan.meter.clone()),
        counter: cast.counter().map_or(String::new(), |counter| counter.name().into()),
        ..PlanRecord::default()
    };
    if let Some(model) = model {
        plan.extra.insert("model".into(), model.description());
    }
    Recording {
        schema: SCHEMA.into(),
        tool: tool(),
        created: now_utc(),
        plan,
        fingerprint: cast.fingerprint(),
        ceilings: Default::default(),
        ceiling_setting: None,
        launches: Vec::new(),
        series: Vec::new(),
        agreements: Vec::new(),
        accuracy: Vec::new(),
        memory: Vec::new(),
        skipped,
        incomplete: None,
        origin: None,
        extra: Default::default(),
    }
}

/// Workloads of the profile that can be asked of these backends.
fn profile_workloads(profile: Profile, cast: &Cast) -> u64 {
    let all = crate::workloads::catalog::catalog(profile).workloads;
    all.iter().filter(|workload| cast.lacks(workload).is_none()).count() as u64
}

/// This version of the tool.
pub fn tool() -> Tool {
    let features =
        [("cpu", cfg!(feature = "cpu")), ("ffi", cfg!(feature = "ffi")), ("gpu", cfg!(feature = "gpu"))];
    Tool {
        version: env!("CARGO_PKG_VERSION").into(),
        git: env!("BITNET_GIT_REVISION").into(),
        features: features.iter().filter(|(_, on)| *on).map(|(name, _)| (*name).to_owned()).collect(),
        ..Tool::default()
    }
}

fn planned(workload: &crate::workloads::Workload) -> PlannedWorkload {
    PlannedWorkload {
        id: workload.id.clone(),
        category: workload.category.name().into(),
        class: workload.class.name().into(),
        work: crate::record::Work {
            weights: workload.work.weights,
            bytes: workload.work.bytes,
            ops: workload.work.ops,
            tokens: workload.work.tokens,
            ..Default::default()
        },
        ..PlannedWorkload::default()
    }
}

fn skip(what: &str, reason: &str) -> Skipped {
    Skipped { what: what.into(), reason: reason.into(), ..Skipped::default() }
}
