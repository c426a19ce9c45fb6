//! Convolution of channels-last maps: patches laid side by side, then one product with a matrix.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::{
    matrix::Matrix,
    storage::{floats, made},
};

/// A convolution: its weight as a matrix (kh·kw·in, out) with biases, and its geometry.
#[derive(Clone, Debug)]
pub struct Conv2d {
    pub weight: Matrix,
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

impl Conv2d {
    /// x (B, h, w, in) → (B, H, W, out).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self.weight.plain() {
            Some((weight, bias)) => self.composite(x, weight, bias),
            None if self.geometry.is_pointwise() => self.weight.times(x),
            None => x.apply_op1_no_bwd(self),
        }
    }

    /// The same by candle's convolution, for other devices.
    fn composite(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let Geometry {
            kernel: (kh, kw),
            stride,
            top,
            bottom,
            left,
            right,
        } = self.geometry;
        let (_, _, _, inputs) = x.dims4()?;
        let weight = weight
            .reshape((kh, kw, inputs, ()))?
            .permute((3, 2, 0, 1))?
            .contiguous()?;
        let padded = x
            .permute((0, 3, 1, 2))?
            .pad_with_zeros(2, top, bottom)?
            .pad_with_zeros(3, left, right)?;
        let y = padded
            .contiguous()?
            .conv2d(&weight, 0, stride, 1, 1)?
            .permute((0, 2, 3, 1))?
            .contiguous()?;
        bias.into_iter()
            .try_fold(y, |y, bias| y.broadcast_add(bias))
    }
}

impl CustomOp1 for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    /// Patches of a few pixels at a time, side by side, times the matrix: the patches of a whole map never exist.
    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, h, w, c) = layout.shape().dims4()?;
        let x = floats(storage, layout)?;
        let (height, width) = self.geometry.output(h, w)?;
        let (patch, outputs) = self.weight.shape();
        if patch != self.geometry.kernel.0 * self.geometry.kernel.1 * c || outputs == 0 {
            candle_core::bail!(
                "conv2d: {:?} by a matrix of {patch}×{outputs}",
                layout.shape()
            );
        }
        let out = self
            .weight
            .times_made(batch * height * width, |first, patches| {
                for (pixel, patch) in (first..).zip(patches.chunks_exact_mut(patch)) {
                    let (b, y, column) = (
                        pixel / width / height,
                        pixel / width % height,
                        pixel % width,
                    );
                    self.geometry.copy_patch(
                        &x[b * h * w * c..][..h * w * c],
                        (h, w, c),
                        y,
                        column,
                        patch,
                    );
                }
            })?;
        made(out, (batch, height, width, outputs))
    }
}

impl Geometry {
    /// Copies the part of the patch of a place (y, x) of the result that lies within the map, a line at a time; the rest of
    /// `patch` must be zero.
    fn copy_patch(
        &self,
        map: &[f32],
        (h, w, c): (usize, usize, usize),
        y: usize,
        x: usize,
        patch: &mut [f32],
    ) {
        let Self {
            kernel: (kh, kw),
            stride,
            top,
            left,
            ..
        } = *self;
        let (y, x) = (y * stride, x * stride);
        let (begin, end) = (left.saturating_sub(x), kw.min((w + left).saturating_sub(x)));
        if begin >= end {
            return;
        }
        for ky in top.saturating_sub(y)..kh.min((h + top).saturating_sub(y)) {
            let from = ((y + ky - top) * w + x + begin - left) * c;
            let length = (end - begin) * c;
            patch[(ky * kw + begin) * c..][..length].copy_from_slice(&map[from..from + length]);
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use proptest::prelude::*;

    use super::*;

    /// The definition, in double precision; x is (B, h, w, in), the weight (kh·kw·in, out).
    fn naive(g: Geometry, weight: &Tensor, bias: &Tensor, x: &Tensor) -> Vec<f64> {
        let (batch, h, w, inputs) = x.dims4().unwrap();
        let (height, width) = g.output(h, w).unwrap();
        let (weight, bias) = (
            weight.to_vec2::<f32>().unwrap(),
            bias.to_vec1::<f32>().unwrap(),
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
            let (weight, bias) = (random(&[kernel.0 * kernel.1 * inputs, outputs]), random(&[outputs]));
            let x = random(&[b, h, w, inputs]);
            let conv = Conv2d { weight: Matrix::new(&weight, Some(&bias)).unwrap(), geometry };
            let expected = naive(geometry, &weight, &bias, &x);
            for made in [conv.forward(&x).unwrap(), conv.composite(&x, &weight, Some(&bias)).unwrap()] {
                let made = made.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                prop_assert_eq!(made.len(), expected.len());
                for (made, expected) in made.iter().zip(&expected) {
                    prop_assert!((f64::from(*made) - expected).abs() < 1e-4, "{} {}", made, expected);
                }
            }
        }
    }

    #[test]
    fn a_map_smaller_than_the_kernel_is_an_error() {
        let zeros =
            |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        let weight = Matrix::new(&zeros(&[9, 1]), None).unwrap();
        let conv = Conv2d {
            weight,
            geometry: Geometry::square(3, 1, 0),
        };
        assert!(conv.forward(&zeros(&[1, 5, 5, 2])).is_err());
        assert!(conv.forward(&zeros(&[1, 2, 5, 1])).is_err());
    }
}
