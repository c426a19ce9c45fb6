//! Loops that are compiled for the machine's vector unit.

/// Runs plain loops, compiled for the machine's best vector unit. The result has the same bits on every machine,
/// because the compiler neither reorders sums nor fuses multiplications with additions. What the loops call must be
/// inlined.
#[inline(always)]
pub(crate) fn vectorized<R>(loops: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(loops)
}
