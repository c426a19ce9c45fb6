//! Tests of requests that do not fit the files of models and add-ons. They are refused before acceptance.

use std::{collections::HashMap, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};

use crate::api::{TestApi, post};

fn parity() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity")
}

async fn api(embeddings: &std::path::Path) -> TestApi {
    let models = parity().join("pipelines");
    TestApi::open(&[("models.dir", models.to_str().unwrap()), ("embeddings.dir", embeddings.to_str().unwrap())]).await
}

/// The pointer and detail of the only error of a refused request.
async fn refused(api: &TestApi, body: Value) -> (String, String) {
    let answer = api.ask(post(&body, &[])).await;
    assert_eq!(answer.status, 422, "{body} {}", answer.text());
    let errors = answer.json()["errors"].as_array().unwrap().clone();
    assert_eq!(errors.len(), 1, "{body} {errors:?}");
    let text = |key: &str| errors[0][key].as_str().unwrap().to_owned();
    (text("pointer"), text("detail"))
}

fn runge_kutta() -> Value {
    json!({"_class_name": "PNDMScheduler", "skip_prk_steps": false})
}

fn picture() -> Value {
    json!({"b64": STANDARD.encode(std::fs::read(parity().join("inputs/init_64.png")).unwrap())})
}

#[tokio::test]
async fn steps_that_no_scheduler_can_run_are_refused() {
    let api = api(std::path::Path::new("")).await;
    for (body, pointer, said) in [
        (json!({"scheduler": "pndm", "steps": 8, "strength": 0.6, "image": picture()}), "/strength", "skip_prk_steps"),
        (json!({"steps": 3, "strength": 0.3, "image": picture()}), "/strength", "must be at least 1, not 0.3 · 3"),
        (json!({"model": "sdxl", "steps": 3, "denoising_end": 0.1}), "/denoising_end", "must be at least 0.33"),
        (
            json!({"model": "sdxl", "steps": 1, "refiner": {"model": "sdxl", "switch_at": 0.5}}),
            "/refiner/switch_at",
            "must be",
        ),
        (
            json!({"model": "sdxl", "steps": 2, "refiner": {"model": "sdxl", "switch_at": 0.9999}}),
            "/refiner/switch_at",
            "must be below",
        ),
        (
            json!({"model": "sdxl", "scheduler": runge_kutta(), "steps": 10, "denoising_end": 0.2}),
            "/denoising_end",
            "needs at least 4",
        ),
    ] {
        let mut body = body;
        body["prompt"] = json!("a");
        let (at, detail) = refused(&api, body).await;
        assert_eq!(at, pointer, "{detail}");
        assert!(detail.contains(said), "{detail}");
    }
    for body in [
        json!({"prompt": "a", "scheduler": "pndm", "steps": 8, "strength": 1, "image": picture()}),
        json!({"prompt": "a", "model": "sd1", "scheduler": "pndm", "steps": 8, "strength": 0.6, "image": picture()}),
        json!({"prompt": "a", "model": "sdxl", "steps": 3, "denoising_end": 0.4}),
        json!({"prompt": "a", "model": "sdxl", "steps": 2, "refiner": {"model": "sdxl", "switch_at": 0.5}}),
    ] {
        api.create(body).await;
    }
}

/// Writes a textual inversion with these tensors (name, number of vectors, width), all zeros.
fn embedding(dir: &std::path::Path, word: &str, tensors: &[(&str, usize, usize)]) {
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|(_, count, width)| vec![0; 4 * count * width]).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, count, width), bytes)| {
        ((*name).to_owned(), TensorView::new(Dtype::F32, vec![*count, *width], bytes).unwrap())
    });
    let file = safetensors::serialize(views.collect::<HashMap<_, _>>(), None).unwrap();
    std::fs::write(dir.join(format!("{word}.safetensors")), file).unwrap();
}

/// Writes a textual inversion with one vector of equal numbers.
fn vector(dir: &std::path::Path, word: &str, width: usize, number: f32) {
    let bytes = number.to_le_bytes().repeat(width);
    let view = TensorView::new(Dtype::F32, vec![1, width], &bytes).unwrap();
    let file = safetensors::serialize([("emb_params".to_owned(), view)], None).unwrap();
    std::fs::write(dir.join(format!("{word}.safetensors")), file).unwrap();
}

/// The state, models and error of an entry of a list.
async fn listed(api: &TestApi, path: &str, name: &str) -> (Value, Value, String) {
    let list = api.get(path).await.json();
    let entry = list["data"].as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap();
    let error = entry["error"].as_str().unwrap_or_default().to_owned();
    (entry["state"].clone(), entry["models"].clone(), error)
}

#[tokio::test]
async fn add_ons_that_no_model_can_use_are_listed_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    vector(dir.path(), "wide", 1024, 0.5);
    vector(dir.path(), "huge", 32, 3e38);
    vector(dir.path(), "nan", 32, f32::NAN);
    vector(dir.path(), "large", 32, 65504.0);
    let api = api(dir.path()).await;
    for (word, said) in [
        ("wide", "vectors of 1024, where the text encoder has 32"),
        ("huge", "the number 3e38 is not between -65536 and 65536"),
        ("nan", "the number NaN is not between"),
    ] {
        let (at, detail) = refused(&api, json!({"model": "sd1", "prompt": format!("a <{word}>")})).await;
        assert_eq!(at, "/prompt", "{detail}");
        assert!(detail.contains(said), "{detail}");
        let (state, models, error) = listed(&api, "/v1/embeddings", word).await;
        assert_eq!((state, models), (json!("failed"), json!([])), "{word}");
        assert!(error.starts_with("no model can use it: ") && error.contains("; sd1"), "{error}");
        assert!(error.contains(said), "{error}");
    }
    assert_eq!(listed(&api, "/v1/embeddings", "large").await.2, "");
    api.create(json!({"model": "sd1", "prompt": "a <large>"})).await;

    let nets = parity().join("controlnets");
    let without_models = TestApi::open(&[("controlnets.dir", nets.to_str().unwrap())]).await;
    let (state, models, error) = listed(&without_models, "/v1/controlnets", "canny").await;
    assert_eq!((state, models), (json!("failed"), json!([])));
    assert_eq!(error, "no model can use it: emoji: \"canny\" was not made for models like \"emoji\"");
}

#[tokio::test]
async fn words_that_differ_only_in_letter_case_stand_for_one_file_and_the_other_file_is_listed_as_failed() {
    let dir = tempfile::tempdir().unwrap();
    for word in ["upper", "UPPER", "two", "Cafe\u{301}", "caf\u{e9}"] {
        vector(dir.path(), word, 32, 0.5);
    }
    // An invalid file does not hide a valid file with the same word.
    std::fs::write(dir.path().join("Two.safetensors"), "not a file of tensors").unwrap();
    vector(dir.path(), "TEAL", 32, 0.5);
    let api = api(dir.path()).await;
    for (used, hidden) in [("UPPER", "upper"), ("Cafe\u{301}", "caf\u{e9}"), ("TEAL", "teal")] {
        let (state, models, error) = listed(&api, "/v1/embeddings", used).await;
        assert_eq!((state, error.as_str()), (json!("available"), ""), "{used}");
        assert!(models.as_array().unwrap().contains(&json!("sd1")), "{models}");
        let (state, models, error) = listed(&api, "/v1/embeddings", hidden).await;
        assert_eq!((state, models), (json!("failed"), json!([])), "{hidden}");
        let why =
            format!("the word <{hidden}> stands for the file {used:?}, because letter case does not count in words");
        assert!(error.starts_with(&why), "{error}");
    }
    assert_eq!(listed(&api, "/v1/embeddings", "two").await.0, "available");
    let (state, _, error) = listed(&api, "/v1/embeddings", "Two").await;
    assert!(state == "failed" && error.contains("safetensors"), "{error}");
    // Every spelling selects the same file, and a file of the folder takes precedence over an embedded one.
    let fits = |word: &str| json!({"model": "sd1", "prompt": word});
    api.create(fits("<upper> <UPPER> <teal>")).await;
    vector(dir.path(), "UPPER", 1024, 0.5);
    api.operate(axum::http::Method::POST, "/admin/reload", Value::Null).await;
    let (_, detail) = refused(&api, fits("a <upper>")).await;
    assert!(detail.contains("<UPPER>") && detail.contains("1024"), "{detail}");
    std::fs::remove_file(dir.path().join("UPPER.safetensors")).unwrap();
    api.operate(axum::http::Method::POST, "/admin/reload", Value::Null).await;
    assert_eq!(listed(&api, "/v1/embeddings", "upper").await.0, "available");
    api.create(fits("<upper>")).await;
}

#[tokio::test]
async fn textual_inversions_that_do_not_fit_the_model_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    embedding(dir.path(), "ForXL", &[("clip_l", 2, 32), ("clip_g", 2, 48)]);
    embedding(dir.path(), "pivotal", &[("text_encoders_0", 2, 32), ("text_encoders_1", 2, 48)]);
    embedding(dir.path(), "wide", &[("emb_params", 1, 1024)]);
    embedding(dir.path(), "output", &[("emb_params", 2, 32), ("emb_params_out", 2, 32)]);
    embedding(dir.path(), "a (v2)", &[("emb_params", 1, 1024)]);
    std::fs::write(dir.path().join("broken.safetensors"), "not a file of tensors").unwrap();
    for i in 0..33 {
        embedding(dir.path(), &format!("w{i}"), &[("emb_params", 1, 32)]);
    }
    let api = api(dir.path()).await;
    let many: String = (0..33).map(|i| format!("<w{i}>")).collect();
    for (body, pointer, said) in [
        (json!({"model": "sd1", "prompt": "a <forxl>"}), "/prompt", vec!["<ForXL>", "48", "does not have"]),
        (json!({"model": "sd1", "prompt": "a <wide>"}), "/prompt", vec!["<wide>", "1024", "has 32"]),
        (json!({"model": "sd1", "prompt": "", "negative_prompt": "<Wide>"}), "/negative_prompt", vec!["1024"]),
        (json!({"model": "sdxl", "prompt": "", "prompt_2": "<wide>"}), "/prompt_2", vec!["1024", "has 32 or 48"]),
        (json!({"model": "sd1", "prompt": "<output>"}), "/prompt", vec!["emb_params_out", "OneTrainer"]),
        (json!({"model": "sd1", "prompt": "<broken>"}), "/prompt", vec!["<broken>", "safetensors"]),
        (json!({"model": "sd1", "prompt": "(<wide>:1.2)", "prompt_syntax": "weighted"}), "/prompt", vec!["1024"]),
        (json!({"model": "sd1", "prompt": "<a \\(v2\\)>", "prompt_syntax": "weighted"}), "/prompt", vec!["1024"]),
        (json!({"model": "sd1", "prompt": many}), "/prompt", vec!["at most 32 different textual inversions, not 33"]),
    ] {
        let (at, detail) = refused(&api, body).await;
        assert_eq!(at, pointer, "{detail}");
        assert!(said.iter().all(|said| detail.contains(said)), "{detail}");
    }
    for body in [
        json!({"model": "sdxl", "prompt": "a <pivotal> and <FORXL>"}),
        json!({"model": "sd1", "prompt": "<w1>".repeat(2000)}),
        // A tag without a file is text; so is, for other models, the word of the embedded textual inversion.
        json!({"model": "sd1", "prompt": "<nothing> <teal>"}),
        json!({"model": "sd1", "prompt": "<a (v2)>", "prompt_syntax": "weighted"}),
    ] {
        api.create(body).await;
    }
}
