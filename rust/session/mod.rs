//! Until when: measure, judge, one verdict. Early stopping, a second stage and retries belong here.

use crate::campaign::{self, CampaignError, Cast, Request, Watcher};
use crate::gate::{self, Policy, Verdict};
use crate::record::Recording;

/// Everything one session leaves.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Raw.
    pub recording: Recording,
    /// Concluded from it.
    pub verdict: Verdict,
}

/// Runs the request and judges what was found by the default policy.
///
/// # Errors
/// [`CampaignError`] when nothing could be measured.
pub fn run(request: &Request, cast: &Cast, watcher: &mut Watcher<'_>) -> Result<Outcome, CampaignError> {
    let recording = campaign::run(request, cast, watcher)?;
    let verdict = gate::judge(&recording, &Policy::default(), "defaults");
    Ok(Outcome { recording, verdict })
}
