//! What we conclude: a recording and a policy in, a verdict out. Runs nothing, writes nothing.
//!
//! | file | asks |
//! |---|---|
//! | `policy` | how much of what is allowed: `perfgate.toml` |
//! | `roles` | who is the oracle, the subject, the reference |
//! | `samples` | which samples belong together |
//! | `decide` | where does an interval lie against a limit |
//! | `compare` | sides interleaved in the same blocks: the C++ reference, another build |
//! | `history` | today against accepted recordings of earlier days |
//! | `efficiency` | how much of what the machine allows |
//! | `power` | how small a slow-down could be seen |
//! | `validate` | is the evidence whole |
//! | `rules` | does each rule hold |
//! | `judge`, `verdict`, `route` | the document, and who should look next |
//! | `reading` | a verdict from a file, and the blocks behind one of its comparisons |
//! | `trial` | two arrays of times measured elsewhere |
//! | `imported` | two recordings of other tools |
//!
//! A rule passes only on evidence that it holds and fails only on evidence that it is broken; everything else is
//! neutral, with the reason. No evidence is never a pass.

mod compare;
pub mod decide;
mod efficiency;
mod history;
mod imported;
mod judge;
pub mod policy;
mod power;
pub mod reading;
mod roles;
mod route;
mod rules;
mod samples;
pub mod trial;
mod validate;
pub mod verdict;

pub use imported::{ImportedCase, ImportedError, judge_imported};
pub use judge::{Case, comparisons, flagged, judge, undecided};
pub use policy::{Policy, PolicyError};
pub use power::foretold;
pub(crate) use roles::{ALWAYS_VALID, LEAST_LAUNCHES};
pub use verdict::{Answer, Verdict};

use crate::record::Recording;

/// What a regression is judged against.
#[derive(Clone, Debug)]
pub enum Baseline<'a> {
    /// Nobody asked for one: agreement, accuracy and the C++ rules alone are judged.
    NotAsked,
    /// One was asked for and there is none: neutral, with the command that records one.
    Missing {
        /// What was looked for, and where.
        reason: String,
        /// The command.
        command: String,
    },
    /// Accepted recordings, in time order.
    Sessions {
        /// The set's name.
        name: String,
        /// The recordings.
        sessions: &'a [Recording],
        /// Why they cannot be compared with today's, if they cannot: fields that differ.
        void: Option<String>,
    },
    /// Another build of the same backends, interleaved in the recording itself.
    Revision {
        /// Its name: a git revision, a file.
        name: String,
    },
}

impl Baseline<'_> {
    /// Its name, where there is something to compare with.
    pub fn name(&self) -> Option<String> {
        match self {
            Self::NotAsked | Self::Missing { .. } => None,
            Self::Sessions { name, .. } | Self::Revision { name } => Some(name.clone()),
        }
    }
}
