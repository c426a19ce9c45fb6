use pulp::{Simd, WithSimd};

/// The vector unit that the machine has, by the name of its instructions.
pub fn isa() -> &'static str {
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

/// Runs an operation compiled for the best vector unit that the machine has.
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

/// Runs plain loops compiled for the best vector unit that the machine has; with the same result on all of them, since
/// the compiler neither reorders sums nor fuses multiplications with additions.
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

/// Asks for a line of the second cache; any address will do.
#[inline(always)]
pub(super) fn prefetch(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: nothing is read; an address that is not there is passed over.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
