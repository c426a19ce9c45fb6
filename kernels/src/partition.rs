//! The division of a matrix product into blocks, which the threads of the pool compute.

use std::ops::Range;

use rayon::prelude::*;

use super::gemm::{HEIGHT, WIDTH};

/// Products with fewer multiplications are divided as for one thread, because waking another thread would cost more
/// than it saves.
const MIN_PARALLEL_WORK: usize = 1 << 19;

/// How large a block may be, and what it costs in addition to its multiplications.
#[derive(Clone, Copy, Debug)]
pub(super) struct Costs {
    /// The most lines of a block. At most 512 values of each line of the left matrix are multiplied at a time, and
    /// these values should stay in the L2 cache.
    pub most_lines: usize,
    /// The cost of reading the right matrix: the number of further lines that could be multiplied in that time.
    pub lines: usize,
    /// The cost of reading the left matrix: the number of further columns that could be multiplied in that time.
    pub columns: usize,
}

impl Costs {
    /// The costs for a matrix whose values are in memory in the form in which they are multiplied.
    pub const WIDE: Costs = Costs { most_lines: 96, lines: 4, columns: 36 };
    /// The costs for a matrix whose values are converted for each block.
    pub const NARROW: Costs = Costs { most_lines: 384, lines: 32, columns: 36 };
    /// The costs for a product on the matrix unit: both matrices are split into planes for each block.
    pub const PLANES: Costs = Costs { most_lines: 384, lines: 12, columns: 12 };
    /// The costs for a product on the matrix unit with rounded numbers, which computes faster and reads as slowly.
    pub const FAST: Costs = Costs { most_lines: 1536, lines: 128, columns: 64 };
}

/// A product divided into blocks. A block has some lines and some panels (groups of 16 columns) of the result. The
/// division decides which thread computes an element, and never changes the bits of the element.
#[derive(Clone, Copy, Debug)]
pub(super) struct Partition {
    lines: usize,
    panels: usize,
    /// How many blocks lie one below another.
    down: usize,
    block_panels: usize,
}

impl Partition {
    /// Divides (lines, K) · (K, N) into blocks so that the threads are busy equally long, with at least two blocks for
    /// each thread.
    pub fn product(lines: usize, k: usize, n: usize, costs: Costs) -> Self {
        let panels = n.div_ceil(WIDTH).max(1);
        let threads = rayon::current_num_threads();
        let least = lines.div_ceil(costs.most_lines).max(1);
        if threads == 1 || lines * k * n < MIN_PARALLEL_WORK {
            return Self { lines, panels, down: least, block_panels: panels };
        }
        let divisions = (least..=least.max((2 * threads).min(lines.div_ceil(HEIGHT)))).flat_map(|down| {
            let across = move |rounds: usize| (rounds * threads).div_ceil(down).clamp(1, panels);
            (2..=4).map(move |rounds| (down, panels.div_ceil(across(rounds))))
        });
        let cost = |&(down, block_panels): &(usize, usize)| {
            let rounds = (down * panels.div_ceil(block_panels)).div_ceil(threads);
            let block_lines = lines.div_ceil(HEIGHT).div_ceil(down) * HEIGHT;
            rounds * (block_lines.min(lines) + costs.lines) * (block_panels * WIDTH + costs.columns)
        };
        let (down, block_panels) = divisions.min_by_key(cost).unwrap_or((least, panels));
        Self { lines, panels, down, block_panels }
    }

    /// The same division with blocks that begin at panels of even index.
    pub fn in_pairs_of_panels(self) -> Self {
        Self { block_panels: self.block_panels.next_multiple_of(2), ..self }
    }

    /// Calls `compute(scratch, lines, panels)` for every block, on the threads of the pool. Successive calls on
    /// a thread reuse a scratch buffer.
    pub fn run(self, compute: impl Fn(&mut Vec<f32>, Range<usize>, Range<usize>) + Sync) {
        let across = self.panels.div_ceil(self.block_panels);
        let run = |scratch: &mut Vec<f32>, i: usize| {
            let panel = i % across * self.block_panels;
            compute(scratch, self.lines_of(i / across), panel..self.panels.min(panel + self.block_panels));
        };
        match self.lines * self.panels {
            0 => {}
            _ if self.down * across == 1 => run(&mut Vec::new(), 0),
            _ => (0..self.down * across).into_par_iter().for_each_init(Vec::new, run),
        }
    }

    /// The lines of a block: whole tiles, except perhaps at the end, and about as many as in the other blocks.
    fn lines_of(self, block: usize) -> Range<usize> {
        let tiles = self.lines.div_ceil(HEIGHT);
        let first = |block: usize| self.lines.min(block * tiles / self.down * HEIGHT);
        first(block)..first(block + 1)
    }
}
