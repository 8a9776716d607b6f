//! Whole models as work: prefill, decode, and the time to the first token.
//!
//! ```text
//! prefill  pp{N}: an empty cache; N tokens as N columns at once, logits of the last one
//! decode   tg{N}: an empty cache; N tokens one at a time, logits of each
//! ttft     pp{N}: prefill, and the token with the largest logit
//! ```
//!
//! Tokens are drawn from the seed, also those that decode runs: what comes out of one step does not choose the next, so
//! every side does the same work even where it computes something else. Logits are equal to the bit between engines that
//! follow `docs/NUMERICS.md`, so the contract is exact.

use super::prepare::{Output, POISON_F32, POISON_I32, Run};
use super::{Inputs, Work};
use crate::backends::{Backend, BackendError};
use crate::bitnet::formats::{FormatError, WeightFormat};
use crate::bitnet::model::config::ModelConfig;
use crate::bitnet::model::gguf::Gguf;
use crate::bitnet::model::weights::{self, ModelFormat};
use crate::bitnet::model::{RunOptions, read_model};
use crate::inference::{self, Engine, EngineError};
use std::sync::{Arc, Mutex, PoisonError};

/// What is asked of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Many tokens at once.
    Prefill,
    /// One token at a time.
    Decode,
    /// Prefill up to the choice of the first token.
    FirstToken,
}

/// A model and what is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inference {
    /// Name of the shape: one of the presets, or [`OF_FILE`].
    pub preset: &'static str,
    /// How its linear layers are stored.
    pub format: WeightFormat,
    /// What is asked.
    pub phase: Phase,
    /// How many tokens.
    pub tokens: usize,
    /// Threads of the engine.
    pub threads: usize,
    /// Weights of the linear layers.
    ternary: u64,
    /// Their bytes.
    code_bytes: u64,
    /// Weights of the head, in two bytes each.
    head: u64,
}

/// The name that stands for the shape of a file.
pub const OF_FILE: &str = "model";

impl Inference {
    /// Work on a preset; `None` where there is no such shape or the format cannot hold it.
    pub fn of_preset(
        preset: &'static str,
        format: WeightFormat,
        phase: Phase,
        tokens: usize,
        threads: usize,
    ) -> Option<Self> {
        let config = ModelConfig::preset(preset)?;
        weights::check(&config, ModelFormat::Ternary(format)).ok()?;
        Some(Self::of_config(preset, &config, format, phase, tokens, threads))
    }

    /// Work on a model of that shape, whose head is F16.
    pub fn of_config(
        preset: &'static str,
        config: &ModelConfig,
        format: WeightFormat,
        phase: Phase,
        tokens: usize,
        threads: usize,
    ) -> Self {
        let ternary = config.n_ternary_weights();
        let head = config.vocab as u64 * config.hidden as u64;
        // Two bits a weight, or five for three.
        let code_bytes = match format {
            WeightFormat::I2S | WeightFormat::Tl1 => ternary / 4,
            WeightFormat::Tl2 => ternary / 3 * 5 / 8,
        };
        Self { preset, format, phase, tokens, threads, ternary, code_bytes, head }
    }

    pub(super) fn id(&self) -> String {
        let Self { preset, format, tokens, threads, .. } = self;
        match self.phase {
            Phase::Prefill => format!("prefill/{preset}/{format}/pp{tokens}/t{threads}"),
            Phase::Decode => format!("decode/{preset}/{format}/tg{tokens}/t{threads}"),
            Phase::FirstToken => format!("ttft/{preset}/{format}/pp{tokens}/t{threads}"),
        }
    }

    pub(super) fn work(&self) -> Work {
        let tokens = self.tokens as u64;
        // Prefill reads every weight once, and needs the head for its last token alone.
        let passes = if self.phase == Phase::Decode { tokens } else { 1 };
        Work {
            weights: self.ternary + self.head,
            bytes: (self.code_bytes + 2 * self.head) * passes,
            ops: 2 * (self.ternary * tokens + self.head * passes),
            tokens: if self.phase == Phase::FirstToken { 0 } else { tokens },
        }
    }

    fn options(&self) -> RunOptions {
        let batch = if self.phase == Phase::Decode { 1 } else { self.tokens };
        RunOptions { threads: self.threads, context: self.tokens, batch, ..RunOptions::default() }
    }
}

/// A model that inputs hold: made for them, or a file that somebody else keeps open.
#[derive(Clone, Debug)]
pub(super) enum Model<'a> {
    Made(Arc<Gguf<'static>>),
    File(&'a Gguf<'static>),
}

impl Model<'_> {
    pub(super) fn gguf(&self) -> &Gguf<'static> {
        match self {
            Self::Made(gguf) => gguf,
            Self::File(gguf) => gguf,
        }
    }
}

/// Preset, format and seed of the model made last, and the model: workloads on one model follow one another.
type Made = Option<((&'static str, WeightFormat, u64), Arc<Gguf<'static>>)>;
static MADE: Mutex<Made> = Mutex::new(None);

/// The model of that preset from that seed.
pub(super) fn made(work: &Inference, seed: u64) -> Result<Model<'static>, FormatError> {
    let key = (work.preset, work.format, seed);
    let mut last = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((known, gguf)) = &*last
        && *known == key
    {
        return Ok(Model::Made(Arc::clone(gguf)));
    }
    // The old one goes before the new one comes: the largest preset alone is more than a gigabyte.
    *last = None;
    let config = ModelConfig::preset(work.preset).expect("a workload of a preset names one that exists");
    let gguf = weights::model_in_memory(&config, ModelFormat::Ternary(work.format), seed)
        .expect("the catalogue holds models that can be made");
    let gguf = Arc::new(gguf);
    *last = Some((key, Arc::clone(&gguf)));
    Ok(Model::Made(gguf))
}

/// Makes an engine of `backend` ready for `work`.
pub(super) fn prepare<'a>(
    work: &Inference,
    inputs: &'a Inputs<'_>,
    backend: &'a dyn Backend,
) -> Result<Box<dyn Run + 'a>, BackendError> {
    let model = inputs.model.as_ref().expect("inputs of this kind hold a model").gguf();
    let failed = |what: String| BackendError::Internal { backend: backend.name().to_owned(), what };
    let (_, graph, tensors) = read_model(model).map_err(|why| failed(why.to_string()))?;
    let vocab = graph.vocab;
    let engine = inference::engine(backend, &graph, &tensors, &work.options())
        .map_err(|why| engine_error(backend.name(), why))?;
    let rows = if work.phase == Phase::Decode { work.tokens } else { 1 };
    Ok(Box::new(ModelRun {
        engine,
        phase: work.phase,
        tokens: &inputs.tokens,
        logits: vec![0.0; rows * vocab],
        first: [0],
    }))
}

fn engine_error(backend: &str, error: EngineError) -> BackendError {
    match error {
        EngineError::Backend(source) | EngineError::Product { source, .. } => source,
        other => BackendError::Internal { backend: backend.to_owned(), what: other.to_string() },
    }
}

struct ModelRun<'a> {
    engine: Box<dyn Engine + 'a>,
    phase: Phase,
    tokens: &'a [u32],
    /// `[tokens, vocab]` of decode, `[1, vocab]` else.
    logits: Vec<f32>,
    /// The first token of `ttft`.
    first: [i32; 1],
}

impl ModelRun<'_> {
    fn compute(&mut self) -> Result<(), EngineError> {
        self.engine.reset()?;
        if self.phase == Phase::Decode {
            let vocab = self.logits.len() / self.tokens.len();
            for (&token, logits) in self.tokens.iter().zip(self.logits.chunks_exact_mut(vocab)) {
                self.engine.decode(token)?;
                logits.copy_from_slice(self.engine.logits());
            }
            return Ok(());
        }
        self.engine.prefill(self.tokens, 1)?;
        self.logits.copy_from_slice(self.engine.logits());
        if self.phase == Phase::FirstToken {
            self.first = [inference::argmax(&self.logits).map_or(-1, |token| token as i32)];
        }
        Ok(())
    }
}

impl Run for ModelRun<'_> {
    fn run(&mut self) -> Result<(), BackendError> {
        self.compute().map_err(|why| engine_error(self.engine.name(), why))
    }

    fn outputs(&self) -> Vec<(&'static str, Output<'_>)> {
        let mut outputs = vec![("logits", Output::F32(&self.logits))];
        if self.phase == Phase::FirstToken {
            outputs.push(("token", Output::I32(&self.first)));
        }
        outputs
    }

    fn poison(&mut self) {
        self.logits.fill(POISON_F32);
        self.first.fill(POISON_I32);
    }

    fn prepared_bytes(&self) -> Option<usize> {
        self.engine.prepared_bytes()
    }
}
