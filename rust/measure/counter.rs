//! How many instructions: no clock, no scheduler, nearly no noise.
//!
//! ```text
//! for each repeat, for each side
//!     one call, uncounted
//!     count of SHORT calls, count of LONG calls
//!     sample: their difference, for LONG - SHORT calls
//! ```
//!
//! The difference leaves out whatever a count costs by itself. Unit: instructions of user code, of this thread. A reader may not
//! conclude anything about time: an instruction that waits for memory counts like one that does not.
//!
//! Two counters: the CPU's own (Linux perf events), where the system lets a process read it, and callgrind elsewhere. They
//! count slightly different things (callgrind counts a `rep movsb` once for each round), so counts of one are never
//! compared with counts of the other.

use super::callgrind::{self, Callgrind};
use super::group::Side;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Calls in the shorter of the two counts of a sample.
const SHORT: u64 = 1;
/// Calls in the longer one.
const LONG: u64 = 3;

/// Instruction sets that callgrind translates. Valgrind tells programs that the CPU has no other, and stops at instructions
/// of others.
const CALLGRIND_KNOWS: [&str; 7] = ["scalar", "portable", "sse2", "ssse3", "avx", "avx2", "neon"];

/// Why nothing was counted.
#[derive(Debug, thiserror::Error)]
pub enum CountError {
    /// There is no such counter here.
    #[error("instructions cannot be counted: {0}")]
    Unavailable(String),
    /// The counter broke off.
    #[error("the counter failed: {0}")]
    Hardware(#[from] std::io::Error),
    /// A dump of callgrind that is none.
    #[error("{}: {what}", path.display())]
    Dump {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// More calls took fewer instructions.
    #[error("{LONG} calls took {long} instructions and {SHORT} took {short}: this is no count of the calls")]
    Senseless {
        /// Of [`SHORT`] calls.
        short: u64,
        /// Of [`LONG`] calls.
        long: u64,
    },
}

/// What counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CounterKind {
    /// The CPU's own counter.
    Hardware,
    /// Valgrind's tool.
    Callgrind,
}

impl CounterKind {
    /// The best one that can be used here; the error says why there is none, for both.
    pub fn here() -> Result<Self, CountError> {
        let hardware = match Counter::open(None) {
            Ok(_) => return Ok(Self::Hardware),
            Err(why) => why.to_string(),
        };
        match valgrind_version() {
            Ok(_) => Ok(Self::Callgrind),
            Err(why) => Err(CountError::Unavailable(format!(
                "{}; {why}",
                hardware.trim_start_matches("instructions cannot be counted: ")
            ))),
        }
    }

    /// `perf-event`, `callgrind`: stands in recordings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hardware => "perf-event",
            Self::Callgrind => "callgrind",
        }
    }

    /// Whether code of that instruction set can be counted.
    pub fn knows(self, isa: &str) -> bool {
        self == Self::Hardware || CALLGRIND_KNOWS.contains(&isa)
    }

    /// The command line of a process that is to be counted; dumps of callgrind go below `folder`.
    pub fn around(self, command: &[String], folder: &Path) -> Vec<String> {
        match self {
            Self::Hardware => command.to_vec(),
            Self::Callgrind => {
                let file = folder.join(callgrind::DUMP_NAME);
                let out = format!("--callgrind-out-file={}", file.display());
                let valgrind = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no"];
                let valgrind = valgrind.into_iter().map(str::to_owned);
                let settings = ["--collect-atstart=no".to_owned(), "--vgdb=no".to_owned(), out];
                valgrind.chain(settings).chain(command.iter().cloned()).collect()
            }
        }
    }
}

/// The version of the valgrind that is installed, or why there is none.
fn valgrind_version() -> Result<String, String> {
    let said = std::process::Command::new("valgrind").arg("--version").output();
    match said {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        Ok(output) => Err(format!("`valgrind --version` ended with {}", output.status)),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
            Err("valgrind is not installed, which would count them too".into())
        }
        Err(why) => Err(format!("valgrind cannot be started: {why}")),
    }
}

/// An open counter of this thread.
pub struct Counter(Open);

enum Open {
    #[cfg(target_os = "linux")]
    Hardware(Box<perf_event::Counter>),
    Callgrind(Callgrind),
}

impl Counter {
    /// Callgrind's, where this process was started under it with that folder for dumps; else the CPU's.
    ///
    /// # Errors
    /// [`CountError::Unavailable`] with the system's reason.
    pub fn open(dumps: Option<&Path>) -> Result<Self, CountError> {
        match dumps {
            Some(folder) => Ok(Self(Open::Callgrind(Callgrind::new(folder)?))),
            None => Self::hardware(),
        }
    }

    #[cfg(target_os = "linux")]
    fn hardware() -> Result<Self, CountError> {
        // User code of the calling thread, and nothing of the kernel: the crate's defaults.
        let counter =
            perf_event::Builder::new().kind(perf_event::events::Hardware::INSTRUCTIONS).build().map_err(
                |why| CountError::Unavailable(format!("this system offers no hardware counter ({why})")),
            )?;
        let mut counter = Self(Open::Hardware(Box::new(counter)));
        // Some virtual machines let a counter be opened that never moves.
        let mut sum = 0_u64;
        let moved = counter.count(100, &mut || sum = std::hint::black_box(sum + 1));
        match moved {
            Ok(n) if n >= 100 => Ok(counter),
            Ok(n) => Err(CountError::Unavailable(format!("the hardware counter stands still (it read {n})"))),
            Err(why) => Err(why),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn hardware() -> Result<Self, CountError> {
        Err(CountError::Unavailable("hardware counters are read on Linux only".into()))
    }

    /// Which one it is.
    pub fn kind(&self) -> CounterKind {
        match &self.0 {
            #[cfg(target_os = "linux")]
            Open::Hardware(_) => CounterKind::Hardware,
            Open::Callgrind(_) => CounterKind::Callgrind,
        }
    }

    fn count(&mut self, calls: u64, run: &mut dyn FnMut()) -> Result<u64, CountError> {
        match &mut self.0 {
            #[cfg(target_os = "linux")]
            Open::Hardware(counter) => {
                counter.reset()?;
                counter.enable()?;
                for _ in 0..calls {
                    run();
                }
                counter.disable()?;
                let read = counter.read_count_and_time()?;
                if read.time_running < read.time_enabled {
                    let why = "the hardware counter was shared with others and missed a part";
                    return Err(CountError::Unavailable(why.into()));
                }
                Ok(read.count)
            }
            Open::Callgrind(callgrind) => callgrind.count(calls, run),
        }
    }

    fn start(&self) {
        if let Open::Callgrind(callgrind) = &self.0 {
            callgrind.start();
        }
    }

    fn stop(&self) {
        if let Open::Callgrind(callgrind) = &self.0 {
            callgrind.stop();
        }
    }

    /// Instructions of one call, on average.
    ///
    /// # Errors
    /// As [`count_group`].
    pub fn per_call(&mut self, run: &mut dyn FnMut()) -> Result<f64, CountError> {
        self.start();
        let counted = self.sample(run);
        self.stop();
        Ok(counted? as f64 / (LONG - SHORT) as f64)
    }

    /// Instructions of [`LONG`] - [`SHORT`] calls.
    fn sample(&mut self, run: &mut dyn FnMut()) -> Result<u64, CountError> {
        run();
        let short = self.count(SHORT, run)?;
        let long = self.count(LONG, run)?;
        if long <= short {
            return Err(CountError::Senseless { short, long });
        }
        Ok(long - short)
    }
}

/// One count of one side, raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountSample {
    /// Index of the side; 0 is the reference.
    pub side: u32,
    /// Which repeat.
    pub block: u32,
    /// Position in the repeat.
    pub order: u32,
    /// Calls counted.
    pub iterations: u64,
    /// Instructions of all calls together.
    pub instructions: u64,
}

/// Everything one group of sides gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupCounts {
    /// Whole repeats only.
    pub samples: Vec<CountSample>,
    /// Why repeats are missing, if some are.
    pub incomplete: Option<String>,
}

/// Counts every side `repeats` times; the observer is told the share that is done before each repeat.
///
/// # Errors
/// [`CountError`] when a count fails.
pub fn count_group(
    counter: &mut Counter,
    repeats: u32,
    sides: &mut [Side<'_>],
    observer: &mut dyn FnMut(f64) -> ControlFlow<String>,
) -> Result<GroupCounts, CountError> {
    let mut found = GroupCounts::default();
    for block in 0..repeats {
        if let ControlFlow::Break(reason) = observer(f64::from(block) / f64::from(repeats)) {
            found.incomplete = Some(reason);
            break;
        }
        for (index, side) in sides.iter_mut().enumerate() {
            let order = index as u32;
            counter.start();
            let counted = counter.sample(side.run);
            counter.stop();
            side.rest();
            let (iterations, instructions) = (LONG - SHORT, counted?);
            found.samples.push(CountSample { side: order, block, order, iterations, instructions });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counted_process_is_started_under_valgrind_or_as_it_is() {
        let command = ["python".to_owned(), "-m".to_owned()];
        let folder = Path::new("/tmp/x y");
        assert_eq!(CounterKind::Hardware.around(&command, folder), command);
        let around = CounterKind::Callgrind.around(&command, folder);
        assert_eq!((around[0].as_str(), &around[around.len() - 2..]), ("valgrind", &command[..]));
        assert!(around.contains(&"--callgrind-out-file=/tmp/x y/count".to_owned()), "{around:?}");
        assert!(CounterKind::Callgrind.knows("avx2") && !CounterKind::Callgrind.knows("avx512vnni"));
        assert!(CounterKind::Hardware.knows("avx512vnni"));
    }

    /// Twice the work is twice the count, on whatever counter is readable; where none is, the reason names both.
    #[test]
    fn hardware_counts_follow_the_work_or_say_why_not() {
        match Counter::open(None) {
            Err(why) => assert!(why.to_string().contains("cannot be counted"), "{why}"),
            Ok(mut counter) => {
                assert_eq!(counter.kind(), CounterKind::Hardware);
                let mut sum = 0_u64;
                let mut work = |rounds: u64| {
                    let mut run = || {
                        for round in 0..rounds {
                            sum = std::hint::black_box(sum ^ round);
                        }
                    };
                    counter.sample(&mut run).expect("it counts") as f64
                };
                let ratio = work(200_000) / work(100_000);
                assert!((ratio - 2.0).abs() < 0.01, "{ratio}");
            }
        }
    }
}
