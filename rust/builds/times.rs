//! How long a build takes: clean, and after one line was changed.
//!
//! ```text
//! copy the sources to target/perfgate/build-time/tree            nothing of the project itself is touched
//! for each repeat
//!     remove the target folder; cargo build                      clean
//!     add a comment to the root source of the copy; cargo build  incremental
//! ```
//!
//! Every build is a fresh process with a target folder of its own, offline: what a network does is no build time. Unit: ns of
//! wall time from start to end of cargo. The first build of a machine also fills its file cache; repeats show by how much.

use super::revision::{BuildError, Watcher, described, io_error, last_words, run, watched_every};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How often the end of a build is asked for: times are too long by half of it on average.
const POLL: Duration = Duration::from_millis(5);

/// What to build, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildPlan {
    /// The folder of a `Cargo.toml`.
    pub project: PathBuf,
    /// Clean and incremental builds, each.
    pub repeats: u32,
    /// With optimisation.
    pub release: bool,
}

/// What was built and how long it took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildTimes {
    /// Name of the package.
    pub package: String,
    /// `rustc --version`.
    pub rustc: String,
    /// The command line.
    pub command: String,
    /// Wall time of each clean build, in ns.
    pub clean_ns: Vec<u64>,
    /// Wall time of each build after a change, in ns.
    pub incremental_ns: Vec<u64>,
    /// Why builds are missing, if some are.
    pub incomplete: Option<String>,
}

/// Builds the project again and again; `now_ns` is the clock. Stopped by the watcher, it gives what it has.
///
/// # Errors
/// [`BuildError`] when there is no such project, or it does not build.
pub fn time_builds(
    plan: &BuildPlan,
    now_ns: fn() -> u64,
    watcher: &mut Watcher<'_>,
) -> Result<BuildTimes, BuildError> {
    let no_project = |what: &str| BuildError::NoProject { path: plan.project.clone(), what: what.into() };
    let project = plan.project.canonicalize().map_err(io_error(&plan.project, "find it"))?;
    if !project.join("Cargo.toml").is_file() {
        return Err(no_project("Cargo.toml is missing"));
    }
    let room = project.join("target/perfgate/build-time");
    let (tree, target) = (room.join("tree"), room.join("target"));
    fs::create_dir_all(&room).map_err(io_error(&room, "make this folder"))?;
    let lock_path = room.join("lock");
    let lock = fs::File::create(&lock_path).map_err(io_error(&lock_path, "open the lock"))?;
    lock.lock().map_err(io_error(&lock_path, "lock it"))?;
    removed(&tree)?;
    copy_sources(&project, &tree)?;
    let (package, source) = root_source(&tree).map_err(|what| no_project(&what))?;
    let mut times = BuildTimes {
        package,
        rustc: run(Command::new("rustc").arg("--version"))?.trim().to_owned(),
        command: described(&cargo(&tree, &target, plan.release)),
        ..BuildTimes::default()
    };
    let mut timed = |times: &mut Vec<u64>| {
        let begin = now_ns();
        watched_every(POLL, cargo(&tree, &target, plan.release), watcher)?;
        times.push(now_ns().saturating_sub(begin));
        Ok(())
    };
    let mut repeat = |times: &mut BuildTimes, number: u32| {
        removed(&target)?;
        timed(&mut times.clean_ns)?;
        let mut file =
            fs::OpenOptions::new().append(true).open(&source).map_err(io_error(&source, "change it"))?;
        writeln!(file, "// change {number}").map_err(io_error(&source, "change it"))?;
        drop(file);
        timed(&mut times.incremental_ns)
    };
    for number in 0..plan.repeats {
        match repeat(&mut times, number) {
            Ok(()) => {}
            Err(BuildError::Stopped(reason)) => {
                times.incomplete = Some(reason);
                break;
            }
            Err(why) => return Err(why),
        }
    }
    removed(&tree)?;
    removed(&target)?;
    Ok(times)
}

fn cargo(tree: &Path, target: &Path, release: bool) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(tree).env("CARGO_TARGET_DIR", target).env("CARGO_NET_OFFLINE", "true");
    cargo.args(["build", "--offline", "--quiet"]);
    if release {
        cargo.arg("--release");
    }
    cargo
}

fn removed(folder: &Path) -> Result<(), BuildError> {
    match fs::remove_dir_all(folder) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => Err(io_error(folder, "remove it")(why)),
        _ => Ok(()),
    }
}

/// Every file but hidden folders and those of builds.
fn copy_sources(from: &Path, to: &Path) -> Result<(), BuildError> {
    fs::create_dir_all(to).map_err(io_error(to, "make this folder"))?;
    for entry in fs::read_dir(from).map_err(io_error(from, "read this folder"))? {
        let entry = entry.map_err(io_error(from, "read this folder"))?;
        let (path, name) = (entry.path(), entry.file_name());
        let kind = entry.file_type().map_err(io_error(&path, "read it"))?;
        // `.cargo` may hold where dependencies are found.
        let hidden = name.to_string_lossy().starts_with('.') && name != ".cargo";
        if kind.is_dir() && !hidden && name != "target" && name != "node_modules" {
            copy_sources(&path, &to.join(name))?;
        } else if kind.is_file() {
            fs::copy(&path, to.join(name)).map_err(io_error(&path, "copy it"))?;
        }
    }
    Ok(())
}

/// Name of the package and its root source: a library's before a program's.
fn root_source(tree: &Path) -> Result<(String, PathBuf), String> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(tree).args(["metadata", "--no-deps", "--offline", "--format-version", "1"]);
    let text = command.output().map_err(|why| why.to_string())?;
    if !text.status.success() {
        return Err(last_words(&text.stderr));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&text.stdout).map_err(|why| why.to_string())?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata names no package")?;
    let find = |kind: &str| {
        packages.iter().find_map(|package| {
            let is = |target: &&serde_json::Value| {
                target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|one| one == kind))
            };
            let target = package["targets"].as_array()?.iter().find(is)?;
            Some((package["name"].as_str()?.to_owned(), PathBuf::from(target["src_path"].as_str()?)))
        })
    };
    let kinds = ["lib", "rlib", "cdylib", "proc-macro", "bin"];
    kinds.into_iter().find_map(find).ok_or_else(|| "it has neither a library nor a program".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::ControlFlow;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A clock of the test's own: one step for each reading.
    fn steps() -> u64 {
        static NOW: AtomicU64 = AtomicU64::new(0);
        NOW.fetch_add(1000, Ordering::Relaxed)
    }

    fn project() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let manifest = "[package]\nname = \"small\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n";
        fs::write(folder.path().join("Cargo.toml"), manifest).expect("written");
        fs::create_dir(folder.path().join("src")).expect("made");
        fs::write(folder.path().join("src/lib.rs"), "pub fn one() -> u32 { 1 }\n").expect("written");
        folder
    }

    #[test]
    fn clean_and_incremental_builds_are_timed_and_leave_the_sources_alone() {
        let folder = project();
        let plan = BuildPlan { project: folder.path().into(), repeats: 2, release: false };
        let times = time_builds(&plan, steps, &mut |_| ControlFlow::Continue(())).expect("it builds");
        assert_eq!(
            (times.package.as_str(), times.clean_ns.len(), times.incremental_ns.len()),
            ("small", 2, 2)
        );
        assert!(times.clean_ns.iter().chain(&times.incremental_ns).all(|ns| *ns >= 1000));
        assert!(times.command.ends_with("build --offline --quiet"), "{}", times.command);
        assert_eq!(
            fs::read_to_string(folder.path().join("src/lib.rs")).expect("there"),
            "pub fn one() -> u32 { 1 }\n"
        );
        let room = folder.path().join("target/perfgate/build-time");
        let left: Vec<_> =
            fs::read_dir(room).expect("there").map(|entry| entry.expect("read").file_name()).collect();
        assert_eq!(left, ["lock"]);
    }

    #[test]
    fn what_does_not_build_is_an_error_and_what_is_stopped_is_incomplete() {
        let folder = project();
        let plan = BuildPlan { project: folder.path().into(), repeats: 2, release: false };
        let stopped =
            time_builds(&plan, steps, &mut |_| ControlFlow::Break("enough".into())).expect("stopped");
        assert_eq!(stopped.incomplete.as_deref(), Some("enough"));
        fs::write(folder.path().join("src/lib.rs"), "pub fn one() -> u32 { \"1\" }\n").expect("written");
        let error = time_builds(&plan, steps, &mut |_| ControlFlow::Continue(())).expect_err("a type error");
        assert!(error.to_string().contains("cargo build --offline --quiet failed"), "{error}");
        fs::remove_file(folder.path().join("Cargo.toml")).expect("removed");
        let error = time_builds(&plan, steps, &mut |_| ControlFlow::Continue(())).expect_err("no project");
        assert!(error.to_string().contains("Cargo.toml is missing"), "{error}");
    }
}
