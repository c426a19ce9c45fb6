//! Two-dimensional convolution of channels-last maps.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::{
    Kernels, Rows,
    bf16::Way,
    block::Block,
    finish::{Epilogue, Finish},
    gemm::{Lines, Product, WIDTH},
    matrix::{Matrix, Packed},
    narrow::Narrow,
    partition::{Costs, Partition},
    shifted::Shifted,
    simd::vectorized,
    storage::{blank, floats, made},
    winograd::{self, Map, TileSize, Winograd},
};

pub use super::geometry::Geometry;

/// A convolution layer: its geometry, and its weights in the layout of the kernels.
#[derive(Clone, Debug)]
pub struct Conv2d {
    /// (kh·kw·in, out); a placeholder if `plain` has the weight.
    weight: Matrix,
    /// The weight of reference kernels, (out, in, kh, kw); `None` if the layer uses the matrix.
    plain: Option<Tensor>,
    /// Which rows of a batch reference kernels convolve together.
    rows: Rows,
    geometry: Geometry,
    /// Present if the convolution can use Winograd's algorithm.
    winograd: Option<(Winograd, winograd::Use)>,
}

impl Conv2d {
    /// Creates a layer from a weight (kh·kw·in, out) and a bias (out).
    ///
    /// Packed kernels can use Winograd's algorithm if the kernel is 3 × 3 and stride and padding are 1.
    pub fn new(weight: &Tensor, bias: &Tensor, geometry: Geometry, kernels: Kernels) -> Result<Self> {
        let (kh, kw) = geometry.kernel;
        let (patch, outputs) = weight.dims2()?;
        let is_there = weight.is_contiguous() && patch % (kh * kw).max(1) == 0;
        let (matrix, plain) = match kernels {
            Kernels::Reference(_) if is_there && !geometry.is_pointwise() => {
                let plain = weight.reshape((kh, kw, patch / (kh * kw).max(1), outputs))?;
                // `plain` holds the weight, so the matrix is a placeholder: zeros that take no memory.
                let zeros = Tensor::zeros((), weight.dtype(), weight.device())?.broadcast_as((patch, outputs))?;
                (zeros, Some(plain.permute((3, 2, 0, 1))?.contiguous()?))
            }
            _ => (weight.clone(), None),
        };
        Ok(Self::of(Matrix::new(&matrix, Some(bias), kernels)?, plain, geometry, kernels))
    }

    /// Creates a layer from a weight that stays as it is stored ([`Narrow::pack_places`]), and a bias (out). It computes
    /// what packed kernels compute with the weight in float32, bit by bit.
    ///
    /// # Errors
    /// The bias does not have as many values as the weight has columns.
    pub fn narrow(weight: Narrow, bias: &Tensor, geometry: Geometry, kernels: Kernels) -> Result<Self> {
        Ok(Self::of(Matrix::narrow(weight, Some(bias))?, None, geometry, kernels))
    }

    fn of(weight: Matrix, plain: Option<Tensor>, geometry: Geometry, kernels: Kernels) -> Self {
        let (patch, outputs) = weight.shape();
        let winograd = match kernels {
            Kernels::Packed(choice) if weight.packed().is_some() && geometry.suits_winograd() && patch % 9 == 0 => {
                Some((Winograd::new(patch / 9, outputs), choice))
            }
            _ => None,
        };
        Self { weight, plain, rows: kernels.rows(), geometry, winograd }
    }

    /// x (B, h, w, in) → (B, H, W, out).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_with(x, Epilogue::default())
    }

    /// x (B, h, w, in) → (B, H, W, out), plus the terms of `epilogue`.
    pub fn forward_with(&self, x: &Tensor, epilogue: Epilogue<'_>) -> Result<Tensor> {
        match &self.plain {
            Some(weight) => self.composite(x, weight, epilogue),
            None if self.geometry.is_pointwise() => self.weight.times_with(x, epilogue),
            None => x.apply_op1_no_bwd(&Op { conv: self, epilogue }),
        }
    }

    /// The tile size and weights of Winograd's algorithm for maps of h × w, or `None` for a direct convolution.
    fn tiles(&self, h: usize, w: usize) -> Option<(TileSize, &Winograd)> {
        let (winograd, choice) = self.winograd.as_ref()?;
        let (patch, outputs) = self.weight.shape();
        let tiles = choice.tiles(patch / 9, outputs, h, w)?;
        Some((tiles, winograd))
    }

    #[cfg(test)]
    pub(super) fn with_weights_in_portions(mut self) -> Self {
        self.winograd = self.winograd.map(|(winograd, choice)| (winograd.in_portions(), choice));
        self
    }

    /// The convolution by candle's operations.
    fn composite(&self, x: &Tensor, weight: &Tensor, epilogue: Epilogue<'_>) -> Result<Tensor> {
        let Geometry { stride, top, bottom, left, right, .. } = self.geometry;
        let (batch, h, w, _) = x.dims4()?;
        let (height, width) = self.geometry.output(h, w)?;
        let x = x.to_dtype(weight.dtype())?.permute((0, 3, 1, 2))?;
        let padded = x.pad_with_zeros(2, top, bottom)?.pad_with_zeros(3, left, right)?;
        let part = match x.device().is_cpu() {
            true => Part { rows: batch, lines: height },
            false => Part::of(height, width * self.weight.shape().0, MOST_PATCHES),
        };
        let of_rows = |[x]: [Tensor; 1]| in_parts(&x, weight, stride, height, part);
        let y = self.rows.each([&padded], of_rows)?.permute((0, 2, 3, 1))?.contiguous()?;
        epilogue.composite(self.weight.bias().into_iter().try_fold(y, |y, bias| y.broadcast_add(bias))?)
    }
}

/// The most numbers that a GPU has in the copies of patches at a time: 1 GiB of float32.
///
/// Without cuDNN, candle copies all patches side by side before it multiplies them. It counts their numbers in 32 bits:
/// with 2³² or more, a part of the copy is never written, and the result is wrong without an error. The bound is lower,
/// because the copy also takes memory.
const MOST_PATCHES: usize = 1 << 28;

/// How much of a batch is convolved at a time: rows of the batch, and lines of the result of each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    rows: usize,
    lines: usize,
}

impl Part {
    /// The largest part with at most `most` numbers in its patches, and at least one line. A row has `height` lines,
    /// whose patches have `line` numbers each.
    fn of(height: usize, line: usize, most: usize) -> Part {
        let lines = (most / line.max(1)).max(1);
        Part { rows: (lines / height.max(1)).max(1), lines: lines.min(height.max(1)) }
    }
}

/// The convolution of x (B, in, h, w), with `height` lines of results, in parts.
fn in_parts(x: &Tensor, weight: &Tensor, stride: usize, height: usize, part: Part) -> Result<Tensor> {
    let (batch, kernel) = (x.dim(0)?, weight.dim(2)?);
    if batch <= part.rows && height <= part.lines {
        return x.conv2d(weight, 0, stride, 1, 1);
    }
    let of_rows = |first: usize| {
        let x = x.narrow(0, first, part.rows.min(batch - first))?;
        let of_lines = |first: usize| {
            let lines = part.lines.min(height - first);
            // Neighboring parts share the lines of x that the kernel covers in both.
            let x = x.narrow(2, first * stride, (lines - 1) * stride + kernel)?.contiguous()?;
            x.conv2d(weight, 0, stride, 1, 1)
        };
        Tensor::cat(&(0..height).step_by(part.lines).map(of_lines).collect::<Result<Vec<_>>>()?, 2)
    };
    Tensor::cat(&(0..batch).step_by(part.rows).map(of_rows).collect::<Result<Vec<_>>>()?, 0)
}

struct Op<'a> {
    conv: &'a Conv2d,
    epilogue: Epilogue<'a>,
}

/// The most floats of one pixel's patch that are copied at a time, but always at least all input channels of one tap. A
/// tap is one position of the kernel.
const PATCH: usize = 1 << 10;

impl CustomOp1 for Op<'_> {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Conv2d { weight, geometry, .. } = self.conv;
        let (batch, h, w, c) = layout.shape().dims4()?;
        let x = floats(storage, layout)?;
        let (height, width) = geometry.output(h, w)?;
        let Some((packed, bias)) = weight.packed() else { candle_core::bail!("the weight is not packed") };
        let (patch, n) = weight.shape();
        if patch != geometry.kernel.0 * geometry.kernel.1 * c || x.is_empty() || patch == 0 || n == 0 {
            candle_core::bail!("conv2d: {:?} by a matrix of {patch}×{n}", layout.shape());
        }
        let held = self.epilogue.lock();
        let finish = held.finish(bias, batch, height * width)?;
        let mut out = blank(batch * height * width * n);
        let map = Map { x, batch, height: h, width: w };
        if let Some(shifted) = Shifted::new(Way::current(), *geometry, packed, map) {
            shifted.convolve((height, width), finish, &mut out);
            return made(out, (batch, height, width, n));
        }
        match self.conv.tiles(h, w) {
            Some((tiles, winograd)) => winograd.convolve(tiles, packed, map, finish, &mut out),
            None => geometry.convolve(packed, map, c, finish, &mut out)?,
        }
        made(out, (batch, height, width, n))
    }
}

impl Geometry {
    /// Direct convolution. For a few pixels and a few taps at a time, copies the patches side by side and multiplies
    /// them with the lines of the matrix for these taps. The patches of a whole map never exist at once.
    fn convolve(&self, weight: &Packed, map: Map<'_>, c: usize, finish: Finish<'_>, out: &mut [f32]) -> Result<()> {
        let Map { x, batch, height: h, width: w } = map;
        let (height, width) = self.output(h, w)?;
        let (taps, (k, n)) = (self.kernel.0 * self.kernel.1, weight.shape());
        let whole = Block::new(out, n);
        let taps_at_a_time = (PATCH / c).clamp(1, taps);
        let costs = match weight {
            Packed::Wide(..) => Costs::WIDE,
            Packed::Narrow(_) => Costs::NARROW,
        };
        Partition::product(batch * height * width, k, n, costs).run(|patches, pixels, panels| {
            let columns = panels.start * WIDTH..n.min(panels.end * WIDTH);
            // SAFETY: the blocks of a partition do not overlap.
            let mut out = unsafe { whole.part(pixels.clone(), columns.clone()) };
            for first in (0..taps).step_by(taps_at_a_time) {
                let taps = first..taps.min(first + taps_at_a_time);
                patches.clear();
                for pixel in pixels.clone() {
                    let (b, y, column) = (pixel / width / height, pixel / width % height, pixel % width);
                    let map = &x[b * h * w * c..][..h * w * c];
                    for tap in taps.clone() {
                        match self.seen((h, w), (y, column), tap) {
                            Some(from) => patches.extend_from_slice(&map[from * c..][..c]),
                            None => patches.resize(patches.len() + c, 0.0),
                        }
                    }
                }
                let (depth, add) = (taps.start * c..taps.end * c, taps.start > 0);
                let a = Lines::Apart(patches, depth.len());
                let (panels, out) = (panels.clone(), out.reborrow());
                match weight {
                    Packed::Wide(wide, _) => {
                        Product { a, b: wide.whole(), depth, panels, out, add, ahead: None }.run();
                    }
                    Packed::Narrow(narrow) => narrow.times(a, depth, panels, out, add),
                }
            }
            vectorized(
                #[inline(always)]
                || finish.block(&mut out, pixels.start, columns),
            );
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use proptest::prelude::*;

    use super::*;
    use crate::random::Random;

    /// Convolution by its definition, in double precision: x (B, h, w, in), weight (kh·kw·in, out).
    fn naive(g: Geometry, weight: &Tensor, bias: &Tensor, x: &Tensor) -> Vec<f64> {
        let (batch, h, w, inputs) = x.dims4().unwrap();
        let (height, width) = g.output(h, w).unwrap();
        let (weight, bias) = (weight.to_vec2::<f32>().unwrap(), bias.to_vec1::<f32>().unwrap());
        let x = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let at = |b: usize, y: usize, column: usize, c: usize| {
            let (y, column) =
                (y.checked_sub(g.top).filter(|y| *y < h)?, column.checked_sub(g.left).filter(|x| *x < w)?);
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
                sum += f64::from(weight[o]) * at(b, y * g.stride + ky, column * g.stride + kx, c).unwrap_or(0.0);
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
            padding in (0usize..2, 0usize..2, 0usize..2, 0usize..2), seed: u64,
        ) {
            let (top, bottom, left, right) = padding;
            let mut random = Random::new(seed);
            let mut random = |shape: &[usize]| random.normal(shape, 0.0);
            let geometry = Geometry { kernel, stride, top, bottom, left, right };
            let (weight, bias) = (random(&[kernel.0 * kernel.1 * inputs, outputs]), random(&[outputs]));
            let x = random(&[b, h, w, inputs]);
            let expected = naive(geometry, &weight, &bias, &x);
            for kernels in [Kernels::Packed(winograd::Use::Off), Kernels::REFERENCE] {
                let conv = Conv2d::new(&weight, &bias, geometry, kernels).unwrap();
                let made = conv.forward(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
                prop_assert_eq!(made.len(), expected.len());
                for (made, expected) in made.iter().zip(&expected) {
                    prop_assert!((f64::from(*made) - expected).abs() < 1e-4, "{} {}", made, expected);
                }
            }
        }
    }

    #[test]
    fn a_gpu_convolves_as_much_as_the_copy_of_the_patches_allows() {
        assert_eq!(Part::of(64, 1 << 20, MOST_PATCHES), Part { rows: 4, lines: 64 });
        assert_eq!(Part::of(256, (1 << 20) + 1, MOST_PATCHES), Part { rows: 1, lines: 255 });
        assert_eq!(Part::of(1, usize::MAX, MOST_PATCHES), Part { rows: 1, lines: 1 });
        // The first convolution with 256 channels on a map of 2048 × 2048, as in the decoder of Stable Diffusion: its
        // patches have more than 2³² numbers.
        let (side, line) = (2048, 2048 * 9 * 256);
        assert!(side * line > u32::MAX as usize);
        let part = Part::of(side, line, MOST_PATCHES);
        assert!(part.rows * part.lines * line <= MOST_PATCHES && part.lines > 1, "{part:?}");
    }

    #[test]
    fn a_convolution_in_parts_equals_the_whole() {
        let mut random = Random::new(1);
        for (stride, height) in [(1, 7), (2, 4)] {
            let (x, weight) = (random.normal(&[5, 3, 9, 6], 0.0), random.normal(&[2, 3, 3, 3], 0.0));
            let numbers = |rows, lines| -> Vec<f32> {
                let whole = in_parts(&x, &weight, stride, height, Part { rows, lines }).unwrap();
                assert_eq!(whole.dims(), [5, 2, height, (6 - 3) / stride + 1]);
                whole.flatten_all().unwrap().to_vec1().unwrap()
            };
            let whole = numbers(5, height);
            for (rows, lines) in (1..6).flat_map(|rows| (1..=height).map(move |lines| (rows, lines))) {
                for (part, whole) in numbers(rows, lines).into_iter().zip(&whole) {
                    assert!((part - whole).abs() < 1e-5, "{rows} rows and {lines} lines at a time");
                }
            }
        }
    }

    #[test]
    fn a_map_smaller_than_the_kernel_is_an_error() {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        for kernels in [Kernels::default(), Kernels::REFERENCE] {
            let conv = Conv2d::new(&zeros(&[9, 1]), &zeros(&[1]), Geometry::square(3, 1, 0), kernels).unwrap();
            assert!(conv.forward(&zeros(&[1, 5, 5, 2])).is_err());
            assert!(conv.forward(&zeros(&[1, 2, 5, 1])).is_err());
        }
    }
}
