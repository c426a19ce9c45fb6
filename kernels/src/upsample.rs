//! Nearest-neighbor upsampling of channels-last maps.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{
    Kernels,
    storage::{blank, floats, made},
};

impl Kernels {
    /// x (B, h, w, C) → (B, H, W, C). Row i of the result is row ⌊i·(h/H)⌋ of x, and columns likewise. The ratio h/H is
    /// a float32, as in PyTorch's `interpolate`.
    pub fn nearest(self, x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
        match self {
            Kernels::Packed(_) => x.apply_op1_no_bwd(&Nearest { height, width }),
            Kernels::Reference(_) => composite(x, height, width),
        }
    }
}

fn composite(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let (_, h, w, _) = x.dims4()?;
    let index = |from, to| Tensor::from_vec(sources(from, to).map(|i| i as u32).collect(), to, x.device());
    x.index_select(&index(h, height)?, 1)?.index_select(&index(w, width)?, 2)
}

fn sources(from: usize, to: usize) -> impl Iterator<Item = usize> {
    let ratio = from as f32 / to as f32;
    (0..to).map(move |i| ((i as f32 * ratio) as usize).min(from - 1))
}

struct Nearest {
    height: usize,
    width: usize,
}

impl CustomOp1 for Nearest {
    fn name(&self) -> &'static str {
        "nearest"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, h, w, c) = layout.shape().dims4()?;
        let x = floats(storage, layout)?;
        if x.is_empty() || self.height == 0 || self.width == 0 {
            candle_core::bail!("nearest: {:?} to {}×{}", layout.shape(), self.height, self.width);
        }
        let lines: Vec<usize> = (0..batch).flat_map(|b| sources(h, self.height).map(move |y| b * h + y)).collect();
        let mut out = blank(batch * self.height * self.width * c);
        out.par_chunks_mut(self.width * c).zip(lines).for_each(|(out, line)| {
            let line = &x[line * w * c..(line + 1) * w * c];
            for (out, from) in out.chunks_exact_mut(c).zip(sources(w, self.width)) {
                out.copy_from_slice(&line[from * c..(from + 1) * c]);
            }
        });
        made(out, (batch, self.height, self.width, c))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn doubles_and_fits_odd_sizes() {
        let x = Tensor::arange(0f32, 4.0, &Device::Cpu).unwrap().reshape((1, 2, 2, 1)).unwrap();
        let flat = |x: Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let doubled = [0., 0., 1., 1., 0., 0., 1., 1., 2., 2., 3., 3., 2., 2., 3., 3.];
        for kernels in [Kernels::default(), Kernels::REFERENCE] {
            assert_eq!(flat(kernels.nearest(&x, 4, 4).unwrap()), doubled);
            assert_eq!(flat(kernels.nearest(&x, 3, 3).unwrap()), [0., 0., 1., 0., 0., 1., 2., 2., 3.]);
        }
    }
}
