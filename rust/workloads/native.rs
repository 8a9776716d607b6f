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
