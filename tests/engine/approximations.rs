//! Tests of approximations: the work that they save, and the pictures that they give.

use latentd::pipelines::Frame;
use serde_json::{Value, json};

use super::{EngineFixture, deepcache, outcome, with};

/// The number of rows in all denoiser calls of a request.
fn rows(fixture: &EngineFixture, request: Value) -> u64 {
    let before = fixture.metrics.steps.get();
    fixture.draw(request);
    fixture.metrics.steps.get() - before
}

#[test]
fn negative_prompt_rows_are_computed_only_inside_the_guidance_interval() {
    let fixture = EngineFixture::new(16, 1);
    let count = |scheduler: &str, interval: Value| {
        rows(&fixture, json!({"prompt": "a", "steps": 10, "scheduler": scheduler, "guidance_interval": interval}))
    };
    // One row per step, and a second row if the step is guided: i/10 is at least 0.2 and below 0.8 for i from 2 to 7.
    assert_eq!(count("euler", Value::Null), 10 + 10);
    assert_eq!(count("euler", json!([0, 1])), 10 + 10);
    assert_eq!(count("euler", json!([0.2, 0.8])), 10 + 6);
    assert_eq!(count("euler", json!([0.3, 1])), 10 + 7);
    assert_eq!(count("euler", json!([0, 0.05])), 10 + 1);
    assert_eq!(count("euler", json!([0.91, 1])), 10);
    // Two calls per step, except the last step.
    assert_eq!(count("heun", json!([0.2, 0.8])), 19 + 2 * 6);
    assert_eq!(count("heun", json!([0.7, 1])), 19 + 2 * 2 + 1);
    // The first step has two calls.
    assert_eq!(count("pndm", json!([0, 0.2])), 11 + 3);
}

#[test]
fn a_step_outside_the_guidance_interval_has_no_guidance() {
    let fixture = EngineFixture::new(16, 1);
    for scheduler in ["euler_a", "heun", "dpmpp_2m"] {
        let request = json!({"prompt": "a fox", "seed": 3, "steps": 6, "n": 2, "scheduler": scheduler});
        let drawn = |more: Value| fixture.draw(with(&request, more));
        let (exact, unguided) = (drawn(json!({})), drawn(json!({"guidance_scale": 1})));
        assert_eq!(drawn(json!({"guidance_interval": [0, 1]})), exact, "{scheduler}");
        assert_eq!(drawn(json!({"guidance_interval": [0.9, 1]})), unguided, "{scheduler}");
        assert_eq!(drawn(json!({"guidance_scale": 1, "guidance_interval": [0.2, 0.5]})), unguided, "{scheduler}");
        let some = drawn(json!({"guidance_interval": [0.5, 1]}));
        assert!(some != exact && some != unguided, "{scheduler}");
    }
}

#[test]
fn between_whole_calls_only_the_shallow_branch_is_computed() {
    let fixture = EngineFixture::new(16, 1);
    let count = |more: Value| {
        let before = fixture.metrics.shallow_steps.get();
        let all = rows(&fixture, with(&json!({"prompt": "a", "steps": 10, "scheduler": "euler"}), more));
        (all, fixture.metrics.shallow_steps.get() - before)
    };
    assert_eq!(count(json!({})), (20, 0));
    // The whole calls are 0, 2, 4 …; 0, 3, 6 and 9; only 0.
    assert_eq!(count(deepcache(2)), (20, 2 * 5));
    assert_eq!(count(deepcache(3)), (20, 2 * 6));
    assert_eq!(count(deepcache(10)), (20, 2 * 9));
    assert_eq!(count(with(&deepcache(3), json!({"n": 2}))), (40, 4 * 6));
    // The interval counts calls of Heun, not steps.
    assert_eq!(count(with(&deepcache(2), json!({"scheduler": "heun"}))), (38, 2 * 9));
    // The first guided call is whole. Calls 2 to 7 of 0 to 9 are guided, and calls 0, 2 and 6 are whole.
    let both = with(&deepcache(4), json!({"guidance_interval": [0.2, 0.8]}));
    assert_eq!(count(both), (16, 1 + (2 * 3 + 2 + 2)));
}

#[test]
fn a_cached_picture_is_near_the_exact_one_and_equal_if_nothing_was_cached() {
    let fixture = EngineFixture::new(16, 1);
    let request = json!({"prompt": "a fox", "seed": 3, "steps": 12, "scheduler": "dpmpp_2m"});
    let exact = fixture.draw(request.clone());
    let cached = fixture.draw(with(&request, deepcache(2)));
    assert_ne!(cached, exact);
    let other = fixture.draw(with(&request, json!({"seed": 4})));
    let difference = |frames: &[Frame]| -> u64 {
        let (Frame::Picture(made), Frame::Picture(exact)) = (&frames[0], &exact[0]) else { panic!("pictures") };
        made.pixels.iter().zip(&exact.pixels).map(|(a, b)| u64::from(a.abs_diff(*b))).sum()
    };
    assert!(2 * difference(&cached) < difference(&other), "{} {}", difference(&cached), difference(&other));
    let one_step = json!({"prompt": "a fox", "seed": 3, "steps": 1, "scheduler": "euler"});
    assert_eq!(fixture.draw(with(&one_step, deepcache(2))), fixture.draw(one_step));
}

#[test]
fn cached_and_exact_runs_in_one_engine_do_not_affect_each_other() {
    let (alone, crowded) = (EngineFixture::new(16, 1), EngineFixture::new(3, 2));
    let requests: Vec<Value> = (0..8)
        .map(|i| {
            let request = json!({"prompt": "the same", "seed": i / 2, "steps": 6 + i, "n": 1 + i % 2});
            if i % 4 == 3 { request } else { with(&request, deepcache(2 + i as u32 % 3)) }
        })
        .collect();
    let expected: Vec<_> = requests.iter().map(|request| alone.draw(request.clone())).collect();
    let runs: Vec<_> = requests.iter().map(|request| crowded.start(request.clone())).collect();
    for ((request, expected), (_, observed)) in requests.iter().zip(expected).zip(&runs) {
        assert!(outcome(observed).unwrap() == expected, "{request}");
    }
    assert!(crowded.metrics.shallow_steps.get() > 0);
}
