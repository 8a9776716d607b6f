//! Making one backend ready for one workload.

use super::{Inputs, Kind, Workload, inference};
use crate::backends::{Backend, BackendError, FloatMatmul, Matmul, WeightRule};
use crate::bitnet::formats::{Layout, Weights};

/// A result buffer, as parity reads it.
#[derive(Clone, Copy, Debug)]
pub enum Output<'a> {
    /// Packed bytes.
    U8(&'a [u8]),
    /// Activation codes.
    I8(&'a [i8]),
    /// Integer products or sums.
    I32(&'a [i32]),
    /// Floats.
    F32(&'a [f32]),
}

/// A workload ready on one backend. `run` is what is timed: it allocates nothing.
pub trait Run {
    /// Does the work once.
    fn run(&mut self) -> Result<(), BackendError>;

    /// What the last run produced, each part named.
    fn outputs(&self) -> Vec<(&'static str, Output<'_>)>;

    /// Fills every output with values that no right result has throughout, so that a run that writes nothing, or
    /// not everything, shows.
    fn poison(&mut self);

    /// What [`Run::run`] does around a kernel that it does not reach directly, and nothing of the kernel; outputs are no
    /// results then. `None` where there is no such way.
    fn empty_call(&mut self) -> Option<Result<(), BackendError>> {
        None
    }

    /// Runs until every copy of the weights was used once: 1 where there are no copies.
    fn copies(&self) -> usize {
        1
    }

    /// Bytes that making ready took beyond the weights, for one copy of them; `None` where nobody says.
    fn prepared_bytes(&self) -> Option<usize> {
        None
    }
}

/// What poisoned outputs hold.
const POISON_U8: u8 = 0xa5;
const POISON_I8: i8 = 0x5a;
pub(super) const POISON_I32: i32 = 0x5a5a_5a5a;
pub(super) const POISON_F32: f32 = f32::NAN;

impl Workload {
    /// Makes `backend` ready over `inputs`: packs, uploads and allocates; never timed.
    pub fn prepare<'a>(
        &self,
        inputs: &'a Inputs<'_>,
        backend: &'a dyn Backend,
    ) -> Result<Box<dyn Run + 'a>, BackendError> {
        let products = |batch: usize, threads: usize| -> Result<Vec<Box<dyn Matmul + 'a>>, BackendError> {
            inputs
                .weights()
                .into_iter()
                .map(|weights| backend.prepare_matmul(weights, batch, threads))
                .collect()
        };
        Ok(match self.kind {
            Kind::Quantize { layout, rule } => {
                let bytes = vec![0; layout.packed_bytes()];
                Box::new(Quantize { backend, layout, rule, src: &inputs.floats, bytes, scale: [0.0] })
            }
            Kind::Dequantize { layout } => {
                let weights = inputs.weights()[0];
                Box::new(Dequantize { backend, weights, floats: vec![0.0; layout.n_weights()] })
            }
            Kind::Activation { cols, rows } => Box::new(Activation {
                backend,
                cols,
                x: &inputs.floats,
                codes: vec![0; cols * rows],
                scales: vec![0.0; rows],
                sums: vec![0; rows],
            }),
            Kind::Matmul { layout, batch, threads, .. } => {
                let out = vec![0; batch * layout.rows()];
                Box::new(IntegerProduct {
                    products: products(batch, threads)?,
                    next: 0,
                    q: &inputs.codes,
                    out,
                })
            }
            Kind::Overhead => Box::new(IntegerProduct {
                products: products(1, 1)?,
                next: 0,
                q: &inputs.codes,
                out: vec![0],
            }),
            Kind::Inference(work) => inference::prepare(&work, inputs, backend)?,
            Kind::Linear { layout, batch, threads, .. } => {
                let y = vec![0.0; batch * layout.rows()];
                Box::new(LinearLayer { products: products(batch, threads)?, next: 0, x: &inputs.floats, y })
            }
            Kind::MixedPrecision { rows, batch, threads, arithmetic, .. } => {
                let matrix = inputs.float_matrix().expect("inputs of this workload have a float matrix");
                let product = backend.prepare_float_matmul(matrix, arithmetic, batch, threads)?;
                Box::new(FloatProduct { product, x: &inputs.floats, y: vec![0.0; batch * rows] })
            }
        })
    }
}

struct Quantize<'a> {
    backend: &'a dyn Backend,
    layout: Layout,
    rule: WeightRule,
    src: &'a [f32],
    bytes: Vec<u8>,
    scale: [f32; 1],
}

impl Run for Quantize<'_> {
    fn run(&mut self) -> Result<(), BackendError> {
        self.scale[0] = self.backend.quantize_weights(&self.layout, self.rule, self.src, &mut self.bytes)?;
        Ok(())
    }

    fn outputs(&self) -> Vec<(&'static str, Output<'_>)> {
        vec![("bytes", Output::U8(&self.bytes)), ("scale", Output::F32(&self.scale))]
    }

    fn poison(&mut self) {
        self.bytes.fill(POISON_U8);
        self.scale.fill(POISON_F32);
    }
}

struct Dequantize<'a> {
    backend: &'a dyn Backend,
    weights: Weights<'a>,
    floats: Vec<f32>,
}

impl Run for Dequantize<'_> {
    fn run(&mut self) -> Result<(), BackendError> {
        self.backend.dequantize_weights(&self.weights, &mut self.floats)
    }

    fn outputs(&self) -> Vec<(&'static str, Output<'_>)> {
        vec![("weights", Output::F32(&self.floats))]
    }

    fn poison(&mut self) {
        self.floats.fill(POISON_F32);
    }
}

struct Activation<'a> {
    backend: &'a dyn Backend,
    cols: usize,
    x: &'a [f32],
    codes: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i32>,
}

impl Run for Activation<'_> {
    fn run(&mut self) -> Result<(), BackendError> {
        let Self { backend, cols, x, codes, scales, sums } = self;
        backend.quantize_activations(x, *cols, codes, scales, sums)
    }

    fn outputs(&self) -> Vec<(&'static str, Output<'_>)> {
        vec![
            ("codes", Output::I8(&self.codes)),
            ("scales", Output::F32(&self.scales)),
            ("sums", Output::I32(&self.sums)),
        ]
    }

    fn poison(&mut self) {
        self.codes.fill(POISON_I8);
        self.scales.fill(POISON_F32);
        self.sums.fill(POISON_I32);
    }
}

struct IntegerProduct<'a> {
    products: Vec<Box<dyn Matmul + 'a>>,
    next: usize,
    q: &'a [i8],
    out: Vec<i32>,
}

impl Run for IntegerProduct<'_> {
    fn run(&mut self) -> Result<(), BackendError> {
        let product = rotate(&mut self.products, &mut self.next);
        product.matmul_i8_i32(self.q, &mut self.out)
    }

    fn empty_call(&mut self) -> Option<Result<(), BackendError>> {
        self.products[0].empty_call(self.q, &mut self.out)
    }

    fn outputs(&self) -> Vec<(&'static str, Output<'_>)> {
        vec![("products", Output::I32(&self.out))]
    }

    fn poison(&mut self) {
        self.out.fill(POISON_I32);
    }

    fn copies(&self) -> usize {
        self.products.len()
    }

    fn prepared_bytes(&self) -> Option<usize> {
        self.products[0].prepared_bytes()
    }
}

struct LinearLayer<'a> {
    products: Vec<Box<dyn Matmul + 'a>>,
    next: usize,
    x: &'a [f32],
    y: Vec<f32>,
}

impl Run for LinearLayer<'_> {
    fn run(&mut self) -> Result<(), BackendError> {
        let product = rotate(&mut self.products, &mut self.next);
        product.linear_f32_f32(self.x, &mut self.y)
    }

    fn outputs(&self) -> Vec<(&'static str, Output<'_>)> {
        vec![("outputs", Output::F32(&self.y))]
    }

    fn poison(&mut self) {
        self.y.fill(POISON_F32);
    }

    fn copies(&self) -> usize {
        self.products.len()
    }

    fn prepared_bytes(&self) -> Option<usize> {
        self.products[0].prepared_bytes()
    }
}

struct FloatProduct<'a> {
    product: Box<dyn FloatMatmul + 'a>,
    x: &'a [f32],
    y: Vec<f32>,
}

impl Run for FloatProduct<'_> {
    fn run(&mut self) -> Result<(), BackendError> {
        self.product.matmul_f32(self.x, &mut self.y)
    }

    fn outputs(&self) -> Vec<(&'static str, Output<'_>)> {
        vec![("outputs", Output::F32(&self.y))]
    }

    fn poison(&mut self) {
        self.y.fill(POISON_F32);
    }
}

/// The next copy in turn; with one copy, always that one.
fn rotate<'r, 'a>(
    products: &'r mut [Box<dyn Matmul + 'a>],
    next: &mut usize,
) -> &'r mut Box<dyn Matmul + 'a> {
    let current = *next;
    *next = if current + 1 == products.len() { 0 } else { current + 1 };
    &mut products[current]
}
