//! Names the cause of a disagreement between products, when it is one of the ecosystem's usual ones.
//!
//! Each hypothesis is a full prediction: compute what the subject *would* have answered if the fault were there
//! and compare with what it did answer, everywhere. A cause is named only if its prediction is met at every
//! position; otherwise nothing is named. The hypotheses, cheapest first:
//!  1. sign: every product is the negative of the expected one;
//!  2. offset codes: codes 0, 1, 2 were multiplied, and the sum of the activations was not subtracted;
//!  3. int16 wrap: bitnet.cpp's AVX2 kernel, which adds up to 32 blocks in 16-bit lanes that wrap
//!     (`docs/FORMATS.md`, int16 wrap-around);
//!  4. layout: the bytes were read in another known order;
//!  5. one wrong code: in each differing row, one weight differs by 1 or 2, the same weight for every
//!     activation row.

use super::{Inputs, Kind, Output, Workload};
use crate::bitnet::formats::foreign::ForeignLayout;
use crate::bitnet::formats::{self, WeightFormat};

/// A named cause, and the evidence in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// `sign`, `offset-codes`, `int16-wrap`, `layout`, `one-code`.
    pub name: &'static str,
    /// One sentence for a person.
    pub sentence: String,
}

/// The cause of `actual` differing from `expected`, both the products of an integer matmul workload.
/// `None` where no hypothesis predicts `actual` exactly, or the workload is no integer product.
pub fn explain(
    workload: &Workload,
    inputs: &Inputs<'_>,
    expected: Output<'_>,
    actual: Output<'_>,
) -> Option<Cause> {
    let (Output::I32(expected), Output::I32(actual)) = (expected, actual) else { return None };
    if !matches!(workload.kind, Kind::Matmul { .. } | Kind::Overhead) || expected.len() != actual.len() {
        return None;
    }
    let weights = *inputs.weights().first()?;
    let layout = *weights.layout();
    let mut codes = vec![0; layout.n_weights()];
    formats::unpack(&weights, &mut codes).ok()?;
    let case =
        Case { cols: layout.cols(), rows: layout.rows(), codes: &codes, q: &inputs.codes, expected, actual };
    case.sign()
        .or_else(|| case.offset_codes())
        .or_else(|| case.int16_wrap())
        .or_else(|| match layout.format() {
            WeightFormat::I2S => case.foreign_layout(weights.bytes()),
            WeightFormat::Tl1 | WeightFormat::Tl2 => None,
        })
        .or_else(|| case.one_code())
}

struct Case<'a> {
    cols: usize,
    rows: usize,
    codes: &'a [i8],
    q: &'a [i8],
    expected: &'a [i32],
    actual: &'a [i32],
}

impl Case<'_> {
    /// Whether `predict(row weights, activations)` is what the subject answered, everywhere.
    fn met_by(&self, codes: &[i8], predict: impl Fn(&[i8], &[i8]) -> i32) -> bool {
        self.q.chunks_exact(self.cols).zip(self.actual.chunks_exact(self.rows)).all(|(q, actual)| {
            codes.chunks_exact(self.cols).zip(actual).all(|(row, &actual)| predict(row, q) == actual)
        })
    }

    fn sign(&self) -> Option<Cause> {
        let negated = self.expected.iter().zip(self.actual).all(|(&e, &a)| a == e.wrapping_neg());
        negated.then(|| Cause { name: "sign", sentence: "every product has the opposite sign".into() })
    }

    fn offset_codes(&self) -> Option<Cause> {
        let offset = |row: &[i8], q: &[i8]| dot(row, q) + q.iter().map(|&q| i32::from(q)).sum::<i32>();
        self.met_by(self.codes, offset).then(|| Cause {
            name: "offset-codes",
            sentence: "codes 0, 1, 2 were multiplied and the sum of the activations was not subtracted"
                .into(),
        })
    }

    fn int16_wrap(&self) -> Option<Cause> {
        (self.cols.is_multiple_of(128) && self.met_by(self.codes, wrapped_dot)).then(|| Cause {
            name: "int16-wrap",
            sentence:
                "16-bit partial sums wrapped: the products are those of lanes that add 32 blocks in int16"
                    .into(),
        })
    }

    fn foreign_layout(&self, bytes: &[u8]) -> Option<Cause> {
        ForeignLayout::ALL.into_iter().find_map(|foreign| {
            let mut codes = vec![0; self.codes.len()];
            foreign.unpack(bytes, self.rows, self.cols, &mut codes).ok()?;
            self.met_by(&codes, dot).then(|| Cause {
                name: "layout",
                sentence: format!("the weights were read in the {} order", foreign.name()),
            })
        })
    }

    fn one_code(&self) -> Option<Cause> {
        let batch = self.q.len() / self.cols;
        let differs = |row: &usize| (0..batch).any(|n| self.difference(n, *row) != 0);
        let rows: Vec<usize> = (0..self.rows).filter(differs).collect();
        // With one activation row almost any small difference is some column's activation: that several rows
        // differ so would be no evidence.
        if batch == 1 && rows.len() > 1 {
            return None;
        }
        let found: Option<Vec<(usize, usize)>> =
            rows.iter().map(|&row| self.column_of_one_wrong_code(row, batch).map(|col| (row, col))).collect();
        let found = found?;
        let (row, col) = *found.first()?;
        Some(Cause {
            name: "one-code",
            sentence: format!(
                "{} row(s) differ as if one code each were wrong; first at row {row}, column {col}{}",
                found.len(),
                if batch == 1 { " (or another column with the same activation)" } else { "" }
            ),
        })
    }

    fn difference(&self, n: usize, row: usize) -> i32 {
        let at = n * self.rows + row;
        self.actual[at].wrapping_sub(self.expected[at])
    }

    /// The first column where a code off by one or two explains row `row` for every activation row.
    fn column_of_one_wrong_code(&self, row: usize, batch: usize) -> Option<usize> {
        (0..self.cols).find(|&col| {
            let code = self.codes[row * self.cols + col];
            (-1..=1).filter(|&other| other != code).any(|other| {
                let step = i32::from(other) - i32::from(code);
                (0..batch).all(|n| self.difference(n, row) == step * i32::from(self.q[n * self.cols + col]))
            })
        })
    }
}

fn dot(row: &[i8], q: &[i8]) -> i32 {
    row.iter().zip(q).map(|(&code, &q)| i32::from(code) * i32::from(q)).sum()
}

/// bitnet.cpp's AVX2 I2_S product (`docs/FORMATS.md`, int16 wrap-around): lane l of 16 adds columns 2l and 2l+1 of each of the
/// four groups of a block, over up to 32 blocks in int16, then widens. In signed form: offset sum minus sum(q).
fn wrapped_dot(row: &[i8], q: &[i8]) -> i32 {
    let mut total = 0_i32;
    for (row, q) in row.chunks(32 * 128).zip(q.chunks(32 * 128)) {
        let mut lanes = [0_i16; 16];
        for (at, (&code, &q)) in row.iter().zip(q).enumerate() {
            let lane = at % 32 / 2;
            lanes[lane] = lanes[lane].wrapping_add((i16::from(code) + 1) * i16::from(q));
        }
        total += lanes.iter().map(|&lane| i32::from(lane)).sum::<i32>();
    }
    total - q.iter().map(|&q| i32::from(q)).sum::<i32>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitnet::formats::Layout;
    use crate::workloads::Temperature;

    /// Products of a planted fault, explained.
    fn explained(
        rows: usize,
        cols: usize,
        batch: usize,
        fault: impl Fn(&[i8], &[i8], &[u8]) -> Vec<i32>,
    ) -> Option<Cause> {
        let layout = Layout::i2s(rows, cols).expect("a legal shape");
        let kind = Kind::Matmul { layout, batch, threads: 1, temperature: Temperature::Hot };
        let workload = Workload::new(kind);
        let inputs = workload.inputs(7).expect("a legal shape");
        let weights = inputs.weights()[0];
        let mut codes = vec![0; layout.n_weights()];
        formats::unpack(&weights, &mut codes).expect("packed here");
        let expected = products(&codes, &inputs.codes, cols, dot);
        let actual = fault(&codes, &inputs.codes, weights.bytes());
        explain(&workload, &inputs, Output::I32(&expected), Output::I32(&actual))
    }

    fn products(codes: &[i8], q: &[i8], cols: usize, f: impl Fn(&[i8], &[i8]) -> i32) -> Vec<i32> {
        q.chunks_exact(cols)
            .flat_map(|q| codes.chunks_exact(cols).map(|row| f(row, q)).collect::<Vec<_>>())
            .collect()
    }

    #[test]
    fn a_flipped_sign_is_named() {
        let cause = explained(5, 256, 2, |codes, q, _| products(codes, q, 256, |row, q| -dot(row, q)));
        assert_eq!(cause.map(|cause| cause.name), Some("sign"));
    }

    #[test]
    fn forgotten_offset_is_named() {
        let cause = explained(5, 256, 2, |codes, q, _| {
            products(codes, q, 256, |row, q| {
                row.iter().zip(q).map(|(&c, &q)| (i32::from(c) + 1) * i32::from(q)).sum()
            })
        });
        assert_eq!(cause.map(|cause| cause.name), Some("offset-codes"));
    }

    #[test]
    fn one_wrong_code_is_found_where_it_is() {
        let cause = explained(5, 256, 3, |codes, q, _| {
            let mut wrong = codes.to_vec();
            wrong[3 * 256 + 77] = if wrong[3 * 256 + 77] == 1 { -1 } else { 1 };
            products(&wrong, q, 256, dot)
        })
        .expect("a cause");
        assert_eq!(cause.name, "one-code");
        assert!(cause.sentence.contains("row 3, column 77"), "{}", cause.sentence);
    }

    #[test]
    fn every_foreign_order_is_named() {
        for foreign in ForeignLayout::ALL {
            let cause = explained(8, 256, 2, |_, q, bytes| {
                let mut codes = vec![0; 8 * 256];
                foreign.unpack(bytes, 8, 256, &mut codes).expect("a legal shape");
                products(&codes, q, 256, dot)
            })
            .expect("a cause");
            assert_eq!(cause.name, "layout");
            assert!(cause.sentence.contains(foreign.name()), "{}", cause.sentence);
        }
    }

    /// Constant activations of 127 make every lane of a 4096-column row wrap.
    #[test]
    fn a_16_bit_wrap_is_named() {
        let layout = Layout::i2s(3, 4096).expect("a legal shape");
        let workload =
            Workload::new(Kind::Matmul { layout, batch: 1, threads: 1, temperature: Temperature::Hot });
        let mut inputs = workload.inputs(7).expect("a legal shape");
        inputs.codes.fill(127);
        let mut codes = vec![0; layout.n_weights()];
        formats::unpack(&inputs.weights()[0], &mut codes).expect("packed here");
        let expected = products(&codes, &inputs.codes, 4096, dot);
        let actual = products(&codes, &inputs.codes, 4096, wrapped_dot);
        assert_ne!(expected, actual);
        let cause = explain(&workload, &inputs, Output::I32(&expected), Output::I32(&actual));
        assert_eq!(cause.map(|cause| cause.name), Some("int16-wrap"));
    }

    /// At batch 1 a constant added to every row matches some activation of each row, and still is no wrong code.
    #[test]
    fn a_constant_in_every_row_is_given_no_name() {
        let cause = explained(5, 256, 1, |codes, q, _| {
            products(codes, q, 256, dot).into_iter().map(|x| x + 1).collect()
        });
        assert_eq!(cause, None);
    }

    #[test]
    fn noise_is_given_no_name() {
        let cause = explained(5, 256, 2, |codes, q, _| {
            products(codes, q, 256, dot).into_iter().enumerate().map(|(i, x)| x + 1 + i as i32 % 3).collect()
        });
        assert_eq!(cause, None);
    }
}
