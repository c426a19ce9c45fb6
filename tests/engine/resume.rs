//! A run that ended in the middle, and another one that goes on from its log.

use std::sync::Arc;

use latentd::engine::{Cancel, Log, Reason, RunError};
use serde_json::{Value, json};

use crate::{Bench, Told, outcome, with};

const SAMPLERS: [&str; 20] = [
    "pndm",
    "ddim",
    "ddpm",
    "euler",
    "euler_a",
    "heun",
    "lms",
    "dpm2",
    "dpm2_a",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_3m",
    "dpmpp_2s",
    "dpmpp_sde",
    "unipc",
    "deis",
    "sa_solver",
    "lcm",
    "tcd",
    "ipndm",
];

fn request(scheduler: &str) -> Value {
    json!({"prompt": "a cat", "scheduler": scheduler, "steps": 6, "seed": 7, "n": 2, "width": 64, "height": 64})
}

/// The log that a run leaves in an engine that goes once the run has made so many calls of the denoiser.
fn killed_after(calls: usize, request: &Value) -> Log {
    let bench = Bench::new(16, 1);
    let (_, told) = bench.start(request.clone());
    let mut log = Log::default();
    let keep = |log: &mut Log, told| match told {
        Told::Checkpoint(portion) => assert!(log.join(portion), "portions follow on each other"),
        Told::Ended(ended) => assert!(matches!(ended, Ok(_) | Err(RunError::Stopped)), "{ended:?}"),
        Told::Progress(..) | Told::Preview(..) => {}
    };
    while log.asks.len() < calls {
        keep(&mut log, told.recv().unwrap());
    }
    let metrics = bench.metrics.clone();
    drop(bench);
    told.iter().for_each(|told| keep(&mut log, told));
    assert_eq!(log.rows(), metrics.steps.get(), "every call is in the log");
    assert_eq!(metrics.wasted_steps.with_label_values(&["lost"]).get(), 0, "so none is wasted");
    log
}

/// The outcome of going on from the log, and the rows replayed and computed.
fn resumed(log: &Log, request: &Value) -> (Vec<latentd::imaging::RgbImage>, u64, u64) {
    let bench = Bench::new(16, 1);
    let generation = bench.generation(request.clone());
    let model = bench.catalogue.load(&generation.model).unwrap();
    let (_, told): (Cancel, _) = bench.resume_on(model, generation, log.clone());
    let pictures = outcome(&told).unwrap();
    (pictures, bench.metrics.replayed_steps.get(), bench.metrics.steps.get())
}

#[test]
fn every_sampler_goes_on_from_any_step_to_the_same_picture() {
    for sampler in SAMPLERS {
        let request = request(sampler);
        let (expected, _, all) = resumed(&Log::default(), &request);
        for calls in [1, 2, 3, 5] {
            let log = killed_after(calls, &request);
            assert!(log.asks.len() >= calls);
            let (pictures, replayed, computed) = resumed(&log, &request);
            assert!(pictures == expected, "{sampler} after {calls} calls");
            assert_eq!((replayed, computed), (log.rows(), all - log.rows()), "{sampler} after {calls} calls");
        }
    }
}

#[test]
fn a_log_can_be_cut_anywhere_and_goes_on_where_it_was_cut() {
    for sampler in ["pndm", "heun", "dpmpp_sde"] {
        let request = with(&request(sampler), json!({"guidance_interval": [0.2, 0.8]}));
        let (expected, _, all) = resumed(&Log::default(), &request);
        let whole = killed_after(4, &request);
        for calls in 0..=whole.asks.len() {
            let cut = Log { first: 0, asks: whole.asks[..calls].to_vec() };
            let (pictures, replayed, computed) = resumed(&cut, &request);
            assert!(pictures == expected, "{sampler} after {calls} calls");
            assert_eq!((replayed, computed), (cut.rows(), all - cut.rows()));
        }
    }
}

#[test]
fn a_log_that_does_not_fit_is_left_aside() {
    let request = request("euler");
    let (expected, _, all) = resumed(&Log::default(), &request);
    let mut log = killed_after(3, &request);
    let kept = log.asks[0].len() as u64;
    log.asks[1].pop();
    assert!(resumed(&log, &request) == (expected, kept, all - kept));
}

#[test]
fn a_run_with_deep_features_leaves_no_log() {
    let bench = Bench::new(16, 1);
    let (_, told) =
        bench.start(with(&request("euler"), json!({"feature_cache": {"kind": "deepcache", "interval": 2}})));
    assert!(!told.iter().any(|told| matches!(told, Told::Checkpoint(_))));
}

#[test]
fn what_a_client_cancels_is_wasted_and_what_its_worker_gives_back_is_not() {
    for (reason, label) in [(Reason::Canceled, "canceled"), (Reason::Lost, "lost")] {
        let bench = Bench::new(16, 1);
        let generation = bench.generation(with(&request("euler"), json!({"steps": 900})));
        let model = bench.catalogue.load(&generation.model).unwrap();
        let (cancel, told) = bench.start_on(Arc::clone(&model), generation);
        while !matches!(told.recv().unwrap(), Told::Checkpoint(_)) {}
        cancel.cancel(reason);
        assert!(matches!(outcome(&told), Err(RunError::Canceled(_))));
        let wasted = bench.metrics.wasted_steps.with_label_values(&[label]).get();
        assert_eq!(wasted, if reason == Reason::Lost { 0 } else { bench.metrics.steps.get() });
    }
}
