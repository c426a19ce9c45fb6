//! Convolution of channels-last maps: patches laid side by side, then one product with a matrix.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{
    add::add_channels,
    matmul::rows_times,
    storage::{floats, made},
};

/// A convolution's weight (kh·kw·in, out), bias (out) and geometry.
#[derive(Clone, Debug)]
pub struct Conv2d {
    pub weight: Tensor,
    pub bias: Tensor,
    pub geometry: Geometry,
}

/// Height and width of the kernel, steps between patches, and rows or columns of zeros around the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub kernel: (usize, usize),
    pub stride: usize,
    pub top: usize,
    pub bottom: usize,
    pub left: usize,
    pub right: usize,
}

impl Geometry {
    /// A square kernel with `padding` zeros on every side.
    pub fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Self {
            kernel: (kernel, kernel),
            stride,
            top: padding,
            bottom: padding,
            left: padding,
            right: padding,
        }
    }

    /// Zeros below and to the right only, as diffusers pads before a `Downsample2D` without padding.
    pub fn square_padded_at_the_end(kernel: usize, stride: usize, padding: usize) -> Self {
        Self {
            top: 0,
            left: 0,
            ..Self::square(kernel, stride, padding)
        }
    }

    fn output(&self, h: usize, w: usize) -> Result<(usize, usize)> {
        let (h, w) = (h + self.top + self.bottom, w + self.left + self.right);
        match (h.checked_sub(self.kernel.0), w.checked_sub(self.kernel.1)) {
            (Some(h), Some(w)) => Ok((h / self.stride + 1, w / self.stride + 1)),
            _ => candle_core::bail!(
                "conv2d: a map of {h}×{w} is smaller than the kernel {:?}",
                self.kernel
            ),
        }
    }

    fn is_pointwise(&self) -> bool {
        *self == Self::square(1, 1, 0)
    }
}

/// 64 MiB of patches at a time.
const PATCHES: usize = 1 << 24;

impl Conv2d {
    /// x (B, h, w, in) → (B, H, W, out).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if !x.device().is_cpu() {
            return self.composite(x);
        }
        let product = if self.geometry.is_pointwise() {
            rows_times(x, &self.weight)?
        } else {
            self.by_patches(x)?
        };
        add_channels(product, &self.bias)
    }

    /// Whole pictures while their patches fit, else lines of one picture. Which lines go together is decided by the shape
    /// of one picture, so the bytes do not depend on the batch.
    fn by_patches(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, h, w, _) = x.dims4()?;
        let (rows, out) = self.weight.dims2()?;
        let (height, width) = self.geometry.output(h, w)?;
        let line = width * rows;
        let pictures = PATCHES / (line * height).max(1);
        let (pictures, lines) = if pictures > 0 {
            (pictures, height)
        } else {
            (1, (PATCHES / line).max(1))
        };
        let product = |first: usize, lines: usize, x: &Tensor| {
            let patches = x.apply_op1_no_bwd(&Patches {
                geometry: self.geometry,
                first,
                lines,
                width,
            })?;
            rows_times(&patches, &self.weight)
        };
        let mut done = Vec::new();
        for first in (0..batch).step_by(pictures) {
            let x = x.narrow(0, first, pictures.min(batch - first))?;
            let lines = (0..height)
                .step_by(lines)
                .map(|first| product(first, lines.min(height - first), &x));
            done.push(Tensor::cat(&lines.collect::<Result<Vec<_>>>()?, 1)?);
        }
        Tensor::cat(&done, 0)?.reshape((batch, height, width, out))
    }

    /// The same by candle's convolution, for other devices.
    fn composite(&self, x: &Tensor) -> Result<Tensor> {
        let Geometry {
            kernel: (kh, kw),
            stride,
            top,
            bottom,
            left,
            right,
        } = self.geometry;
        let (_, _, _, inputs) = x.dims4()?;
        let weight = self
            .weight
            .reshape((kh, kw, inputs, ()))?
            .permute((3, 2, 0, 1))?
            .contiguous()?;
        let padded = x
            .permute((0, 3, 1, 2))?
            .pad_with_zeros(2, top, bottom)?
            .pad_with_zeros(3, left, right)?;
        let y = padded.contiguous()?.conv2d(&weight, 0, stride, 1, 1)?;
        y.permute((0, 2, 3, 1))?
            .contiguous()?
            .broadcast_add(&self.bias)
    }
}

/// (B, h, w, C) → (B, lines·width, kh·kw·C): the patches of `lines` lines of the result from the line `first` on.
struct Patches {
    geometry: Geometry,
    first: usize,
    lines: usize,
    width: usize,
}

impl CustomOp1 for Patches {
    fn name(&self) -> &'static str {
        "patches"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, h, w, c) = layout.shape().dims4()?;
        let x = floats(storage, layout)?;
        let Geometry {
            kernel: (kh, kw),
            stride,
            top,
            left,
            ..
        } = self.geometry;
        let rows = kh * kw * c;
        let mut patches = vec![0.0; batch * self.lines * self.width * rows];
        patches
            .par_chunks_mut(self.width * rows)
            .enumerate()
            .for_each(|(line, patches)| {
                let (b, y) = (line / self.lines, self.first + line % self.lines);
                let picture = &x[b * h * w * c..(b + 1) * h * w * c];
                for (column, patch) in patches.chunks_exact_mut(rows).enumerate() {
                    // The part of the patch that lies within the map is copied a line at a time; the rest stays zero.
                    let x = column * stride;
                    let (begin, end) =
                        (left.saturating_sub(x), kw.min((w + left).saturating_sub(x)));
                    if begin >= end {
                        continue;
                    }
                    for ky in
                        top.saturating_sub(y * stride)..kh.min((h + top).saturating_sub(y * stride))
                    {
                        let from = ((y * stride + ky - top) * w + x + begin - left) * c;
                        let length = (end - begin) * c;
                        patch[(ky * kw + begin) * c..][..length]
                            .copy_from_slice(&picture[from..from + length]);
                    }
                }
            });
        made(patches, (batch, self.lines * self.width, rows))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use proptest::prelude::*;

    use super::*;

    /// The definition, in double precision; x is (B, h, w, in), the weight (kh·kw·in, out).
    fn naive(conv: &Conv2d, x: &Tensor) -> Vec<f64> {
        let (batch, h, w, inputs) = x.dims4().unwrap();
        let g = conv.geometry;
        let (height, width) = g.output(h, w).unwrap();
        let (weight, bias) = (
            conv.weight.to_vec2::<f32>().unwrap(),
            conv.bias.to_vec1::<f32>().unwrap(),
        );
        let x = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let at = |b: usize, y: usize, column: usize, c: usize| {
            let (y, column) = (
                y.checked_sub(g.top).filter(|y| *y < h)?,
                column.checked_sub(g.left).filter(|x| *x < w)?,
            );
            Some(f64::from(x[((b * h + y) * w + column) * inputs + c]))
        };
        let mut out = Vec::new();
        for (b, y, column, o) in (0..batch * height * width * bias.len()).map(|i| {
            let (i, o) = (i / bias.len(), i % bias.len());
            (i / width / height, i / width % height, i % width, o)
        }) {
            let mut sum = f64::from(bias[o]);
            for (k, weight) in weight.iter().enumerate() {
                let (ky, kx, c) = (k / inputs / g.kernel.1, k / inputs % g.kernel.1, k % inputs);
                sum += f64::from(weight[o])
                    * at(b, y * g.stride + ky, column * g.stride + kx, c).unwrap_or(0.0);
            }
            out.push(sum);
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn like_the_definition(
            b in 1usize..4, h in 3usize..12, w in 3usize..12, inputs in 1usize..9, outputs in 1usize..9,
            kernel in (1usize..4, 1usize..4), stride in 1usize..3,
            padding in (0usize..2, 0usize..2, 0usize..2, 0usize..2),
        ) {
            let (top, bottom, left, right) = padding;
            let random = |shape: &[usize]| Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap();
            let geometry = Geometry { kernel, stride, top, bottom, left, right };
            let conv = Conv2d { weight: random(&[kernel.0 * kernel.1 * inputs, outputs]), bias: random(&[outputs]), geometry };
            let x = random(&[b, h, w, inputs]);
            let expected = naive(&conv, &x);
            for made in [conv.forward(&x).unwrap(), conv.composite(&x).unwrap()] {
                let made = made.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                prop_assert_eq!(made.len(), expected.len());
                for (made, expected) in made.iter().zip(&expected) {
                    prop_assert!((f64::from(*made) - expected).abs() < 1e-4, "{} {}", made, expected);
                }
            }
        }
    }

    #[test]
    fn large_pictures_go_line_by_line() {
        let random = |shape: &[usize]| Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap();
        let conv = Conv2d {
            weight: random(&[9 * 128, 2]),
            bias: random(&[2]),
            geometry: Geometry::square(3, 1, 1),
        };
        let x = random(&[1, 140, 120, 128]); // 140·120·1152 floats of patches are more than one batch of them.
        const { assert!(140 * 120 * 1152 > PATCHES) };
        let difference = (conv.forward(&x).unwrap() - conv.composite(&x).unwrap())
            .unwrap()
            .abs()
            .unwrap();
        assert!(difference.max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-3);
    }

    #[test]
    fn a_map_smaller_than_the_kernel_is_an_error() {
        let zeros =
            |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        let conv = Conv2d {
            weight: zeros(&[9, 1]),
            bias: zeros(&[1]),
            geometry: Geometry::square(3, 1, 0),
        };
        assert!(conv.forward(&zeros(&[1, 2, 5, 1])).is_err());
    }
}
