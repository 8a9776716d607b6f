//! The cache of keys and values, and attention over it.
//!
//! A head's keys lie side by side, `[layer, kv head, position, head_dim]`, so that the scores of a token are one walk
//! through memory. Each head of each token is worked on by one thread, alone, so their number changes no bit.

use super::linear::Tools;
use super::{CacheType, EngineError, Graph, RunOptions, zeros};
use half::f16;
use std::sync::{Mutex, PoisonError};

/// Keys and values of every layer.
pub(super) struct Cache {
    kept: Kept,
    kv_heads: usize,
    context: usize,
    head_dim: usize,
}

enum Kept {
    F16 { k: Vec<f16>, v: Vec<f16> },
    F32 { k: Vec<f32>, v: Vec<f32> },
}

impl Cache {
    pub(super) fn new(graph: &Graph, options: &RunOptions) -> Result<Self, EngineError> {
        let (rows, cols) = (graph.layers.saturating_mul(graph.kv_dim()), options.context);
        let what = "the cache of keys and values";
        let kept = match options.cache {
            CacheType::F16 => Kept::F16 { k: zeros(what, rows, cols)?, v: zeros(what, rows, cols)? },
            CacheType::F32 => Kept::F32 { k: zeros(what, rows, cols)?, v: zeros(what, rows, cols)? },
        };
        Ok(Self { kept, kv_heads: graph.kv_heads, context: options.context, head_dim: graph.head_dim })
    }

    /// Where the keys of a head begin.
    fn start(&self, layer: usize, kv_head: usize) -> usize {
        (layer * self.kv_heads + kv_head) * self.context * self.head_dim
    }

    /// Keeps `k` and `v` `[n, kv heads * head_dim]` from `position` on.
    pub(super) fn store(&mut self, tools: &Tools, layer: usize, position: usize, k: &[f32], v: &[f32]) {
        let d = self.head_dim;
        for (index, (key, value)) in k.chunks_exact(d).zip(v.chunks_exact(d)).enumerate() {
            let (token, kv_head) = (index / self.kv_heads, index % self.kv_heads);
            let at = self.start(layer, kv_head) + (position + token) * d;
            match &mut self.kept {
                Kept::F16 { k, v } => {
                    tools.loops.to_f16(key, &mut k[at..at + d]);
                    tools.loops.to_f16(value, &mut v[at..at + d]);
                }
                Kept::F32 { k, v } => {
                    k[at..at + d].copy_from_slice(key);
                    v[at..at + d].copy_from_slice(value);
                }
            }
        }
    }

    /// One head of one token: scores against the first `scores.len()` positions, their mix to `out`.
    fn attend(
        &self,
        tools: &Tools,
        start: usize,
        q: &[f32],
        round_p: bool,
        scores: &mut [f32],
        out: &mut [f32],
    ) {
        let multiplier = 1.0 / (self.head_dim as f32).sqrt();
        let span = start..start + scores.len() * self.head_dim;
        match &self.kept {
            Kept::F16 { k, .. } => tools.loops.scores_f16(&k[span.clone()], q, multiplier, scores),
            Kept::F32 { k, .. } => tools.loops.scores_f32(&k[span.clone()], q, multiplier, scores),
        }
        tools.loops.softmax(scores);
        if round_p {
            tools.loops.round_to_f16(scores);
        }
        match &self.kept {
            Kept::F16 { v, .. } => tools.loops.mix_f16(&v[span], scores, out),
            Kept::F32 { v, .. } => tools.loops.mix_f32(&v[span], scores, out),
        }
    }
}

/// Room for the scores of one head, one for each thread.
pub(super) struct Scores(Vec<Mutex<Vec<f32>>>);

impl Scores {
    pub(super) fn new(threads: usize, context: usize) -> Result<Self, EngineError> {
        let rows: Result<_, _> = (0..threads).map(|_| Ok(Mutex::new(zeros("scores", 1, context)?))).collect();
        rows.map(Self)
    }
}

/// Attention of every head of the tokens whose queries are `q` `[n, heads * head_dim]`, the first at `position`; their
/// keys and values are in the cache. `round_p` rounds probabilities to float16.
pub(super) fn attention(
    tools: &Tools,
    cache: &Cache,
    scores: &Scores,
    (layer, position, heads): (usize, usize, usize),
    (q, round_p): (&[f32], bool),
    out: &mut [f32],
) {
    let d = cache.head_dim;
    let share = heads / cache.kv_heads;
    tools.team.for_each_row(out, d, &|part, index, out| {
        let (token, head) = (index / heads, index % heads);
        // Only this thread locks it; a panic of an earlier call left nothing in it that is read.
        let mut scores = scores.0[part].lock().unwrap_or_else(PoisonError::into_inner);
        let scores = &mut scores[..position + token + 1];
        cache.attend(tools, cache.start(layer, head / share), &q[index * d..][..d], round_p, scores, out);
    });
}
