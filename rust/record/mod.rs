//! What we keep: the recording `bitnet-perfgate/recording/1`, everything that one run measured, raw.
//!
//! A recording is JSON: columns of integers, nanoseconds, no averages. Summaries are recomputed from it, never
//! stored in it. Fields that this version does not know are kept when a recording is written again, at every
//! level but inside `contract` and `length_mismatch`, which are closed. Compressed recordings (`.json.zst`) are not read yet; they are refused by name.
//!
//! | file | holds |
//! |---|---|
//! | `recording` | the document |
//! | `series` | one column set per workload, backend and meter, and how samples become one |
//! | `build_times` | a recording of builds |
//! | `ceilings` | names of the machine's ceilings |
//! | `compatible` | can two recordings be compared at all |
//! | `merge` | one recording out of several launches |
//! | `trial` | samples measured elsewhere |
//! | `origin`, `import` | another tool's results, and how its files are read |
//! | `store` | baselines: accepted recordings |
//! | `check` | what must be true of a recording beyond its types |
//! | `file` | reading with errors a person can act on, writing that leaves the old file or the new one |

mod build_times;
mod ceilings;
mod check;
mod compatible;
mod file;
pub mod import;
mod merge;
mod origin;
mod recording;
mod series;
pub mod store;
pub mod trial;

pub use build_times::build_recording;
pub use ceilings::{CeilingSetting, arithmetic_name, bandwidth_name};
pub use check::Invalid;
pub use compatible::{Mismatch, mismatches};
pub use file::{MAX_RECORDING_BYTES, RecordError, parse_recording, read_recording, write_recording};
pub use merge::{MergeError, merge};
pub use origin::{ImportedBenchmark, Origin, Summary};
pub use recording::{
    Accuracy, AgreementRow, Backend, Extra, FirstMismatch, Launch, Memory, PlanRecord, PlannedWorkload,
    Recording, SCHEMA, Skipped, Tool, Work, now_utc,
};
pub use series::{Meter, Series, SeriesError};
