//! The speed of recent generations.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};

use crate::ledger::Measured;

/// The run times of recent generations. Cloning gives another handle of the same data.
#[derive(Clone, Debug, Default)]
pub struct Throughput {
    recent: Arc<Mutex<VecDeque<Ended>>>,
    /// What the store has not learned yet, by model.
    measured: Arc<Mutex<HashMap<String, Measured>>>,
}

#[derive(Clone, Debug)]
struct Ended {
    model: String,
    seconds: f64,
    /// Number of generations that ran at the same time, including this one.
    together: usize,
    /// See [`Plan::cost`](crate::catalogue::Plan::cost).
    cost: f64,
}

/// The average speed of recent generations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Seconds from the start of a run to its end.
    pub run_seconds: f64,
    /// Units of cost per second, of all generations that run at the same time.
    pub speed: f64,
}

const REMEMBERED: usize = 32;

/// Minimum number of runs from which the speed of a model is known: the first run may have waited for the weights.
const FEWEST: usize = 3;

/// The seconds of each run that are assumed to be loading and storing instead of computation; at most nine tenths of
/// the run. Because of these seconds, a short run says little about the speed of a long run.
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

    /// Adds a generation whose run computed all of its work, for the estimates of the store.
    pub fn measure(&self, model: &str, run_time: Duration, together: usize, cost: f64) {
        let mut measured = self.measured.lock();
        let of_model = measured.entry(model.to_owned()).or_default();
        of_model.generations += 1;
        of_model.work += cost;
        of_model.seconds += run_time.as_secs_f64() / together.max(1) as f64;
    }

    /// Takes what was measured since the last call.
    pub fn take_measured(&self) -> HashMap<String, Measured> {
        std::mem::take(&mut self.measured.lock())
    }

    /// The speed of this process, in cost per second; `None` before the first generation has ended.
    pub fn speed(&self) -> Option<f64> {
        let recent = self.recent();
        let (cost, seconds) = recent.iter().fold((0.0, 0.0), |(cost, seconds), ended| {
            (cost + ended.cost, seconds + ended.seconds / ended.together as f64)
        });
        (seconds > 0.0).then(|| cost / seconds)
    }

    /// The shortest time in seconds for work of this cost if nothing else runs, at the best speed among the model's
    /// recent runs. `None` if fewer than three such runs are known.
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
        self.recent.lock()
    }

    /// The average speed; `None` before the first generation has ended.
    pub fn pace(&self) -> Option<Pace> {
        let speed = self.speed()?;
        let recent = self.recent();
        let run_seconds = recent.iter().map(|ended| ended.seconds).sum::<f64>() / recent.len() as f64;
        Some(Pace { run_seconds, speed })
    }
}

impl Pace {
    /// Seconds until a generation starts, if all generations before it cost this much together.
    pub fn until_start(&self, cost: f64) -> f64 {
        if self.speed > 0.0 { cost / self.speed } else { 0.0 }
    }

    /// Seconds until a generation ends, if all generations before it cost this much together.
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
    fn what_was_measured_is_taken_once() {
        let throughput = Throughput::default();
        throughput.measure("m", Duration::from_secs(8), 4, 6.0);
        throughput.measure("m", Duration::from_secs(3), 1, 2.0);
        throughput.measure("other", Duration::from_secs(1), 0, 1.0);
        let measured = throughput.take_measured();
        assert_eq!(measured["m"], Measured { generations: 2, work: 8.0, seconds: 5.0 });
        assert_eq!(measured["other"], Measured { generations: 1, work: 1.0, seconds: 1.0 });
        assert!(throughput.take_measured().is_empty());
    }

    #[test]
    fn the_least_time_of_a_run_follows_the_fastest_run_of_its_model() {
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
        // It is unknown which part of a short run is computation.
        record("m", 0.5, 1, 5.0);
        assert_eq!(throughput.least_seconds("m", 50.0), Some(0.5));
    }
}
