//! Whole models: tokens in, logits out.
//!
//! An [`Engine`] runs one model with one cache. There are two kinds: [`Transformer`] is ours, over the products of any
//! backend; [`ForeignEngine`] is whatever stands behind the C contract. Both compute `docs/NUMERICS.md`, so their logits
//! are equal to the bit. What happens inside can be watched by name ([`Intermediate`]), and two engines can be held
//! against each other, operation by operation ([`divergence`]).
//!
//! An engine allocates when it is made, and when a tap is set; running allocates nothing. It reads no clock: who wants
//! to know where time goes sets a watcher ([`Transformer::watch`]) and reads one there.

mod attention;
pub mod divergence;
mod foreign;
mod intermediate;
mod linear;
mod observers;
mod parts;
mod transformer;

pub use crate::bitnet::model::graph::{GraphError, read_model};
pub use crate::bitnet::model::{
    Activation, CacheType, Graph, NamedTensor, Numerics, RopePairs, RunOptions, TensorData,
};
pub use foreign::ForeignEngine;
pub use intermediate::{Intermediate, Operation};
pub use observers::Watcher;
pub use transformer::Transformer;

use crate::backends::{Backend, BackendError, zeroed};

/// Why an engine was not made or did not run. The text is one line that names the culprit.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// A number of the model or of the options that nothing can be made of.
    #[error("{what} is {found}, expected {expected}")]
    Option {
        /// Which number.
        what: &'static str,
        /// Its value.
        found: String,
        /// What it has to be.
        expected: String,
    },
    /// A tensor is absent, not of this model, or not what the graph needs.
    #[error("tensor {name:?}: found {found}, expected {expected}")]
    Tensor {
        /// Its name.
        name: String,
        /// What there is.
        found: String,
        /// What there has to be.
        expected: String,
    },
    /// A NaN or an infinity among the weights of a norm, or a scale that is none.
    #[error("tensor {name:?}: found {value} at index {index}, expected finite numbers")]
    NormNotFinite {
        /// Its name.
        name: String,
        /// The first place.
        index: usize,
        /// What stands there.
        value: String,
    },
    /// A backend could not make or multiply the matrix of this tensor.
    #[error("tensor {name:?}: {source}")]
    Product {
        /// Its name.
        name: String,
        /// What the backend says.
        source: BackendError,
    },
    /// An engine behind the contract did not do what was asked.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A token that the vocabulary does not hold. Nothing was run.
    #[error("token {token} at index {index} is not in the vocabulary of {vocab}")]
    Token {
        /// The token.
        token: u32,
        /// Its place among the tokens of the call.
        index: usize,
        /// Number of tokens there are.
        vocab: usize,
    },
    /// More tokens than one call takes, or none. Nothing was run.
    #[error("{found} tokens in one call, expected 1 to {batch}")]
    Batch {
        /// How many were given.
        found: usize,
        /// How many an engine was made for.
        batch: usize,
    },
    /// Logits of more tokens than were given or than room was made for. Nothing was run.
    #[error("logits of {found} tokens were asked for, expected at most {most}")]
    Outputs {
        /// How many were asked for.
        found: usize,
        /// The smaller of the tokens given and the outputs the engine was made for.
        most: usize,
    },
    /// The cache does not hold that many positions. Nothing was run.
    #[error(
        "{tokens} tokens from position {position} on do not fit the context of {context}: reset, or make the context longer"
    )]
    Context {
        /// Where the first one would stand.
        position: usize,
        /// How many there are.
        tokens: usize,
        /// Positions of the cache.
        context: usize,
    },
    /// A value inside the model is no number any more. The engine must be reset.
    #[error("a value that is no finite number entered {at} (token at position {position}): reset the engine")]
    NonFinite {
        /// The tensor whose input it was, or the name of the intermediate.
        at: String,
        /// Position of the token in the context.
        position: usize,
    },
    /// A call after one that failed while it ran, before a reset.
    #[error("the last call failed while it ran, and left the cache half written: reset the engine")]
    NeedsReset,
    /// A name that stands for no intermediate of this model.
    #[error("no intermediate of this model is called {name:?}; the first is \"inp_embd.GET_ROWS\"")]
    Tap {
        /// The name.
        name: String,
    },
    /// No memory for a buffer.
    #[error("{bytes} bytes for {what} could not be allocated")]
    OutOfMemory {
        /// What it would have held.
        what: &'static str,
        /// Its size; the largest number where that has none.
        bytes: usize,
    },
    /// The operating system refuses a thread.
    #[error("{threads} threads could not be started: {why}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What it said.
        why: String,
    },
}

/// A model with its cache.
pub trait Engine {
    /// Who computes: `rust-avx2`, `cpp-avx2`, as its backend is called.
    fn name(&self) -> &str;

    /// The graph it was made of.
    fn graph(&self) -> &Graph;

    /// How it runs.
    fn options(&self) -> &RunOptions;

    /// Tokens run since it was made or reset: where the next one stands.
    fn position(&self) -> usize;

    /// Bytes that preparing its ternary matrices took beyond them; `None` where nobody says.
    fn prepared_bytes(&self) -> Option<usize> {
        None
    }

    /// Runs `tokens` (1 to batch) as so many columns at once and keeps the logits of the last `n_outputs` of them.
    ///
    /// # Errors
    /// [`EngineError::Token`], [`EngineError::Batch`], [`EngineError::Outputs`], [`EngineError::Context`]: nothing was
    /// run. [`EngineError::NonFinite`], and what a backend says: the engine must be reset.
    fn prefill(&mut self, tokens: &[u32], n_outputs: usize) -> Result<(), EngineError>;

    /// Runs one token and keeps its logits.
    ///
    /// # Errors
    /// As [`Engine::prefill`].
    fn decode(&mut self, token: u32) -> Result<(), EngineError> {
        self.prefill(&[token], 1)
    }

    /// Logits kept by the last call, `[n_outputs, vocab]`; empty before the first one and after a failed one.
    fn logits(&self) -> &[f32];

    /// From now on keeps that intermediate of every call. Allocates room for it.
    ///
    /// # Errors
    /// [`EngineError::Tap`].
    fn tap(&mut self, name: &str) -> Result<(), EngineError>;

    /// What the last call left of a tapped intermediate, `[n, width]`, n the tokens of the call (n_outputs for the last
    /// two names); `None` where the name is not tapped.
    fn tapped(&self, name: &str) -> Option<&[f32]>;

    /// Ends every tap.
    fn untap(&mut self);

    /// Forgets every token. Taps stay.
    ///
    /// # Errors
    /// What an engine behind the contract says.
    fn reset(&mut self) -> Result<(), EngineError>;
}

/// What every engine checks before it runs anything.
fn check_call(
    graph: &Graph,
    options: &RunOptions,
    position: usize,
    tokens: &[u32],
    n_outputs: usize,
) -> Result<(), EngineError> {
    let RunOptions { context, batch, outputs, .. } = *options;
    if !(1..=batch).contains(&tokens.len()) {
        return Err(EngineError::Batch { found: tokens.len(), batch });
    }
    let most = tokens.len().min(outputs);
    if n_outputs > most {
        return Err(EngineError::Outputs { found: n_outputs, most });
    }
    if let Some(index) = tokens.iter().position(|&token| token as usize >= graph.vocab) {
        return Err(EngineError::Token { token: tokens[index], index, vocab: graph.vocab });
    }
    if tokens.len() > context - position {
        return Err(EngineError::Context { position, tokens: tokens.len(), context });
    }
    Ok(())
}

/// What every engine checks before it is made.
fn check_made(graph: &Graph, options: &RunOptions) -> Result<(), EngineError> {
    let refuse = |what, found: String, expected: &str| {
        Err(EngineError::Option { what, found, expected: expected.to_string() })
    };
    let sides = [
        ("the hidden width", graph.hidden, 1 << 20),
        ("the feed-forward width", graph.ffn, 1 << 20),
        ("the number of layers", graph.layers, 1 << 12),
        ("the number of heads", graph.heads, 1 << 12),
        ("the number of kv heads", graph.kv_heads, 1 << 12),
        ("the number of values per head", graph.head_dim, 1 << 12),
        ("the number of tokens", graph.vocab, 1 << 24),
        ("the number of threads", options.threads, 1 << 10),
        ("the context", options.context, 1 << 24),
        ("the batch", options.batch, 1 << 24),
    ];
    for (what, value, most) in sides {
        if !(1..=most).contains(&value) {
            return refuse(what, value.to_string(), &format!("1 to {most}"));
        }
    }
    if !graph.head_dim.is_multiple_of(2) {
        return refuse("the number of values per head", graph.head_dim.to_string(), "an even number");
    }
    if !graph.heads.is_multiple_of(graph.kv_heads) {
        let expected = format!("a divisor of the {} heads", graph.heads);
        return refuse("the number of kv heads", graph.kv_heads.to_string(), &expected);
    }
    if !(graph.rope_base.is_finite() && graph.rope_base >= 1.0) {
        return refuse("the rope base", graph.rope_base.to_string(), "a finite number, at least 1");
    }
    if !(graph.norm_eps > 0.0 && graph.norm_eps < 1.0) {
        return refuse("the norm epsilon", graph.norm_eps.to_string(), "above 0 and below 1");
    }
    Ok(())
}

/// `rows * cols` zeros.
fn zeros<T: Clone + Default>(what: &'static str, rows: usize, cols: usize) -> Result<Vec<T>, EngineError> {
    let n = rows.checked_mul(cols);
    let bytes = n.and_then(|n| n.checked_mul(size_of::<T>()));
    let refuse = || EngineError::OutOfMemory { what, bytes: bytes.unwrap_or(usize::MAX) };
    n.and_then(zeroed).ok_or_else(refuse)
}

/// The engine of a backend: its own if it brings one, else ours over its products.
///
/// # Errors
/// [`EngineError`]: what the graph, the tensors or the options are not.
pub fn engine<'a>(
    backend: &'a dyn Backend,
    graph: &Graph,
    tensors: &[NamedTensor<'a>],
    options: &RunOptions,
) -> Result<Box<dyn Engine + 'a>, EngineError> {
    if backend.brings_engine() {
        return Ok(Box::new(ForeignEngine::new(backend, graph, tensors, options)?));
    }
    Ok(Box::new(Transformer::new(backend, graph, tensors, options)?))
}

/// The token with the largest logit; of equals the first. `None` where there is no logit, or one is no number.
pub fn argmax(logits: &[f32]) -> Option<u32> {
    let mut best: Option<(usize, f32)> = None;
    for (token, &logit) in logits.iter().enumerate() {
        if logit.is_nan() {
            return None;
        }
        if best.is_none_or(|(_, most)| logit > most) {
            best = Some((token, logit));
        }
    }
    best.map(|(token, _)| token as u32)
}
