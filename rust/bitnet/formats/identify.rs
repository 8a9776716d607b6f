//! Which layout is this? Reads a tensor as every layout we know and says what speaks against each.
//!
//! What can be known from the bytes alone
//!
//! 1. Impossible: the shape, the length, a code that no packer produces, a scale that is no scale. Random ternary
//!    weights in I2_S hold illegal TL1 indices (and the reverse) within the first few bytes, so these two are
//!    told apart with certainty by any ordinary matrix.
//! 2. Doubtful by itself: a scale that makes no sense, hardly any or almost only zeros, far more of one sign,
//!    nonzero padding, signs over zero magnitudes in TL2 (a packer writes none; other bytes read as TL2 give many).
//! 3. Doubtful by comparison: the orders of I2_S are permutations of each other, so shares of codes cannot tell
//!    them apart. Structure can. Trained rows and columns differ in their share of zeros; an order that mixes
//!    rows or columns averages that away. See `dispersion` below.
//! 4. Rows and columns cannot separate orders that only permute the columns within a block of 128, as 128/32,
//!    64/16 and four consecutive do: the shares are the same numbers in another order. Only a likeness of
//!    *neighbouring* columns is left (`smoothness`). Trained networks owe us none: hidden channels may be permuted
//!    without changing the network. So the usual answer for these is "alike".
//!
//! The figures, each about standard normal where there is no structure. Over L lines (rows or columns) of n cells,
//! z zeros in a line, v their share, p the share of zeros of the whole matrix:
//!
//! ```text
//! X2 = sum((z - n p)^2) / (n p (1 - p))                 dispersion = (X2 - (L - 1)) / sqrt(2 (L - 1))   chi-squared
//! R  = sum((v[i+1] - v[i])^2) / sum((v[i] - mean)^2)    smoothness = (1 - R / 2) * sqrt(L)    von Neumann, 1941
//! ```
//!
//! A candidate is doubtful by comparison where another has more than twice its value and [`MARGIN`] standard errors
//! more; under no structure the difference of two such values has a standard deviation of sqrt(2) at most where
//! they are independent, so chance alone does it with probability 1e-12. This is evidence, not proof: "consistent"
//! never means "identified". Certainty needs expected codes or weights: [`identify_against`], [`correlate`].
//! Tiles are assumed to be those of [`Layout::published`]; no file says which it has.

use std::fmt;

use super::foreign::ForeignLayout;
use super::{FormatError, Layout, WeightFormat, Weights, check_length, check_scale, tl2, unpack};

/// Standard errors by which one reading must show more structure than another to cast doubt on it.
pub const MARGIN: f64 = 10.0;
/// Shares of zero outside this range are doubtful; ternary rounding of a normal distribution gives 0.31.
const ZERO_SHARE: [f64; 2] = [0.05, 0.95];
/// The two signs may differ by this share of all codes.
const SIGN_IMBALANCE: f64 = 0.2;
/// Scales outside this range are doubtful for a matrix with nonzero codes.
const SCALE: [f32; 2] = [1e-7, 1e4];

/// What reading the bytes as one layout came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Identification {
    /// `i2_s`, `tl1 256,128,8` (with BM, BK, BY), `i2_s-arm64`, ...
    pub name: String,
    /// What speaks against it.
    pub finding: Finding,
    /// Of the codes as this layout reads them; `None` where it cannot.
    pub statistics: Option<Statistics>,
}

/// What speaks against a layout.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// Nothing. These others are consistent too: the bytes alone do not tell them apart.
    Consistent {
        /// Names of the other consistent layouts.
        alike: Vec<String>,
    },
    /// It can be read, but the result is unlikely to be a trained ternary matrix.
    Doubtful {
        /// Why, with numbers.
        why: String,
    },
    /// No packer of this layout wrote these bytes.
    Impossible {
        /// The rule that is broken.
        why: FormatError,
    },
}

impl fmt::Display for Identification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.finding {
            Finding::Consistent { alike } if alike.is_empty() => write!(f, "{}: consistent", self.name),
            Finding::Consistent { alike } => {
                write!(
                    f,
                    "{}: consistent; indistinguishable from bytes alone: {}",
                    self.name,
                    alike.join(", ")
                )
            }
            Finding::Doubtful { why } => write!(f, "{}: doubtful: {why}", self.name),
            Finding::Impossible { why } => write!(f, "{}: impossible: {why}", self.name),
        }
    }
}

/// Figures of one reading; the last three are in standard errors, see the head of this file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    /// Share of code 0.
    pub zero_share: f64,
    /// Share of code +1.
    pub plus_share: f64,
    /// How much more rows differ in their share of zeros than chance would have it.
    pub row_dispersion: f64,
    /// The same for columns.
    pub column_dispersion: f64,
    /// How much more alike neighbouring columns are than in an arbitrary order.
    pub column_smoothness: f64,
}

impl Statistics {
    /// Of a matrix `[rows, cols]` of -1, 0, +1.
    fn of(codes: &[i8], cols: usize) -> Self {
        let rows = codes.len() / cols;
        let (mut row_zeros, mut column_zeros) = (vec![0_u64; rows], vec![0_u64; cols]);
        for (row, zeros) in codes.chunks_exact(cols).zip(&mut row_zeros) {
            for (&code, column) in row.iter().zip(&mut column_zeros) {
                *zeros += u64::from(code == 0);
                *column += u64::from(code == 0);
            }
        }
        let share = |count: u64| count as f64 / codes.len() as f64;
        let zero_share = share(row_zeros.iter().sum());
        Self {
            zero_share,
            plus_share: share(codes.iter().filter(|&&code| code == 1).count() as u64),
            row_dispersion: dispersion(&row_zeros, cols, zero_share),
            column_dispersion: dispersion(&column_zeros, rows, zero_share),
            column_smoothness: smoothness(&column_zeros),
        }
    }

    /// Rows and columns together, about standard normal where there is no structure.
    fn structure(&self) -> f64 {
        (self.row_dispersion + self.column_dispersion) / std::f64::consts::SQRT_2
    }
}

/// Chi-squared of `zeros` among `n` cells per line, standardised; 0 where there is nothing to compare.
fn dispersion(zeros: &[u64], n: usize, share: f64) -> f64 {
    let (n, degrees) = (n as f64, zeros.len() as f64 - 1.0);
    let variance = n * share * (1.0 - share);
    if variance == 0.0 || degrees == 0.0 {
        return 0.0;
    }
    let chi_squared: f64 = zeros.iter().map(|&z| (z as f64 - n * share).powi(2) / variance).sum();
    (chi_squared - degrees) / (2.0 * degrees).sqrt()
}

/// Von Neumann's ratio of successive differences, standardised; 0 where all lines are equal.
fn smoothness(zeros: &[u64]) -> f64 {
    let n = zeros.len() as f64;
    let mean = zeros.iter().sum::<u64>() as f64 / n;
    let spread: f64 = zeros.iter().map(|&z| (z as f64 - mean).powi(2)).sum();
    let steps: f64 = zeros.windows(2).map(|pair| (pair[1] as f64 - pair[0] as f64).powi(2)).sum();
    if spread == 0.0 { 0.0 } else { (1.0 - steps / spread / 2.0) * n.sqrt() }
}

/// A layout to read bytes as.
#[derive(Clone, Copy)]
enum Candidate {
    Interchange(Layout),
    Foreign(ForeignLayout),
}

impl Candidate {
    fn name(&self) -> String {
        match self {
            Self::Interchange(layout) => match layout.tile() {
                Some(tile) => format!("{} {},{},{}", layout.format(), tile.bm, tile.bk, tile.by),
                None => layout.format().to_string(),
            },
            Self::Foreign(layout) => layout.name().to_string(),
        }
    }

    /// The codes and the scale.
    fn read(&self, bytes: &[u8], rows: usize, cols: usize) -> Result<(Vec<i8>, f32), FormatError> {
        match self {
            Self::Interchange(layout) => {
                let weights = Weights::new(*layout, bytes)?;
                let mut codes = vec![0; layout.n_weights()];
                unpack(&weights, &mut codes)?;
                Ok((codes, weights.scale()))
            }
            Self::Foreign(layout) => {
                check_length("packed weights", layout.packed_bytes(rows, cols)?, bytes.len())?;
                let mut codes = vec![0; rows * cols];
                layout.unpack(bytes, rows, cols, &mut codes)?;
                let at = rows * cols / 4;
                let scale = f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
                check_scale(WeightFormat::I2S, scale)?;
                Ok((codes, scale))
            }
        }
    }
}

/// Every layout we know for this shape, and the name and reason of those that cannot have it.
fn candidates(rows: usize, cols: usize) -> Vec<Result<Candidate, (String, FormatError)>> {
    let interchange = WeightFormat::ALL.into_iter().map(|format| {
        let layout = Layout::published(format, rows, cols);
        layout.map(Candidate::Interchange).map_err(|why| (format.name().to_string(), why))
    });
    interchange.chain(ForeignLayout::ALL.map(|layout| Ok(Candidate::Foreign(layout)))).collect()
}

/// Reads `bytes`, a whole tensor of `rows` x `cols`, as every layout we know and says what speaks against each.
/// Never certain about more than impossibility; see the head of this file.
pub fn identify(bytes: &[u8], rows: usize, cols: usize) -> Vec<Identification> {
    let mut found: Vec<Identification> = candidates(rows, cols)
        .into_iter()
        .map(|candidate| match candidate {
            Ok(candidate) => judge_alone(&candidate, bytes, rows, cols),
            Err((name, why)) => {
                Identification { name, finding: Finding::Impossible { why }, statistics: None }
            }
        })
        .collect();
    doubt_by_comparison(&mut found, "rows and columns differ in their zeros", Statistics::structure);
    doubt_by_comparison(&mut found, "neighbouring columns are alike", |statistics| {
        statistics.column_smoothness
    });
    let consistent: Vec<String> =
        found.iter().filter(|one| is_consistent(one)).map(|one| one.name.clone()).collect();
    for one in &mut found {
        if let Finding::Consistent { alike } = &mut one.finding {
            *alike = consistent.iter().filter(|name| **name != one.name).cloned().collect();
        }
    }
    found
}

fn is_consistent(one: &Identification) -> bool {
    matches!(one.finding, Finding::Consistent { .. })
}

fn judge_alone(candidate: &Candidate, bytes: &[u8], rows: usize, cols: usize) -> Identification {
    let name = candidate.name();
    let (codes, scale) = match candidate.read(bytes, rows, cols) {
        Ok(read) => read,
        Err(why) => return Identification { name, finding: Finding::Impossible { why }, statistics: None },
    };
    let statistics = Statistics::of(&codes, cols);
    let finding = match own_doubt(candidate, bytes, &statistics, scale) {
        Some(why) => Finding::Doubtful { why },
        None => Finding::Consistent { alike: Vec::new() },
    };
    Identification { name, finding, statistics: Some(statistics) }
}

fn own_doubt(candidate: &Candidate, bytes: &[u8], statistics: &Statistics, scale: f32) -> Option<String> {
    let Statistics { zero_share, plus_share, .. } = *statistics;
    let imbalance = 2.0 * plus_share + zero_share - 1.0;
    if let Candidate::Interchange(layout) = candidate {
        let signs = tl2::signs_of_zero(layout, bytes);
        if signs > 0 {
            return Some(format!("{signs} sign bits stand over magnitude 0, where a packer writes none"));
        }
        let padding = &bytes[layout.code_bytes()..layout.scale_offset()];
        if let Some(at) = padding.iter().position(|&byte| byte != 0) {
            return Some(format!("byte {} of the padding is not zero", layout.code_bytes() + at));
        }
    }
    if zero_share < 1.0 && !(SCALE[0]..=SCALE[1]).contains(&scale) {
        return Some(format!("the scale of a matrix with nonzero codes is {scale:e}"));
    }
    if !(ZERO_SHARE[0]..=ZERO_SHARE[1]).contains(&zero_share) {
        return Some(format!("{:.1} % of the codes are zero", 100.0 * zero_share));
    }
    (imbalance.abs() > SIGN_IMBALANCE).then(|| {
        format!("{:.1} % of the codes are +1, {:.1} % are 0", 100.0 * plus_share, 100.0 * zero_share)
    })
}

/// Casts doubt on every consistent candidate that shows far less of `what` than the best consistent one.
fn doubt_by_comparison(found: &mut [Identification], what: &str, figure: impl Fn(&Statistics) -> f64) {
    let figures: Vec<Option<f64>> =
        found.iter().map(|one| one.statistics.as_ref().filter(|_| is_consistent(one)).map(&figure)).collect();
    let best = (0..found.len())
        .filter_map(|i| figures[i].map(|figure| (i, figure)))
        .max_by(|a, b| a.1.total_cmp(&b.1));
    let Some((best, most)) = best else { return };
    let best_name = found[best].name.clone();
    for (one, figure) in found.iter_mut().zip(figures) {
        if let Some(figure) = figure.filter(|&figure| most > figure + MARGIN && most > 2.0 * figure) {
            let why =
                format!("{what}: {figure:.1} standard errors from chance, but {most:.1} read as {best_name}");
            one.finding = Finding::Doubtful { why };
        }
    }
}

/// One line over all findings: the only consistent layout, those that the bytes do not tell apart, or none.
pub fn conclusion(found: &[Identification]) -> String {
    let names = |wanted: fn(&Identification) -> bool| {
        found.iter().filter(|one| wanted(one)).map(|one| one.name.as_str()).collect::<Vec<_>>()
    };
    let consistent = names(is_consistent);
    let doubtful = names(|one| matches!(one.finding, Finding::Doubtful { .. }));
    match (consistent.as_slice(), doubtful.as_slice()) {
        ([], []) => "no layout we know fits".to_string(),
        ([], doubtful) => format!("no layout fits without doubt; readable as {}", doubtful.join(", ")),
        ([one], []) => format!("of the layouts we know, only {one} fits"),
        ([one], doubtful) => format!("{one} fits best; doubtful, not excluded: {}", doubtful.join(", ")),
        (several, _) => format!(
            "{} fit alike: indistinguishable from bytes alone, compare with expected codes or weights",
            several.join(", ")
        ),
    }
}

/// How well one reading agrees with what was expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    /// As in [`Identification::name`].
    pub name: String,
    /// The agreement, or why the layout is impossible.
    pub agreement: Result<Agreement, FormatError>,
}

/// Agreement of the codes read with expected ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Share of equal codes; 1 identifies the layout, up to layouts that read the same codes. `None` against floats.
    pub equal_share: Option<f64>,
    /// Pearson's correlation; `None` where one side is constant. A wrong order leaves some weights in place, and
    /// its correlation is about their share: 1/4 between 128/32 and 64/16, 1/64 between 128/32 and four
    /// consecutive, depending on K between 128/32 and four rows.
    pub correlation: Option<f64>,
    /// 1 / sqrt(number of weights): what a correlation scatters by for unrelated weights.
    pub chance: f64,
}

/// Compares every reading of `bytes` with the codes `[rows, cols]` that should stand there. This is certain: the
/// right layout, and only readings equal to its, have an `equal_share` of 1. Error: a wrong number of codes.
pub fn identify_against(
    bytes: &[u8],
    rows: usize,
    cols: usize,
    expected: &[i8],
) -> Result<Vec<Match>, FormatError> {
    check_length("expected codes", rows.saturating_mul(cols), expected.len())?;
    let floats: Vec<f32> = expected.iter().map(|&code| f32::from(code)).collect();
    Ok(compare(bytes, rows, cols, &floats, |codes| {
        let equal = codes.iter().zip(expected).filter(|(code, expected)| code == expected).count();
        Some(equal as f64 / expected.len() as f64)
    }))
}

/// Correlates every reading of `bytes` with float weights `[rows, cols]`, say of the unquantised model. Ternary
/// rounding of normal weights has a correlation of about 0.9 in the right order; see [`Agreement`] for wrong ones.
/// Error: a wrong number of weights.
pub fn correlate(
    bytes: &[u8],
    rows: usize,
    cols: usize,
    reference: &[f32],
) -> Result<Vec<Match>, FormatError> {
    check_length("reference weights", rows.saturating_mul(cols), reference.len())?;
    Ok(compare(bytes, rows, cols, reference, |_| None))
}

fn compare(
    bytes: &[u8],
    rows: usize,
    cols: usize,
    reference: &[f32],
    equal_share: impl Fn(&[i8]) -> Option<f64>,
) -> Vec<Match> {
    let agreement = |codes: &[i8]| Agreement {
        equal_share: equal_share(codes),
        correlation: correlation(codes, reference),
        chance: 1.0 / (reference.len() as f64).sqrt(),
    };
    candidates(rows, cols)
        .into_iter()
        .map(|candidate| match candidate {
            Ok(candidate) => Match {
                name: candidate.name(),
                agreement: candidate.read(bytes, rows, cols).map(|(codes, _)| agreement(&codes)),
            },
            Err((name, why)) => Match { name, agreement: Err(why) },
        })
        .collect()
}

/// Pearson's correlation in f64; `None` where a side is constant or holds non-finite values.
fn correlation(codes: &[i8], reference: &[f32]) -> Option<f64> {
    let n = codes.len() as f64;
    let mean_code = codes.iter().map(|&code| f64::from(code)).sum::<f64>() / n;
    let mean_reference = reference.iter().map(|&w| f64::from(w)).sum::<f64>() / n;
    let (mut both, mut code_spread, mut reference_spread) = (0.0, 0.0, 0.0);
    for (&code, &w) in codes.iter().zip(reference) {
        let (a, b) = (f64::from(code) - mean_code, f64::from(w) - mean_reference);
        both += a * b;
        code_spread += a * a;
        reference_spread += b * b;
    }
    let correlation = both / (code_spread.sqrt() * reference_spread.sqrt());
    correlation.is_finite().then_some(correlation)
}

#[cfg(test)]
mod tests;
