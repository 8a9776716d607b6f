//! Quantisation: floats to ternary weights ([`absmean`]), floats to int8 activations ([`absmax`]), and how
//! much a product loses by it ([`accuracy`]). To the bit: `docs/NUMERICS.md`.

pub mod absmax;
pub mod absmean;
pub mod accuracy;

/// Why nothing was quantised or measured.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum QuantError {
    /// A NaN or an infinity among the inputs; found before any output is written.
    #[error("{what} {index} is {value}, expected finite numbers")]
    NonFinite {
        /// Which input.
        what: &'static str,
        /// Position of the first one.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// A buffer has the wrong length.
    #[error("{what} has {actual} elements, expected {expected}")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// Elements it must have.
        expected: usize,
        /// Elements it has.
        actual: usize,
    },
    /// There is nothing to measure: no evidence is never a pass.
    #[error("{what} is empty, expected at least one element")]
    Empty {
        /// Which buffer.
        what: &'static str,
    },
}

fn check_finite(what: &'static str, values: &[f32]) -> Result<(), QuantError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(QuantError::NonFinite { what, index, value: values[index] }),
        None => Ok(()),
    }
}

fn check_length(what: &'static str, expected: usize, actual: usize) -> Result<(), QuantError> {
    if actual == expected { Ok(()) } else { Err(QuantError::Length { what, expected, actual }) }
}
