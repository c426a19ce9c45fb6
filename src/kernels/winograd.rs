//! Convolution of 3 × 3 by Winograd's minimal filtering (Lavin and Gray 2016, arXiv:1509.09308).
//!
//! A tile of m × m results needs (m + 2)² products instead of 9·m²: Y = Aᵀ[(G·g·Gᵀ) ⊙ (Bᵀ·d·B)]A. The weights are transformed
//! once, so that they take (m + 2)² / 9 times the memory; over tiles and channels, each of the (m + 2)² products is a product of
//! matrices, (tiles, in) · (in, out).

mod transform;

use std::{fmt, ops::Range, sync::Arc};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{
    block::Block,
    finish::{Finish, Onto},
    gemm::{HEIGHT, PanelsRef, Product, WIDTH},
    simd::vectorized,
    storage::{Operand, blank, floats, made},
};
use transform::{F2, F4, Transform};

/// The size of the tiles: F(2×2, 3×3) or F(4×4, 3×3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tiles {
    Two,
    Four,
}

/// Which convolutions take the algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Use {
    /// Those where it wins: a matter of the layer alone, so that the same picture comes from every machine and batch.
    #[default]
    Auto,
    Off,
    /// All that can.
    Force,
}

impl Use {
    /// For a layer of so many channels on maps about `side` pixels wide.
    pub fn tiles(self, inputs: usize, outputs: usize, side: usize) -> Option<Tiles> {
        match self {
            Use::Off => None,
            Use::Force => Some(Tiles::Four),
            Use::Auto if inputs.min(outputs) < LANES => None,
            Use::Auto if side >= 32 => Some(Tiles::Four),
            Use::Auto => None,
        }
    }
}

/// The weights of a convolution, transformed.
#[derive(Clone)]
pub struct Winograd {
    /// (m + 2)² matrices (in, out), each as panels.
    values: Arc<Vec<f32>>,
    bias: Arc<[f32]>,
    tiles: Tiles,
    inputs: usize,
    outputs: usize,
}

impl Winograd {
    /// Takes the weight as a matrix (3·3·in, out), and the biases.
    pub(super) fn new(weight: &Tensor, bias: &Tensor, tiles: Tiles) -> Result<Self> {
        let (k, outputs) = weight.dims2()?;
        let bias: Vec<f32> = bias.to_vec1()?;
        if k == 0 || k % 9 != 0 || outputs == 0 || bias.len() != outputs {
            candle_core::bail!("winograd: a matrix of {k}×{outputs} with {} biases", bias.len());
        }
        let weight = Operand::of(weight);
        let values = match tiles {
            Tiles::Two => packed::<F2, 4>(weight.floats()?, k / 9, outputs),
            Tiles::Four => packed::<F4, 6>(weight.floats()?, k / 9, outputs),
        };
        Ok(Self { values: Arc::new(values), bias: bias.into(), tiles, inputs: k / 9, outputs })
    }

    /// x (B, h, w, in) → (B, h, w, out)
    pub(super) fn forward(&self, x: &Tensor, onto: Onto<'_>) -> Result<Tensor> {
        x.apply_op1_no_bwd(&Op { weights: self, onto })
    }
}

impl fmt::Debug for Winograd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Winograd({:?}, {}, {})", self.tiles, self.inputs, self.outputs)
    }
}

/// G·g·Gᵀ for all pairs of channels, packed: for each of the N² places the panels of a matrix (in, out).
fn packed<T: Transform<N>, const N: usize>(weight: &[f32], inputs: usize, outputs: usize) -> Vec<f32> {
    let panels = outputs.div_ceil(WIDTH);
    let mut values = vec![0.0; N * N * panels * inputs * WIDTH];
    let (whole, strip) = (Block::new(&mut values, inputs * WIDTH), inputs * WIDTH);
    (0..panels).into_par_iter().for_each(|panel| {
        for c in 0..inputs {
            for j in 0..WIDTH.min(outputs - panel * WIDTH) {
                let g: [[f64; 3]; 3] = std::array::from_fn(|y| {
                    std::array::from_fn(|x| f64::from(weight[((y * 3 + x) * inputs + c) * outputs + panel * WIDTH + j]))
                });
                for (at, value) in weight_transform::<T, N>(&g).as_flattened().iter().enumerate() {
                    let line = at * panels + panel;
                    // SAFETY: no other thread writes the lines of this panel.
                    let mut part = unsafe { whole.part(line..line + 1, 0..strip) };
                    part.line(0)[c * WIDTH + j] = *value as f32;
                }
            }
        }
    });
    values
}

/// G·g·Gᵀ
fn weight_transform<T: Transform<N>, const N: usize>(g: &[[f64; 3]; 3]) -> [[f64; N]; N] {
    let dot = |g_row: &[f64; 3], line: [f64; 3]| (0..3).map(|k| g_row[k] * line[k]).sum::<f64>();
    std::array::from_fn(|i| {
        let row: [f64; 3] = std::array::from_fn(|x| dot(&T::G[i], [g[0][x], g[1][x], g[2][x]]));
        std::array::from_fn(|j| dot(&T::G[j], row))
    })
}

struct Op<'a> {
    weights: &'a Winograd,
    onto: Onto<'a>,
}

impl CustomOp1 for Op<'_> {
    fn name(&self) -> &'static str {
        "winograd"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Winograd { inputs, outputs, bias, tiles, .. } = self.weights;
        let (batch, height, width, c) = layout.shape().dims4()?;
        let x = floats(storage, layout)?;
        if c != *inputs || x.is_empty() {
            candle_core::bail!("winograd: {:?} by weights for {inputs} channels", layout.shape());
        }
        let held = self.onto.hold();
        let finish = held.finish(bias, batch, height * width)?;
        let mut out = blank(batch * height * width * outputs);
        let map = Map { x, batch, height, width };
        match tiles {
            Tiles::Two => convolve::<F2, 4, 2>(self.weights, map, finish, &mut out),
            Tiles::Four => convolve::<F4, 6, 4>(self.weights, map, finish, &mut out),
        }
        made(out, (batch, height, width, *outputs))
    }
}

/// The input, channels last.
#[derive(Clone, Copy)]
struct Map<'a> {
    x: &'a [f32],
    batch: usize,
    height: usize,
    width: usize,
}

/// Tiles that a job works on at a time, at most: their inputs stay near the second cache, and yet every weight is used
/// many times once it is there.
fn most_tiles(places: usize, inputs: usize) -> usize {
    (INPUTS / (places * inputs)).next_multiple_of(HEIGHT).clamp(24, 48)
}

/// Floats of transformed inputs at a time: 512 KiB.
const INPUTS: usize = 1 << 17;

/// Panels of results that are made at a time.
const PANELS: usize = 2;

/// Channels that are transformed at a time: a line of the cache.
const LANES: usize = 16;

fn convolve<T: Transform<N> + super::winograd::transform::Output<N, M>, const N: usize, const M: usize>(
    weights: &Winograd,
    map: Map<'_>,
    finish: Finish<'_>,
    out: &mut [f32],
) {
    let (down, across) = (map.height.div_ceil(M), map.width.div_ceil(M));
    let tiles = map.batch * down * across;
    let panels = weights.outputs.div_ceil(WIDTH);
    let threads = rayon::current_num_threads();
    let most = most_tiles(N * N, weights.inputs);
    let job_tiles = tiles.div_ceil((2 * threads).max(tiles.div_ceil(most))).next_multiple_of(HEIGHT).min(most);
    let (job_tiles, parts) = match job_tiles >= most / 2 || threads == 1 {
        true => (job_tiles, 1),
        false => (most.min(tiles), (2 * threads).div_ceil(tiles.div_ceil(most)).min(panels.div_ceil(PANELS))),
    };
    let job_panels = panels.div_ceil(parts);
    let whole = Block::new(out, weights.outputs);
    let jobs = tiles.div_ceil(job_tiles) * parts;
    let run = |scratch: &mut Scratch, job: usize| {
        let (tile, panel) = (job / parts * job_tiles, job % parts * job_panels);
        let of = Job::<N, M> {
            weights,
            map,
            down,
            across,
            tiles: tile..tiles.min(tile + job_tiles),
            panels: panel..panels.min(panel + job_panels),
        };
        of.run::<T>(scratch, finish, &whole);
    };
    match jobs {
        1 => run(&mut Scratch::default(), 0),
        _ => (0..jobs).into_par_iter().for_each_init(Scratch::default, run),
    }
}

/// What a thread needs for its tiles, kept from job to job.
#[derive(Default)]
struct Scratch {
    /// (N², tiles, in), with a gap between the places so that they do not meet in the cache.
    v: Vec<f32>,
    /// (N², tiles, columns)
    m: Vec<f32>,
}

struct Job<'a, const N: usize, const M: usize> {
    weights: &'a Winograd,
    map: Map<'a>,
    /// Tiles of one map.
    down: usize,
    across: usize,
    tiles: Range<usize>,
    panels: Range<usize>,
}

impl<const N: usize, const M: usize> Job<'_, N, M> {
    fn run<T: Transform<N> + transform::Output<N, M>>(
        self,
        scratch: &mut Scratch,
        finish: Finish<'_>,
        out: &Block<'_>,
    ) {
        let Winograd { values, inputs, outputs, .. } = self.weights;
        let (tiles, c, all_panels) = (self.tiles.len(), *inputs, outputs.div_ceil(WIDTH));
        let place = tiles * c + WIDTH;
        let Scratch { v, m } = scratch;
        v.resize(N * N * place, 0.0);
        m.resize(N * N * tiles * PANELS * WIDTH, 0.0);
        vectorized(
            #[inline(always)]
            || {
                for (t, tile) in self.tiles.clone().enumerate() {
                    self.transform_input::<T>(tile, &mut v[t * c..], place);
                }
            },
        );
        for panel in self.panels.clone().step_by(PANELS) {
            let panels = panel..self.panels.end.min(panel + PANELS);
            let columns = panel * WIDTH..(*outputs).min(panels.end * WIDTH);
            let each = tiles * columns.len();
            for (at, m) in m.chunks_exact_mut(each).take(N * N).enumerate() {
                let strip = all_panels * c * WIDTH;
                let b = PanelsRef { k: c, n: *outputs, values: &values[at * strip..][..strip] };
                let (a, out) = (&v[at * place..][..tiles * c], Block::new(m, columns.len()));
                Product { a, a_stride: c, b, depth: 0..c, panels: panels.clone(), out, add: false }.run();
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

    /// The row of the batch, and the place of the first result, of a tile.
    #[inline(always)]
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let (b, of_map) = (tile / (self.down * self.across), tile % (self.down * self.across));
        (b, of_map / self.across * M, of_map % self.across * M)
    }

    /// Bᵀ·d·B of one tile, for every channel; the N² places of `v` are `place` apart.
    #[inline(always)]
    fn transform_input<T: Transform<N>>(&self, tile: usize, v: &mut [f32], place: usize) {
        let c = self.weights.inputs;
        let Map { x, height, width, .. } = self.map;
        let (b, top, left) = self.place(tile);
        // Where each pixel of the patch begins; beyond the edge there are zeros.
        let at: [[Option<usize>; N]; N] = std::array::from_fn(|i| {
            std::array::from_fn(|j| {
                let (y, x) = ((top + i).checked_sub(1)?, (left + j).checked_sub(1)?);
                (y < height && x < width).then(|| ((b * height + y) * width + x) * c)
            })
        });
        for first in (0..c).step_by(LANES) {
            let lanes = LANES.min(c - first);
            let mut columns = [[[0f32; LANES]; N]; N];
            for j in 0..N {
                let column: [[f32; LANES]; N] = std::array::from_fn(|i| match at[i][j] {
                    Some(at) if lanes == LANES => *x[at + first..].first_chunk().unwrap_or(&[0.0; LANES]),
                    Some(at) => {
                        let mut line = [0.0; LANES];
                        line[..lanes].copy_from_slice(&x[at + first..][..lanes]);
                        line
                    }
                    None => [0.0; LANES],
                });
                let transformed = T::input(&column);
                (0..N).for_each(|i| columns[i][j] = transformed[i]);
            }
            for (i, line) in columns.iter().enumerate() {
                for (j, values) in T::input(line).iter().enumerate() {
                    v[(i * N + j) * place + first..][..lanes].copy_from_slice(&values[..lanes]);
                }
            }
        }
    }

    /// Aᵀ·m·A of one tile, for some columns, finished and written; the N² places of `m` are `place` apart.
    #[inline(always)]
    fn transform_output<T: transform::Output<N, M>>(
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
        for first in columns.clone().step_by(LANES) {
            let lanes = LANES.min(columns.end - first);
            let mut lines = [[[0f32; LANES]; N]; M];
            for j in 0..N {
                let column: [[f32; LANES]; N] = std::array::from_fn(|i| {
                    let from = &m[(i * N + j) * place + first - columns.start..];
                    match from.first_chunk() {
                        Some(line) => *line,
                        None => {
                            let mut line = [0.0; LANES];
                            line[..lanes].copy_from_slice(&from[..lanes]);
                            line
                        }
                    }
                });
                let transformed = T::output(&column);
                (0..M).for_each(|i| lines[i][j] = transformed[i]);
            }
            for (i, line) in lines.iter().enumerate().take(height - top) {
                for (j, values) in T::output(line).iter_mut().enumerate().take(width - left) {
                    let pixel = (b * height + top + i) * width + left + j;
                    finish.line(&mut values[..lanes], pixel, first..first + lanes);
                    // SAFETY: a pixel belongs to one tile, a tile to one job for these columns.
                    let mut out = unsafe { out.part(pixel..pixel + 1, first..first + lanes) };
                    out.line(0).copy_from_slice(&values[..lanes]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::{
        conv2d::{Conv2d, Geometry},
        random::Random,
    };

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn like_the_direct_convolution_and_alike_in_every_company(
            batch in 1usize..6, h in 1usize..18, w in 1usize..18, inputs in 1usize..40, outputs in 1usize..40,
            threads in 1usize..4, four: bool, seed: u64,
        ) {
            let mut random = Random::new(seed);
            let mut random = |shape: &[usize]| random.normal(shape, 0.0);
            let (weight, bias) = (random(&[9 * inputs, outputs]), random(&[outputs]));
            let (x, rows, residual) =
                (random(&[batch, h, w, inputs]), random(&[batch, outputs]), random(&[batch, h, w, outputs]));
            let geometry = Geometry::square(3, 1, 1);
            let direct = Conv2d::new(&weight, &bias, geometry, None).unwrap();
            let tiles = if four { Tiles::Four } else { Tiles::Two };
            let winograd = Conv2d::new(&weight, &bias, geometry, Some(tiles)).unwrap();
            let onto = Onto { rows: Some(&rows), residual: Some(&residual) };
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let together = pool.install(|| winograd.forward_onto(&x, onto)).unwrap();
            let exact = direct.forward_onto(&x, onto).unwrap();
            for (made, exact) in values(&together).iter().zip(values(&exact)) {
                prop_assert!((made - exact).abs() < 2e-3, "{} {}", made, exact);
            }
            for b in 0..batch {
                let of = |x: &Tensor| x.narrow(0, b, 1).unwrap();
                let (rows, residual) = (of(&rows), of(&residual));
                let alone =
                    winograd.forward_onto(&of(&x), Onto { rows: Some(&rows), residual: Some(&residual) }).unwrap();
                let bits = |x: &Tensor| values(x).iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(bits(&alone), bits(&of(&together)));
            }
        }
    }
}
