//! How the work of one operation is divided into jobs for the threads of the pool.

use std::ops::Range;

use rayon::prelude::*;

use super::gemm::{HEIGHT, WIDTH};

/// Multiplications below which waking another thread costs more than it saves.
const ALONE: usize = 1 << 19;

/// Most rows of a job: what it reads of the left matrix for a piece of k stays in the second cache.
const ROWS: usize = 96;

/// A product cut into jobs of some rows and some panels. That decides who computes an element, never how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    rows: usize,
    panels: usize,
    job_rows: usize,
    job_panels: usize,
}

impl Cut {
    /// Cuts (rows, K) · (K, N) so that each thread has about two jobs, by rows where there are many, else by columns too:
    /// then no thread needs to read the whole right matrix.
    pub fn product(rows: usize, k: usize, n: usize) -> Self {
        let panels = n.div_ceil(WIDTH).max(1);
        let threads = rayon::current_num_threads();
        if threads == 1 || rows * k * n < ALONE {
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

    /// The same, but every job begins with a panel of even number.
    pub fn in_pairs_of_panels(self) -> Self {
        Self { job_panels: self.job_panels.next_multiple_of(2), ..self }
    }

    /// Runs `job(scratch, rows, panels)` for every job, on as many threads as there are jobs for; a thread keeps its
    /// scratch from job to job.
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
