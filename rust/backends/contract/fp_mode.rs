//! The floating-point mode of this thread: rounding, flushing of subnormals, trapped exceptions.
//!
//! Code from a library that a user names may change it: a constructor that `-ffast-math` links in flushes subnormals,
//! `fesetround` turns the rounding. Everything computed afterwards on this thread, the oracle's results included, would
//! silently follow other rules. So the mode is taken before such code runs and compared afterwards.
//!
//! Covered: SSE and AVX arithmetic on x86_64 (MXCSR), of the thread that calls. Not covered: the x87 control word, which
//! neither Rust nor the reference computes with; other architectures, where [`FpMode`] sees no change; other threads,
//! those that the library starts included.

/// The control bits of MXCSR; empty on other architectures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::backends) struct FpMode(u32);

/// The lowest six bits of MXCSR say which exceptions happened: a record of arithmetic, not a mode.
const EXCEPTIONS_SEEN: u32 = 0x3f;

impl FpMode {
    /// The mode now.
    pub(in crate::backends) fn now() -> Self {
        Self(register::read() & !EXCEPTIONS_SEEN)
    }

    /// Puts this mode back, if another one is in force now. Returns that other mode.
    pub(in crate::backends) fn put_back(self) -> Option<Self> {
        let found = Self::now();
        if found == self {
            return None;
        }
        register::write(self.0);
        Some(found)
    }
}

impl std::fmt::Display for FpMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MXCSR {:#06x}", self.0)
    }
}

#[cfg(target_arch = "x86_64")]
mod register {
    use std::arch::asm;

    pub(super) fn read() -> u32 {
        let mut value = 0_u32;
        // SAFETY: stores four bytes at a valid place; every x86_64 has the instruction.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
        value
    }

    /// `value` was read on this thread before foreign code ran.
    pub(super) fn write(value: u32) {
        // SAFETY: no reserved bit is set, because the CPU gave the value; it is the mode that Rust code ran in before.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, preserves_flags)) };
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod register {
    pub(super) fn read() -> u32 {
        0
    }

    pub(super) fn write(_value: u32) {}
}
