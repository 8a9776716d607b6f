//! What an engine is given: the graph of a model, its tensors by name, and how it is to be run.
//!
//! These are plain descriptions. What they mean, to the bit, is in `docs/NUMERICS.md` (whole models); who computes it
//! is elsewhere.

use super::config::{Architecture, ConfigError, ModelConfig};
use super::float_blocks::{FloatMatrix, FloatType};
use super::gguf::{Gguf, GgufError, Value};
use crate::bitnet::formats::Weights;

/// What stands between gate and up of the feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `g / (1 + exp(-g))`.
    Silu,
    /// `max(g, 0)^2`.
    ReluSquared,
}

/// Which two values of a head rotate together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RopePairs {
    /// `i` and `i + d / 2`: bitnet and bitnet-b1.58.
    Halves,
    /// `2 i` and `2 i + 1`: llama.
    Neighbours,
}

/// Where values are rounded to float16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Numerics {
    /// Where bitnet.cpp does on its CPU path, which depends on the number of columns.
    Ggml,
    /// Nowhere but in a float16 cache.
    PureF32,
}

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheType {
    /// IEEE half precision, as bitnet.cpp does unless told.
    F16,
    /// As they are computed.
    F32,
}

/// The graph of a model and its sides. Query head h reads key and value head `h / (heads / kv_heads)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// Between gate and up.
    pub activation: Activation,
    /// How heads are rotated.
    pub rope: RopePairs,
    /// Whether `attn_sub_norm` and `ffn_sub_norm` exist.
    pub sub_norms: bool,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside the feed-forward block.
    pub ffn: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Values per head, even.
    pub head_dim: usize,
    /// Number of tokens.
    pub vocab: usize,
    /// Base of the rotary embedding.
    pub rope_base: f32,
    /// Added to the mean square in every norm.
    pub norm_eps: f32,
}

/// How a model is run: the arithmetic, and the most that is asked of it, for which memory is taken at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// Where values are rounded.
    pub numerics: Numerics,
    /// How keys and values are kept.
    pub cache: CacheType,
    /// Threads, the caller's included.
    pub threads: usize,
    /// Positions that the cache holds.
    pub context: usize,
    /// Most tokens of one call.
    pub batch: usize,
    /// Most tokens of one call whose logits are kept.
    pub outputs: usize,
}

impl Default for RunOptions {
    /// What bitnet.cpp does: its rounding, a float16 cache; one thread, 512 positions at once, logits of the last token.
    fn default() -> Self {
        Self {
            numerics: Numerics::Ggml,
            cache: CacheType::F16,
            threads: 1,
            context: 512,
            batch: 512,
            outputs: 1,
        }
    }
}

/// The values of a tensor, in the bytes of its file.
#[derive(Clone, Copy, Debug)]
pub enum TensorData<'a> {
    /// Codes and a scale.
    Ternary(Weights<'a>),
    /// Floats; `[1, n]` for norms and scales.
    Floats(FloatMatrix<'a>),
}

/// A tensor of a model under its GGUF name.
#[derive(Clone, Debug)]
pub struct NamedTensor<'a> {
    /// `blk.0.attn_q.weight`.
    pub name: String,
    /// Its values.
    pub data: TensorData<'a>,
}

/// Why a file is no model that an engine runs.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// The shape.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A tensor.
    #[error(transparent)]
    Gguf(#[from] GgufError),
}

impl Graph {
    /// The graph that a shape asks for.
    pub fn of(config: &ModelConfig) -> Self {
        let llama = config.architecture == Architecture::Llama;
        Self {
            activation: match config.architecture {
                Architecture::BitnetB158 => Activation::ReluSquared,
                Architecture::Bitnet | Architecture::Llama => Activation::Silu,
            },
            rope: if llama { RopePairs::Neighbours } else { RopePairs::Halves },
            sub_norms: !llama,
            hidden: config.hidden,
            ffn: config.ffn,
            layers: config.layers,
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim(),
            vocab: config.vocab,
            rope_base: config.rope_base,
            norm_eps: config.norm_eps,
        }
    }

    /// Width of queries: `heads * head_dim`.
    pub fn q_dim(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of keys and of values: `kv_heads * head_dim`.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// The graph, the tensors and the shape of a model file.
///
/// # Errors
/// An architecture, a shape or a tensor that is not one of ours; a vocabulary whose list of tokens has another length
/// than the embedding; rotary scaling, which no engine here computes.
pub fn read_model<'a>(gguf: &'a Gguf<'_>) -> Result<(ModelConfig, Graph, Vec<NamedTensor<'a>>), GraphError> {
    let config = ModelConfig::from_gguf(gguf)?;
    check_vocabulary(gguf, &config)?;
    check_rope_scaling(gguf, &config)?;
    let mut tensors = Vec::with_capacity(gguf.tensors().len());
    for info in gguf.tensors() {
        let name = info.name().to_string();
        let refuse = |found: String, expected: &str| ConfigError::Tensor {
            name: info.name().to_string(),
            found,
            expected: expected.to_string(),
        };
        let data = if info.tensor_type().ternary().is_some() {
            TensorData::Ternary(gguf.ternary(info)?)
        } else {
            let known = FloatType::of(info.tensor_type()).ok_or_else(|| {
                refuse(format!("type {}", info.tensor_type()), "I2_S, TL1, TL2, F32, F16, BF16, Q8_0 or Q6_K")
            })?;
            let matrix = FloatMatrix::new(known, info.rows(), info.cols(), gguf.tensor_bytes(info));
            TensorData::Floats(
                matrix.ok_or_else(|| refuse(format!("sides {:?}", info.dims()), "whole blocks"))?,
            )
        };
        tensors.push(NamedTensor { name, data });
    }
    let graph = Graph::of(&config);
    Ok((config, graph, tensors))
}

fn check_vocabulary(gguf: &Gguf<'_>, config: &ModelConfig) -> Result<(), ConfigError> {
    const TOKENS: &str = "tokenizer.ggml.tokens";
    match gguf.metadata().get(TOKENS).and_then(Value::as_array) {
        Some(list) if list.len() != config.vocab => Err(ConfigError::Key {
            key: TOKENS.to_string(),
            found: format!("{} tokens", list.len()),
            expected: format!("{}, as many as rows of token_embd.weight", config.vocab),
        }),
        _ => Ok(()),
    }
}

fn check_rope_scaling(gguf: &Gguf<'_>, config: &ModelConfig) -> Result<(), ConfigError> {
    let key = |part: &str| format!("{}.rope.scaling.{part}", gguf_prefix(gguf, config));
    let (kind, factor) = (key("type"), key("factor"));
    let kind_value = gguf.metadata().get(&kind).and_then(Value::as_str);
    let factor_value = gguf.metadata().get(&factor).and_then(Value::as_f32);
    if let Some(found) = kind_value.filter(|kind| !["linear", "none"].contains(kind)) {
        let (found, expected) = (super::gguf::quoted(found), "linear with factor 1, or none".to_string());
        return Err(ConfigError::Key { key: kind, found, expected });
    }
    match factor_value {
        Some(found) if found != 1.0 && kind_value != Some("none") => {
            Err(ConfigError::Key { key: factor, found: found.to_string(), expected: "1".to_string() })
        }
        _ => Ok(()),
    }
}

/// What the names of the file's keys begin with: an older name of the architecture stays in its file.
fn gguf_prefix<'a>(gguf: &'a Gguf<'_>, config: &ModelConfig) -> &'a str {
    let named = gguf.metadata().get("general.architecture").and_then(Value::as_str);
    named.unwrap_or(config.architecture.name())
}
