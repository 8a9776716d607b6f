//! An engine of somebody else behind the C contract: the in-tree C++ one, another build of this crate, a plugin.
//!
//! What the contract leaves to the caller is done here: the model is checked before it is handed over, tokens, counts
//! and positions before they are run; a status becomes an error that names the culprit.

use super::parts::plan;
use super::{
    Engine, EngineError, Graph, Intermediate, NamedTensor, RunOptions, check_call, check_made, zeros,
};
use crate::backends::{Backend, BackendError, WholeModel};

/// A backend's own engine.
pub struct ForeignEngine<'a> {
    name: String,
    graph: Graph,
    options: RunOptions,
    model: Box<dyn WholeModel + 'a>,
    taps: Vec<(String, Intermediate)>,
    logits: Vec<f32>,
    position: usize,
    /// Tokens of the last call, and how many logits were kept of it.
    last: (usize, usize),
    needs_reset: bool,
}

impl<'a> ForeignEngine<'a> {
    /// Hands the model to `backend`.
    ///
    /// # Errors
    /// As of our own engine, and [`EngineError::Backend`]: what the backend says, `Unsupported` where it has no engine.
    pub fn new(
        backend: &'a dyn Backend,
        graph: &Graph,
        tensors: &[NamedTensor<'a>],
        options: &RunOptions,
    ) -> Result<Self, EngineError> {
        check_made(graph, options)?;
        plan(graph, tensors)?;
        Ok(Self {
            name: backend.name().to_string(),
            model: backend.prepare_model(graph, tensors, options)?,
            taps: Vec::new(),
            logits: zeros("logits", options.outputs.min(options.batch), graph.vocab)?,
            position: 0,
            last: (0, 0),
            needs_reset: false,
            graph: graph.clone(),
            options: *options,
        })
    }

    fn run(&mut self, tokens: &[u32], n_outputs: usize, decode: bool) -> Result<(), EngineError> {
        self.last = (0, 0);
        if self.needs_reset {
            return Err(EngineError::NeedsReset);
        }
        check_call(&self.graph, &self.options, self.position, tokens, n_outputs)?;
        self.needs_reset = true;
        let ran = if decode { self.model.decode(tokens[0]) } else { self.model.prefill(tokens, n_outputs) };
        ran.map_err(|why| match why {
            BackendError::NonFinite { .. } => {
                let at = format!("a value inside the engine of {} (it does not say which)", self.name);
                EngineError::NonFinite { at, position: self.position }
            }
            other => EngineError::Backend(other),
        })?;
        if n_outputs > 0 {
            self.model.logits(&mut self.logits[..n_outputs * self.graph.vocab])?;
        }
        self.needs_reset = false;
        self.position += tokens.len();
        self.last = (tokens.len(), n_outputs);
        Ok(())
    }
}

impl Engine for ForeignEngine<'_> {
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

    fn prefill(&mut self, tokens: &[u32], n_outputs: usize) -> Result<(), EngineError> {
        self.run(tokens, n_outputs, false)
    }

    fn decode(&mut self, token: u32) -> Result<(), EngineError> {
        self.run(&[token], 1, true)
    }

    fn logits(&self) -> &[f32] {
        &self.logits[..self.last.1 * self.graph.vocab]
    }

    fn tap(&mut self, name: &str) -> Result<(), EngineError> {
        if self.taps.iter().any(|(tapped, _)| tapped == name) {
            return Ok(());
        }
        let of = Intermediate::by_name(&self.graph, name)
            .ok_or_else(|| EngineError::Tap { name: name.chars().take(80).collect() })?;
        let most = self.options.batch.min(self.options.context);
        let rows = if of.of_outputs() { self.options.outputs.min(most) } else { most };
        self.model.tap(name, rows * of.width(&self.graph))?;
        self.taps.push((name.to_string(), of));
        Ok(())
    }

    fn tapped(&self, name: &str) -> Option<&[f32]> {
        let (_, of) = self.taps.iter().find(|(tapped, _)| tapped == name)?;
        let rows = if of.of_outputs() { self.last.1 } else { self.last.0 };
        self.model.tapped(name)?.get(..rows * of.width(&self.graph))
    }

    fn untap(&mut self) {
        self.model.untap();
        self.taps.clear();
    }

    fn reset(&mut self) -> Result<(), EngineError> {
        self.model.reset()?;
        (self.position, self.last, self.needs_reset) = (0, (0, 0), false);
        Ok(())
    }
}
