//! Tests of requests that are refused before any work, such as requests that would wait too long; and tests of the
//! queue's fields.

use futures::FutureExt;
use latentd::{
    catalogue::Plan,
    generation::Priority,
    ledger::{Crew, Heartbeat, Newcomer},
};
use serde_json::{Value, json};

use crate::api::{TestApi, post};

fn fox() -> Value {
    json!({"prompt": "a red fox"})
}

#[tokio::test]
async fn the_number_of_queued_generations_of_a_tenant_is_bounded() {
    let api = TestApi::open(&[]).await;
    let key = api.key("greedy", 2).await;
    for _ in 0..2 {
        assert_eq!(api.ask(post(&fox(), &[("authorization", &key)])).await.status, 202);
    }
    let refused = api.ask(post(&fox(), &[("authorization", &key)])).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (429, Some("tenant_queue_full")));
    assert_eq!(refused.json()["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(refused.header("retry-after"), refused.json()["retry_after_s"].to_string());
    for _ in 0..3 {
        api.create(fox()).await;
    }
}

/// The cost of all queued and running generations.
async fn open_cost(api: &TestApi) -> f64 {
    let last = Newcomer { tenant: "nobody", priority: Priority::Low, cost: 1e300 };
    api.store.workload(&last, &Crew::default()).await.unwrap().cost
}

/// Reports a worker with this speed, in units of work per second.
async fn beat(api: &TestApi, speed: f64) {
    let beat = Heartbeat {
        worker: "w".to_owned(),
        version: "0".to_owned(),
        models: vec!["emoji".to_owned()],
        running: 0,
        speed: Some(speed),
    };
    api.store.heartbeat(&beat).await.unwrap();
}

#[tokio::test]
async fn a_request_that_would_wait_too_long_is_refused() {
    let api = TestApi::open(&[("queue.max_wait_s", "100"), ("engine.max_runs", "1")]).await;
    api.create(fox()).await;
    let cost = open_cost(&api).await;
    assert!(cost > 0.0);
    // No worker has reported a speed, so the server cannot estimate the wait.
    api.create(fox()).await;

    beat(&api, cost / 60.0).await;
    let refused = api.ask(post(&fox(), &[])).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("overloaded")), "{}", refused.text());
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("120 s") && detail.contains("100 s"), "{detail}");
    let after: u64 = refused.header("retry-after").parse().unwrap();
    assert!((16..=24).contains(&after), "{after} is not 20 s ± a fifth");

    beat(&api, cost / 30.0).await;
    let brief = json!({"prompt": "a red fox", "start_timeout_s": 59});
    let refused = api.ask(post(&brief, &[])).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("overloaded")));
    assert!(refused.json()["detail"].as_str().unwrap().contains("59 s"));
    api.create(json!({"prompt": "a red fox", "start_timeout_s": 61})).await;
}

#[tokio::test]
async fn a_request_that_would_be_first_is_not_refused_for_those_behind_it() {
    let api = TestApi::open(&[("queue.max_wait_s", "100"), ("engine.max_runs", "1")]).await;
    let low = json!({"prompt": "a red fox", "priority": "low"});
    api.create(low.clone()).await;
    beat(&api, open_cost(&api).await / 60.0).await;
    let _lease = api.begin().await;
    // This generation waits for the running generation, which takes a minute. The next generation would wait for both.
    api.create(low.clone()).await;
    assert_eq!(api.ask(post(&low, &[])).await.json()["code"].as_str(), Some("overloaded"));
    api.create(fox()).await;
    assert_eq!(api.ask(post(&fox(), &[])).await.json()["code"].as_str(), Some("overloaded"));
    api.create(json!({"prompt": "a red fox", "priority": "high"})).await;
}

/// Slots are free, but another generation holds the memory.
#[tokio::test]
async fn the_estimated_wait_includes_the_wait_for_memory() {
    let api = TestApi::open(&[("queue.max_wait_s", "100"), ("engine.max_bytes", "8000000000")]).await;
    beat(&api, 1e3).await;
    let large = Plan { cost: 90e3, held: 7_999_999_999, ..Plan::default() };
    let first = api.memory.take(0, large).now_or_never().unwrap();
    api.create(fox()).await;
    // The estimate includes a generation that already waits for memory.
    let mut second = Box::pin(api.memory.take(0, large));
    assert!((&mut second).now_or_never().is_none());
    let refused = api.ask(post(&fox(), &[])).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("overloaded")), "{}", refused.text());
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("180 s") && detail.contains("100 s"), "{detail}");
    drop((first, second));
    api.create(fox()).await;
}

#[tokio::test]
async fn no_request_is_refused_for_its_wait_while_a_slot_is_free() {
    let api = TestApi::open(&[("queue.max_wait_s", "1"), ("engine.max_runs", "2")]).await;
    api.create(fox()).await;
    beat(&api, 1e-9).await;
    let _lease = api.begin().await;
    api.create(fox()).await;
    assert_eq!(api.ask(post(&fox(), &[])).await.status, 503);
}

#[tokio::test]
async fn the_retry_time_of_a_full_queue_follows_from_the_workers_speed() {
    let api =
        TestApi::open(&[("queue.max_queued", "1"), ("queue.max_wait_s", "1000000"), ("engine.max_runs", "1")]).await;
    api.create(fox()).await;
    let cost = open_cost(&api).await;
    beat(&api, cost / 100.0).await;
    let refused = api.ask(post(&fox(), &[])).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("queue_full")));
    let after: u64 = refused.header("retry-after").parse().unwrap();
    assert!((80..=120).contains(&after), "{after} is not 100 s ± a fifth");
    assert_eq!(refused.json()["type"], "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity");
}

#[tokio::test]
async fn the_generation_shows_the_queue_fields_of_its_request() {
    let settings = [("queue.start_timeout_s", "77"), ("worker.run_timeout_s", "55"), ("queue.max_attempts", "5")];
    let api = TestApi::open(&settings).await;
    let plain = api.ask(post(&fox(), &[])).await.json();
    assert_eq!((plain["priority"].as_str(), plain["max_attempts"].as_u64()), (Some("normal"), Some(5)));
    assert_eq!((plain["run_timeout_s"].as_u64(), plain["params"]["start_timeout_s"].as_u64()), (Some(55), Some(77)));
    let asked = json!({"prompt": "a red fox", "priority": "high", "run_timeout_s": 9, "start_timeout_s": 8});
    let asked = api.ask(post(&asked, &[])).await.json();
    assert_eq!((asked["priority"].as_str(), asked["run_timeout_s"].as_u64()), (Some("high"), Some(9)));
    assert_eq!(asked["params"]["start_timeout_s"], 8);
    assert!(asked["params"].get("priority").is_none(), "params do not contain fields of the queue");
    assert_eq!(asked["queue"]["position"], 0, "a high priority goes before an older generation");
    api.create(json!({"prompt": "a", "priority": "low"})).await;

    for (field, value) in [("priority", json!("urgent")), ("run_timeout_s", json!(0)), ("run_timeout_s", json!(3601))] {
        for model in [Value::Null, json!("none")] {
            let refused = api.ask(post(&json!({"prompt": "a", "model": model, field: value}), &[])).await;
            assert_eq!(refused.status, 422);
            let named =
                refused.json()["errors"].as_array().unwrap().iter().any(|e| e["pointer"] == format!("/{field}"));
            assert!(named, "no error of {field}");
        }
    }
}

/// The pointers of the errors of a refused request.
async fn pointers(api: &TestApi, body: &Value) -> Vec<String> {
    let refused = api.ask(post(body, &[])).await;
    assert_eq!(refused.status, 422, "{body} {}", refused.text());
    let errors = refused.json()["errors"].as_array().unwrap().clone();
    errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_unknown_model_hides_no_other_error() {
    let api = TestApi::open(&[]).await;
    let faults = json!({
        "prompt": 5, "size": "0x0", "n": 0, "steps": 0, "seed": -1, "guidance_scale": 31, "eta": 2, "clip_skip": -1,
        "scheduler": "none", "loras": [{"name": "none"}], "controls": [{"model": "none"}], "image_guidance_scale": 0,
        "mask_blur": 3, "refiner": {"model": "none"}, "aesthetic_score": 11, "run_timeout_s": 0, "priority": "urgent",
        "webhook": 7, "metadata": 7, "output": {"metadata": "no"}, "color": "red",
    });
    for model in [json!("none"), json!(7)] {
        let mut body = faults.clone();
        body["model"] = model;
        let mut found = pointers(&api, &body).await;
        found.sort();
        found.dedup();
        let expected = [
            "/aesthetic_score",
            "/clip_skip",
            "/color",
            "/controls/0/image",
            "/controls/0/model",
            "/eta",
            "/guidance_scale",
            "/image_guidance_scale",
            "/loras/0/name",
            "/mask_blur",
            "/metadata",
            "/model",
            "/n",
            "/output/metadata",
            "/priority",
            "/prompt",
            "/refiner/model",
            "/run_timeout_s",
            "/scheduler",
            "/seed",
            "/size",
            "/steps",
            "/webhook",
        ];
        assert_eq!(found, expected);
    }
    // With an unknown model, a value that only some models allow is no error.
    for fields in [
        json!({"size": "72x40", "steps": 3, "clip_skip": 2, "decoder": "tiny", "scheduler": "dpmpp_2m_karras"}),
        json!({"prompt_2": "b", "denoising_end": 0.5, "aesthetic_score": 7, "target_size": [64, 64]}),
        json!({"image_guidance_scale": 1.5, "scheduler": {"num_train_timesteps": 10, "any": 1}, "loras": [{"name": "emoji-lcm"}]}),
        json!({"refiner": {"model": "emoji"}, "sigmas": [5, 1]}),
        json!({}),
    ] {
        let mut body = fields;
        (body["model"], body["prompt"]) = (json!("none"), json!("a <lora:emoji-flat>"));
        let found = pointers(&api, &body).await;
        let expected: &[&str] = if body.get("refiner").is_some() { &["/model", "/sigmas"] } else { &["/model"] };
        assert_eq!(found, expected, "{body}");
    }
}

#[tokio::test]
async fn an_error_of_a_size_names_the_field_of_the_request() {
    let api = TestApi::open(&[("limits.max_pixels", "300000")]).await;
    for (fields, pointer, said) in [
        (json!({"size": "0x0"}), "/size", "must have a width that is between 64 and 2048, not 0"),
        (json!({"size": "0x128"}), "/size", "must have a width that is between"),
        (
            json!({"size": "128x99999999999"}),
            "/size",
            "must have a height that is between 64 and 2048, not 99999999999",
        ),
        (json!({"size": "128x129"}), "/size", "must have a height that is a multiple of"),
        (json!({"size": "1024x1024"}), "/size", "must have at most 300000 pixels, not 1024 × 1024"),
        (json!({"size": "128"}), "/size", "WIDTHxHEIGHT"),
        (json!({"size": "+128x128"}), "/size", "WIDTHxHEIGHT"),
        (json!({"size": "128x128", "width": 0}), "/size", "excludes width and height"),
        (json!({"width": 0}), "/width", "must be between"),
        (json!({"height": 129}), "/height", "must be a multiple of"),
        (json!({"width": 1024, "height": 1024}), "/width", "times height must be at most 300000 pixels"),
    ] {
        let mut body = fields;
        body["prompt"] = json!("a");
        let refused = api.ask(post(&body, &[])).await;
        let errors = refused.json()["errors"].as_array().unwrap().clone();
        assert!(errors.iter().all(|error| error["pointer"] == pointer), "{body} {errors:?}");
        assert!(errors[0]["detail"].as_str().unwrap().contains(said), "{body} {errors:?}");
    }
    let tight = TestApi::open(&[("engine.max_bytes", "1000000")]).await;
    let refused = tight.ask(post(&json!({"prompt": "a", "size": "512x512"}), &[])).await;
    let error = refused.json()["errors"][0].clone();
    assert_eq!(error["pointer"], "/size", "{error}");
    assert!(error["detail"].as_str().unwrap().contains("engine.max_bytes is 1 MiB"), "{error}");
}

#[tokio::test]
async fn a_run_timeout_below_half_the_estimate_is_refused_once_the_speed_is_known() {
    let api = TestApi::open(&[]).await;
    let record = |model: &str, cost: f64| api.throughput.record(model, std::time::Duration::from_secs(11), 1, cost);
    let within = |seconds: u32| json!({"prompt": "a", "run_timeout_s": seconds});
    api.create(within(1)).await;
    for _ in 0..3 {
        record("another", 1e-9);
    }
    record("emoji", 1e-3);
    record("emoji", 1e-3);
    api.create(within(1)).await;
    record("emoji", 1e-3);
    let refused = api.ask(post(&within(1), &[])).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    let error = refused.json()["errors"][0].clone();
    assert_eq!((&error["pointer"], &error["code"]), (&json!("/run_timeout_s"), &json!("out_of_range")));
    // The bound that the error names is half of the estimate.
    let detail = error["detail"].as_str().unwrap().to_owned();
    let number = |after: &str| -> f64 {
        let text = detail.split_once(after).unwrap_or_else(|| panic!("{detail}")).1;
        text.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
    };
    let (bound, estimate) = (number("must be at least "), number("takes about "));
    assert!((estimate / 2.0 - bound).abs() <= 1.0, "{detail}");
    // Without the field, the timeout of the server applies. One fast run lowers the estimate.
    api.create(fox()).await;
    record("emoji", 1e12);
    api.create(within(1)).await;
}
