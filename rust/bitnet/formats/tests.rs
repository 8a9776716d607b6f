//! Properties of all formats: addresses restated in closed form, round trips, block boundaries, hostile bytes.

use super::*;
use crate::rng::Rng;

fn ternary(rng: &mut Rng, n: usize) -> Vec<i8> {
    (0..n).map(|_| rng.ternary()).collect()
}

fn packed(layout: &Layout, codes: &[i8], scale: f32) -> Vec<u8> {
    let mut bytes = vec![0xa5; layout.packed_bytes()];
    pack(layout, codes, scale, &mut bytes).unwrap();
    bytes
}

fn unpacked(layout: Layout, bytes: &[u8]) -> Result<Vec<i8>, FormatError> {
    let mut codes = vec![99; layout.n_weights()];
    unpack(&Weights::new(layout, bytes)?, &mut codes)?;
    Ok(codes)
}

/// A random legal layout of at most 384 x 1152.
fn random_layout(rng: &mut Rng) -> Layout {
    let mut pick = |n: u64| 1 + rng.below(n) as usize;
    match pick(3) {
        1 => Layout::i2s(pick(20), 128 * pick(9)).unwrap(),
        2 => {
            let by = 4 * pick(2);
            let (bm, bk) = (256 / by * pick(3), by * pick(12));
            Layout::tl1(bm * pick(2), bk * pick(4), Tile { bm, bk, by }).unwrap()
        }
        _ => loop {
            let (bm, bk) = (32 * pick(4), 24 * pick(9));
            let cols = bk * pick(6) + 32 * (pick(9) - 1);
            if let Ok(layout) = Layout::tl2(bm * pick(3), cols, Tile { bm, bk, by: 8 }) {
                break layout;
            }
        },
    }
}

#[test]
fn packing_and_unpacking_is_the_identity() {
    let mut rng = Rng::new(1);
    let mut seen = [0; 3];
    for _ in 0..150 {
        let layout = random_layout(&mut rng);
        seen[layout.format() as usize] += 1;
        let codes = ternary(&mut rng, layout.n_weights());
        let scale = rng.unit_f64() as f32;
        let bytes = packed(&layout, &codes, scale);
        assert_eq!(unpacked(layout, &bytes).unwrap(), codes, "{layout:?}");
        assert_eq!(Weights::new(layout, &bytes).unwrap().scale(), scale, "{layout:?}");
        let padding = bytes[layout.code_bytes()..layout.scale_offset()]
            .iter()
            .chain(&bytes[layout.scale_offset() + 4..]);
        assert!(padding.into_iter().all(|&byte| byte == 0), "{layout:?}");
    }
    assert!(seen.iter().all(|&n| n > 20), "{seen:?}");
}

/// Offset and bits of one weight, from its row and column alone: the order of the loops, written as one number
/// in a mixed radix.
fn tl1_address(layout: &Layout, row: usize, col: usize) -> (usize, u32) {
    let Tile { bm, bk, by } = layout.tile().unwrap();
    let row_block = 256 / by;
    let digits = [
        (row / bm, layout.rows() / bm),
        (col / bk, layout.cols() / bk),
        (row % bm / row_block, bm / row_block),
        (col % bk / by, bk / by),
        (row % row_block / 16, row_block / 16),
        (col % by / 4, by / 4),
        (row % 16, 16),
    ];
    (digits.iter().fold(0, |offset, (digit, radix)| offset * radix + digit), if col % 4 < 2 { 4 } else { 0 })
}

#[test]
fn tl1_weights_stand_at_their_closed_form_address() {
    for tile in
        [Tile { bm: 64, bk: 16, by: 4 }, Tile { bm: 64, bk: 24, by: 8 }, Tile { bm: 128, bk: 12, by: 4 }]
    {
        let layout = Layout::tl1(2 * tile.bm, 3 * tile.bk, tile).unwrap();
        let mut codes = vec![0; layout.n_weights()];
        // 7 is coprime to every block size: all positions within a block are met.
        for index in (0..layout.n_weights()).step_by(7) {
            codes[index] = 1;
            let (row, col) = (index / layout.cols(), index % layout.cols());
            let (offset, shift) = tl1_address(&layout, row, col);
            let worth = if col % 2 == 0 { 3 } else { 1 };
            assert_eq!(packed(&layout, &codes, 1.0)[offset], 0x44 + (worth << shift), "{tile:?} {row} {col}");
            codes[index] = 0;
        }
    }
}

/// Where a triple's magnitude and sign stand, from its row and first column alone, and likewise a pair's index:
/// (offset, shift) each.
fn tl2_address(layout: &Layout, row: usize, col: usize) -> [(usize, usize); 2] {
    let Tile { bm, bk, .. } = layout.tile().unwrap();
    let (rows, three) = (layout.rows(), layout.three_cols());
    let slot = row % 8 + [0, 16, 8, 24][row % 32 / 8];
    let address =
        |digits: &[(usize, usize)]| digits.iter().fold(0, |offset, (digit, radix)| offset * radix + digit);
    let tile = (row / bm, rows / bm);
    let row_block = (row % bm / 32, bm / 32);
    if col < three {
        let triple = col % bk / 3;
        let block = (col / bk, three / bk);
        let magnitude = address(&[tile, block, row_block, (triple / 2, bk / 6), (slot, 32)]);
        let bit = 15 - 2 * (triple % 8) - row % 32 / 16;
        let sign = address(&[tile, block, row_block, (triple / 8, bk / 24), (row % 16, 16), (bit / 8, 2)]);
        [(magnitude, 4 - 4 * (triple % 2)), (three * rows / 6 + sign, bit % 8)]
    } else {
        let col = col - three;
        let quad = (col % 32 / 4, 8);
        let block = (col / 32, (layout.cols() - three) / 32);
        let index = three * rows * 5 / 24 + address(&[tile, block, row_block, quad, (slot, 32)]);
        [(index, if col % 4 < 2 { 4 } else { 0 }); 2]
    }
}

/// A single -1 at every row and column: its magnitude and sign, or its pair index, and nothing else.
#[test]
fn tl2_weights_stand_at_their_closed_form_address() {
    let layout = Layout::tl2(128, 352, Tile { bm: 64, bk: 144, by: 8 }).unwrap();
    let three = layout.three_cols();
    assert_eq!((three, layout.cols() - three), (288, 64));
    let mut codes = vec![0; layout.n_weights()];
    let zero = packed(&layout, &codes, 1.0);
    // 37 is coprime to every block size: all positions within a block are met.
    for index in (0..layout.n_weights()).step_by(37) {
        codes[index] = -1;
        let (row, col) = (index / layout.cols(), index % layout.cols());
        let mut expected = zero.clone();
        let [(first, shift), (sign, bit)] = tl2_address(&layout, row, col);
        if col < three {
            expected[first] = [9, 3, 1][col % 3] << shift;
            expected[sign] = 1 << bit;
        } else {
            expected[first] -= [3, 1][col % 2] << shift;
        }
        assert!(packed(&layout, &codes, 1.0) == expected, "{row} {col}");
        codes[index] = 0;
    }
}

#[test]
fn one_off_every_boundary_is_refused_with_the_rule() {
    let why = |layout: Result<Layout, FormatError>| match layout {
        Err(FormatError::Unsupported { why, .. }) => why,
        other => panic!("expected a refusal, got {other:?}"),
    };
    for cols in [127, 129, 255, 257] {
        assert_eq!(why(Layout::i2s(3, cols)), format!("K % 128 = {}, must be 0", cols % 128));
    }
    let tl1 = |rows, cols, bm, bk, by| Layout::tl1(rows, cols, Tile { bm, bk, by });
    assert!(tl1(128, 128, 64, 64, 8).is_ok());
    for by in [0, 1, 3, 5, 7, 9, 16, usize::MAX] {
        assert_eq!(why(tl1(128, 128, 64, 64, by)), format!("BY = {by}, must be 4 or 8"));
    }
    for off in [1, usize::MAX] {
        let near = |n: usize| n.wrapping_add(off);
        assert!(why(tl1(near(128), 128, 64, 64, 8)).starts_with("M % BM"));
        assert!(why(tl1(128, near(128), 64, 64, 8)).starts_with("K % BK"));
        assert!(why(tl1(128, 128, near(64), 64, 8)).starts_with("BM = "));
        assert!(why(tl1(128, 128, 64, near(64), 8)).starts_with("BK = "));
    }
    assert!(why(tl1(128, 128, 32, 64, 4)).contains("multiple of 64"));
    let tl2 = |rows, cols, bm, bk, by| Layout::tl2(rows, cols, Tile { bm, bk, by });
    assert!(tl2(128, 256, 64, 96, 8).is_ok());
    for off in [1, usize::MAX] {
        let near = |n: usize| n.wrapping_add(off);
        assert!(why(tl2(near(128), 256, 64, 96, 8)).starts_with("M % BM"));
        assert!(why(tl2(128, near(256), 64, 96, 8)).starts_with("(K % BK) % 32"));
        assert!(why(tl2(128, 256, near(64), 96, 8)).starts_with("BM = "));
        assert!(why(tl2(128, 256, 64, near(96), 8)).starts_with("BK = "));
        assert!(why(tl2(128, 256, 64, 96, near(8))).starts_with("BY = "));
    }
    assert_eq!(why(tl2(128, 224, 64, 96, 8)), "K = 224, must be at least 256");
    // 288 columns in pairs need more than the size rule reserves.
    assert!(why(tl2(32, 288, 32, 312, 8)).contains("exceed"));
    for zero in [tl1(0, 128, 64, 64, 8), tl2(128, 0, 64, 96, 8), Layout::i2s(0, 128), Layout::i2s(1, 0)] {
        assert!(why(zero).contains("at least 1"));
    }
    for huge in
        [tl1(usize::MAX, 128, 64, 64, 8), tl2(usize::MAX, 256, 64, 96, 8), Layout::i2s(usize::MAX / 64, 128)]
    {
        assert!(why(huge).contains("overflows"));
    }
    for tile in [None, Some(Tile { bm: 32, bk: 96, by: 8 })] {
        for format in WeightFormat::ALL {
            let legal = (format == WeightFormat::I2S) == tile.is_none();
            assert_eq!(Layout::from_parts(format, 32, 384, tile).is_ok(), legal, "{format} {tile:?}");
        }
    }
}

#[test]
fn wrong_lengths_codes_and_scales_are_refused_before_anything_is_written() {
    let mut rng = Rng::new(2);
    for format in WeightFormat::ALL {
        let layout = Layout::published(format, 64, 256).unwrap();
        let codes = ternary(&mut rng, layout.n_weights());
        let mut dst = vec![0xa5; layout.packed_bytes()];
        let length = |result| matches!(result, Err(FormatError::Length { .. }));
        assert!(length(pack(&layout, &codes[1..], 1.0, &mut dst)));
        assert!(length(pack(&layout, &codes, 1.0, &mut dst[1..])));
        for bad in [2, -2, 127, -128] {
            let mut codes = codes.clone();
            codes[77] = bad;
            let expected = Err(FormatError::NotTernary { index: 77, value: bad });
            assert_eq!(pack(&layout, &codes, 1.0, &mut dst), expected);
        }
        for scale in [f32::NAN, f32::INFINITY, -1.0, -0.0] {
            assert!(matches!(pack(&layout, &codes, scale, &mut dst), Err(FormatError::Scale { .. })));
        }
        assert!(dst.iter().all(|&byte| byte == 0xa5));
        let mut bytes = packed(&layout, &codes, 1.0);
        assert!(matches!(Weights::new(layout, &bytes[1..]), Err(FormatError::Length { .. })));
        let mut short = vec![0; layout.n_weights() - 1];
        assert!(length(unpack(&Weights::new(layout, &bytes).unwrap(), &mut short)));
        let at = layout.scale_offset();
        bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        assert!(matches!(Weights::new(layout, &bytes), Err(FormatError::Scale { .. })));
    }
}

/// Every fifth code byte damaged in turn: the error names it. In TL2 a sign byte cannot be damaged: all its bits are legal.
#[test]
fn damaged_codes_are_named_by_their_offset() {
    for format in WeightFormat::ALL {
        let layout = Layout::published(format, 64, 256).unwrap();
        let bytes = packed(&layout, &vec![0; layout.n_weights()], 1.0);
        let three = layout.three_cols() * layout.rows();
        let signs = three / 6..three / 6 + three / 24;
        for offset in (0..layout.code_bytes()).step_by(5) {
            for damage in [0x0f, 0xf0] {
                let mut bytes = bytes.clone();
                bytes[offset] = damage;
                let found = unpacked(layout, &bytes);
                if signs.contains(&offset) {
                    assert!(found.is_ok_and(|codes| codes.iter().all(|&code| code == 0)));
                } else {
                    assert!(
                        matches!(found, Err(FormatError::InvalidCode { offset: at, .. }) if at == offset),
                        "{format} byte {offset}: {found:?}"
                    );
                }
            }
        }
    }
}

/// The first index that no packer produces, and the last that one does, in every format.
#[test]
fn the_unused_codes_are_exactly_these() {
    let accepted = |format, zero: u8| {
        let layout = Layout::published(format, 64, 256).unwrap();
        let bytes = packed(&layout, &vec![0; layout.n_weights()], 1.0);
        assert_eq!(bytes[0], zero);
        let legal = |byte: &u8| {
            let mut bytes = bytes.clone();
            bytes[0] = *byte;
            unpacked(layout, &bytes).is_ok()
        };
        (0..=255).filter(legal).collect::<Vec<u8>>()
    };
    let bytes_where = |legal: fn(u8) -> bool| (0..=255).filter(|&byte| legal(byte)).collect::<Vec<u8>>();
    let i2s = bytes_where(|byte| (0..4).all(|group| byte >> (2 * group) & 3 != 3));
    assert_eq!(accepted(WeightFormat::I2S, 0x55), i2s);
    assert_eq!(accepted(WeightFormat::Tl1, 0x44), bytes_where(|byte| byte >> 4 <= 8 && byte & 15 <= 8));
    assert_eq!(accepted(WeightFormat::Tl2, 0x00), bytes_where(|byte| byte >> 4 <= 13 && byte & 15 <= 13));
}

/// Random bytes are refused or read, never a panic; what is read packs to codes that read the same again.
#[test]
fn hostile_bytes_never_panic() {
    let mut rng = Rng::new(3);
    for round in 0..200 {
        let layout = random_layout(&mut rng);
        let mask = [0xff, 0x77, 0x11, 0x00][round % 4];
        let mut bytes: Vec<u8> = (0..layout.packed_bytes()).map(|_| rng.next_u64() as u8 & mask).collect();
        let _ = unpacked(layout, &bytes);
        let at = layout.scale_offset();
        bytes[at..at + 4].copy_from_slice(&1_f32.to_le_bytes());
        match unpacked(layout, &bytes) {
            Ok(codes) => assert_eq!(unpacked(layout, &packed(&layout, &codes, 1.0)).unwrap(), codes),
            Err(error) => assert!(matches!(error, FormatError::InvalidCode { .. }), "{error}"),
        }
    }
}

/// Sign bits over magnitude 0 and nonzero padding mean nothing.
#[test]
fn meaningless_bits_are_ignored() {
    // 1536 x 1536 in blocks of 192 has padding: 491520 bytes of codes in 507904.
    let layout = Layout::published(WeightFormat::Tl2, 1536, 1536).unwrap();
    assert_eq!((layout.code_bytes(), layout.scale_offset()), (491_520, 507_904));
    let mut bytes = packed(&layout, &vec![0; layout.n_weights()], 1.0);
    bytes[1536 * 1536 / 6..layout.scale_offset()].fill(0xff);
    assert!(unpacked(layout, &bytes).unwrap().iter().all(|&code| code == 0));
}

#[test]
fn look_up_tables_hold_every_signed_sum() {
    let q = [3, -128, 127, 100, -7, 1];
    let entry = |bytes: &[u8], low: usize, high: usize| i16::from_le_bytes([bytes[low], bytes[high]]);
    let three = tl2::lut3(&q).unwrap();
    for (group, q) in q.chunks_exact(3).enumerate() {
        for value in 0..=13_i8 {
            let w = tl2::triple_codes(value);
            assert_eq!(9 * w[0] + 3 * w[1] + w[2], value);
            let sum: i16 = w.iter().zip(q).map(|(&w, &q)| i16::from(w) * i16::from(q)).sum();
            let at = 32 * group + value as usize;
            assert_eq!(entry(&three, at, at + 16), sum);
        }
    }
    let (two, tl1) = (tl2::lut2(&q).unwrap(), tl1::lut(&q).unwrap());
    for (group, q) in q.chunks_exact(2).enumerate() {
        for index in 0..16 {
            let (w0, w1) = (index as i16 / 3 - 1, index as i16 % 3 - 1);
            let sum = if index > 8 { 0 } else { w0 * i16::from(q[0]) + w1 * i16::from(q[1]) };
            let at = 32 * group + index;
            assert_eq!((entry(&two, at, at + 16), entry(&tl1, at + 16, at)), (sum, sum));
        }
    }
    assert!(tl2::lut3(&q[..5]).is_err() && tl2::lut2(&q[..5]).is_err() && tl1::lut(&q[..5]).is_err());
    assert_eq!((three.len(), two.len(), tl1.len()), (64, 96, 96));
}
