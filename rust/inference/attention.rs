//! The cache of keys and values, and attention over it.
//!
//! ```text
//! for each head:                                     a piece of work of its own
//!     keys and values kept as float16, and several tokens?   to float32, once for all of them
//!     for each token:  scores = keys * q,  p = softmax(scores),  out = sum of p * values       up to its position
//! ```
//! A head's keys lie side by side, `[layer, kv head, position, head_dim]`, so that the scores of a token are one walk
//! through memory. Each head is worked on by one thread, alone, so their number changes no bit.

use super::linear::Tools;
use super::{CacheType, EngineError, Graph, RunOptions, zeros};
use crate::team::Divided;
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

    /// Keys and values of a head up to position `end`, as they are kept or, where `widened` has room, as float32.
    fn of_head<'c>(
        &'c self,
        tools: &Tools,
        start: usize,
        end: usize,
        widened: &'c mut [Vec<f32>; 2],
    ) -> Head<'c> {
        let n = end * self.head_dim;
        match &self.kept {
            Kept::F32 { k, v } => Head::F32(&k[start..start + n], &v[start..start + n]),
            Kept::F16 { k, v } if widened[0].is_empty() => {
                Head::F16(&k[start..start + n], &v[start..start + n])
            }
            Kept::F16 { k, v } => {
                for (kept, wide) in [k, v].into_iter().zip(&mut *widened) {
                    tools.loops.widen_f16(&kept[start..start + n], &mut wide[..n]);
                }
                Head::F32(&widened[0][..n], &widened[1][..n])
            }
        }
    }
}

/// Keys and values of one head, `[position, head_dim]`.
#[derive(Clone, Copy)]
enum Head<'c> {
    F16(&'c [f16], &'c [f16]),
    F32(&'c [f32], &'c [f32]),
}

impl Head<'_> {
    /// One token, which sees as many positions as there are `scores`: their mix to `out`.
    fn attend(self, tools: &Tools, q: &[f32], round_p: bool, scores: &mut [f32], out: &mut [f32]) {
        let multiplier = 1.0 / (q.len() as f32).sqrt();
        let n = scores.len() * q.len();
        match self {
            Self::F16(k, _) => tools.loops.scores_f16(&k[..n], q, multiplier, scores),
            Self::F32(k, _) => tools.loops.scores_f32(&k[..n], q, multiplier, scores),
        }
        tools.loops.softmax(scores);
        if round_p {
            tools.loops.round_to_f16(scores);
        }
        match self {
            Self::F16(_, v) => tools.loops.mix_f16(&v[..n], scores, out),
            Self::F32(_, v) => tools.loops.mix_f32(&v[..n], scores, out),
        }
    }
}

/// What a thread needs.
struct Room {
    /// `[context]`
    scores: Vec<f32>,
    /// Keys and values of a head as float32, `[context, head_dim]`; empty where one token at a time is run.
    widened: [Vec<f32>; 2],
}

/// Room for attention.
pub(super) struct Rooms {
    /// For each thread.
    of_threads: Vec<Mutex<Room>>,
    /// Where the outputs of each head end.
    ends: Vec<usize>,
}

impl Rooms {
    pub(super) fn new(graph: &Graph, options: &RunOptions) -> Result<Self, EngineError> {
        let RunOptions { threads, context, batch, .. } = *options;
        let widened = if batch.min(context) > 1 { context } else { 0 };
        let room = || {
            let wide = || zeros("keys and values of a head", widened, graph.head_dim);
            Ok(Mutex::new(Room { scores: zeros("scores", 1, context)?, widened: [wide()?, wide()?] }))
        };
        let of_threads: Result<_, EngineError> = (0..threads).map(|_| room()).collect();
        let ends = (1..=graph.heads).map(|head| head * graph.head_dim).collect();
        Ok(Self { of_threads: of_threads?, ends })
    }
}

/// Attention of every head of the tokens whose queries are `q` `[n, heads * head_dim]`, the first at `position`; their
/// keys and values are in the cache. `round_p` rounds probabilities to float16.
pub(super) fn attention(
    tools: &Tools,
    cache: &Cache,
    rooms: &Rooms,
    (layer, position): (usize, usize),
    (q, round_p): (&[f32], bool),
    out: &mut [f32],
) {
    let (d, heads) = (cache.head_dim, rooms.ends.len());
    let (n, share) = (q.len() / (heads * d), heads / cache.kv_heads);
    let out = Divided::new(out, heads * d, &rooms.ends);
    tools.team.for_each_part([out], &|thread, _, head, out| {
        // Only this thread locks it; a panic of an earlier call left nothing in it that is read.
        let room = &mut *rooms.of_threads[thread].lock().unwrap_or_else(PoisonError::into_inner);
        let Room { scores, widened } = room;
        let mut unused = [Vec::new(), Vec::new()];
        let widened = if n > 1 { widened } else { &mut unused };
        let kept = cache.of_head(tools, cache.start(layer, head / share), position + n, widened);
        for token in 0..n {
            let q = &q[(token * heads + head) * d..][..d];
            kept.attend(tools, q, round_p, &mut scores[..position + token + 1], out.of(token));
        }
    });
}
