//! Where the codes of a row stand in the packed bytes of TL1 and TL2.

use std::ops::Range;

/// Codes in the order tile > k-block > row block > unit, a unit being what a kernel takes in one step; and how a
/// row's units are cut into pieces that fit the sums.
pub(super) struct Region {
    /// Units of a row block of a k-block; as many further on in memory is the same unit of the next row block.
    pub block_units: usize,
    /// Units of all row blocks of a k-block.
    k_block_units: usize,
    tile_units: usize,
    /// One after the other they fill a row, and working piece by piece reads the bytes in their order.
    pub pieces: Vec<Piece>,
}

/// Units that follow each other in the row and in memory.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    /// The first of them, counted in the row.
    pub first: usize,
    /// Their number.
    pub units: usize,
    /// Units in memory before them, in the first row block of a tile.
    before: usize,
}

/// Columns of neighbours whose units have so many.
pub(super) fn columns(pieces: &[Piece], unit_cols: usize) -> usize {
    unit_cols * pieces.iter().map(|piece| piece.units).sum::<usize>()
}

impl Region {
    /// `blocks` k-blocks of `block_units` units, tiles of `row_blocks` row blocks, pieces of at most `most` units.
    pub fn new(blocks: usize, block_units: usize, row_blocks: usize, most: usize) -> Self {
        let pieces = (0..blocks).flat_map(|block| {
            (0..block_units).step_by(most).map(move |within| Piece {
                first: block * block_units + within,
                units: most.min(block_units - within),
                before: block * row_blocks * block_units + within,
            })
        });
        let k_block_units = row_blocks * block_units;
        Self { block_units, k_block_units, tile_units: blocks * k_block_units, pieces: pieces.collect() }
    }

    /// The pieces in groups of neighbours that have at most `most` units together.
    pub fn groups(&self, most: usize) -> Vec<Vec<Piece>> {
        let mut groups: Vec<Vec<Piece>> = Vec::new();
        for &piece in &self.pieces {
            match groups.last_mut() {
                Some(group) if group.iter().map(|p| p.units).sum::<usize>() + piece.units <= most => {
                    group.push(piece);
                }
                _ => groups.push(vec![piece]),
            }
        }
        groups
    }

    /// The bytes of a piece in one row block of one tile, as units of `BYTES`. `bytes` begins with the region.
    #[inline]
    pub fn units<'b, const BYTES: usize>(
        &self,
        bytes: &'b [u8],
        (tile, row_block): (usize, usize),
        piece: Piece,
    ) -> &'b [[u8; BYTES]] {
        let first = tile * self.tile_units + row_block * self.block_units + piece.before;
        &bytes.as_chunks().0[first..first + piece.units]
    }

    /// Any units of a row block of a tile, one after the other. `bytes` begins with the region.
    #[inline]
    pub fn run<'b, const BYTES: usize>(
        &self,
        bytes: &'b [u8],
        (tile, row_block): (usize, usize),
        units: Range<usize>,
    ) -> impl Iterator<Item = &'b [u8; BYTES]> {
        let (block_units, k_block_units) = (self.block_units, self.k_block_units);
        let (k_block, within) = (units.start / block_units, units.start % block_units);
        let mut at = tile * self.tile_units + k_block * k_block_units + row_block * block_units + within;
        let mut left = block_units - within;
        let bytes = bytes.as_chunks().0;
        units.map(move |_| {
            let unit = &bytes[at];
            (at, left) = (at + 1, left - 1);
            if left == 0 {
                (at, left) = (at + k_block_units - block_units, block_units);
            }
            unit
        })
    }
}
