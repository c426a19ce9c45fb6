//! 3 × 3 convolution by Winograd's minimal filtering (Lavin and Gray 2016, arXiv:1509.09308).
//!
//! A tile of m × m results needs (m + 2)² products instead of 9·m²: Y = Aᵀ[(G·g·Gᵀ) ⊙ (Bᵀ·d·B)]A. Over tiles and
//! channels, each of the (m + 2)² products is a matrix product, (tiles, in) · (in, out).
//!
//! Transformed weights take (m + 2)² / 9 times the memory of the weights in float32. So every convolution transforms
//! the weights of some outputs at a time, which stay in the cache. This was measured to be about as fast as to read
//! transformed weights from memory, because the weights themselves are fewer bytes.

mod choice;
mod transform;
mod weights;

use std::ops::Range;

use rayon::prelude::*;

use super::{
    block::Block,
    finish::Finish,
    gemm::{HEIGHT, Lines, PanelsRef, Product, WIDTH},
    matrix::Packed,
    simd::vectorized,
    storage::at_least,
};
pub use choice::{TileSize, Use};
use transform::{F2, F4, LANES, Lanes, Transform};
use weights::{PANELS, from_place_to_place, transform_weights, transformed_floats};

/// The sizes of a convolution's weights.
#[derive(Clone, Copy, Debug)]
pub(super) struct Winograd {
    inputs: usize,
    outputs: usize,
    /// The number of floats of transformed weights that are computed at a time.
    at_a_time: usize,
}

impl Winograd {
    /// The algorithm for a 3 × 3 convolution with `inputs` and `outputs` channels.
    pub fn new(inputs: usize, outputs: usize) -> Self {
        Self { inputs, outputs, at_a_time: TRANSFORMED_AT_A_TIME }
    }

    /// The same algorithm, with weights that are transformed in small portions.
    #[cfg(test)]
    pub fn in_portions(self) -> Self {
        Self { at_a_time: 1 << 14, ..self }
    }

    /// Convolves `map` (B, h, w, in) with a matrix of weights (3·3·in, out) into `out` (B, h, w, out).
    pub fn convolve(&self, tiles: TileSize, weights: &Packed, map: Map<'_>, finish: Finish<'_>, out: &mut [f32]) {
        match tiles {
            TileSize::Two => convolve::<F2, 4, 2>(*self, weights, map, finish, out),
            TileSize::Four => convolve::<F4, 6, 4>(*self, weights, map, finish, out),
        }
    }
}

/// The input of a convolution, (batch, height, width, in).
#[derive(Clone, Copy)]
pub(super) struct Map<'a> {
    pub x: &'a [f32],
    pub batch: usize,
    pub height: usize,
    pub width: usize,
}

/// The number of floats of transformed weights that are computed at a time. These floats fit into the L2 cache.
const TRANSFORMED_AT_A_TIME: usize = 1 << 18;

/// Floats of transformed inputs that a thread holds at a time: many tiles, so that weights are transformed rarely.
const INPUTS: usize = 3 << 20;

fn convolve<T: Transform<N, M>, const N: usize, const M: usize>(
    winograd: Winograd,
    weights: &Packed,
    map: Map<'_>,
    finish: Finish<'_>,
    out: &mut [f32],
) {
    let Winograd { inputs, outputs, .. } = winograd;
    let panels = outputs.div_ceil(WIDTH);
    let (down, across) = (map.height.div_ceil(M), map.width.div_ceil(M));
    let tiles = map.batch * down * across;
    let threads = rayon::current_num_threads();
    let most = (INPUTS / (N * N * inputs)).next_multiple_of(HEIGHT).clamp(48, 192);
    // Divides the result into blocks. If there are several threads, divides it by tiles and by panels, so that few
    // blocks transform the same weights.
    let blocks = 2 * threads;
    let (block_tiles, parts) = match threads {
        1 => (tiles.div_ceil(blocks.max(tiles.div_ceil(most))).next_multiple_of(HEIGHT).min(most), 1),
        _ => (most.min(tiles), blocks.div_ceil(tiles.div_ceil(most)).min(panels.div_ceil(PANELS))),
    };
    let block_panels = panels.div_ceil(parts).next_multiple_of(PANELS);
    let whole = Block::new(out, outputs);
    let run = |scratch: &mut Scratch, i: usize| {
        let (tile, panel) = (i / parts * block_tiles, i % parts * block_panels);
        let (tiles, panels) = (tile..tiles.min(tile + block_tiles), panel..panels.min(panel + block_panels));
        TileBlock::<N, M> { winograd, weights, map, down, across, tiles, panels }.run::<T>(scratch, finish, &whole);
    };
    match tiles.div_ceil(block_tiles) * parts {
        1 => run(&mut Scratch::default(), 0),
        blocks => (0..blocks).into_par_iter().for_each_init(Scratch::default, run),
    }
}

/// Buffers of a thread, reused from block to block.
#[derive(Default)]
struct Scratch {
    /// (in), the zeros that stand for the channels of a pixel beyond the edge of the map.
    zeros: Vec<f32>,
    /// (N², PANELS, some inputs, 16), transformed weights.
    u: Vec<f32>,
    /// (N², tiles, in), transformed inputs. A gap follows the values of each of the N² places of a tile, so that
    /// different places do not share cache sets.
    v: Vec<f32>,
    /// (N², tiles, columns), products.
    m: Vec<f32>,
}

/// Some tiles and some panels of the result, which one thread computes.
struct TileBlock<'a, const N: usize, const M: usize> {
    winograd: Winograd,
    weights: &'a Packed,
    map: Map<'a>,
    /// Number of tiles of one map, vertically and horizontally.
    down: usize,
    across: usize,
    tiles: Range<usize>,
    panels: Range<usize>,
}

impl<const N: usize, const M: usize> TileBlock<'_, N, M> {
    fn run<T: Transform<N, M>>(self, scratch: &mut Scratch, finish: Finish<'_>, out: &Block<'_>) {
        let Winograd { inputs: c, outputs, .. } = self.winograd;
        let tiles = self.tiles.len();
        let place = tiles * c + WIDTH;
        let Scratch { zeros, u, v, m } = scratch;
        zeros.resize(c, 0.0);
        let v = at_least(v, N * N * place);
        let m = at_least(m, N * N * tiles * PANELS * WIDTH);
        vectorized(
            #[inline(always)]
            || {
                for (t, tile) in self.tiles.clone().enumerate() {
                    self.transform_input::<T>(tile, zeros, &mut v[t * c..], place);
                }
            },
        );
        for panel in self.panels.clone().step_by(PANELS) {
            let panels = panel..self.panels.end.min(panel + PANELS);
            let columns = panel * WIDTH..outputs.min(panels.end * WIDTH);
            let each = tiles * columns.len();
            let at_a_time = (self.winograd.at_a_time / (N * N * PANELS * WIDTH)).clamp(1, c);
            for first in (0..c).step_by(at_a_time) {
                let channels = first..c.min(first + at_a_time);
                let depth = channels.len();
                let u = at_least(u, transformed_floats::<N>(depth));
                transform_weights::<T, N, M>(self.weights, panels.clone(), channels, u);
                for (at, m) in m.chunks_exact_mut(each).take(N * N).enumerate() {
                    let values = &u[at * from_place_to_place(depth)..][..panels.len() * depth * WIDTH];
                    let b = PanelsRef { k: depth, n: columns.len(), values };
                    let (a, out) = (Lines::Apart(&v[at * place + first..], c), Block::new(m, columns.len()));
                    let add = first > 0;
                    Product { a, b, depth: 0..depth, panels: 0..panels.len(), out, add, ahead: None }.run();
                }
            }
            vectorized(
                #[inline(always)]
                || {
                    for (t, tile) in self.tiles.clone().enumerate() {
                        self.transform_output::<T>(tile, &m[t * columns.len()..], each, columns.clone(), finish, out);
                    }
                },
            );
        }
    }

    /// The row of the batch and the position (y, x) of the first result of a tile.
    #[inline(always)]
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let (b, of_map) = (tile / (self.down * self.across), tile % (self.down * self.across));
        (b, of_map / self.across * M, of_map % self.across * M)
    }

    /// Computes Bᵀ·d·B of one tile for all channels. The N² places of `v` are `place` floats apart.
    #[inline(always)]
    fn transform_input<T: Transform<N, M>>(&self, tile: usize, zeros: &[f32], v: &mut [f32], place: usize) {
        let c = self.winograd.inputs;
        let Map { x, height, width, .. } = self.map;
        let (b, top, left) = self.place(tile);
        // The pixels of the patch, which are zeros beyond the edge.
        let mut patch = [[zeros; N]; N];
        for i in 0..N {
            for j in 0..N {
                // Subtracts the one pixel of padding. -1 wraps to a number far beyond the edge.
                let (y, x_at) = ((top + i).wrapping_sub(1), (left + j).wrapping_sub(1));
                if y < height && x_at < width {
                    patch[i][j] = &x[((b * height + y) * width + x_at) * c..][..c];
                }
            }
        }
        for first in (0..c).step_by(LANES) {
            let v = &mut v[first..];
            // The first arm repeats the second with a constant, which lets the compiler specialize it.
            match c - first {
                LANES.. => transform_lanes::<T, N, M>(&patch, first, LANES, v, place),
                lanes => transform_lanes::<T, N, M>(&patch, first, lanes, v, place),
            }
        }
    }

    /// Computes Aᵀ·m·A of one tile for some columns, adds the terms of `finish`, and writes the results to `out`. The
    /// N² places of `m` are `place` floats apart.
    #[inline(always)]
    fn transform_output<T: Transform<N, M>>(
        &self,
        tile: usize,
        m: &[f32],
        place: usize,
        columns: Range<usize>,
        finish: Finish<'_>,
        out: &Block<'_>,
    ) {
        let Map { height, width, .. } = self.map;
        let (b, top, left) = self.place(tile);
        let (down, across) = (M.min(height - top), M.min(width - left));
        let pixel = |i: usize, j: usize| (b * height + top + i) * width + left + j;
        // SAFETY: each pixel belongs to one tile, and only one thread computes these columns of the tile.
        let line = |pixel: usize| unsafe { out.part(pixel..pixel + 1, columns.clone()) };
        for first in (0..columns.len()).step_by(LANES) {
            let m = &m[first..];
            // Two arms for the reason given in `transform_input`.
            let (lanes, y) = match columns.len() - first {
                LANES.. => (LANES, results::<T, N, M>(m, LANES, place)),
                lanes => (lanes, results::<T, N, M>(m, lanes, place)),
            };
            for i in 0..down {
                for j in 0..across {
                    line(pixel(i, j)).line(0)[first..first + lanes].copy_from_slice(&y[i][j][..lanes]);
                }
            }
        }
        for i in 0..down {
            for j in 0..across {
                finish.line(line(pixel(i, j)).line(0), pixel(i, j), columns.clone());
            }
        }
    }
}

/// Computes Bᵀ·d·B of a patch for up to 16 channels.
#[inline(always)]
fn transform_lanes<T: Transform<N, M>, const N: usize, const M: usize>(
    patch: &[[&[f32]; N]; N],
    first: usize,
    lanes: usize,
    v: &mut [f32],
    place: usize,
) {
    let mut columns = [[[0f32; LANES]; N]; N];
    for j in 0..N {
        let mut column = [[0f32; LANES]; N];
        for i in 0..N {
            column[i][..lanes].copy_from_slice(&patch[i][j][first..][..lanes]);
        }
        let transformed = T::input(&column);
        for i in 0..N {
            columns[i][j] = transformed[i];
        }
    }
    for i in 0..N {
        let line = T::input(&columns[i]);
        for j in 0..N {
            v[(i * N + j).wrapping_mul(place)..][..lanes].copy_from_slice(&line[j][..lanes]);
        }
    }
}

/// Computes Aᵀ·m·A of a tile for up to 16 columns.
#[inline(always)]
fn results<T: Transform<N, M>, const N: usize, const M: usize>(
    m: &[f32],
    lanes: usize,
    place: usize,
) -> [[Lanes; M]; M] {
    let mut lines = [[[0f32; LANES]; N]; M];
    for j in 0..N {
        let mut column = [[0f32; LANES]; N];
        for i in 0..N {
            column[i][..lanes].copy_from_slice(&m[(i * N + j).wrapping_mul(place)..][..lanes]);
        }
        let transformed = T::output(&column);
        for i in 0..M {
            lines[i][j] = transformed[i];
        }
    }
    let mut y = [[[0f32; LANES]; M]; M];
    for i in 0..M {
        y[i] = T::output(&lines[i]);
    }
    y
}

#[cfg(test)]
mod tests {
    use candle_core::Tensor;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Kernels,
        conv2d::{Conv2d, Geometry},
        finish::Epilogue,
        format::Format,
        narrow::Narrow,
        random::Random,
    };

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn bits(x: &Tensor) -> Vec<u32> {
        values(x).into_iter().map(f32::to_bits).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn weights_as_they_are_stored_give_the_bits_of_weights_in_float32(
            (h, w) in (3usize..18, 3usize..18), inputs in 1usize..40, outputs in 1usize..40, kernel in 1usize..4,
            stride in 1usize..3, threads in 1usize..4, is_half: bool, seed: u64,
            used in prop_oneof![Just(Use::Off), Just(Use::Always(TileSize::Two)), Just(Use::Always(TileSize::Four))],
        ) {
            let mut random = Random::new(seed);
            let (x, bias) = (random.normal(&[2, h, w, inputs], 0.0), random.normal(&[outputs], 0.0));
            let format = if is_half { Format::F16 } else { Format::Bf16 };
            let (narrow, wide) = Narrow::random_places(&mut random, format, [outputs, inputs, kernel * kernel]);
            let (geometry, kernels) = (Geometry::square(kernel, stride, kernel / 2), Kernels::Packed(used));
            let wide = Conv2d::new(&wide, &bias, geometry, kernels).unwrap();
            let narrow = Conv2d::narrow(narrow, &bias, geometry, kernels).unwrap();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let expected = bits(&wide.forward(&x).unwrap());
            prop_assert_eq!(&expected, &bits(&pool.install(|| narrow.forward(&x)).unwrap()));
            let in_portions = narrow.with_weights_in_portions();
            prop_assert_eq!(&expected, &bits(&pool.install(|| in_portions.forward(&x)).unwrap()), "in portions");
        }

        #[test]
        fn like_the_direct_convolution_and_alike_in_every_company(
            batch in 1usize..6, h in 1usize..18, w in 1usize..18, inputs in 1usize..40, outputs in 1usize..40,
            threads in 1usize..4, tiles in prop_oneof![Just(TileSize::Two), Just(TileSize::Four)], seed: u64,
        ) {
            let mut random = Random::new(seed);
            let mut random = |shape: &[usize]| random.normal(shape, 0.0);
            let (weight, bias) = (random(&[9 * inputs, outputs]), random(&[outputs]));
            let (x, rows, residual) =
                (random(&[batch, h, w, inputs]), random(&[batch, outputs]), random(&[batch, h, w, outputs]));
            let geometry = Geometry::square(3, 1, 1);
            let direct = Conv2d::new(&weight, &bias, geometry, Kernels::Packed(Use::Off)).unwrap();
            let winograd = Conv2d::new(&weight, &bias, geometry, Kernels::Packed(Use::Always(tiles))).unwrap();
            let epilogue = Epilogue { per_sample: Some(&rows), residual: Some(&residual), ..Epilogue::default() };
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let together = pool.install(|| winograd.forward_with(&x, epilogue)).unwrap();
            let in_portions = winograd.clone().with_weights_in_portions();
            let in_portions = pool.install(|| in_portions.forward_with(&x, epilogue)).unwrap();
            prop_assert_eq!(bits(&together), bits(&in_portions), "weights in portions");
            let exact = direct.forward_with(&x, epilogue).unwrap();
            for (made, exact) in values(&together).iter().zip(values(&exact)) {
                prop_assert!((made - exact).abs() < 2e-3, "{} {}", made, exact);
            }
            for b in 0..batch {
                let of = |x: &Tensor| x.narrow(0, b, 1).unwrap();
                let (rows, residual) = (of(&rows), of(&residual));
                let epilogue = Epilogue { per_sample: Some(&rows), residual: Some(&residual), ..Epilogue::default() };
                let alone = winograd.forward_with(&of(&x), epilogue).unwrap();
                prop_assert_eq!(bits(&alone), bits(&of(&together)));
            }
        }
    }
}
