//! What we say: a recording and its verdict as rows, sections and lines for people and machines. Holds no threshold
//! and decides nothing: every answer stands in the verdict.
//!
//! | file | says |
//! |---|---|
//! | `quantity` | times as the rates people think in |
//! | `table` | the speed table, a row for each workload and subject |
//! | `sections` | the report: every section as data |
//! | `markdown` | the same as Markdown |
//! | `junit` | the answers as JUnit XML |
//! | `printable` | text in which nothing is hidden |

pub mod junit;
pub mod markdown;
mod printable;
pub mod quantity;
pub mod sections;
pub mod table;
