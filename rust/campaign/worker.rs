//! The measuring side of a fresh process: one order in, steps and one recording out, as lines of JSON.
//!
//! ```text
//! in    {"request": ..., "selection": ..., "order": ...}          one line; then the pipe stays open
//! out   {"step": {"done": 3, "total": 29, "fraction": 0.5, "what": "...", "phase": "timing"}}
//! out   {"recording": ...}   or   {"error": {"file": false, "message": "..."}}
//! ```
//!
//! When its input ends, the process ends at the next step and answers with what it has: whoever started it is gone, or
//! wants it to stop. So no worker outlives its parent.

use super::{CampaignError, Find, LaunchOrder, Phase, Step, run_order};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Read, Write};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Orders larger than this are none.
const MAX_ORDER_BYTES: u64 = 16 << 20;

/// The reason in a recording whose process was told to stop.
pub const INTERRUPTED: &str = "interrupted";

/// One line of a worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Line {
    /// Where it stands.
    Step(OwnedStep),
    /// Everything it measured.
    Recording(Box<crate::record::Recording>),
    /// Why it measured nothing.
    Error { file: bool, message: String },
}

/// A [`Step`] that travels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct OwnedStep {
    pub done: usize,
    pub total: usize,
    pub fraction: f64,
    pub what: String,
    pub phase: Phase,
}

impl OwnedStep {
    fn of(step: &Step<'_>) -> Self {
        let Step { done, total, fraction, what, phase } = *step;
        Self { done, total, fraction, what: what.to_owned(), phase }
    }

    /// The same, borrowed.
    pub fn step(&self) -> Step<'_> {
        Step {
            done: self.done,
            total: self.total,
            fraction: self.fraction,
            what: &self.what,
            phase: self.phase,
        }
    }
}

/// Serves the one order of `input` on `output`; `find` makes what the order brings. Returns the exit code: 0 if a recording was written.
pub fn serve(mut input: impl BufRead + Send + 'static, output: &mut dyn Write, find: &Find<'_>) -> u8 {
    let mut text = String::new();
    let read = (&mut input).take(MAX_ORDER_BYTES).read_line(&mut text);
    let stop = Arc::new(AtomicBool::new(false));
    let order: Result<LaunchOrder, String> = match read {
        Err(why) => Err(format!("the order cannot be read: {why}")),
        Ok(_) => serde_json::from_str(&text).map_err(|why| format!("the order is none: {why}")),
    };
    let ended = Arc::clone(&stop);
    std::thread::spawn(move || {
        let mut rest = Vec::new();
        let _ = input.take(MAX_ORDER_BYTES).read_to_end(&mut rest);
        ended.store(true, Ordering::Relaxed);
    });
    let line = match order {
        Err(message) => Line::Error { file: false, message },
        Ok(order) => match measured(&order, &stop, output, find) {
            Ok(recording) => Line::Recording(Box::new(recording)),
            Err(why) => Line::Error { file: is_about_a_file(&why), message: why.to_string() },
        },
    };
    let code = u8::from(!matches!(line, Line::Recording(_)));
    if say(output, &line).is_err() { 1 } else { code }
}

fn measured(
    order: &LaunchOrder,
    stop: &AtomicBool,
    output: &mut dyn Write,
    find: &Find<'_>,
) -> Result<crate::record::Recording, CampaignError> {
    let cast = order.selection.cast(find)?;
    let mut watcher = |step: &Step<'_>| {
        let told = say(output, &Line::Step(OwnedStep::of(step)));
        if told.is_err() || stop.load(Ordering::Relaxed) {
            ControlFlow::Break(INTERRUPTED.to_owned())
        } else {
            ControlFlow::Continue(())
        }
    };
    run_order(&order.request, &cast, &order.order, &mut watcher)
}

fn say(output: &mut dyn Write, line: &Line) -> std::io::Result<()> {
    serde_json::to_writer(&mut *output, line)?;
    output.write_all(b"\n")?;
    output.flush()
}

/// Whether an error chain ends in the operating system.
fn is_about_a_file(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut source = Some(error);
    while let Some(error) = source {
        if error.is::<std::io::Error>() {
            return true;
        }
        source = error.source();
    }
    false
}
