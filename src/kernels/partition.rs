//! The division of a matrix product into jobs for the threads of the pool.

use std::ops::Range;

use rayon::prelude::*;

use super::gemm::{HEIGHT, WIDTH};

/// Products with fewer multiplications run as on one thread: waking another would cost more than it saves.
const MIN_PARALLEL_WORK: usize = 1 << 19;

/// The most rows of a job. The values that it reads from the left matrix for a piece of k stay in the L2 cache.
const ROWS: usize = 96;

/// A product divided into jobs of some rows and some panels. The division decides which thread computes an element and
/// never changes its bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Partition {
    rows: usize,
    panels: usize,
    job_rows: usize,
    job_panels: usize,
}

impl Partition {
    /// Divides (rows, K) · (K, N) into about two jobs per thread: by rows if there are many, otherwise by columns, too,
    /// so that no thread reads the whole right matrix.
    pub fn product(rows: usize, k: usize, n: usize) -> Self {
        let panels = n.div_ceil(WIDTH).max(1);
        let threads = rayon::current_num_threads();
        if threads == 1 || rows * k * n < MIN_PARALLEL_WORK {
            return Self { rows, panels, job_rows: rows.clamp(1, ROWS), job_panels: panels };
        }
        let jobs = 2 * threads;
        let job_rows = rows.div_ceil(jobs.max(rows.div_ceil(ROWS))).next_multiple_of(HEIGHT);
        if job_rows >= ROWS / 2 {
            return Self { rows, panels, job_rows, job_panels: panels };
        }
        let job_rows = rows.clamp(1, ROWS);
        let parts = jobs.div_ceil(rows.div_ceil(job_rows)).min(panels);
        Self { rows, panels, job_rows, job_panels: panels.div_ceil(parts) }
    }

    /// The same division with jobs that begin at panels of even index.
    pub fn in_pairs_of_panels(self) -> Self {
        Self { job_panels: self.job_panels.next_multiple_of(2), ..self }
    }

    /// Runs `job(scratch, rows, panels)` for every job, on the threads of the pool. Jobs on the same thread reuse its
    /// scratch.
    pub fn run(self, job: impl Fn(&mut Vec<f32>, Range<usize>, Range<usize>) + Sync) {
        let (down, across) = (self.rows.div_ceil(self.job_rows), self.panels.div_ceil(self.job_panels));
        let run = |scratch: &mut Vec<f32>, i: usize| {
            let (row, panel) = (i / across * self.job_rows, i % across * self.job_panels);
            job(scratch, row..self.rows.min(row + self.job_rows), panel..self.panels.min(panel + self.job_panels));
        };
        match self.rows * self.panels {
            0 => {}
            _ if down * across == 1 => run(&mut Vec::new(), 0),
            _ => (0..down * across).into_par_iter().for_each_init(Vec::new, run),
        }
    }
}
