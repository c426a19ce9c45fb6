//! Tests of `precision`: which pictures it changes, and by how much.

use std::{fs, process::Command};

use futures::future::join_all;
use serde_json::{Value, json};

use crate::{
    harness::{Server, decode, request, with},
    model_defaults::fixtures,
    parity_over_http::case,
};

/// What `latentd devices` says about fast precision.
fn report(setting: &str) -> (Value, Vec<Value>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
    command.args(["devices", "--json"]).env("LATENTD_KERNELS__FAST", setting);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    (report["fast"].clone(), report["errors"].as_array().unwrap().clone())
}

/// The units of this machine that multiply rounded numbers.
fn units() -> Vec<String> {
    let measured = report("auto").0["measured"].as_object().unwrap().clone();
    measured.into_iter().map(|(name, _)| name).filter(|name| name != "float32").collect()
}

/// Six requests that share batches.
fn bodies(precision: &str) -> Vec<Value> {
    let body = |i: u64| with(request("a red fox", 70 + i), &json!({"steps": 5 + i, "precision": precision}));
    (0..6).map(body).collect()
}

async fn drawn_together(server: &Server, bodies: &[Value]) -> Vec<Vec<u8>> {
    let ids = join_all(bodies.iter().map(|body| server.accept(body))).await;
    for id in &ids {
        assert_eq!(server.ended(id).await["status"], "succeeded");
    }
    join_all(ids.iter().map(|id| server.picture(id, 0))).await
}

/// The PSNR of two pictures in dB.
fn psnr(a: &[u8], b: &[u8]) -> f64 {
    let (a, b) = (decode(a).2, decode(b).2);
    let square = |(a, b): (&u8, &u8)| f64::from(a.abs_diff(*b)).powi(2);
    let error = a.iter().zip(&b).map(square).sum::<f64>() / a.len() as f64;
    10.0 * (255.0 * 255.0 / error).log10()
}

#[tokio::test]
async fn a_fast_picture_is_close_to_the_exact_one_and_the_same_in_every_batch() {
    for unit in units().iter().map(String::as_str).chain(["off"]) {
        let data = tempfile::tempdir().unwrap();
        let server = Server::start(data.path(), &[("LATENTD_KERNELS__FAST", unit)]).await;
        let (exact, fast) = (bodies("exact"), bodies("fast"));
        // Exact and fast requests run at the same time, in batches of their own.
        let pictures = drawn_together(&server, &[exact, fast.clone()].concat()).await;
        let (exact, together) = pictures.split_at(6);
        for ((exact, together), body) in exact.iter().zip(together).zip(&fast) {
            match unit {
                "off" => assert_eq!(decode(exact).2, decode(together).2, "without a unit, fast is exact"),
                unit => {
                    let psnr = psnr(exact, together);
                    assert!((35.0..80.0).contains(&psnr), "{unit}: {psnr} dB");
                }
            }
            let id = server.accept(body).await;
            server.ended(&id).await;
            assert!(server.picture(&id, 0).await == *together, "{unit}: another picture alone");
        }
    }
}

#[tokio::test]
async fn precision_is_named_in_answers_files_and_the_card_of_the_model() {
    let (data, models) = (tempfile::tempdir().unwrap(), case::models(&fixtures().join("parity"), &["sdxl"]));
    let own = models.path().join("sdxl/latentd.json");
    let set = |value: &Value| {
        let mut extras: Value = fs::read(&own).map_or(json!({}), |text| serde_json::from_slice(&text).unwrap());
        extras["precision"] = value.clone();
        fs::write(&own, extras.to_string()).unwrap();
    };
    set(&json!("fast"));
    let server = Server::start(data.path(), &[("LATENTD_MODELS__DIR", models.path().to_str().unwrap())]).await;
    let of_model = async |model: &str| {
        let model = server.json(&format!("/v1/models/{model}")).await;
        model["capabilities"]["default_precision"].clone()
    };
    assert_eq!((of_model("emoji").await, of_model("sdxl").await), (json!("exact"), json!("fast")));

    let body = json!({"prompt": "a", "steps": 2, "width": 64, "height": 64});
    for (more, precision, approximations) in [
        (json!({}), "exact", json!([])),
        (json!({"precision": "exact"}), "exact", json!([])),
        (json!({"precision": "fast"}), "fast", json!(["fast_precision"])),
        (json!({"model": "sdxl"}), "fast", json!(["fast_precision"])),
        (json!({"model": "sdxl", "precision": "exact"}), "exact", json!([])),
    ] {
        let id = server.accept(&with(body.clone(), &more)).await;
        let ended = server.ended(&id).await;
        assert_eq!(ended["params"]["precision"], precision, "{ended}");
        assert_eq!(ended["approximations"], approximations, "{more}");
        let file = server.picture(&id, 0).await;
        let names = |text: &str| file.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(names(&format!("\"precision\":\"{precision}\"")), "{more}");
        assert_eq!(names("Approximations: fast_precision"), precision == "fast", "{more}");
    }
    let refused = server.post(&with(body, &json!({"precision": "quick"}))).await;
    assert_eq!(refused.status(), 422);
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["errors"][0]["pointer"], "/precision");
    assert!(problem["errors"][0]["detail"].as_str().unwrap().contains("exact"), "{problem}");

    set(&json!("quick"));
    server.hang_up();
    server
        .until("the wrong value is found", async |server: &Server| {
            let error = server.json("/v1/models/sdxl").await["error"].clone();
            error.as_str().is_some_and(|error| error.contains("precision") && error.contains("quick"))
        })
        .await;
}

#[test]
fn the_choice_is_measured_or_fixed_by_a_setting() {
    let (measured, errors) = report("auto");
    assert_eq!(errors, [] as [Value; 0]);
    let speeds = measured["measured"].as_object().unwrap();
    let chosen = measured["computes_with"].as_str().unwrap();
    assert!(speeds[chosen].as_f64() >= speeds["float32"].as_f64(), "{measured}");
    assert_eq!(report("off").0["computes_with"], "float32");
    for unit in ["amx", "avx512_bf16"] {
        let (fast, errors) = report(unit);
        match speeds.contains_key(unit) {
            true => assert_eq!((fast["computes_with"].as_str(), errors.len()), (Some(unit), 0)),
            false => assert!(errors[0].as_str().unwrap().contains("kernels.fast"), "{errors:?}"),
        }
    }
}

#[test]
fn an_unknown_unit_is_refused_with_the_possible_values() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
    let output = command.args(["devices"]).env("LATENTD_KERNELS__FAST", "sse").output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("kernels.fast") && error.contains("avx512_bf16"), "{error}");
}
