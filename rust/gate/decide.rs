//! Where an interval lies against a limit: two one-sided tests at the same margin.
//!
//! ```text
//! lower > margin                         fail (confirmed): rejects "at most the margin"
//! upper < margin                         pass (confirmed): rejects "at least the margin"
//! lower > 0 and estimate > margin        fail (likely): slower for sure, and the best estimate lies beyond
//! else                                   neutral
//! ```
//!
//! Unit: ln of a ratio. Assumes: each bound is wrong with at most the probability it was made for, so at an effect
//! exactly on the margin fail and pass are each as improbable. A reader may not conclude from neutral that there is
//! no difference. Source: Schuirmann 1987 (two one-sided tests); `docs/STATISTICS.md`.

use super::verdict::{Answer, Certainty};

/// An estimate with one-sided bounds, in ln of the ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// The best estimate.
    pub estimate: f64,
    /// It is hardly below this.
    pub lower: f64,
    /// It is hardly above this.
    pub upper: f64,
}

/// An answer and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Pass, neutral, fail.
    pub answer: Answer,
    /// Confirmed, likely, inconclusive.
    pub certainty: Certainty,
}

/// Decides at `margin` (ln of the largest allowed ratio); `strict` turns `likely` into neutral.
pub fn decide(bounds: &Bounds, margin: f64, strict: bool) -> Decision {
    let Bounds { estimate, lower, upper } = *bounds;
    let (answer, certainty) = if lower > margin {
        (Answer::Fail, Certainty::Confirmed)
    } else if upper < margin {
        (Answer::Pass, Certainty::Confirmed)
    } else if lower > 0.0 && estimate > margin {
        (if strict { Answer::Neutral } else { Answer::Fail }, Certainty::Likely)
    } else {
        (Answer::Neutral, Certainty::Inconclusive)
    };
    Decision { answer, certainty }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_position_of_an_interval_has_its_answer() {
        let at = |estimate, lower, upper| {
            let decision = decide(&Bounds { estimate, lower, upper }, 0.05, false);
            (decision.answer, decision.certainty)
        };
        assert_eq!(at(0.08, 0.06, 0.10), (Answer::Fail, Certainty::Confirmed));
        assert_eq!(at(0.00, -0.02, 0.02), (Answer::Pass, Certainty::Confirmed));
        assert_eq!(at(0.06, 0.01, 0.11), (Answer::Fail, Certainty::Likely));
        assert_eq!(at(0.04, 0.01, 0.07), (Answer::Neutral, Certainty::Inconclusive));
        assert_eq!(at(0.06, -0.01, 0.13), (Answer::Neutral, Certainty::Inconclusive));
        // On the margin itself nothing is shown.
        assert_eq!(at(0.05, 0.05, 0.05), (Answer::Neutral, Certainty::Inconclusive));
        let strict = decide(&Bounds { estimate: 0.06, lower: 0.01, upper: 0.11 }, 0.05, true);
        assert_eq!(strict, Decision { answer: Answer::Neutral, certainty: Certainty::Likely });
        // A bound that is no number decides nothing.
        assert_eq!(at(f64::NAN, f64::NAN, f64::NAN), (Answer::Neutral, Certainty::Inconclusive));
    }
}
