//! The load of each device of this process, and the choice of a device for each generation.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::metrics::Metrics;

/// The queue of a device is long if the device has at least this many generations, which fill a batch of the default
/// size with guided pictures. If the queues of all devices with a model are long, an idle device loads the model too,
/// even if it must unload other models.
const LONG_QUEUE: usize = 8;

/// The loads by device index; empty in a process without a worker. Cloning gives another handle of the same loads.
#[derive(Clone, Debug, Default)]
pub struct Devices(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Whether all devices have failed.
    none_left: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    loads: Vec<Load>,
    metrics: Option<Metrics>,
}

/// The load of a device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// The name of the device in the settings.
    pub name: String,
    /// Number of generations that load models or compute.
    pub running: usize,
    /// The total cost of these generations, in 10⁹ multiplications.
    cost: f64,
    /// Whether the device has failed. A failed device gets no more generations.
    pub failed: bool,
}

/// Whether a device has the model of a generation, or free memory for the model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Candidate {
    /// Whether the model is in memory or being loaded.
    pub is_there: bool,
    /// Whether the model fits into memory without unloading another one.
    pub has_room: bool,
}

/// A generation on a device. Dropping it removes the generation from the device.
#[derive(Debug)]
pub struct Placed {
    devices: Devices,
    pub device: usize,
    cost: f64,
}

impl Devices {
    pub fn new(names: impl IntoIterator<Item = String>, metrics: &Metrics) -> Devices {
        let loads: Vec<Load> = names.into_iter().map(|name| Load { name, ..Load::default() }).collect();
        for load in &loads {
            metrics.device_runs.with_label_values(&[&load.name]).set(0);
            metrics.device_failed.with_label_values(&[&load.name]).set(0);
            metrics.out_of_memory_splits.with_label_values(&[&load.name]);
        }
        let state = Mutex::new(State { loads, metrics: Some(metrics.clone()) });
        Devices(Arc::new(Shared { state, none_left: watch::Sender::default() }))
    }

    pub fn loads(&self) -> Vec<Load> {
        self.0.state.lock().loads.clone()
    }

    /// Chooses a device for a generation of this cost and adds the generation to the load of the device; `of` says
    /// whether a device has the model, or free memory for the model. Concurrent calls see each other's generations.
    /// `None` if all devices have failed.
    pub fn place(&self, cost: f64, of: impl Fn(usize) -> Candidate) -> Option<Placed> {
        let mut state = self.0.state.lock();
        let device = choose(&state.loads, of)?;
        state.change(device, |load| {
            load.running += 1;
            load.cost += cost;
        });
        Some(Placed { devices: self.clone(), device, cost })
    }

    /// Marks a device as failed, so that it gets no more generations.
    pub fn fail(&self, device: usize) {
        let none_left = {
            let mut state = self.0.state.lock();
            state.change(device, |load| load.failed = true);
            !state.loads.is_empty() && state.loads.iter().all(|load| load.failed)
        };
        // `none_left` is only set and never cleared: failures are final, and a concurrent call may have seen an earlier
        // state.
        if none_left {
            self.0.none_left.send_replace(true);
        }
    }

    /// Whether the process has devices and all of them have failed.
    pub fn is_none_left(&self) -> bool {
        *self.0.none_left.borrow()
    }

    /// Returns when all devices have failed.
    pub async fn until_none_left(&self) {
        // This handle owns the sender, so waiting cannot fail.
        let _ = self.0.none_left.subscribe().wait_for(|none_left| *none_left).await;
    }
}

impl State {
    fn change(&mut self, device: usize, change: impl FnOnce(&mut Load)) {
        let Some(load) = self.loads.get_mut(device) else { return };
        change(load);
        if let Some(metrics) = &self.metrics {
            let running = i64::try_from(load.running).unwrap_or(i64::MAX);
            metrics.device_runs.with_label_values(&[&load.name]).set(running);
            metrics.device_failed.with_label_values(&[&load.name]).set(load.failed.into());
        }
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        let cost = self.cost;
        self.devices.0.state.lock().change(self.device, |load| {
            load.running -= 1;
            // Rounding errors would keep the sum from returning to zero.
            load.cost = if load.running == 0 { 0.0 } else { load.cost - cost };
        });
    }
}

/// Chooses the device for a generation among those that have not failed, in this order:
/// 1. an idle device that has the model,
/// 2. an idle device with free memory for the model, so that a frequent model is loaded on several devices,
/// 3. an idle device without free memory, if the queues of all devices that have the model are long,
/// 4. the least busy device that has the model, so that no model is unloaded for a copy of another one,
/// 5. another idle device, whose models are not in use,
/// 6. the least busy device with free memory, so that no model is unloaded,
/// 7. the least busy device.
fn choose(loads: &[Load], of: impl Fn(usize) -> Candidate) -> Option<usize> {
    let usable: Vec<(usize, Candidate)> =
        (0..loads.len()).filter(|&device| !loads[device].failed).map(|device| (device, of(device))).collect();
    let shortest = usable.iter().filter(|(_, of)| of.is_there).map(|(device, _)| loads[*device].running).min();
    let is_long = shortest.is_some_and(|running| running >= LONG_QUEUE);
    let rank = |device: usize, Candidate { is_there, has_room }: Candidate| {
        let is_idle = loads[device].running == 0;
        match (is_idle, is_there, has_room) {
            (true, true, _) => 0,
            (true, false, true) => 1,
            (true, false, false) if is_long => 2,
            (false, true, _) => 3,
            (true, ..) => 4,
            (_, false, true) => 5,
            _ => 6,
        }
    };
    let ranked = usable.into_iter().map(|(device, of)| (rank(device, of), device));
    let before = |(a_rank, a): &(u8, usize), (b_rank, b): &(u8, usize)| {
        a_rank.cmp(b_rank).then(loads[*a].cost.total_cmp(&loads[*b].cost)).then(a.cmp(b))
    };
    ranked.min_by(before).map(|(_, device)| device)
}

#[cfg(test)]
mod tests;
