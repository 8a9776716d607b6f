//! Where two engines part: both run the same tokens, and every intermediate of one is held against that of the other.
//!
//! The tokens are given (teacher forcing), so that one wrong choice does not change what is asked next. Within a call
//! intermediates are looked at in the order in which they are computed, so the first one that differs is the operation
//! that went wrong, or the first one after it that can be seen. What follows inherits the difference: int8 codes of
//! activations turn small ones into whole steps, hence the count of codes that flipped.

use super::{Engine, EngineError, Graph, Intermediate};
use crate::bitnet::quant::absmax;

/// One intermediate of one layer, over all calls.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationDifference {
    /// Which one.
    pub of: Intermediate,
    /// Its name.
    pub name: String,
    /// Values compared.
    pub values: u64,
    /// Values that are not equal.
    pub differing: u64,
    /// The largest difference.
    pub max_abs: f64,
    /// Norm of the difference over the norm of the reference; 0 where both are 0.
    pub relative: f64,
    /// Of what a linear layer quantises: int8 codes (rule of I2_S) that are not equal.
    pub codes_flipped: Option<u64>,
}

/// The first value that differs by more than the bound.
#[derive(Clone, Debug, PartialEq)]
pub struct FirstDivergence {
    /// Which intermediate.
    pub of: Intermediate,
    /// Its name.
    pub name: String,
    /// Position of the token.
    pub position: usize,
    /// Place in its row.
    pub index: usize,
    /// What the reference has there.
    pub reference: f32,
    /// What the subject has there.
    pub subject: f32,
}

/// The logits, over all tokens whose logits were kept.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LogitAgreement {
    /// Tokens compared.
    pub tokens: u64,
    /// Those with the same largest logit.
    pub top1: u64,
    /// Those with the same five largest logits, in any order.
    pub top5: u64,
    /// Mean over tokens of the Kullback-Leibler divergence of the subject's distribution from the reference's, in nats.
    pub kl_mean: f64,
    /// The largest one.
    pub kl_max: f64,
    /// The largest difference of a logit.
    pub max_abs: f64,
}

/// What two engines did with the same tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Divergence {
    /// Every intermediate, in the order in which they are computed.
    pub operations: Vec<OperationDifference>,
    /// Names that one of the two engines does not show, and what it says.
    pub not_shown: Vec<(String, String)>,
    /// Where they part; `None` where no value differs by more than the bound.
    pub first: Option<FirstDivergence>,
    /// Their logits.
    pub logits: LogitAgreement,
}

/// Runs `calls`, each a prefill, on both engines from position 0 on, with every intermediate tapped.
///
/// Values part where they differ by more than `bound` times the root mean square of the reference's intermediate in that
/// call: 0 demands equal values. Both engines are reset before and left without taps.
///
/// # Errors
/// What an engine says; [`EngineError::Option`] where the two models have not the same intermediates.
pub fn diverge(
    reference: &mut dyn Engine,
    subject: &mut dyn Engine,
    calls: &[&[u32]],
    bound: f64,
) -> Result<Divergence, EngineError> {
    let graph = reference.graph().clone();
    let all = Intermediate::all(&graph);
    check_comparable(&graph, subject.graph(), &all)?;
    let mut divergence = Divergence {
        operations: Vec::new(),
        not_shown: Vec::new(),
        first: None,
        logits: LogitAgreement::default(),
    };
    reference.untap();
    subject.untap();
    reference.reset()?;
    subject.reset()?;
    let mut sums = Vec::new();
    for of in all {
        let name = of.name(&graph);
        let shown = reference.tap(&name).and_then(|()| subject.tap(&name));
        match shown {
            Ok(()) => sums.push(Sums::new(of, name, &graph)),
            Err(why) => divergence.not_shown.push((name, why.to_string())),
        }
    }
    for tokens in calls {
        let position = reference.position();
        let n_outputs = tokens.len().min(reference.options().outputs).min(subject.options().outputs);
        reference.prefill(tokens, n_outputs)?;
        subject.prefill(tokens, n_outputs)?;
        for sums in &mut sums {
            let (a, b) = (reference.tapped(&sums.name), subject.tapped(&sums.name));
            let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
            let first_row = if sums.of.of_outputs() { position + tokens.len() - n_outputs } else { position };
            let first = sums.add(a, b, first_row, bound);
            divergence.first = divergence.first.take().or(first);
        }
        divergence.logits.add(reference.logits(), subject.logits(), graph.vocab);
    }
    divergence.logits.kl_mean /= divergence.logits.tokens.max(1) as f64;
    divergence.operations = sums.into_iter().map(Sums::difference).collect();
    reference.untap();
    subject.untap();
    Ok(divergence)
}

/// The same names and widths; rotation, epsilon and the like may differ, and are then found.
fn check_comparable(reference: &Graph, subject: &Graph, all: &[Intermediate]) -> Result<(), EngineError> {
    let same = |of: &Intermediate| {
        of.name(reference) == of.name(subject) && of.width(reference) == of.width(subject)
    };
    if Intermediate::all(subject) == all && all.iter().all(same) {
        return Ok(());
    }
    Err(EngineError::Option {
        what: "the graph of the subject",
        found: format!("{} layers of {} values", subject.layers, subject.hidden),
        expected: format!(
            "the intermediates of the reference, {} layers of {}",
            reference.layers, reference.hidden
        ),
    })
}

/// What has been seen of an intermediate so far.
struct Sums {
    of: Intermediate,
    name: String,
    width: usize,
    quantised: bool,
    values: u64,
    differing: u64,
    max_abs: f64,
    difference_squared: f64,
    reference_squared: f64,
    flipped: u64,
}

impl Sums {
    fn new(of: Intermediate, name: String, graph: &Graph) -> Self {
        Self {
            of,
            name,
            width: of.width(graph),
            quantised: of.operation.is_quantised(graph),
            values: 0,
            differing: 0,
            max_abs: 0.0,
            difference_squared: 0.0,
            reference_squared: 0.0,
            flipped: 0,
        }
    }

    /// Compares rows `a` of the reference with `b`; the first value beyond the bound, its row counted from `first_row`.
    fn add(&mut self, a: &[f32], b: &[f32], first_row: usize, bound: f64) -> Option<FirstDivergence> {
        let squares: f64 = a.iter().map(|&a| f64::from(a) * f64::from(a)).sum();
        let allowed = bound * (squares / a.len().max(1) as f64).sqrt();
        let mut first = None;
        for (index, (&a, &b)) in a.iter().zip(b).enumerate() {
            let difference = (f64::from(a) - f64::from(b)).abs();
            if a == b {
                continue;
            }
            self.differing += 1;
            self.max_abs = self.max_abs.max(difference);
            self.difference_squared += difference * difference;
            // A NaN is beyond every bound.
            if first.is_none() && difference.partial_cmp(&allowed).is_none_or(|order| order.is_gt()) {
                first = Some(FirstDivergence {
                    of: self.of,
                    name: self.name.clone(),
                    position: first_row + index / self.width,
                    index: index % self.width,
                    reference: a,
                    subject: b,
                });
            }
        }
        self.values += a.len() as u64;
        self.reference_squared += squares;
        if self.quantised {
            let rows = a.chunks_exact(self.width).zip(b.chunks_exact(self.width));
            self.flipped += rows.map(|(a, b)| flipped(a, b)).sum::<u64>();
        }
        first
    }

    fn difference(self) -> OperationDifference {
        let relative = if self.difference_squared == 0.0 {
            0.0
        } else {
            (self.difference_squared / self.reference_squared).sqrt()
        };
        OperationDifference {
            of: self.of,
            name: self.name,
            values: self.values,
            differing: self.differing,
            max_abs: self.max_abs,
            relative,
            codes_flipped: self.quantised.then_some(self.flipped),
        }
    }
}

/// Int8 codes of two rows that are not equal; all of them where a row cannot be quantised.
fn flipped(a: &[f32], b: &[f32]) -> u64 {
    let (mut qa, mut qb) = (vec![0; a.len()], vec![0; b.len()]);
    match (absmax::quantize_row(a, &mut qa), absmax::quantize_row(b, &mut qb)) {
        (Ok(_), Ok(_)) => qa.iter().zip(&qb).filter(|(a, b)| a != b).count() as u64,
        _ => a.len() as u64,
    }
}

impl LogitAgreement {
    fn add(&mut self, reference: &[f32], subject: &[f32], vocab: usize) {
        for (a, b) in reference.chunks_exact(vocab).zip(subject.chunks_exact(vocab)) {
            self.tokens += 1;
            let (top_a, top_b) = (largest(a), largest(b));
            self.top1 += u64::from(top_a[0] == top_b[0]);
            self.top5 += u64::from(top_a.iter().all(|token| top_b.contains(token)));
            let kl = kullback_leibler(a, b);
            self.kl_mean += kl;
            self.kl_max = self.kl_max.max(kl);
            let differences = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs());
            self.max_abs = differences.fold(self.max_abs, f64::max);
        }
    }
}

/// The tokens of the five largest logits, largest first, the earlier one where two are equal.
fn largest(logits: &[f32]) -> Vec<usize> {
    let mut top: Vec<usize> = Vec::with_capacity(6);
    for (token, &logit) in logits.iter().enumerate() {
        let place = top.partition_point(|&other| logits[other] >= logit);
        if place < 5 {
            top.insert(place, token);
            top.truncate(5);
        }
    }
    top
}

/// `sum p ln(p / q)` of the two distributions, in f64; never below 0.
fn kullback_leibler(reference: &[f32], subject: &[f32]) -> f64 {
    let log_sum = |logits: &[f32]| {
        let max = logits.iter().fold(f64::NEG_INFINITY, |max, &x| max.max(f64::from(x)));
        max + logits.iter().map(|&x| (f64::from(x) - max).exp()).sum::<f64>().ln()
    };
    let (za, zb) = (log_sum(reference), log_sum(subject));
    let terms = reference.iter().zip(subject).map(|(&a, &b)| {
        let (log_p, log_q) = (f64::from(a) - za, f64::from(b) - zb);
        log_p.exp() * (log_p - log_q)
    });
    terms.sum::<f64>().max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_five_largest_in_order() {
        assert_eq!(largest(&[1.0, 9.0, 3.0, 9.0, -1.0, 4.0, 5.0]), [1, 3, 6, 5, 2]);
        assert_eq!(largest(&[0.5, 0.5]), [0, 1]);
    }

    /// p = (3/4, 1/4) against q = (1/2, 1/2): 3/4 ln(3/2) + 1/4 ln(1/2).
    #[test]
    fn divergence_of_distributions_is_that_of_the_formula() {
        let (p, q) = ([3.0_f32.ln(), 0.0], [1.0_f32, 1.0]);
        let expected = 0.75 * 1.5_f64.ln() + 0.25 * 0.5_f64.ln();
        assert!((kullback_leibler(&p, &q) - expected).abs() < 1e-7);
        assert_eq!(kullback_leibler(&p, &p), 0.0);
    }
}
