//! What can be known of a request before it is accepted is refused before it is accepted.

use std::{collections::HashMap, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};

use crate::desk::{Desk, post};

fn parity() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity")
}

async fn desk(embeddings: &std::path::Path) -> Desk {
    let models = parity().join("pipelines");
    Desk::open(&[("models.dir", models.to_str().unwrap()), ("embeddings.dir", embeddings.to_str().unwrap())]).await
}

/// Pointer and detail of the only error.
async fn refused(desk: &Desk, body: Value) -> (String, String) {
    let answer = desk.ask(post(&body, &[])).await;
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
async fn steps_that_no_scheduler_can_run() {
    let desk = desk(std::path::Path::new("")).await;
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
        let (at, detail) = refused(&desk, body).await;
        assert_eq!(at, pointer, "{detail}");
        assert!(detail.contains(said), "{detail}");
    }
    for body in [
        json!({"prompt": "a", "scheduler": "pndm", "steps": 8, "strength": 1, "image": picture()}),
        json!({"prompt": "a", "model": "sd1", "scheduler": "pndm", "steps": 8, "strength": 0.6, "image": picture()}),
        json!({"prompt": "a", "model": "sdxl", "steps": 3, "denoising_end": 0.4}),
        json!({"prompt": "a", "model": "sdxl", "steps": 2, "refiner": {"model": "sdxl", "switch_at": 0.5}}),
    ] {
        desk.create(body).await;
    }
}

/// A file of these tensors (name, vectors, width).
fn embedding(dir: &std::path::Path, word: &str, tensors: &[(&str, usize, usize)]) {
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|(_, count, width)| vec![0; 4 * count * width]).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, count, width), bytes)| {
        ((*name).to_owned(), TensorView::new(Dtype::F32, vec![*count, *width], bytes).unwrap())
    });
    let file = safetensors::serialize(views.collect::<HashMap<_, _>>(), None).unwrap();
    std::fs::write(dir.join(format!("{word}.safetensors")), file).unwrap();
}

#[tokio::test]
async fn learned_words_that_the_model_cannot_take() {
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
    let desk = desk(dir.path()).await;
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
        (json!({"model": "sd1", "prompt": many}), "/prompt", vec!["at most 32 different learned words, not 33"]),
    ] {
        let (at, detail) = refused(&desk, body).await;
        assert_eq!(at, pointer, "{detail}");
        assert!(said.iter().all(|said| detail.contains(said)), "{detail}");
    }
    for body in [
        json!({"model": "sdxl", "prompt": "a <pivotal> and <FORXL>"}),
        json!({"model": "sd1", "prompt": "<w1>".repeat(2000)}),
        // Without its file a tag is text, and so is the embedded model's own word for another model.
        json!({"model": "sd1", "prompt": "<nothing> <teal>"}),
        json!({"model": "sd1", "prompt": "<a (v2)>", "prompt_syntax": "weighted"}),
    ] {
        desk.create(body).await;
    }
}
