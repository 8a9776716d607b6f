//! Another tool's result files to a recording: who wrote them is seen from the content.
//!
//! A file becomes one launch. A benchmark becomes the workload `<prefix>:<its own name>`; our own ids never carry such a
//! prefix, so a foreign name is never taken for one of them, even where it reads the same. A series without a partner
//! that was interleaved with it is its own reference: nothing pairs it by accident. Whatever has no samples is kept as a
//! summary; what failed or is no positive time is left out by name; what looks computed is marked `suspect`.
//! `docs/IMPORTS.md` says which field becomes which.

mod benchmark;
mod bitnet_rs;
mod cargo_criterion;
mod critcmp;
mod criterion;
mod google_benchmark;
mod hyperfine;
mod llama_bench;
mod node;
mod pytest_benchmark;
mod suspect;

pub use node::Shape;

use super::recording::{Launch, PlanRecord, Recording, SCHEMA, Skipped, Tool, now_utc};
use super::{Backend, Extra, Origin};
use benchmark::{Assembly, Found};
use jiff::Timestamp;
use node::Node;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Larger files are refused before they are read.
pub const MAX_FILE_BYTES: u64 = 128 << 20;

/// What stands in a recording's plan as its profile.
pub const PROFILE: &str = "imported";

/// A tool whose files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Trees of criterion, `target/criterion`.
    Criterion,
    /// `cargo criterion --message-format=json`.
    CargoCriterion,
    /// `critcmp --export`.
    Critcmp,
    /// `--benchmark_format=json`.
    GoogleBenchmark,
    /// `--export-json`.
    Hyperfine,
    /// `--benchmark-json` and saved runs.
    PytestBenchmark,
    /// `llama-bench -o json` and `-o jsonl`.
    LlamaBench,
    /// Files of the BitNet.rs project that hold times or rates.
    BitnetRs,
}

impl Source {
    /// Every one.
    pub const ALL: [Self; 8] = [
        Self::Criterion,
        Self::CargoCriterion,
        Self::Critcmp,
        Self::GoogleBenchmark,
        Self::Hyperfine,
        Self::PytestBenchmark,
        Self::LlamaBench,
        Self::BitnetRs,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Criterion => "criterion",
            Self::CargoCriterion => "cargo-criterion",
            Self::Critcmp => "critcmp",
            Self::GoogleBenchmark => "google-benchmark",
            Self::Hyperfine => "hyperfine",
            Self::PytestBenchmark => "pytest-benchmark",
            Self::LlamaBench => "llama-bench",
            Self::BitnetRs => "bitnet-rs",
        }
    }

    /// The tool of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.name() == name)
    }

    /// In front of a benchmark's own name. criterion named the benchmarks of all three of its files.
    fn prefix(self) -> &'static str {
        match self {
            Self::CargoCriterion | Self::Critcmp => Self::Criterion.name(),
            other => other.name(),
        }
    }
}

/// What to read and how.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// The tool, if it is not to be seen from the content.
    pub from: Option<Source>,
    /// Of a criterion tree: `new`, `base`, or the name of a saved baseline.
    pub saved: String,
    /// This tool, as recordings name it.
    pub tool: Tool,
}

/// Why nothing was imported. Names the file, the place in it, and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// Another shape, or no result in it.
    #[error("{}: {what}", path.display())]
    Unusable {
        /// The file or folder.
        path: PathBuf,
        /// The place, what stands there and what was expected.
        what: String,
    },
    /// Nothing was named.
    #[error("no file to import was named")]
    NoFile,
}

/// A document that was read: one JSON value, or one per line.
enum Content {
    Whole(Value),
    Lines(Vec<(usize, Value)>),
}

/// Reads the results of one tool from one file or several, each a launch of its own; a criterion tree is a folder.
///
/// # Errors
/// [`ImportError`], one line; never a panic, whatever the bytes.
pub fn import(paths: &[PathBuf], options: &ImportOptions) -> Result<Recording, ImportError> {
    let mut files: Vec<(PathBuf, Source, Found)> = Vec::new();
    for path in paths {
        let (source, found) = read(path, options)?;
        if let Some((first, known, _)) = files.first()
            && *known != source
        {
            let other: &PathBuf = first;
            let what = format!(
                "is of {}, {} is of {}; import them one by one",
                source.name(),
                other.display(),
                known.name()
            );
            return Err(ImportError::Unusable { path: path.clone(), what });
        }
        files.push((path.clone(), source, found));
    }
    assemble(files, options)
}

fn read(path: &Path, options: &ImportOptions) -> Result<(Source, Found), ImportError> {
    let unusable = |what: String| ImportError::Unusable { path: path.to_owned(), what };
    if path.is_dir() {
        if let Some(other) = options.from.filter(|source| *source != Source::Criterion) {
            return Err(unusable(format!("is a folder, expected a file of {}", other.name())));
        }
        return Ok((Source::Criterion, criterion::tree(path, &options.saved)?));
    }
    let bytes = bytes_of(path)?;
    from_bytes(&bytes, options.from).map_err(unusable)
}

/// Whose results these bytes are, and what they hold.
fn from_bytes(bytes: &[u8], from: Option<Source>) -> Result<(Source, Found), String> {
    let content = parse(bytes)?;
    let source = match from {
        Some(source) => source,
        None => recognised(&content)?,
    };
    let found = found_in(source, &content).map_err(|why| why.to_string())?;
    Ok((source, found))
}

fn bytes_of(path: &Path) -> Result<Vec<u8>, ImportError> {
    let io_error = |action| move |source| ImportError::Io { path: path.to_owned(), action, source };
    let too_large = |bytes: u64| ImportError::Unusable {
        path: path.to_owned(),
        what: format!("{bytes} bytes, expected at most {MAX_FILE_BYTES}"),
    };
    let file = File::open(path).map_err(io_error("open it"))?;
    let size = file.metadata().map_err(io_error("read its size"))?.len();
    if size > MAX_FILE_BYTES {
        return Err(too_large(size));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io_error("read it"))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

/// One JSON value, or a JSON object on every line that is not empty.
fn parse(bytes: &[u8]) -> Result<Content, String> {
    let whole = match node::lenient(bytes) {
        Ok(value) => return Ok(Content::Whole(value)),
        Err(why) => why,
    };
    let lines = || bytes.split(|byte| *byte == b'\n').enumerate();
    let blank = |line: &[u8]| line.iter().all(u8::is_ascii_whitespace);
    let mut values = Vec::new();
    for (number, line) in lines().filter(|(_, line)| !blank(line)) {
        match node::lenient(line) {
            Ok(value @ Value::Object(_)) => values.push((number + 1, value)),
            // Not lines of JSON: then the whole was meant.
            _ if values.len() < 2 => return Err(format!("is no JSON: {whole}")),
            Ok(_) => return Err(format!("line {}: is no object, expected one on each line", number + 1)),
            Err(why) => return Err(format!("line {}: is no JSON: {why}", number + 1)),
        }
    }
    if values.is_empty() { Err(format!("is no JSON: {whole}")) } else { Ok(Content::Lines(values)) }
}

/// Whose content this is.
fn recognised(content: &Content) -> Result<Source, String> {
    let one = |value: &Value| {
        let has = |name: &str| value.get(name).is_some();
        let first = |name: &str| value.get(name).and_then(|list| list.get(0));
        if has("reason") {
            Some(Source::CargoCriterion)
        } else if llama_bench::is_row(value) {
            Some(Source::LlamaBench)
        } else if value.get("benchmarks").is_some_and(Value::is_array) && has("context") {
            Some(Source::GoogleBenchmark)
        } else if value.get("benchmarks").is_some_and(Value::is_array) && has("machine_info") {
            Some(Source::PytestBenchmark)
        } else if first("results").is_some_and(|result| result.get("command").is_some()) {
            Some(Source::Hyperfine)
        } else if value.get("benchmarks").is_some_and(Value::is_object) && has("name") {
            Some(Source::Critcmp)
        } else {
            bitnet_rs::kind(value).map(|_| Source::BitnetRs)
        }
    };
    let found = match content {
        Content::Whole(Value::Array(rows)) => {
            rows.first().filter(|row| llama_bench::is_row(row)).map(|_| Source::LlamaBench)
        }
        Content::Whole(value) => one(value),
        Content::Lines(lines) => lines
            .iter()
            .find_map(|(_, value)| one(value))
            .filter(|source| matches!(source, Source::CargoCriterion | Source::LlamaBench)),
    };
    found.ok_or_else(|| match content {
        Content::Whole(value) if value.get("schema").is_some_and(Value::is_string) => {
            "is a document of this tool already, expected another tool's results".to_owned()
        }
        Content::Whole(value) if criterion::is_sample(value) => {
            "is one sample.json of criterion, expected the folder target/criterion, which holds the names"
                .to_owned()
        }
        _ => {
            let known: Vec<&str> = Source::ALL.into_iter().map(Source::name).collect();
            format!(
                "at .: the content is of no known tool, expected one of {}; --from says which",
                known.join(", ")
            )
        }
    })
}

fn found_in(source: Source, content: &Content) -> Result<Found, Shape> {
    let whole = || match content {
        Content::Whole(value) => Ok(value),
        Content::Lines(lines) => Err(Shape {
            place: format!("line {}", lines.get(1).map_or(1, |(number, _)| *number)),
            what: "is a second document, expected one".into(),
        }),
    };
    let lines = || -> Vec<Node<'_>> {
        match content {
            Content::Whole(Value::Array(rows)) => {
                let row = |(i, value)| Node { value, place: format!(".[{i}]") };
                rows.iter().enumerate().map(row).collect()
            }
            Content::Whole(value) => vec![Node::root(value)],
            Content::Lines(lines) => {
                lines.iter().map(|(number, value)| Node { value, place: format!("line {number}") }).collect()
            }
        }
    };
    match source {
        Source::Criterion => {
            Err(Shape { place: ".".into(), what: "is a file, expected the folder target/criterion".into() })
        }
        Source::CargoCriterion => cargo_criterion::found(&lines()),
        Source::Critcmp => critcmp::found(&Node::root(whole()?)),
        Source::GoogleBenchmark => google_benchmark::found(&Node::root(whole()?)),
        Source::Hyperfine => hyperfine::found(&Node::root(whole()?)),
        Source::PytestBenchmark => pytest_benchmark::found(&Node::root(whole()?)),
        Source::LlamaBench => llama_bench::found(&lines()),
        Source::BitnetRs => bitnet_rs::found(&Node::root(whole()?)),
    }
}

/// The recording of all files.
fn assemble(files: Vec<(PathBuf, Source, Found)>, options: &ImportOptions) -> Result<Recording, ImportError> {
    let Some((_, source, first)) = files.first() else { return Err(ImportError::NoFile) };
    let (source, machine) = (*source, first.machine.clone());
    let created = now_utc();
    let mut recording = blank(source, options, created, first);
    let mut origin = Origin {
        tool: source.name().into(),
        saved: (source == Source::Criterion).then(|| options.saved.clone()),
        machine: machine.clone(),
        configuration: first.configuration.clone(),
        ..Origin::default()
    };
    let mut into = Assembly {
        recording: &mut recording,
        origin: &mut origin,
        tool: source.name(),
        series: HashMap::new(),
    };
    let last = files.last().map(|(path, ..)| path.clone()).unwrap_or_default();
    for (index, (path, _, found)) in files.into_iter().enumerate() {
        if let Some(field) = first_difference(&machine, &found.machine) {
            let what = format!("was measured on another machine than the first file: {field}");
            return Err(ImportError::Unusable { path, what });
        }
        into.origin
            .files
            .push(path.file_name().map(|name| name.to_string_lossy().into()).unwrap_or_default());
        into.recording.launches.push(launch(index as u32, found.started, created));
        let skip = |(what, reason)| Skipped { what, reason, extra: Extra::new() };
        into.recording.skipped.extend(found.skipped.into_iter().map(skip));
        let mut names = HashMap::new();
        for mut benchmark in found.benchmarks {
            benchmark.name = unique(&mut names, &benchmark.name);
            let id = format!("{}:{}", source.prefix(), benchmark.name);
            benchmark.add_to(&mut into, &id, index as u32);
        }
    }
    if origin.benchmarks.is_empty() && recording.skipped.is_empty() {
        return Err(ImportError::Unusable {
            path: last,
            what: format!("holds no benchmark, expected results of {}", source.name()),
        });
    }
    suspect::mark(&mut recording, &mut origin);
    recording.origin = Some(origin);
    recording
        .check()
        .map_err(|invalid| ImportError::Unusable { path: last, what: format!("at {invalid}") })?;
    Ok(recording)
}

/// The first field that both sides know and that differs, in words.
fn first_difference(then: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Option<String> {
    let differs = |(field, was): (&String, &String)| {
        let is = now.get(field).filter(|is| *is != was)?;
        Some(format!("{field} was {was:?} and is {is:?}"))
    };
    then.iter().find_map(differs)
}

/// The name, or the name with a number behind it where it stands a second time.
fn unique(names: &mut HashMap<String, usize>, name: &str) -> String {
    loop {
        let times = names.entry(name.to_owned()).or_insert(0);
        *times += 1;
        if *times == 1 {
            return name.to_owned();
        }
        let numbered = format!("{name}#{times}");
        if !names.contains_key(&numbered) {
            names.insert(numbered.clone(), 1);
            return numbered;
        }
    }
}

fn launch(index: u32, started: Option<Timestamp>, created: Timestamp) -> Launch {
    let mut extra = Extra::new();
    if started.is_none() {
        extra.insert("started_unknown".into(), true.into());
    }
    let started = started.unwrap_or(created);
    Launch { index, started, cpu: None, disturbance: None, aa: false, stage: 1, extra }
}

fn blank(source: Source, options: &ImportOptions, created: Timestamp, first: &Found) -> Recording {
    Recording {
        schema: SCHEMA.into(),
        tool: options.tool.clone(),
        created,
        plan: PlanRecord {
            profile: PROFILE.into(),
            backends: vec![Backend { name: source.name().into(), ..Backend::default() }],
            stop_rule: "unknown".into(),
            ..PlanRecord::default()
        },
        fingerprint: first.fingerprint.clone(),
        ceilings: BTreeMap::new(),
        ceiling_setting: None,
        launches: Vec::new(),
        series: Vec::new(),
        agreements: Vec::new(),
        accuracy: Vec::new(),
        memory: Vec::new(),
        skipped: Vec::new(),
        incomplete: None,
        origin: None,
        extra: Extra::new(),
    }
}

#[cfg(test)]
mod tests;
