//! The load of each device of this process, and the choice of a device for each generation.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::IntGaugeVec;

use crate::metrics::Metrics;

/// The loads by device index; empty in a process without a worker. Cloning gives another handle of the same loads.
#[derive(Clone, Debug, Default)]
pub struct Devices(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    loads: Vec<Load>,
    runs: Option<IntGaugeVec>,
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
}

/// Whether a device has the model of a generation, or room for it.
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
        let runs = metrics.device_runs.clone();
        loads.iter().for_each(|load| runs.with_label_values(&[&load.name]).set(0));
        Devices(Arc::new(Mutex::new(State { loads, runs: Some(runs) })))
    }

    pub fn loads(&self) -> Vec<Load> {
        self.0.lock().loads.clone()
    }

    /// Chooses a device for a generation of this cost and adds the generation to its load; `of` says whether each
    /// device has the model. Concurrent calls see each other's generations.
    pub fn place(&self, cost: f64, of: impl Fn(usize) -> Candidate) -> Placed {
        let mut state = self.0.lock();
        let device = choose(&state.loads, of);
        state.change(device, |load| {
            load.running += 1;
            load.cost += cost;
        });
        Placed { devices: self.clone(), device, cost }
    }
}

impl State {
    fn change(&mut self, device: usize, change: impl FnOnce(&mut Load)) {
        let Some(load) = self.loads.get_mut(device) else { return };
        change(load);
        if let Some(runs) = &self.runs {
            runs.with_label_values(&[&load.name]).set(i64::try_from(load.running).unwrap_or(i64::MAX));
        }
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        let cost = self.cost;
        self.devices.0.lock().change(self.device, |load| {
            load.running -= 1;
            // Rounding errors would keep the sum from returning to zero.
            load.cost = if load.running == 0 { 0.0 } else { load.cost - cost };
        });
    }
}

/// Chooses the device for a generation, in this order: an idle device that has the model; an idle device with room for
/// the model, so that a frequent model is loaded on several devices; the least busy device that has the model, so that
/// no model is unloaded for a copy of another one; the least busy device.
fn choose(loads: &[Load], of: impl Fn(usize) -> Candidate) -> usize {
    let rank = |device: usize| {
        let Candidate { is_there, has_room } = of(device);
        match (loads[device].running == 0, is_there, has_room) {
            (true, true, _) => 0,
            (true, false, true) => 1,
            (false, true, _) => 2,
            _ => 3,
        }
    };
    let ranked = (0..loads.len()).map(|device| (rank(device), device));
    let before = |(a_rank, a): &(u8, usize), (b_rank, b): &(u8, usize)| {
        a_rank.cmp(b_rank).then(loads[*a].cost.total_cmp(&loads[*b].cost)).then(a.cmp(b))
    };
    ranked.min_by(before).map_or(0, |(_, device)| device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices() -> Devices {
        Devices::new(["cpu:0", "cpu:1"].map(str::to_owned), &Metrics::new())
    }

    /// Candidates: the devices that have the model, and whether the others have room.
    fn on(devices: &'static [usize], has_room: bool) -> impl Fn(usize) -> Candidate {
        move |device| Candidate { is_there: devices.contains(&device), has_room }
    }

    #[test]
    fn loaded_models_decide_and_then_the_load() {
        let devices = devices();
        let first = devices.place(5.0, on(&[1], true));
        assert_eq!(first.device, 1, "an idle device that has the model");
        let second = devices.place(9.0, on(&[1], true));
        assert_eq!(second.device, 0, "an idle device with room for it");
        assert_eq!(devices.place(1.0, on(&[0, 1], true)).device, 1, "the one with less work");
        assert_eq!(devices.place(1.0, on(&[0], true)).device, 0, "the one that has it");
        assert_eq!(devices.place(1.0, on(&[], false)).device, 1, "nobody has it");
        drop(second);
        assert_eq!(devices.place(1.0, on(&[1], false)).device, 1, "no model has to go for a copy");
        let loads = devices.loads();
        assert_eq!(loads.iter().map(|load| (load.running, load.cost)).collect::<Vec<_>>(), [(0, 0.0), (1, 5.0)]);
        drop(first);
        assert!(devices.loads().iter().all(|load| (load.running, load.cost) == (0, 0.0)));
    }

    #[test]
    fn those_that_come_together_are_spread() {
        let devices = devices();
        let all: Vec<Placed> = (0..6).map(|_| devices.place(1.0, on(&[0, 1], true))).collect();
        assert_eq!(devices.loads().iter().map(|load| load.running).collect::<Vec<_>>(), [3, 3]);
        drop(all);
    }

    #[test]
    fn without_devices_nothing_is_counted() {
        assert_eq!(Devices::default().place(1.0, on(&[], true)).device, 0);
    }
}
