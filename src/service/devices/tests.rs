//! Tests of the choice of devices.

use std::cell::RefCell;

use futures::FutureExt;
use proptest::prelude::*;

use super::*;

fn devices() -> Devices {
    Devices::new(["cpu:0", "cpu:1"].map(str::to_owned), &Metrics::new())
}

fn four() -> Devices {
    Devices::new((0..4).map(|core| format!("cpu:{core}")), &Metrics::new())
}

/// Describes the devices of a test. The devices in `devices` have the model. If `has_room`, every device has room for
/// another model, otherwise no device has.
fn on(devices: &'static [usize], has_room: bool) -> impl Fn(usize) -> Candidate {
    move |device| Candidate { is_there: devices.contains(&device), has_room }
}

#[test]
fn a_device_with_the_model_comes_first_then_the_least_loaded() {
    let devices = devices();
    let first = devices.place(5.0, on(&[1], true)).unwrap();
    assert_eq!(first.device, 1, "an idle device that has the model");
    let second = devices.place(9.0, on(&[1], true)).unwrap();
    assert_eq!(second.device, 0, "an idle device with room for it");
    assert_eq!(devices.place(1.0, on(&[0, 1], true)).unwrap().device, 1, "the device with less work");
    assert_eq!(devices.place(1.0, on(&[0], true)).unwrap().device, 0, "the device that has the model");
    assert_eq!(devices.place(1.0, on(&[], false)).unwrap().device, 1, "no device has the model");
    drop(second);
    assert_eq!(
        devices.place(1.0, on(&[1], false)).unwrap().device,
        1,
        "no other model is unloaded to make room for a copy"
    );
    let loads = devices.loads();
    assert_eq!(loads.iter().map(|load| (load.running, load.cost)).collect::<Vec<_>>(), [(0, 0.0), (1, 5.0)]);
    drop(first);
    assert!(devices.loads().iter().all(|load| (load.running, load.cost) == (0, 0.0)));
}

#[test]
fn generations_that_arrive_together_are_spread() {
    let devices = devices();
    let all: Vec<Placed> = (0..6).filter_map(|_| devices.place(1.0, on(&[0, 1], true))).collect();
    assert_eq!(devices.loads().iter().map(|load| load.running).collect::<Vec<_>>(), [3, 3]);
    drop(all);
}

#[test]
fn without_devices_there_is_no_place_and_none_has_failed() {
    let devices = Devices::default();
    assert!(devices.place(1.0, on(&[], true)).is_none());
    devices.fail(0);
    assert!(!devices.is_none_left());
}

#[test]
fn a_model_with_a_long_queue_is_copied_to_an_idle_device_without_room() {
    let devices = four();
    let hot: Vec<Placed> = (0..LONG_QUEUE).filter_map(|_| devices.place(1.0, on(&[2], false))).collect();
    assert!(hot.iter().all(|placed| placed.device == 2), "while the queue is short, no model is unloaded");
    let copy = devices.place(1.0, on(&[2], false)).unwrap();
    assert_eq!(copy.device, 0);
    // The copy is being loaded, so the device has the model.
    let next = devices.place(1.0, on(&[0, 2], false)).unwrap();
    assert_eq!(next.device, 0, "its queue is short");
    let other = devices.place(1.0, on(&[], false)).unwrap();
    assert_eq!(other.device, 1, "another model goes to an idle device");
}

/// Each GPU has a memory of its own, so one GPU can have free memory while another has none.
#[test]
fn of_busy_devices_one_with_room_gets_a_new_model() {
    let devices = four();
    let busy: Vec<Placed> = (0..4)
        .filter_map(|device| {
            devices.place(1.0 + device as f64, |at| Candidate { is_there: at == device, has_room: false })
        })
        .collect();
    assert_eq!(busy.iter().map(|placed| placed.device).collect::<Vec<_>>(), [0, 1, 2, 3]);
    let on_third = devices.place(1.0, |device| Candidate { is_there: false, has_room: device == 2 }).unwrap();
    assert_eq!(on_third.device, 2, "although others have less work");
    assert_eq!(devices.place(1.0, on(&[], false)).unwrap().device, 0, "no device has room");
}

#[test]
fn a_failed_device_is_skipped_and_named() {
    let metrics = Metrics::new();
    let devices = Devices::new((0..4).map(|core| format!("cpu:{core}")), &metrics);
    let before = devices.place(1.0, on(&[1], true)).unwrap();
    devices.fail(1);
    let failed: Vec<bool> = devices.loads().iter().map(|load| load.failed).collect();
    assert_eq!(failed, [false, true, false, false]);
    let gauge = |device| metrics.device_failed.with_label_values(&[device]).get();
    assert_eq!((gauge("cpu:0"), gauge("cpu:1")), (0, 1));
    drop(before);
    let after: Vec<Placed> = (0..9).filter_map(|_| devices.place(1.0, on(&[1], true))).collect();
    assert!(after.len() == 9 && after.iter().all(|placed| placed.device != 1), "also if it has the model and is idle");
    for device in [0, 2, 3] {
        assert!(!devices.is_none_left() && devices.until_none_left().now_or_never().is_none());
        devices.fail(device);
    }
    assert!(devices.is_none_left() && devices.until_none_left().now_or_never().is_some());
    assert!(devices.place(1.0, on(&[0], true)).is_none());
}

proptest! {
    /// Four devices with room for two models each, six models of which the first is in demand, and devices
    /// that fail.
    #[test]
    fn idle_devices_get_the_requests_for_which_they_have_room(
        requests in prop::collection::vec(prop::sample::select(vec![0usize, 0, 0, 0, 0, 1, 2, 3, 4, 5]), 60..120),
        failing in prop::collection::btree_set(0usize..4, 0..3),
    ) {
        let devices = four();
        // The models of each device, the least recently used first.
        let models: RefCell<Vec<Vec<usize>>> = RefCell::new(vec![Vec::new(); 4]);
        let mut running: Vec<Placed> = Vec::new();
        for (i, &model) in requests.iter().enumerate() {
            if i == 30 {
                failing.iter().for_each(|&device| devices.fail(device));
            }
            let of = |device: usize| {
                let here = &models.borrow()[device];
                let is_there = here.contains(&model);
                Candidate { is_there, has_room: is_there || here.len() < 2 }
            };
            let idle: Vec<usize> = (0..4).filter(|device| devices.loads()[*device].running == 0).collect();
            let is_open = |device: &usize| i < 30 || !failing.contains(device);
            let has_room = idle.iter().any(|device| is_open(device) && of(*device).has_room);
            let placed = devices.place(1.0, of).unwrap();
            prop_assert!(!has_room || idle.contains(&placed.device), "no request waits while an idle device has room");
            prop_assert!(i < 30 || !failing.contains(&placed.device), "a failed device gets nothing");
            let here = &mut models.borrow_mut()[placed.device];
            if !here.contains(&model) && idle.iter().any(is_open) {
                prop_assert!(idle.contains(&placed.device), "a model is loaded on an idle device if there is one");
            }
            here.retain(|other| *other != model);
            here.push(model);
            if here.len() > 2 {
                here.remove(0);
            }
            running.push(placed);
            if running.len() > 16 {
                running.remove(0);
            }
        }
    }
}
