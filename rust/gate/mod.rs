//! What we conclude: a recording and a policy in, a verdict out. Runs nothing, writes nothing.
//!
//! [`compare`] turns raw samples into effects with intervals, [`rules`] asks of each rule whether the evidence
//! shows that it holds, [`verdict`] is the document, [`route`] says who should look next. A rule passes only on
//! evidence that it holds and fails only on evidence that it is broken; everything else is neutral, with the
//! reason. No evidence is never a pass.

mod compare;
mod judge;
pub mod policy;
mod route;
mod rules;
pub mod verdict;

pub use judge::judge;
pub use policy::Policy;
pub use verdict::{Answer, Verdict};
