//! The coefficients of the blocks at every position, their phases in the lattice, and the sums of the phases over all
//! tiles of a picture.

use super::{
    STEP,
    layout::{BLOCK, COEFFICIENTS, Cell, Layout, TILE},
    plane::Plane,
    transform::{CONSTANT, COSINE, nearest},
};
use crate::simd::vectorized;

/// The coefficients of the block whose upper left corner is a pixel, for every pixel that allows it.
pub(super) struct Coefficients {
    width: usize,
    height: usize,
    /// Horizontal, vertical and diagonal coefficients, each `width · height` numbers.
    planes: [Vec<f32>; COEFFICIENTS],
    /// The weight of each block: 1 without black and white pixels, 0 if a quarter of its pixels is black or white.
    unclipped: Vec<f32>,
}

/// For each row, the sums of eight neighbors times the factors.
#[inline(always)]
fn across(values: &[f32], width: usize, factors: &[f32; BLOCK]) -> Vec<f32> {
    let narrower = width - (BLOCK - 1);
    let mut sums = vec![0.0; values.len() / width * narrower];
    for (line, sums) in values.chunks_exact(width).zip(sums.chunks_exact_mut(narrower)) {
        for (shift, factor) in factors.iter().enumerate() {
            for (sum, level) in sums.iter_mut().zip(&line[shift..]) {
                *sum += factor * level;
            }
        }
    }
    sums
}

/// For each column, the sums of eight neighbors times the factors.
#[inline(always)]
fn down(values: &[f32], width: usize, factors: &[f32; BLOCK]) -> Vec<f32> {
    let lines = values.len() / width - (BLOCK - 1);
    let mut sums = vec![0.0; width * lines];
    for (y, sums) in sums.chunks_exact_mut(width).enumerate() {
        for (shift, factor) in factors.iter().enumerate() {
            for (sum, level) in sums.iter_mut().zip(&values[width * (y + shift)..]) {
                *sum += factor * level;
            }
        }
    }
    sums
}

/// Below and above these levels, a pixel counts as black or white: its level may have been clipped.
const CLIPPED: [f32; 2] = [1.5, 253.5];

impl Coefficients {
    /// The coefficients of a plane of at least 8 × 8 pixels.
    pub fn of(plane: &Plane) -> Coefficients {
        vectorized(
            #[inline(always)]
            || Self::sums(plane),
        )
    }

    #[inline(always)]
    fn sums(plane: &Plane) -> Coefficients {
        let (width, height) = (plane.width - (BLOCK - 1), plane.height - (BLOCK - 1));
        let clipped = |level: &f32| f32::from(u8::from(*level < CLIPPED[0] || *level > CLIPPED[1]));
        let clipped: Vec<f32> = plane.values.iter().map(clipped).collect();
        let constant = across(&plane.values, plane.width, &[CONSTANT; BLOCK]);
        let wave = across(&plane.values, plane.width, &COSINE);
        let clipped = across(&clipped, plane.width, &[1.0; BLOCK]);
        let planes =
            [down(&wave, width, &[CONSTANT; BLOCK]), down(&constant, width, &COSINE), down(&wave, width, &COSINE)];
        let mut unclipped = down(&clipped, width, &[4.0 / (BLOCK * BLOCK) as f32; BLOCK]);
        unclipped.iter_mut().for_each(|share| *share = (1.0 - *share).max(0.0));
        Coefficients { width, height, planes, unclipped }
    }

    /// The sums of the phases, for a picture whose contrast is `gain` times the contrast of the marked picture. A
    /// larger contrast clips levels, so blocks with black and white pixels count less.
    pub fn fold(&self, gain: f32) -> Fold {
        vectorized(
            #[inline(always)]
            || self.sum_phases(gain),
        )
    }

    #[inline(always)]
    fn sum_phases(&self, gain: f32) -> Fold {
        let ones = vec![1.0; self.width];
        let mut sums = [(); COEFFICIENTS].map(|()| Sums::default());
        let mut energy = 0.0;
        let mut phases = [vec![0.0; self.width], vec![0.0; self.width]];
        let factor = 1.0 / (STEP * gain);
        for y in 0..self.height {
            let line = width_range(self.width, y);
            let weights = if gain > 1.0 { &self.unclipped[line.clone()] } else { &ones };
            energy += weights.iter().map(|weight| weight * weight).sum::<f32>();
            for (plane, sums) in self.planes.iter().zip(&mut sums) {
                let [cosines, sines] = &mut phases;
                for ((value, weight), (cosine, sine)) in
                    plane[line.clone()].iter().zip(weights).zip(cosines.iter_mut().zip(sines.iter_mut()))
                {
                    let (at_cosine, at_sine) = cosine_and_sine(value * factor);
                    (*cosine, *sine) = (weight * at_cosine, weight * at_sine);
                }
                sums.add(y % TILE, cosines, sines);
            }
        }
        sums.iter_mut().for_each(Sums::center);
        Fold { sums, energy }
    }
}

fn width_range(width: usize, y: usize) -> std::ops::Range<usize> {
    width * y..width * (y + 1)
}

/// The sums of the phases of one coefficient over all tiles: `TILE · TILE` complex numbers.
struct Sums {
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

impl Default for Sums {
    fn default() -> Sums {
        Sums { cosines: vec![0.0; TILE * TILE], sines: vec![0.0; TILE * TILE] }
    }
}

impl Sums {
    #[inline(always)]
    fn add(&mut self, row: usize, cosines: &[f32], sines: &[f32]) {
        for (sums, values) in [(&mut self.cosines, cosines), (&mut self.sines, sines)] {
            for values in values.chunks(TILE) {
                for (sum, value) in sums[TILE * row..].iter_mut().zip(values) {
                    *sum += value;
                }
            }
        }
    }

    /// Subtracts the mean. In a picture with large areas of one color, most coefficients are 0 and have the same phase,
    /// which says nothing; the offsets of the marked coefficients have no common phase.
    #[inline(always)]
    fn center(&mut self) {
        for sums in [&mut self.cosines, &mut self.sines] {
            let mean = sums.iter().sum::<f32>() / (TILE * TILE) as f32;
            sums.iter_mut().for_each(|sum| *sum -= mean);
        }
    }
}

/// The sums of the phases over all tiles of a picture.
pub(super) struct Fold {
    sums: [Sums; COEFFICIENTS],
    /// The sum of the squares of all weights.
    energy: f32,
}

/// The place where the tile begins, in pixels, and how clearly the markers show this place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shift {
    pub row: usize,
    pub column: usize,
    /// Standard deviations above the mean of random phases.
    pub score: f32,
    /// The sum over all markers and tiles. Of two readings of a picture, the one with the larger sum is clearer.
    pub sum: f32,
}

impl Fold {
    /// The shift of the tile for which the markers fit best.
    pub fn best_shift(&self, layout: &Layout) -> Shift {
        let scores = vectorized(
            #[inline(always)]
            || self.scores(layout),
        );
        let best = (0..scores.len()).fold(0, |best, at| if scores[at] > scores[best] { at } else { best });
        // A block is at every place of the tile in one of 64 · 81 shifts, and half of the energy of a phase is along
        // the direction of its marker.
        let variance = self.energy * layout.markers.len() as f32 / (2 * TILE * TILE) as f32;
        let score = if variance > 0.0 { scores[best] / libm::sqrtf(variance) } else { 0.0 };
        Shift { row: best / TILE, column: best % TILE, score, sum: scores[best] }
    }

    /// How well the markers fit, for every shift of the tile.
    #[inline(always)]
    fn scores(&self, layout: &Layout) -> Vec<f32> {
        let sums = self.sums.each_ref().map(|sums| [&sums.cosines, &sums.sines].map(|sums| repeated(sums)));
        let directions: Vec<[f32; 2]> =
            layout.markers.iter().map(|marker| cosine_and_sine(marker.offset).into()).collect();
        let mut scores = vec![0.0_f32; TILE * TILE];
        for (row, scores) in scores.as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
            for (marker, [cosine, sine]) in layout.markers.iter().zip(&directions) {
                let line = (row + BLOCK * marker.row) % TILE;
                let [cosines, sines] = &sums[marker.coefficient];
                let from = BLOCK * marker.column..BLOCK * marker.column + TILE;
                let (cosines, sines) = (&cosines[line].as_flattened()[from.clone()], &sines[line].as_flattened()[from]);
                for (score, (real, imaginary)) in scores.iter_mut().zip(cosines.iter().zip(sines)) {
                    *score += real * cosine + imaginary * sine;
                }
            }
        }
        scores
    }

    /// For each code bit, how clearly the phases mean 0 (positive) or 1 (negative).
    pub fn soft_bits(&self, layout: &Layout, shift: Shift) -> Vec<f32> {
        let soft_bit = |cell: &Cell| {
            let row = (shift.row + BLOCK * cell.row) % TILE;
            let column = (shift.column + BLOCK * cell.column) % TILE;
            let sums = &self.sums[cell.coefficient];
            let (cosine, sine) = cosine_and_sine(cell.offset);
            sums.cosines[TILE * row + column] * cosine + sums.sines[TILE * row + column] * sine
        };
        layout.code.iter().map(soft_bit).collect()
    }
}

/// Each line twice, one after the other, so that a line that begins at any column continues at the first one.
#[inline(always)]
fn repeated(sums: &[f32]) -> Vec<[[f32; TILE]; 2]> {
    sums.as_chunks::<TILE>().0.iter().map(|line| [*line; 2]).collect()
}

/// The cosine and the sine of a number of turns, with an error below 10⁻⁵. The polynomials need no table and no branch,
/// so the compiler can compute several at a time.
#[inline(always)]
fn cosine_and_sine(turns: f32) -> (f32, f32) {
    (cosine(turns), cosine(turns - 0.25))
}

#[inline(always)]
fn cosine(turns: f32) -> f32 {
    // cos(2πt) = sin(2π(1/4 − |t|)), and between −1/4 and 1/4 turns, a polynomial of degree 7 is near the sine.
    let x = 0.25 - (turns - nearest(turns)).abs();
    let square = x * x;
    x * (6.283_164 + square * (-41.337_13 + square * (81.340_36 + square * -70.989_63)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_polynomial_is_near_the_cosine_and_the_sine() {
        for step in -4000..4000 {
            let turns = step as f32 / 1000.0;
            let (cosine, sine) = cosine_and_sine(turns);
            let angle = f64::from(turns) * std::f64::consts::TAU;
            assert!((f64::from(cosine) - angle.cos()).abs() < 1e-5, "cos {turns}: {cosine}");
            assert!((f64::from(sine) - angle.sin()).abs() < 1e-5, "sin {turns}: {sine}");
        }
    }
}
