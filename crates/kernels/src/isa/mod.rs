//! Which instruction set runs the kernels: detected once, chosen per call in tests.
//!
//! Every kernel is written once, generic over [`Simd`], and is compiled once for each instruction set by inlining it
//! into the one function here that enables the set's features. All sets compute the same bits.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
mod simd;

use std::fmt;
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use avx512::Avx512;
use portable::Portable;
pub(crate) use simd::Simd;

/// A register's bits as another type of the same size, both plain numbers.
///
/// Loads and stores are written as copies of arrays: with debug assertions, the intrinsics for them check their
/// pointers on every call, and products ran at 14 instead of 39 GFLOP/s.
#[cfg(target_arch = "x86_64")]
macro_rules! bits {
    ($from:ty as $to:ty: $value:expr) => {
        // SAFETY: the compiler checks that the sizes are equal, and every bit pattern of numbers is valid.
        unsafe { std::mem::transmute::<$from, $to>($value) }
    };
}
#[cfg(target_arch = "x86_64")]
use bits;

/// An instruction set this processor has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Isa(Level);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    Portable(Portable),
}

/// A computation that can be compiled for any instruction set.
///
/// `run` and everything it calls on vectors must be `#[inline(always)]`: only code inlined into the dispatcher's
/// functions is compiled with the set's features.
pub(crate) trait Kernel {
    type Output;

    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

impl Isa {
    /// The best instruction set of this processor.
    pub fn detect() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Self::available()[0])
    }

    /// All instruction sets of this processor that kernels are compiled for, best first; the last is portable.
    pub fn available() -> Vec<Self> {
        let mut sets = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            sets.extend(Avx512::detect().map(|set| Self(Level::Avx512(set))));
            sets.extend(Avx2::detect().map(|set| Self(Level::Avx2(set))));
        }
        sets.push(Self(Level::Portable(Portable)));
        sets
    }

    /// A short lower-case name for logs and reports.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(_) => "avx2",
            Level::Portable(_) => "portable",
        }
    }

    /// Runs `kernel` with this instruction set.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            // SAFETY: a value of `Avx512` exists only where its features were detected.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(set) => unsafe { run_avx512(set, kernel) },
            // SAFETY: a value of `Avx2` exists only where its features were detected.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(set) => unsafe { run_avx2(set, kernel) },
            Level::Portable(set) => kernel.run(set),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
fn run_avx512<K: Kernel>(set: Avx512, kernel: K) -> K::Output {
    kernel.run(set)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn run_avx2<K: Kernel>(set: Avx2, kernel: K) -> K::Output {
    kernel.run(set)
}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
