//! Tests of batching: steps of different requests share batches, and no picture depends on its batch.

use futures::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Server, decode, request, with};

/// Sixteen requests that differ in scheduler, prompt, steps, guidance scale and eta.
fn mixed() -> Vec<Value> {
    let schedulers = ["pndm", "ddim", "ddpm", "euler", "euler_a", "heun", "dpmpp_2m", "dpmpp_2m_karras"];
    let prompts = ["a red fox", "a red apple", "a panda", "a rocket"];
    (0..16u64)
        .map(|i| {
            let more = json!({
                "scheduler": schedulers[i as usize % 8],
                "steps": 4 + (i * 46 / 15),
                "guidance_scale": if i % 5 == 0 { 1.0 } else { 2.0 + i as f64 / 4.0 },
                "eta": if i % 8 == 1 { 0.5 } else { 0.0 },
            });
            with(request(prompts[i as usize % 4], 1000 + i), &more)
        })
        .collect()
}

#[tokio::test]
async fn sixteen_requests_share_batches_and_draw_the_same_pictures_as_alone() {
    let data = tempfile::tempdir().unwrap();
    // With the longest slice, a batch takes all rows on a slow machine, too.
    let server = Server::start(data.path(), &[("LATENTD_ENGINE__SLICE_MS", "1000")]).await;
    let ids = join_all(mixed().iter().map(|body| server.accept(body))).await;
    let ended = join_all(ids.iter().map(|id| server.ended(id))).await;
    for generation in &ended {
        assert_eq!(generation["status"], "succeeded", "{generation}");
    }
    let calls = server.metric("latentd_batch_runs_count", "").await;
    let runs = server.metric("latentd_batch_runs_sum", "").await;
    assert!(runs > 2.0 * calls, "{runs} runs in {calls} calls: batches hold more than one generation");

    for (body, id) in mixed().iter().zip(&ids) {
        let alone = server.accept(body).await;
        server.ended(&alone).await;
        assert_eq!(server.picture(&alone, 0).await, server.picture(id, 0).await, "{body}");
    }
}

#[tokio::test]
async fn a_short_request_does_not_wait_for_a_long_one() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let long = server.accept(&with(request("a panda", 1), &json!({"steps": 50, "n": 8}))).await;
    server
        .until("the long one denoises", async |server: &Server| {
            server.json(&format!("/v1/images/{long}")).await["progress"]["step"].as_u64().is_some_and(|step| step > 2)
        })
        .await;
    let short = server.accept(&with(request("a rocket", 2), &json!({"steps": 4}))).await;
    let short = server.ended(&short).await;
    assert_eq!(short["status"], "succeeded");
    let long_now = server.json(&format!("/v1/images/{long}")).await;
    assert_eq!(long_now["status"], "running", "the short one ended while the long one was at work");
    assert!(long_now["progress"]["step"].as_u64().unwrap() < 40, "long before its end: {long_now}");
    let long = server.ended(&long).await;
    assert_eq!(long["status"], "succeeded");
    let ended = |generation: &Value| generation["finished_at"].as_str().unwrap().to_owned();
    assert!(ended(&short) < ended(&long));
}

/// Runs with different approximations share batches, and their generations list the approximations.
#[tokio::test]
async fn approximations_are_listed_and_repeated_from_params() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let cache = |interval: u32| json!({"feature_cache": {"kind": "deepcache", "interval": interval}});
    let approximations = [
        (json!({}), json!([])),
        (json!({"guidance_interval": [0.2, 0.8]}), json!(["guidance_interval"])),
        (cache(2), json!(["feature_cache"])),
        (with(cache(3), &json!({"guidance_interval": [0, 0.5]})), json!(["guidance_interval", "feature_cache"])),
        (json!({"guidance_interval": [0, 0.5], "guidance_scale": 1}), json!([])),
    ];
    let bodies = approximations.iter().map(|(fields, _)| with(request("a red fox", 5), fields)).collect::<Vec<_>>();
    let ids = join_all(bodies.iter().map(|body| server.accept(body))).await;
    let mut pictures = Vec::new();
    for ((_, said), id) in approximations.iter().zip(&ids) {
        let generation = server.ended(id).await;
        assert_eq!(generation["approximations"], *said, "{generation}");
        let again = server.accept(&generation["params"]).await;
        assert_eq!(server.ended(&again).await["approximations"], *said);
        let picture = server.picture(id, 0).await;
        assert_eq!(server.picture(&again, 0).await, picture, "{said}");
        pictures.push(decode(&picture).2);
    }
    assert!((1..4).all(|i| pictures[i] != pictures[0]), "an approximation changed nothing");
    assert!(server.metric("latentd_shallow_steps_total", "").await > 0.0);
}

/// Pictures have the same bytes on machines of any size.
#[tokio::test]
async fn pictures_do_not_depend_on_threads_or_batch_size() {
    let settings: [&[(&str, &str)]; 3] = [
        &[("LATENTD_ENGINE__THREADS", "1"), ("LATENTD_ENGINE__MAX_ROWS", "1")],
        &[("LATENTD_ENGINE__THREADS", "2"), ("LATENTD_ENGINE__MAX_ROWS", "5")],
        &[("LATENTD_ENGINE__THREADS", "3"), ("LATENTD_ENGINE__MAX_ROWS", "64")],
    ];
    let mut first = None;
    for settings in settings {
        let data = tempfile::tempdir().unwrap();
        let server = Server::start(data.path(), settings).await;
        let bodies: Vec<Value> =
            mixed().into_iter().take(4).map(|body| with(body, &json!({"steps": 5, "n": 2}))).collect();
        let ids = join_all(bodies.iter().map(|body| server.accept(body))).await;
        join_all(ids.iter().map(|id| server.ended(id))).await;
        let pictures = join_all(ids.iter().map(|id| server.picture(id, 1))).await;
        assert_eq!(decode(&pictures[0]).0, 128);
        match &first {
            None => first = Some(pictures),
            Some(first) => assert!(*first == pictures, "{settings:?}"),
        }
    }
}
