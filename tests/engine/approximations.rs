//! Approximations: what they save is counted, and what they do is what they say.

use serde_json::{Value, json};

use super::{Bench, with};

/// Rows × denoiser calls of a request.
fn rows(bench: &Bench, request: Value) -> u64 {
    let before = bench.metrics.steps.get();
    bench.draw(request);
    bench.metrics.steps.get() - before
}

#[test]
fn rows_for_the_negative_prompt_are_computed_inside_the_guidance_interval_alone() {
    let bench = Bench::new(16, 1);
    let count = |scheduler: &str, interval: Value| {
        rows(&bench, json!({"prompt": "a", "steps": 10, "scheduler": scheduler, "guidance_interval": interval}))
    };
    // One call a step, and a second row where the step is guided: i/10 is at least 0.2 and below 0.8 for i of 2 to 7.
    assert_eq!(count("euler", Value::Null), 10 + 10);
    assert_eq!(count("euler", json!([0, 1])), 10 + 10);
    assert_eq!(count("euler", json!([0.2, 0.8])), 10 + 6);
    assert_eq!(count("euler", json!([0.3, 1])), 10 + 7);
    assert_eq!(count("euler", json!([0, 0.05])), 10 + 1);
    assert_eq!(count("euler", json!([0.91, 1])), 10);
    // Two calls a step but in the last.
    assert_eq!(count("heun", json!([0.2, 0.8])), 19 + 2 * 6);
    assert_eq!(count("heun", json!([0.7, 1])), 19 + 2 * 2 + 1);
    // The first step is done twice.
    assert_eq!(count("pndm", json!([0, 0.2])), 11 + 3);
}

#[test]
fn a_step_outside_the_guidance_interval_is_one_without_guidance() {
    let bench = Bench::new(16, 1);
    for scheduler in ["euler_a", "heun", "dpmpp_2m"] {
        let request = json!({"prompt": "a fox", "seed": 3, "steps": 6, "n": 2, "scheduler": scheduler});
        let drawn = |more: Value| bench.draw(with(&request, more));
        let (exact, unguided) = (drawn(json!({})), drawn(json!({"guidance_scale": 1})));
        assert_eq!(drawn(json!({"guidance_interval": [0, 1]})), exact, "{scheduler}");
        assert_eq!(drawn(json!({"guidance_interval": [0.9, 1]})), unguided, "{scheduler}");
        assert_eq!(drawn(json!({"guidance_scale": 1, "guidance_interval": [0.2, 0.5]})), unguided, "{scheduler}");
        let some = drawn(json!({"guidance_interval": [0.5, 1]}));
        assert!(some != exact && some != unguided, "{scheduler}");
    }
}
