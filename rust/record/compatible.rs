//! Can two recordings be compared at all: the categories that decide speed, one by one and by name.

use super::recording::{Backend, Recording};
use std::collections::BTreeSet;
use std::fmt;

/// A category in which two recordings differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Which one: `cpu_model`, `reference cpp-avx2`.
    pub field: String,
    /// In the earlier recording.
    pub earlier: String,
    /// In the later one.
    pub later: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was {:?} and is {:?}", self.field, self.earlier, self.later)
    }
}

/// Every category in which the recordings differ: machine, compilers, tool, seed, and the build of each C++ reference
/// that both know. The Rust side's own sources are what a comparison is about, and may differ.
pub fn mismatches(earlier: &Recording, later: &Recording) -> Vec<Mismatch> {
    let (then, now) = (&earlier.fingerprint, &later.fingerprint);
    let text = |value: &dyn fmt::Debug| format!("{value:?}").trim_matches('"').to_owned();
    let compilers = |recording: &Recording| {
        let rows = recording.fingerprint.compilers.iter().map(|compiler| {
            format!(
                "{}: {} {} {} -O{}",
                compiler.language, compiler.compiler, compiler.version, compiler.flags, compiler.opt_level
            )
        });
        rows.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join("; ")
    };
    let mut fields: Vec<(String, String, String)> = vec![
        ("os".into(), then.os.clone(), now.os.clone()),
        ("arch".into(), then.arch.clone(), now.arch.clone()),
        ("cpu_vendor".into(), then.cpu_vendor.clone(), now.cpu_vendor.clone()),
        ("cpu_model".into(), then.cpu_model.clone(), now.cpu_model.clone()),
        ("cpu_family".into(), then.cpu_family.clone(), now.cpu_family.clone()),
        ("stepping".into(), then.stepping.clone(), now.stepping.clone()),
        ("cores".into(), then.cores.to_string(), now.cores.to_string()),
        ("isa".into(), then.isa.join(" "), now.isa.join(" ")),
        ("hypervisor".into(), text(&then.hypervisor), text(&now.hypervisor)),
        ("kernel_major".into(), text(&then.kernel_major), text(&now.kernel_major)),
        ("governor".into(), text(&then.governor), text(&now.governor)),
        ("gpu".into(), text(&then.gpu), text(&now.gpu)),
        ("compilers".into(), compilers(earlier), compilers(later)),
        ("tool.version".into(), earlier.tool.version.clone(), later.tool.version.clone()),
        ("tool.features".into(), earlier.tool.features.join(" "), later.tool.features.join(" ")),
        ("plan.counter".into(), earlier.plan.counter.clone(), later.plan.counter.clone()),
        ("plan.seed".into(), earlier.plan.seed.to_string(), later.plan.seed.to_string()),
    ];
    let is_reference = |backend: &&Backend| backend.name.starts_with("cpp-") && !backend.name.contains('@');
    for reference in earlier.plan.backends.iter().filter(is_reference) {
        if let Some(same) = later.plan.backends.iter().find(|other| other.name == reference.name) {
            let field = format!("reference {}", reference.name);
            fields.push((field, reference.source_hash.clone(), same.source_hash.clone()));
        }
    }
    fields
        .into_iter()
        .filter(|(_, then, now)| then != now)
        .map(|(field, earlier, later)| Mismatch { field, earlier, later })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::file::tests::built;
    use super::*;

    #[test]
    fn every_category_is_seen_by_name() {
        assert_eq!(mismatches(&built(), &built()), []);
        type Change = (&'static str, fn(&mut Recording));
        let changes: [Change; 8] = [
            ("cpu_model", |r| r.fingerprint.cpu_model = "another".into()),
            ("cores", |r| r.fingerprint.cores += 1),
            ("isa", |r| r.fingerprint.isa.push("avx512f".into())),
            ("governor", |r| r.fingerprint.governor = Some("powersave".into())),
            ("compilers", |r| r.fingerprint.compilers[0].version = "2".into()),
            ("tool.version", |r| r.tool.version = "9".into()),
            ("plan.seed", |r| r.plan.seed += 1),
            ("reference cpp-avx2", |r| r.plan.backends[0].source_hash = "other".into()),
        ];
        for (field, change) in changes {
            let mut later = built();
            change(&mut later);
            let found = mismatches(&built(), &later);
            assert_eq!(found.iter().map(|m| m.field.as_str()).collect::<Vec<_>>(), [field]);
            assert!(found[0].to_string().contains(" was ") && found[0].earlier != found[0].later);
        }
    }
}
