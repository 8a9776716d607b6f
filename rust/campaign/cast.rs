//! Who takes part: the oracle, the reference, the other backends, and those that cannot.

use crate::backends::{self, Arithmetic, Availability, Backend, BackendError};
use crate::bitnet::model::FloatMatrix;
use crate::measure::{Compiler, CounterKind, Fingerprint};
use crate::record;
use crate::workloads::{Kind, Workload};
use std::sync::Arc;

/// The backends of a campaign.
pub struct Cast {
    oracle: Arc<dyn Backend>,
    /// Available, without the oracle.
    others: Vec<Arc<dyn Backend>>,
    reference: Option<Arc<dyn Backend>>,
    absent: Vec<(String, String)>,
    required: Vec<String>,
    requested: Vec<String>,
    /// Two builds against each other: for each backend the names of the old one, its twin and the new one.
    builds: Vec<[String; 3]>,
    /// What counts instructions, where they are counted.
    counter: Option<CounterKind>,
}

/// Backends that are timed in the same blocks; the first is the reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The reference's name.
    pub reference: String,
    /// Names of everybody who may be timed against it, the reference included.
    pub members: Vec<String>,
}

impl Cast {
    /// Sorts `chosen` into roles. The oracle is `rust-scalar` and always takes part; the reference is the fastest
    /// C++ one among the chosen, by the order of [`backends::all`] and not of the caller. The verdict requires the
    /// fastest Rust and C++ backends that can run here: leaving one out does not make a weaker one the best.
    pub fn new(chosen: Vec<Arc<dyn Backend>>) -> Self {
        Self::counted_by(None, chosen)
    }

    /// The same for counting instructions: backends that the counter does not understand take no part, and do not count as
    /// the fastest.
    pub fn counted_by(counter: Option<CounterKind>, chosen: Vec<Arc<dyn Backend>>) -> Self {
        let (chosen, mut not_understood) = understood(counter, chosen);
        let mut cast = Self::of(understood(counter, backends::all()).0, chosen);
        // This CPU may run them: the reason is another one.
        cast.absent.retain(|(name, _)| !not_understood.iter().any(|(other, _)| other == name));
        cast.absent.append(&mut not_understood);
        Self { counter, ..cast }
    }

    /// `here`: every backend of this build that may be required.
    fn of(mut here: Vec<Arc<dyn Backend>>, chosen: Vec<Arc<dyn Backend>>) -> Self {
        let oracle: Arc<dyn Backend> = Arc::new(backends::rust_scalar::RustScalar);
        let mut absent = Vec::new();
        let mut others: Vec<Arc<dyn Backend>> = Vec::new();
        for backend in chosen {
            match backend.availability() {
                Availability::Unavailable(why) => absent.push((backend.name().to_owned(), why)),
                Availability::Ready if backend.name() == oracle.name() => {}
                Availability::Ready => others.push(backend),
            }
        }
        here.retain(|backend| backend.availability() == Availability::Ready);
        let best =
            |side: fn(&str) -> bool| here.iter().rev().map(|backend| backend.name()).find(|name| side(name));
        let required: Vec<String> =
            [best(is_rust_side), best(is_reference_side)].into_iter().flatten().map(str::to_owned).collect();
        let taking_part =
            |name: &str| name == oracle.name() || others.iter().any(|other| other.name() == name);
        let left_out = required.iter().filter(|name| !taking_part(name));
        absent.extend(left_out.map(|name| (name.clone(), "left out by request".to_owned())));
        let reference = here
            .iter()
            .rev()
            .filter(|backend| is_reference_side(backend.name()))
            .find_map(|backend| others.iter().find(|other| other.name() == backend.name()))
            .cloned();
        if !cfg!(feature = "ffi") {
            absent.push(("cpp-*".into(), "C++ unavailable: this build lacks the cargo feature ffi".into()));
        }
        absent.push(("cuda".into(), "GPU backends are not part of this version".into()));
        Self {
            oracle,
            others,
            reference,
            absent,
            required,
            requested: Vec::new(),
            builds: Vec::new(),
            counter: None,
        }
    }

    /// Backend by backend, a new build against an old one and against a second copy of the old one. `wanted` names
    /// backends; empty: all that both builds offer and that can run here, plain loops left out.
    pub(super) fn of_builds(
        counter: Option<CounterKind>,
        old: Vec<Arc<dyn Backend>>,
        twins: Vec<Arc<dyn Backend>>,
        new: Vec<Arc<dyn Backend>>,
        wanted: &[String],
    ) -> Self {
        let mut cast = Self {
            oracle: Arc::new(backends::rust_scalar::RustScalar),
            others: Vec::new(),
            reference: None,
            absent: vec![("cuda".into(), "GPU backends are not part of this version".into())],
            required: Vec::new(),
            requested: Vec::new(),
            builds: Vec::new(),
            counter,
        };
        let (new, not_understood) = understood(counter, new);
        cast.absent.extend(not_understood);
        for side in new {
            let name = side.name().split('@').next().unwrap_or_default().to_owned();
            let chosen = if wanted.is_empty() {
                !matches!(side.isa(), "scalar" | "portable")
            } else {
                wanted.contains(&name)
            };
            if !chosen {
                continue;
            }
            // By name: a library does not say of its backends that they repack.
            let repacks = backends::by_name(&name).is_ok_and(|backend| backend.repacks().is_some());
            if repacks && wanted.is_empty() {
                cast.absent
                    .push((side.name().to_owned(), "it repacks weights: compared only by its name".into()));
                continue;
            }
            let partner = |others: &[Arc<dyn Backend>]| {
                others.iter().find(|other| other.name().split('@').next() == Some(name.as_str())).cloned()
            };
            match (partner(&old), partner(&twins), side.availability()) {
                (Some(old), Some(twin), Availability::Ready) if old.availability() == Availability::Ready => {
                    let names = [&old, &twin, &side].map(|backend| backend.name().to_owned());
                    cast.required.push(names[2].clone());
                    cast.builds.push(names);
                    cast.others.extend([old, twin, side]);
                }
                (_, _, Availability::Unavailable(why)) => cast.absent.push((side.name().to_owned(), why)),
                _ => cast
                    .absent
                    .push((side.name().to_owned(), "the other build does not offer it here".into())),
            }
        }
        for name in wanted {
            let known = |other: &str| other.split('@').next() == Some(name.as_str());
            let found = cast.others.iter().any(|other| known(other.name()));
            if !found && !cast.absent.iter().any(|(other, _)| known(other)) {
                cast.absent.push((name.clone(), "neither build offers it".into()));
            }
        }
        cast.requested = wanted.iter().map(|name| format!("{name}@new")).collect();
        cast
    }

    /// Who is timed with whom: instruction set against instruction set where both languages have it, everybody else and
    /// the pair the verdict depends on with the reference.
    pub(super) fn groups(&self) -> Vec<Group> {
        if self.builds.is_empty() {
            let reference = self.reference().map_or(self.oracle.name(), |reference| reference.name());
            let everybody = std::iter::once(&self.oracle).chain(&self.others);
            let sides: Vec<Side<'_>> = everybody.map(|side| (side.name(), side.isa())).collect();
            return groups_by_isa(reference, &self.required, &sides);
        }
        let group = |names: &[String; 3]| Group { reference: names[0].clone(), members: names.to_vec() };
        self.builds.iter().map(group).collect()
    }

    /// Why nothing can depend on a workload here: its arithmetic is that of hardware which a side of the verdict has not. What
    /// an old build offers and a new one does not is no such reason, but a loss, and stays in the plan.
    pub(super) fn lacks(&self, workload: &Workload) -> Option<String> {
        let Kind::MixedPrecision { float_type, arithmetic: Arithmetic::Native, .. } = workload.kind else {
            return None;
        };
        let bytes = vec![0; float_type.bytes_of(1)];
        let matrix = FloatMatrix::new(float_type, 1, 1, &bytes)?;
        let lacking = |name: &str| {
            let backend = self.others.iter().find(|backend| backend.name() == name)?;
            let answer = backend.prepare_float_matmul(matrix, Arithmetic::Native, 1, 1).err()?;
            matches!(answer, BackendError::Unsupported { .. })
                .then(|| format!("{name} has no native arithmetic of {float_type:?} here"))
        };
        let lost = |[old, _, new]: &[String; 3]| lacking(old).is_none() && lacking(new).is_some();
        if self.builds.iter().any(lost) {
            return None;
        }
        self.required.iter().chain(self.builds.as_flattened()).find_map(|name| lacking(name))
    }

    /// What counts instructions, where they are counted.
    pub(super) fn counter(&self) -> Option<CounterKind> {
        self.counter
    }

    /// Whether the verdict depends on that backend though it is one of plain loops, as where there is no better one.
    pub(super) fn requires_plain_loops(&self, name: &str) -> bool {
        self.counter.is_some() && self.required.iter().any(|required| required == name)
    }

    /// Whether a backend was asked for by its name.
    pub(super) fn is_requested(&self, name: &str) -> bool {
        self.requested.iter().any(|requested| requested == name)
    }

    /// Whether a backend takes part only to be shown: built in, required by no rule and asked for by nobody.
    pub(super) fn is_bystander(&self, name: &str) -> bool {
        let named = |names: &[String]| names.iter().any(|known| known == name);
        let is_reference = self.reference().is_some_and(|reference| reference.name() == name);
        let shown_only = !named(&self.required) && !named(&self.requested) && !is_reference;
        shown_only && !name.contains('@') && !self.compares_builds()
    }

    /// Whether two builds are compared, and not Rust with C++.
    pub fn compares_builds(&self) -> bool {
        !self.builds.is_empty()
    }

    /// Names backends that were asked for one by one: a run in which one of them is not compared is no pass.
    pub fn requested(self, names: Vec<String>) -> Self {
        Self { requested: names, ..self }
    }

    /// Leaves the C++ reference out, with the reason that every table then shows.
    pub fn without_cpp(mut self) -> Self {
        self.others.retain(|backend| !is_reference_side(backend.name()));
        self.reference = None;
        self.absent.push(("cpp-*".into(), "C++ skipped by request".into()));
        self
    }

    /// The oracle.
    pub fn oracle(&self) -> &dyn Backend {
        self.oracle.as_ref()
    }

    /// Every available backend that is compared with the oracle.
    pub fn compared(&self) -> &[Arc<dyn Backend>] {
        &self.others
    }

    /// The reference of speed comparisons; without C++ there is none.
    pub fn reference(&self) -> Option<&Arc<dyn Backend>> {
        self.reference.as_ref()
    }

    /// The fastest Rust and C++ backends that can run here: the verdict depends on them.
    pub(super) fn required(&self) -> &[String] {
        &self.required
    }

    /// Names asked for one by one.
    pub(super) fn requested_names(&self) -> &[String] {
        &self.requested
    }

    /// Who does not take part, and why.
    pub fn absent(&self) -> &[(String, String)] {
        &self.absent
    }

    /// Everybody who takes part, as recordings describe them.
    pub fn records(&self) -> Vec<record::Backend> {
        let everybody = std::iter::once(&self.oracle).chain(&self.others);
        let describe = |backend: &Arc<dyn Backend>| {
            let info = backend.build_info();
            record::Backend {
                name: backend.name().into(),
                compiler: info.compiler,
                version: info.version,
                flags: info.flags,
                optimisation: info.optimisation,
                source_hash: info.source_hash,
                git_revision: info.git_revision,
                ..record::Backend::default()
            }
        };
        everybody.map(describe).collect()
    }

    /// This machine and the compilers of the sides.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut compilers: Vec<Compiler> = Vec::new();
        for backend in std::iter::once(&self.oracle).chain(&self.others) {
            let info = backend.build_info();
            let compiler = Compiler {
                language: backend.name().split('-').next().unwrap_or_default().into(),
                compiler: info.compiler,
                version: info.version,
                flags: info.flags,
                opt_level: info.optimisation,
                ..Compiler::default()
            };
            if !compilers.contains(&compiler) {
                compilers.push(compiler);
            }
        }
        Fingerprint::of_this_machine(compilers, None)
    }
}

/// Backends, and names of others with the reason.
type Understood = (Vec<Arc<dyn Backend>>, Vec<(String, String)>);

/// Those that the counter understands, and the others. A plugin is tried: what it contains is not known.
fn understood(counter: Option<CounterKind>, backends: Vec<Arc<dyn Backend>>) -> Understood {
    let Some(counter) = counter else { return (backends, Vec::new()) };
    let knows = |backend: &Arc<dyn Backend>| {
        let ours = backend.name().starts_with("rust-") || backend.name().starts_with("cpp-");
        !ours || counter.knows(backend.isa())
    };
    let (understood, others): (Vec<_>, Vec<_>) = backends.into_iter().partition(knows);
    let reason = |backend: &Arc<dyn Backend>| {
        format!("{} does not understand {}: counted without it", counter.name(), backend.isa())
    };
    (understood, others.iter().map(|backend| (backend.name().to_owned(), reason(backend))).collect())
}

/// Name and instruction set of a backend.
type Side<'a> = (&'a str, &'a str);

/// The group of `reference`, and one for each other C++ backend whose instruction set a Rust backend shares, unless that
/// is the one the verdict depends on.
fn groups_by_isa(reference: &str, required: &[String], sides: &[Side<'_>]) -> Vec<Group> {
    let partner = |&(name, isa): &Side<'_>| {
        let for_verdict = required.iter().any(|required| required == name);
        let others = || sides.iter().filter(|(other, _)| is_reference_side(other) && *other != reference);
        others()
            .find(|(_, other_isa)| is_rust_side(name) && !for_verdict && *other_isa == isa)
            .map(|(other, _)| *other)
    };
    let pairs = sides.iter().filter_map(|side| partner(side).map(|other| [other, side.0]));
    let pairs: Vec<[&str; 2]> = pairs.collect();
    let left = sides.iter().map(|(name, _)| *name).filter(|name| !pairs.as_flattened().contains(name));
    let group = |reference: &str, members: Vec<&str>| Group {
        reference: reference.to_owned(),
        members: members.into_iter().map(str::to_owned).collect(),
    };
    std::iter::once(group(reference, left.collect()))
        .chain(pairs.iter().map(|pair| group(pair[0], pair.to_vec())))
        .collect()
}

/// Whether a backend is one of this crate's own.
fn is_rust_side(name: &str) -> bool {
    name.starts_with("rust-") && !name.contains('@')
}

/// Whether a backend belongs to the in-tree C++ reference.
fn is_reference_side(name: &str) -> bool {
    name.starts_with("cpp-") && !name.contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grouped(reference: &str, required: [&str; 2], sides: &[Side<'_>]) -> Vec<(String, Vec<String>)> {
        let groups = groups_by_isa(reference, &required.map(str::to_owned), sides);
        groups.into_iter().map(|group| (group.reference, group.members)).collect()
    }

    fn group(names: &[&str], reference: &str) -> (String, Vec<String>) {
        (reference.to_owned(), names.iter().map(|name| (*name).to_owned()).collect())
    }

    const SCALAR: Side<'_> = ("rust-scalar", "scalar");
    const RUST: [Side<'_>; 2] = [("rust-avx2", "avx2"), ("rust-avx512vnni", "avx512vnni")];
    const PORTABLE: Side<'_> = ("cpp-portable", "portable");
    const CPP: [Side<'_>; 2] = [("cpp-avx2", "avx2"), ("cpp-avx512vnni", "avx512vnni")];

    #[test]
    fn each_instruction_set_meets_its_own() {
        let sides = [SCALAR, RUST[0], RUST[1], PORTABLE, CPP[0], CPP[1], ("mine@lib", "avx2")];
        let main = ["rust-scalar", "rust-avx512vnni", "cpp-portable", "cpp-avx512vnni", "mine@lib"];
        assert_eq!(
            grouped("cpp-avx512vnni", ["rust-avx512vnni", "cpp-avx512vnni"], &sides),
            [group(&main, "cpp-avx512vnni"), group(&["cpp-avx2", "rust-avx2"], "cpp-avx2")]
        );
    }

    /// A CPU with AVX-VNNI and without AVX-512, as hybrid ones are.
    #[test]
    fn where_the_widest_is_avx_vnni_it_meets_its_own() {
        let (rust, cpp) = (("rust-avxvnni", "avxvnni"), ("cpp-avxvnni", "avxvnni"));
        let sides = [SCALAR, RUST[0], rust, PORTABLE, CPP[0], cpp];
        let main = ["rust-scalar", "rust-avxvnni", "cpp-portable", "cpp-avxvnni"];
        assert_eq!(
            grouped("cpp-avxvnni", ["rust-avxvnni", "cpp-avxvnni"], &sides),
            [group(&main, "cpp-avxvnni"), group(&["cpp-avx2", "rust-avx2"], "cpp-avx2")]
        );
    }

    /// Without a partner of its own a backend is compared with the fastest C++ one, and the pair of the verdict always
    /// meets.
    #[test]
    fn the_verdicts_pair_meets_even_with_different_instruction_sets() {
        let sides = [SCALAR, RUST[0], RUST[1], CPP[0]];
        let names: Vec<&str> = sides.iter().map(|side| side.0).collect();
        assert_eq!(grouped("cpp-avx2", ["rust-avx512vnni", "cpp-avx2"], &sides), [group(&names, "cpp-avx2")]);
        let sides = [SCALAR, RUST[0], CPP[0], CPP[1]];
        let names: Vec<&str> = sides.iter().map(|side| side.0).collect();
        assert_eq!(
            grouped("cpp-avx512vnni", ["rust-avx2", "cpp-avx512vnni"], &sides),
            [group(&names, "cpp-avx512vnni")]
        );
    }

    /// They refuse what they do not repack, so a run over every format would never be complete.
    #[test]
    fn builds_of_backends_that_repack_are_compared_only_by_name() {
        let all = backends::all;
        let everybody = Cast::of_builds(None, all(), all(), all(), &[]);
        for backend in all().iter().filter(|backend| backend.repacks().is_some()) {
            let name = backend.name().to_owned();
            assert!(!everybody.required.contains(&name), "{name}");
            assert!(everybody.absent.iter().any(|(absent, _)| *absent == name), "{name}");
            let named = Cast::of_builds(None, all(), all(), all(), std::slice::from_ref(&name));
            let ready = backend.availability() == Availability::Ready;
            assert_eq!(named.required.contains(&name), ready, "{name}");
        }
        let ready =
            |name: &str| backends::by_name(name).is_ok_and(|b| b.availability() == Availability::Ready);
        assert_eq!(everybody.required.contains(&"rust-avx2".to_owned()), ready("rust-avx2"));
    }

    #[test]
    fn without_cpp_everybody_meets_the_oracle() {
        let sides = [SCALAR, RUST[0], RUST[1]];
        let names: Vec<&str> = sides.iter().map(|side| side.0).collect();
        assert_eq!(
            grouped("rust-scalar", ["rust-avx512vnni", "cpp-avx2"], &sides),
            [group(&names, "rust-scalar")]
        );
    }
}
