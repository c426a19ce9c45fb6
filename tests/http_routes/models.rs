//! Tests of the lists of models and add-ons, including files that cannot be used, and of reloading the folders.

use std::path::{Path, PathBuf};

use axum::{
    body::Body,
    http::{Method, Request},
};
use serde_json::{Value, json};

use crate::api::{TestApi, post};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

async fn api(models: &Path, more: &[(&str, &str)]) -> TestApi {
    TestApi::open(&[&[("models.dir", models.to_str().unwrap())], more].concat()).await
}

#[tokio::test]
async fn the_web_interface_of_a_key_begins_with_a_model_that_the_key_may_use() {
    let models = tempfile::tempdir().unwrap();
    copy(&fixtures().join("pipelines/sd1"), &models.path().join("tiny"));
    let api = api(models.path(), &[]).await;
    for (terms, expected) in
        [(json!(["tiny"]), "tiny"), (json!(["tiny", "emoji"]), "emoji"), (json!(["none"]), "emoji")]
    {
        let made = api.operate(Method::POST, "/admin/keys", json!({"tenant": "studio", "models": terms})).await;
        let key = format!("Bearer {}", made.json()["key"].as_str().unwrap());
        let request = Request::get("/sdapi/v1/options").header("authorization", key).body(Body::empty()).unwrap();
        assert_eq!(api.ask(request).await.json()["sd_model_checkpoint"], expected, "{terms}");
    }
}

#[tokio::test]
async fn names_of_models_may_have_slashes_and_spaces() {
    let models = tempfile::tempdir().unwrap();
    for name in ["org/tiny", "My Model v1"] {
        copy(&fixtures().join("pipelines/sd1"), &models.path().join(name));
    }
    let api = api(models.path(), &[]).await;
    for (path, id) in [("org%2Ftiny", "org/tiny"), ("My%20Model%20v1", "My Model v1"), ("emoji", "emoji")] {
        let model = api.get(&format!("/v1/models/{path}")).await;
        assert_eq!((model.status, &model.json()["id"]), (200, &json!(id)));
        assert_eq!((&model.json()["state"], &model.json()["error"]), (&json!("cold"), &Value::Null));
    }
    let raw = api.send(Request::get("/v1/models/org/tiny").body(Body::empty()).unwrap()).await;
    assert_eq!(raw.status(), 200);
    for path in ["org%2Ftiny", "org/tiny"] {
        let schema = api.send(Request::get(format!("/v1/models/{path}/schema")).body(Body::empty()).unwrap()).await;
        assert_eq!(schema.status(), 200, "{path}");
    }
    for unknown in ["org", "tiny", "org%2F", "%FF"] {
        assert_eq!(api.get(&format!("/v1/models/{unknown}")).await.status, 404, "{unknown}");
    }
    let id = api.create(json!({"model": "org/tiny", "prompt": "a"})).await;
    assert_eq!(api.get(&format!("/v1/images/{id}")).await.json()["params"]["model"], "org/tiny");
}

#[tokio::test]
async fn the_card_of_a_model_is_served_as_text() {
    let models = tempfile::tempdir().unwrap();
    for name in ["org/tiny", "plain", "long"] {
        copy(&fixtures().join("pipelines/sd1"), &models.path().join(name));
    }
    let card = "# Tiny\n\n<script>alert(1)</script>\n";
    std::fs::write(models.path().join("org/tiny/README.md"), card).unwrap();
    std::fs::write(models.path().join("long/README.md"), "€".repeat(100_000)).unwrap();
    let api = api(models.path(), &[]).await;
    let answer = api.get("/v1/models/org%2Ftiny/card").await;
    assert_eq!((answer.status, answer.text()), (200, card));
    assert_eq!(answer.header("content-type"), "text/markdown; charset=utf-8");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    // The contract has no path for a name that is not escaped.
    let raw = api.send(Request::get("/v1/models/org/tiny/card").body(Body::empty()).unwrap()).await;
    assert_eq!(raw.status(), 200);
    let embedded = api.get("/v1/models/emoji/card").await;
    assert!(embedded.text().contains("small latent diffusion model"), "{}", embedded.text());
    let long = api.get("/v1/models/long/card").await;
    let (kept, note) = long.text().split_once("\n\n").unwrap();
    assert!((256 << 10) - 3 < kept.len() && kept.len() <= 256 << 10 && kept.chars().all(|letter| letter == '€'));
    assert_eq!(note, "(The rest of this card is not shown.)\n");
    for none in ["plain", "none", "org"] {
        assert_eq!(api.get(&format!("/v1/models/{none}/card")).await.status, 404, "{none}");
    }
    // For a key that may not use the model, there is no such model.
    let made = api.operate(Method::POST, "/admin/keys", json!({"tenant": "studio", "models": ["emoji"]})).await;
    let key = format!("Bearer {}", made.json()["key"].as_str().unwrap());
    let request = Request::get("/v1/models/org/tiny/card").header("authorization", key).body(Body::empty()).unwrap();
    assert_eq!(api.send(request).await.status(), 404);
}

#[tokio::test]
async fn a_model_that_cannot_be_used_is_refused_with_its_reason() {
    let models = tempfile::tempdir().unwrap();
    let bad = models.path().join("bad");
    copy(&fixtures().join("pipelines/sd1"), &bad);
    let mut config: Value = serde_json::from_slice(&std::fs::read(bad.join("unet/config.json")).unwrap()).unwrap();
    config["sample_size"] = json!(1u64 << 62);
    std::fs::write(bad.join("unet/config.json"), config.to_string()).unwrap();
    std::fs::write(models.path().join("old.ckpt"), b"PK").unwrap();
    let api = api(models.path(), &[]).await;
    for (name, reason) in [("bad", "unet/config.json: `sample_size`"), ("old", "pickle")] {
        let model = api.get(&format!("/v1/models/{name}")).await.json();
        let error = model["error"].as_str().unwrap();
        assert!(model["state"] == "failed" && error.contains(reason), "{model}");
        assert_eq!((&model["bytes"], &model["capabilities"]), (&Value::Null, &Value::Null));
        for body in [json!({"model": name, "prompt": "a"}), json!({"prompt": "a", "refiner": {"model": name}})] {
            let refused = api.ask(post(&body, &[])).await;
            assert_eq!(refused.status, 422);
            let errors = refused.json()["errors"].clone();
            assert_eq!(errors[0]["code"], "model_unavailable", "{errors}");
            assert!(errors[0]["detail"].as_str().unwrap().contains(error), "{errors}");
        }
    }
    let unknown = api.ask(post(&json!({"model": "none", "prompt": "a"}), &[])).await.json();
    assert_eq!(unknown["code"], "unknown_model");
}

#[tokio::test]
async fn add_ons_are_listed_with_the_models_that_can_use_them() {
    let (loras, nets) = (fixtures().join("adapters"), fixtures().join("controlnets"));
    let words = tempfile::tempdir().unwrap();
    std::fs::write(words.path().join("old.pt"), b"PK").unwrap();
    let folders = [
        ("loras.dir", loras.to_str().unwrap()),
        ("embeddings.dir", words.path().to_str().unwrap()),
        ("controlnets.dir", nets.to_str().unwrap()),
    ];
    let api = api(&fixtures().join("pipelines"), &folders).await;
    let list = |list: Value, name: &str| -> Value {
        let data = list["data"].as_array().unwrap();
        data.iter().find(|item| item["name"] == name).unwrap_or_else(|| panic!("{name} is not in {list}")).clone()
    };
    let all = api.get("/v1/loras").await.json();
    let models = |item: &Value| -> Vec<String> { serde_json::from_value(item["models"].clone()).unwrap() };
    let lora = list(all.clone(), "sd1_kohya");
    assert_eq!((&lora["state"], &lora["error"]), (&json!("available"), &Value::Null));
    assert!(models(&lora).contains(&"sd1".to_owned()) && !models(&lora).contains(&"emoji".to_owned()), "{lora}");
    assert_eq!(models(&list(all, "emoji-flat")), ["emoji"]);

    let all = api.get("/v1/embeddings").await.json();
    let word = list(all.clone(), "teal");
    assert_eq!((&word["word"], models(&word)), (&json!("<teal>"), vec!["emoji".to_owned()]), "{word}");
    let old = list(all, "old");
    assert_eq!((&old["state"], models(&old).len()), (&json!("failed"), 0));
    assert!(old["error"].as_str().unwrap().contains("pickle"), "{old}");

    let all = api.get("/v1/controlnets").await.json();
    let net = list(all, "canny");
    assert!(net["state"] == "available" && models(&net).contains(&"sd1".to_owned()), "{net}");
}

#[tokio::test]
async fn the_operator_can_reload_the_folders() {
    let (models, loras) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    copy(&fixtures().join("pipelines/sd1"), &models.path().join("one"));
    let api = api(models.path(), &[("loras.dir", loras.path().to_str().unwrap())]).await;
    let nothing = json!({"added": [], "changed": [], "removed": []});
    let reload = async || api.operate(Method::POST, "/admin/reload", Value::Null).await;
    let read = reload().await.json();
    assert_eq!((&read["object"], &read["models"], &read["loras"]), (&json!("reload"), &nothing, &nothing));

    std::fs::rename(models.path().join("one"), models.path().join("two")).unwrap();
    std::fs::create_dir(loras.path().join("chars")).unwrap();
    let lora = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/emoji-companions/flat-lora");
    std::fs::copy(lora.join("pytorch_lora_weights.safetensors"), loras.path().join("chars/alice.safetensors")).unwrap();
    let read = reload().await.json();
    assert_eq!(read["models"], json!({"added": ["two"], "changed": [], "removed": ["one"]}));
    assert_eq!(read["loras"], json!({"added": ["chars/alice"], "changed": [], "removed": []}));
    assert_eq!(api.get("/v1/models/one").await.status, 404);
    api.create(json!({"prompt": "a <lora:chars/alice:0.5>"})).await;

    std::fs::remove_dir_all(models.path()).unwrap();
    let failed = reload().await;
    assert_eq!((failed.status, &failed.json()["code"]), (500, &json!("catalogue_unreadable")));
    assert_eq!(api.get("/v1/models/two").await.status, 200, "the failed reload changes nothing");
}
