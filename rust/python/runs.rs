//! Plans, runs, workers and judgements for Python.

use super::callables::{Callable, among, found_by};
use super::{file_error, guarded, input_error, json, tell, typed_error};
use crate::campaign::{
    self, Brought, Builds, CampaignError, LaunchOrder, Order, Request, Selection, TimingPlan, WorkerCommand,
};
use crate::gate::{self, Baseline, Case, Policy};
use crate::measure::CounterKind;
use crate::record::{self, Meter, Recording};
use crate::session::{self, Session, SessionError, Why};
use crate::workloads::catalog::Profile;
use pyo3::prelude::*;
use serde::Deserialize;
use std::fs::File;
use std::io::{BufReader, LineWriter};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Options of a run, as the Python side sends them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RunOptions {
    profile: String,
    seed: u64,
    categories: Vec<String>,
    workloads: Vec<String>,
    backends: Vec<String>,
    plugins: Vec<PathBuf>,
    model: Option<PathBuf>,
    skip_cpp: bool,
    timing: bool,
    iterations: u32,
    warmup: u32,
    /// Which meter is judged: `wall`, `cpu`, `instructions`.
    counts: String,
    /// Command line of a fresh process; empty: one launch in this process.
    worker: Vec<String>,
    builds: Option<Builds>,
    /// Names and addresses of the callables that are handed over beside the options.
    brought: Vec<Brought>,
    judgement: Judgement,
}

/// By what a recording is judged.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Judgement {
    /// A policy file.
    thresholds: Option<PathBuf>,
    strict: bool,
    /// Accepted recordings, in time order.
    baselines: Vec<PathBuf>,
    /// Their name; with `baselines` empty and `why_missing` set, what was looked for.
    baseline_name: String,
    /// Why there is no baseline where one was asked for.
    why_missing: Option<String>,
    /// The command that records one.
    record_command: String,
    /// The other build's name, in a recording of two builds.
    revision: Option<String>,
    /// The command that would settle a neutral verdict.
    retry: String,
}

impl Default for Judgement {
    fn default() -> Self {
        Self {
            thresholds: None,
            strict: false,
            baselines: Vec::new(),
            baseline_name: String::new(),
            why_missing: None,
            record_command: "python -m bitnet_perfgate baseline record".into(),
            revision: None,
            retry: "python -m bitnet_perfgate run --iterations 3".into(),
        }
    }
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            profile: "quick".into(),
            seed: 42,
            categories: Vec::new(),
            workloads: Vec::new(),
            backends: Vec::new(),
            plugins: Vec::new(),
            model: None,
            skip_cpp: false,
            timing: true,
            iterations: 1,
            warmup: 1,
            counts: "wall".into(),
            worker: Vec::new(),
            builds: None,
            brought: Vec::new(),
            judgement: Judgement::default(),
        }
    }
}

impl RunOptions {
    fn parse(options: &str) -> PyResult<Self> {
        serde_json::from_str(options).map_err(|why| input_error(format!("options: {why}")))
    }

    fn request(&self) -> PyResult<Request> {
        let profile = Profile::by_name(&self.profile).ok_or_else(|| {
            input_error(format!("no profile is called {:?}; known: quick, full", self.profile))
        })?;
        if self.iterations == 0 {
            return Err(input_error("iterations is 0, expected at least 1"));
        }
        let plan = match self.counts.as_str() {
            "wall" => TimingPlan::standard(),
            "cpu" => TimingPlan { meter: Meter::ThreadCpuNs, ..TimingPlan::standard() },
            "instructions" => TimingPlan::counting(),
            other => {
                let known = "known: wall, cpu, instructions";
                return Err(input_error(format!("nothing is counted by {other:?}; {known}")));
            }
        };
        let plan = TimingPlan { warmup_calls: self.warmup, ..plan.times(self.iterations) };
        plan.check().map_err(input_error)?;
        if self.model.is_some() && !self.workloads.is_empty() {
            let why = "a model file brings its own workloads: name either the model or workload ids";
            return Err(input_error(why));
        }
        Ok(Request {
            profile,
            seed: self.seed,
            categories: self.categories.clone(),
            workloads: self.workloads.clone(),
            model: self.model.clone(),
            timing: self.timing.then_some(plan),
        })
    }

    /// Finds out, too, what can count instructions here, if they are to be counted.
    fn selection(&self) -> PyResult<Selection> {
        let counts = self.timing && self.counts == "instructions";
        let counter = counts.then(CounterKind::here).transpose().map_err(input_error)?;
        Ok(Selection {
            counter,
            backends: self.backends.clone(),
            plugins: self.plugins.clone(),
            skip_cpp: self.skip_cpp,
            builds: self.builds.clone(),
            brought: self.brought.clone(),
        })
    }
}

/// A policy and where it came from.
struct Rules {
    policy: Policy,
    source: String,
    sessions: Vec<Recording>,
}

impl Judgement {
    fn rules(&self) -> PyResult<Rules> {
        let (mut policy, source) = match &self.thresholds {
            Some(path) => {
                let policy = Policy::read(path).map_err(|why| typed_error(&why))?;
                (policy, path.display().to_string())
            }
            None => (Policy::default(), "defaults".to_owned()),
        };
        policy.strict |= self.strict;
        let sessions = self.baselines.iter().map(|path| record::read_recording(path));
        let sessions = sessions.collect::<Result<_, _>>().map_err(|why| typed_error(&why))?;
        Ok(Rules { policy, source, sessions })
    }

    /// `plan` is today's recording, or the plan of it: what decides whether the sessions can be compared with it.
    fn baseline<'s>(&self, sessions: &'s [Recording], plan: &Recording) -> Baseline<'s> {
        if let Some(name) = &self.revision {
            return Baseline::Revision { name: name.clone() };
        }
        if let Some(reason) = &self.why_missing {
            return Baseline::Missing { reason: reason.clone(), command: self.record_command.clone() };
        }
        if sessions.is_empty() {
            return Baseline::NotAsked;
        }
        let mismatch = |session: &Recording| {
            let found = record::mismatches(session, plan);
            (!found.is_empty()).then(|| found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        };
        let void = sessions.iter().find_map(mismatch);
        Baseline::Sessions { name: self.baseline_name.clone(), sessions, void }
    }
}

/// What [`run`] would do, as a recording (JSON text) that holds the plan and nothing measured. Arguments as there.
#[pyfunction]
#[pyo3(signature = (options, callables=Vec::new()))]
fn plan(py: Python<'_>, options: &str, callables: Vec<Bound<'_, PyAny>>) -> PyResult<String> {
    let callables = handed_over(&callables)?;
    let options = RunOptions::parse(options)?;
    let request = options.request()?;
    guarded(py, move || {
        let cast = options.selection()?.cast(&among(&callables)).map_err(input_error)?;
        json(&campaign::plan(&request, &cast).map_err(|why| typed_error(&why))?)
    })
}

/// Measures and judges. `options` is a JSON object; `progress(done, total, fraction, what, phase)` is called between
/// steps; `callables` are the `CallableBackend`s that `options` names as brought. Returns the recording and the verdict as
/// JSON text; an interrupted run returns what it has, with `incomplete: "interrupted"`.
#[pyfunction]
#[pyo3(signature = (options, progress=None, callables=Vec::new()))]
fn run(
    py: Python<'_>,
    options: &str,
    progress: Option<Py<PyAny>>,
    callables: Vec<Bound<'_, PyAny>>,
) -> PyResult<(String, String)> {
    let callables = handed_over(&callables)?;
    let options = RunOptions::parse(options)?;
    let request = options.request()?;
    let rules = options.judgement.rules()?;
    guarded(py, move || {
        let selection = options.selection()?;
        let find = among(&callables);
        let cast = selection.cast(&find).map_err(input_error)?;
        let planned = campaign::plan(&request, &cast).map_err(|why| typed_error(&why))?;
        let baseline = options.judgement.baseline(&rules.sessions, &planned);
        let mut failure = None;
        if request.timing.is_some() {
            let sentence = gate::foretold(&planned, &rules.sessions, &rules.policy);
            if tell(progress.as_ref(), (0, 1, 0.0, sentence.as_str(), "plan"), &mut failure).is_break() {
                return Err(failure.unwrap_or_else(|| pyo3::exceptions::PyKeyboardInterrupt::new_err(())));
            }
        }
        // Kept: a wish to stop that comes with a launch's last step ends the session at the next one.
        let mut flow = ControlFlow::Continue(());
        let fresh = !options.worker.is_empty() && request.timing.is_some();
        let launches = request.timing.as_ref().map_or(1, |plan| plan.launches);
        let plan = Session {
            launches: if fresh { launches } else { 1 },
            second_looks: fresh,
            baseline: &baseline,
            policy: &rules.policy,
            policy_source: &rules.source,
            retry: &options.judgement.retry,
        };
        let command = WorkerCommand(options.worker.clone());
        let outcome = plan.run(&mut |step: &session::Step| {
            let mut watcher = |inner: &campaign::Step<'_>| {
                if flow.is_continue() {
                    let done = (step.number as usize - 1) * inner.total + inner.done;
                    let total = step.of as usize * inner.total;
                    let what = match step.why {
                        Why::Planned => inner.what.to_owned(),
                        Why::Undecided => format!("undecided, once more: {}", inner.what),
                        Why::TooSlow => format!("too slow, measured afresh: {}", inner.what),
                    };
                    let arguments = (done, total, inner.fraction, what.as_str(), inner.phase.name());
                    let told = progress.as_ref().filter(|_| !inner.what.is_empty());
                    flow = tell(told, arguments, &mut failure);
                }
                flow.clone()
            };
            let order = Order {
                index: step.index,
                stage: step.stage,
                workloads: step.workloads.clone(),
                twin: true,
                pin: fresh,
                ..Order::alone()
            };
            if fresh {
                let order = LaunchOrder { request: request.clone(), selection: selection.clone(), order };
                campaign::launch(&command, &order, &find, &mut watcher)
            } else {
                campaign::run_order(&request, &cast, &order, &mut watcher)
            }
        });
        let outcome = outcome.map_err(|why| match &why {
            SessionError::Campaign(CampaignError::Reported { file: true, .. }) => file_error(&why),
            _ => typed_error(&why),
        })?;
        match failure {
            Some(error) => Err(error),
            None => Ok((json(&outcome.recording)?, json(&outcome.verdict)?)),
        }
    })
}

/// Judges a recording again. `recording` is JSON text, `judgement` a JSON object. Returns the verdict as JSON text.
#[pyfunction]
#[pyo3(signature = (recording, judgement="{}"))]
fn judge(py: Python<'_>, recording: &str, judgement: &str) -> PyResult<String> {
    let judgement: Judgement =
        serde_json::from_str(judgement).map_err(|why| input_error(format!("judgement: {why}")))?;
    let rules = judgement.rules()?;
    guarded(py, || {
        let recording = record::parse_recording(Path::new("recording"), recording.as_bytes())
            .map_err(|why| typed_error(&why))?;
        let baseline = &judgement.baseline(&rules.sessions, &recording);
        let case = Case {
            recording: &recording,
            baseline,
            policy: &rules.policy,
            policy_source: &rules.source,
            retry: &judgement.retry,
        };
        json(&gate::judge(&case))
    })
}

fn handed_over(callables: &[Bound<'_, PyAny>]) -> PyResult<Vec<Arc<Callable>>> {
    callables.iter().map(|face| Ok(Arc::new(Callable::of(face)?))).collect()
}

/// Serves one order on standard input and output: the measuring process of a launch. `find(name, address)` makes the
/// `CallableBackend` of that name. Returns its exit code.
#[pyfunction]
fn worker(py: Python<'_>, find: Py<PyAny>) -> PyResult<u8> {
    let taken = |why: std::io::Error| file_error(format!("the standard streams cannot be taken: {why}"));
    let orders = File::from(std::io::stdin().as_fd().try_clone_to_owned().map_err(taken)?);
    let answers = File::from(std::io::stdout().as_fd().try_clone_to_owned().map_err(taken)?);
    // From here on the orders and answers have streams of their own: a kernel may print, and reads nothing.
    let os = py.import("os")?;
    let nothing = os.call_method1("open", ("/dev/null", os.getattr("O_RDONLY")?))?;
    os.call_method1("dup2", (&nothing, 0))?;
    os.call_method1("close", (nothing,))?;
    os.call_method1("dup2", (2, 1))?;
    guarded(py, || {
        let mut answers = LineWriter::new(answers);
        Ok(campaign::worker::serve(BufReader::new(orders), &mut answers, &found_by(&find)))
    })
}

/// Plants slow-downs into a kernel and counts what the gate finds, for `budget_s` seconds. `options` as in [`run`] with one
/// workload or more; `progress` is told the share of the budget that is spent. Returns the counts as JSON text.
#[pyfunction]
#[pyo3(signature = (options, budget_s, progress=None))]
fn selftest(py: Python<'_>, options: &str, budget_s: f64, progress: Option<Py<PyAny>>) -> PyResult<String> {
    let options = RunOptions::parse(options)?;
    let request = options.request()?;
    if !(budget_s > 0.0 && budget_s.is_finite()) {
        return Err(input_error(format!("budget is {budget_s} s, expected a positive number")));
    }
    let timing = request.timing.clone().ok_or_else(|| input_error("the self-test times kernels"))?;
    guarded(py, move || {
        let selection = options.selection()?;
        let begin = std::time::Instant::now();
        let spent = || begin.elapsed().as_secs_f64() / budget_s;
        let mut failure = None;
        let command = WorkerCommand(options.worker.clone());
        let mut round: u64 = 0;
        let mut launch = |index: u32| {
            // Another seed for every round: inputs and orders are new draws.
            let request = Request { seed: request.seed.wrapping_add(round), ..request.clone() };
            round += u64::from(index + 1 == timing.launches);
            let injected = session::PLANTED.to_vec();
            let order = Order { index, pin: true, injected, ..Order::alone() };
            let order = LaunchOrder { request, selection: selection.clone(), order };
            let mut watcher = |step: &campaign::Step<'_>| {
                let told = progress.as_ref().filter(|_| !step.what.is_empty());
                let arguments = (0, 1, spent().min(1.0), step.what, step.phase.name());
                tell(told, arguments, &mut failure)
            };
            campaign::launch(&command, &order, &campaign::find_none, &mut watcher)
        };
        let mut go_on = |_| if spent() < 1.0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
        let found = session::selftest(timing.launches, &mut launch, &mut go_on);
        match failure {
            Some(error) => Err(error),
            None => json(&found.map_err(|why| typed_error(&why))?),
        }
    })
}

/// Adds these functions to the module.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(plan, module)?)?;
    module.add_function(wrap_pyfunction!(run, module)?)?;
    module.add_function(wrap_pyfunction!(judge, module)?)?;
    module.add_function(wrap_pyfunction!(worker, module)?)?;
    module.add_function(wrap_pyfunction!(selftest, module)?)?;
    Ok(())
}
