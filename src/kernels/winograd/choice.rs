//! Which convolutions take Winograd's algorithm, and with what tiles.

use super::transform::LANES;
use crate::kernels::gemm::WIDTH;

/// The size of the tiles: F(2×2, 3×3) or F(4×4, 3×3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tiles {
    Two,
    Four,
}

/// Which convolutions take the algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Use {
    /// Those where it wins: a matter of the layer and the map's size alone, so that the same picture comes from every batch.
    #[default]
    Auto,
    Off,
    /// All that can.
    Always(Tiles),
}

impl Use {
    /// For a layer of so many channels on maps of h × w.
    pub fn tiles(self, inputs: usize, outputs: usize, h: usize, w: usize) -> Option<Tiles> {
        match self {
            Use::Off => None,
            Use::Always(tiles) => Some(tiles),
            Use::Auto if inputs.min(outputs) < LANES => None,
            Use::Auto => cheapest(inputs, outputs, h, w),
        }
    }
}

/// By the cycles of AVX2 for each input channel and panel of outputs, for two maps, the least that guidance brings.
fn cheapest(inputs: usize, outputs: usize, h: usize, w: usize) -> Option<Tiles> {
    let (c, n) = (inputs as f64, outputs as f64);
    let tiles = |m: usize| (2 * h.div_ceil(m) * w.div_ceil(m)) as f64;
    // Weights come from memory, as a model is larger than the cache: those that were kept, or those to be made anew.
    let weights = |places: usize, anew: f64| match is_kept(places, inputs, outputs, KEPT) {
        true => places as f64 * FROM_MEMORY,
        false => 9.0 * FROM_MEMORY + anew,
    };
    let direct = 9.4 * tiles(1) + 9.0 * FROM_MEMORY;
    // The products, the transforms of inputs and results, and the weights.
    let two = tiles(2) * (16.0 + 110.0 / n + 90.0 / c) + weights(16, 200.0);
    let four = tiles(4) * (36.0 + 300.0 / n + 250.0 / c) + weights(36, 550.0);
    match () {
        () if direct <= two.min(four) => None,
        () if two <= four => Some(Tiles::Two),
        () => Some(Tiles::Four),
    }
}

/// Cycles that a core waits for a line of a panel from memory, when all cores read: 64 bytes at a few gigabytes a second and
/// core, which differs less between machines than it weighs here.
const FROM_MEMORY: f64 = 26.0;

/// Transformed weights are kept up to this many floats: 64 MiB.
pub(super) const KEPT: usize = 1 << 24;

/// Whether transformed weights are kept, where up to `room` floats are.
pub(super) fn is_kept(places: usize, inputs: usize, outputs: usize, room: usize) -> bool {
    places * inputs * outputs.next_multiple_of(WIDTH) <= room
}
