//! The tile of 72 × 72 pixels, which repeats over the picture: the offset of each coefficient, and its bit.

use super::code;

/// The side of a block in pixels.
pub(super) const BLOCK: usize = 8;
/// Blocks along a side of the tile. Every crop of at least 79 × 79 pixels contains a block of each place in the tile.
pub(super) const BLOCKS: usize = 9;
/// The side of the tile in pixels.
pub(super) const TILE: usize = BLOCK * BLOCKS;
/// Coefficients per block: horizontal, vertical and diagonal.
pub(super) const COEFFICIENTS: usize = 3;
/// Coefficients of the tile.
const CELLS: usize = COEFFICIENTS * BLOCKS * BLOCKS;

/// A coefficient of the tile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    /// 0: horizontal, 1: vertical, 2: diagonal.
    pub coefficient: usize,
    /// The row and the column of its block in the tile.
    pub row: usize,
    pub column: usize,
    /// The offset of the lattice that means the bit 0, as a fraction of a step (0 to 1).
    pub offset: f32,
}

/// All coefficients of the tile.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// The cell of each bit of the code.
    pub code: Vec<Cell>,
    /// The cells that always mean 0.
    pub markers: Vec<Cell>,
}

impl Layout {
    /// The layout. It is the same on every server, so everybody who knows the program can find watermarks.
    pub fn new() -> Layout {
        let mut random = Random(0x6c61_7465_6e74_6431);
        let cell = |index: usize| Cell {
            coefficient: index / (BLOCKS * BLOCKS),
            row: index / BLOCKS % BLOCKS,
            column: index % BLOCKS,
            offset: 0.0,
        };
        let mut cells: Vec<Cell> = (0..CELLS).map(cell).collect();
        for last in (1..CELLS).rev() {
            cells.swap(last, (random.next() % (last as u64 + 1)) as usize);
        }
        for cell in &mut cells {
            cell.offset = (random.next() >> 40) as f32 / (1 << 24) as f32;
        }
        let markers = cells.split_off(code::CODE_BITS);
        Layout { code: cells, markers }
    }
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}
