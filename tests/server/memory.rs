//! Tests of memory bounds: a request that cannot fit is refused before any work, and one that does not fit now waits.

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    harness::{Server, request, with},
    parity_over_http::case,
};

const MAX_BYTES: (&str, &str) = ("LATENTD_ENGINE__MAX_BYTES", "200000000");

#[tokio::test]
async fn too_large_requests_are_refused_with_field_and_bound() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[MAX_BYTES]).await;
    for (side, n, pointer) in [(2048, 1, "/width"), (2048, 8, "/width"), (608, 8, "/n")] {
        let refused = server
            .post(&with(request("a panda", 1), &json!({"width": side, "height": side, "n": n, "steps": 2})))
            .await;
        assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let problem: serde_json::Value = refused.json().await.unwrap();
        let error = &problem["errors"][0];
        assert_eq!((&error["pointer"], &error["code"]), (&pointer.into(), &"out_of_range".into()), "{problem}");
        assert!(error["detail"].as_str().unwrap().contains("engine.max_bytes is 191 MiB"), "{problem}");
    }
    assert_eq!(server.json("/v1/images").await["data"], json!([]), "nothing was accepted");
    let fits = server.accept(&with(request("a panda", 1), &json!({"width": 608, "height": 608, "steps": 1}))).await;
    assert_eq!(server.ended(&fits).await["status"], "succeeded");
}

#[tokio::test]
async fn generations_that_do_not_fit_together_wait_and_succeed() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[MAX_BYTES]).await;
    let large = json!({"width": 512, "height": 512, "n": 4, "steps": 1, "guidance_scale": 1});
    let mut ids = Vec::new();
    for seed in 0..4 {
        ids.push(server.accept(&with(request("a panda", seed), &large)).await);
    }
    ids.push(server.accept(&request("a small one", 9)).await);
    for id in &ids {
        assert_eq!(server.ended(id).await["status"], "succeeded");
    }
}

/// A generation waits at most its `start_timeout_s` for the memory of ControlNets that others use.
#[tokio::test]
async fn a_generation_whose_control_nets_find_no_memory_in_time_fails() {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity");
    let (data, nets) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let models = case::models(&fixtures, &["sd1"]);
    copy_canny(&fixtures, nets.path(), &["a", "b"]);
    let file = std::fs::read(fixtures.join("controlnets/canny/diffusion_pytorch_model.safetensors")).unwrap();
    let room = (3 * bytes_in_memory(&file) / 2).to_string();
    let settings = [
        ("LATENTD_MODELS__DIR", models.path().to_str().unwrap()),
        ("LATENTD_MODELS__DEFAULT", "sd1"),
        ("LATENTD_CONTROLNETS__DIR", nets.path().to_str().unwrap()),
        ("LATENTD_CONTROLNETS__MAX_BYTES", &room),
    ];
    let server = Server::start(data.path(), &settings).await;
    server.is_ready().await;
    let edges = json!({"b64": STANDARD.encode(std::fs::read(fixtures.join("inputs/edges_64.png")).unwrap())});
    let body = |net: &str, steps: u32, start_timeout_s: u32| {
        let own =
            json!({"controls": [{"model": net, "image": edges}], "steps": steps, "start_timeout_s": start_timeout_s});
        with(with(request("a panda", 1), &json!({"width": 64, "height": 64, "n": 8})), &own)
    };
    let long = server.accept(&body("a", 800, 600)).await;
    server
        .until("it uses its ControlNet", async |server: &Server| {
            server.metric("latentd_control_net_bytes", "").await > 0.0
        })
        .await;
    let late = server.accept(&body("b", 1, 1)).await;
    let failed = server.ended(&late).await;
    assert_eq!(
        (&failed["error"]["code"], &failed["error"]["retryable"]),
        (&json!("overloaded"), &json!(true)),
        "{failed}"
    );
    assert!(failed["error"]["message"].as_str().unwrap().contains("ControlNets"), "{failed}");
    assert_eq!(server.json(&format!("/v1/images/{long}")).await["status"], "running");
}

fn copy_canny(fixtures: &Path, to: &Path, names: &[&str]) {
    let canny = fixtures.join("controlnets/canny");
    for name in names {
        std::fs::create_dir(to.join(name)).unwrap();
        for file in ["config.json", "diffusion_pytorch_model.safetensors"] {
            std::fs::copy(canny.join(file), to.join(name).join(file)).unwrap();
        }
    }
}

/// A small form of `benches/memory.py`: many of the largest requests at once, with more ControlNets together than fit
/// their bound. Each is refused with the figures, or succeeds; the server answers meanwhile; and its memory grows by at
/// most what is planned, and a tenth.
#[tokio::test]
async fn many_of_the_largest_requests_at_once_stay_within_the_plan() {
    const ENGINE: u64 = 160 << 20;
    const SIDE: u32 = 512;
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity");
    let (data, nets) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let models = case::models(&fixtures, &["sd1"]);
    let canny = fixtures.join("controlnets/canny");
    copy_canny(&fixtures, nets.path(), &["a", "b", "c", "d"]);
    // Room for two networks and a half.
    let file = std::fs::read(canny.join("diffusion_pytorch_model.safetensors")).unwrap();
    let control_nets = 5 * bytes_in_memory(&file) / 2;
    let settings = [
        ("LATENTD_MODELS__DIR", models.path().to_str().unwrap().to_owned()),
        ("LATENTD_MODELS__DEFAULT", "sd1".to_owned()),
        ("LATENTD_CONTROLNETS__DIR", nets.path().to_str().unwrap().to_owned()),
        ("LATENTD_CONTROLNETS__MAX_BYTES", control_nets.to_string()),
        ("LATENTD_ENGINE__MAX_BYTES", ENGINE.to_string()),
        ("LATENTD_TENANTS__MAX_QUEUED", "100".to_owned()),
    ];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let server = Server::start(data.path(), &settings).await;
    server.is_ready().await;
    let at_rest = server.resident_bytes();

    let edges = json!({"b64": STANDARD.encode(std::fs::read(fixtures.join("inputs/edges_64.png")).unwrap())});
    let body = |number: u64| {
        let nets: &[&str] =
            [&["a", "b", "c", "d"][..], &["a", "b"], &["c", "d"], &["b", "c"], &[]][number as usize % 5];
        let controls: Vec<Value> = nets.iter().map(|net| json!({"model": net, "image": edges})).collect();
        let size = json!({"width": SIDE, "height": SIDE, "n": 8, "steps": 1, "guidance_scale": 1});
        let body = with(request("a panda", number), &size);
        if controls.is_empty() { body } else { with(body, &json!({"controls": controls})) }
    };
    let (server, body) = (&server, &body);
    let send = |number: u64| async move {
        let answer = server.post(&body(number)).await;
        let (status, answer): (StatusCode, Value) = (answer.status(), answer.json().await.unwrap());
        if status == StatusCode::ACCEPTED {
            return Some(answer["id"].as_str().unwrap().to_owned());
        }
        assert_eq!((status, number % 5), (StatusCode::UNPROCESSABLE_ENTITY, 0), "{answer}");
        let error = &answer["errors"][0];
        assert_eq!((&error["pointer"], &error["code"]), (&json!("/controls"), &json!("out_of_range")), "{answer}");
        assert!(error["detail"].as_str().unwrap().contains("controlnets.max_bytes is"), "{answer}");
        None
    };
    let accepted: Vec<String> = join_all((0..15).map(send)).await.into_iter().flatten().collect();
    assert_eq!(accepted.len(), 12);
    let (mut most, mut most_nets) = (0, 0.0f64);
    let mut left = accepted.clone();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(900);
    while let Some(id) = left.last() {
        assert!(std::time::Instant::now() < deadline, "{} generations do not end", left.len());
        assert_eq!(server.get("/health").await.status(), StatusCode::OK);
        most = most.max(server.resident_bytes());
        most_nets = most_nets.max(server.metric("latentd_control_net_bytes", "").await);
        let generation = server.json(&format!("/v1/images/{id}")).await;
        match generation["status"].as_str().unwrap() {
            "queued" | "running" => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            status => {
                assert_eq!(status, "succeeded", "{generation}");
                left.pop();
            }
        }
    }
    assert!(0.0 < most_nets && most_nets <= control_nets as f64, "{most_nets} bytes of ControlNets");
    let (grown, planned) = (most.saturating_sub(at_rest), ENGINE + control_nets);
    assert!(grown <= planned + planned / 10, "the memory has grown by {grown} bytes, {planned} were planned");
    let plan = server.metric("latentd_memory_plan_bytes", "").await;
    assert!(most as f64 <= 1.1 * plan, "{most} bytes, the plan is {plan}");
}

/// The bytes of a small network in memory by its file: all numbers as float32.
fn bytes_in_memory(file: &[u8]) -> u64 {
    let header = u64::from_le_bytes(file[..8].try_into().unwrap());
    let tensors: Value = serde_json::from_slice(&file[8..8 + header as usize]).unwrap();
    let tensors = tensors.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__");
    let sides = |tensor: &Value| tensor["shape"].as_array().unwrap().clone();
    tensors.map(|(_, tensor)| 4 * sides(tensor).iter().map(|side| side.as_u64().unwrap()).product::<u64>()).sum()
}
