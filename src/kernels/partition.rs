//! The division of a matrix product into blocks, which the threads of the pool compute.

use std::ops::Range;

use rayon::prelude::*;

use super::gemm::{HEIGHT, WIDTH};

/// Products with fewer multiplications are divided as for one thread, because waking another thread would cost more
/// than it saves.
const MIN_PARALLEL_WORK: usize = 1 << 19;

/// The most lines of a block. At most 512 values of each line of the left matrix are multiplied at a time, and the
/// values of 96 lines stay in the L2 cache.
const LINES: usize = 96;

/// A product divided into blocks. A block has some lines and some panels (groups of 16 columns) of the result. The
/// division decides which thread computes an element, and never changes the bits of the element.
#[derive(Clone, Copy, Debug)]
pub(super) struct Partition {
    lines: usize,
    panels: usize,
    block_lines: usize,
    block_panels: usize,
}

impl Partition {
    /// Divides (lines, K) · (K, N) into about two blocks per thread. A product of many lines is divided by lines, any
    /// other product also by panels, so that no thread reads the whole right matrix.
    pub fn product(lines: usize, k: usize, n: usize) -> Self {
        let panels = n.div_ceil(WIDTH).max(1);
        let threads = rayon::current_num_threads();
        if threads == 1 || lines * k * n < MIN_PARALLEL_WORK {
            return Self { lines, panels, block_lines: lines.clamp(1, LINES), block_panels: panels };
        }
        let blocks = 2 * threads;
        let block_lines = lines.div_ceil(blocks.max(lines.div_ceil(LINES))).next_multiple_of(HEIGHT);
        if block_lines >= LINES / 2 {
            return Self { lines, panels, block_lines, block_panels: panels };
        }
        let block_lines = lines.clamp(1, LINES);
        let parts = blocks.div_ceil(lines.div_ceil(block_lines)).min(panels);
        Self { lines, panels, block_lines, block_panels: panels.div_ceil(parts) }
    }

    /// The same division with blocks that begin at panels of even index.
    pub fn in_pairs_of_panels(self) -> Self {
        Self { block_panels: self.block_panels.next_multiple_of(2), ..self }
    }

    /// Calls `compute(scratch, lines, panels)` for every block, on the threads of the pool. Successive calls on
    /// a thread reuse a scratch buffer.
    pub fn run(self, compute: impl Fn(&mut Vec<f32>, Range<usize>, Range<usize>) + Sync) {
        let (down, across) = (self.lines.div_ceil(self.block_lines), self.panels.div_ceil(self.block_panels));
        let run = |scratch: &mut Vec<f32>, i: usize| {
            let (line, panel) = (i / across * self.block_lines, i % across * self.block_panels);
            compute(
                scratch,
                line..self.lines.min(line + self.block_lines),
                panel..self.panels.min(panel + self.block_panels),
            );
        };
        match self.lines * self.panels {
            0 => {}
            _ if down * across == 1 => run(&mut Vec::new(), 0),
            _ => (0..down * across).into_par_iter().for_each_init(Vec::new, run),
        }
    }
}
