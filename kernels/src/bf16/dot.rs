//! The product of planes with the dot products of AVX-512 (AVX512-BF16).

#[cfg(target_arch = "x86_64")]
mod instructions {
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_set1_epi32, _mm512_setzero_ps,
        _mm512_storeu_ps,
    };

    use crate::{
        bf16::{factors::Factors, tile::STEP},
        block::Block,
        gemm::WIDTH,
    };

    pub fn is_available() -> bool {
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16")
    }

    /// The lines that are summed in registers at a time: with two panels, 24 of the 32 registers are sums.
    const LINES: usize = 12;

    pub fn multiply<const L: usize, const R: usize>(factors: Factors<'_>, out: &mut Block<'_>, add: bool) {
        assert!(is_available());
        // SAFETY: the processor has the instructions.
        unsafe { rectangles::<L, R>(factors, out, add) };
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn rectangles<const L: usize, const R: usize>(factors: Factors<'_>, out: &mut Block<'_>, add: bool) {
        let panels = out.columns().div_ceil(WIDTH);
        let mut line = 0;
        while line < out.lines() {
            let left = out.lines() - line;
            for panel in (0..panels).step_by(2) {
                match left {
                    LINES.. => rectangle::<L, R, LINES>(factors, out, line, panel, add),
                    4.. => rectangle::<L, R, 4>(factors, out, line, panel, add),
                    _ => rectangle::<L, R, 1>(factors, out, line, panel, add),
                }
            }
            line += match left {
                LINES.. => LINES,
                4.. => 4,
                _ => 1,
            };
        }
    }

    /// Some lines of two panels.
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn rectangle<const L: usize, const R: usize, const H: usize>(
        factors: Factors<'_>,
        out: &mut Block<'_>,
        line: usize,
        panel: usize,
        add: bool,
    ) {
        let columns = [panel, panel + 1].map(|panel| out.columns().saturating_sub(panel * WIDTH).min(WIDTH));
        let mut sums = [[_mm512_setzero_ps(); 2]; H];
        if add {
            for i in 0..H {
                for p in 0..2 {
                    let mut values = [0.0; WIDTH];
                    let from = (panel + p) * WIDTH;
                    if columns[p] > 0 {
                        values[..columns[p]].copy_from_slice(&out.line(line + i)[from..from + columns[p]]);
                    }
                    // SAFETY: there are 16 values.
                    sums[i][p] = unsafe { _mm512_loadu_ps(values.as_ptr()) };
                }
            }
        }
        let b = [panel, if columns[1] > 0 { panel + 1 } else { panel }].map(|panel| factors.panel::<R>(panel));
        let a: [[*const u8; L]; H] = std::array::from_fn(|i| factors.line::<L>(line + i));
        for ((&offset, b0), b1) in factors.offsets.iter().zip(b[0]).zip(b[1]) {
            for q in 0..R {
                for p in 0..L - q {
                    for pair in 0..STEP / 2 {
                        let [b0, b1] = [&b0[q].0[pair], &b1[q].0[pair]].map(number_pairs);
                        for i in 0..H {
                            // SAFETY: a step has 16 pairs of numbers, which `Factors::line` promises to be readable.
                            let pair = unsafe { a[i][p].wrapping_add(offset).cast::<i32>().add(pair).read() };
                            let pair = bits(_mm512_set1_epi32(pair));
                            sums[i][0] = _mm512_dpbf16_ps(sums[i][0], pair, b0);
                            sums[i][1] = _mm512_dpbf16_ps(sums[i][1], pair, b1);
                        }
                    }
                }
            }
        }
        for i in 0..H {
            for p in (0..2).filter(|p| columns[*p] > 0) {
                let mut values = [0.0; WIDTH];
                // SAFETY: there is room for 16 values.
                unsafe { _mm512_storeu_ps(values.as_mut_ptr(), sums[i][p]) };
                let from = (panel + p) * WIDTH;
                out.line(line + i)[from..from + columns[p]].copy_from_slice(&values[..columns[p]]);
            }
        }
    }

    #[inline(always)]
    fn number_pairs(line: &[u32; WIDTH]) -> __m512bh {
        // SAFETY: both types have 64 bytes, of which every bit pattern is valid.
        unsafe { std::mem::transmute_copy::<[u32; WIDTH], __m512bh>(line) }
    }

    #[inline(always)]
    fn bits(pairs: __m512i) -> __m512bh {
        // SAFETY: as above.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(pairs) }
    }

    const _: () = assert!(size_of::<__m512bh>() == 64 && size_of::<__m512>() == 64);
}

#[cfg(not(target_arch = "x86_64"))]
mod instructions {
    use crate::{bf16::factors::Factors, block::Block};

    pub fn is_available() -> bool {
        false
    }

    pub fn multiply<const L: usize, const R: usize>(_: Factors<'_>, _: &mut Block<'_>, _: bool) {
        unreachable!("the machine has no such dot products")
    }
}

pub(super) use instructions::{is_available, multiply};
