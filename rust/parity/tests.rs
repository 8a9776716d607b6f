use proptest::prelude::*;

use super::*;

fn relative(rtol: f64, atol: f64) -> Contract {
    Contract::Relative { rtol, atol, derivation: "test".into() }
}

#[test]
fn nothing_compared_is_never_agreement() {
    for contract in [Contract::Exact, Contract::Ulps(9), relative(1.0, 1.0)] {
        let agreement = compare::<f32>(&contract, &[], &[]);
        assert!(!agreement.holds() && !agreement.exact && agreement.compared == 0);
    }
}

#[test]
fn different_lengths_are_never_agreement() {
    for (expected, actual) in [(&[1, 2][..], &[1][..]), (&[1], &[1, 2]), (&[], &[1])] {
        let agreement = compare::<i32>(&Contract::Exact, expected, actual);
        assert!(!agreement.holds() && !agreement.exact);
        assert_eq!(
            agreement.length_mismatch,
            Some(LengthMismatch { expected: expected.len(), actual: actual.len() })
        );
        assert_eq!(agreement.mismatches, 0, "the common part is equal");
    }
}

#[test]
fn exact_floats_are_compared_by_bits() {
    let quiet = f32::from_bits(0x7fc0_0000);
    let payload = f32::from_bits(0x7fc0_0001);
    assert!(compare(&Contract::Exact, &[quiet, -0.0], &[quiet, -0.0]).holds());
    let agreement = compare(&Contract::Exact, &[1.0, 0.0, quiet], &[1.0, -0.0, payload]);
    assert_eq!((agreement.mismatches, agreement.incomparable, agreement.compared), (2, 1, 3));
    let first = agreement.first_mismatch.expect("two pairs differ");
    assert_eq!(first.index, 1);
    assert_eq!(first.expected, "0.0 (0x00000000)");
    assert_eq!(first.actual, "-0.0 (0x80000000)");
}

#[test]
fn ulps_count_representable_floats() {
    let next = |x: f32, n: u32| f32::from_bits(x.to_bits() + n);
    let up_to = |most, e, a| compare(&Contract::Ulps(most), &[e], &[a]);
    assert!(up_to(3, 1.0, next(1.0, 3)).holds());
    assert!(!up_to(2, 1.0, next(1.0, 3)).holds());
    assert_eq!(up_to(2, 1.0, next(1.0, 3)).max_ulps, Some(3));
    // The smallest subnormals of both signs are two apart, with the zeros between them.
    let tiny = f32::from_bits(1);
    assert_eq!(up_to(0, tiny, -tiny).max_ulps, Some(2));
    assert!(up_to(0, 0.0, -0.0).holds() && !up_to(0, 0.0, -0.0).exact);
    // One step above the largest float is infinity by its bits; it is not one unit away.
    assert!(!up_to(u32::MAX, f32::MAX, f32::INFINITY).holds());
    assert!(!up_to(u32::MAX, f32::NAN, 1.0).holds());
    assert!(!up_to(u32::MAX, f32::INFINITY, f32::NEG_INFINITY).holds());
}

#[test]
fn relative_bound_is_closed_and_refers_to_the_reference() {
    assert!(compare(&relative(0.5, 0.0), &[2.0_f32], &[3.0]).holds());
    assert!(!compare(&relative(0.5, 0.0), &[2.0_f32], &[3.000_001]).holds());
    assert!(!compare(&relative(0.25, 0.0), &[2.0_f32], &[3.0]).holds());
    assert!(compare(&relative(0.0, 1.0), &[2.0_f32], &[3.0]).holds());
    assert!(!compare(&relative(0.5, 0.0), &[0.0_f32], &[1e-30]).holds());
}

#[test]
fn a_meaningless_tolerance_admits_nothing() {
    for (rtol, atol) in [(f64::NAN, 0.0), (0.0, f64::NAN), (f64::INFINITY, 0.0), (0.0, f64::INFINITY)] {
        assert!(!compare(&relative(rtol, atol), &[1.0_f32], &[1.5]).holds());
    }
    assert!(!compare(&relative(-1.0, 0.0), &[1.0_f32], &[1.5]).holds());
    assert!(!compare(&relative(1.0, 1.0), &[f32::NAN], &[1.0]).holds());
    assert!(!compare(&relative(1.0, 1.0), &[1.0], &[f32::INFINITY]).holds());
}

#[test]
fn integers_span_their_whole_range() {
    let agreement = compare(&Contract::Exact, &[i32::MIN, 0], &[i32::MAX, 0]);
    assert_eq!(agreement.max_abs, f64::from(u32::MAX));
    assert_eq!((agreement.mismatches, agreement.max_ulps), (1, None));
    assert!(compare(&Contract::Ulps(255), &[i8::MIN], &[i8::MAX]).holds());
    assert!(!compare(&Contract::Ulps(254), &[i8::MIN], &[i8::MAX]).holds());
    assert!(!compare(&Contract::Exact, &[0_u8, 255], &[0, 254]).holds());
}

#[test]
fn evidence_survives_json() {
    for contract in [Contract::Exact, Contract::Ulps(4), relative(1e-5, 1e-9)] {
        let agreement = compare(&contract, &[1.0_f32, 2.0], &[1.0, f32::NAN]);
        let text = serde_json::to_string(&agreement).expect("serialises");
        assert_eq!(serde_json::from_str::<Agreement>(&text).expect("reads back"), agreement);
    }
}

proptest! {
    /// Any one planted difference is found where it is, whatever the length.
    #[test]
    fn one_planted_difference_is_found(
        values in prop::collection::vec(any::<i32>(), 1..130), at in any::<prop::sample::Index>(), bit in 0..32
    ) {
        let at = at.index(values.len());
        let mut changed = values.clone();
        changed[at] ^= 1 << bit;
        let agreement = compare(&Contract::Exact, &values, &changed);
        prop_assert!(!agreement.holds() && !agreement.exact);
        prop_assert_eq!(agreement.mismatches, 1);
        prop_assert_eq!(agreement.first_mismatch.map(|first| first.index), Some(at));
        prop_assert!(compare(&Contract::Exact, &values, &values).holds());
    }

    /// Strictness is ordered: bit-equal agrees under all; a wider bound admits what a narrower one does; the
    /// distance is symmetric. `any::<u32>` bit patterns include NaNs, infinities and subnormals.
    #[test]
    fn contracts_are_ordered(bits in prop::collection::vec((any::<u32>(), any::<u32>()), 1..40), n in 0..u32::MAX) {
        let expected: Vec<f32> = bits.iter().map(|pair| f32::from_bits(pair.0)).collect();
        let actual: Vec<f32> = bits.iter().map(|pair| f32::from_bits(pair.1)).collect();
        for contract in [Contract::Exact, Contract::Ulps(n), relative(0.0, 0.0)] {
            prop_assert!(compare(&contract, &expected, &expected).holds());
        }
        let narrow = compare(&Contract::Ulps(n), &expected, &actual);
        let wide = compare(&Contract::Ulps(n + 1), &expected, &actual);
        prop_assert!(wide.mismatches <= narrow.mismatches);
        prop_assert!(narrow.incomparable <= narrow.mismatches);
        let mirrored = compare(&Contract::Ulps(n), &actual, &expected);
        prop_assert_eq!(
            (mirrored.mismatches, mirrored.max_ulps, mirrored.max_abs),
            (narrow.mismatches, narrow.max_ulps, narrow.max_abs)
        );
    }
}
