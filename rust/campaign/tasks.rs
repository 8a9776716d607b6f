//! What is to be done: workloads of the catalogue over seeded inputs, or products over the tensors of a file.

use super::{CampaignError, Request, skip};
use crate::bitnet::formats::{FormatError, Layout, Weights};
use crate::bitnet::model::gguf::{Gguf, GgufError, GgufErrorKind, TensorInfo, TensorType};
use crate::record::Skipped;
use crate::workloads::catalog::{self, Profile};
use crate::workloads::{Category, Inputs, Kind, Temperature, Workload};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// One workload and where its weights come from.
pub struct Task<'m> {
    /// The work.
    pub workload: Workload,
    /// Whether it is timed, or compared only.
    pub timed: bool,
    /// The tensor's name, over a file.
    pub tensor: Option<String>,
    weights: Option<Weights<'m>>,
}

impl<'m> Task<'m> {
    /// Its inputs: the file's weights, or everything from the seed.
    pub(super) fn inputs(&self, seed: u64) -> Result<Inputs<'m>, FormatError> {
        match &self.weights {
            Some(weights) => Ok(self.workload.inputs_of_tensor(weights, seed)),
            None => self.workload.inputs(seed),
        }
    }
}

/// A GGUF file whose ternary tensors are the weights.
pub struct ModelFile {
    path: PathBuf,
    gguf: Gguf<'static>,
    hash8: String,
}

impl ModelFile {
    /// Opens and checks the file, and hashes all of its bytes.
    pub fn open(path: &Path) -> Result<Self, CampaignError> {
        let gguf = Gguf::open(path)?;
        let digest = Sha256::digest(gguf.bytes());
        let hash8 = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { path: path.into(), gguf, hash8 })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name without folders and the hash that its workload ids carry, for the recording's plan.
    pub(super) fn description(&self) -> serde_json::Value {
        let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned());
        serde_json::json!({"file": name, "hash8": self.hash8})
    }

    /// Every ternary tensor, compared; the first of each format and shape also timed. Every other tensor that is not
    /// plainly float is skipped by name: other types, and shapes that this version cannot hold.
    ///
    /// Errors: no tensor is left to compare, or one has a scale that is none.
    fn tasks(&self) -> Result<(Vec<Task<'_>>, Vec<Skipped>), CampaignError> {
        let mut seen: HashSet<Layout> = HashSet::new();
        let (mut timed, mut compared, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        let mut not_held = None;
        for info in self.gguf.tensors() {
            if info.tensor_type().ternary().is_none() {
                skipped.extend(not_compared(info));
                continue;
            }
            let weights = match self.gguf.ternary(info) {
                Ok(weights) => weights,
                Err(error) => match cannot_hold(&error) {
                    Some(reason) => {
                        skipped.push(skip(info.name(), &reason));
                        not_held.get_or_insert(error);
                        continue;
                    }
                    None => return Err(error.at(&self.path).into()),
                },
            };
            let layout = *weights.layout();
            let task = |kind, timed| Task {
                workload: Workload::of_tensor(kind, &self.hash8, info.name()),
                timed,
                tensor: Some(info.name().to_owned()),
                weights: Some(weights),
            };
            let product = |batch| Kind::Matmul { layout, batch, threads: 1, temperature: Temperature::Hot };
            if seen.insert(layout) {
                let linear = Kind::Linear { layout, batch: 1, threads: 1, temperature: Temperature::Hot };
                let kinds = [product(1), product(16), linear, Kind::Dequantize { layout }];
                timed.extend(kinds.map(|kind| task(kind, true)));
            } else {
                compared.push(task(product(1), false));
            }
        }
        if timed.is_empty() {
            return Err(match not_held {
                Some(error) => error.at(&self.path).into(),
                None => CampaignError::NoTernaryTensor { path: self.path.clone() },
            });
        }
        timed.extend(compared);
        Ok((timed, skipped))
    }
}

/// The line for a tensor that is not ternary. Norms and embeddings in floats need none: nobody expects them here.
fn not_compared(info: &TensorInfo) -> Option<Skipped> {
    match info.tensor_type() {
        TensorType::F32 | TensorType::F16 | TensorType::Bf16 => None,
        other => Some(skip(info.name(), &format!("type {other} is not one this version compares"))),
    }
}

/// Why the shape of a ternary tensor is beyond this version; `None` where its bytes are damaged instead. A length that
/// does not fit comes from the shape too: the reader took it from there.
fn cannot_hold(error: &GgufError) -> Option<String> {
    match error.kind() {
        GgufErrorKind::Tensor { found, expected, .. } => Some(format!("found {found}, expected {expected}")),
        GgufErrorKind::Format {
            source: why @ (FormatError::Unsupported { .. } | FormatError::Length { .. }),
            ..
        } => Some(why.to_string()),
        _ => None,
    }
}

/// Every task of a request, and what is skipped beforehand.
pub(super) fn plan<'m>(
    request: &Request,
    model: Option<&'m ModelFile>,
) -> Result<(Vec<Task<'m>>, Vec<Skipped>), CampaignError> {
    let known = Category::ALL.map(Category::name);
    if let Some(name) = request.categories.iter().find(|name| !known.contains(&name.as_str())) {
        let known = known.map(str::to_owned).into();
        return Err(CampaignError::UnknownCategory { name: name.clone(), known });
    }
    let wanted = |workload: &Workload| {
        request.categories.is_empty()
            || request.categories.iter().any(|name| name == workload.category.name())
    };
    let (mut tasks, skipped) = match model {
        Some(model) => model.tasks()?,
        None => seeded(request)?,
    };
    tasks.retain(|task| wanted(&task.workload));
    Ok((tasks, skipped))
}

fn seeded<'m>(request: &Request) -> Result<(Vec<Task<'m>>, Vec<Skipped>), CampaignError> {
    let task = |workload| Task { workload, timed: true, tensor: None, weights: None };
    if request.workloads.is_empty() {
        let catalog = catalog::catalog(request.profile);
        let skipped = catalog.unsupported.iter().map(|(id, reason)| skip(id, reason)).collect();
        return Ok((catalog.workloads.into_iter().map(task).collect(), skipped));
    }
    let named = request.workloads.iter().map(|id| {
        catalog::by_id(id)
            .map(task)
            .ok_or_else(|| CampaignError::UnknownWorkload { id: id.clone(), nearest: nearest(id) })
    });
    Ok((named.collect::<Result<_, _>>()?, Vec::new()))
}

/// The id of the catalogue that differs in the fewest characters, if it is not too far.
fn nearest(id: &str) -> Option<String> {
    let catalog = catalog::catalog(Profile::Full);
    let distances =
        catalog.workloads.into_iter().map(|workload| (edit_distance(id, &workload.id), workload.id));
    distances.min().filter(|(distance, _)| *distance <= id.len() / 2).map(|(_, id)| id)
}

/// Levenshtein's distance, in characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_id_is_the_one_meant() {
        assert_eq!(
            nearest("matmul/i2s/2560x2560/b1/t1/hot").as_deref(),
            Some("matmul/i2_s/2560x2560/b1/t1/hot")
        );
        assert_eq!(nearest("nonsense"), None);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
    }
}
