//! The only CPU detection of the crate. It yields tokens; a token in hand is the proof that lets safe code call
//! kernels compiled for that instruction set.

/// Proof that this CPU and operating system run AVX2, FMA and F16C code.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// The token, or why there is none.
    pub fn detect() -> Result<Self, String> {
        #[cfg(target_arch = "x86_64")]
        {
            let missing: Vec<&str> = [
                ("avx2", std::arch::is_x86_feature_detected!("avx2")),
                ("fma", std::arch::is_x86_feature_detected!("fma")),
                ("f16c", std::arch::is_x86_feature_detected!("f16c")),
            ]
            .into_iter()
            .filter_map(|(feature, present)| (!present).then_some(feature))
            .collect();
            if missing.is_empty() {
                return Ok(Self(()));
            }
            Err(format!("this CPU lacks {}", missing.join(" and ")))
        }
        #[cfg(not(target_arch = "x86_64"))]
        Err(format!("this is {}, AVX2 needs x86_64", std::env::consts::ARCH))
    }
}
