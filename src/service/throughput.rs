//! How fast generations have been ending lately.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
    /// See [`Generation::cost`](crate::generation::Generation::cost).
    cost: f64,
}

/// How the recent generations went, on average.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// From the beginning of a run to its end.
    pub run_seconds: f64,
    /// What one place in the queue costs: several run together, and as many move up when they have ended.
    pub place_seconds: f64,
}

const REMEMBERED: usize = 32;

impl Throughput {
    pub fn record(&self, run_time: Duration, together: usize, cost: f64) {
        let mut recent = self.recent();
        if recent.len() == REMEMBERED {
            recent.pop_front();
        }
        recent.push_back(Ended { seconds: run_time.as_secs_f64(), together: together.max(1), cost });
    }

    /// Cost a second of this process; `None` before the first generation has ended.
    pub fn speed(&self) -> Option<f64> {
        let recent = self.recent();
        let (cost, seconds) = recent.iter().fold((0.0, 0.0), |(cost, seconds), ended| {
            (cost + ended.cost, seconds + ended.seconds / ended.together as f64)
        });
        (seconds > 0.0).then(|| cost / seconds)
    }

    fn recent(&self) -> MutexGuard<'_, VecDeque<Ended>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` before the first generation has ended.
    pub fn pace(&self) -> Option<Pace> {
        let recent = self.recent();
        let mean = |of: fn(&Ended) -> f64| recent.iter().map(of).sum::<f64>() / recent.len() as f64;
        (!recent.is_empty()).then(|| Pace {
            run_seconds: mean(|ended| ended.seconds),
            place_seconds: mean(|ended| ended.seconds / ended.together as f64),
        })
    }
}

impl Pace {
    /// Seconds until a generation with `position` others before it begins.
    pub fn until_start(&self, position: usize) -> f64 {
        self.place_seconds * position as f64
    }

    /// Seconds until that generation has its pictures.
    pub fn until_end(&self, position: usize) -> f64 {
        self.until_start(position) + self.run_seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_share_the_device_move_the_queue_together() {
        let throughput = Throughput::default();
        assert!(throughput.pace().is_none());
        for _ in 0..2 * REMEMBERED {
            throughput.record(Duration::from_secs(8), 4, 6.0);
        }
        let pace = throughput.pace().unwrap();
        assert_eq!(pace.until_start(3), 6.0, "a place costs a quarter of a run, as four run together");
        assert_eq!(pace.until_end(3), 14.0);
        assert_eq!(throughput.speed(), Some(3.0), "four together do 24 in 8 seconds");
    }
}
