//! Models made from a seed: the shape of a real one, weights without a meaning.
//!
//! Every tensor has its own stream, [`Rng::for_part`] of the seed and its name, so it does not depend on what was
//! written before it, nor on the format: I2_S, TL1, TL2 and F16 files of one seed are the same model. To that end the
//! scale of a linear layer is exact in F16.
//!
//! - Linear: codes -1, 0, +1 with probability 1/3 each; scale = sqrt(1.5 / K) * u, u uniform on [0.8, 1.2). With
//!   u = 1 the layer keeps the variance of its input: 2/3 of the codes are not zero.
//! - Norm: uniform on [0.9, 1.1).
//! - Embedding, F16: nearly normal of mean 0 and standard deviation 0.5, within 1.74: the sum of four uniforms.
//!
//! The vocabulary is a dummy of the right size, of the kind that llama.cpp calls "llama": three special tokens, 256
//! bytes, then words. bitnet.cpp loads the files; their text means nothing.

use super::config::{ConfigError, ModelConfig, ModelTensor, TensorRole};
use super::gguf::{Array, Gguf, GgufError, GgufWriter, Metadata, NewFile, TensorPlan, TensorType, Value};
use crate::bitnet::formats::{self, FormatError, Layout, WeightFormat};
use crate::rng::Rng;
use half::f16;
use sha2::{Digest, Sha256};
use std::fmt;
use std::io::{self, Write};
use std::path::Path;

/// How the linear layers of a model are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModelFormat {
    /// As ternary codes.
    Ternary(WeightFormat),
    /// As floats, code times scale.
    F16,
}

impl ModelFormat {
    /// Every format, in the order tables show them.
    pub const ALL: [Self; 4] = [
        Self::Ternary(WeightFormat::I2S),
        Self::Ternary(WeightFormat::Tl1),
        Self::Ternary(WeightFormat::Tl2),
        Self::F16,
    ];

    /// `i2_s`, `tl1`, `tl2` or `f16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ternary(format) => format.name(),
            Self::F16 => "f16",
        }
    }

    /// The format of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The value of `general.file_type`.
    pub fn file_type(self) -> u32 {
        match self {
            Self::F16 => 1,
            Self::Ternary(WeightFormat::Tl1) => 38,
            Self::Ternary(WeightFormat::Tl2) => 39,
            Self::Ternary(WeightFormat::I2S) => 40,
        }
    }

    fn tensor_type(self) -> TensorType {
        match self {
            Self::F16 => TensorType::F16,
            Self::Ternary(WeightFormat::I2S) => TensorType::I2S,
            Self::Ternary(WeightFormat::Tl1) => TensorType::Tl1,
            Self::Ternary(WeightFormat::Tl2) => TensorType::Tl2,
        }
    }
}

impl fmt::Display for ModelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a model was not made. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The shape is none.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The format cannot hold a tensor of this model.
    #[error("model {model:?} cannot be made as {format}: tensor {tensor:?}: {source}; choose another format")]
    Unsupported {
        /// The model's name.
        model: String,
        /// The format asked for.
        format: ModelFormat,
        /// The first tensor that it cannot hold.
        tensor: String,
        /// The rule that is broken.
        source: FormatError,
    },
    /// The file could not be written.
    #[error(transparent)]
    Gguf(#[from] GgufError),
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenModel {
    /// Size of the file in bytes.
    pub bytes: u64,
    /// SHA-256 over all bytes of the file, 64 lowercase hexadecimal digits.
    pub sha256: String,
}

/// Tokens that stand before the words of the dummy vocabulary: three special ones and 256 bytes.
pub const MIN_VOCAB: usize = 259;

/// Values that are generated and written at a time.
const CHUNK: usize = 1 << 16;

/// Makes the model file at `path`, which appears only when it is whole.
///
/// `progress` is told the bytes written and the bytes in all, at least once per tensor. A format that cannot hold the
/// model (3b as I2_S: K = 8640) is refused before anything is written.
pub fn write_model(
    config: &ModelConfig,
    format: ModelFormat,
    seed: u64,
    path: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<WrittenModel, ModelError> {
    plan_model(config, format)?;
    let mut file = NewFile::create(path)?;
    let written = write_model_to(config, format, seed, &mut file, progress).map_err(|error| match error {
        ModelError::Gguf(error) => error.at(path).into(),
        other => other,
    })?;
    file.commit()?;
    Ok(written)
}

/// Whether `format` can hold a model of that shape.
///
/// # Errors
/// [`ModelError::Config`], [`ModelError::Unsupported`] with the first tensor that it cannot hold.
pub fn check(config: &ModelConfig, format: ModelFormat) -> Result<(), ModelError> {
    plan_model(config, format).map(|_| ())
}

/// The model in memory, as a file of it would be.
///
/// # Errors
/// As [`write_model`], but for what only files do.
pub fn model_in_memory(
    config: &ModelConfig,
    format: ModelFormat,
    seed: u64,
) -> Result<Gguf<'static>, ModelError> {
    let planned = plan_model(config, format)?;
    let data: u64 = planned.iter().map(|planned| planned.plan.n_bytes().unwrap_or(0)).sum();
    // Keys and the vocabulary come on top; a vector that doubles would take twice the model for a moment.
    let mut bytes = Vec::with_capacity(data as usize + (config.vocab * 64) + (1 << 16));
    write_model_to(config, format, seed, &mut bytes, &mut |_, _| {})?;
    Ok(Gguf::from_bytes(bytes)?)
}

/// As [`write_model`], into any output.
pub fn write_model_to(
    config: &ModelConfig,
    format: ModelFormat,
    seed: u64,
    out: impl Write,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<WrittenModel, ModelError> {
    let planned = plan_model(config, format)?;
    let mut metadata = config.metadata(format.file_type());
    push_vocabulary(&mut metadata, config.vocab);
    metadata.push("general.quantization_version", Value::U32(2));
    let plans: Vec<TensorPlan> = planned.iter().map(|planned| planned.plan.clone()).collect();
    let mut writer = GgufWriter::new(HashingWriter::new(out), &metadata, &plans)?;
    for Planned { plan, role, layout } in &planned {
        let rng = Rng::for_part(seed, &plan.name);
        let (done, total) = writer.progress();
        progress(done, total);
        match role {
            TensorRole::Norm => write_norm(&mut writer, plan, rng)?,
            TensorRole::Embedding => write_embedding(&mut writer, plan, rng, progress)?,
            TensorRole::Linear => write_linear(&mut writer, plan, layout.as_ref(), rng)?,
        }
    }
    let (done, total) = writer.progress();
    progress(done, total);
    Ok(writer.finish()?.written())
}

/// SHA-256 as 64 lowercase hexadecimal digits: the identity of a model file is that of all its bytes.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// A tensor with its place in the file and, where it is ternary, its layout.
struct Planned {
    plan: TensorPlan,
    role: TensorRole,
    layout: Option<Layout>,
}

fn plan_model(config: &ModelConfig, format: ModelFormat) -> Result<Vec<Planned>, ModelError> {
    config.validate()?;
    if config.vocab < MIN_VOCAB {
        let why = format!("{}, a made model needs at least {MIN_VOCAB}", config.vocab);
        return Err(ConfigError::Invalid { what: "number of tokens", why }.into());
    }
    config.tensors().into_iter().map(|tensor| plan_tensor(config, format, tensor)).collect()
}

fn plan_tensor(
    config: &ModelConfig,
    format: ModelFormat,
    tensor: ModelTensor,
) -> Result<Planned, ModelError> {
    let ModelTensor { name, dims, role } = tensor;
    let mut layout = None;
    let tensor_type = match role {
        TensorRole::Embedding => TensorType::F16,
        TensorRole::Norm => TensorType::F32,
        TensorRole::Linear => {
            if let ModelFormat::Ternary(ternary) = format {
                let published = Layout::published(ternary, dims[1] as usize, dims[0] as usize);
                layout = Some(published.map_err(|source| ModelError::Unsupported {
                    model: config.name.clone(),
                    format,
                    tensor: name.clone(),
                    source,
                })?);
            }
            format.tensor_type()
        }
    };
    Ok(Planned { plan: TensorPlan { name, dims, tensor_type }, role, layout })
}

fn push_vocabulary(metadata: &mut Metadata, vocab: usize) {
    let word = |index: usize| index - MIN_VOCAB;
    let tokens = (0..vocab).map(|index| match index {
        0 => "<unk>".to_string(),
        1 => "<s>".to_string(),
        2 => "</s>".to_string(),
        3..MIN_VOCAB => format!("<0x{:02X}>", index - 3),
        // U+2581 is how this kind of vocabulary writes a space.
        _ => format!("\u{2581}w{}", word(index)),
    });
    let scores = (0..vocab).map(|index| if index < MIN_VOCAB { 0.0 } else { -(word(index) as f32) });
    // llama.cpp's token types: 2 unknown, 3 control, 6 byte, 1 normal.
    let types = (0..vocab).map(|index| match index {
        0 => 2,
        1 | 2 => 3,
        3..MIN_VOCAB => 6,
        _ => 1,
    });
    let mut push = |key: &str, value| metadata.push(format!("tokenizer.ggml.{key}"), value);
    push("model", Value::String("llama".to_string()));
    push("pre", Value::String("default".to_string()));
    push("tokens", Value::Array(Array::String(tokens.collect())));
    push("scores", Value::Array(Array::F32(scores.collect())));
    push("token_type", Value::Array(Array::I32(types.collect())));
    push("bos_token_id", Value::U32(1));
    push("eos_token_id", Value::U32(2));
    push("unknown_token_id", Value::U32(0));
    push("add_bos_token", Value::Bool(true));
    push("add_eos_token", Value::Bool(false));
}

fn write_norm<W: Write>(
    writer: &mut GgufWriter<W>,
    plan: &TensorPlan,
    mut rng: Rng,
) -> Result<(), GgufError> {
    let weights = (0..plan.dims[0]).map(|_| (0.9 + 0.2 * rng.unit_f64()) as f32);
    let bytes: Vec<u8> = weights.flat_map(f32::to_le_bytes).collect();
    writer.append(&plan.name, &bytes)
}

fn write_embedding<W: Write>(
    writer: &mut GgufWriter<W>,
    plan: &TensorPlan,
    mut rng: Rng,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), GgufError> {
    let mut left = plan.dims.iter().product::<u64>() as usize;
    let mut bytes = Vec::with_capacity(2 * CHUNK);
    while left > 0 {
        let n = left.min(CHUNK);
        bytes.clear();
        bytes.extend((0..n).flat_map(|_| f16::from_f32(0.5 * nearly_normal(&mut rng)).to_le_bytes()));
        writer.append(&plan.name, &bytes)?;
        left -= n;
        let (done, total) = writer.progress();
        progress(done, total);
    }
    Ok(())
}

fn write_linear<W: Write>(
    writer: &mut GgufWriter<W>,
    plan: &TensorPlan,
    layout: Option<&Layout>,
    mut rng: Rng,
) -> Result<(), ModelError> {
    let n = plan.dims.iter().product::<u64>() as usize;
    let scale = (1.5 / plan.dims[0] as f64).sqrt() * (0.8 + 0.4 * rng.unit_f64());
    // By way of f32, where every platform rounds alike.
    let scale = f16::from_f32(scale as f32);
    let mut trits = Trits::new(rng);
    match layout {
        Some(layout) => {
            let mut codes = vec![0; n];
            trits.fill(&mut codes);
            let mut packed = vec![0; layout.packed_bytes()];
            formats::pack(layout, &codes, scale.to_f32(), &mut packed).map_err(|source| {
                ModelError::Unsupported {
                    model: plan.name.clone(),
                    format: ModelFormat::Ternary(layout.format()),
                    tensor: plan.name.clone(),
                    source,
                }
            })?;
            writer.append(&plan.name, &packed)?;
        }
        None => {
            let value = [-scale, f16::ZERO, scale].map(f16::to_le_bytes);
            let mut codes = vec![0_i8; CHUNK];
            let mut left = n;
            while left > 0 {
                let codes = &mut codes[..left.min(CHUNK)];
                trits.fill(codes);
                let bytes: Vec<u8> = codes.iter().flat_map(|&code| value[(code + 1) as usize]).collect();
                writer.append(&plan.name, &bytes)?;
                left -= codes.len();
            }
        }
    }
    Ok(())
}

/// Mean 0, standard deviation 1: the sum of four uniforms of 16 bits each, centred and scaled.
fn nearly_normal(rng: &mut Rng) -> f32 {
    let bits = rng.next_u64();
    let sum: u64 = (0..4).map(|part| bits >> (16 * part) & 0xffff).sum();
    // A uniform on 0..65536 has the variance (2^32 - 1) / 12; four of them have a third of 2^32, to 1 part in 2^32.
    (sum as f32 - 2.0 * 65535.0) * (3.0_f32.sqrt() / 65536.0)
}

/// Ternary codes, forty from one draw of 64 bits.
///
/// 3^40 is the largest power of three below 2^64. Draws at or above it are rejected (one in three), so the forty
/// base-3 digits of the others are exactly uniform and independent. They are taken off five at a time: 243 = 3^5.
struct Trits {
    rng: Rng,
    /// The five base-3 digits of 0..243, least first, less 1 each.
    table: [[i8; 5]; 243],
    block: [i8; 40],
    /// Codes of `block` that were given out.
    used: usize,
}

impl Trits {
    fn new(rng: Rng) -> Self {
        let table =
            std::array::from_fn(|digits| [1, 3, 9, 27, 81].map(|power| (digits / power % 3) as i8 - 1));
        Self { rng, table, block: [0; 40], used: 40 }
    }

    fn fill(&mut self, codes: &mut [i8]) {
        let mut filled = 0;
        while filled < codes.len() {
            if self.used == self.block.len() {
                self.draw();
            }
            let n = (codes.len() - filled).min(self.block.len() - self.used);
            codes[filled..filled + n].copy_from_slice(&self.block[self.used..self.used + n]);
            self.used += n;
            filled += n;
        }
    }

    fn draw(&mut self) {
        const END: u64 = 3_u64.pow(40);
        let mut digits = self.rng.next_u64();
        while digits >= END {
            digits = self.rng.next_u64();
        }
        for five in self.block.as_chunks_mut::<5>().0 {
            *five = self.table[(digits % 243) as usize];
            digits /= 243;
        }
        self.used = 0;
    }
}

/// Passes everything on and hashes it.
struct HashingWriter<W> {
    out: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> HashingWriter<W> {
    fn new(out: W) -> Self {
        Self { out, hash: Sha256::new(), bytes: 0 }
    }

    fn written(self) -> WrittenModel {
        WrittenModel { bytes: self.bytes, sha256: hex(&self.hash.finalize()) }
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
