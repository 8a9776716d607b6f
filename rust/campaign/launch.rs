//! One launch: a fresh process that measures. Layout, ASLR and page placement are one draw per process, so several
//! launches are several draws (`docs/STATISTICS.md`).
//!
//! The process is started from a command line that the caller gives (Python's `-m bitnet_perfgate worker`, a test binary);
//! what it must do is [`super::worker::serve`]. A process that dies becomes a recording with the reason, never a pass.

use super::worker::{Line, OwnedStep};
use super::{CampaignError, Find, Order, Phase, Request, Selection, Step, Watcher, plan};
use crate::measure::CounterKind;
use crate::record::{Launch, Recording, now_utc};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How to start a fresh process that serves one order on its standard input and output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerCommand(pub Vec<String>);

/// Everything a fresh process needs to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchOrder {
    /// What is asked for.
    pub request: Request,
    /// Of whom.
    pub selection: Selection,
    /// Which launch it is.
    pub order: Order,
}

/// The watcher is asked at least this often, so that a wish to stop is heard during long steps.
const HEARING: Duration = Duration::from_millis(100);

/// A process that was asked to stop has this long to answer with what it has.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes of a dead process's last words that are quoted.
const LAST_WORDS: usize = 300;

/// Starts the process, waits for its recording and tells `watcher` every step; before the first one, steps without a
/// workload, so that a wish to stop is heard.
///
/// `find` knows here what the process is brought. A process that dies leaves a recording of the plan with `incomplete` set to the reason. When the watcher breaks, the
/// process is asked to stop, and what it measured comes back with that reason.
///
/// # Errors
/// [`CampaignError::Worker`] if it cannot be started or answers nonsense; [`CampaignError::Reported`] for its own.
pub fn launch(
    command: &WorkerCommand,
    order: &LaunchOrder,
    find: &Find<'_>,
    watcher: &mut Watcher<'_>,
) -> Result<Recording, CampaignError> {
    let error = |what: String| CampaignError::Worker { command: command.0.join(" "), what };
    let counter = order.selection.counter.filter(|_| order.request.timing.is_some());
    let dumps = (counter == Some(CounterKind::Callgrind))
        .then(Dumps::new)
        .transpose()
        .map_err(|why| error(format!("has no folder for counts: {why}")))?;
    let (command, order) = match &dumps {
        None => (command.clone(), order.clone()),
        Some(Dumps(folder)) => {
            let inner = Order { dumps: Some(folder.clone()), ..order.order.clone() };
            let around = CounterKind::Callgrind.around(&command.0, folder);
            (WorkerCommand(around), LaunchOrder { order: inner, ..order.clone() })
        }
    };
    let (command, order) = (&command, &order);
    let mut process = Process::start(command).map_err(|why| error(format!("cannot be started: {why}")))?;
    let text = serde_json::to_string(order).map_err(|why| error(why.to_string()))?;
    // A process that is already dead is told apart below, by what it said and how it ended.
    let _ = process.stdin.as_mut().map(|stdin| stdin.write_all(format!("{text}\n").as_bytes()));
    let mut last =
        OwnedStep { done: 0, total: 1, fraction: 0.0, what: String::new(), phase: Phase::Agreement };
    let mut stopped: Option<(String, Instant)> = None;
    loop {
        match process.lines.recv_timeout(HEARING) {
            Ok(line) => match serde_json::from_str(&line) {
                Ok(Line::Step(step)) => last = step,
                Ok(Line::Recording(mut recording)) => {
                    if let Some((reason, _)) = stopped {
                        recording.incomplete = Some(reason);
                    }
                    return Ok(*recording);
                }
                Ok(Line::Error { file, message }) => return Err(CampaignError::Reported { file, message }),
                Err(_) => return Err(error(format!("said {:?}, which is no answer", shortened(&line)))),
            },
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return died(order, find, process, &last),
        }
        match &stopped {
            Some((reason, since)) if since.elapsed() > PATIENCE => {
                return unmeasured(order, find, reason.clone());
            }
            Some(_) => {}
            None => {
                let step: Step<'_> = last.step();
                if let ControlFlow::Break(reason) = watcher(&step) {
                    process.stdin = None;
                    stopped = Some((reason, Instant::now()));
                }
            }
        }
    }
}

/// A folder for what callgrind writes; removed when dropped.
struct Dumps(PathBuf);

impl Dumps {
    fn new() -> std::io::Result<Self> {
        let base = std::env::temp_dir();
        for attempt in 0..1000 {
            let folder = base.join(format!("perfgate-counts-{}-{attempt}", std::process::id()));
            match std::fs::create_dir(&folder) {
                Err(why) if why.kind() == std::io::ErrorKind::AlreadyExists => {}
                made => return made.map(|()| Self(folder)),
            }
        }
        Err(std::io::Error::other(format!("{} is full of them", base.display())))
    }
}

impl Drop for Dumps {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A started process; killed when dropped.
struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    complaints: Receiver<Vec<u8>>,
}

impl Process {
    fn start(command: &WorkerCommand) -> std::io::Result<Self> {
        let (program, arguments) =
            command.0.split_first().ok_or_else(|| std::io::Error::other("the command line is empty"))?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        let (line_to, lines) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stdout).lines();
                while let Some(Ok(line)) = lines.next() {
                    if line_to.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        let (complaint_to, complaints) = mpsc::channel();
        if let Some(mut stderr) = child.stderr.take() {
            std::thread::spawn(move || {
                let mut said = Vec::new();
                let mut piece = [0; 4096];
                while let Ok(n @ 1..) = stderr.read(&mut piece) {
                    said.extend(&piece[..n]);
                    said.drain(..said.len().saturating_sub(4 * LAST_WORDS));
                }
                let _ = complaint_to.send(said);
            });
        }
        Ok(Self { child, stdin, lines, complaints })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended, or nobody waits for it any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The recording of a process that ended without one.
fn died(
    order: &LaunchOrder,
    find: &Find<'_>,
    mut process: Process,
    last: &OwnedStep,
) -> Result<Recording, CampaignError> {
    let how = process.child.wait().map_or_else(|why| format!("was lost: {why}"), |status| ending(&status));
    let said = process.complaints.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
    let said = String::from_utf8_lossy(&said).trim().lines().last().map(shortened).unwrap_or_default();
    let said = if said.is_empty() { String::new() } else { format!("; its last words: {said}") };
    let during = match last.what.as_str() {
        "" => "before its first step".to_owned(),
        what => format!("during {} of {what}", last.phase.name()),
    };
    let reason = format!("the process of launch {} {how} {during}{said}", order.order.index);
    unmeasured(order, find, reason)
}

/// The plan, a launch without samples, and why.
fn unmeasured(order: &LaunchOrder, find: &Find<'_>, reason: String) -> Result<Recording, CampaignError> {
    let mut recording = plan(&order.request, &order.selection.cast(find)?)?;
    recording.incomplete = Some(reason);
    recording.launches = vec![Launch {
        index: order.order.index,
        started: now_utc(),
        cpu: None,
        disturbance: None,
        aa: false,
        stage: order.order.stage,
        extra: Default::default(),
    }];
    Ok(recording)
}

fn ending(status: &ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(status) {
        let name = signal_name(signal);
        return format!("was killed by signal {signal}{name}");
    }
    match status.code() {
        Some(code) => format!("ended with exit code {code} and no recording"),
        None => "ended without a recording".into(),
    }
}

#[cfg(target_os = "linux")]
fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal).map_or(String::new(), |signal| format!(" ({signal})"))
}

#[cfg(all(unix, not(target_os = "linux")))]
fn signal_name(_signal: i32) -> String {
    String::new()
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(LAST_WORDS).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
}
