//! How small a slow-down could be seen: foretold from accepted recordings before a run, stated after it.
//!
//! Unit: ratio - 1, found beyond the limit in 8 of 10 runs. A reader may not conclude that a smaller slow-down is absent.

use super::compare::Setting;
use super::policy::Policy;
use super::roles::{self, required_subject};
use super::samples::{Samples, launches, paired};
use super::verdict::{Comparison, Power};
use crate::record::Recording;
use crate::stats::{self, Design};

/// One sentence about a run of that plan before it begins: the median over workloads of what accepted recordings of the
/// same design foretell.
pub fn foretold(plan: &Recording, sessions: &[Recording], policy: &Policy) -> String {
    let (launches, blocks) = (plan.plan.launches, plan.plan.blocks);
    let design = format!("{launches} launches of {blocks} blocks");
    if roles::counts_instructions(plan) {
        let edge = policy.instructions.minor * 100.0;
        return format!("instructions are counted: whatever adds {edge:.0} % of them or more is seen");
    }
    match expected(plan, sessions, policy) {
        Some(mde) => format!(
            "{design} can confirm slow-downs beyond about {:.1} % here, by {} accepted recordings",
            mde * 100.0,
            sessions.len()
        ),
        None => {
            let best = (policy.severity.minor.ln_1p() + stats::FEW_AA_FLOOR).exp_m1();
            format!(
                "what {design} can confirm here is not known before the first accepted recording; at best slow-downs beyond {:.1} %",
                best * 100.0
            )
        }
    }
}

fn expected(plan: &Recording, sessions: &[Recording], policy: &Policy) -> Option<f64> {
    let subject = required_subject(plan, policy)?;
    let setting = Setting::new(plan, sessions, policy);
    let one = |session: &Recording| -> Vec<f64> {
        let samples = Samples::of(session, plan.plan.meter.clone());
        let own = samples.subjects().filter(|series| series.backend == subject);
        let mde = |series: &crate::record::Series| {
            let other = samples.find(&series.workload, &series.reference, &series.reference)?;
            let blocks = paired(series, other, &launches(session, 1)).ok()?;
            let spread = stats::spread(&blocks.log_ratio, &blocks.launch).ok().flatten()?;
            let design = Design {
                launches: plan.plan.launches as usize,
                blocks_per_launch: plan.plan.blocks as usize,
                alpha: policy.alpha,
                power: 0.8,
                floor: setting.floor(&series.workload, &series.reference, policy.alpha),
            };
            let margin = policy.severity.minor.ln_1p();
            stats::minimum_detectable_effect(&spread, margin, &design).ok().flatten()
        };
        own.filter_map(mde).collect()
    };
    let all: Vec<f64> = sessions.iter().flat_map(one).collect();
    stats::median(&all).ok().flatten()
}

/// What the run could see, over its judged comparisons; `None` where none has a number.
pub(super) fn reached(comparisons: &[Comparison]) -> Option<Power> {
    let judged = comparisons.iter().filter(|comparison| comparison.verdict.is_some());
    let known: Vec<(f64, &str)> =
        judged.filter_map(|comparison| Some((comparison.mde?, comparison.workload.as_str()))).collect();
    let values: Vec<f64> = known.iter().map(|(mde, _)| *mde).collect();
    let median = stats::median(&values).ok().flatten()?;
    let (worst, workload) = known.into_iter().max_by(|a, b| a.0.total_cmp(&b.0))?;
    Some(Power { median, worst, workload: workload.to_owned() })
}
