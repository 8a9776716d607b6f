//! One recording out of several launches: every launch adds, none replaces.

use super::recording::{Accuracy, AgreementRow, Recording};
use super::series::SeriesError;

/// Why two recordings are not launches of one run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// Something that must be equal is not.
    #[error("{field} differs: {left} and {right}")]
    Differs {
        /// What.
        field: &'static str,
        /// In the recording so far.
        left: String,
        /// In the launch to be added.
        right: String,
    },
    /// A launch of that number is already there.
    #[error("launch {index} is already there")]
    Repeated {
        /// Its number.
        index: u32,
    },
    /// Two pieces of a series that do not fit.
    #[error(transparent)]
    Series(#[from] SeriesError),
}

/// Adds the launches of `more` to `into`. The plan of `into` stays; `more` may hold fewer of its workloads.
///
/// Of several agreements of one workload and backend the worst is kept: what differed once differs. Accuracy is that of
/// the first launch; another value later is added as a row of its own, so that it can fail too. Of two measurements of a
/// ceiling the higher one is kept.
///
/// # Errors
/// [`MergeError`]; `into` is unchanged then.
pub fn merge(into: &mut Recording, more: Recording) -> Result<(), MergeError> {
    let differs = |field, left: &dyn std::fmt::Debug, right: &dyn std::fmt::Debug| MergeError::Differs {
        field,
        left: format!("{left:?}"),
        right: format!("{right:?}"),
    };
    if into.tool != more.tool {
        return Err(differs("tool", &into.tool, &more.tool));
    }
    if into.plan.seed != more.plan.seed {
        return Err(differs("plan.seed", &into.plan.seed, &more.plan.seed));
    }
    if into.plan.backends != more.plan.backends {
        return Err(differs("plan.backends", &into.plan.backends, &more.plan.backends));
    }
    if into.fingerprint != more.fingerprint {
        return Err(differs("fingerprint", &into.fingerprint, &more.fingerprint));
    }
    let mut merged = into.clone();
    for launch in more.launches {
        if merged.launches.iter().any(|known| known.index == launch.index) {
            return Err(MergeError::Repeated { index: launch.index });
        }
        merged.launches.push(launch);
    }
    for series in more.series {
        match merged.series.iter_mut().find(|known| known.label() == series.label()) {
            Some(known) => known.append(&series)?,
            None => merged.series.push(series),
        }
    }
    for (name, rate) in more.ceilings {
        let known = merged.ceilings.entry(name).or_insert(rate);
        *known = known.max(rate);
    }
    merged.ceiling_setting = merged.ceiling_setting.or(more.ceiling_setting);
    more.agreements.into_iter().for_each(|row| keep_worse(&mut merged.agreements, row));
    more.accuracy.into_iter().for_each(|row| keep_different(&mut merged.accuracy, row));
    for row in more.memory {
        let same = |known: &&mut super::Memory| {
            (&known.workload, &known.backend, &known.meter, known.launch)
                == (&row.workload, &row.backend, &row.meter, row.launch)
        };
        match merged.memory.iter_mut().find(same) {
            Some(known) => known.value_bytes = known.value_bytes.max(row.value_bytes),
            None => merged.memory.push(row),
        }
    }
    for skipped in more.skipped {
        if !merged.skipped.contains(&skipped) {
            merged.skipped.push(skipped);
        }
    }
    merged.incomplete = merged.incomplete.or(more.incomplete);
    *into = merged;
    Ok(())
}

/// Later rows of the same pair count only if they are worse; a row that does not hold is never replaced by one that does.
fn keep_worse(rows: &mut Vec<AgreementRow>, row: AgreementRow) {
    let rank = |row: &AgreementRow| (row.holds(), row.exact);
    match rows.iter_mut().find(|known| known.workload == row.workload && known.backend == row.backend) {
        Some(known) if rank(&row) < rank(known) => *known = row,
        Some(_) => {}
        None => rows.push(row),
    }
}

fn keep_different(rows: &mut Vec<Accuracy>, row: Accuracy) {
    if !rows.contains(&row) {
        rows.push(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::file::tests::built;

    fn later(index: u32) -> Recording {
        let mut launch = built();
        launch.launches[0].index = index;
        for series in &mut launch.series {
            series.launch.iter_mut().for_each(|of| *of = index);
        }
        launch
    }

    #[test]
    fn launches_add_up() {
        let mut whole = built();
        whole.incomplete = None;
        let samples = whole.series[0].len();
        let mut second = later(1);
        second.incomplete = None;
        second.memory[0].value_bytes += 5;
        let peak = second.memory[0].value_bytes;
        merge(&mut whole, second).expect("launches of one run");
        assert_eq!(whole.launches.len(), 2);
        assert!(whole.series.iter().all(|series| series.len() == 2 * samples));
        assert_eq!((whole.agreements.len(), whole.accuracy.len()), (built().agreements.len(), 1));
        assert_eq!(whole.memory.len(), 1);
        assert_eq!(whole.memory[0].value_bytes, peak);
        whole.check().expect("still a recording");
        merge(&mut whole, later(2)).expect("a third");
        assert_eq!(whole.incomplete.as_deref(), Some("interrupted"), "one interrupted launch is enough");
    }

    #[test]
    fn the_worst_agreement_is_kept_in_either_order() {
        let good = {
            let mut row = built().agreements[0].clone();
            (row.mismatches, row.exact, row.first_mismatch) = (0, true, None);
            row
        };
        assert!(good.holds() && !built().agreements[0].holds());
        for (first, second) in
            [(good.clone(), built().agreements[0].clone()), (built().agreements[0].clone(), good)]
        {
            let mut whole = built();
            whole.agreements = vec![first];
            let mut launch = later(1);
            launch.agreements = vec![second];
            merge(&mut whole, launch).expect("launches of one run");
            assert_eq!(whole.agreements.len(), 1);
            assert!(!whole.agreements[0].holds());
        }
    }

    #[test]
    fn strangers_are_refused_and_change_nothing() {
        type Change = (&'static str, fn(&mut Recording));
        let strangers: [Change; 5] = [
            ("tool", |r| r.tool.version = "9".into()),
            ("plan.seed", |r| r.plan.seed += 1),
            ("plan.backends", |r| r.plan.backends.clear()),
            ("fingerprint", |r| r.fingerprint.stepping = "9".into()),
            ("launch 0", |r| r.launches[0].index = 0),
        ];
        for (name, change) in strangers {
            let mut whole = built();
            let mut other = later(1);
            change(&mut other);
            let error = merge(&mut whole, other).expect_err(name).to_string();
            assert!(error.starts_with(name), "{name}: {error}");
            assert_eq!(whole, built());
        }
    }
}
