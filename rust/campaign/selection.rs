//! Which backends take part, as plain data: a fresh process makes the same [`Cast`] from it.

use super::Cast;
use crate::backends::{self, Backend, UnknownBackend};
use crate::measure::CounterKind;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

/// Which backends take part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selection {
    /// Names; empty means all that are built in.
    pub backends: Vec<String>,
    /// Shared libraries that export `bitnet_backend_v1`.
    pub plugins: Vec<PathBuf>,
    /// Leaves the C++ reference out.
    pub skip_cpp: bool,
    /// Two builds of this project to be timed against each other, instead of everything above but `backends`.
    pub builds: Option<Builds>,
    /// Backends that come with neither this build nor a library.
    pub brought: Vec<Brought>,
    /// What counts instructions, where they are counted.
    pub counter: Option<CounterKind>,
}

/// A backend that whoever starts a campaign brings along: a Python callable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Brought {
    /// Its name.
    pub name: String,
    /// By what a fresh process finds it; whoever brings it knows how to read that.
    pub address: String,
}

/// Makes the backend that was brought, or says why it cannot.
pub type Find<'f> = dyn Fn(&Brought) -> Result<Arc<dyn Backend>, String> + 'f;

/// Where nothing is brought along.
///
/// # Errors
/// Always.
pub fn find_none(_: &Brought) -> Result<Arc<dyn Backend>, String> {
    Err("this process takes no backends from outside".into())
}

/// Two builds as shared libraries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Builds {
    /// The one to compare with.
    pub old: PathBuf,
    /// The one in question.
    pub new: PathBuf,
    /// A copy of `old` under another name, loaded beside it: the A/A arm.
    pub old_again: PathBuf,
}

/// Why a selection cannot take part.
#[derive(Debug, thiserror::Error)]
pub enum SelectionError {
    /// No backend is called that.
    #[error(transparent)]
    Unknown(#[from] UnknownBackend),
    /// A shared library cannot be used.
    #[error("{0}")]
    Plugin(String),
    /// Two plugins would have the same name.
    #[error("{}: a plugin called {name} is already loaded", path.display())]
    Repeated {
        /// The second file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// What was brought along is not here.
    #[error("{name}: {why}")]
    Brought {
        /// The name.
        name: String,
        /// Why not.
        why: String,
    },
    /// Two builds have no backend in common that can run here.
    #[error("{} and {} offer no common backend that can be timed here{}", old.display(), new.display(), asked(wanted))]
    NothingInCommon {
        /// One build.
        old: PathBuf,
        /// The other.
        new: PathBuf,
        /// Names asked for.
        wanted: Vec<String>,
    },
}

fn asked(wanted: &[String]) -> String {
    if wanted.is_empty() {
        return "; one without an instruction set of its own (scalar, portable) is timed where --backend names it".into();
    }
    format!(" among {}", wanted.join(", "))
}

impl Selection {
    /// Loads everything, asks `find` for what was brought, and sorts it into roles. Loading a library runs its code.
    ///
    /// # Errors
    /// [`SelectionError`].
    pub fn cast(&self, find: &Find<'_>) -> Result<Cast, SelectionError> {
        if let Some(builds) = &self.builds {
            return self.cast_of_builds(builds);
        }
        let mut outside = load(&self.plugins)?;
        for brought in &self.brought {
            let named = |why| SelectionError::Brought { name: brought.name.clone(), why };
            outside.push(find(brought).map_err(named)?);
        }
        let names: Vec<String> = outside.iter().map(|plugin| plugin.name().to_owned()).collect();
        // What was loaded takes part whether it is named once more or not.
        let built_in: Vec<&String> = self.backends.iter().filter(|name| !names.contains(name)).collect();
        let by_name = |name: &String| {
            backends::by_name(name).map_err(|UnknownBackend { name, mut known }| {
                known.extend(names.iter().cloned());
                UnknownBackend { name, known }
            })
        };
        let mut chosen: Vec<Arc<dyn Backend>> = match self.backends.is_empty() {
            true => backends::all(),
            false => built_in.iter().map(|name| by_name(name)).collect::<Result<_, _>>()?,
        };
        let requested = built_in.into_iter().cloned().chain(names.iter().cloned()).collect();
        chosen.extend(outside);
        let cast = Cast::counted_by(self.counter, chosen).requested(requested);
        Ok(if self.skip_cpp { cast.without_cpp() } else { cast })
    }

    /// Every backend that both builds offer, each with its twin of the old build.
    fn cast_of_builds(&self, builds: &Builds) -> Result<Cast, SelectionError> {
        let old = load_as(&builds.old, "old")?;
        let twins = load_as(&builds.old_again, "old+aa")?;
        let new = load_as(&builds.new, "new")?;
        let cast = Cast::of_builds(self.counter, old, twins, new, &self.backends);
        if cast.compared().is_empty() {
            let (old, new, wanted) = (builds.old.clone(), builds.new.clone(), self.backends.clone());
            return Err(SelectionError::NothingInCommon { old, new, wanted });
        }
        Ok(cast)
    }
}

/// Every backend of these libraries.
///
/// # Errors
/// [`SelectionError::Plugin`], [`SelectionError::Repeated`].
#[cfg(feature = "ffi")]
pub fn load(paths: &[PathBuf]) -> Result<Vec<Arc<dyn Backend>>, SelectionError> {
    let mut loaded: Vec<Arc<dyn Backend>> = Vec::new();
    for path in paths {
        let plugins = backends::plugin::load(path).map_err(|why| SelectionError::Plugin(why.to_string()))?;
        for backend in plugins {
            if loaded.iter().any(|other| other.name() == backend.name()) {
                return Err(SelectionError::Repeated { path: path.clone(), name: backend.name().into() });
            }
            loaded.push(Arc::new(backend));
        }
    }
    Ok(loaded)
}

/// Every backend of these libraries.
///
/// # Errors
/// [`SelectionError::Plugin`]: this build loads none.
#[cfg(not(feature = "ffi"))]
pub fn load(paths: &[PathBuf]) -> Result<Vec<Arc<dyn Backend>>, SelectionError> {
    match paths.first() {
        None => Ok(Vec::new()),
        Some(path) => Err(without_ffi(path)),
    }
}

#[cfg(feature = "ffi")]
fn load_as(path: &std::path::Path, label: &str) -> Result<Vec<Arc<dyn Backend>>, SelectionError> {
    let loaded =
        backends::plugin::load_as(path, label).map_err(|why| SelectionError::Plugin(why.to_string()))?;
    Ok(loaded.into_iter().map(|backend| Arc::new(backend) as Arc<dyn Backend>).collect())
}

#[cfg(not(feature = "ffi"))]
fn load_as(path: &std::path::Path, _label: &str) -> Result<Vec<Arc<dyn Backend>>, SelectionError> {
    Err(without_ffi(path))
}

#[cfg(not(feature = "ffi"))]
fn without_ffi(path: &std::path::Path) -> SelectionError {
    SelectionError::Plugin(format!("{}: this build lacks the cargo feature ffi: no plugins", path.display()))
}
