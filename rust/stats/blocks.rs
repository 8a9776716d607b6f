//! From raw samples to one number per block.
//!
//! Estimates: per block, theta = ln(time of the subject / time of the reference). Each side enters with the
//! minimum of its k adjacent samples: preemption only ever adds time, so the minimum drops most of it, while the block
//! stays short, so that whatever is slow hits both sides (Chen and Revels, "Robust benchmarking in noisy
//! environments", 2016, for the minimum; `docs/STATISTICS.md` 2 for k = 3 on wall time, 1 on CPU time).
//! Unit: none, natural log of a ratio; 0.0488 is 5 % slower.
//! Assumes: both sides were sampled equally often in a block; blocks where they were not are not used, but
//! counted. A reader may not conclude: absolute times; a minimum is not a typical time.
//! Oracle: known answers below; through the interval, `tests/statistics.rs`.

use std::collections::BTreeMap;

use super::StatsError;

/// Samples of one side: entry i of both columns belongs to sample i.
#[derive(Clone, Copy, Debug)]
pub struct Column<'a> {
    /// Which block a sample belongs to; any number that is the same for both sides (with several processes,
    /// one that holds the process too).
    pub block: &'a [u64],
    /// Time of one call, positive.
    pub value: &'a [f64],
}

/// One log-ratio per block that both sides have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockRatios {
    /// Block numbers, ascending.
    pub block: Vec<u64>,
    /// ln(subject / reference) of the block's minima.
    pub log_ratio: Vec<f64>,
    /// Blocks that could not be used: one side is missing, or was sampled less often than the other.
    pub unpaired: usize,
}

/// The log-ratios of block minima, subject over reference: positive means that the subject is slower.
///
/// # Errors
/// [`StatsError::Length`], [`StatsError::NotPositive`].
pub fn block_minima_log_ratios(
    reference: Column<'_>,
    subject: Column<'_>,
) -> Result<BlockRatios, StatsError> {
    let reference = minima(reference)?;
    let mut subject = minima(subject)?;
    let mut ratios = BlockRatios::default();
    for (block, (samples, minimum)) in reference {
        match subject.remove(&block) {
            Some((subject_samples, subject_minimum)) if subject_samples == samples => {
                ratios.block.push(block);
                ratios.log_ratio.push(subject_minimum.ln() - minimum.ln());
            }
            _ => ratios.unpaired += 1,
        }
    }
    ratios.unpaired += subject.len();
    Ok(ratios)
}

/// Number of samples and their minimum, per block.
fn minima(side: Column<'_>) -> Result<BTreeMap<u64, (usize, f64)>, StatsError> {
    if side.block.len() != side.value.len() {
        return Err(StatsError::Length { blocks: side.block.len(), values: side.value.len() });
    }
    let mut minima = BTreeMap::new();
    for (index, (&block, &value)) in side.block.iter().zip(side.value).enumerate() {
        if !(value.is_finite() && value > 0.0) {
            return Err(StatsError::NotPositive { index, value });
        }
        let entry = minima.entry(block).or_insert((0, f64::INFINITY));
        *entry = (entry.0 + 1, entry.1.min(value));
    }
    Ok(minima)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratios(reference: (&[u64], &[f64]), subject: (&[u64], &[f64])) -> Result<BlockRatios, StatsError> {
        block_minima_log_ratios(
            Column { block: reference.0, value: reference.1 },
            Column { block: subject.0, value: subject.1 },
        )
    }

    #[test]
    fn minima_of_blocks_in_any_order() {
        let got = ratios(
            (&[7, 7, 2, 2, 2, 7], &[4.0, 9.0, 1.0, 8.0, 5.0, 2.0]),
            (&[2, 2, 2, 7, 7, 7], &[3.0, 2.0, 4.0, 1.0, 6.0, 9.0]),
        );
        let expected =
            BlockRatios { block: vec![2, 7], log_ratio: vec![2_f64.ln(), 0.5_f64.ln()], unpaired: 0 };
        assert_eq!(got, Ok(expected));
    }

    #[test]
    fn blocks_without_an_equal_partner_are_counted_not_used() {
        // Block 1 pairs, 2 has fewer subject samples, 3 and 4 stand on one side only.
        let got = ratios((&[1, 2, 2, 3], &[1.0; 4]), (&[1, 2, 4], &[1.0; 3]));
        assert_eq!(got, Ok(BlockRatios { block: vec![1], log_ratio: vec![0.0], unpaired: 3 }));
        assert_eq!(ratios((&[], &[]), (&[], &[])), Ok(BlockRatios::default()));
    }

    #[test]
    fn values_without_a_logarithm_are_errors() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let got = ratios((&[1, 2], &[1.0, bad]), (&[1], &[1.0]));
            assert!(matches!(got, Err(StatsError::NotPositive { index: 1, .. })), "{bad}: {got:?}");
        }
        assert_eq!(ratios((&[1], &[]), (&[], &[])), Err(StatsError::Length { blocks: 1, values: 0 }));
    }
}
