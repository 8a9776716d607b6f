//! Baselines: accepted recordings, an append-only set for each fingerprint.
//!
//! ```text
//! <root>/<os>-<arch>/<fingerprint id>/<UTC time>.recording.json     raw samples, and who accepted it, when and why
//! <root>/<os>-<arch>/<fingerprint id>/.lock                         held while one is added
//! ```
//!
//! A baseline is never rewritten, and nothing but [`Store::accept`] writes one: gating reads. Names are times, so the
//! order of names is the order of time.

use super::file::{RecordError, read_recording, write_recording};
use super::recording::{Recording, now_utc};
use serde::Serialize;
use serde_json::json;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

const SUFFIX: &str = ".recording.json";

/// Files looked at in one folder; a folder with more is not one of ours.
const MAX_FILES: usize = 10_000;

/// Why a baseline was not accepted or found.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
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
    /// A file of the set cannot be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The recording is no evidence to compare later ones with.
    #[error("not accepted: {why}")]
    Refused {
        /// What is wrong with it.
        why: String,
    },
    /// The folder holds more files than any set.
    #[error("{}: holds more than {MAX_FILES} entries, expected a set of baselines", path.display())]
    TooMany {
        /// The folder.
        path: PathBuf,
    },
}

/// A folder of baselines.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// One accepted recording, without its samples.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The file.
    pub path: PathBuf,
    /// `<os>-<arch>`.
    pub platform: String,
    /// Of the machine and builds.
    pub fingerprint: String,
    /// Who accepted it; empty if it does not say.
    pub who: String,
    /// When, UTC.
    pub when: String,
    /// Why.
    pub why: String,
    /// Workloads in it.
    pub workloads: usize,
}

/// `<os>-<arch>` of a recording's machine.
pub fn platform(recording: &Recording) -> String {
    format!("{}-{}", recording.fingerprint.os, recording.fingerprint.arch)
}

impl Store {
    /// The store below `root`; nothing is made or read yet.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Where the baselines of that machine and builds stand.
    pub fn folder(&self, platform: &str, fingerprint: &str) -> PathBuf {
        self.root.join(platform).join(fingerprint)
    }

    /// Adds a recording to the set of its fingerprint, and says where. `platform` must be that of the recording, if it
    /// is given.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for a recording that is incomplete, has no samples, or holds a disagreement; else the
    /// system's answer.
    pub fn accept(
        &self,
        recording: &Recording,
        who: &str,
        why: &str,
        wanted_platform: Option<&str>,
    ) -> Result<PathBuf, StoreError> {
        if let Some(why) = unfit(recording, wanted_platform) {
            return Err(StoreError::Refused { why });
        }
        let folder = self.folder(&platform(recording), &recording.fingerprint.id());
        let io_error = |path: &Path, action| {
            let path = path.to_owned();
            move |source| StoreError::Io { path, action, source }
        };
        fs::create_dir_all(&folder).map_err(io_error(&folder, "make this folder"))?;
        let lock_path = folder.join(".lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
        let lock: File = lock.map_err(io_error(&lock_path, "open the lock"))?;
        // Two writers in the same second would choose the same name; the lock ends with the file, however we end.
        lock.lock().map_err(io_error(&lock_path, "lock it"))?;
        let when = now_utc();
        let mut accepted = recording.clone();
        accepted.extra.insert("accepted".into(), json!({"who": who, "when": when.to_string(), "why": why}));
        let stamp = when.to_string().replace(['-', ':'], "");
        let names = (1..1000).map(|n| match n {
            // A dot sorts before an underscore.
            1 => format!("{stamp}{SUFFIX}"),
            n => format!("{stamp}_{n:03}{SUFFIX}"),
        });
        let path = names.map(|name| folder.join(name)).find(|path| !path.exists());
        let path =
            path.ok_or_else(|| StoreError::Refused { why: "1000 baselines within one second".into() })?;
        write_recording(&path, &accepted)?;
        Ok(path)
    }

    /// The newest `most` baselines of that machine and builds, oldest first; empty if there are none.
    ///
    /// # Errors
    /// A file that is damaged is an error that names it: leaving it out would change the verdict silently.
    pub fn sessions(
        &self,
        platform: &str,
        fingerprint: &str,
        most: usize,
    ) -> Result<Vec<(PathBuf, Recording)>, StoreError> {
        let paths = recordings_in(&self.folder(platform, fingerprint))?;
        let newest = &paths[paths.len().saturating_sub(most)..];
        let read = |path: &PathBuf| Ok((path.clone(), read_recording(path)?));
        newest.iter().map(read).collect()
    }

    /// Every baseline of every machine, by platform, fingerprint and time.
    ///
    /// # Errors
    /// As [`Store::sessions`].
    pub fn list(&self) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        for platform in folders_in(&self.root)? {
            for fingerprint in folders_in(&platform)? {
                for path in recordings_in(&fingerprint)? {
                    entries.push(entry(path, &platform, &fingerprint)?);
                }
            }
        }
        Ok(entries)
    }
}

fn entry(path: PathBuf, platform: &Path, fingerprint: &Path) -> Result<Entry, StoreError> {
    let recording = read_recording(&path)?;
    let name =
        |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let accepted = |field: &str| {
        let text = recording.extra.get("accepted").and_then(|accepted| accepted.get(field)?.as_str());
        text.unwrap_or_default().to_owned()
    };
    Ok(Entry {
        platform: name(platform),
        fingerprint: name(fingerprint),
        who: accepted("who"),
        when: accepted("when"),
        why: accepted("why"),
        workloads: recording.plan.workloads.len(),
        path,
    })
}

/// Why a recording cannot be a baseline.
fn unfit(recording: &Recording, wanted_platform: Option<&str>) -> Option<String> {
    let here = platform(recording);
    if let Some(wanted) = wanted_platform.filter(|wanted| *wanted != here) {
        return Some(format!("it was measured on {here}, not on {wanted}"));
    }
    if here.starts_with('-') || here.ends_with('-') || here.contains(['/', '\\']) {
        return Some("it does not say on which platform it was measured".into());
    }
    if let Some(origin) = &recording.origin {
        return Some(format!("{} measured it, without a reference in the same blocks", origin.tool));
    }
    if let Some(reason) = &recording.incomplete {
        return Some(format!("it is incomplete ({reason})"));
    }
    if recording.series.iter().all(|series| series.is_empty()) {
        return Some("it holds no samples".into());
    }
    if let Some(row) = recording.agreements.iter().find(|row| !row.holds()) {
        return Some(format!("{} disagrees on {}", row.backend, row.workload));
    }
    let suspect = recording.extra.get("suspect").is_some();
    let suspect = suspect || recording.series.iter().any(|series| series.extra.contains_key("suspect"));
    suspect.then(|| "its samples look made up".into())
}

/// Recordings of a folder in the order of their names; none if the folder is not there.
fn recordings_in(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let is_recording = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.ends_with(SUFFIX) && !name.starts_with('.')
    };
    Ok(entries_of(folder)?.into_iter().filter(is_recording).collect())
}

fn folders_in(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    Ok(entries_of(folder)?.into_iter().filter(|path| path.is_dir()).collect())
}

fn entries_of(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let io_error = |source| StoreError::Io { path: folder.to_owned(), action: "list it", source };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io_error)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        if paths.len() == MAX_FILES {
            return Err(StoreError::TooMany { path: folder.to_owned() });
        }
        paths.push(entry.map_err(io_error)?.path());
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::super::file::tests::built;
    use super::*;

    fn fit() -> Recording {
        let mut recording = built();
        recording.incomplete = None;
        recording.agreements.clear();
        (recording.fingerprint.os, recording.fingerprint.arch) = ("linux".into(), "x86_64".into());
        recording
    }

    #[test]
    fn the_set_only_grows() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::new(folder.path());
        let id = fit().fingerprint.id();
        assert_eq!(store.sessions("linux-x86_64", &id, 12).expect("nothing is no error").len(), 0);
        let paths: Vec<PathBuf> =
            (0..4).map(|n| store.accept(&fit(), "me", &format!("reason {n}"), None).expect("fit")).collect();
        let mut sorted = paths.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted, paths, "four names in the order of time, within a second or not");
        let newest = store.sessions("linux-x86_64", &id, 3).expect("readable");
        assert_eq!(newest.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>(), paths[1..]);
        assert_eq!(newest[2].1.series, fit().series, "raw samples are kept");
        let entries = store.list().expect("readable");
        assert_eq!((entries.len(), entries[3].who.as_str(), entries[3].why.as_str()), (4, "me", "reason 3"));
        assert_eq!(
            (entries[0].platform.as_str(), entries[0].fingerprint.clone()),
            ("linux-x86_64", id.clone())
        );
        // Another build has a set of its own.
        let mut other = fit();
        other.fingerprint.compilers[0].version = "9".into();
        store.accept(&other, "me", "", None).expect("fit");
        assert_eq!(store.sessions("linux-x86_64", &id, 12).expect("readable").len(), 4);
        // A damaged file is named, a temporary one is not looked at.
        fs::write(paths[0].with_file_name(".x.recording.json.1-0.tmp"), "half").expect("written");
        fs::write(paths[0].with_file_name(".x.recording.json"), "half").expect("written");
        assert_eq!(store.sessions("linux-x86_64", &id, 12).expect("readable").len(), 4);
        fs::write(&paths[3], "{").expect("written");
        let error = store.sessions("linux-x86_64", &id, 12).expect_err("damaged").to_string();
        assert!(error.contains(&paths[3].display().to_string()), "{error}");
    }

    #[test]
    fn writers_at_the_same_time_lose_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| Store::new(folder.path()).accept(&fit(), "me", "", None).expect("fit"));
            }
        });
        assert_eq!(Store::new(folder.path()).list().expect("readable").len(), 8);
    }

    #[test]
    fn what_is_no_evidence_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::new(folder.path());
        type Change = (&'static str, fn(&mut Recording));
        let changes: [Change; 7] = [
            ("hyperfine measured it", |r| {
                r.origin = Some(crate::record::Origin { tool: "hyperfine".into(), ..Default::default() });
            }),
            ("incomplete (crash)", |r| r.incomplete = Some("crash".into())),
            ("no samples", |r| r.series.clear()),
            ("disagrees", |r| r.agreements = built().agreements),
            ("made up", |r| {
                r.extra.insert("suspect".into(), json!("synthetic"));
            }),
            ("does not say on which platform", |r| r.fingerprint.os.clear()),
            ("does not say on which platform", |r| r.fingerprint.os = "../x".into()),
        ];
        for (words, change) in changes {
            let mut recording = fit();
            change(&mut recording);
            let error = store.accept(&recording, "me", "", None).expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        }
        let error = store.accept(&fit(), "me", "", Some("macos-aarch64")).expect_err("elsewhere").to_string();
        assert!(error.contains("measured on linux-x86_64, not on macos-aarch64"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 0, "nothing was written");
    }
}
