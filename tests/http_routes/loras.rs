//! Tests of LoRAs: the list, how requests name them, and files that are refused.

use std::path::{Path, PathBuf};

use axum::{
    body::Body,
    http::{Method, Request},
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

use crate::api::{Answer, TestApi, post};

/// Opens a server with two LoRAs; also returns the folder of their files.
async fn api() -> (TestApi, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    for (name, of) in [("pixel art v1.5", "pixel-lora"), ("ink", "flat-lora")] {
        let companion = companion(of);
        std::fs::copy(companion, dir.path().join(format!("{name}.safetensors"))).unwrap();
    }
    (TestApi::open(&[("loras.dir", dir.path().to_str().unwrap())]).await, dir)
}

/// The file of a LoRA for the embedded model.
fn companion(name: &str) -> PathBuf {
    let add_ons = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/emoji-companions");
    add_ons.join(name).join("pytorch_lora_weights.safetensors")
}

async fn params(api: &TestApi, body: Value) -> Value {
    let id = api.create(body).await;
    api.get(&format!("/v1/images/{id}")).await.json()["params"].clone()
}

async fn refused(api: &TestApi, body: Value) -> Answer {
    let answer = api.ask(post(&body, &[])).await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    answer
}

#[tokio::test]
async fn the_files_of_the_folder_are_listed() {
    let (api, _dir) = api().await;
    let embedded = |lora: &Value| lora["name"].as_str().unwrap().starts_with("emoji-");
    let mut list = api.get("/v1/loras").await.json();
    list["data"].as_array_mut().unwrap().retain(|lora| !embedded(lora));
    let file = |name: &str, bytes: u64| {
        json!({
            "object": "lora", "name": name, "bytes": bytes, "state": "available", "error": null, "models": ["emoji"],
        })
    };
    let bytes = |name| std::fs::metadata(companion(name)).unwrap().len();
    let files = [file("ink", bytes("flat-lora")), file("pixel art v1.5", bytes("pixel-lora"))];
    assert_eq!(list, json!({"object": "list", "data": files}));
    assert_eq!(api.act(Method::DELETE, "/v1/loras").await.status, 405);
    let without = TestApi::open(&[]).await.get("/v1/loras").await.json();
    assert!(without["data"].as_array().unwrap().iter().all(embedded));
}

#[tokio::test]
async fn the_field_and_the_tags_of_the_prompt_are_equivalent() {
    let (api, _dir) = api().await;
    let loras = json!([{"name": "pixel art v1.5", "scale": 0.7}, {"name": "ink", "scale": 1.0}]);
    let by_field = params(
        &api,
        json!({
            "prompt": "a fox , red", "seed": 1,
            "loras": [{"name": "pixel art v1.5", "scale": 0.7}, {"name": "ink"}],
        }),
    )
    .await;
    let by_tags = params(
        &api,
        json!({
            "prompt": "a fox <lora:pixel art v1.5:0.7>, red<lora:ink>", "seed": 1, "loras": null,
        }),
    )
    .await;
    assert_eq!((&by_field["prompt"], &by_field["loras"]), (&json!("a fox , red"), &loras));
    assert_eq!(by_tags, by_field);
    // A request with these params is the same request.
    assert_eq!(params(&api, by_tags.clone()).await, by_tags);
    // Scales of the same LoRA are added; tags in a negative prompt are text.
    let twice = params(
        &api,
        json!({
            "prompt": "<lora:ink:1.5>", "negative_prompt": "<lora:ink>", "loras": [{"name": "ink", "scale": -0.5}],
        }),
    )
    .await;
    assert_eq!(twice["loras"], json!([{"name": "ink", "scale": 1.0}]));
    assert_eq!(twice["negative_prompt"], "<lora:ink>");
    // A form contains the list as JSON.
    let form = Request::post("/v1/images").header("content-type", "application/x-www-form-urlencoded");
    let form = api.ask(form.body(Body::from("prompt=a&loras=%5B%7B%22name%22%3A%22ink%22%7D%5D")).unwrap()).await;
    assert_eq!((form.status, &form.json()["params"]["loras"]), (202, &json!([{"name": "ink", "scale": 1.0}])));
}

#[tokio::test]
async fn every_invalid_lora_is_named() {
    let (api, _dir) = api().await;
    let ink = json!({"name": "ink"});
    for (fields, code, pointer) in [
        (json!({"loras": [ink, {"name": "oil"}]}), "unknown_lora", "/loras/1/name"),
        (json!({"prompt": "a <lora:oil:1>"}), "unknown_lora", "/prompt"),
        (json!({"prompt": "a <lora:ink:x>"}), "validation_failed", "/prompt"),
        (json!({"prompt": "a <lora:ink:0.5:0.5>"}), "validation_failed", "/prompt"),
        (json!({"loras": [{"name": "ink", "weight": 1}]}), "unknown_field", "/loras/0/weight"),
        (json!({"loras": [{"scale": 1}]}), "validation_failed", "/loras/0/name"),
        (json!({"loras": [{"name": 5}]}), "validation_failed", "/loras/0/name"),
        (json!({"loras": [{"name": "ink", "scale": 4.1}]}), "validation_failed", "/loras/0/scale"),
        (json!({"loras": [ink, "ink"]}), "validation_failed", "/loras/1"),
        (json!({"loras": "ink"}), "validation_failed", "/loras"),
        (json!({"loras": vec![ink.clone(); 9]}), "validation_failed", "/loras"),
        (json!({"loras": [{"name": "ink", "scale": 3}], "prompt": "<lora:ink:3>"}), "validation_failed", "/loras"),
        (json!({"prompt_syntax": "fancy"}), "validation_failed", "/prompt_syntax"),
    ] {
        let mut body = json!({"prompt": "a"});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let problem = refused(&api, body).await.json();
        assert_eq!((&problem["code"], problem["errors"].as_array().unwrap().len()), (&json!(code), 1), "{problem}");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    // With an unknown model, fields whose validity depends on the model yield no errors.
    let unknown = refused(&api, json!({"prompt": "", "model": "x", "loras": [], "prompt_syntax": "weighted"})).await;
    assert_eq!(unknown.json()["errors"].as_array().unwrap().len(), 1);
}

/// A LoRA with a layer name of the embedded model and shapes that do not fit the model.
fn foreign() -> Vec<u8> {
    let file = std::fs::read(companion("flat-lora")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let down = tensors.names().into_iter().find(|name| name.ends_with("to_q.lora_A.weight")).unwrap().to_owned();
    let up = down.replace("lora_A", "lora_B");
    let zeros = vec![0; 4 * 4 * 7];
    let view = |shape| TensorView::new(Dtype::F32, shape, &zeros).unwrap();
    safetensors::serialize([(down, view(vec![4, 7])), (up, view(vec![7, 4]))], None).unwrap()
}

#[tokio::test]
async fn a_lora_with_shapes_of_another_model_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("foreign.safetensors"), foreign()).unwrap();
    let api = TestApi::open(&[("loras.dir", dir.path().to_str().unwrap())]).await;
    for (body, pointer) in [
        (json!({"prompt": "a", "loras": [{"name": "foreign"}]}), "/loras/0/name"),
        (json!({"prompt": "a <lora:foreign>"}), "/prompt"),
    ] {
        let error = refused(&api, body).await.json()["errors"][0].clone();
        assert_eq!((&error["pointer"], &error["code"]), (&json!(pointer), &json!("unsupported_for_model")));
        let detail = error["detail"].as_str().unwrap();
        assert!(detail.contains("to_q: down [4, 7] and up [7, 4] do not fit the model's weight ["), "{detail}");
    }
    let list = api.get("/v1/loras").await.json();
    let lora = list["data"].as_array().unwrap().iter().find(|lora| lora["name"] == "foreign").unwrap();
    assert_eq!((&lora["state"], &lora["models"]), (&json!("failed"), &json!([])));
    let error = lora["error"].as_str().unwrap();
    assert!(error.starts_with("no model can use it: emoji: foreign: not a LoRA for this model"), "{error}");
    assert!(error.contains("to_q: down [4, 7] and up [7, 4] do not fit the model's weight ["), "{error}");
}

#[tokio::test]
async fn a_pair_without_one_of_its_matrices_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::read(companion("flat-lora")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let without = |end: &str| {
        let kept = tensors.tensors().into_iter().filter(|(name, _)| !name.ends_with(end));
        safetensors::serialize(kept, None).unwrap()
    };
    for (name, end) in [("no-up", "to_q.lora_B.weight"), ("no-down", "to_q.lora_A.weight")] {
        std::fs::write(dir.path().join(format!("{name}.safetensors")), without(end)).unwrap();
    }
    let api = TestApi::open(&[("loras.dir", dir.path().to_str().unwrap())]).await;
    for (name, said) in
        [("no-up", "to_q has a down matrix and no up matrix"), ("no-down", "to_q has an up matrix and no down matrix")]
    {
        let error = refused(&api, json!({"prompt": "a", "loras": [{"name": name}]})).await.json()["errors"][0].clone();
        let detail = error["detail"].as_str().unwrap();
        assert!(detail.contains(said) && detail.contains("incomplete pairs: "), "{detail}");
    }
}

#[tokio::test]
async fn a_lora_longer_than_the_setting_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(companion("flat-lora"), dir.path().join("ink.safetensors")).unwrap();
    let length = std::fs::metadata(companion("flat-lora")).unwrap().len();
    let open = async |most: u64| {
        let most = most.to_string();
        TestApi::open(&[("loras.dir", dir.path().to_str().unwrap()), ("loras.max_bytes", &most)]).await
    };
    let body = json!({"prompt": "a", "loras": [{"name": "ink"}]});
    let error = refused(&open(length - 1).await, body.clone()).await.json()["errors"][0].clone();
    assert_eq!(error["pointer"], "/loras/0/name");
    let bound = format!("{length} bytes are more than loras.max_bytes, {}", length - 1);
    assert!(error["detail"].as_str().unwrap().contains(&bound), "{error}");
    for most in [length, 0] {
        open(most).await.create(body.clone()).await;
    }
}

/// The file of a LoRA with all weights set to this number.
fn with_number(name: &str, number: f32) -> Vec<u8> {
    let file = std::fs::read(companion(name)).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let (mut names, mut changed) = (Vec::new(), Vec::new());
    for (name, tensor) in tensors.iter() {
        let values = vec![number; tensor.shape().iter().product()];
        changed
            .push((tensor.shape().to_vec(), values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()));
        names.push(name.to_owned());
    }
    let views = names
        .iter()
        .zip(&changed)
        .map(|(name, (shape, bytes))| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

#[tokio::test]
async fn a_lora_with_unusable_weights_is_refused_before_acceptance() {
    let dir = tempfile::tempdir().unwrap();
    for (name, number) in [("nan", f32::NAN), ("huge", 3e38), ("sound", 0.01)] {
        std::fs::write(dir.path().join(format!("{name}.safetensors")), with_number("flat-lora", number)).unwrap();
    }
    let api = TestApi::open(&[("loras.dir", dir.path().to_str().unwrap())]).await;
    for name in ["nan", "huge"] {
        let body = json!({"prompt": "a", "loras": [{"name": name}]});
        let errors = refused(&api, body).await.json()["errors"].clone();
        assert_eq!(
            (&errors[0]["pointer"], &errors[0]["code"]),
            (&json!("/loras/0/name"), &json!("unsupported_for_model"))
        );
        assert!(errors[0]["detail"].as_str().unwrap().contains("weights are finite and at most 1e6"), "{errors}");
    }
    api.create(json!({"prompt": "a", "loras": [{"name": "sound"}]})).await;
    let listed = api.get("/v1/loras").await.json();
    for (name, state) in [("nan", "failed"), ("huge", "failed"), ("sound", "available")] {
        let lora = listed["data"].as_array().unwrap().iter().find(|lora| lora["name"] == name).unwrap();
        assert_eq!(lora["state"], state, "{lora}");
    }
}

#[tokio::test]
async fn a_lora_file_that_changed_since_the_listing_answers_503() {
    let (api, dir) = api().await;
    let body = json!({"prompt": "a", "loras": [{"name": "ink"}]});
    api.create(body.clone()).await;
    let path = dir.path().join("ink.safetensors");
    for change in ["replaced", "gone"] {
        match change {
            "replaced" => std::fs::write(&path, with_number("flat-lora", 0.01)).unwrap(),
            _ => std::fs::remove_file(&path).unwrap(),
        }
        let answer = api.ask(post(&body, &[])).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (503, &json!("file_changed")),
            "{change}: {}",
            answer.text()
        );
        assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
        assert!(answer.text().contains("try again later"), "{}", answer.text());
        // Other errors of the request are reported as usual.
        let faulty = json!({"prompt": "a", "steps": 0, "loras": [{"name": "ink"}]});
        assert_eq!(refused(&api, faulty).await.json()["code"], "validation_failed");
        assert_eq!(api.operate(Method::POST, "/admin/reload", Value::Null).await.status, 200);
        match change {
            "replaced" => drop(api.create(body.clone()).await),
            _ => assert_eq!(refused(&api, body.clone()).await.json()["code"], "unknown_lora"),
        }
    }
}

/// The server also checks the numbers of files that take long to read.
#[tokio::test]
async fn the_numbers_of_large_files_are_checked_before_acceptance() {
    let dir = tempfile::tempdir().unwrap();
    for (name, number) in [("sound", 1e-3), ("broken", f32::NAN), ("huge", 3e38)] {
        let file = large(number);
        assert!(file.len() > 16 << 20);
        std::fs::write(dir.path().join(format!("{name}.safetensors")), file).unwrap();
    }
    let api = TestApi::open(&[("loras.dir", dir.path().to_str().unwrap())]).await;
    let state = async |name: &str| {
        let list = api.get("/v1/loras").await.json();
        let lora = list["data"].as_array().unwrap().iter().find(|lora| lora["name"] == name).unwrap().clone();
        lora["state"].as_str().unwrap().to_owned()
    };
    api.create(json!({"prompt": "a", "loras": [{"name": "sound"}]})).await;
    for (name, said) in [("broken", "the number NaN"), ("huge", "the number 3e38")] {
        assert_eq!(state(name).await, "available", "a list does not read large files");
        // The first request reads the file, the second uses the known result.
        for body in [
            json!({"prompt": "a", "loras": [{"name": "sound"}, {"name": name}]}),
            json!({"prompt": "a", "loras": [{"name": "sound"}, {"name": name}]}),
        ] {
            let errors = refused(&api, body).await.json()["errors"].clone();
            assert_eq!(
                (errors.as_array().unwrap().len(), &errors[0]["pointer"]),
                (1, &json!("/loras/1/name")),
                "{errors}"
            );
            assert!(errors[0]["detail"].as_str().unwrap().contains(said), "{errors}");
        }
        assert_eq!(state(name).await, "failed");
    }
    assert_eq!(state("sound").await, "available");
}

/// A LoRA of more than 16 MiB for the embedded model; all numbers are 0 except the last.
fn large(last: f32) -> Vec<u8> {
    const RANK: usize = 512;
    let file = std::fs::read(companion("flat-lora")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let shapes = tensors.tensors().into_iter().map(|(name, view)| {
        let mut shape = view.shape().to_vec();
        shape[usize::from(name.contains("lora_B"))] = RANK;
        (name, shape)
    });
    let mut shapes: Vec<_> = shapes.filter(|(name, _)| name.contains("mid_block")).collect();
    shapes.sort();
    let mut numbers: Vec<Vec<u8>> =
        shapes.iter().map(|(_, shape)| vec![0; 4 * shape.iter().product::<usize>()]).collect();
    let end = numbers.last_mut().unwrap();
    let at = end.len() - 4;
    end[at..].copy_from_slice(&last.to_le_bytes());
    let views = shapes.iter().zip(&numbers);
    let views = views.map(|((name, shape), bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}
