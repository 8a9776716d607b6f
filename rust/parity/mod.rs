//! Do they agree: two slices and a contract. Knows nothing of what the numbers mean.
//!
//! A [`Contract`] says how close two results must be; [`compare`] walks both slices once and returns an
//! [`Agreement`]: evidence, not a yes or no. Whether it *is* an agreement is [`Agreement::holds`], and it
//! holds only if something was compared: different lengths or empty slices are never agreement.
//!
//! Order of strictness, property-tested: bit-equal pairs agree under every contract. Beyond that a NaN agrees
//! with nothing, and an infinity with nothing but itself, however wide the tolerance.

mod element;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

pub use element::Element;

/// How close two results must be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contract {
    /// Bit equality. For floats NaN payloads count, and -0 is not +0.
    Exact,
    /// At most so many representable numbers apart (units in the last place); for integers, so many units.
    /// -0 and +0 are 0 apart.
    Ulps(u32),
    /// `|expected - actual| <= atol + rtol * |expected|`, computed in float64.
    Relative {
        /// Relative tolerance.
        rtol: f64,
        /// Absolute tolerance, in the unit of the values.
        atol: f64,
        /// Why these bounds: where they are derived, never "it was seen to pass".
        derivation: Cow<'static, str>,
    },
}

/// The first pair outside the contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mismatch {
    /// Position in both slices.
    pub index: usize,
    /// The reference's value as text; floats with their bits.
    pub expected: String,
    /// The subject's value as text; floats with their bits.
    pub actual: String,
}

/// Two slices that cannot agree because they differ in length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LengthMismatch {
    /// Elements of the reference.
    pub expected: usize,
    /// Elements of the subject.
    pub actual: usize,
}

/// What comparing two slices showed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// The contract they were compared under.
    pub contract: Contract,
    /// Something was compared, the lengths are equal, and every pair is bit-equal, whatever the contract.
    pub exact: bool,
    /// Pairs looked at: the shorter of the two lengths.
    pub compared: usize,
    /// Pairs outside the contract.
    pub mismatches: usize,
    /// Pairs that are not bit-equal and have no distance: a NaN or an infinity on one side.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub incomparable: usize,
    /// Present if the lengths differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length_mismatch: Option<LengthMismatch>,
    /// The first pair outside the contract.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_mismatch: Option<Mismatch>,
    /// Largest `|expected - actual|` over the pairs that have a distance.
    pub max_abs: f64,
    /// Largest distance in units in the last place over those pairs; floats only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ulps: Option<u64>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Agreement {
    /// Whether the contract was seen to hold: something was compared, the lengths are equal, no pair is outside.
    pub fn holds(&self) -> bool {
        self.compared > 0 && self.length_mismatch.is_none() && self.mismatches == 0
    }
}

impl Contract {
    /// Whether one pair is inside.
    fn admits<T: Element>(&self, expected: T, actual: T) -> bool {
        if expected.same_bits(actual) {
            return true;
        }
        let Some(distance) = expected.distance(actual) else { return false };
        match self {
            Self::Exact => false,
            Self::Ulps(most) => distance.steps <= u64::from(*most),
            Self::Relative { rtol, atol, .. } => {
                let bound = atol + rtol * expected.magnitude();
                // An infinite or NaN bound would admit anything or say nothing.
                bound.is_finite() && distance.absolute <= bound
            }
        }
    }
}

/// Compares `actual` (the subject's) with `expected` (the reference's), element by element.
pub fn compare<T: Element>(contract: &Contract, expected: &[T], actual: &[T]) -> Agreement {
    let lengths_differ = expected.len() != actual.len();
    let mut agreement = Agreement {
        contract: contract.clone(),
        exact: !lengths_differ && !expected.is_empty(),
        compared: expected.len().min(actual.len()),
        mismatches: 0,
        incomparable: 0,
        length_mismatch: lengths_differ
            .then_some(LengthMismatch { expected: expected.len(), actual: actual.len() }),
        first_mismatch: None,
        max_abs: 0.0,
        max_ulps: T::IS_FLOAT.then_some(0),
    };
    for (index, (&e, &a)) in expected.iter().zip(actual).enumerate() {
        if e.same_bits(a) {
            continue;
        }
        agreement.exact = false;
        match e.distance(a) {
            Some(distance) => {
                agreement.max_abs = agreement.max_abs.max(distance.absolute);
                agreement.max_ulps = agreement.max_ulps.map(|most| most.max(distance.steps));
            }
            None => agreement.incomparable += 1,
        }
        if !contract.admits(e, a) {
            agreement.mismatches += 1;
            agreement.first_mismatch.get_or_insert_with(|| Mismatch {
                index,
                expected: e.describe(),
                actual: a.describe(),
            });
        }
    }
    agreement
}

#[cfg(test)]
mod tests;
