//! What we ask: one [`Workload`] is an identified piece of work with its inputs, its preparation, its parity
//! contract and the work it counts. The same object serves parity, timing and benches.
//!
//! A workload moves in one direction: [`Workload::inputs`] draws everything from a seed (or takes a tensor of
//! a real file), [`Workload::prepare`] makes one backend ready, [`Run::run`] is what is timed, and
//! [`Run::outputs`] is what is compared. Anything derived from activations is inside `run`.

pub mod catalog;
pub mod explain;
pub mod inference;
mod inputs;
mod native;
mod prepare;

use crate::backends::{Arithmetic, WeightRule};
use crate::bitnet::formats::Layout;
use crate::bitnet::model::FloatType;
use crate::bitnet::quant::accuracy::{self, Accuracy};
use crate::parity::Contract;
pub use inference::Inference;
pub use inputs::Inputs;
pub use prepare::{Output, Run};

/// What area of the product a workload measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Category {
    /// Weights and activations to codes and back.
    Quantization,
    /// Products of ternary matrices.
    Kernels,
    /// Products of float matrices, by the precision they are stored in.
    MixedPrecision,
    /// Whole models.
    Inference,
}

impl Category {
    /// Every area, in the order tables show them.
    pub const ALL: [Self; 4] = [Self::Quantization, Self::Kernels, Self::MixedPrecision, Self::Inference];

    /// The name in recordings: `quantization`, `kernels`, `mixed_precision`, `inference`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quantization => "quantization",
            Self::Kernels => "kernels",
            Self::MixedPrecision => "mixed_precision",
            Self::Inference => "inference",
        }
    }
}

/// Whether a slow-down of this workload is core or secondary to the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Whole models, and the products they are made of.
    Core,
    /// Quantisation, dequantisation, call overhead.
    Secondary,
}

impl Class {
    /// The name in recordings: `core`, `secondary`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Secondary => "secondary",
        }
    }
}

/// Whether weights stay in cache between runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temperature {
    /// The same matrix again.
    Hot,
    /// Rotating over copies that together exceed [`COLD_BYTES`], so that each run reads from memory.
    Cold,
}

impl Temperature {
    /// The last part of a workload id: `hot`, `cold`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Cold => "cold",
        }
    }
}

/// Bytes of weights a cold workload rotates over: beyond any cache of the machines this is used on.
pub const COLD_BYTES: usize = 300_000_000;

/// Work done by one run, for rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Weights touched; for activations, the values quantised.
    pub weights: u64,
    /// Bytes of packed codes read or written; for activations, the float bytes read.
    pub bytes: u64,
    /// Operations: 2 for each weight and activation row of a product, 0 where only bytes matter.
    pub ops: u64,
    /// Tokens of a whole model, 0 where there are none or their rate is not the question.
    pub tokens: u64,
}

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Float weights to packed bytes by the given rule.
    Quantize {
        /// Target.
        layout: Layout,
        /// Rule.
        rule: WeightRule,
    },
    /// Packed bytes to floats.
    Dequantize {
        /// Source.
        layout: Layout,
    },
    /// Float activations to int8 codes, scales and sums.
    Activation {
        /// Values in a row.
        cols: usize,
        /// Rows.
        rows: usize,
    },
    /// Integer products of int8 activations.
    Matmul {
        /// Weights.
        layout: Layout,
        /// Activation rows.
        batch: usize,
        /// Threads.
        threads: usize,
        /// Cache state.
        temperature: Temperature,
    },
    /// The whole linear layer of float activations.
    Linear {
        /// Weights.
        layout: Layout,
        /// Activation rows.
        batch: usize,
        /// Threads.
        threads: usize,
        /// Cache state.
        temperature: Temperature,
    },
    /// Products of a float matrix with float activations.
    MixedPrecision {
        /// How the matrix is stored.
        float_type: FloatType,
        /// Outputs.
        rows: usize,
        /// Inputs.
        cols: usize,
        /// Activation rows.
        batch: usize,
        /// Threads.
        threads: usize,
        /// Of what hardware.
        arithmetic: Arithmetic,
    },
    /// The smallest product there is: what a call costs.
    Overhead,
    /// A whole model.
    Inference(Inference),
}

/// One identified piece of work. Its id is a permanent name.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// `matmul/i2_s/6912x2560/b1/t1/hot`, ...
    pub id: String,
    /// Area.
    pub category: Category,
    /// Class of severity.
    pub class: Class,
    /// What one run counts.
    pub work: Work,
    /// What is computed.
    pub kind: Kind,
    /// How results must agree. Integers and stated float formulas: exact. Native arithmetic: within its bound.
    pub contract: Contract,
}

impl Workload {
    /// The workload that computes `kind`, named by the permanent grammar.
    pub fn new(kind: Kind) -> Self {
        let (category, class) = match kind {
            Kind::Quantize { .. } | Kind::Dequantize { .. } | Kind::Activation { .. } => {
                (Category::Quantization, Class::Secondary)
            }
            Kind::Matmul { .. } | Kind::Linear { .. } => (Category::Kernels, Class::Core),
            Kind::MixedPrecision { .. } => (Category::MixedPrecision, Class::Core),
            Kind::Overhead => (Category::Kernels, Class::Secondary),
            Kind::Inference(_) => (Category::Inference, Class::Core),
        };
        let contract = match kind {
            Kind::MixedPrecision { float_type, cols, arithmetic: Arithmetic::Native, .. } => {
                native::contract(float_type, cols)
            }
            _ => Contract::Exact,
        };
        Self { id: kind.id(), category, class, work: kind.work(), kind, contract }
    }

    /// The same work on one thread, under the same id and hence over the same inputs: what is expected of any number.
    pub fn on_one_thread(&self) -> Self {
        let mut alone = self.clone();
        match &mut alone.kind {
            Kind::Matmul { threads, .. }
            | Kind::Linear { threads, .. }
            | Kind::MixedPrecision { threads, .. }
            | Kind::Inference(Inference { threads, .. }) => *threads = 1,
            Kind::Quantize { .. } | Kind::Dequantize { .. } | Kind::Activation { .. } | Kind::Overhead => {}
        }
        alone
    }

    /// A whole model of a real file: `file:<hash>/<id>`.
    pub fn of_file(work: Inference, file_hash8: &str) -> Self {
        let workload = Self::new(Kind::Inference(work));
        Self { id: format!("file:{file_hash8}/{}", workload.id), ..workload }
    }

    /// The same work on a tensor of a real file: `file:<hash>/<id>+tensor=<name>`.
    pub fn of_tensor(kind: Kind, file_hash8: &str, tensor: &str) -> Self {
        let workload = Self::new(kind);
        Self { id: format!("file:{file_hash8}/{}+tensor={tensor}", workload.id), ..workload }
    }

    /// How close the last run came to the product of the weights as they were drawn, before they were stored, in
    /// f64: what the storage costs, and native arithmetic with it. Of the first activation row; only for mixed precision.
    pub fn accuracy(&self, inputs: &Inputs<'_>, run: &dyn Run) -> Option<Accuracy> {
        let Kind::MixedPrecision { rows, .. } = self.kind else { return None };
        let outputs = run.outputs();
        let Some((_, Output::F32(y))) = outputs.first() else { return None };
        accuracy::accuracy(y.get(..rows)?, inputs.unstored_product()).ok()
    }
}

impl Kind {
    /// The layout of its ternary weights, if it has any.
    pub fn layout(&self) -> Option<Layout> {
        match *self {
            Self::Quantize { layout, .. }
            | Self::Dequantize { layout }
            | Self::Matmul { layout, .. }
            | Self::Linear { layout, .. } => Some(layout),
            Self::Overhead => Some(overhead_layout()),
            Self::Activation { .. } | Self::MixedPrecision { .. } | Self::Inference(_) => None,
        }
    }

    /// Activation rows of one run.
    pub fn batch(&self) -> usize {
        match *self {
            Self::Matmul { batch, .. } | Self::Linear { batch, .. } | Self::MixedPrecision { batch, .. } => {
                batch
            }
            Self::Activation { rows, .. } => rows,
            Self::Overhead => 1,
            Self::Quantize { .. } | Self::Dequantize { .. } | Self::Inference(_) => 0,
        }
    }

    fn id(&self) -> String {
        let shape = |layout: &Layout| format!("{}/{}x{}", layout.format(), layout.rows(), layout.cols());
        let tail = |layout: &Layout, batch: usize, threads: usize, temperature: Temperature| {
            format!("{}/b{batch}/t{threads}/{}", shape(layout), temperature.name())
        };
        match self {
            Self::Quantize { layout, rule: WeightRule::AbsMean } => format!("quantize/{}", shape(layout)),
            Self::Quantize { layout, rule: WeightRule::MaxAbs } => {
                format!("quantize/{}+rule=maxabs", shape(layout))
            }
            Self::Dequantize { layout } => format!("dequantize/{}", shape(layout)),
            Self::Activation { cols, rows } => format!("activation/int8/{cols}x{rows}"),
            Self::Matmul { layout, batch, threads, temperature } => {
                format!("matmul/{}", tail(layout, *batch, *threads, *temperature))
            }
            Self::Linear { layout, batch, threads, temperature } => {
                format!("linear/{}", tail(layout, *batch, *threads, *temperature))
            }
            Self::MixedPrecision { float_type, rows, cols, batch, threads, arithmetic } => {
                let name = format!("{float_type:?}").to_lowercase();
                let suffix = if *arithmetic == Arithmetic::Native { NATIVE_SUFFIX } else { "" };
                format!("mixed_precision/{name}/{rows}x{cols}/b{batch}/t{threads}{suffix}")
            }
            Self::Overhead => "overhead/call".to_string(),
            Self::Inference(work) => work.id(),
        }
    }

    /// Threads of its sides.
    pub fn threads(&self) -> usize {
        match *self {
            Self::Matmul { threads, .. }
            | Self::Linear { threads, .. }
            | Self::MixedPrecision { threads, .. } => threads,
            Self::Inference(work) => work.threads,
            Self::Quantize { .. } | Self::Dequantize { .. } | Self::Activation { .. } | Self::Overhead => 1,
        }
    }

    fn work(&self) -> Work {
        match *self {
            Self::Activation { cols, rows } => {
                let values = (cols * rows) as u64;
                return Work { weights: values, bytes: 4 * values, ..Work::default() };
            }
            Self::MixedPrecision { float_type, rows, cols, batch, .. } => {
                let weights = (rows * cols) as u64;
                let bytes = float_type.bytes_of(rows * cols) as u64;
                return Work { weights, bytes, ops: 2 * weights * batch as u64, tokens: 0 };
            }
            Self::Inference(work) => return work.work(),
            _ => {}
        }
        let layout = self.layout().expect("every other kind has weights");
        let weights = layout.n_weights() as u64;
        let ops = 2 * weights * self.batch() as u64;
        Work { weights, bytes: layout.code_bytes() as u64, ops, tokens: 0 }
    }
}

/// Behind the id of a product in native arithmetic.
pub const NATIVE_SUFFIX: &str = "+arithmetic=native";

/// The matrix of the overhead workload: one row of one block.
fn overhead_layout() -> Layout {
    Layout::i2s(1, 128).expect("one block is the smallest I2_S matrix")
}
