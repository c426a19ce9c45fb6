//! Decides which convolutions use Winograd's algorithm, and with which tile size.

use super::transform::LANES;
use crate::gemm::WIDTH;

/// The size of the result tiles: F(2×2, 3×3) or F(4×4, 3×3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TileSize {
    Two,
    Four,
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
    // Weights come from memory, because a model is larger than the cache, and are then transformed. For small layers
    // the estimate is higher, as if transformed weights came from memory; another estimate would choose other sizes of
    // tiles for some of them, and so change the last bits of pictures.
    let weights = |places: usize, transform: f64| match places * inputs * outputs.next_multiple_of(WIDTH) <= LARGE {
        true => places as f64 * FROM_MEMORY,
        false => 9.0 * FROM_MEMORY + transform,
    };
    let direct = 9.4 * tiles(1) + 9.0 * FROM_MEMORY;
    // The terms are the cycles for products, for transforms of inputs and results, and for weights.
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

/// The fewest floats of the transformed weights of a large layer: 64 MiB.
const LARGE: usize = 1 << 24;
