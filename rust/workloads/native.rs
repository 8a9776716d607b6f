//! How close a product in native arithmetic must be to the oracle's, on the inputs that workloads have: standard normal
//! weights and activations. `docs/NUMERICS.md` derives the bounds for any inputs.

use crate::bitnet::model::FloatType;
use crate::parity::Contract;

/// Half a unit in the last place of 1, in f32 and in F16.
const F32_ROUNDOFF: f64 = 1.0 / (1 << 24) as f64;
const F16_ROUNDOFF: f64 = 1.0 / (1 << 11) as f64;
/// Standard deviations beyond which a sum of roundings is not met: with 8, once in 4e13 outputs.
const DEVIATIONS: f64 = 8.0;

/// The contract of products with `cols` columns.
///
/// With normal inputs the sum of |w x| is 0.64 K in the mean and less than K for all that is drawn. What is rounded to F16 is
/// a sum of at most 24 products, whose square is 24 in the mean, and there are fewer than 1.1 K of them.
pub(super) fn contract(float_type: FloatType, cols: usize) -> Contract {
    let k = cols as f64;
    let roundings = (2 * cols.div_ceil(32) + 8) as f64;
    let gamma = roundings * F32_ROUNDOFF / (1.0 - roundings * F32_ROUNDOFF);
    let in_f16 = match float_type {
        FloatType::F16 => DEVIATIONS * F16_ROUNDOFF * (1.1 * 24.0 * k).sqrt(),
        _ => 0.0,
    };
    Contract::Relative {
        rtol: 2.0 * F32_ROUNDOFF,
        atol: gamma * k + in_f16,
        derivation: "docs/NUMERICS.md, native float products, standard normal inputs".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalog::by_id;
    use crate::backends::{Arithmetic, Backend, rust_scalar::RustScalar};
    use crate::bitnet::model::FloatMatrix;
    use crate::parity::compare;

    /// The contract is as wide as roundings are, and no wider: one lost column of 2560 is beyond it.
    #[test]
    fn a_lost_column_is_no_rounding() {
        for float_type in ["f16", "bf16"] {
            let id = format!("mixed_precision/{float_type}/640x2560/b1/t1+arithmetic=native");
            let workload = by_id(&id).expect("in the catalogue");
            let inputs = workload.inputs(42).expect("legal inputs");
            let product = |matrix: FloatMatrix<'_>, arithmetic, x: &[f32]| {
                let mut y = vec![0.0; matrix.rows()];
                let mut product = RustScalar.prepare_float_matmul(matrix, arithmetic, 1, 1).expect("it runs");
                product.matmul_f32(x, &mut y).expect("lengths that fit");
                y
            };
            let matrix = inputs.float_matrix().expect("a float matrix");
            let expected = product(matrix, Arithmetic::Native, &inputs.floats);
            assert!(compare(&workload.contract, &expected, &expected).holds());
            let mut lost = inputs.floats.clone();
            lost[1234] = 0.0;
            let spoiled = product(matrix, Arithmetic::Native, &lost);
            assert!(!compare(&workload.contract, &expected, &spoiled).holds(), "{id}");
            // Without the rounding of x to BF16 it would be another arithmetic.
            let unrounded = product(matrix, Arithmetic::F32, &inputs.floats);
            assert_eq!(
                compare(&workload.contract, &expected, &unrounded).holds(),
                float_type == "f16",
                "{id}"
            );
        }
    }
}
