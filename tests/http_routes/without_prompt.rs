//! Tests of requests for models that draw without a prompt.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::api::{TestApi, post};

fn pipelines() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity/pipelines")
}

async fn api(models: &Path) -> TestApi {
    TestApi::open(&[("models.dir", models.to_str().unwrap())]).await
}

/// Creates a generation; returns the answer.
async fn accepted(api: &TestApi, body: &Value) -> Value {
    let answer = api.ask(post(body, &[])).await;
    assert_eq!(answer.status, 202, "{body} {}", answer.text());
    answer.json()
}

/// The pointers, codes and details of the errors of a refused request.
async fn errors(api: &TestApi, body: &Value) -> Vec<(String, String, String)> {
    let answer = api.ask(post(body, &[])).await;
    assert_eq!(answer.status, 422, "{body} {}", answer.text());
    let text = |error: &Value, key: &str| error[key].as_str().unwrap().to_owned();
    let errors = answer.json()["errors"].as_array().unwrap().clone();
    errors.iter().map(|error| (text(error, "pointer"), text(error, "code"), text(error, "detail"))).collect()
}

#[tokio::test]
async fn fields_that_need_a_prompt_are_refused_by_name() {
    let api = api(&pipelines()).await;
    for (field, value) in [
        ("prompt", json!("a fox")),
        ("negative_prompt", json!("blurry")),
        ("prompt_syntax", json!("weighted")),
        ("guidance_scale", json!(5)),
        ("guidance_interval", json!([0.1, 0.9])),
        ("clip_skip", json!(1)),
        ("feature_cache", json!({"kind": "deepcache", "interval": 2})),
        ("loras", json!([{"name": "sd1_kohya"}])),
        ("class_label", json!(1)),
    ] {
        let errors = errors(&api, &json!({"model": "ddpm", field: value})).await;
        let [(pointer, code, detail)] = &errors[..] else { panic!("{field}: {errors:?}") };
        assert_eq!((pointer, code.as_str()), (&format!("/{field}"), "unsupported_for_model"), "{detail}");
        assert!(detail.contains("\"ddpm\""), "{detail}");
    }
    let refiner = errors(&api, &json!({"model": "ddpm", "refiner": {"model": "sdxl", "switch_at": 0.5}})).await;
    assert!(matches!(&refiner[..], [(at, ..)] if at == "/refiner/model"), "{refiner:?}");
    // The network of the variance-exploding SDE predicts scores, which other classes take for noise.
    for scheduler in [json!("euler"), json!("ddim"), json!({"_class_name": "ScoreSdeVpScheduler"})] {
        let refused = errors(&api, &json!({"model": "score-sde-ve", "steps": 4, "scheduler": scheduler})).await;
        let [(pointer, _, detail)] = &refused[..] else { panic!("{scheduler}: {refused:?}") };
        assert_eq!(pointer, "/scheduler");
        assert!(detail.contains("ScoreSdeVeScheduler"), "{detail}");
    }
    let tiny = errors(&api, &json!({"model": "ddpm", "decoder": "tiny"})).await;
    assert!(matches!(&tiny[..], [(at, code, _)] if at == "/decoder" && code == "invalid_value"), "{tiny:?}");
}

#[tokio::test]
async fn a_request_without_a_prompt_is_accepted_and_its_params_repeat_it() {
    let api = api(&pipelines()).await;
    for body in [
        json!({"model": "ddpm", "seed": 1, "eta": 0.5, "scheduler": "ddim", "steps": 20, "width": 24, "height": 24}),
        json!({"model": "ldm-uncond", "seed": 1, "n": 3, "seed_mode": "batch"}),
        json!({"model": "consistency", "seed": 1, "class_label": 3, "n": 2, "timesteps": [22, 0]}),
        json!({"model": "score-sde-ve", "seed": 1, "steps": 60, "scheduler": {"correct_steps": 2}}),
    ] {
        let params = accepted(&api, &body).await["params"].clone();
        assert_eq!(params["prompt"], "", "{params}");
        assert_eq!(accepted(&api, &params).await["params"], params);
    }
    let errors = errors(&api, &json!({"model": "ddpm", "width": 20, "height": 4})).await;
    let of = |pointer: &str| errors.iter().find(|error| error.0 == pointer).unwrap().2.clone();
    assert!(of("/width").contains("a multiple of 8") && of("/height").contains("between 8 and"), "{errors:?}");
}

#[tokio::test]
async fn the_error_names_the_only_allowed_size() {
    let api = api(&pipelines()).await;
    let schema = api.get("/v1/models/dit/schema").await.json();
    let side = &schema["properties"]["width"];
    let pixels = side["minimum"].as_u64().unwrap();
    assert_eq!(side["maximum"].as_u64(), Some(pixels));
    let wide = errors(&api, &json!({"model": "dit", "class_label": 1, "width": 2 * pixels})).await;
    assert_eq!(wide[0].2, format!("width must be {pixels}, not {}", 2 * pixels));
    let size = format!("{pixels}x{}", 3 * pixels);
    let tall = errors(&api, &json!({"model": "dit", "class_label": 1, "size": size})).await;
    assert_eq!(tall[0].2, format!("size must have a height that is {pixels}, not {}", 3 * pixels));
    let free = errors(&api, &json!({"model": "ddpm", "width": 0})).await;
    assert!(free[0].2.starts_with("width must be between 8 and "), "{free:?}");
}

#[tokio::test]
async fn classes_are_given_by_number_or_name_for_all_pictures_or_for_each() {
    let models = tempfile::tempdir().unwrap();
    copy(&pipelines().join("consistency"), &models.path().join("numbers"));
    copy(&pipelines().join("consistency"), &models.path().join("names"));
    let index = models.path().join("names/model_index.json");
    let mut keys: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    keys["id2label"] = json!({"0": "tench, Tinca tinca", "7": "cock"});
    fs::write(&index, keys.to_string()).unwrap();
    let api = api(models.path()).await;
    for (model, label, n, labels) in [
        ("numbers", json!(9), 1, json!([9])),
        ("numbers", json!(2.0), 2, json!([2, 2])),
        ("numbers", json!([1, 5]), 2, json!([1, 5])),
        ("names", json!("cock"), 1, json!([7])),
        ("names", json!(["Tinca tinca", 3]), 2, json!([0, 3])),
    ] {
        let accepted = accepted(&api, &json!({"model": model, "class_label": label, "n": n})).await;
        assert_eq!(accepted["params"]["class_label"], labels, "{label}");
    }
    for (model, label, pointer, said) in [
        ("numbers", Value::Null, "/class_label", "one of 10 classes"),
        ("numbers", json!(10), "/class_label", "from 0 to 9"),
        ("numbers", json!(-1), "/class_label", "from 0 to 9"),
        ("numbers", json!(1.5), "/class_label", "from 0 to 9"),
        ("numbers", json!([1, 2, 3]), "/class_label", "one entry for each of the 2 pictures, not 3"),
        ("numbers", json!([1, 10]), "/class_label/1", "from 0 to 9"),
        ("numbers", json!("cock"), "/class_label", "no names"),
        ("names", json!(["cock", "hen"]), "/class_label/1", "not \"hen\""),
        ("numbers", json!({"a": 1}), "/class_label", "a number or a name"),
    ] {
        let errors = errors(&api, &json!({"model": model, "class_label": label, "n": 2})).await;
        let [(at, _, detail)] = &errors[..] else { panic!("{label}: {errors:?}") };
        assert!(at == pointer && detail.contains(said), "{label}: {errors:?}");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => fs::write(to, fs::read(entry.path()).unwrap()).unwrap(),
        }
    }
}
