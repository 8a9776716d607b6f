//! From named tensors to the parts of a transformer: every tensor that the graph needs is there once with the right
//! sides and type, and there is no other.

use super::linear::Linear;
use super::{EngineError, Graph, NamedTensor, RunOptions, TensorData};
use crate::backends::{self, Arithmetic, Backend, BackendError, FloatMatmul};
use crate::bitnet::formats::Weights;
use crate::bitnet::model::{FloatMatrix, FloatType};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// One block; `L` is a linear layer, found or prepared.
pub(super) struct Layer<L> {
    pub(super) attn_norm: Vec<f32>,
    pub(super) attn_q: L,
    pub(super) attn_k: L,
    pub(super) attn_v: L,
    pub(super) attn_sub_norm: Option<Vec<f32>>,
    pub(super) attn_output: L,
    pub(super) ffn_norm: Vec<f32>,
    pub(super) ffn_gate: L,
    pub(super) ffn_up: L,
    pub(super) ffn_sub_norm: Option<Vec<f32>>,
    pub(super) ffn_down: L,
}

impl<L> Layer<L> {
    fn try_map<M>(self, mut f: impl FnMut(L) -> Result<M, EngineError>) -> Result<Layer<M>, EngineError> {
        Ok(Layer {
            attn_norm: self.attn_norm,
            attn_q: f(self.attn_q)?,
            attn_k: f(self.attn_k)?,
            attn_v: f(self.attn_v)?,
            attn_sub_norm: self.attn_sub_norm,
            attn_output: f(self.attn_output)?,
            ffn_norm: self.ffn_norm,
            ffn_gate: f(self.ffn_gate)?,
            ffn_up: f(self.ffn_up)?,
            ffn_sub_norm: self.ffn_sub_norm,
            ffn_down: f(self.ffn_down)?,
        })
    }
}

/// A linear layer that was found among the tensors.
pub(super) struct Found<'a> {
    name: String,
    weights: Weights<'a>,
    /// Of its `.scale` tensor.
    after: Option<f32>,
}

/// A model whose tensors are all there.
pub(super) struct Plan<'a> {
    embedding: FloatMatrix<'a>,
    layers: Vec<Layer<Found<'a>>>,
    output_norm: Vec<f32>,
    head: (&'static str, FloatMatrix<'a>),
}

/// Everything that has weights, ready to run.
pub(super) struct Parts<'a> {
    pub(super) embedding: FloatMatrix<'a>,
    pub(super) layers: Vec<Layer<Linear<'a>>>,
    pub(super) output_norm: Vec<f32>,
    pub(super) head: Box<dyn FloatMatmul + 'a>,
    pub(super) head_type: FloatType,
}

impl Parts<'_> {
    /// Every linear layer.
    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear<'_>> {
        self.layers.iter().flat_map(|layer| {
            let Layer { attn_q, attn_k, attn_v, attn_output, ffn_gate, ffn_up, ffn_down, .. } = layer;
            [attn_q, attn_k, attn_v, attn_output, ffn_gate, ffn_up, ffn_down]
        })
    }

    /// Outputs of a linear layer that a thread multiplies with at once, at most.
    pub(super) fn widest_part(&self) -> usize {
        self.linears().map(Linear::widest_part).max().unwrap_or(0)
    }
}

/// Finds every tensor of the graph, and none beside.
pub(super) fn plan<'a>(graph: &Graph, tensors: &[NamedTensor<'a>]) -> Result<Plan<'a>, EngineError> {
    let mut pool = Pool::new(tensors)?;
    let embedding = pool.matrix(EMBEDDING, graph.vocab, graph.hidden)?;
    let layers: Result<_, _> = (0..graph.layers).map(|layer| plan_layer(graph, &mut pool, layer)).collect();
    let layers = layers?;
    let output_norm = pool.norm("output_norm.weight".to_string(), graph.hidden)?;
    let head = match pool.0.contains_key(HEAD) {
        true => (HEAD, pool.matrix(HEAD, graph.vocab, graph.hidden)?),
        false => (EMBEDDING, embedding),
    };
    match pool.0.keys().next() {
        Some(name) => Err(tensor_error(name, "a tensor", "none of that name in this graph")),
        None => Ok(Plan { embedding, layers, output_norm, head }),
    }
}

/// Prepares the products of a plan on `backend`.
pub(super) fn assemble<'a>(
    backend: &'a dyn Backend,
    plan: Plan<'a>,
    options: &RunOptions,
) -> Result<Parts<'a>, EngineError> {
    let n_max = options.batch.min(options.context);
    let prepare = |found: Found<'a>| {
        let Found { name, weights, after } = found;
        Linear::prepare(backend, &name, weights, after, (n_max, options.threads))
    };
    let layers: Result<_, _> = plan.layers.into_iter().map(|layer| layer.try_map(prepare)).collect();
    let (head_name, matrix) = plan.head;
    let head = prepare_head(backend, matrix, options.outputs.min(n_max), options.threads)
        .map_err(|source| EngineError::Product { name: head_name.to_string(), source })?;
    let (embedding, output_norm) = (plan.embedding, plan.output_norm);
    Ok(Parts { embedding, layers: layers?, output_norm, head, head_type: matrix.float_type() })
}

const EMBEDDING: &str = "token_embd.weight";
const HEAD: &str = "output.weight";

fn plan_layer<'a>(graph: &Graph, pool: &mut Pool<'a>, layer: usize) -> Result<Layer<Found<'a>>, EngineError> {
    let (hidden, ffn, q_dim, kv_dim) = (graph.hidden, graph.ffn, graph.q_dim(), graph.kv_dim());
    let norm = |pool: &mut Pool<'a>, part: &str, n| pool.norm(format!("blk.{layer}.{part}.weight"), n);
    let linear = |pool: &mut Pool<'a>, part: &str, rows, cols| {
        let name = format!("blk.{layer}.{part}.weight");
        let weights = pool.ternary(&name, rows, cols)?;
        let after = pool.after(format!("blk.{layer}.{part}.scale"))?;
        Ok::<_, EngineError>(Found { name, weights, after })
    };
    let sub = |pool: &mut Pool<'a>, part: &str, n| graph.sub_norms.then(|| norm(pool, part, n)).transpose();
    Ok(Layer {
        attn_norm: norm(pool, "attn_norm", hidden)?,
        attn_q: linear(pool, "attn_q", q_dim, hidden)?,
        attn_k: linear(pool, "attn_k", kv_dim, hidden)?,
        attn_v: linear(pool, "attn_v", kv_dim, hidden)?,
        attn_sub_norm: sub(pool, "attn_sub_norm", q_dim)?,
        attn_output: linear(pool, "attn_output", hidden, q_dim)?,
        ffn_norm: norm(pool, "ffn_norm", hidden)?,
        ffn_gate: linear(pool, "ffn_gate", ffn, hidden)?,
        ffn_up: linear(pool, "ffn_up", ffn, hidden)?,
        ffn_sub_norm: sub(pool, "ffn_sub_norm", ffn)?,
        ffn_down: linear(pool, "ffn_down", hidden, ffn)?,
    })
}

fn tensor_error(name: &str, found: impl Into<String>, expected: impl Into<String>) -> EngineError {
    EngineError::Tensor { name: name.to_string(), found: found.into(), expected: expected.into() }
}

/// Tensors that nobody has asked for yet.
struct Pool<'a>(BTreeMap<String, TensorData<'a>>);

impl<'a> Pool<'a> {
    fn new(tensors: &[NamedTensor<'a>]) -> Result<Self, EngineError> {
        let mut pool = BTreeMap::new();
        for tensor in tensors {
            if pool.insert(tensor.name.clone(), tensor.data).is_some() {
                return Err(tensor_error(&tensor.name, "it twice", "every tensor once"));
            }
        }
        Ok(Self(pool))
    }

    fn take(&mut self, name: &str, expected: &str) -> Result<TensorData<'a>, EngineError> {
        self.0.remove(name).ok_or_else(|| tensor_error(name, "none", expected))
    }

    /// A float matrix of those sides.
    fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<FloatMatrix<'a>, EngineError> {
        let expected = format!("floats [{rows}, {cols}]");
        match self.take(name, &expected)? {
            TensorData::Floats(matrix) if (matrix.rows(), matrix.cols()) == (rows, cols) => Ok(matrix),
            other => Err(tensor_error(name, described(&other), expected)),
        }
    }

    /// A ternary matrix of those sides.
    fn ternary(&mut self, name: &str, rows: usize, cols: usize) -> Result<Weights<'a>, EngineError> {
        let expected = format!("I2_S, TL1 or TL2 [{rows}, {cols}]");
        match self.take(name, &expected)? {
            TensorData::Ternary(weights)
                if (weights.layout().rows(), weights.layout().cols()) == (rows, cols) =>
            {
                Ok(weights)
            }
            other => Err(tensor_error(name, described(&other), expected)),
        }
    }

    /// `n` finite numbers.
    fn norm(&mut self, name: String, n: usize) -> Result<Vec<f32>, EngineError> {
        let expected = format!("F32 [1, {n}]");
        let matrix = match self.take(&name, &expected)? {
            TensorData::Floats(matrix)
                if matrix.float_type() == FloatType::F32 && (matrix.rows(), matrix.cols()) == (1, n) =>
            {
                matrix
            }
            other => return Err(tensor_error(&name, described(&other), expected)),
        };
        let mut values = vec![0.0; n];
        matrix.float_type().decode(matrix.bytes(), &mut values);
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(index) => Err(EngineError::NormNotFinite { name, index, value: values[index].to_string() }),
        }
    }

    /// The number of a `.scale` tensor, where there is one.
    fn after(&mut self, name: String) -> Result<Option<f32>, EngineError> {
        if !self.0.contains_key(&name) {
            return Ok(None);
        }
        Ok(self.norm(name, 1)?.first().copied())
    }
}

fn described(data: &TensorData<'_>) -> String {
    match data {
        TensorData::Ternary(weights) => weights.layout().to_string(),
        TensorData::Floats(matrix) => {
            format!("{:?} [{}, {}]", matrix.float_type(), matrix.rows(), matrix.cols())
        }
    }
}

/// The head's products: the backend's own where it offers float products, else those of the fastest Rust backend that
/// runs here, which have the same bits.
fn prepare_head<'a>(
    backend: &'a dyn Backend,
    matrix: FloatMatrix<'a>,
    n_max: usize,
    threads: usize,
) -> Result<Box<dyn FloatMatmul + 'a>, BackendError> {
    static OWN: OnceLock<Vec<Arc<dyn Backend>>> = OnceLock::new();
    let own = OWN.get_or_init(backends::all);
    let own = own.iter().rev().map(Arc::as_ref).filter(|backend| backend.name().starts_with("rust-"));
    let mut first = None;
    for candidate in std::iter::once(backend).chain(own) {
        for threads in [threads, 1] {
            match candidate.prepare_float_matmul(matrix, Arithmetic::F32, n_max, threads) {
                Err(why @ (BackendError::Unsupported { .. } | BackendError::Unavailable { .. })) => {
                    first.get_or_insert(why);
                }
                answer => return answer,
            }
        }
    }
    Err(first.unwrap_or_else(|| BackendError::Unsupported {
        backend: backend.name().to_string(),
        what: "float products".to_string(),
    }))
}
