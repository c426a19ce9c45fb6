//! Selection of the machine's vector unit at run time.

use pulp::{Simd, WithSimd};

use super::bf16;

/// The name of the instructions that the kernels use on this machine: amx (with avx512), avx512, avx2, neon or scalar.
pub fn isa() -> &'static str {
    if bf16::is_on() {
        return "amx";
    }
    #[cfg(target_arch = "x86_64")]
    match () {
        () if pulp::x86::V4::try_new().is_some() => return "avx512",
        () if pulp::x86::V3::try_new().is_some() => return "avx2",
        () => {}
    }
    #[cfg(target_arch = "aarch64")]
    if pulp::aarch64::Neon::try_new().is_some() {
        return "neon";
    }
    "scalar"
}

/// Runs `op`, compiled for the machine's best vector unit.
pub(super) fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
    #[cfg(target_arch = "x86_64")]
    if let Some(avx512) = pulp::x86::V4::try_new() {
        return Simd::vectorize(avx512, op);
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = pulp::x86::V3::try_new() {
        return Simd::vectorize(avx2, op);
    }
    #[cfg(target_arch = "aarch64")]
    if let Some(neon) = pulp::aarch64::Neon::try_new() {
        return Simd::vectorize(neon, op);
    }
    op.with_simd(pulp::Scalar::new())
}

/// Runs plain loops, compiled for the machine's best vector unit. The result has the same bits on every machine,
/// because the compiler neither reorders sums nor fuses multiplications with additions.
#[inline(always)]
pub(super) fn vectorized<R>(loops: impl FnOnce() -> R) -> R {
    struct Loops<F>(F);

    impl<R, F: FnOnce() -> R> WithSimd for Loops<F> {
        type Output = R;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> R {
            (self.0)()
        }
    }
    dispatch(Loops(loops))
}

/// Prefetches a cache line into the L2 cache. Any address is allowed, even an invalid one.
#[inline(always)]
pub(super) fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: the instruction reads no value and ignores invalid addresses.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
