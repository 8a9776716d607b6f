//! How close to the float64 product of the unquantised activations each backend comes, per format.
//!
//! The gated set is fixed: 256 x 2560 ternary weights with P(0) = 1/3, standard normal activations. Beside it,
//! ungated, the same with one activation at 50 and at 100 sigma, where int8 loses accuracy by nature.

use super::{Cast, agree, skip};
use crate::backends::{Backend, BackendError};
use crate::bitnet::formats::{self, Layout, WeightFormat, Weights};
use crate::bitnet::quant::accuracy::{self, GATED_COLS, GATED_ROWS, OUTLIER_SIGMAS};
use crate::record::{self, Recording};

/// The weights' scale; accuracy does not depend on it.
const SCALE: f32 = 0.037;

/// Adds a row for every backend that takes part, format and input set.
pub(super) fn record(seed: u64, cast: &Cast, recording: &mut Recording) {
    let codes = accuracy::gated_codes(seed);
    let mut sets = vec![("gated".to_owned(), accuracy::gated_activations(seed))];
    for sigma in OUTLIER_SIGMAS {
        sets.push((format!("outlier-{sigma}-sigma"), accuracy::outlier_activations(seed, sigma)));
    }
    for format in WeightFormat::ALL {
        for (set, x) in &sets {
            let name = format!("accuracy/{format}/{GATED_ROWS}x{GATED_COLS}/{set}");
            for backend in std::iter::once(cast.oracle()).chain(cast.compared().iter().map(AsRef::as_ref)) {
                // What repacks I2_S takes nothing else.
                if backend.repacks().is_some() && format != WeightFormat::I2S {
                    continue;
                }
                match measured(format, &codes, x, backend) {
                    Ok(found) => recording.accuracy.push(row(&name, backend.name(), &found)),
                    Err(BackendError::Unsupported { what, .. }) => {
                        let why = format!("does not support {what}");
                        recording.skipped.push(skip(&format!("{name} on {}", backend.name()), &why));
                    }
                    // A NaN among the results, say: not a missing number but a wrong one.
                    Err(why) => recording.agreements.push(agree::errored(&name, backend.name(), &why)),
                }
            }
        }
    }
}

fn measured(
    format: WeightFormat,
    codes: &[i8],
    x: &[f32],
    backend: &dyn Backend,
) -> Result<accuracy::Accuracy, BackendError> {
    let layout = Layout::published(format, GATED_ROWS, GATED_COLS)?;
    let mut bytes = vec![0; layout.packed_bytes()];
    formats::pack(&layout, codes, SCALE, &mut bytes)?;
    // NaN: a kernel that writes nothing must not look like one that computed zeros.
    let mut y = vec![f32::NAN; GATED_ROWS];
    backend.prepare_matmul(Weights::new(layout, &bytes)?, 1, 1)?.linear_f32_f32(x, &mut y)?;
    let internal = |why: &dyn std::fmt::Display| BackendError::Internal {
        backend: backend.name().into(),
        what: why.to_string(),
    };
    let y64 = accuracy::reference_product(codes, SCALE, x).map_err(|why| internal(&why))?;
    accuracy::accuracy(&y, &y64).map_err(|why| internal(&why))
}

fn row(workload: &str, backend: &str, found: &accuracy::Accuracy) -> record::Accuracy {
    record::Accuracy {
        workload: workload.into(),
        backend: backend.into(),
        accuracy_percent: found.accuracy_percent,
        relative_l2: found.relative_l2_error,
        snr_db: Some(found.snr_db).filter(|snr| snr.is_finite()),
        max_abs: found.max_abs_error,
        ..record::Accuracy::default()
    }
}
