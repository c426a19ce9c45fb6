//! Tests of models that do not all fit into memory, and of model files that change or break.

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    harness::{Server, with},
    parity_over_http::case,
};

const THREE: [&str; 3] = ["sd1", "sd2", "ip2p"];

fn folders() -> tempfile::TempDir {
    case::models(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity"), &THREE)
}

/// Starts a server with the models of a folder and this value of `models.max_bytes`.
async fn start(data: &Path, models: &Path, max_bytes: u64, more: &[(&str, &str)]) -> Server {
    let max_bytes = max_bytes.to_string();
    let own = [
        ("LATENTD_MODELS__DIR", models.to_str().unwrap()),
        ("LATENTD_MODELS__DEFAULT", "sd1"),
        ("LATENTD_MODELS__MAX_BYTES", &max_bytes),
    ];
    Server::start(data, &[&own, more].concat()).await
}

async fn bytes(server: &Server, model: &str) -> u64 {
    server.json(&format!("/v1/models/{model}")).await["bytes"].as_u64().unwrap()
}

async fn state(server: &Server, model: &str) -> String {
    server.json(&format!("/v1/models/{model}")).await["state"].as_str().unwrap().to_owned()
}

/// A request for a small picture from one of the three models.
fn body(model: &str, seed: u64) -> Value {
    let body =
        json!({"model": model, "prompt": "a red fox", "seed": seed, "steps": 3, "scheduler": "euler", "size": "64x64"});
    match model {
        "ip2p" => with(body, &json!({"image": {"b64": STANDARD.encode(gray_picture())}})),
        _ => body,
    }
}

fn gray_picture() -> Vec<u8> {
    let mut file = Vec::new();
    let encoder = png::Encoder::new(&mut file, 64, 64);
    encoder.write_header().unwrap().write_image_data(&[120; 64 * 64]).unwrap();
    file
}

/// A request that runs until it is canceled.
fn endless(model: &str) -> Value {
    with(body(model, 1), &json!({"steps": 1000, "n": 8, "size": "128x128"}))
}

async fn until_denoising(server: &Server, id: &str) {
    server
        .until("the generation denoises", async |server: &Server| {
            server.json(&format!("/v1/images/{id}")).await["progress"]["step"].as_u64().is_some_and(|step| step > 0)
        })
        .await;
}

async fn is_loading(server: &Server, id: &str) -> bool {
    server.json(&format!("/v1/images/{id}")).await["progress"]["phase"] == "loading"
}

async fn cancel(server: &Server, id: &str) -> Value {
    let url = server.url(&format!("/v1/images/{id}/cancel"));
    assert!(server.client.post(url).send().await.unwrap().status().is_success());
    server.ended(id).await
}

/// Sends all requests at once. Returns the pictures in the order of the requests, and the peak memory of models in
/// bytes.
async fn pictures(server: &Server, bodies: &[Value]) -> (Vec<Vec<u8>>, f64) {
    let ids = join_all(bodies.iter().map(|body| server.accept(body))).await;
    let mut most: f64 = 0.0;
    let watched = async {
        loop {
            most = most.max(server.metric("latentd_model_bytes", "").await);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let drawn = async {
        let ended = join_all(ids.iter().map(|id| server.ended(id))).await;
        for generation in &ended {
            assert_eq!(generation["status"], "succeeded", "{generation}");
        }
        join_all(ids.iter().map(|id| server.picture(id, 0))).await
    };
    let pictures = tokio::select! {
        () = watched => unreachable!("the loop never ends"),
        pictures = drawn => pictures,
    };
    (pictures, most)
}

#[tokio::test]
async fn sixty_requests_for_three_models_get_the_same_pictures_whether_or_not_all_fit() {
    let models = folders();
    let bodies: Vec<Value> = (0..60).map(|i| body(THREE[i % 3], i as u64)).collect();

    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), models.path(), 0, &[("LATENTD_MODELS__PRELOAD", "sd2,ip2p")]).await;
    for model in THREE {
        assert_eq!(state(&server, model).await, "ready", "{model} is not loaded although the server is ready");
    }
    let (expected, all) = pictures(&server, &bodies).await;
    let sizes = [bytes(&server, "sd1").await, bytes(&server, "sd2").await, bytes(&server, "ip2p").await];
    assert_eq!(all as u64, sizes.iter().sum::<u64>());
    assert_eq!(server.metric("latentd_model_unloads_total", "").await, 0.0);
    drop(server);

    // First two models fit into memory, then one.
    for bound in [sizes.iter().sum::<u64>() - 1, *sizes.iter().max().unwrap()] {
        let data = tempfile::tempdir().unwrap();
        let server = start(data.path(), models.path(), bound, &[]).await;
        let (drawn, most) = pictures(&server, &bodies).await;
        assert!(drawn == expected, "the pictures depend on what is in memory");
        assert!(most > 0.0 && most <= bound as f64, "{most} bytes of {bound}");
        assert!(server.metric("latentd_model_unloads_total", "").await > 0.0);
        assert_eq!(server.metric("latentd_model_loads_total", "failed").await, 0.0);
        let loads = server.metric("latentd_model_loads_total", "").await;
        // One load per request would mean that requests for the same model do not share a load.
        assert!((3.0..30.0).contains(&loads), "{loads} loads");
        let timed = server.metric("latentd_model_load_seconds_count", "").await;
        assert_eq!(timed, loads, "each load is timed");
    }
}

#[tokio::test]
async fn a_model_in_use_stays_and_waiting_for_its_room_blocks_no_other_generation() {
    let (models, data) = (folders(), tempfile::tempdir().unwrap());
    let few = [("LATENTD_ENGINE__MAX_RUNS", "2")];
    let server = start(data.path(), models.path(), 1, &few).await;
    let long = server.accept(&endless("sd1")).await;
    until_denoising(&server, &long).await;

    let waiting = [server.accept(&body("sd2", 1)).await, server.accept(&body("ip2p", 1)).await];
    for id in &waiting {
        server.until("it waits for its model", async |server: &Server| is_loading(server, id).await).await;
    }
    // One of the two slots computes. Generations that wait for a model occupy no slot, so the loaded model can draw.
    let other = server.ended(&server.accept(&body("sd1", 2)).await).await;
    assert_eq!(other["status"], "succeeded", "{other}");
    for id in &waiting {
        assert!(is_loading(&server, id).await);
    }
    assert_eq!(state(&server, "sd1").await, "ready");
    assert_eq!(server.metric("latentd_model_unloads_total", "").await, 0.0);

    let canceled = cancel(&server, &waiting[0]).await;
    assert_eq!(canceled["status"], "canceled");
    assert_eq!(
        server.json(&format!("/v1/images/{long}")).await["status"],
        "running",
        "the long generation did not wait for the canceled one"
    );
    cancel(&server, &long).await;
    assert_eq!(server.ended(&waiting[1]).await["status"], "succeeded");
    assert_eq!((state(&server, "sd1").await, state(&server, "ip2p").await), ("cold".to_owned(), "ready".to_owned()));
}

#[tokio::test]
async fn waiting_too_long_for_room_fails_and_a_stop_requeues_waiting_generations() {
    let (models, data) = (folders(), tempfile::tempdir().unwrap());
    let server = start(data.path(), models.path(), 1, &[]).await;
    let long = server.accept(&endless("sd1")).await;
    until_denoising(&server, &long).await;
    let hasty = server.accept(&with(body("sd2", 1), &json!({"start_timeout_s": 1}))).await;
    let hasty = server.ended(&hasty).await;
    assert_eq!((&hasty["status"], &hasty["error"]["code"]), (&json!("failed"), &json!("overloaded")), "{hasty}");
    assert_eq!(hasty["error"]["retryable"], true);

    let patient = server.accept(&body("sd2", 2)).await;
    server.until("it waits for its model", async |server: &Server| is_loading(server, &patient).await).await;
    assert!(server.terminate().success());
    let server = start(data.path(), models.path(), 0, &[]).await;
    assert_eq!(server.ended(&patient).await["status"], "succeeded");
    cancel(&server, &long).await;
}

#[tokio::test]
async fn broken_folders_fail_only_their_own_requests() {
    let (models, data) = (folders(), tempfile::tempdir().unwrap());
    // One model has an invalid configuration, another has truncated weights.
    std::fs::write(models.path().join("ip2p/unet/config.json"), "{").unwrap();
    let weights = models.path().join("sd2/unet/diffusion_pytorch_model.safetensors");
    let sound = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &sound[..sound.len() / 2]).unwrap();
    let server = start(data.path(), models.path(), 1, &[("LATENTD_MODELS__POLL_INTERVAL_S", "1")]).await;

    for (model, reason) in [("ip2p", "unet/config.json"), ("sd2", "unet/diffusion_pytorch_model.safetensors")] {
        let refused = server.post(&body(model, 1)).await;
        assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let refused: Value = refused.json().await.unwrap();
        assert_eq!(refused["code"], "model_unavailable", "{refused}");
        let listed = server.json(&format!("/v1/models/{model}")).await;
        assert_eq!((&listed["state"], &listed["capabilities"]), (&json!("failed"), &Value::Null), "{listed}");
        assert!(listed["error"].as_str().unwrap().contains(reason), "{listed}");
        assert!(refused["errors"][0]["detail"].as_str().unwrap().contains(reason), "{refused}");
    }
    let whole = server.accept(&body("sd1", 1)).await;
    assert_eq!(server.ended(&whole).await["status"], "succeeded");

    // The server polls the folder and notices the repair.
    std::fs::write(&weights, &sound).unwrap();
    server.until("it is repaired", async |server: &Server| state(server, "sd2").await == "cold").await;
    assert_eq!(server.ended(&server.accept(&body("sd2", 1)).await).await["status"], "succeeded");
    assert_eq!(state(&server, "sd2").await, "ready");
}

/// Only the load finds weights that are not finite. It is not tried again with the same files.
#[tokio::test]
async fn a_model_that_cannot_be_loaded_is_refused_from_then_on() {
    let (models, data) = (folders(), tempfile::tempdir().unwrap());
    let weights = models.path().join("sd2/unet/diffusion_pytorch_model.safetensors");
    let sound = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, [&sound[..sound.len() - 4], &f32::NAN.to_le_bytes()].concat()).unwrap();
    let server = start(data.path(), models.path(), 0, &[("LATENTD_MODELS__POLL_INTERVAL_S", "1")]).await;
    for _ in 0..2 {
        let ended = server.ended(&server.accept(&body("sd2", 1)).await).await;
        assert_eq!(ended["error"]["code"], "model_unavailable", "{ended}");
        let listed = server.json("/v1/models/sd2").await;
        let reason = listed["error"].as_str().unwrap();
        assert!(listed["state"] == "failed" && reason.contains("NaN"), "{listed}");
        assert!(ended["error"]["message"].as_str().unwrap().contains(reason), "{ended}");
        let refused = server.post(&body("sd2", 2)).await;
        assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let refused: Value = refused.json().await.unwrap();
        assert_eq!(refused["code"], "model_unavailable", "{refused}");
        assert!(refused["errors"][0]["detail"].as_str().unwrap().contains(reason), "{refused}");
        server.hang_up();
        server.until("it is tried again", async |server: &Server| state(server, "sd2").await == "cold").await;
    }
    let ended = server.ended(&server.accept(&body("sd2", 1)).await).await;
    assert_eq!(ended["status"], "failed", "{ended}");
    std::fs::write(&weights, &sound).unwrap();
    server.until("it is repaired", async |server: &Server| state(server, "sd2").await == "cold").await;
    assert_eq!(server.ended(&server.accept(&body("sd2", 1)).await).await["status"], "succeeded");
}

/// Truncates, overwrites, empties and removes files of models that are in use.
#[tokio::test]
async fn the_server_survives_changes_of_model_files() {
    let (models, data) = (folders(), tempfile::tempdir().unwrap());
    let nets = tempfile::tempdir().unwrap();
    let canny = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity/controlnets/canny");
    let net = nets.path().join("one.safetensors");
    std::fs::copy(canny.join("diffusion_pytorch_model.safetensors"), &net).unwrap();
    let mut config: Value = serde_json::from_slice(&std::fs::read(canny.join("config.json")).unwrap()).unwrap();
    config.as_object_mut().unwrap().retain(|key, _| !key.starts_with('_'));
    std::fs::write(nets.path().join("one.json"), json!({"controlnet": config}).to_string()).unwrap();
    let quiet = [("LATENTD_MODELS__POLL_INTERVAL_S", "0"), ("LATENTD_CONTROLNETS__DIR", nets.path().to_str().unwrap())];
    let server = start(data.path(), models.path(), 1, &quiet).await;
    let long = server.accept(&endless("sd1")).await;
    until_denoising(&server, &long).await;
    // Both wait for the memory of the model in use.
    let waiting = [server.accept(&body("sd2", 1)).await, server.accept(&body("ip2p", 1)).await];

    let whole = std::fs::read(&net).unwrap();
    let files = |model: &str| models.path().join(model).join("unet/diffusion_pytorch_model.safetensors");
    std::fs::write(&net, &whole[..whole.len() / 2]).unwrap();
    std::fs::write(files("sd1"), b"short").unwrap();
    std::fs::write(files("sd2"), b"").unwrap();
    std::fs::remove_file(files("ip2p")).unwrap();
    let picture = json!({"b64": STANDARD.encode(gray_picture())});
    let control = json!({"controls": [{"model": "one", "image": picture}]});
    let steered = server.accept(&with(body("sd1", 1), &control)).await;
    let ended = server.ended(&steered).await;
    assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("failed"), &json!("model_unavailable")), "{ended}");
    assert!(ended["error"]["message"].as_str().unwrap().contains("changed"), "{ended}");
    assert_eq!(ended["error"]["retryable"], true, "{ended}");
    cancel(&server, &long).await;
    for id in &waiting {
        let ended = server.ended(id).await;
        assert_eq!(ended["error"]["code"], "model_unavailable", "{ended}");
    }
    // On SIGHUP the server reads the folders again, and then refuses requests for broken models.
    server.hang_up();
    server
        .until("it has read", async |server: &Server| {
            let listed = server.json("/v1/models/ip2p").await;
            listed["state"] == "failed" && listed["error"].as_str().unwrap().contains("no such file")
        })
        .await;
    assert_eq!(server.post(&body("sd2", 1)).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
}

/// If a model is replaced after a request was accepted and before its generation begins, the new model draws.
#[tokio::test]
async fn a_model_replaced_before_a_generation_begins_is_listed_again() {
    let (models, data) = (folders(), tempfile::tempdir().unwrap());
    let server = start(data.path(), models.path(), 1, &[("LATENTD_MODELS__POLL_INTERVAL_S", "0")]).await;
    let long = server.accept(&endless("sd1")).await;
    until_denoising(&server, &long).await;
    let waiting = server.accept(&body("sd2", 1)).await;
    let is_claimed = async |server: &Server| server.json(&format!("/v1/images/{waiting}")).await["status"] == "running";
    server.until("it is claimed", is_claimed).await;
    let (unet, new) = (models.path().join("sd2/unet/diffusion_pytorch_model.safetensors"), models.path().join("new"));
    std::fs::copy(&unet, &new).unwrap();
    std::fs::rename(&new, &unet).unwrap();
    cancel(&server, &long).await;
    let ended = server.ended(&waiting).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
}
