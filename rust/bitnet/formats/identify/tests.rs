//! Which findings are certain, which are doubtful, and that no more is ever claimed.

use super::*;
use crate::bitnet::formats::pack;
use crate::rng::Rng;

const ROWS: usize = 256;
const COLS: usize = 512;

/// Codes with P(0) = `share(row, col)`, signs by a coin.
fn codes(seed: u64, share: impl Fn(usize, usize) -> f64) -> Vec<i8> {
    let mut rng = Rng::new(seed);
    let mut draw = |row, col| if rng.unit_f64() < share(row, col) { 0 } else { i8::from(rng.coin()) * 2 - 1 };
    (0..ROWS * COLS).map(|index| draw(index / COLS, index % COLS)).collect()
}

fn packed(format: WeightFormat, codes: &[i8]) -> Vec<u8> {
    let layout = Layout::published(format, ROWS, COLS).unwrap();
    let mut bytes = vec![0; layout.packed_bytes()];
    pack(&layout, codes, 0.5, &mut bytes).unwrap();
    bytes
}

fn finding<'a>(found: &'a [Identification], name: &str) -> &'a Finding {
    &found.iter().find(|one| one.name.starts_with(name)).unwrap().finding
}

fn consistent(found: &[Identification]) -> Vec<&str> {
    found.iter().filter(|one| is_consistent(one)).map(|one| one.name.as_str()).collect()
}

#[test]
fn without_structure_the_orders_of_i2s_are_indistinguishable() {
    for seed in 0..5 {
        let found = identify(&packed(WeightFormat::I2S, &codes(seed, |_, _| 1.0 / 3.0)), ROWS, COLS);
        let four = ["i2_s", "i2_s-arm64", "i2_s-four-row", "i2_s-consecutive-lsb"];
        assert_eq!(consistent(&found), four);
        assert!(matches!(
            finding(&found, "tl1"),
            Finding::Impossible { why: FormatError::InvalidCode { offset: 0..64, .. } }
        ));
        assert!(matches!(finding(&found, "tl2"), Finding::Impossible { why: FormatError::Length { .. } }));
        assert!(conclusion(&found).contains("indistinguishable from bytes alone"));
        assert!(matches!(&found[0].finding, Finding::Consistent { alike } if *alike == four[1..]));
    }
}

#[test]
fn each_tiled_format_is_the_only_one_that_fits_its_bytes() {
    for format in [WeightFormat::Tl1, WeightFormat::Tl2] {
        let found = identify(&packed(format, &codes(1, |_, _| 0.4)), ROWS, COLS);
        let name = consistent(&found)[0];
        assert!(name.starts_with(format.name()), "{name}");
        assert_eq!(conclusion(&found), format!("of the layouts we know, only {name} fits"));
    }
}

/// Rows and columns that differ speak against the order that mixes rows, but cannot separate the orders that only
/// permute columns within a block.
#[test]
fn different_rows_and_columns_exclude_only_the_order_that_mixes_them() {
    let share = |row: usize, col: usize| 0.2 + 0.3 * (((row * 37) % 64 + (col * 101) % 64) as f64 / 128.0);
    let found = identify(&packed(WeightFormat::I2S, &codes(2, share)), ROWS, COLS);
    assert_eq!(consistent(&found), ["i2_s", "i2_s-arm64", "i2_s-consecutive-lsb"]);
    assert!(matches!(finding(&found, "i2_s-four-row"), Finding::Doubtful { .. }));
    let of = |i: usize| found[i].statistics.unwrap();
    assert_eq!(of(0).row_dispersion, of(3).row_dispersion);
    assert_eq!(of(0).zero_share, of(4).zero_share);
}

/// Neighbouring columns alike within 8: the one property by which the permutations within a block differ.
#[test]
fn alike_neighbours_favour_the_order_that_keeps_them_together() {
    let share = |_: usize, col: usize| 0.3 + 0.2 * ((col / 8 * 5 % 8) as f64 / 8.0);
    let found = identify(&packed(WeightFormat::I2S, &codes(3, share)), ROWS, COLS);
    assert_eq!(consistent(&found).first(), Some(&"i2_s"));
    assert!(matches!(finding(&found, "i2_s-consecutive-lsb"), Finding::Doubtful { .. }));
}

#[test]
fn damage_and_wrong_lengths_are_impossible_everywhere() {
    let mut bytes = packed(WeightFormat::I2S, &codes(4, |_, _| 0.3));
    bytes[100] = 0xff;
    let found = identify(&bytes, ROWS, COLS);
    assert!(found.iter().all(|one| matches!(one.finding, Finding::Impossible { .. })));
    assert_eq!(conclusion(&found), "no layout we know fits");
    let why = found[0].to_string();
    assert_eq!(
        why,
        "i2_s: impossible: byte 100 holds 0xff with code 3, which no i2_s packer produces: \
         wrong layout or damaged bytes"
    );
    for (rows, cols) in [(0, 0), (usize::MAX, usize::MAX), (ROWS, COLS + 1), (ROWS + 4, COLS)] {
        let found = identify(&bytes, rows, cols);
        assert_eq!(found.len(), 6);
        assert!(found.iter().all(|one| matches!(one.finding, Finding::Impossible { .. })), "{rows}x{cols}");
    }
}

#[test]
fn senseless_readings_are_doubtful() {
    let doubtful = |bytes: &[u8]| match finding(&identify(bytes, ROWS, COLS), "i2_s").clone() {
        Finding::Doubtful { why } => why,
        other => panic!("{other:?}"),
    };
    let ordinary = codes(5, |_, _| 0.3);
    let mut bytes = packed(WeightFormat::I2S, &ordinary);
    bytes[ROWS * COLS / 4..][..4].copy_from_slice(&1e30_f32.to_le_bytes());
    assert_eq!(doubtful(&bytes), "the scale of a matrix with nonzero codes is 1e30");
    assert_eq!(doubtful(&packed(WeightFormat::I2S, &codes(5, |_, _| 0.0))), "0.0 % of the codes are zero");
    let positive: Vec<i8> = ordinary.iter().map(|code| code.abs()).collect();
    assert!(doubtful(&packed(WeightFormat::I2S, &positive)).contains(" % of the codes are +1, "));
    bytes[ROWS * COLS / 4..][..4].copy_from_slice(&(-1_f32).to_le_bytes());
    assert!(matches!(identify(&bytes, ROWS, COLS)[0].finding, Finding::Impossible { .. }));
}

#[test]
fn signs_over_zero_and_padding_speak_against_tl2() {
    let layout = Layout::published(WeightFormat::Tl2, ROWS, COLS).unwrap();
    let good = packed(WeightFormat::Tl2, &codes(6, |_, _| 0.3));
    assert!(matches!(finding(&identify(&good, ROWS, COLS), "tl2"), Finding::Consistent { .. }));
    let three = layout.three_cols() * ROWS;
    let mut signs = good.clone();
    signs[three / 6..three / 6 + three / 24].fill(0xff);
    let mut padding = good.clone();
    padding[layout.code_bytes()] = 1;
    for (bytes, says) in
        [(signs, "sign bits stand over magnitude 0"), (padding, "of the padding is not zero")]
    {
        let found = identify(&bytes, ROWS, COLS);
        assert!(
            matches!(finding(&found, "tl2"), Finding::Doubtful { why } if why.contains(says)),
            "{found:?}"
        );
    }
}

#[test]
fn expected_codes_identify_with_certainty() {
    for format in WeightFormat::ALL {
        let expected = codes(7, |_, _| 0.3);
        let bytes = packed(format, &expected);
        for one in identify_against(&bytes, ROWS, COLS, &expected).unwrap() {
            let right = one.name.split(' ').next() == Some(format.name());
            match one.agreement {
                Ok(agreement) => {
                    assert_eq!(agreement.equal_share == Some(1.0), right, "{}", one.name);
                    let in_place = match one.name.as_str() {
                        _ if right => 1.0,
                        "i2_s-arm64" => 1.0 / 4.0,
                        // t * (K / 4 - 32) = 96 * block: the first block of every quarter row where K = 512.
                        "i2_s-four-row" => 1.0 / 16.0,
                        "i2_s-consecutive-lsb" => 1.0 / 64.0,
                        _ => 0.0,
                    };
                    let off = agreement.correlation.unwrap() - in_place;
                    assert!(off.abs() < 5.0 * agreement.chance, "{}: {agreement:?}", one.name);
                }
                Err(why) => assert!(!right, "{}: {why}", one.name),
            }
        }
    }
    assert!(identify_against(&[], ROWS, COLS, &[]).is_err());
    assert!(correlate(&[], ROWS, COLS, &[]).is_err());
}

#[test]
fn float_weights_correlate_in_the_right_order_only() {
    let mut rng = Rng::new(8);
    let weights: Vec<f32> = (0..ROWS * COLS).map(|_| rng.normal() as f32).collect();
    let mut codes = vec![0; weights.len()];
    crate::bitnet::quant::absmean::absmean(&weights, &mut codes).unwrap();
    let found = correlate(&packed(WeightFormat::I2S, &codes), ROWS, COLS, &weights).unwrap();
    let of = |name: &str| found.iter().find(|one| one.name == name).unwrap().agreement.clone().unwrap();
    assert!(of("i2_s").correlation.unwrap() > 0.85);
    for layout in ForeignLayout::ALL {
        assert!(of(layout.name()).correlation.unwrap() < 0.3);
    }
    let constant =
        correlate(&packed(WeightFormat::I2S, &codes), ROWS, COLS, &vec![1.0; codes.len()]).unwrap();
    assert_eq!(constant[0].agreement.as_ref().unwrap().correlation, None);
}
