//! A git revision as a shared library.
//!
//! ```text
//! resolve REF to a commit
//! target/perfgate/libraries/<commit>-<rustc>.so is there?   then that is it
//! git worktree add --detach target/perfgate/tree <commit>
//! cargo build --release --lib --locked, target folder target/perfgate/cargo      dependencies are built once
//! copy the library out, remove the worktree
//! ```
//!
//! The working tree is built from a copy in the same place, so that both sides have the same paths in them and the same
//! flags; what differs is the code. One build at a time: a lock file is held.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Asked several times a second while something is built; breaks to stop it.
pub type Watcher<'a> = dyn FnMut(&str) -> ControlFlow<String> + 'a;

/// A library that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltLibrary {
    /// The file.
    pub path: PathBuf,
    /// The commit; of the working tree, its commit.
    pub commit: String,
    /// Whether the sources differ from that commit.
    pub dirty: bool,
}

/// Why a revision was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There is nothing to build from.
    #[error("{}: is no git checkout of this project: {what}", path.display())]
    NoCheckout {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        what: String,
    },
    /// git knows no such revision.
    #[error("{rev:?} is no revision of {}: {what}", path.display())]
    UnknownRevision {
        /// What was asked for.
        rev: String,
        /// The checkout.
        path: PathBuf,
        /// What git said.
        what: String,
    },
    /// The revision has no export of the contract yet.
    #[error("{rev} cannot be loaded beside this build: it has no rust/export.rs; compare recordings instead")]
    TooOld {
        /// The commit.
        rev: String,
    },
    /// There is nothing to build.
    #[error("{}: cannot be built: {what}", path.display())]
    NoProject {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        what: String,
    },
    /// A program could not be started, or failed.
    #[error("{program} failed: {what}")]
    Failed {
        /// The command line.
        program: String,
        /// Its last words.
        what: String,
    },
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
    /// The watcher stopped it.
    #[error("{0}")]
    Stopped(String),
}

/// Builds the revision `rev` of the checkout that `folder` lies in.
///
/// # Errors
/// [`BuildError`]; the worktree is removed then too.
pub fn build_revision(
    folder: &Path,
    rev: &str,
    watcher: &mut Watcher<'_>,
) -> Result<BuiltLibrary, BuildError> {
    let place = Place::of(folder)?;
    let commit = place.resolve(rev)?;
    if place.git(&["cat-file", "-e", &format!("{commit}:rust/export.rs")]).is_err() {
        return Err(BuildError::TooOld { rev: commit });
    }
    let path = place.library(&commit, &place.rustc()?);
    if !path.is_file() {
        place.built(&path, watcher, |tree| {
            place.git(&["worktree", "add", "--detach", "--force", &tree.to_string_lossy(), &commit]).map(drop)
        })?;
    }
    Ok(BuiltLibrary { path, commit, dirty: false })
}

/// Builds the sources as they lie in the checkout, committed or not.
///
/// # Errors
/// As [`build_revision`].
pub fn build_working_tree(folder: &Path, watcher: &mut Watcher<'_>) -> Result<BuiltLibrary, BuildError> {
    let place = Place::of(folder)?;
    let commit = place.resolve("HEAD")?;
    // Untracked files that are not ignored belong to the sources too.
    let dirty = !place.git(&["status", "--porcelain"])?.trim().is_empty();
    if !dirty {
        return build_revision(folder, "HEAD", watcher);
    }
    let path = place.library("working-tree", &place.rustc()?);
    let files = place.git(&["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
    place.built(&path, watcher, |tree| {
        // A worktree of HEAD, so that the build finds a git revision as the other side does, and today's files over it.
        place.git(&["worktree", "add", "--detach", "--force", &tree.to_string_lossy(), &commit])?;
        for name in files.split('\0').filter(|name| !name.is_empty()) {
            let (from, to) = (place.root.join(name), tree.join(name));
            if from.is_file() {
                let parent = to.parent().unwrap_or(tree);
                fs::create_dir_all(parent).map_err(io_error(parent, "make this folder"))?;
                fs::copy(&from, &to).map_err(io_error(&from, "copy it"))?;
            } else if !from.exists() && to.is_file() {
                fs::remove_file(&to).map_err(io_error(&to, "remove it"))?;
            }
        }
        Ok(())
    })?;
    Ok(BuiltLibrary { path, commit, dirty })
}

pub(super) fn io_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> BuildError {
    let path = path.to_owned();
    move |source| BuildError::Io { path, action, source }
}

/// A checkout and where builds of it stand.
struct Place {
    root: PathBuf,
    cache: PathBuf,
}

impl Place {
    fn of(folder: &Path) -> Result<Self, BuildError> {
        let no_checkout = |what: String| BuildError::NoCheckout { path: folder.to_owned(), what };
        let root = run(Command::new("git").arg("-C").arg(folder).args(["rev-parse", "--show-toplevel"]))
            .map_err(|why| no_checkout(why.to_string()))?;
        let root = PathBuf::from(root.trim_end());
        if !root.join("rust/lib.rs").is_file() || !root.join("Cargo.lock").is_file() {
            return Err(no_checkout("rust/lib.rs or Cargo.lock is missing".into()));
        }
        let cache = root.join("target/perfgate");
        Ok(Self { root, cache })
    }

    fn git(&self, arguments: &[&str]) -> Result<String, BuildError> {
        run(Command::new("git").arg("-C").arg(&self.root).args(arguments))
    }

    fn resolve(&self, rev: &str) -> Result<String, BuildError> {
        let unknown =
            |what: String| BuildError::UnknownRevision { rev: rev.to_owned(), path: self.root.clone(), what };
        if rev.is_empty() || rev.starts_with('-') {
            return Err(unknown("expected a branch, a tag or a commit".into()));
        }
        let commit =
            self.git(&["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{rev}^{{commit}}")]);
        match commit {
            Ok(commit) => Ok(commit.trim_end().to_owned()),
            Err(_) => Err(unknown("git does not know it; is the history complete (fetch-depth: 0)?".into())),
        }
    }

    /// Compiler and flags as a few characters: another compiler is another library.
    fn rustc(&self) -> Result<String, BuildError> {
        let version = run(Command::new("rustc").arg("-vV"))?;
        let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
        let hash = format!("{version}\n{flags}").bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Ok(format!("{hash:016x}"))
    }

    fn library(&self, name: &str, compiler: &str) -> PathBuf {
        self.cache.join("libraries").join(format!("{name}-{compiler}.so"))
    }

    /// Builds what `checked_out` puts into a folder, as the library `path`.
    fn built(
        &self,
        path: &Path,
        watcher: &mut Watcher<'_>,
        checked_out: impl FnOnce(&Path) -> Result<(), BuildError>,
    ) -> Result<(), BuildError> {
        let libraries = self.cache.join("libraries");
        fs::create_dir_all(&libraries).map_err(io_error(&libraries, "make this folder"))?;
        let lock_path = self.cache.join("lock");
        let lock = File::create(&lock_path).map_err(io_error(&lock_path, "open the lock"))?;
        lock.lock().map_err(io_error(&lock_path, "lock it"))?;
        let tree = self.cache.join("tree");
        self.remove_tree(&tree);
        let built = checked_out(&tree).and_then(|()| self.compile(&tree, watcher)).and_then(|library| {
            let half = path.with_extension("tmp");
            fs::copy(&library, &half).map_err(io_error(&library, "copy it"))?;
            fs::rename(&half, path).map_err(io_error(path, "put it in its place"))
        });
        self.remove_tree(&tree);
        built
    }

    /// The worktree of an earlier build that was stopped goes too; if there is none, there is nothing to do.
    fn remove_tree(&self, tree: &Path) {
        let _ = self.git(&["worktree", "remove", "--force", &tree.to_string_lossy()]);
        let _ = fs::remove_dir_all(tree);
        let _ = self.git(&["worktree", "prune"]);
    }

    fn compile(&self, tree: &Path, watcher: &mut Watcher<'_>) -> Result<PathBuf, BuildError> {
        let target = self.cache.join("cargo");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(tree).env("CARGO_TARGET_DIR", &target);
        cargo.args(["build", "--release", "--lib", "--locked", "--quiet"]);
        watched(cargo, watcher)?;
        let name = format!("{}bitnet_perfgate{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        Ok(target.join("release").join(name))
    }
}

/// Runs a program to its end and gives what it printed.
pub(super) fn run(command: &mut Command) -> Result<String, BuildError> {
    let program = described(command);
    let failed = |what: String| BuildError::Failed { program: program.clone(), what };
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().map_err(|why| failed(why.to_string()))?;
    if !status.success() {
        return Err(failed(last_words(&stderr)));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Runs a long program; the watcher may end it.
fn watched(command: Command, watcher: &mut Watcher<'_>) -> Result<(), BuildError> {
    watched_every(Duration::from_millis(100), command, watcher)
}

/// The same; the watcher is asked, and the end noticed, once in each `pause`.
pub(super) fn watched_every(
    pause: Duration,
    mut command: Command,
    watcher: &mut Watcher<'_>,
) -> Result<(), BuildError> {
    let program = described(&command);
    let failed = |what: String| BuildError::Failed { program: program.clone(), what };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|why| failed(why.to_string()))?;
    let mut stderr = child.stderr.take();
    let reader = std::thread::spawn(move || {
        let mut said = Vec::new();
        let _ = stderr.as_mut().map(|stderr| stderr.read_to_end(&mut said));
        said
    });
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|why| failed(why.to_string()))? {
            break status;
        }
        if let ControlFlow::Break(reason) = watcher(&program) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(BuildError::Stopped(reason));
        }
        std::thread::sleep(pause);
    };
    let said = reader.join().unwrap_or_default();
    if status.success() { Ok(()) } else { Err(failed(last_words(&said))) }
}

pub(super) fn described(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// The last lines of what a program complained about, as one.
pub(super) fn last_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut words = lines[lines.len().saturating_sub(4)..].join("; ");
    if words.is_empty() {
        words = "it said nothing".into();
    }
    words
}
