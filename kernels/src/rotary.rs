//! Rotary position embeddings (Su et al. 2021, arXiv:2104.09864).

use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{
    Kernels,
    simd::vectorized,
    storage::{blank, floats, made},
};

/// Which two channels of a head are the coordinates that one angle rotates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// Channels 2·i and 2·i + 1.
    Neighbors,
    /// Channels i and i + d/2.
    Halves,
}

impl Kernels {
    /// Rotates the channels of each head: x (B, N, H·d), cos and sin of the angles (B, N, d/2) or (1, N, d/2) → (B, N,
    /// H·d). The pair (a, b) becomes (a·cos − b·sin, b·cos + a·sin). The number of heads follows from the shapes.
    pub fn rotary(self, x: &Tensor, cos: &Tensor, sin: &Tensor, pairs: Pairs) -> Result<Tensor> {
        match self {
            Kernels::Packed(_) => x.apply_op3_no_bwd(cos, sin, &Rotary { pairs }),
            Kernels::Reference(_) => composite(x, cos, sin, pairs),
        }
    }
}

fn composite(x: &Tensor, cos: &Tensor, sin: &Tensor, pairs: Pairs) -> Result<Tensor> {
    let (b, n, width) = x.dims3()?;
    let half = cos.dim(D::Minus1)?;
    let table = |angles: &Tensor| {
        let rows = angles.dim(0)?;
        match pairs {
            Pairs::Neighbors => angles.reshape((rows, n, 1, half, 1))?.to_dtype(x.dtype()),
            Pairs::Halves => angles.reshape((rows, n, 1, 1, half))?.to_dtype(x.dtype()),
        }
    };
    let (cos, sin) = (table(cos)?, table(sin)?);
    let (shape, axis) = match pairs {
        Pairs::Neighbors => ([b, n, width / (2 * half).max(1), half, 2], 4),
        Pairs::Halves => ([b, n, width / (2 * half).max(1), 2, half], 3),
    };
    let x = x.reshape(&shape[..])?;
    let (first, second) = (x.narrow(axis, 0, 1)?, x.narrow(axis, 1, 1)?);
    let rotated = [
        (first.broadcast_mul(&cos)? - second.broadcast_mul(&sin)?)?,
        (second.broadcast_mul(&cos)? + first.broadcast_mul(&sin)?)?,
    ];
    Tensor::cat(&rotated, axis)?.reshape((b, n, width))
}

struct Rotary {
    pairs: Pairs,
}

impl CustomOp3 for Rotary {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        cos: &CpuStorage,
        cos_layout: &Layout,
        sin: &CpuStorage,
        sin_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (b, n, width) = x_layout.shape().dims3()?;
        let (rows, positions, half) = cos_layout.shape().dims3()?;
        let fits = positions == n && (rows == b || rows == 1) && half > 0 && width % (2 * half) == 0;
        if !fits || sin_layout.shape() != cos_layout.shape() || b * n * width == 0 {
            candle_core::bail!("rotary: {:?} by {:?}", x_layout.shape(), (cos_layout.shape(), sin_layout.shape()));
        }
        let (x, cos, sin) = (floats(x, x_layout)?, floats(cos, cos_layout)?, floats(sin, sin_layout)?);
        let mut y = blank(x.len());
        let tokens = (1usize << 13).div_ceil(width);
        y.par_chunks_mut(tokens * width).zip(x.par_chunks(tokens * width)).enumerate().for_each(|(chunk, (y, x))| {
            vectorized(
                #[inline(always)]
                || {
                    for (i, (y, x)) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)).enumerate() {
                        let token = (chunk * tokens + i) % (rows * n) * half;
                        let (cos, sin) = (&cos[token..token + half], &sin[token..token + half]);
                        for (y, x) in y.chunks_exact_mut(2 * half).zip(x.chunks_exact(2 * half)) {
                            match self.pairs {
                                Pairs::Neighbors => neighbors(y, x, cos, sin),
                                Pairs::Halves => halves(y, x, cos, sin),
                            }
                        }
                    }
                },
            )
        });
        made(y, x_layout.shape().clone())
    }
}

#[inline(always)]
fn neighbors(y: &mut [f32], x: &[f32], cos: &[f32], sin: &[f32]) {
    let (y, x) = (y.as_chunks_mut::<2>().0, x.as_chunks::<2>().0);
    for (((y, [a, b]), cos), sin) in y.iter_mut().zip(x).zip(cos).zip(sin) {
        *y = [a * cos - b * sin, b * cos + a * sin];
    }
}

#[inline(always)]
fn halves(y: &mut [f32], x: &[f32], cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    let (first, second) = y.split_at_mut(half);
    let (a, b) = x.split_at(half);
    for i in 0..half {
        first[i] = a[i] * cos[i] - b[i] * sin[i];
        second[i] = b[i] * cos[i] + a[i] * sin[i];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Random;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// A pair of coordinates is a complex number, which is multiplied by e^(iθ).
        #[test]
        fn like_the_definition(
            b in 1usize..4, n in 1usize..40, heads in 1usize..4, half in 1usize..20, shared: bool, halves: bool,
            seed: u64,
        ) {
            let mut random = Random::new(seed);
            let pairs = if halves { Pairs::Halves } else { Pairs::Neighbors };
            let rows = if shared { 1 } else { b };
            let x = random.normal(&[b, n, heads * 2 * half], 0.0);
            let angles = random.normal(&[rows, n, half], 0.0);
            let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
            let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let (x_of, angles) = (values(&x), values(&angles));
            for kernels in [Kernels::default(), Kernels::REFERENCE] {
                let y = values(&kernels.rotary(&x, &cos, &sin, pairs).unwrap());
                for at in 0..b * n * heads * half {
                    let (head, i) = (at / half, at % half);
                    let token = head / heads % (rows * n);
                    let [re, im] = match pairs {
                        Pairs::Neighbors => [0, 1].map(|k| head * 2 * half + 2 * i + k),
                        Pairs::Halves => [0, 1].map(|k| head * 2 * half + k * half + i),
                    };
                    let (sin, cos) = f64::from(angles[token * half + i]).sin_cos();
                    let (a, b) = (f64::from(x_of[re]), f64::from(x_of[im]));
                    prop_assert!((f64::from(y[re]) - (a * cos - b * sin)).abs() < 1e-5);
                    prop_assert!((f64::from(y[im]) - (b * cos + a * sin)).abs() < 1e-5);
                }
            }
        }
    }
}
