//! Who is who in a recording: the oracle, the subject and the reference that the verdict depends on.

use super::policy::Policy;
use crate::record::{Meter, Recording, Series};

/// What everybody is compared with.
pub(super) const ORACLE: &str = "rust-scalar";

/// The stop rule under which a workload that is decided gets no more launches.
pub(crate) const ALWAYS_VALID: &str = "always-valid";

/// Launches that every workload gets, however clear it looks: between-process variance needs a few.
pub(crate) const LEAST_LAUNCHES: usize = 3;

/// Names of the backends without which no verdict is a pass: the policy's, or the fastest of each language.
pub(super) fn required_backends<'a>(recording: &'a Recording, policy: &'a Policy) -> &'a [String] {
    match policy.required.backends.as_slice() {
        [] => &recording.plan.required,
        named => named,
    }
}

/// The subject the verdict depends on: the fastest Rust backend that could run, whether or not it took part.
pub(super) fn required_subject<'a>(recording: &'a Recording, policy: &'a Policy) -> Option<&'a str> {
    let mut required = required_backends(recording, policy).iter().map(String::as_str);
    required.find(|name| name.starts_with("rust-"))
}

/// The reference the verdict depends on, likewise.
pub(super) fn required_reference<'a>(recording: &'a Recording, policy: &'a Policy) -> Option<&'a str> {
    let mut required = required_backends(recording, policy).iter().map(String::as_str);
    required.find(|name| name.starts_with("cpp-"))
}

/// Whether a backend took part only to be shown: no rule depends on it, nobody asked for it, and it is no build of a
/// comparison of builds. Its twin and slowed copies are called by its name and a suffix.
pub(super) fn is_bystander(recording: &Recording, policy: &Policy, backend: &str) -> bool {
    let name = backend.split_once('+').map_or(backend, |(name, _)| name);
    let named = || required_backends(recording, policy).iter().chain(&recording.plan.requested);
    !name.contains('@') && named().next().is_some() && !named().any(|known| known == name)
}

/// The reason under which `what` was skipped.
pub(super) fn skipped_reason<'a>(recording: &'a Recording, what: &str) -> Option<&'a str> {
    recording.skipped.iter().find(|skipped| skipped.what == what).map(|skipped| skipped.reason.as_str())
}

/// Whether builds were timed, and no kernel was run.
pub(super) fn of_builds(recording: &Recording) -> bool {
    let planned = &recording.plan.workloads;
    !planned.is_empty() && planned.iter().all(|workload| workload.category == "build")
}

/// Whether instructions are judged, and not time.
pub(super) fn counts_instructions(recording: &Recording) -> bool {
    recording.plan.meter == Meter::Instructions
}

/// Threads of a workload, by its id: `t2` is two. Ids without such a part are of one thread.
pub(super) fn threads(workload: &str) -> u32 {
    let number = |part: &str| part.strip_prefix('t')?.parse().ok();
    let id = workload.split('+').next().unwrap_or_default();
    id.split('/').find_map(number).unwrap_or(1)
}

/// Whether the weights came from a model file.
pub(super) fn over_a_file(recording: &Recording) -> bool {
    recording.plan.workloads.iter().any(|workload| workload.id.starts_with("file:"))
}

/// Category and class of a series' workload; empty if it was not planned.
pub(super) fn kind_of<'a>(recording: &'a Recording, series: &Series) -> (&'a str, &'a str) {
    let planned = recording.plan.workloads.iter().find(|planned| planned.id == series.workload);
    planned.map_or(("", ""), |planned| (planned.category.as_str(), planned.class.as_str()))
}
