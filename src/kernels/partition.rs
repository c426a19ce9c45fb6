//! The division of a matrix product into jobs for the threads of the pool.

use std::ops::Range;

use rayon::prelude::*;

use super::gemm::{HEIGHT, WIDTH};

/// Products with fewer multiplications are divided as for one thread, because waking another thread would cost more
/// than it saves.
const MIN_PARALLEL_WORK: usize = 1 << 19;

/// The most lines of a job. With so few lines, the values of the left matrix that a job multiplies at a time, at most
/// 512 of each line, stay in the L2 cache.
const LINES: usize = 96;

/// A product divided into jobs, each of which computes some lines and some panels (groups of 16 columns). The division
/// decides which thread computes an element and never changes its bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Partition {
    lines: usize,
    panels: usize,
    job_lines: usize,
    job_panels: usize,
}

impl Partition {
    /// Divides (lines, K) · (K, N) into about two jobs per thread: by lines if there are many, otherwise also by
    /// columns, so that no thread reads the whole right matrix.
    pub fn product(lines: usize, k: usize, n: usize) -> Self {
        let panels = n.div_ceil(WIDTH).max(1);
        let threads = rayon::current_num_threads();
        if threads == 1 || lines * k * n < MIN_PARALLEL_WORK {
            return Self { lines, panels, job_lines: lines.clamp(1, LINES), job_panels: panels };
        }
        let jobs = 2 * threads;
        let job_lines = lines.div_ceil(jobs.max(lines.div_ceil(LINES))).next_multiple_of(HEIGHT);
        if job_lines >= LINES / 2 {
            return Self { lines, panels, job_lines, job_panels: panels };
        }
        let job_lines = lines.clamp(1, LINES);
        let parts = jobs.div_ceil(lines.div_ceil(job_lines)).min(panels);
        Self { lines, panels, job_lines, job_panels: panels.div_ceil(parts) }
    }

    /// The same division with jobs that begin at panels of even index.
    pub fn in_pairs_of_panels(self) -> Self {
        Self { job_panels: self.job_panels.next_multiple_of(2), ..self }
    }

    /// Runs `job(scratch, lines, panels)` for every job, on the threads of the pool. Jobs on the same thread reuse that
    /// thread's scratch buffer.
    pub fn run(self, job: impl Fn(&mut Vec<f32>, Range<usize>, Range<usize>) + Sync) {
        let (down, across) = (self.lines.div_ceil(self.job_lines), self.panels.div_ceil(self.job_panels));
        let run = |scratch: &mut Vec<f32>, i: usize| {
            let (line, panel) = (i / across * self.job_lines, i % across * self.job_panels);
            job(scratch, line..self.lines.min(line + self.job_lines), panel..self.panels.min(panel + self.job_panels));
        };
        match self.lines * self.panels {
            0 => {}
            _ if down * across == 1 => run(&mut Vec::new(), 0),
            _ => (0..down * across).into_par_iter().for_each_init(Vec::new, run),
        }
    }
}
