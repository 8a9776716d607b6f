//! The one random generator: every input of every workload and test comes from a seed through it.
//!
//! xoshiro256++ 1.0 (Blackman and Vigna, "Scrambled linear pseudorandom number generators", ACM TOMS 2021),
//! its state filled by SplitMix64 as its authors advise. Normal deviates use the Box-Muller transform with
//! `libm`'s pure-Rust functions, so that the same seed gives the same bits on every platform.

/// A seeded stream of pseudo-random numbers. Not for cryptography.
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
    spare_normal: Option<f64>,
}

impl Rng {
    /// A generator whose whole stream is determined by `seed`.
    pub fn new(seed: u64) -> Self {
        let mut split_mix = seed;
        let state = std::array::from_fn(|_| {
            split_mix = split_mix.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = split_mix;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        });
        Self { state, spare_normal: None }
    }

    /// A generator for one named part of a larger whole (a tensor, a workload): its stream depends on the
    /// seed and the name only, not on what was drawn before. The name enters by 64-bit FNV-1a.
    pub fn for_part(seed: u64, part: &str) -> Self {
        let hash = part.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self::new(seed ^ hash)
    }

    /// 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform on [0, 1), 53 bits.
    pub fn unit_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// Uniform on 0..bound; `bound` must not be 0. Lemire's multiply-and-shift with rejection: no bias.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "Rng::below needs a positive bound");
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(bound);
            if wide as u64 >= threshold {
                return (wide >> 64) as u64;
            }
        }
    }

    /// A fair coin.
    pub fn coin(&mut self) -> bool {
        self.next_u64() >> 63 == 1
    }

    /// Standard normal deviate.
    pub fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare_normal.take() {
            return spare;
        }
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.unit_f64()));
        let angle = 2.0 * std::f64::consts::PI * self.unit_f64();
        self.spare_normal = Some(radius * libm::sin(angle));
        radius * libm::cos(angle)
    }

    /// A ternary code, -1, 0 or +1, each with probability 1/3.
    pub fn ternary(&mut self) -> i8 {
        self.below(3) as i8 - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SplitMix64 from state 0 must give these words (reference implementation by S. Vigna), which then are
    /// the initial state of xoshiro256++.
    #[test]
    fn state_matches_the_published_split_mix_vector() {
        assert_eq!(
            Rng::new(0).state,
            [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f, 0xf88b_b8a8_724c_81ec]
        );
    }

    /// The first outputs of xoshiro256++ from state 1, 2, 3, 4 (the vector used by the public crates).
    #[test]
    fn outputs_match_the_published_xoshiro_vector() {
        let mut rng = Rng { state: [1, 2, 3, 4], spare_normal: None };
        let first: Vec<u64> = (0..4).map(|_| rng.next_u64()).collect();
        assert_eq!(first, [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386]);
    }

    #[test]
    fn parts_are_independent_of_each_other() {
        assert_ne!(Rng::for_part(42, "a").next_u64(), Rng::for_part(42, "b").next_u64());
        assert_eq!(Rng::for_part(42, "a").next_u64(), Rng::for_part(42, "a").next_u64());
    }

    #[test]
    fn normal_deviates_have_the_moments_of_a_normal() {
        let mut rng = Rng::new(1);
        let n = 200_000;
        let draws: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
        let mean = draws.iter().sum::<f64>() / n as f64;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        let kurtosis = draws.iter().map(|x| (x - mean).powi(4)).sum::<f64>() / n as f64 / variance.powi(2);
        // Five standard errors each: 1/sqrt(n), sqrt(2/n), sqrt(24/n).
        assert!(mean.abs() < 5.0 / (n as f64).sqrt(), "mean {mean}");
        assert!((variance - 1.0).abs() < 5.0 * (2.0 / n as f64).sqrt(), "variance {variance}");
        assert!((kurtosis - 3.0).abs() < 5.0 * (24.0 / n as f64).sqrt(), "kurtosis {kurtosis}");
    }
}
