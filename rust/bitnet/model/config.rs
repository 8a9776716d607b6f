//! The shape of a model: presets of the public ones, the metadata that carries it, the tensors it consists of.
//!
//! Keys, tensor names and their order are those of bitnet.cpp (`docs/FORMATS.md` 7).

use super::gguf::{Gguf, Metadata, Value, quoted};

/// Which graph a file asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// `bitnet`: the 1bitLLM models; gated SiLU.
    Bitnet,
    /// `bitnet-b1.58` (older files: `bitnet-25`): 2B4T; gated squared ReLU.
    BitnetB158,
    /// `llama`: Llama3-8B-1.58, Falcon3, Falcon-E; gated SiLU, no norms inside the blocks, neighbours rotate.
    Llama,
}

impl Architecture {
    /// The value of `general.architecture`, which also begins the names of its keys.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bitnet => "bitnet",
            Self::BitnetB158 => "bitnet-b1.58",
            Self::Llama => "llama",
        }
    }

    fn by_name(name: &str) -> Option<Self> {
        match name {
            "bitnet" => Some(Self::Bitnet),
            "bitnet-b1.58" | "bitnet-25" => Some(Self::BitnetB158),
            "llama" => Some(Self::Llama),
            _ => None,
        }
    }
}

/// Why a shape is not one of a model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A key that the architecture needs is absent or has the wrong type.
    #[error("key {key:?}: found {found}, expected {expected}")]
    Key {
        /// The key.
        key: String,
        /// What the file has.
        found: String,
        /// What it has to have.
        expected: String,
    },
    /// Numbers that do not go together.
    #[error("{what}: {why}")]
    Invalid {
        /// Which number.
        what: &'static str,
        /// What it is and what it has to be.
        why: String,
    },
    /// A tensor that the shape needs is absent or has other sides.
    #[error("tensor {name:?}: found {found}, expected {expected}")]
    Tensor {
        /// Its name.
        name: String,
        /// What the file has.
        found: String,
        /// What it has to have.
        expected: String,
    },
}

/// The shape of a model, as its file gives it.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// `general.name`.
    pub name: String,
    /// Which graph.
    pub architecture: Architecture,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside the feed-forward block.
    pub ffn: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Number of tokens.
    pub vocab: usize,
    /// Longest sequence the model was made for, in tokens.
    pub context: usize,
    /// Base of the rotary embedding.
    pub rope_base: f32,
    /// Added to the mean square in every norm.
    pub norm_eps: f32,
    /// Whether the embedding is the output head too; else there is an `output.weight`.
    pub tied_head: bool,
}

/// What a tensor of the model is for, which decides how it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorRole {
    /// `token_embd.weight` `[vocab, hidden]`, and `output.weight` of the same sides where it is separate.
    Embedding,
    /// A norm's weights, one side.
    Norm,
    /// The weights of a linear layer, ternary.
    Linear,
}

/// A tensor that the shape asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelTensor {
    /// Its name.
    pub name: String,
    /// Its sides, K first.
    pub dims: Vec<u64>,
    /// What it is for.
    pub role: TensorRole,
}

impl ModelConfig {
    /// Names of the presets, smallest first.
    pub const PRESETS: [&'static str; 5] = ["tiny", "125m", "700m", "3b", "2b4t"];

    /// The shape of a public model (`docs/FORMATS.md` 6b), or `tiny`, that of the golden file.
    pub fn preset(name: &str) -> Option<Self> {
        let of = |hidden, ffn, layers, heads, kv_heads, vocab, context| Self {
            name: name.to_string(),
            architecture: Architecture::Bitnet,
            hidden,
            ffn,
            layers,
            heads,
            kv_heads,
            vocab,
            context,
            rope_base: 10_000.0,
            norm_eps: 1e-5,
            tied_head: true,
        };
        Some(match name {
            "tiny" => of(256, 512, 2, 4, 2, 320, 4096),
            "125m" => of(768, 3072, 11, 12, 12, 32_002, 2048),
            "700m" => of(1536, 4096, 24, 16, 16, 32_002, 2048),
            "3b" => of(3200, 8640, 26, 32, 32, 32_002, 2048),
            "2b4t" => Self {
                architecture: Architecture::BitnetB158,
                rope_base: 500_000.0,
                ..of(2560, 6912, 30, 20, 5, 128_256, 4096)
            },
            _ => return None,
        })
    }

    /// Values per head.
    pub fn head_dim(&self) -> usize {
        self.hidden / self.heads.max(1)
    }

    /// Width of keys and of values: `kv_heads * head_dim`.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim()
    }

    /// Checks that the numbers go together and stay in the range that files and kernels have.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |what, why: String| Err(ConfigError::Invalid { what, why });
        let sides = [
            ("hidden width", self.hidden, 1 << 20),
            ("feed-forward width", self.ffn, 1 << 20),
            ("number of layers", self.layers, 1 << 12),
            ("number of heads", self.heads, 1 << 12),
            ("number of kv heads", self.kv_heads, 1 << 12),
            ("number of tokens", self.vocab, 1 << 24),
            ("context length", self.context, 1 << 30),
        ];
        for (what, value, most) in sides {
            if !(1..=most).contains(&value) {
                return refuse(what, format!("{value}, must be 1 to {most}"));
            }
        }
        if !self.hidden.is_multiple_of(self.heads) || !self.head_dim().is_multiple_of(2) {
            let why = format!("{} / {} heads, must be an even whole number", self.hidden, self.heads);
            return refuse("values per head", why);
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let why = format!("{} heads / {} kv heads, must be whole", self.heads, self.kv_heads);
            return refuse("query heads per kv head", why);
        }
        if !(self.rope_base.is_finite() && self.rope_base >= 1.0) {
            return refuse("rope base", format!("{}, must be finite and at least 1", self.rope_base));
        }
        if !(self.norm_eps > 0.0 && self.norm_eps < 1.0) {
            return refuse("norm epsilon", format!("{}, must be above 0 and below 1", self.norm_eps));
        }
        Ok(())
    }

    /// The tensors, in the order of a file of bitnet.cpp.
    pub fn tensors(&self) -> Vec<ModelTensor> {
        let (hidden, ffn, kv) = (self.hidden as u64, self.ffn as u64, self.kv_dim() as u64);
        let norm = |name: String, width| ModelTensor { name, dims: vec![width], role: TensorRole::Norm };
        let linear = |name: String, k, m| ModelTensor { name, dims: vec![k, m], role: TensorRole::Linear };
        let embedding = |name: &str| ModelTensor {
            name: name.to_string(),
            dims: vec![hidden, self.vocab as u64],
            role: TensorRole::Embedding,
        };
        let sub_norms = self.architecture != Architecture::Llama;
        let mut tensors = vec![embedding("token_embd.weight")];
        for layer in 0..self.layers {
            let named = |part: &str| format!("blk.{layer}.{part}.weight");
            tensors.push(norm(named("attn_norm"), hidden));
            tensors.extend(sub_norms.then(|| norm(named("attn_sub_norm"), hidden)));
            tensors.push(norm(named("ffn_norm"), hidden));
            tensors.extend(sub_norms.then(|| norm(named("ffn_sub_norm"), ffn)));
            tensors.extend([
                linear(named("attn_q"), hidden, hidden),
                linear(named("attn_k"), hidden, kv),
                linear(named("attn_v"), hidden, kv),
                linear(named("attn_output"), hidden, hidden),
                linear(named("ffn_gate"), hidden, ffn),
                linear(named("ffn_up"), hidden, ffn),
                linear(named("ffn_down"), ffn, hidden),
            ]);
        }
        tensors.push(norm("output_norm.weight".to_string(), hidden));
        tensors.extend((!self.tied_head).then(|| embedding("output.weight")));
        tensors
    }

    /// Weights of all linear layers together.
    pub fn n_ternary_weights(&self) -> u64 {
        let linear = |tensor: &ModelTensor| tensor.role == TensorRole::Linear;
        self.tensors()
            .iter()
            .filter(|tensor| linear(tensor))
            .map(|tensor| tensor.dims.iter().product::<u64>())
            .sum()
    }

    /// The keys that carry the shape, in the order of a file of bitnet.cpp, from `general.architecture` to the rope
    /// scaling.
    pub fn metadata(&self, file_type: u32) -> Metadata {
        let mut metadata = Metadata::new();
        let architecture = self.architecture.name();
        metadata.push("general.architecture", Value::String(architecture.to_string()));
        metadata.push("general.name", Value::String(self.name.clone()));
        metadata.push("general.file_type", Value::U32(file_type));
        let mut push = |key: &str, value| metadata.push(format!("{architecture}.{key}"), value);
        // Every number fits: validate() bounds them.
        push(VOCAB, Value::U32(self.vocab as u32));
        push(CONTEXT, Value::U32(self.context as u32));
        push(HIDDEN, Value::U32(self.hidden as u32));
        push(LAYERS, Value::U32(self.layers as u32));
        push(FFN, Value::U32(self.ffn as u32));
        push(HEADS, Value::U32(self.heads as u32));
        push(KV_HEADS, Value::U32(self.kv_heads as u32));
        push(ROPE_DIM, Value::U32(self.head_dim() as u32));
        push(ROPE_BASE, Value::F32(self.rope_base));
        push(NORM_EPS, Value::F32(self.norm_eps));
        push("rope.scaling.type", Value::String("linear".to_string()));
        push("rope.scaling.factor", Value::F32(1.0));
        metadata
    }

    /// The shape that a file's metadata gives, validated, every tensor of it present with the right sides. Tensors
    /// beyond those (`*.scale`) are left for the caller to find.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, ConfigError> {
        let tied_head = gguf.tensor("output.weight").is_err();
        let config = Self { tied_head, ..Self::from_metadata(gguf.metadata())? };
        // Before the list of tensors is made: a hostile file may ask for more layers than it holds.
        if config.layers * TENSORS_PER_LAYER > gguf.tensors().len() {
            let found = format!("{} tensors", gguf.tensors().len());
            let expected = format!("those of {} layers", config.layers);
            return Err(ConfigError::Tensor { name: "blk.*".to_string(), found, expected });
        }
        for wanted in config.tensors() {
            let found = match gguf.tensor(&wanted.name) {
                Ok(info) if info.dims() == wanted.dims => continue,
                Ok(info) => format!("sides {:?}", info.dims()),
                Err(_) => "none".to_string(),
            };
            let expected = format!("sides {:?}", wanted.dims);
            return Err(ConfigError::Tensor { name: wanted.name, found, expected });
        }
        Ok(config)
    }

    fn from_metadata(metadata: &Metadata) -> Result<Self, ConfigError> {
        let key_error = |key: &str, found: Option<&Value>, expected: &str| ConfigError::Key {
            key: key.to_string(),
            found: found
                .map_or("none".to_string(), |value| format!("a value of type id {}", value.type_id())),
            expected: expected.to_string(),
        };
        let text = |key: &str| metadata.get(key).and_then(Value::as_str);
        let prefix = text("general.architecture").ok_or_else(|| {
            key_error("general.architecture", metadata.get("general.architecture"), "a string")
        })?;
        let architecture = Architecture::by_name(prefix).ok_or_else(|| ConfigError::Key {
            key: "general.architecture".to_string(),
            found: quoted(prefix),
            expected: "bitnet, bitnet-b1.58, bitnet-25 or llama".to_string(),
        })?;
        let number = |key: &str| {
            let key = format!("{prefix}.{key}");
            let value = metadata.get(&key);
            let number = value.and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok());
            number.ok_or_else(|| key_error(&key, value, "a whole number"))
        };
        let float = |key: &str| {
            let key = format!("{prefix}.{key}");
            let value = metadata.get(&key);
            value.and_then(Value::as_f32).ok_or_else(|| key_error(&key, value, "a float"))
        };
        let hidden = number(HIDDEN)?;
        let heads = number(HEADS)?;
        // Absent keys that have a meaning: as many kv heads as heads, the vocabulary as long as the token list, base 10000.
        let or_default = |key: &str, default: usize| match metadata.get(&format!("{prefix}.{key}")) {
            Some(_) => number(key),
            None => Ok(default),
        };
        let tokens =
            metadata.get("tokenizer.ggml.tokens").and_then(Value::as_array).map_or(0, |list| list.len());
        let rope_base_key = format!("{prefix}.{ROPE_BASE}");
        let config = Self {
            name: text("general.name").unwrap_or_default().to_string(),
            architecture,
            hidden,
            ffn: number(FFN)?,
            layers: number(LAYERS)?,
            heads,
            kv_heads: or_default(KV_HEADS, heads)?,
            vocab: or_default(VOCAB, tokens)?,
            context: number(CONTEXT)?,
            rope_base: if metadata.get(&rope_base_key).is_some() { float(ROPE_BASE)? } else { 10_000.0 },
            norm_eps: float(NORM_EPS)?,
            tied_head: true,
        };
        config.validate()?;
        let rope_dim = or_default(ROPE_DIM, config.head_dim())?;
        if rope_dim != config.head_dim() {
            let why = format!("{rope_dim}, must be the {} values of a head", config.head_dim());
            return Err(ConfigError::Invalid { what: "rope dimension", why });
        }
        Ok(config)
    }
}

/// Two norms at least and seven linear layers.
const TENSORS_PER_LAYER: usize = 9;

const VOCAB: &str = "vocab_size";
const CONTEXT: &str = "context_length";
const HIDDEN: &str = "embedding_length";
const LAYERS: &str = "block_count";
const FFN: &str = "feed_forward_length";
const HEADS: &str = "attention.head_count";
const KV_HEADS: &str = "attention.head_count_kv";
const ROPE_DIM: &str = "rope.dimension_count";
const ROPE_BASE: &str = "rope.freq_base";
const NORM_EPS: &str = "attention.layer_norm_rms_epsilon";
