//! How long it takes: the sides that agree, timed together, and compared once more afterwards.

use super::cast::Group;
use super::{CampaignError, Cast, Findings, Order, Phase, agree, skip};
use crate::backends::Backend;
use crate::bitnet::formats::WeightFormat;
use crate::measure::{self, GroupCounts, GroupSamples, Plan, Side};
use crate::record::{Meter, Series};
use crate::workloads::{Inputs, Kind, Run, Temperature, Workload};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::ops::ControlFlow;

/// What is decided about timing before the first sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimingPlan {
    /// Fresh processes.
    pub launches: u32,
    /// Blocks per workload and launch, at most.
    pub blocks: u32,
    /// Blocks per workload and launch that even a slow one gets.
    pub min_blocks: u32,
    /// Adjacent samples of a side in a block.
    pub samples_per_block: u32,
    /// Untimed calls before each turn.
    pub warmup_calls: u32,
    /// Wall time per workload and launch, in ns.
    pub budget_ns: u64,
    /// Which meter is judged. Wall and CPU time are always taken together; instructions are counted instead of timing.
    pub meter: Meter,
}

impl TimingPlan {
    /// 5 launches of 12 blocks of 3 samples, each launch within 1 s per workload; at least 6 blocks.
    pub fn standard() -> Self {
        Self {
            launches: 5,
            blocks: 12,
            min_blocks: 6,
            samples_per_block: 3,
            warmup_calls: 1,
            budget_ns: 1_000_000_000,
            meter: Meter::WallNs,
        }
    }

    /// 2 launches that count instructions twice: enough to see whether they repeat.
    pub fn counting() -> Self {
        let repeats = 2;
        Self {
            launches: 2,
            blocks: repeats,
            min_blocks: repeats,
            samples_per_block: 1,
            meter: Meter::Instructions,
            ..Self::standard()
        }
    }

    /// Whether instructions are counted, and nothing is timed.
    pub fn counts(&self) -> bool {
        self.meter == Meter::Instructions
    }

    /// The same with `factor` times as many launches.
    pub fn times(self, factor: u32) -> Self {
        Self { launches: self.launches.saturating_mul(factor), ..self }
    }

    fn plan(&self, seed: u64) -> Plan {
        Plan {
            blocks: self.blocks,
            min_blocks: self.min_blocks,
            samples_per_block: self.samples_per_block,
            warmup_calls: self.warmup_calls,
            budget_ns: self.budget_ns,
            ..Plan::new(seed)
        }
    }

    /// Whether it can give evidence.
    pub fn check(&self) -> Result<(), CampaignError> {
        Ok(self.plan(0).check()?)
    }
}

/// Why a plain loop is not timed.
const TOO_SLOW: &str = "a plain loop here would take most of the time: compared, not timed";

/// Operations of one call above which plain loops are compared, not timed: they would take most of the time.
const PLAIN_LOOP_OPS: u64 = 40_000_000;

/// Why a Python callable is not timed over weights that are out of the cache.
const COPIES: &str = "cold weights are many copies, and what a callable makes of each could fill the memory: \
                      compared, not timed";

/// Why plain loops do not run a whole model.
const UNBEARABLE: &str = "plain loops would take minutes over a model of this size; see the smaller ones";

/// Why a Python callable does not.
const UNBEARABLE_FROM_PYTHON: &str =
    "a Python callable could take minutes over a model of this size; see the smaller ones";

/// Operations of a whole model above which plain loops are not even compared: about ten seconds.
const PLAIN_MODEL_OPS: u64 = 10_000_000_000;

/// Why a backend of that instruction set is not even compared on this workload.
pub(super) fn why_unbearable(workload: &Workload, isa: &str) -> Option<&'static str> {
    match isa {
        "scalar" | "portable" if !bearable(workload) => Some(UNBEARABLE),
        "python" if !bearable(workload) => Some(UNBEARABLE_FROM_PYTHON),
        _ => None,
    }
}

/// Whether plain loops can do this workload once, in seconds.
pub(super) fn bearable(workload: &Workload) -> bool {
    !matches!(workload.kind, Kind::Inference(_)) || workload.work.ops <= PLAIN_MODEL_OPS
}

/// Why a backend of that instruction set is not timed on this workload.
pub(super) fn why_untimed(workload: &Workload, isa: &str) -> Option<&'static str> {
    match isa {
        "scalar" | "portable" if workload.work.ops > PLAIN_LOOP_OPS || is_cold(workload) => Some(TOO_SLOW),
        "python" if is_cold(workload) => Some(COPIES),
        _ => None,
    }
}

/// Whether its weights are copies that no cache holds.
fn is_cold(workload: &Workload) -> bool {
    matches!(
        workload.kind,
        Kind::Matmul { temperature: Temperature::Cold, .. }
            | Kind::Linear { temperature: Temperature::Cold, .. }
    )
}

/// Whether a backend that repacks I2_S has nothing of its own to show there: it is about products of I2_S, whole models
/// included. Everything else that it offers is that of the backend that it is made of.
pub(super) fn beside_the_point(workload: &Workload, backend: &dyn Backend) -> bool {
    let format = match workload.kind {
        Kind::Matmul { layout, .. } | Kind::Linear { layout, .. } => Some(layout.format()),
        Kind::Inference(work) => Some(work.format),
        _ => None,
    };
    backend.repacks().is_some() && format != Some(WeightFormat::I2S)
}

/// Why a backend that repacks is not timed over weights that are out of the cache, unless it is asked for.
const REPACKED_COPIES: &str = "cold weights are many copies, and repacking them would double the memory of the run: \
                               compared, not timed; --backend with its name times it";

/// Why a backend that repacks is not timed on this workload, unless it is asked for.
pub(super) fn why_not_repacked(workload: &Workload, backend: &dyn Backend) -> Option<&'static str> {
    (is_cold(workload) && backend.repacks().is_some()).then_some(REPACKED_COPIES)
}

/// One workload, ready: the oracle's run, and everybody who agreed with it.
pub(super) struct Ready<'a> {
    pub workload: &'a Workload,
    pub inputs: &'a Inputs<'a>,
    pub oracle: Box<dyn Run + 'a>,
    pub agreed: Vec<Contender<'a>>,
}

/// A side and its prepared run.
pub(super) struct Contender<'a> {
    /// The backend's name; `<name>+aa` for its second instance.
    pub name: String,
    pub backend: &'a dyn Backend,
    pub run: Box<dyn Run + 'a>,
}

/// Times everybody who agreed, group by group.
pub(super) fn time(
    plan: &TimingPlan,
    (cast, order): (&Cast, &Order),
    ready: Ready<'_>,
    found: &mut Findings,
    step: &mut dyn FnMut(f64, Phase) -> ControlFlow<String>,
) -> Result<ControlFlow<String>, CampaignError> {
    let Ready { workload, inputs, mut oracle, agreed } = ready;
    let (mut contenders, refused) = admitted(agreed);
    for (name, reason) in refused {
        found.recording.skipped.push(skip(&format!("timing of {} on {name}", workload.id), &reason));
    }
    for group in cast.groups() {
        // Its further instances are called by its name and a suffix.
        let instances = format!("{}+", group.reference);
        let belongs = |contender: &Contender<'_>| {
            group.members.contains(&contender.name) || contender.name.starts_with(&instances)
        };
        let (members, others) = contenders.into_iter().partition(belongs);
        contenders = others;
        let members = Ready { workload, inputs, oracle, agreed: members };
        let (back, flow) = time_group(plan, (cast, order), &group, members, found, step)?;
        oracle = back;
        if flow.is_break() {
            return Ok(flow);
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The suffix of a second instance of a backend.
pub(super) const TWIN: &str = "+aa";

/// Times one group, its reference first, and publishes only what still agrees afterwards. Gives the oracle back.
fn time_group<'a>(
    plan: &TimingPlan,
    (cast, order): (&'a Cast, &Order),
    group: &Group,
    ready: Ready<'a>,
    found: &mut Findings,
    step: &mut dyn FnMut(f64, Phase) -> ControlFlow<String>,
) -> Result<(Box<dyn Run + 'a>, ControlFlow<String>), CampaignError> {
    let Ready { workload, inputs, mut oracle, agreed: mut contenders } = ready;
    let reference = group.reference.as_str();
    // The oracle is timed like anybody else where its loops are affordable; its buffer stays the expectation.
    let oracle_timed = (order.index == 0 && !plan.counts()
        || cast.requires_plain_loops(cast.oracle().name()))
        && group.members.iter().any(|name| name == cast.oracle().name())
        && why_untimed(workload, cast.oracle().isa()).is_none();
    let at = contenders.iter().position(|contender| contender.name == reference);
    match at {
        Some(index) => contenders[..=index].rotate_right(1),
        None if reference == cast.oracle().name() && oracle_timed => {}
        // Timed in the first launch, and in no other.
        None if order.index > 0 && cast.is_bystander(reference) => {
            return Ok((oracle, ControlFlow::Continue(())));
        }
        // Nobody offers it, which was said of each.
        None if contenders.is_empty() => return Ok((oracle, ControlFlow::Continue(()))),
        None => {
            let reason =
                format!("the reference {reference} has no result that agrees here to be timed against");
            found.recording.skipped.push(skip(&format!("timing of {}", workload.id), &reason));
            return Ok((oracle, ControlFlow::Continue(())));
        }
    }
    let mut names: Vec<String> = contenders.iter().map(|contender| contender.name.clone()).collect();
    let mut runs: Vec<(&dyn Backend, &mut dyn Run)> = contenders
        .iter_mut()
        .map(|contender| (contender.backend, contender.run.as_mut() as &mut dyn Run))
        .collect();
    if oracle_timed {
        let place = if at.is_some() { names.len() } else { 0 };
        names.insert(place, cast.oracle().name().to_owned());
        runs.insert(place, (cast.oracle(), oracle.as_mut()));
    }
    if runs.len() < 2 {
        let reason = "only one side is left to time, and a comparison needs two";
        found.recording.skipped.push(skip(&format!("timing of {}", workload.id), reason));
        return Ok((oracle, ControlFlow::Continue(())));
    }
    let timing = plan.plan(order.seed(found.recording.plan.seed));
    let counter = &mut found.counter;
    let (taken, failures) = with_sides(runs, |sides| match counter {
        Some(counter) => {
            let mut observer = |share| step(share, Phase::Timing);
            let counted = measure::count_group(counter, plan.blocks, sides, &mut observer);
            // What was counted before this workload is kept.
            Ok(Taken::Counts(counted.unwrap_or_else(|why| GroupCounts {
                incomplete: Some(format!("{}: {why}", workload.id)),
                ..GroupCounts::default()
            })))
        }
        None => {
            let mut observer = |progress: measure::Progress| {
                step(f64::from(progress.blocks_done) / f64::from(progress.blocks.max(1)), Phase::Timing)
            };
            Ok(Taken::Times(measure::measure_group(&timing, sides, &mut observer)?))
        }
    })?;
    for contender in &mut contenders {
        let Contender { name, backend, run } = contender;
        let failure = failures.iter().find(|(failed, _)| failed == backend.name());
        let row = match failure {
            Some((_, why)) => Some(agree::errored(&workload.id, name, why)),
            None => agree::afterwards(workload, inputs, *backend, oracle.as_ref(), run.as_mut()),
        };
        let Some(mut row) = row else { continue };
        row.backend.clone_from(name);
        row.extra.insert("when".into(), "after timing".into());
        found
            .recording
            .agreements
            .retain(|old| (&old.workload, &old.backend) != (&row.workload, &row.backend));
        found.recording.agreements.push(row);
        names.iter_mut().filter(|timed| *timed == name).for_each(String::clear);
    }
    let publishable = !names[0].is_empty();
    for (side, name) in names.iter().enumerate().filter(|(_, name)| publishable && !name.is_empty()) {
        let (side, launch, id) = (side as u32, order.index, &workload.id);
        match &taken {
            Taken::Times(times) => {
                let series = Series::from_group(times, side, launch, id, name, reference);
                found.recording.series.extend(series);
            }
            Taken::Counts(counts) => {
                found.recording.series.push(Series::from_counts(counts, side, launch, id, name, reference));
            }
        }
    }
    let incomplete = match taken {
        Taken::Times(times) => {
            found.samples.extend(times.samples);
            times.incomplete
        }
        Taken::Counts(counts) => counts.incomplete,
    };
    Ok((oracle, incomplete.map_or(ControlFlow::Continue(()), ControlFlow::Break)))
}

/// What the sides gave.
enum Taken {
    Times(GroupSamples),
    Counts(GroupCounts),
}

/// Those whose build may be timed, and those refused with the reason.
fn admitted(agreed: Vec<Contender<'_>>) -> (Vec<Contender<'_>>, Vec<(String, String)>) {
    let mut refused = Vec::new();
    let admitted = agreed
        .into_iter()
        .filter(|contender| {
            let level = contender.backend.build_info().optimisation;
            match measure::refuse_unoptimised(contender.backend.name(), &level) {
                Ok(()) => true,
                Err(why) => {
                    refused.push((contender.name.clone(), why.to_string()));
                    false
                }
            }
        })
        .collect();
    (admitted, refused)
}

/// Hands the runs to `action` as sides. One that errs meanwhile is named with its error; its samples are then not published.
fn with_sides<T>(
    runs: Vec<(&dyn Backend, &mut dyn Run)>,
    action: impl FnOnce(&mut [Side<'_>]) -> Result<T, CampaignError>,
) -> Result<(T, Vec<(String, String)>), CampaignError> {
    let failures = RefCell::new(Vec::new());
    let mut calls: Vec<_> = runs
        .into_iter()
        .map(|(backend, run)| {
            let failures = &failures;
            let mut failed = false;
            let call = move || {
                if let Err(error) = run.run()
                    && !std::mem::replace(&mut failed, true)
                {
                    failures.borrow_mut().push((backend.name().to_owned(), error.to_string()));
                }
            };
            (call, move || backend.quiesce())
        })
        .collect();
    let mut sides: Vec<Side<'_>> =
        calls.iter_mut().map(|(run, quiesce)| Side { run, quiesce: Some(quiesce) }).collect();
    let taken = action(&mut sides)?;
    drop(sides);
    drop(calls);
    Ok((taken, failures.into_inner()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::catalog::by_id;

    fn why(id: &str, isa: &str) -> [Option<&'static str>; 2] {
        let workload = by_id(id).expect("an id of the catalogue");
        [why_untimed(&workload, isa), why_unbearable(&workload, isa)]
    }

    #[test]
    fn what_is_too_much_is_said_by_instruction_set() {
        let (small, large) = ("matmul/i2_s/640x2560/b1/t1/hot", "matmul/i2_s/6912x2560/b16/t1/hot");
        let (cold, model) = ("matmul/i2_s/6912x2560/b1/t1/cold", "decode/2b4t/i2_s/tg16/t1");
        for (isa, of_large, of_cold, of_model) in [
            ("avx2", None, None, None),
            ("portable", Some(TOO_SLOW), Some(TOO_SLOW), Some(UNBEARABLE)),
            ("python", None, Some(COPIES), Some(UNBEARABLE_FROM_PYTHON)),
        ] {
            assert_eq!(why(small, isa), [None, None], "{isa}");
            assert_eq!(why(large, isa), [of_large, None], "{isa}");
            assert_eq!(why(cold, isa), [of_cold, None], "{isa}");
            assert_eq!(why(model, isa)[1], of_model, "{isa}");
        }
    }
}
