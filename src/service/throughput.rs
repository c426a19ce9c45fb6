//! How fast generations have been ending lately.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// The run times of the recent generations. A cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Throughput(Arc<Mutex<VecDeque<Ended>>>);

#[derive(Clone, Copy, Debug)]
struct Ended {
    seconds: f64,
    /// Generations that ran at the time, this one included.
    together: usize,
}

const REMEMBERED: usize = 32;

impl Throughput {
    pub fn record(&self, run_time: Duration, together: usize) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == REMEMBERED {
            recent.pop_front();
        }
        recent.push_back(Ended { seconds: run_time.as_secs_f64(), together: together.max(1) });
    }

    /// Seconds of a run, averaged; `None` before the first.
    pub fn mean_seconds(&self) -> Option<f64> {
        self.mean(|ended| ended.seconds)
    }

    /// Whole seconds after which `queued` generations will have begun, from 1 to 600.
    pub fn seconds_for(&self, queued: usize) -> u64 {
        let each = self.mean(|ended| ended.seconds / ended.together as f64).unwrap_or(1.0);
        (each * queued as f64).ceil().clamp(1.0, 600.0) as u64
    }

    fn mean(&self, of: impl Fn(&Ended) -> f64) -> Option<f64> {
        let recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.is_empty() { None } else { Some(recent.iter().map(of).sum::<f64>() / recent.len() as f64) }
    }
}
