//! Fault tests of models with transformers: requests with different fields share batches; after SIGKILL in the middle
//! each one continues from its log; and all pictures have the bytes that each request draws alone.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    figures::Figures,
    load::Load,
    server::{Server, decode, with},
    site::{SECRET, Site, files},
    steps::{COMPUTED, REPLAYED, logged},
    transformers,
};

/// The step that all generations reach before the process is killed.
const KILLED_AT: u64 = 12;

#[tokio::test(flavor = "multi_thread")]
async fn flux_requests_share_batches_and_survive_a_kill() {
    let levels: Vec<f64> = (0..70).map(|i| 1.0 - f64::from(i) / 70.0).collect();
    let requests = [
        json!({"steps": 60}),
        json!({"steps": 90, "guidance_scale": 7}),
        json!({"steps": 75, "guidance_scale": 0}),
        json!({"steps": 80, "loras": [{"name": "flux_kohya", "scale": 0.7}]}),
        json!({"steps": 65, "loras": [{"name": "flux_peft", "scale": -0.4}, {"name": "flux_bfl"}], "n": 2}),
        json!({"steps": 70, "true_guidance_scale": 2.5, "negative_prompt": "blurry", "guidance_scale": 2}),
        json!({"sigmas": levels, "guidance_scale": 2}),
    ];
    survive_a_kill("FLUX.1: kill -9 in shared batches", "flux-dev", &requests).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stable_diffusion_3_requests_share_batches_and_survive_a_kill() {
    let requests = [
        json!({"steps": 60}),
        json!({"steps": 90, "guidance_scale": 1}),
        json!({"steps": 75, "guidance_scale": 7, "prompt_3": "a boat"}),
        json!({"steps": 65, "skip_guidance_layers": [1], "skip_layer_guidance_stop": 0.9}),
        json!({"steps": 40, "scheduler": "flow_heun", "n": 2}),
    ];
    survive_a_kill("Stable Diffusion 3.5: kill -9 in shared batches", "sd35", &requests).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn z_image_requests_share_batches_and_survive_a_kill() {
    let requests = [
        json!({"steps": 60}),
        json!({"steps": 90, "guidance_scale": 0}),
        json!({"steps": 75, "guidance_scale": 7, "cfg_normalization": true}),
        json!({"steps": 65, "guidance_scale": 3, "cfg_truncation": 0.5, "negative_prompt": "blurry"}),
    ];
    survive_a_kill("Z-Image: kill -9 in shared batches", "z-image", &requests).await;
}

/// The experiment with one model and requests of these fields, each with more than [`KILLED_AT`] steps.
async fn survive_a_kill(name: &'static str, model: &str, requests: &[Value]) {
    let site = Site::single(name).await;
    let (models, loras) = (site.folder.path().join("models"), site.folder.path().join("loras"));
    transformers::put_models(&[model], &models);
    transformers::put_loras(&loras);
    let site = site
        .with("LATENTD_MODELS__DIR", models.display())
        .with("LATENTD_LORAS__DIR", loras.display())
        .with("LATENTD_LOG__FORMAT", "json")
        .with("LATENTD_ENGINE__CHECKPOINT_INTERVAL_MS", 20)
        // The longest slice, so that also on a slow machine all runs take their steps together.
        .with("LATENTD_ENGINE__SLICE_MS", 1000);
    // Pictures differ by the fields of the requests alone, and files have no other content.
    let same = json!({
        "model": model, "prompt": format!("a red fox, {SECRET}"), "seed": 7, "width": 64, "height": 48,
        "max_sequence_length": 16, "output": {"metadata": "none"},
    });
    let bodies: Vec<Value> = requests.iter().map(|fields| with(same.clone(), fields)).collect();

    let first = site.start("all").await;
    site.open(&[&first]);
    let load = Load::through(site.door.url());
    let ids = load.submit_all("together", &bodies).await;
    first
        .until("all are in the middle, with a log", async |_: &Server| {
            let looks = futures::future::join_all(ids.iter().map(|id| load.look(id))).await;
            looks.into_iter().flatten().all(|look| look["progress"]["step"].as_u64() >= Some(KILLED_AT))
                && ids.iter().all(|id| has_log(&site, id))
        })
        .await;
    let batches = first.metric("latentd_batch_runs_count", "").await;
    let per_batch = first.metric("latentd_batch_runs_sum", "").await / batches;
    first.kill();
    assert!(per_batch > 1.5, "{per_batch} generations per batch in {batches} batches");

    let second = site.start("all").await;
    site.open(&[&second]);
    let mut pictures = Vec::new();
    for id in &ids {
        let generation = load.ended(id).await.unwrap();
        assert_eq!(
            (&generation["status"], &generation["attempt"]),
            (&json!("succeeded"), &json!(2)),
            "it was killed in the middle: {generation}"
        );
        pictures.push(drawn(&second, &generation).await);
    }
    let continued = logged(&second.launch(), "generation continues from its log");
    assert_eq!(BTreeSet::from_iter(&continued), BTreeSet::from_iter(&ids), "each one continues from its log");
    let (replayed, computed) = (second.metric(REPLAYED, "").await, second.metric(COMPUTED, "").await);

    let mut distinct = BTreeSet::new();
    for (number, (body, together)) in bodies.iter().zip(&pictures).enumerate() {
        let id = load.submit(&format!("alone-{number}"), body).await;
        let generation = load.ended(&id).await.unwrap();
        assert_eq!(generation["attempt"], 1, "{generation}");
        assert!(drawn(&second, &generation).await == *together, "alone it has other bytes: {body}");
        distinct.extend(together.iter().map(|file| decode(file).2));
    }
    let needed = second.metric(COMPUTED, "").await - computed;
    assert_eq!(replayed + computed, needed, "each row was computed here or replayed");
    let images: usize = pictures.iter().map(Vec::len).sum();
    assert_eq!(distinct.len(), images, "each field changes the picture");
    let figures = Figures::default()
        .note(format!("{per_batch:.2} generations per batch"))
        .note(format!("{replayed} of {needed} rows replayed"));
    site.verdict(&load, figures).await;
}

/// Whether a part of the log of a generation is stored.
fn has_log(site: &Site, id: &str) -> bool {
    let parts = files(&site.blobs.join("run").join(id));
    parts.iter().any(|path| !path.to_string_lossy().contains('#'))
}

/// The files of a generation.
async fn drawn(server: &Server, generation: &Value) -> Vec<Vec<u8>> {
    let count = generation["images"].as_array().unwrap().len();
    let id = generation["id"].as_str().unwrap();
    futures::future::join_all((0..count).map(|index| server.picture(id, index))).await
}
