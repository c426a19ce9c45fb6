//! Tests of resuming: a run that replays a log continues after its last call and draws the same picture.

use latentd::{
    engine::{Log, Reason, RunError},
    pipelines::Frame,
};
use serde_json::{Value, json};

use super::{EngineFixture, Observed, deepcache, outcome, with};

/// Samplers whose history or noise makes resuming difficult.
const SCHEDULERS: [&str; 20] = [
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
    "ipndm",
    "lcm",
    "tcd",
];

/// Runs a request. Returns its whole log and its pictures.
fn logged(fixture: &EngineFixture, request: &Value) -> (Log, Vec<Frame>) {
    let (_, observed) = fixture.start(request.clone());
    let mut log = Log::default();
    loop {
        match observed.recv().unwrap() {
            Observed::Portion(portion) => assert!(log.join(portion), "portions follow each other"),
            Observed::Ended(pictures) => return (log, pictures.unwrap()),
            Observed::Progress(..) | Observed::Preview(..) | Observed::Handles(_) => {}
        }
    }
}

#[test]
fn every_sampler_resumes_after_every_call() {
    let fixture = EngineFixture::new(16, 1);
    for scheduler in SCHEDULERS {
        let request = json!({"prompt": "a fox", "seed": 5, "steps": 5, "n": 2, "scheduler": scheduler, "eta": 0.4});
        let (log, pictures) = logged(&fixture, &request);
        let calls = log.calls.len();
        assert!(calls >= 5 && log.first == 0, "{scheduler}: {calls} calls");
        for kept in 1..=calls {
            let known = Log { first: 0, calls: log.calls[..kept].to_vec() };
            let (rows, all) = (known.rows(), log.rows());
            let (computed, replayed) = (fixture.metrics.steps.get(), fixture.metrics.replayed_steps.get());
            *fixture.replay.borrow_mut() = known;
            let (_, observed) = fixture.start(request.clone());
            assert!(outcome(&observed).unwrap() == pictures, "{scheduler} after {kept} of {calls} calls");
            assert_eq!(fixture.metrics.replayed_steps.get() - replayed, rows, "{scheduler}");
            assert_eq!(fixture.metrics.steps.get() - computed, all - rows, "{scheduler}: nothing is computed again");
        }
    }
}

#[test]
fn a_log_of_another_request_is_ignored() {
    let fixture = EngineFixture::new(16, 1);
    let request = json!({"prompt": "a fox", "seed": 5, "steps": 5, "scheduler": "euler_a"});
    let (_, pictures) = logged(&fixture, &request);
    let (larger, _) = logged(&fixture, &with(&request, json!({"width": 72})));
    let (more, _) = logged(&fixture, &with(&request, json!({"n": 2})));
    for log in [larger, more, Log { first: 0, calls: vec![Vec::new()] }] {
        *fixture.replay.borrow_mut() = log;
        assert!(fixture.draw(request.clone()) == pictures);
    }
}

/// Features are larger than network outputs, so such a run has no log.
#[test]
fn a_run_that_keeps_deep_features_is_not_logged() {
    let fixture = EngineFixture::new(16, 1);
    let request = with(&json!({"prompt": "a fox", "steps": 5}), deepcache(2));
    assert_eq!(logged(&fixture, &request).0.calls.len(), 0);
}

#[test]
fn a_stopping_engine_reports_the_complete_log() {
    for scheduler in ["pndm", "heun", "dpmpp_2m_sde"] {
        let request = json!({"prompt": "a fox", "seed": 5, "steps": 60, "scheduler": scheduler});
        let fixture = EngineFixture::new(16, 1);
        let (_, observed) = fixture.start(request.clone());
        let mut log = Log::default();
        while log.calls.len() < 3 {
            if let Observed::Portion(portion) = observed.recv().unwrap() {
                assert!(log.join(portion));
            }
        }
        let metrics = fixture.metrics.clone();
        drop(fixture);
        for observed in observed.iter() {
            if let Observed::Portion(portion) = observed {
                assert!(log.join(portion));
            }
        }
        assert_eq!(log.rows(), metrics.steps.get(), "{scheduler}: every call is in the log");
        assert_eq!(metrics.wasted_steps.with_label_values(&["lost"]).get(), 0, "no step is lost");

        let (undisturbed, resumed) = (EngineFixture::new(16, 1), EngineFixture::new(16, 1));
        let replayed = log.rows();
        *resumed.replay.borrow_mut() = log;
        assert!(resumed.draw(request.clone()) == undisturbed.draw(request), "{scheduler}");
        assert_eq!(resumed.metrics.steps.get() + replayed, undisturbed.metrics.steps.get());
    }
}

#[test]
fn steps_of_canceled_runs_are_wasted_and_those_of_lost_runs_are_not() {
    for (reason, label) in [(Reason::Canceled, "canceled"), (Reason::Lost, "lost")] {
        let fixture = EngineFixture::new(16, 1);
        let (cancel, observed) = fixture.start(json!({"prompt": "a fox", "steps": 900}));
        while !matches!(observed.recv().unwrap(), Observed::Portion(_)) {}
        cancel.cancel(reason);
        assert!(matches!(outcome(&observed), Err(RunError::Canceled(_))));
        let wasted = fixture.metrics.wasted_steps.with_label_values(&[label]).get();
        assert_eq!(wasted, if reason == Reason::Lost { 0 } else { fixture.metrics.steps.get() });
    }
}
