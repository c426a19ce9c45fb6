//! LoRAs: which there are, and how requests name them.

use std::path::{Path, PathBuf};

use axum::{
    body::Body,
    http::{Method, Request},
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

use crate::desk::{Answer, Desk, post};

/// A desk with two LoRAs, and the folder of their files.
async fn desk() -> (Desk, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    for (name, of) in [("pixel art v1.5", "pixel-lora"), ("ink", "flat-lora")] {
        let companion = companion(of);
        std::fs::copy(companion, dir.path().join(format!("{name}.safetensors"))).unwrap();
    }
    (Desk::open(&[("loras.dir", dir.path().to_str().unwrap())]).await, dir)
}

/// The file of a LoRA for the embedded model.
fn companion(name: &str) -> PathBuf {
    let companions = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/emoji-companions");
    companions.join(name).join("pytorch_lora_weights.safetensors")
}

async fn params(desk: &Desk, body: Value) -> Value {
    let id = desk.create(body).await;
    desk.get(&format!("/v1/images/{id}")).await.json()["params"].clone()
}

async fn refused(desk: &Desk, body: Value) -> Answer {
    let answer = desk.ask(post(&body, &[])).await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    answer
}

#[tokio::test]
async fn the_files_of_the_folder_are_listed() {
    let (desk, _dir) = desk().await;
    let embedded = |lora: &Value| lora["name"].as_str().unwrap().starts_with("emoji-");
    let mut list = desk.get("/v1/loras").await.json();
    list["data"].as_array_mut().unwrap().retain(|lora| !embedded(lora));
    let file = |name: &str, bytes: u64| {
        json!({
            "object": "lora", "name": name, "bytes": bytes, "state": "available", "error": null, "models": ["emoji"],
        })
    };
    let bytes = |name| std::fs::metadata(companion(name)).unwrap().len();
    let files = [file("ink", bytes("flat-lora")), file("pixel art v1.5", bytes("pixel-lora"))];
    assert_eq!(list, json!({"object": "list", "data": files}));
    assert_eq!(desk.act(Method::DELETE, "/v1/loras").await.status, 405);
    let without = Desk::open(&[]).await.get("/v1/loras").await.json();
    assert!(without["data"].as_array().unwrap().iter().all(embedded));
}

#[tokio::test]
async fn the_field_and_the_prompts_tags_come_to_the_same() {
    let (desk, _dir) = desk().await;
    let loras = json!([{"name": "pixel art v1.5", "scale": 0.7}, {"name": "ink", "scale": 1.0}]);
    let by_field = params(
        &desk,
        json!({
            "prompt": "a fox , red", "seed": 1,
            "loras": [{"name": "pixel art v1.5", "scale": 0.7}, {"name": "ink"}],
        }),
    )
    .await;
    let by_tags = params(
        &desk,
        json!({
            "prompt": "a fox <lora:pixel art v1.5:0.7>, red<lora:ink>", "seed": 1, "loras": null,
        }),
    )
    .await;
    assert_eq!((&by_field["prompt"], &by_field["loras"]), (&json!("a fox , red"), &loras));
    assert_eq!(by_tags, by_field);
    // Sent again, params are the same request.
    assert_eq!(params(&desk, by_tags.clone()).await, by_tags);
    // Scales of one name add up; a negative prompt has no tags.
    let twice = params(
        &desk,
        json!({
            "prompt": "<lora:ink:1.5>", "negative_prompt": "<lora:ink>", "loras": [{"name": "ink", "scale": -0.5}],
        }),
    )
    .await;
    assert_eq!(twice["loras"], json!([{"name": "ink", "scale": 1.0}]));
    assert_eq!(twice["negative_prompt"], "<lora:ink>");
    // A form gives the list as JSON.
    let form = Request::post("/v1/images").header("content-type", "application/x-www-form-urlencoded");
    let form = desk.ask(form.body(Body::from("prompt=a&loras=%5B%7B%22name%22%3A%22ink%22%7D%5D")).unwrap()).await;
    assert_eq!((form.status, &form.json()["params"]["loras"]), (202, &json!([{"name": "ink", "scale": 1.0}])));
}

#[tokio::test]
async fn what_cannot_be_used_is_named() {
    let (desk, _dir) = desk().await;
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
        let problem = refused(&desk, body).await.json();
        assert_eq!((&problem["code"], problem["errors"].as_array().unwrap().len()), (&json!(code), 1), "{problem}");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    // Without a model nothing is said about fields that it would be needed for.
    let unknown = refused(&desk, json!({"prompt": "", "model": "x", "loras": [], "prompt_syntax": "weighted"})).await;
    assert_eq!(unknown.json()["errors"].as_array().unwrap().len(), 1);
}

/// A file whose layers are named as the embedded model's and shaped as another's.
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
async fn a_lora_of_another_models_shapes_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("foreign.safetensors"), foreign()).unwrap();
    let desk = Desk::open(&[("loras.dir", dir.path().to_str().unwrap())]).await;
    for (body, pointer) in [
        (json!({"prompt": "a", "loras": [{"name": "foreign"}]}), "/loras/0/name"),
        (json!({"prompt": "a <lora:foreign>"}), "/prompt"),
    ] {
        let error = refused(&desk, body).await.json()["errors"][0].clone();
        assert_eq!((&error["pointer"], &error["code"]), (&json!(pointer), &json!("unsupported_for_model")));
        let detail = error["detail"].as_str().unwrap();
        assert!(detail.contains("to_q: down [4, 7] and up [7, 4] do not fit the model's weight ["), "{detail}");
    }
    let list = desk.get("/v1/loras").await.json();
    let lora = list["data"].as_array().unwrap().iter().find(|lora| lora["name"] == "foreign").unwrap();
    assert_eq!((&lora["state"], &lora["models"]), (&json!("failed"), &json!([])));
    let error = lora["error"].as_str().unwrap();
    assert!(error.starts_with("no model can use it: emoji: foreign: not a LoRA for this model"), "{error}");
    assert!(error.contains("to_q: down [4, 7] and up [7, 4] do not fit the model's weight ["), "{error}");
}

#[tokio::test]
async fn half_a_pair_is_named_in_plain_words() {
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
    let desk = Desk::open(&[("loras.dir", dir.path().to_str().unwrap())]).await;
    for (name, said) in
        [("no-up", "to_q has a down matrix and no up matrix"), ("no-down", "to_q has an up matrix and no down matrix")]
    {
        let error = refused(&desk, json!({"prompt": "a", "loras": [{"name": name}]})).await.json()["errors"][0].clone();
        let detail = error["detail"].as_str().unwrap();
        assert!(detail.contains(said) && detail.contains("incomplete pairs: "), "{detail}");
    }
}

#[tokio::test]
async fn a_lora_is_no_longer_than_the_setting() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(companion("flat-lora"), dir.path().join("ink.safetensors")).unwrap();
    let length = std::fs::metadata(companion("flat-lora")).unwrap().len();
    let open = async |most: u64| {
        let most = most.to_string();
        Desk::open(&[("loras.dir", dir.path().to_str().unwrap()), ("loras.max_bytes", &most)]).await
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

/// The file of a LoRA, one of whose weights is this number.
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
async fn weights_that_leave_no_picture_are_known_before_a_request_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    for (name, number) in [("nan", f32::NAN), ("huge", 3e38), ("sound", 0.01)] {
        std::fs::write(dir.path().join(format!("{name}.safetensors")), with_number("flat-lora", number)).unwrap();
    }
    let desk = Desk::open(&[("loras.dir", dir.path().to_str().unwrap())]).await;
    for name in ["nan", "huge"] {
        let body = json!({"prompt": "a", "loras": [{"name": name}]});
        let errors = refused(&desk, body).await.json()["errors"].clone();
        assert_eq!(
            (&errors[0]["pointer"], &errors[0]["code"]),
            (&json!("/loras/0/name"), &json!("unsupported_for_model"))
        );
        assert!(errors[0]["detail"].as_str().unwrap().contains("weights are finite and at most 1e6"), "{errors}");
    }
    desk.create(json!({"prompt": "a", "loras": [{"name": "sound"}]})).await;
    let listed = desk.get("/v1/loras").await.json();
    for (name, state) in [("nan", "failed"), ("huge", "failed"), ("sound", "available")] {
        let lora = listed["data"].as_array().unwrap().iter().find(|lora| lora["name"] == name).unwrap();
        assert_eq!(lora["state"], state, "{lora}");
    }
}

#[tokio::test]
async fn a_file_that_changed_since_it_was_listed_is_no_fault_of_the_request() {
    let (desk, dir) = desk().await;
    let body = json!({"prompt": "a", "loras": [{"name": "ink"}]});
    desk.create(body.clone()).await;
    let path = dir.path().join("ink.safetensors");
    for change in ["replaced", "gone"] {
        match change {
            "replaced" => std::fs::write(&path, with_number("flat-lora", 0.01)).unwrap(),
            _ => std::fs::remove_file(&path).unwrap(),
        }
        let answer = desk.ask(post(&body, &[])).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (503, &json!("file_changed")),
            "{change}: {}",
            answer.text()
        );
        assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
        assert!(answer.text().contains("try again later"), "{}", answer.text());
        // Another fault of the request is its own.
        let faulty = json!({"prompt": "a", "steps": 0, "loras": [{"name": "ink"}]});
        assert_eq!(refused(&desk, faulty).await.json()["code"], "validation_failed");
        assert_eq!(desk.operate(Method::POST, "/admin/reload", Value::Null).await.status, 200);
        match change {
            "replaced" => drop(desk.create(body.clone()).await),
            _ => assert_eq!(refused(&desk, body.clone()).await.json()["code"], "unknown_lora"),
        }
    }
}

/// Files that take a while to read are read too, in portions and once.
#[tokio::test]
async fn the_numbers_of_large_files_are_known_before_a_request_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    for (name, number) in [("sound", 1e-3), ("broken", f32::NAN), ("huge", 3e38)] {
        let file = large(number);
        assert!(file.len() > 16 << 20);
        std::fs::write(dir.path().join(format!("{name}.safetensors")), file).unwrap();
    }
    let desk = Desk::open(&[("loras.dir", dir.path().to_str().unwrap())]).await;
    let state = async |name: &str| {
        let list = desk.get("/v1/loras").await.json();
        let lora = list["data"].as_array().unwrap().iter().find(|lora| lora["name"] == name).unwrap().clone();
        lora["state"].as_str().unwrap().to_owned()
    };
    desk.create(json!({"prompt": "a", "loras": [{"name": "sound"}]})).await;
    for (name, said) in [("broken", "the number NaN"), ("huge", "the number 3e38")] {
        assert_eq!(state(name).await, "available", "a list reads no large file");
        // At first, and when it is known.
        for body in [
            json!({"prompt": "a", "loras": [{"name": "sound"}, {"name": name}]}),
            json!({"prompt": "a", "loras": [{"name": "sound"}, {"name": name}]}),
        ] {
            let errors = refused(&desk, body).await.json()["errors"].clone();
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

/// A LoRA for the embedded model whose last number is this one.
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
