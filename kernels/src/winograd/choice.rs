//! Decides which convolutions use Winograd's algorithm, and with which tile size.

use super::transform::LANES;
use crate::gemm::WIDTH;

/// The size of the result tiles: F(2×2, 3×3) or F(4×4, 3×3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TileSize {
    Two,
    Four,
}

impl TileSize {
    /// The results on each side of a tile.
    fn side(self) -> usize {
        match self {
            TileSize::Two => 2,
            TileSize::Four => 4,
        }
    }

    /// Cycles to transform the weights of an input channel and a panel of outputs.
    fn anew(self) -> f64 {
        match self {
            TileSize::Two => 200.0,
            TileSize::Four => 550.0,
        }
    }
}

/// Which of the suitable convolutions use Winograd's algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Use {
    /// The convolutions for which Winograd's algorithm is estimated to be faster than a direct convolution. The
    /// estimate uses only the sizes of layer and map, so that a picture does not depend on its batch.
    #[default]
    Auto,
    /// No convolution.
    Off,
    /// All suitable convolutions, with tiles of this size.
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

/// Chooses the algorithm that takes the fewest cycles per input channel and panel of outputs, as estimated for AVX2.
/// The estimate assumes two maps, because guidance makes two rows.
fn cheapest(inputs: usize, outputs: usize, h: usize, w: usize) -> Option<TileSize> {
    let (c, n) = (inputs as f64, outputs as f64);
    let tiles = |m: usize| (2 * h.div_ceil(m) * w.div_ceil(m)) as f64;
    // Weights come from memory, because a model is larger than the cache: either transformed weights that the layer
    // keeps, or plain weights that the layer transforms in every convolution.
    let weights = |places: usize, anew: f64| match is_kept(places, inputs, outputs, KEPT) {
        true => places as f64 * FROM_MEMORY,
        false => 9.0 * FROM_MEMORY + anew,
    };
    let direct = 9.4 * tiles(1) + 9.0 * FROM_MEMORY;
    // The terms are the cycles for products, for transforms of inputs and results, and for weights.
    let two = tiles(2) * (16.0 + 110.0 / n + 90.0 / c) + weights(16, TileSize::Two.anew());
    let four = tiles(4) * (36.0 + 300.0 / n + 250.0 / c) + weights(36, TileSize::Four.anew());
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

/// Whether a layer keeps its transformed weights, which must have at most `most` floats. `places` is the number of
/// values in a transformed tile.
pub(super) fn is_kept(places: usize, inputs: usize, outputs: usize, most: usize) -> bool {
    places * inputs * outputs.next_multiple_of(WIDTH) <= most
}

/// Whether kept weights save a noticeable part of the time of a convolution of two maps of h × w. Many tiles share the
/// transform of the weights, so on large maps it costs little to transform them anew. The bits are the same.
pub(super) fn is_worth_keeping(tiles: TileSize, h: usize, w: usize) -> bool {
    let side = tiles.side();
    let products = (2 * h.div_ceil(side) * w.div_ceil(side) * (side + 2).pow(2)) as f64;
    tiles.anew() > 0.04 * products
}

/// The most floats of transformed weights that a layer keeps for tiles of one size. Few layers get maps of such
/// different sizes that they keep transformed weights for both sizes of tiles.
pub fn most_kept(inputs: usize, outputs: usize) -> usize {
    if inputs.min(outputs) < LANES {
        return 0;
    }
    let places = [16, 36].into_iter().filter(|places| is_kept(*places, inputs, outputs, KEPT));
    places.map(|places| places * inputs * outputs.next_multiple_of(WIDTH)).max().unwrap_or(0)
}
