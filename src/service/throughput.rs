//! How fast generations have been ending lately.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The run times of the recent generations. A cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Throughput(Arc<Mutex<VecDeque<Ended>>>);

#[derive(Clone, Debug)]
struct Ended {
    model: String,
    seconds: f64,
    /// Generations that ran at the time, this one included.
    together: usize,
    /// See [`Plan::cost`](crate::catalogue::Plan::cost).
    cost: f64,
}

/// How the recent generations went, on average.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// From the beginning of a run to its end.
    pub run_seconds: f64,
    /// Units of cost that are done in a second: several run together, and their places in the queue are free when they have
    /// ended.
    pub speed: f64,
}

const REMEMBERED: usize = 32;

/// Runs of a model that it takes to know how fast the model is: the first may have waited for its weights.
const FEWEST: usize = 3;

/// Seconds of a run in which it may have done other than compute, such as load and store, but no more than nine tenths of it: a
/// short run says little of a long one.
const BESIDE_S: f64 = 1.0;

impl Throughput {
    pub fn record(&self, model: &str, run_time: Duration, together: usize, cost: f64) {
        let mut recent = self.recent();
        if recent.len() == REMEMBERED {
            recent.pop_front();
        }
        let (model, seconds) = (model.to_owned(), run_time.as_secs_f64());
        recent.push_back(Ended { model, seconds, together: together.max(1), cost });
    }

    /// Cost a second of this process; `None` before the first generation has ended.
    pub fn speed(&self) -> Option<f64> {
        let recent = self.recent();
        let (cost, seconds) = recent.iter().fold((0.0, 0.0), |(cost, seconds), ended| {
            (cost + ended.cost, seconds + ended.seconds / ended.together as f64)
        });
        (seconds > 0.0).then(|| cost / seconds)
    }

    /// The least seconds that work of this cost takes by a model when nothing runs beside it: as at the best moment of the
    /// model's recent runs. `None` where fewer than three of them have ended.
    pub fn least_seconds(&self, model: &str, cost: f64) -> Option<f64> {
        let recent = self.recent();
        let of_model = recent.iter().filter(|ended| ended.model == model);
        let speeds: Vec<f64> = of_model
            .map(|ended| {
                let computing = (ended.seconds - BESIDE_S).max(ended.seconds / 10.0);
                ended.cost * ended.together as f64 / computing
            })
            .collect();
        let fastest = speeds.iter().copied().fold(0.0, f64::max);
        (speeds.len() >= FEWEST && fastest > 0.0).then(|| cost / fastest)
    }

    fn recent(&self) -> MutexGuard<'_, VecDeque<Ended>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` before the first generation has ended.
    pub fn pace(&self) -> Option<Pace> {
        let speed = self.speed()?;
        let recent = self.recent();
        let run_seconds = recent.iter().map(|ended| ended.seconds).sum::<f64>() / recent.len() as f64;
        Some(Pace { run_seconds, speed })
    }
}

impl Pace {
    /// Seconds until a generation begins that has generations of so much cost before it.
    pub fn until_start(&self, cost: f64) -> f64 {
        if self.speed > 0.0 { cost / self.speed } else { 0.0 }
    }

    /// Seconds until that generation has its pictures.
    pub fn until_end(&self, cost: f64) -> f64 {
        self.until_start(cost) + self.run_seconds
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
            throughput.record("m", Duration::from_secs(8), 4, 6.0);
        }
        let pace = throughput.pace().unwrap();
        assert_eq!(throughput.speed(), Some(3.0), "four together do 24 in 8 seconds");
        assert_eq!(pace.until_start(18.0), 6.0);
        assert_eq!(pace.until_end(18.0), 14.0);
    }

    #[test]
    fn what_a_run_takes_at_least_follows_the_fastest_run_of_its_model() {
        let throughput = Throughput::default();
        let record = |model, seconds, together, cost| {
            throughput.record(model, Duration::from_secs_f64(seconds), together, cost);
        };
        record("m", 101.0, 1, 100.0);
        record("m", 11.0, 1, 100.0);
        record("other", 2.0, 1, 1e9);
        assert_eq!(throughput.least_seconds("m", 50.0), None, "two runs may both have waited for the weights");
        record("m", 41.0, 2, 100.0);
        assert_eq!(throughput.least_seconds("m", 50.0), Some(5.0), "100 in 10 seconds");
        assert_eq!(throughput.least_seconds("other", 50.0), None);
        // Nothing says which part of a short run is work.
        record("m", 0.5, 1, 5.0);
        assert_eq!(throughput.least_seconds("m", 50.0), Some(0.5));
    }
}
