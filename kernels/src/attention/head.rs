//! The attention of some queries to the keys of one head.

use std::ops::Range;

use crate::{
    bf16::{self, Unit, Way},
    block::Block,
    gemm::{DEPTH, Lines, Panels, Product, WIDTH},
    simd::vectorized,
    softmax::Softmax,
    storage::at_least,
    tiles::Tile,
};

/// The keys that a thread processes at a time.
pub(super) const KEYS: usize = 256;

/// The packed keys and values of one head of one row of the batch.
pub(super) struct Head {
    /// How many numbers a key has. A value has as many.
    d: usize,
    /// M
    keys: usize,
    packed: Packed,
}

enum Packed {
    /// Keys (d, M) and values (M, d).
    Panels(Panels, Panels),
    /// Keys (d, 256) and values (256, d) of each 256 keys; the last may be fewer. What
    /// multiplies them, and the most planes.
    Planes(Vec<[bf16::Right; 2]>, (Unit, usize)),
}

/// Planes are used if a key has at least this many numbers, because 32 products are summed at a time.
/// The choice depends on nothing else, because the padding of a batch changes how many queries and keys its rows have.
const LEAST: usize = 32;

impl Head {
    /// Packs the keys and values. Their lines have `width` numbers; the first `d` numbers belong to this head.
    pub fn pack(way: Way, k: &[f32], v: &[f32], width: usize, d: usize, m: usize) -> Self {
        let (keys, values) = (Panels::pack(k, d, m, 1, width), Panels::pack(v, m, d, width, 1));
        let packed = match way {
            Way::Planes(unit, most) if d >= LEAST => {
                let parts = (0..m).step_by(KEYS).map(|first| planes(&keys, &values, first, most));
                Packed::Planes(parts.collect(), (unit, most))
            }
            _ => Packed::Panels(keys, values),
        };
        Self { d, keys: m, packed }
    }

    /// Computes the results of some queries, one line of `out` each.
    pub fn attend(&self, queries: &Queries<'_>, scratch: &mut Scratch, out: &mut Block<'_>) {
        let (m, rows) = (self.keys, out.lines());
        let Scratch { q, scores, softmax } = scratch;
        let q = self.scaled(queries, rows, q);
        softmax.clear();
        softmax.resize(rows, Softmax::EMPTY);
        let end = queries.causal_from.map_or(m, |first| m.min(first + rows));
        for first in (0..end).step_by(KEYS) {
            let keys = first..m.min(first + KEYS);
            let scores = at_least(scores, rows * keys.len());
            self.score(&q, keys.clone(), Block::new(scores, keys.len()));
            vectorized(
                #[inline(always)]
                || {
                    for (i, scores) in scores.chunks_exact_mut(keys.len()).enumerate() {
                        let rescale = queries.weigh(i, first, scores, &mut softmax[i]);
                        if first > 0 {
                            out.line(i).iter_mut().for_each(|out| *out *= rescale);
                        }
                    }
                },
            );
            self.sum(scores, keys, out);
        }
        vectorized(
            #[inline(always)]
            || {
                for (i, softmax) in softmax.iter().enumerate() {
                    let scale = softmax.scale();
                    out.line(i).iter_mut().for_each(|out| *out *= scale);
                }
            },
        );
    }

    /// The queries times the scale, in the form that [`Head::score`] multiplies.
    fn scaled<'a>(&self, queries: &Queries<'_>, rows: usize, scaled: &'a mut Vec<f32>) -> Left<'a> {
        let (d, &Queries { q, width, scale, .. }) = (self.d, queries);
        let scaled = at_least(scaled, rows * d);
        if matches!(self.packed, Packed::Panels(..)) && d <= DEPTH {
            Tile::new(q, width, rows, 0..d, scaled).run();
            scaled.iter_mut().for_each(|q| *q *= scale);
            return Left::Lines(Lines::Tiled(scaled));
        }
        for (scaled, q) in scaled.chunks_exact_mut(d).zip(q.chunks(width)) {
            scaled.iter_mut().zip(q).for_each(|(scaled, q)| *scaled = q * scale);
        }
        match self.packed {
            Packed::Panels(..) => Left::Lines(Lines::Apart(scaled, d)),
            Packed::Planes(_, of) => Left::Planes(bf16::Left::split(of, scaled, d, rows, 0..d)),
        }
    }

    /// The products of the queries and some keys.
    fn score(&self, q: &Left<'_>, keys: Range<usize>, mut out: Block<'_>) {
        match (&self.packed, q) {
            (Packed::Panels(all, _), Left::Lines(a)) => {
                let panels = keys.start / WIDTH..keys.end.div_ceil(WIDTH);
                Product { a: *a, b: all.whole(), depth: 0..self.d, panels, out, add: false, ahead: None }.run();
            }
            (Packed::Planes(parts, _), Left::Planes(left)) => {
                bf16::multiply(left, &parts[keys.start / KEYS][0], &mut out, false);
            }
            _ => unreachable!("`scaled` gives the form of the keys"),
        }
    }

    /// Adds the sums of some values with these weights to the results.
    fn sum(&self, weights: &[f32], keys: Range<usize>, out: &mut Block<'_>) {
        let add = keys.start > 0;
        match &self.packed {
            Packed::Panels(_, values) => {
                let (a, panels) = (Lines::Apart(weights, keys.len()), 0..values.count());
                let out = out.reborrow();
                Product { a, b: values.whole(), depth: keys, panels, out, add, ahead: None }.run();
            }
            Packed::Planes(parts, of) => {
                let left = bf16::Left::split(*of, weights, keys.len(), out.lines(), 0..keys.len());
                bf16::multiply(&left, &parts[keys.start / KEYS][1], out, add);
            }
        }
    }
}

/// The planes of at most 256 keys and of their values, from key `first` on.
fn planes(keys: &Panels, values: &Panels, first: usize, most: usize) -> [bf16::Right; 2] {
    let (d, last) = (keys.k, keys.n.min(first + KEYS));
    let panels = first / WIDTH..last.div_ceil(WIDTH);
    let mut of_keys = bf16::Right::new(panels.len(), d, most);
    for (at, panel) in panels.enumerate() {
        of_keys.split(at, 0, keys.panel(panel));
    }
    let mut of_values = bf16::Right::new(values.count(), last - first, most);
    for panel in 0..values.count() {
        of_values.split(panel, 0, &values.panel(panel)[first * WIDTH..last * WIDTH]);
    }
    [of_keys, of_values]
}

/// The left matrix of the products with keys.
enum Left<'a> {
    Lines(Lines<'a>),
    Planes(bf16::Left),
}

/// Some queries of one head of one row of the batch.
pub(super) struct Queries<'a> {
    /// Lines of `width` values. The first d values of each line belong to this head.
    pub q: &'a [f32],
    pub width: usize,
    pub scale: f32,
    /// The position of the first query if the mask is causal.
    pub causal_from: Option<usize>,
    /// Numbers that are added to the scores: a line for each query, and the length of a line.
    pub bias: Option<(&'a [f32], usize)>,
}

impl Queries<'_> {
    /// Replaces the scores of query `i` and the keys from `first` on by weights. Returns the factor of the results so
    /// far.
    #[inline(always)]
    fn weigh(&self, i: usize, first: usize, scores: &mut [f32], softmax: &mut Softmax) -> f32 {
        let seen = self.causal_from.map_or(usize::MAX, |from| from + i + 1).saturating_sub(first).min(scores.len());
        let (seen, hidden) = scores.split_at_mut(seen);
        if let Some((bias, m)) = self.bias {
            let bias = &bias[i * m + first..];
            seen.iter_mut().zip(bias).for_each(|(score, bias)| *score += bias);
        }
        let rescale = if seen.is_empty() { 1.0 } else { softmax.extend(seen) };
        hidden.fill(0.0);
        rescale
    }
}

/// Buffers of a thread, reused from block to block.
#[derive(Default)]
pub(super) struct Scratch {
    /// (queries, d), times the scale.
    q: Vec<f32>,
    /// (queries, keys).
    scores: Vec<f32>,
    softmax: Vec<Softmax>,
}
