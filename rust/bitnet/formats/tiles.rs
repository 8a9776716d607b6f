//! Which tile a shape gets: the sets of the public generators, sets of ours, and a rule for everything else.
//!
//! A tile is a property of a file, but no file records it: a reader must know the set of whoever wrote it.
//! [`Layout::published`] answers, in this order,
//! 1. the set of bitnet.cpp's generators, for the shapes of bitnet_b1_58-large (700m), bitnet_b1_58-3B and
//!    Llama3-8B-1.58;
//! 2. ours, for shapes that have no public set: BitNet 2B4T, the 125m preset, the tiny golden model;
//! 3. otherwise the first legal tile of this rule, which finds one for every shape that has any:
//!    - BM: the largest multiple of the row block, up to 256, that divides M;
//!    - TL1: BY = 8 where M % 32 = 0 and K % 8 = 0, else BY = 4; BK the largest multiple of BY, up to 128, that divides K;
//!    - TL2: BK = 96, else 24, 48, ..., 240, else one block of K, K - 32 or K - 64 columns.
//!
//! Why the last rule of TL2 is complete: a legal BK leaves R = K % BK columns, R a multiple of 32, and K - R is a multiple
//! of 24. Then the single block of K - R % 96 columns is legal too, 96 being a multiple of both, and leaves no more.
//! Such a block may be longer than 255 columns: a kernel that sums a block in int16 must split it.

use super::{FormatError, Layout, Tile, WeightFormat};

/// Shapes with their tiles: rows, cols, then BM, BK and row block of TL1, then BM and BK of TL2.
type TileSet = [(usize, usize, [usize; 3], [usize; 2])];

/// What bitnet.cpp's code generators use (`docs/FORMATS.md`, tile sets).
const PUBLIC: &TileSet = &[
    // bitnet_b1_58-large
    (1536, 4096, [256, 128, 32], [256, 96]),
    (1536, 1536, [128, 64, 64], [128, 192]),
    (4096, 1536, [256, 128, 32], [256, 96]),
    // bitnet_b1_58-3B
    (3200, 8640, [160, 64, 32], [160, 96]),
    (3200, 3200, [320, 128, 64], [320, 96]),
    (8640, 3200, [320, 64, 32], [320, 96]),
    // Llama3-8B-1.58
    (14336, 4096, [256, 128, 64], [256, 96]),
    (4096, 14336, [256, 128, 32], [128, 96]),
    (1024, 4096, [128, 64, 64], [256, 96]),
    (4096, 4096, [128, 64, 32], [128, 96]),
];

/// Ours, where there is no public set.
const OURS: &TileSet = &[
    // BitNet 2B4T: attn_q and attn_output, attn_k and attn_v, ffn_gate and ffn_up, ffn_down
    (2560, 2560, [256, 128, 32], [256, 96]),
    (640, 2560, [128, 128, 32], [128, 96]),
    (6912, 2560, [256, 128, 32], [256, 96]),
    (2560, 6912, [256, 128, 32], [256, 96]),
    // 125m
    (768, 768, [256, 128, 32], [256, 96]),
    (3072, 768, [256, 128, 32], [256, 96]),
    (768, 3072, [256, 128, 32], [256, 96]),
    // the tiny golden model
    (256, 256, [128, 64, 32], [128, 96]),
    (128, 256, [128, 64, 32], [128, 96]),
    (512, 256, [128, 64, 32], [128, 96]),
    (256, 512, [128, 64, 32], [128, 96]),
];

impl Layout {
    /// The layout that this shape has by convention: the tile of the public generators, or ours, or the first
    /// of the rule in the head of this file. I2_S has no tiles. Error: no tile is legal for this shape.
    pub fn published(format: WeightFormat, rows: usize, cols: usize) -> Result<Self, FormatError> {
        let listed = PUBLIC.iter().chain(OURS).find(|set| (set.0, set.1) == (rows, cols));
        match (format, listed) {
            (WeightFormat::I2S, _) => Self::i2s(rows, cols),
            (WeightFormat::Tl1, Some((_, _, [bm, bk, row_block], _))) => {
                Self::tl1(rows, cols, Tile { bm: *bm, bk: *bk, by: 256 / row_block })
            }
            (WeightFormat::Tl2, Some((_, _, _, [bm, bk]))) => {
                Self::tl2(rows, cols, Tile { bm: *bm, bk: *bk, by: 8 })
            }
            (WeightFormat::Tl1, None) => default_tl1(rows, cols),
            (WeightFormat::Tl2, None) => default_tl2(rows, cols),
        }
    }
}

fn default_tl1(rows: usize, cols: usize) -> Result<Layout, FormatError> {
    let by = if rows.is_multiple_of(32) && cols.is_multiple_of(8) { 8 } else { 4 };
    let bm = largest_divisor(rows, 256 / by, 256);
    let bk = largest_divisor(cols, by, 128);
    Layout::tl1(rows, cols, Tile { bm, bk, by })
}

fn default_tl2(rows: usize, cols: usize) -> Result<Layout, FormatError> {
    let with = |bk| Layout::tl2(rows, cols, Tile { bm: largest_divisor(rows, 32, 256), bk, by: 8 });
    let single_blocks = [0, 32, 64].into_iter().filter_map(|rest| cols.checked_sub(rest));
    let preferred = with(96);
    let others = (24..=240).step_by(24).chain(single_blocks);
    // Where nothing is legal, the reason that 96 is not is the one a reader can act on.
    others.fold(preferred, |found, bk| found.or_else(|why| with(bk).map_err(|_| why)))
}

/// The largest multiple of `step`, at most `limit`, that divides `n`; `step` itself where none does.
fn largest_divisor(n: usize, step: usize, limit: usize) -> usize {
    (1..=limit / step).map(|times| times * step).rev().find(|&size| n.is_multiple_of(size)).unwrap_or(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_tile_is_legal_and_listed_once() {
        for (position, &(rows, cols, _, _)) in PUBLIC.iter().chain(OURS).enumerate() {
            for format in [WeightFormat::Tl1, WeightFormat::Tl2] {
                Layout::published(format, rows, cols).unwrap();
            }
            let first = PUBLIC.iter().chain(OURS).position(|set| (set.0, set.1) == (rows, cols));
            assert_eq!(first, Some(position), "{rows}x{cols} is listed twice");
        }
    }

    #[test]
    fn public_shapes_have_the_public_tiles() {
        let tile = |format, rows, cols| Layout::published(format, rows, cols).unwrap().tile().unwrap();
        assert_eq!(tile(WeightFormat::Tl1, 3200, 8640), Tile { bm: 160, bk: 64, by: 8 });
        assert_eq!(tile(WeightFormat::Tl1, 1536, 1536), Tile { bm: 128, bk: 64, by: 4 });
        assert_eq!(tile(WeightFormat::Tl2, 1536, 1536), Tile { bm: 128, bk: 192, by: 8 });
        assert_eq!(tile(WeightFormat::Tl2, 4096, 14336), Tile { bm: 128, bk: 96, by: 8 });
        assert_eq!(Layout::published(WeightFormat::I2S, 640, 2560).unwrap().tile(), None);
        assert!(Layout::published(WeightFormat::I2S, 3200, 8640).is_err());
    }

    /// Against a search over every BK (the smallest BM and, in TL1, the smallest BK are the easiest to divide by).
    #[test]
    fn the_rule_finds_a_tile_exactly_where_one_is_legal() {
        for rows in [32, 48, 64, 96, 160, 320] {
            for cols in (4..=1100).step_by(4) {
                let legal = |format, tile| Layout::from_parts(format, rows, cols, Some(tile)).is_ok();
                let any_tl1 =
                    [4, 8].into_iter().any(|by| legal(WeightFormat::Tl1, Tile { bm: 256 / by, bk: by, by }));
                let any_tl2 = (24..=cols + 24)
                    .step_by(24)
                    .any(|bk| legal(WeightFormat::Tl2, Tile { bm: 32, bk, by: 8 }));
                let finds = |format| Layout::published(format, rows, cols).is_ok();
                assert_eq!(finds(WeightFormat::Tl1), any_tl1, "tl1 {rows}x{cols}");
                assert_eq!(finds(WeightFormat::Tl2), any_tl2, "tl2 {rows}x{cols}");
            }
        }
    }

    #[test]
    fn impossible_shapes_say_why() {
        let why = |format, rows, cols| Layout::published(format, rows, cols).unwrap_err().to_string();
        assert_eq!(
            why(WeightFormat::Tl2, 33, 512),
            "tl2 cannot hold 33x512: M % BM = 33 % 32 = 1, must be 0"
        );
        assert_eq!(why(WeightFormat::Tl2, 32, 224), "tl2 cannot hold 32x224: K = 224, must be at least 256");
        assert_eq!(why(WeightFormat::Tl1, 48, 64), "tl1 cannot hold 48x64: M % BM = 48 % 64 = 48, must be 0");
        assert!(why(WeightFormat::I2S, 0, 128).contains("at least 1"));
        assert!(why(WeightFormat::Tl2, usize::MAX, 512).contains("overflows"));
    }
}
