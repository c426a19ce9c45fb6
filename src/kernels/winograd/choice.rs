//! Decides which convolutions use Winograd's algorithm, and with which tile size.

use super::transform::LANES;
use crate::kernels::gemm::WIDTH;

/// The size of the result tiles: F(2×2, 3×3) or F(4×4, 3×3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TileSize {
    Two,
    Four,
}

/// Which of the suitable convolutions use Winograd's algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Use {
    /// Those for which it is estimated to be faster. The estimate uses only the sizes of layer and map, so that a
    /// picture does not depend on its batch.
    #[default]
    Auto,
    /// None.
    Off,
    /// All, with tiles of this size.
    Always(TileSize),
}

impl Use {
    /// The tile size for a layer with these channels on maps of h × w, or `None` for a direct convolution.
    pub fn tiles(self, inputs: usize, outputs: usize, h: usize, w: usize) -> Option<TileSize> {
        match self {
            Use::Off => None,
            Use::Always(tiles) => Some(tiles),
            Use::Auto if inputs.min(outputs) < LANES => None,
            Use::Auto => cheapest(inputs, outputs, h, w),
        }
    }
}

/// Chooses by estimated cycles of AVX2 per input channel and panel of outputs. Assumes two maps, because guidance makes
/// two rows.
fn cheapest(inputs: usize, outputs: usize, h: usize, w: usize) -> Option<TileSize> {
    let (c, n) = (inputs as f64, outputs as f64);
    let tiles = |m: usize| (2 * h.div_ceil(m) * w.div_ceil(m)) as f64;
    // Kept weights or weights to be transformed come from memory, as a model is larger than the cache.
    let weights = |places: usize, anew: f64| match is_kept(places, inputs, outputs, KEPT) {
        true => places as f64 * FROM_MEMORY,
        false => 9.0 * FROM_MEMORY + anew,
    };
    let direct = 9.4 * tiles(1) + 9.0 * FROM_MEMORY;
    // The sum of products, transforms of inputs and results, and weights.
    let two = tiles(2) * (16.0 + 110.0 / n + 90.0 / c) + weights(16, 200.0);
    let four = tiles(4) * (36.0 + 300.0 / n + 250.0 / c) + weights(36, 550.0);
    match () {
        () if direct <= two.min(four) => None,
        () if two <= four => Some(TileSize::Two),
        () => Some(TileSize::Four),
    }
}

/// Cycles to read one line of a panel (64 bytes) from memory while all cores read, at a few gigabytes per second and
/// core. The choice is not sensitive to the differences between machines.
const FROM_MEMORY: f64 = 26.0;

/// The most floats of transformed weights that a layer keeps: 64 MiB.
pub(super) const KEPT: usize = 1 << 24;

/// Whether the transformed weights of a layer have at most `room` floats, so that the layer keeps them.
pub(super) fn is_kept(places: usize, inputs: usize, outputs: usize, room: usize) -> bool {
    places * inputs * outputs.next_multiple_of(WIDTH) <= room
}

/// The most floats of transformed weights that a layer keeps for tiles of one size. Few layers meet maps of such
/// different sizes that they keep those for both.
pub fn most_kept(inputs: usize, outputs: usize) -> usize {
    if inputs.min(outputs) < LANES {
        return 0;
    }
    let places = [16, 36].into_iter().filter(|places| is_kept(*places, inputs, outputs, KEPT));
    places.map(|places| places * inputs * outputs.next_multiple_of(WIDTH)).max().unwrap_or(0)
}
