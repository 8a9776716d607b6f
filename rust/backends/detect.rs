//! The only CPU detection of the crate. It yields tokens; a token in hand is the proof that lets safe code call
//! kernels compiled for that instruction set. A wider token contains the narrower ones it implies.

/// Proof that this CPU and operating system run AVX2, FMA and F16C code.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

/// Proof that they run AVX-VNNI code (256-bit, VEX-encoded), and AVX2.
#[derive(Clone, Copy, Debug)]
pub struct AvxVnni(Avx2);

/// Proof that they run AVX-512 F, BW and VL code with VNNI, and AVX2: Cascade Lake, Ice Lake, Zen 4 and later.
#[derive(Clone, Copy, Debug)]
pub struct Avx512Vnni(Avx2);

/// Proof that they run all of [`Avx512Vnni`] and shuffle bytes and bits at will, by VBMI and GFNI: not Cascade Lake.
#[derive(Clone, Copy, Debug)]
pub struct Avx512Vbmi(Avx512Vnni);

/// Proof that they run AVX-512 BF16 code, and all of [`Avx512Vnni`], which does not imply it.
#[derive(Clone, Copy, Debug)]
pub struct Avx512Bf16(());

/// Proof that they run AVX512-FP16 code, and all of [`Avx512Vnni`], which does not imply it.
#[derive(Clone, Copy, Debug)]
pub struct Avx512Fp16(());

/// Proof that this is an AArch64 CPU: all of them run NEON code.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy, Debug)]
pub struct Neon(());

/// Proof that it runs NEON code with the products of four bytes, SDOT.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy, Debug)]
pub struct NeonDotprod(());

/// Whether the CPU and the operating system have each of the features; else the names of those they lack.
macro_rules! require {
    ($($feature:tt),+) => {{
        #[cfg(target_arch = "x86_64")]
        {
            let missing: Vec<&str> = [$(($feature, std::arch::is_x86_feature_detected!($feature))),+]
                .into_iter()
                .filter_map(|(feature, present)| (!present).then_some(feature))
                .collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("this CPU lacks {}", missing.join(" and "))) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let wanted = [$($feature),+].join(" and ");
            Err::<(), _>(format!("this is {}, {wanted} need x86_64", std::env::consts::ARCH))
        }
    }};
}

impl Avx2 {
    /// The token, or why there is none.
    pub fn detect() -> Result<Self, String> {
        require!("avx2", "fma", "f16c").map(|()| Self(()))
    }
}

impl AvxVnni {
    /// The token, or why there is none.
    pub fn detect() -> Result<Self, String> {
        require!("avx2", "fma", "f16c", "avxvnni").map(|()| Self(Avx2(())))
    }

    /// What is implied.
    pub fn avx2(self) -> Avx2 {
        self.0
    }
}

impl Avx512Vnni {
    /// The token, or why there is none.
    pub fn detect() -> Result<Self, String> {
        require!("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512vnni")
            .map(|()| Self(Avx2(())))
    }

    /// What is implied.
    pub fn avx2(self) -> Avx2 {
        self.0
    }

    /// Whether this is Zen 4, which runs 512 bits as twice 256. SSE4a is AMD's alone, and what came after has AVX-VNNI; that
    /// some of those run halves too is not told here. It decides what is fast, never what is right.
    pub fn in_halves(self) -> bool {
        require!("sse4a").is_ok() && AvxVnni::detect().is_err()
    }
}

impl Avx512Vbmi {
    /// The token, or why there is none.
    pub fn detect() -> Result<Self, String> {
        Avx512Vnni::detect().and_then(|vnni| require!("avx512vbmi", "gfni").map(|()| Self(vnni)))
    }

    /// What is implied.
    pub fn vnni(self) -> Avx512Vnni {
        self.0
    }
}

impl Avx512Bf16 {
    /// The token, or why there is none.
    pub fn detect() -> Result<Self, String> {
        Avx512Vnni::detect().and_then(|_| require!("avx512bf16")).map(|()| Self(()))
    }
}

impl Avx512Fp16 {
    /// The token, or why there is none.
    pub fn detect() -> Result<Self, String> {
        Avx512Vnni::detect().and_then(|_| require!("avx512fp16")).map(|()| Self(()))
    }
}

#[cfg(target_arch = "aarch64")]
impl Neon {
    /// The token.
    pub fn detect() -> Result<Self, String> {
        Ok(Self::implied())
    }

    /// What AArch64 implies.
    pub fn implied() -> Self {
        Self(())
    }
}

#[cfg(target_arch = "aarch64")]
impl NeonDotprod {
    /// The token, or why there is none.
    pub fn detect() -> Result<Self, String> {
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            return Ok(Self(()));
        }
        Err("this CPU lacks dotprod".to_string())
    }
}
