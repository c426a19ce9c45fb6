//! Tests of requests with ControlNets, LoRAs, textual inversions, pictures and masks that share the batches of one
//! model.

use std::path::PathBuf;

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::{
    harness::{Server, request, with},
    parity_over_http::case,
};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity")
}

fn picture(name: &str) -> Value {
    let file = std::fs::read(fixtures().join("inputs").join(name)).unwrap();
    json!({"b64": STANDARD.encode(file)})
}

/// Starts a server with a small model of the fixtures and its add-ons; also returns the temporary folders that it
/// reads.
async fn server(settings: &[(&str, &str)]) -> (Server, [tempfile::TempDir; 3]) {
    server_of(case::models(&fixtures(), &["sd1"]), settings).await
}

/// As [`server`], with these models.
async fn server_of(models: tempfile::TempDir, settings: &[(&str, &str)]) -> (Server, [tempfile::TempDir; 3]) {
    let data = tempfile::tempdir().unwrap();
    let embeddings = case::embeddings(&fixtures());
    let (loras, control_nets) = (fixtures().join("adapters"), fixtures().join("controlnets"));
    let folders = [
        ("LATENTD_MODELS__DIR", models.path().to_str().unwrap()),
        ("LATENTD_MODELS__DEFAULT", "sd1"),
        ("LATENTD_EMBEDDINGS__DIR", embeddings.path().to_str().unwrap()),
        ("LATENTD_LORAS__DIR", loras.to_str().unwrap()),
        ("LATENTD_CONTROLNETS__DIR", control_nets.to_str().unwrap()),
    ];
    let server = Server::start(data.path(), &[&folders, settings].concat()).await;
    (server, [data, models, embeddings])
}

/// A request for a picture of 64 × 64 pixels.
fn small(seed: u64, more: &Value) -> Value {
    with(with(request("a red fox", seed), &json!({"size": "64x64", "steps": 12})), more)
}

fn mixed() -> Vec<Value> {
    let control = |more: Value| with(json!({"model": "canny", "image": picture("edges_64.png")}), &more);
    [
        json!({}),
        json!({"image": picture("init_64.png"), "strength": 0.9}),
        json!({"image": picture("init_64.png"), "mask": picture("mask_64.png")}),
        json!({"controls": [control(json!({"scale": 0.8}))]}),
        json!({"controls": [control(json!({"guess_mode": true, "end": 0.5, "preprocess": "canny"}))], "scheduler": "euler_a"}),
        json!({"loras": [{"name": "sd1_kohya", "scale": 0.7}]}),
        json!({"prompt": "a fox <lora:sd1_peft:0.5>", "guidance_scale": 1}),
        json!({"loras": [{"name": "sd1_kohya_locon"}, {"name": "sd1_peft", "scale": -0.3}], "scheduler": "heun"}),
        json!({"prompt": "a photo of <mug> on a table", "negative_prompt": "<one>"}),
        json!({"prompt": "a (red:1.4) fox BREAK in the [snow]", "prompt_syntax": "weighted"}),
    ]
    .iter()
    .enumerate()
    .map(|(i, more)| small(40 + i as u64, more))
    .collect()
}

#[tokio::test]
async fn requests_of_every_kind_share_batches_and_draw_the_same_pictures_as_alone() {
    let (server, _folders) = server(&[("LATENTD_ENGINE__MAX_ROWS", "64")]).await;
    // A longer generation runs while the requests arrive, so that their rows are batched together.
    let first = server.accept(&small(1, &json!({"steps": 60, "n": 8}))).await;
    let ids = join_all(mixed().iter().map(|body| server.accept(body))).await;
    let ended = join_all(ids.iter().map(|id| server.ended(id))).await;
    for generation in &ended {
        assert_eq!(generation["status"], "succeeded", "{generation}");
    }
    server.ended(&first).await;
    let calls = server.metric("latentd_batch_runs_count", "").await;
    let runs = server.metric("latentd_batch_runs_sum", "").await;
    assert!(runs > 1.5 * calls, "{runs} runs in {calls} calls: batches hold more than one generation");

    for (body, (id, ended)) in mixed().iter().zip(ids.iter().zip(&ended)) {
        let alone = server.accept(body).await;
        server.ended(&alone).await;
        let picture = server.picture(id, 0).await;
        assert!(server.picture(&alone, 0).await == picture, "{}", ended["params"]);
        let again = server.accept(&ended["params"]).await;
        server.ended(&again).await;
        assert!(server.picture(&again, 0).await == picture, "again from {}", ended["params"]);
    }
}

/// The model is loaded once, and memory does not grow with the number of requests.
#[tokio::test]
async fn alternating_lora_and_plain_requests_load_the_model_once() {
    let (server, _folders) = server(&[]).await;
    let lora = json!({"loras": [{"name": "sd1_kohya", "scale": 0.7}], "steps": 2});
    let bodies = [small(3, &json!({"steps": 2})), small(3, &lora)];
    let mut wanted: [Option<Vec<u8>>; 2] = [None, None];
    let mut memory = Vec::new();
    for i in 0..100 {
        let id = server.accept(&bodies[i % 2]).await;
        let ended = server.ended(&id).await;
        assert_eq!(ended["status"], "succeeded", "{ended}");
        let picture = server.picture(&id, 0).await;
        assert!(*wanted[i % 2].get_or_insert_with(|| picture.clone()) == picture, "request {i}");
        memory.push(server.resident_bytes());
    }
    assert!(wanted[0] != wanted[1], "the LoRA changed nothing");
    assert_eq!(server.metric("latentd_model_loads_total", "").await, 1.0, "the model was loaded once");
    let (early, late) = (memory[20..40].iter().max().unwrap(), memory[80..].iter().max().unwrap());
    println!("resident bytes after 20 to 40 requests: {early}, after 80 to 100: {late}");
    assert!(late - early.min(late) < 24 << 20, "{early} bytes became {late}");
}

#[tokio::test]
async fn unusable_add_ons_and_fields_are_refused_before_any_work() {
    let (server, _folders) = server(&[]).await;
    let edges = picture("edges_64.png");
    for (more, pointer, code) in [
        (json!({"loras": [{"name": "none"}]}), "/loras/0/name", "unknown_lora"),
        (json!({"loras": [{"name": "sd1_peft", "scale": 9}]}), "/loras/0/scale", "out_of_range"),
        (json!({"prompt": "a fox <lora:none>"}), "/prompt", "unknown_lora"),
        (json!({"loras": [{"name": "emoji-lcm"}]}), "/loras/0/name", "unsupported_for_model"),
        (json!({"prompt": "a fox <lora:sd1_kohya>", "model": "emoji"}), "/prompt", "unsupported_for_model"),
        (json!({"controls": [{"model": "none", "image": edges}]}), "/controls/0/model", "unknown_controlnet"),
        (json!({"controls": [{"model": "canny"}]}), "/controls/0/image", "required"),
        (json!({"controls": [{"model": "canny", "image": edges, "scale": 2.5}]}), "/controls/0/scale", "out_of_range"),
        (
            json!({"controls": [{"model": "canny", "image": edges, "start": 0.5, "end": 0.5}]}),
            "/controls/0/start",
            "out_of_range",
        ),
        (
            json!({"controls": [{"model": "canny", "image": edges}], "model": "emoji"}),
            "/controls/0/model",
            "unsupported_for_model",
        ),
        (json!({"prompt_2": "a fox"}), "/prompt_2", "unsupported_for_model"),
        (json!({"original_size": [64, 64]}), "/original_size", "unsupported_for_model"),
        (json!({"refiner": {"model": "sd1"}}), "/refiner/model", "unsupported_for_model"),
        (json!({"refiner": {"model": "none", "switch_at": 1}}), "/refiner/switch_at", "out_of_range"),
        (json!({"prompt_syntax": "fancy"}), "/prompt_syntax", "invalid_value"),
    ] {
        let body = with(with(request("a red fox", 1), &json!({"size": "64x64"})), &more);
        let response = server.post(&body).await;
        assert_eq!(response.status(), 422, "{more}");
        let problem: Value = response.json().await.unwrap();
        let found = problem["errors"].as_array().unwrap().iter();
        assert!(
            found.clone().any(|error| error["pointer"] == pointer && error["code"] == code),
            "{pointer}: {problem}"
        );
    }
    let catalogue = server.json("/v1/controlnets").await;
    let canny = catalogue["data"].as_array().unwrap().iter().find(|net| net["name"] == "canny").unwrap();
    assert_eq!((&canny["object"], &canny["error"]), (&json!("controlnet"), &Value::Null));
    let loras = server.json("/v1/loras").await;
    assert!(loras["data"].as_array().unwrap().iter().any(|lora| lora["name"] == "sd1_kohya"));
}

/// The guidance scale is an input of such a U-Net, but ControlNets do not have this input.
#[tokio::test]
async fn a_latent_consistency_model_draws_with_a_control_net() {
    let models = case::models(&fixtures(), &["sd1"]);
    let unet = models.path().join("sd1/unet");
    let read = |name: &str| std::fs::read(unet.join(name)).unwrap();
    let mut config: Value = serde_json::from_slice(&read("config.json")).unwrap();
    let width = config["block_out_channels"][0].as_u64().unwrap() as usize;
    config["time_cond_proj_dim"] = json!(4);
    std::fs::write(unet.join("config.json"), config.to_string()).unwrap();
    let weights = unet.join("diffusion_pytorch_model.safetensors");
    let mut tensors = candle_core::safetensors::load(&weights, &candle_core::Device::Cpu).unwrap();
    let projection = candle_core::Tensor::ones((width, 4), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
    tensors.insert("time_embedding.cond_proj.weight".to_owned(), projection);
    candle_core::safetensors::save(&tensors, &weights).unwrap();

    let (server, _folders) = server_of(models, &[]).await;
    let control = json!([{"model": "canny", "image": picture("edges_64.png")}]);
    let mut pictures = Vec::new();
    for more in [json!({}), json!({"controls": control}), json!({"controls": control, "guidance_scale": 3})] {
        let id = server.accept(&with(request("a red fox", 1), &more)).await;
        let ended = server.ended(&id).await;
        assert_eq!(ended["status"], "succeeded", "{ended}");
        pictures.push(server.picture(&id, 0).await);
    }
    assert!(pictures[0] != pictures[1] && pictures[1] != pictures[2]);
}
