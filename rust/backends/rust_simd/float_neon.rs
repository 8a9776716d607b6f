//! Float kernels on AArch64: loops over lanes, which the compiler turns into vectors of NEON by itself, since that belongs to the
//! target. What it does not find is how halves become floats ([`Vectors::widen`]); other types are decoded as they always are.
//!
//! One row of x takes the 32 lanes of a row, eight vectors, group of columns by group. A tile takes eight lanes of four rows of
//! a matrix and three of x: thirty-two registers hold its 24 vectors of sums and what is loaded.

use super::super::detect::Neon;
use super::super::vector::Vectors;
use super::float::{
    BLOCK, FloatKernels, LANES, NO_LANES, OCTETS, Octet, Octets, PANEL, Panel, Q8_ROWS, ROWS, TILE, WIDTH,
};
use super::shares;
use crate::bitnet::model::FloatType;
use half::f16;

/// Bytes of a Q8_0 block: a scale in F16, then a byte for each value.
const Q8_BYTES: usize = 34;
/// Values that are decoded at a time: whole blocks of any type.
const CHUNK: usize = 256;

impl FloatKernels for Neon {
    fn stream(self, float_type: FloatType, rows: [&[u8]; ROWS], x: &[f32]) -> [f32; ROWS] {
        rows.map(|row| {
            let mut lanes = NO_LANES;
            for (bytes, x) in row.chunks(float_type.bytes_of(LANES)).zip(x.chunks(LANES)) {
                let mut values = [0.0; LANES];
                decode(float_type, bytes, &mut values[..x.len()]);
                add_products(&values[..x.len()], x, &mut lanes.0);
            }
            in_halves(lanes.0)
        })
    }

    fn decode(self, float_type: FloatType, rows: [&[u8]; ROWS], k: usize, panel: &mut Panel) {
        assert!(k <= PANEL && k.is_multiple_of(LANES));
        for (row, bytes) in rows.into_iter().enumerate() {
            let mut step = 0;
            for (bytes, first) in bytes.chunks(float_type.bytes_of(CHUNK)).zip((0..k).step_by(CHUNK)) {
                let mut values = [0.0; CHUNK];
                let values = &mut values[..CHUNK.min(k - first)];
                decode(float_type, bytes, values);
                for values in values.as_chunks::<WIDTH>().0.as_chunks::<OCTETS>().0 {
                    for (panel, values) in panel.0.iter_mut().zip(values) {
                        panel[step][row] = Octet(*values);
                    }
                    step += 1;
                }
            }
        }
    }

    fn panel(self, w: &Panel, k: usize, x: &[Octet], lanes: &mut [Octets]) {
        assert!(k <= PANEL && k.is_multiple_of(LANES) && x.len() * LANES == k * lanes.len());
        let n = lanes.len() / OCTETS;
        for (octet, (w, lanes)) in w.0.iter().zip(lanes.chunks_exact_mut(n)).enumerate() {
            let w = &w[..k / LANES];
            for rows in shares(n, TILE) {
                let x = &x[rows.start * k / WIDTH + octet * w.len() * rows.len()..][..w.len() * rows.len()];
                match &mut lanes[rows] {
                    [a] => tile(w, x.as_chunks().0, [a]),
                    [a, b] => tile(w, x.as_chunks().0, [a, b]),
                    [a, b, c] => tile(w, x.as_chunks().0, [a, b, c]),
                    _ => unreachable!("shares of {TILE} at most"),
                }
            }
        }
    }

    fn finish(self, w: &[[f32; LANES]; ROWS], x: &[f32], lanes: &[Octets], column: usize) -> [f32; ROWS] {
        let n = lanes.len() / OCTETS;
        let mut values = [0.0; ROWS];
        for row in 0..ROWS {
            let mut sums = NO_LANES;
            for (octet, sums) in sums.0.as_chunks_mut::<WIDTH>().0.iter_mut().enumerate() {
                *sums = lanes[octet * n + column][row].0;
            }
            add_products(&w[row][..x.len()], x, &mut sums.0);
            values[row] = in_halves(sums.0);
        }
        values
    }

    fn quantize_q8_0(self, x: &[f32], q: &mut [i8], d: &mut [f32]) {
        let blocks = x.as_chunks::<BLOCK>().0.iter().zip(q.as_chunks_mut::<BLOCK>().0);
        for ((x, q), d) in blocks.zip(d) {
            // Magnitudes order like their bits, NaN above all.
            let bits = x.iter().fold(0, |largest, x| largest.max(x.to_bits() & 0x7fff_ffff));
            let largest = f32::from_bits(bits);
            *d = f16::from_f32(largest / 127.0).to_f32();
            let usable = largest > 0.0 && largest.is_finite();
            let multiplier = if usable { 127.0 / largest } else { 0.0 };
            for (q, x) in q.iter_mut().zip(x) {
                *q = if usable { (x * multiplier).round_ties_even() as i8 } else { 0 };
            }
        }
    }

    fn q8_0(self, rows: [&[u8]; Q8_ROWS], q: &[i8], d: &[f32]) -> [f32; Q8_ROWS] {
        rows.map(|row| {
            let blocks = row.as_chunks::<Q8_BYTES>().0.iter().zip(q.as_chunks::<BLOCK>().0).zip(d);
            blocks.fold(0.0, |y, ((w, q), &d)| {
                let scale = f16::from_le_bytes([w[0], w[1]]).to_f32();
                let dot: i32 = w[2..].iter().zip(q).map(|(&w, &q)| i32::from(w as i8) * i32::from(q)).sum();
                (dot as f32).mul_add(scale * d, y)
            })
        })
    }
}

/// `FloatType::decode`, halves eight at a time.
#[inline]
fn decode(float_type: FloatType, bytes: &[u8], values: &mut [f32]) {
    if float_type != FloatType::F16 {
        float_type.decode(bytes, values);
        return;
    }
    let (halves, last_halves) = bytes.as_chunks::<2>().0.as_chunks::<WIDTH>();
    let (eights, last) = values.as_chunks_mut::<WIDTH>();
    for (eight, halves) in eights.iter_mut().zip(halves) {
        *eight = Neon::widen(&halves.map(f16::from_le_bytes));
    }
    for (value, &half) in last.iter_mut().zip(last_halves) {
        *value = f16::from_le_bytes(half).to_f32();
    }
}

/// Adds the products of at most 32 columns to the first lanes.
fn add_products(w: &[f32], x: &[f32], lanes: &mut [f32; LANES]) {
    for ((lane, &w), &x) in lanes.iter_mut().zip(w).zip(x) {
        *lane = w.mul_add(x, *lane);
    }
}

/// The sum of the lanes, `lane[l] += lane[l + h]` for h = 16, 8, 4, 2, 1.
fn in_halves(mut lanes: [f32; LANES]) -> f32 {
    for half in [16, 8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

/// Eight lanes of four rows times `N` rows of x.
#[inline]
fn tile<const N: usize>(w: &[Octets], x: &[[Octet; N]], lanes: [&mut Octets; N]) {
    let mut sums = [[[0.0; WIDTH]; ROWS]; N];
    for column in 0..N {
        for row in 0..ROWS {
            sums[column][row] = lanes[column][row].0;
        }
    }
    for (w, x) in w.iter().zip(x) {
        for column in 0..N {
            for row in 0..ROWS {
                for ((sum, w), &x) in sums[column][row].iter_mut().zip(&w[row].0).zip(&x[column].0) {
                    *sum = w.mul_add(x, *sum);
                }
            }
        }
    }
    for (lanes, sums) in lanes.into_iter().zip(sums) {
        for (lanes, sum) in lanes.iter_mut().zip(sums) {
            lanes.0 = sum;
        }
    }
}
