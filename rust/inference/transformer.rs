//! Our own engine: a transformer over the matrix products of any backend, `docs/NUMERICS.md` (whole models) to the bit.
//!
//! ```text
//! x = rows of the embedding
//! for each layer:
//!     h = norm(x);  q, k, v = linear(h);  rotate q, k;  keep k, v
//!     x += linear(sub_norm(attention(q, cache)))
//!     h = norm(x);  g, u = linear(h);  x += linear(sub_norm(activation(g) * u))
//! logits = head * norm(x)          of the tokens that are asked for
//! ```
//! Ternary products and the head are the backend's; everything between is `backends::vector`, in rows: of tokens, or of
//! heads for attention. A row is computed by one thread in a fixed order, so their number changes no bit.

use super::attention::{Cache, Rooms, attention};
use super::linear::{Codes, Linear, Tools, project};
use super::observers::{Observers, Watcher};
use super::parts::{Layer, Parts, assemble, plan};
use super::{
    Activation, CacheType, Engine, EngineError, Graph, NamedTensor, Numerics, Operation, RopePairs,
    RunOptions, check_call, check_made, zeros,
};
use crate::backends::Backend;
use crate::backends::vector::{NORM_ROWS, VectorLoops, vector_loops};
use crate::bitnet::model::FloatType;
use crate::team::Team;

/// A model over the products of one backend.
pub struct Transformer<'a> {
    name: String,
    graph: Graph,
    options: RunOptions,
    tools: Tools,
    parts: Parts<'a>,
    /// `[context, head_dim]`: cosines, then sines.
    angles: Vec<f32>,
    cache: Cache,
    scratch: Scratch,
    observers: Observers,
    logits: Vec<f32>,
    position: usize,
    n_outputs: usize,
    needs_reset: bool,
}

/// Room for one call.
struct Scratch {
    /// `[batch, hidden]`: the residual stream.
    x: Vec<f32>,
    /// `[batch, widest input of a linear layer]`
    normed: Vec<f32>,
    /// `[batch, hidden]`: what is added to the stream.
    out: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    attn: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    codes: Codes,
    rooms: Rooms,
}

impl Scratch {
    fn new(graph: &Graph, options: &RunOptions, widest_part: usize) -> Result<Self, EngineError> {
        let (q_dim, kv_dim) = (graph.q_dim(), graph.kv_dim());
        let widest = graph.hidden.max(q_dim).max(graph.ffn);
        let n = options.batch.min(options.context);
        let room = |width| zeros("the values of a batch", n, width);
        Ok(Self {
            x: room(graph.hidden)?,
            normed: room(widest)?,
            out: room(graph.hidden)?,
            q: room(q_dim)?,
            k: room(kv_dim)?,
            v: room(kv_dim)?,
            attn: room(q_dim)?,
            gate: room(graph.ffn)?,
            up: room(graph.ffn)?,
            codes: Codes::new(n, widest, widest_part, options.threads)?,
            rooms: Rooms::new(graph, options)?,
        })
    }
}

impl<'a> Transformer<'a> {
    /// Makes a model ready on `backend`, with the fastest vector loops that run here.
    ///
    /// # Errors
    /// [`EngineError::Option`], [`EngineError::Tensor`] and [`EngineError::Product`], each naming what is wrong;
    /// [`EngineError::OutOfMemory`], [`EngineError::Threads`].
    pub fn new(
        backend: &'a dyn Backend,
        graph: &Graph,
        tensors: &[NamedTensor<'a>],
        options: &RunOptions,
    ) -> Result<Self, EngineError> {
        Self::with_loops(backend, vector_loops(), graph, tensors, options)
    }

    /// The same with given vector loops: all of them have the same bits.
    ///
    /// # Errors
    /// As [`Transformer::new`].
    pub fn with_loops(
        backend: &'a dyn Backend,
        loops: &'static dyn VectorLoops,
        graph: &Graph,
        tensors: &[NamedTensor<'a>],
        options: &RunOptions,
    ) -> Result<Self, EngineError> {
        check_made(graph, options)?;
        let parts = assemble(backend, plan(graph, tensors)?, options)?;
        let threads = options.threads;
        let team =
            Team::shared(threads).map_err(|why| EngineError::Threads { threads, why: why.to_string() })?;
        Ok(Self {
            name: backend.name().to_string(),
            tools: Tools { team, loops },
            angles: angles(graph, options.context)?,
            cache: Cache::new(graph, options)?,
            scratch: Scratch::new(graph, options, parts.widest_part())?,
            parts,
            observers: Observers::default(),
            logits: zeros("logits", options.outputs.min(options.batch), graph.vocab)?,
            position: 0,
            n_outputs: 0,
            needs_reset: false,
            graph: graph.clone(),
            options: *options,
        })
    }

    /// From now on tells `watcher` after each operation which one it was; `None` ends that. Whoever measures reads a
    /// clock there: between two calls lies the operation that the second one names.
    pub fn watch(&mut self, watcher: Option<Watcher>) {
        self.observers.watcher = watcher;
    }

    fn run(&mut self, tokens: &[u32], n_outputs: usize) -> Result<(), EngineError> {
        let (hidden, n) = (self.graph.hidden, tokens.len());
        let embedding = &self.parts.embedding;
        let x = &mut self.scratch.x[..n * hidden];
        self.tools.team.for_each_row(x, hidden, &|_, index, row| {
            embedding.float_type().decode(embedding.row(tokens[index] as usize), row);
        });
        self.observers.note(0, Operation::Embedding, x);
        let mut pass = Pass {
            graph: &self.graph,
            options: &self.options,
            tools: &self.tools,
            angles: &self.angles[self.position * self.graph.head_dim..],
            cache: &mut self.cache,
            scratch: &mut self.scratch,
            observers: &mut self.observers,
            position: self.position,
            n,
        };
        for (index, layer) in self.parts.layers.iter_mut().enumerate() {
            pass.attention(index, layer)?;
            pass.feed_forward(index, layer)?;
        }
        self.head(n, n_outputs)
    }

    /// Logits of the last `n_outputs` of `n` tokens.
    fn head(&mut self, n: usize, n_outputs: usize) -> Result<(), EngineError> {
        let Self { graph, options, tools, parts, scratch, observers, logits, .. } = self;
        let (hidden, end) = (graph.hidden, graph.layers);
        if n_outputs == 0 {
            return Ok(());
        }
        let Scratch { x, normed, .. } = scratch;
        let (x, normed) = (&x[(n - n_outputs) * hidden..n * hidden], &mut normed[..n_outputs * hidden]);
        norm(tools, graph.norm_eps, &parts.output_norm, x, normed);
        observers.note(end, Operation::ResultNorm, normed);
        let position = |index: usize| self.position + n - n_outputs + index;
        let non_finite =
            |at: &str, index| EngineError::NonFinite { at: at.to_string(), position: position(index) };
        if let Some(index) = first_non_finite(normed) {
            return Err(non_finite("output_norm.weight", index / hidden));
        }
        if options.numerics == Numerics::Ggml && parts.head_type == FloatType::F16 && n_outputs == 1 {
            tools.loops.round_to_f16(normed);
        }
        let logits = &mut logits[..n_outputs * graph.vocab];
        parts.head.matmul_f32(normed, logits)?;
        observers.note(end, Operation::Logits, logits);
        match first_non_finite(logits) {
            Some(index) => Err(non_finite("result_output.MUL_MAT", index / graph.vocab)),
            None => Ok(()),
        }
    }
}

impl Engine for Transformer<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn options(&self) -> &RunOptions {
        &self.options
    }

    fn position(&self) -> usize {
        self.position
    }

    fn prepared_bytes(&self) -> Option<usize> {
        self.parts.linears().map(Linear::prepared_bytes).sum()
    }

    fn prefill(&mut self, tokens: &[u32], n_outputs: usize) -> Result<(), EngineError> {
        self.n_outputs = 0;
        self.observers.begin();
        if self.needs_reset {
            return Err(EngineError::NeedsReset);
        }
        check_call(&self.graph, &self.options, self.position, tokens, n_outputs)?;
        self.needs_reset = true;
        self.run(tokens, n_outputs)?;
        self.needs_reset = false;
        self.position += tokens.len();
        self.n_outputs = n_outputs;
        Ok(())
    }

    fn logits(&self) -> &[f32] {
        &self.logits[..self.n_outputs * self.graph.vocab]
    }

    fn tap(&mut self, name: &str) -> Result<(), EngineError> {
        let rows = self.options.batch.min(self.options.context);
        self.observers.tap(&self.graph, (rows, self.options.outputs.min(rows)), name)
    }

    fn tapped(&self, name: &str) -> Option<&[f32]> {
        self.observers.tapped(name)
    }

    fn untap(&mut self) {
        self.observers.untap();
    }

    fn reset(&mut self) -> Result<(), EngineError> {
        (self.position, self.n_outputs, self.needs_reset) = (0, 0, false);
        self.observers.begin();
        Ok(())
    }
}

/// One call on its way through the layers.
struct Pass<'p> {
    graph: &'p Graph,
    options: &'p RunOptions,
    tools: &'p Tools,
    /// Of the positions of this call.
    angles: &'p [f32],
    cache: &'p mut Cache,
    scratch: &'p mut Scratch,
    observers: &'p mut Observers,
    position: usize,
    n: usize,
}

impl Pass<'_> {
    /// Whether values meet keys and values as float16.
    fn rounds(&self) -> bool {
        self.options.numerics == Numerics::Ggml && self.options.cache == CacheType::F16
    }

    fn attention(&mut self, index: usize, layer: &mut Layer<Linear<'_>>) -> Result<(), EngineError> {
        let rounds = self.rounds();
        let Self { graph, tools, angles, cache, scratch, observers, position, n, .. } = self;
        let (n, position) = (*n, *position);
        let (hidden, q_dim, kv_dim) = (graph.hidden, graph.q_dim(), graph.kv_dim());
        let Scratch { x, normed, out, q, k, v, attn, codes, rooms, .. } = &mut **scratch;
        let x = &mut x[..n * hidden];
        let normed_in = &mut normed[..n * hidden];
        let (q, k, v) = (&mut q[..n * q_dim], &mut k[..n * kv_dim], &mut v[..n * kv_dim]);
        let ops = (Operation::AttnRms, Operation::AttnNorm);
        noted_norm(tools, observers, (index, ops), (graph.norm_eps, &layer.attn_norm), x, normed_in);
        let Layer { attn_q, attn_k, attn_v, .. } = layer;
        project(
            tools,
            codes,
            normed_in,
            position,
            [(attn_q, &mut *q), (attn_k, &mut *k), (attn_v, &mut *v)],
        )?;
        observers.note(index, Operation::Query, q);
        observers.note(index, Operation::Key, k);
        observers.note(index, Operation::Value, v);
        for (values, width, operation) in
            [(&mut *q, q_dim, Operation::QueryRope), (&mut *k, kv_dim, Operation::KeyRope)]
        {
            rotate(tools, graph, angles, values, width);
            observers.note(index, operation, values);
        }
        cache.store(tools, index, position, k, v);
        if rounds {
            tools.team.for_each_row(q, q_dim, &|_, _, q| tools.loops.round_to_f16(q));
        }
        let attn = &mut attn[..n * q_dim];
        attention(tools, cache, rooms, (index, position), (q, rounds && n == 1), attn);
        observers.note(index, Operation::Attention, attn);
        let normed = &mut normed[..n * q_dim];
        let mixed = match &layer.attn_sub_norm {
            None => &*attn,
            Some(weights) => {
                let ops = (Operation::AttnSubRms, Operation::AttnSubNorm);
                noted_norm(tools, observers, (index, ops), (graph.norm_eps, weights), attn, normed);
                &*normed
            }
        };
        let out = &mut out[..n * hidden];
        project(tools, codes, mixed, position, [(&mut layer.attn_output, &mut *out)])?;
        observers.note(index, Operation::AttnOutput, out);
        add(tools, out, x, hidden);
        observers.note(index, Operation::FfnInput, x);
        Ok(())
    }

    fn feed_forward(&mut self, index: usize, layer: &mut Layer<Linear<'_>>) -> Result<(), EngineError> {
        let Self { graph, tools, scratch, observers, position, n, .. } = self;
        let (n, position) = (*n, *position);
        let (hidden, ffn) = (graph.hidden, graph.ffn);
        let Scratch { x, normed, out, gate, up, codes, .. } = &mut **scratch;
        let x = &mut x[..n * hidden];
        let normed_in = &mut normed[..n * hidden];
        let (gate, up) = (&mut gate[..n * ffn], &mut up[..n * ffn]);
        let ops = (Operation::FfnRms, Operation::FfnNorm);
        noted_norm(tools, observers, (index, ops), (graph.norm_eps, &layer.ffn_norm), x, normed_in);
        let Layer { ffn_gate, ffn_up, .. } = layer;
        project(tools, codes, normed_in, position, [(ffn_gate, &mut *gate), (ffn_up, &mut *up)])?;
        observers.note(index, Operation::Gate, gate);
        let loops = tools.loops;
        tools.team.for_each_row(gate, ffn, &|_, _, gate| match graph.activation {
            Activation::Silu => loops.silu(gate),
            Activation::ReluSquared => loops.relu_squared(gate),
        });
        observers.note(index, Operation::Activated, gate);
        observers.note(index, Operation::Up, up);
        let up = &*up;
        tools.team.for_each_row(gate, ffn, &|_, row, gate| loops.multiply(&up[row * ffn..][..ffn], gate));
        observers.note(index, Operation::Gated, gate);
        let normed = &mut normed[..n * ffn];
        let gated = match &layer.ffn_sub_norm {
            None => &*gate,
            Some(weights) => {
                let ops = (Operation::FfnSubRms, Operation::FfnSubNorm);
                noted_norm(tools, observers, (index, ops), (graph.norm_eps, weights), gate, normed);
                &*normed
            }
        };
        let out = &mut out[..n * hidden];
        project(tools, codes, gated, position, [(&mut layer.ffn_down, &mut *out)])?;
        observers.note(index, Operation::Down, out);
        add(tools, out, x, hidden);
        observers.note(index, Operation::LayerOutput, x);
        Ok(())
    }
}

/// `x` += `delta`, rows of `width`.
fn add(tools: &Tools, delta: &[f32], x: &mut [f32], width: usize) {
    tools.team.for_each_row(x, width, &|_, row, x| tools.loops.add(&delta[row * width..][..width], x));
}

/// The whole is looked at before a place is looked for: with no way out of it that loop is vectorised.
fn first_non_finite(values: &[f32]) -> Option<usize> {
    let largest = values.iter().fold(0, |largest, value| largest.max(value.abs().to_bits() as i32));
    if largest < f32::INFINITY.to_bits() as i32 {
        return None;
    }
    values.iter().position(|value| !value.is_finite())
}

/// `y` = the norm of the rows of `x`, times weights.
fn norm(tools: &Tools, eps: f32, weights: &[f32], x: &[f32], y: &mut [f32]) {
    let width = weights.len();
    let block = NORM_ROWS * width;
    let norm_block = |from: usize, y: &mut [f32]| {
        let x = &x[from..][..y.len()];
        let mut multipliers = [0.0; NORM_ROWS];
        let multipliers = &mut multipliers[..y.len() / width];
        tools.loops.norm_multipliers(x, eps, multipliers);
        let rows = x.chunks_exact(width).zip(y.chunks_exact_mut(width));
        for ((x, y), &multiplier) in rows.zip(&*multipliers) {
            tools.loops.scale_weighted(x, multiplier, weights, y);
        }
    };
    let (blocks, rest) = y.split_at_mut(y.len() / block * block);
    tools.team.for_each_row(blocks, block, &|_, index, y| norm_block(index * block, y));
    norm_block(blocks.len(), rest);
}

/// The same, noted before and after the multiplication by the weights.
fn noted_norm(
    tools: &Tools,
    observers: &mut Observers,
    (layer, (before, after)): (usize, (Operation, Operation)),
    (eps, weights): (f32, &[f32]),
    x: &[f32],
    y: &mut [f32],
) {
    if observers.wants(layer, before) {
        for (x, y) in x.chunks_exact(weights.len()).zip(y.chunks_exact_mut(weights.len())) {
            let mut multiplier = [0.0];
            tools.loops.norm_multipliers(x, eps, &mut multiplier);
            tools.loops.scale(x, multiplier[0], y);
        }
        observers.note(layer, before, y);
    }
    norm(tools, eps, weights, x, y);
    observers.note(layer, after, y);
}

/// Rotates every head of rows of `width` values, the first row by the first angles.
fn rotate(tools: &Tools, graph: &Graph, angles: &[f32], rows: &mut [f32], width: usize) {
    let d = graph.head_dim;
    tools.team.for_each_row(rows, width, &|_, row, values| {
        let angles = &angles[row * d..][..d];
        for head in values.chunks_exact_mut(d) {
            match graph.rope {
                RopePairs::Halves => tools.loops.rotate_halves(angles, head),
                RopePairs::Neighbours => tools.loops.rotate_neighbours(angles, head),
            }
        }
    });
}

/// Cosines and sines of every position and pair.
fn angles(graph: &Graph, context: usize) -> Result<Vec<f32>, EngineError> {
    let half = graph.head_dim / 2;
    let mut angles = zeros("rotations", context, graph.head_dim)?;
    let ratio = f64::from(graph.rope_base).powf(-2.0 / graph.head_dim as f64) as f32;
    for (position, row) in angles.chunks_exact_mut(graph.head_dim).enumerate() {
        let (cos, sin) = row.split_at_mut(half);
        let mut angle = position as f32;
        for (cos, sin) in cos.iter_mut().zip(sin) {
            *cos = f64::from(angle).cos() as f32;
            *sin = f64::from(angle).sin() as f32;
            angle *= ratio;
        }
    }
    Ok(angles)
}
