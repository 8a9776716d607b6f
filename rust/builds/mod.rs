//! Which build: another revision of this project as a shared library, to be timed beside this one.
//!
//! | file | does |
//! |---|---|
//! | `revision` | a git revision, or the working tree, built with the same flags into a library of its own |
//! | `times` | how long clean and incremental builds take |
//!
//! It starts `git` and `cargo`, and writes below `target/perfgate` alone.

mod revision;
mod times;

pub use revision::{BuildError, BuiltLibrary, Watcher, build_revision, build_working_tree};
pub use times::{BuildPlan, BuildTimes, time_builds};
