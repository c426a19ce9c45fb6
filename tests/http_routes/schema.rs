//! Tests of `/v1/models/{id}/schema`: the schema of a model and the server accept the same requests.

use std::{path::Path, process::Command};

use base64::{Engine, engine::general_purpose::STANDARD};
use latentd::generation::FIELDS;
use serde_json::{Map, Value, json};

use crate::{
    api::{TestApi, post},
    transformers,
};

/// A server with the models of the compact fixtures and with small transformers, and the folder of its models.
async fn api() -> (TestApi, tempfile::TempDir) {
    let folder = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity").join(name);
    let (models, nets) = (tempfile::tempdir().unwrap(), folder("controlnets"));
    let copied = Command::new("cp").arg("-RL").arg(folder("pipelines").join(".")).arg(models.path()).status();
    assert!(copied.unwrap().success());
    transformers::put_models(&transformers::NAMES, models.path());
    let settings = [("models.dir", models.path().to_str().unwrap()), ("controlnets.dir", nets.to_str().unwrap())];
    (TestApi::open(&settings).await, models)
}

async fn schema(api: &TestApi, model: &str) -> Value {
    let answer = api.get(&format!("/v1/models/{model}/schema")).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/schema+json"));
    answer.json()
}

fn picture() -> Value {
    let mut file = Vec::new();
    let encoder = png::Encoder::new(&mut file, 8, 8);
    encoder.write_header().unwrap().write_image_data(&[120; 64]).unwrap();
    json!({"b64": STANDARD.encode(file)})
}

/// `base` with `fields` added; a field with the value null is removed.
fn request(base: &Value, fields: &Value) -> Value {
    let mut request = base.as_object().unwrap().clone();
    for (name, value) in fields.as_object().unwrap() {
        request.insert(name.clone(), value.clone());
    }
    request.retain(|_, value| !value.is_null());
    Value::Object(request)
}

/// Panics unless both the schema and the server accept the request (`valid`) or both refuse it.
async fn judge(api: &TestApi, schema: &Value, request: &Value, valid: bool) {
    let fits = jsonschema::draft202012::is_valid(schema, request);
    let answer = api.ask(post(request, &[])).await;
    assert_eq!((answer.status, fits), (if valid { 202 } else { 422 }, valid), "{request}: {}", answer.text());
}

#[tokio::test]
async fn the_schema_and_the_server_agree_on_requests_for_any_model() {
    let (api, _models) = api().await;
    let (image, mask) = (picture(), picture());
    let of_all = [
        (json!({}), true),
        (json!({"prompt": null}), false),
        (json!({"prompt": 7}), false),
        (json!({"prompt": "x".repeat(10_001)}), false),
        (json!({"color": "red"}), false),
        (json!({"model": "another"}), false),
        (json!({"n": 8, "steps": 999, "seed": i64::MAX, "guidance_scale": 30, "clip_skip": 0}), true),
        (json!({"n": 11}), false),
        (json!({"n": 1.5}), false),
        (json!({"n": 2.0}), true),
        (json!({"steps": 0}), false),
        (json!({"steps": null, "num_inference_steps": 3}), true),
        (json!({"num_inference_steps": 3}), false),
        (json!({"width": 68}), false),
        (json!({"width": null, "height": null, "size": "64x64"}), true),
        (json!({"width": null, "height": null, "size": "64by64"}), false),
        (json!({"size": "64x64"}), false),
        (json!({"sigmas": [2, 1, 0], "steps": null, "scheduler": "euler"}), true),
        (json!({"sigmas": [], "steps": null}), false),
        (json!({"sigmas": [-1], "steps": null}), false),
        (json!({"timesteps": [900, 1.5], "steps": null}), false),
        (json!({"sigmas": [1], "timesteps": [9], "steps": null}), false),
        (json!({"guidance_interval": [0.2, 0.8]}), true),
        (json!({"guidance_interval": [0.2]}), false),
        (json!({"guidance_interval": [0, 1.5]}), false),
        (json!({"eta": 1.1}), false),
        (json!({"seed": -1}), false),
        (json!({"seed_mode": "each"}), false),
        (json!({"scheduler": {"steps_offset": 1}}), true),
        (json!({"scheduler": 7}), false),
        (json!({"loras": [], "controls": []}), true),
        (json!({"loras": [{"scale": 1}]}), false),
        (json!({"loras": [{"name": "a", "scale": 9}]}), false),
        (json!({"controls": [{"model": "a"}]}), false),
        (json!({"controls": [{"model": "a", "image": image, "strength": 1}]}), false),
        (json!({"feature_cache": {"kind": "deepcache", "interval": 3}}), true),
        (json!({"feature_cache": {"kind": "deepcache"}}), false),
        (json!({"feature_cache": {"kind": "deepcache", "interval": 1}}), false),
        (json!({"output": {"format": "jpeg", "quality": 80, "metadata": "seed"}}), true),
        (json!({"output": {"format": "gif"}}), false),
        (json!({"output": {"format": "jpeg", "quality": 0}}), false),
        (json!({"output": "png"}), false),
        (json!({"previews": 10, "priority": "high", "on_disconnect": "keep"}), true),
        (json!({"previews": 11}), false),
        (json!({"priority": "top"}), false),
        (json!({"start_timeout_s": 0}), false),
        (json!({"run_timeout_s": 3601}), false),
        (json!({"metadata": {"a": "b"}}), true),
        (json!({"metadata": {"a": 1}}), false),
        (json!({"metadata": {"": "b"}}), false),
        (json!({"webhook": {"endpoint": "x", "url": "https://example.org/"}}), false),
        (json!({"webhook": {"url": "https://example.org/", "events": []}}), false),
        (json!({"image": {"url": "https://example.org/fox.png"}}), false),
        (json!({"image": {"b64": "aGk=", "upload": "0".repeat(64)}}), false),
        (json!({"mask_blur": 1, "mask": null}), false),
        (json!({"mask": mask, "image": null}), false),
    ];
    for model in ["sd1", "sdxl", "ip2p", "sd1-inpaint"] {
        let schema = schema(&api, model).await;
        let base = match model {
            "ip2p" => json!({"image": image}),
            "sd1-inpaint" => json!({"image": image, "mask": mask}),
            _ => json!({}),
        };
        let small = json!({"model": model, "prompt": "a fox", "width": 64, "height": 64, "steps": 4});
        let base = request(&small, &base);
        for (fields, valid) in &of_all {
            judge(&api, &schema, &request(&base, fields), *valid).await;
        }
        let without = request(&base, &json!({"model": null}));
        assert!(
            !jsonschema::draft202012::is_valid(&schema, &without),
            "the schema requires `model`, because another model is the default"
        );
    }
}

#[tokio::test]
async fn the_schema_and_the_server_agree_on_requests_for_single_models() {
    let (api, _models) = api().await;
    let (image, mask) = (picture(), picture());
    let size = json!([64, 64]);
    for (model, fields, valid) in [
        ("emoji", json!({"model": null}), true),
        ("emoji", json!({"decoder": "tiny"}), true),
        ("emoji", json!({"clip_skip": 5}), false),
        ("sd1", json!({"decoder": "tiny"}), false),
        ("sd1", json!({"image": image, "strength": 0.5}), true),
        ("sd1", json!({"image": image, "strength": 0}), false),
        ("sd1", json!({"strength": 0.5}), false),
        ("sd1", json!({"image": image, "image_guidance_scale": 2}), false),
        ("sd1", json!({"image": image, "mask": mask, "mask_blur": 4, "padding_mask_crop": 8}), true),
        ("sd1", json!({"image": image, "mask": mask, "mask_blur": 65}), false),
        ("sd1", json!({"prompt_2": "ink"}), false),
        ("sd1", json!({"refiner": {"model": "sdxl"}}), false),
        ("ip2p", json!({"image": image, "image_guidance_scale": 2}), true),
        ("ip2p", json!({"image": image, "image_guidance_scale": 0.5}), false),
        ("ip2p", json!({"image": image, "strength": 0.5}), false),
        ("ip2p", json!({}), false),
        ("ip2p", json!({"image": image, "mask": mask}), false),
        ("sd1-inpaint", json!({"image": image}), false),
        ("sd1-inpaint", json!({}), false),
        ("sdxl", json!({"prompt_2": "ink", "original_size": size, "crop_top_left": [0, 8]}), true),
        ("sdxl", json!({"original_size": [64]}), false),
        ("sdxl", json!({"original_size": [0, 64]}), false),
        ("sdxl", json!({"aesthetic_score": 11}), false),
        ("sdxl", json!({"denoising_end": 0.5}), true),
        ("sdxl", json!({"denoising_end": 1}), false),
        ("sdxl", json!({"refiner": {"model": "sdxl", "switch_at": 0.5}}), true),
        ("sdxl", json!({"refiner": {"model": "sdxl", "switch_at": 0}}), false),
        ("sdxl", json!({"refiner": {"switch_at": 0.5}}), false),
        ("sdxl", json!({"refiner": {"model": "sdxl"}, "denoising_end": 0.5}), false),
        ("sdxl", json!({"refiner": {"model": "sdxl"}, "timesteps": [900, 400], "steps": null}), false),
    ] {
        let schema = schema(&api, model).await;
        let small = json!({"model": model, "prompt": "a fox", "width": 64, "height": 64, "steps": 4});
        judge(&api, &schema, &request(&small, &fields), valid).await;
    }
}

#[tokio::test]
async fn the_schema_and_the_server_agree_on_requests_for_transformers() {
    let (api, _models) = api().await;
    let (image, mask) = (picture(), picture());
    let pictures = |count: usize| Value::from(vec![picture(); count]);
    for (model, fields, valid) in [
        ("flux-dev", json!({"true_guidance_scale": 2, "guidance_scale": 4, "prompt_2": "ink"}), true),
        ("flux-dev", json!({"true_guidance_scale": 31}), false),
        ("flux-dev", json!({"max_sequence_length": 512}), true),
        ("flux-dev", json!({"max_sequence_length": 513}), false),
        ("flux-dev", json!({"max_sequence_length": 0}), false),
        ("flux-dev", json!({"prompt_3": "ink"}), false),
        ("flux-dev", json!({"prompt_syntax": "weighted"}), false),
        ("flux-dev", json!({"feature_cache": {"kind": "deepcache", "interval": 3}}), false),
        ("flux-dev", json!({"image": image, "strength": 0.5}), true),
        ("flux-dev", json!({"image": pictures(2)}), false),
        ("schnell", json!({"true_guidance_scale": 2}), true),
        ("schnell", json!({"guidance_scale": 2}), false),
        ("sd35", json!({"prompt_2": "ink", "prompt_3": "a boat", "negative_prompt_3": ""}), true),
        ("sd35", json!({"skip_guidance_layers": [0, 3], "skip_layer_guidance_stop": 0.5}), true),
        ("sd35", json!({"skip_guidance_layers": [4]}), false),
        ("sd35", json!({"skip_guidance_layers": []}), false),
        ("sd35", json!({"skip_layer_guidance_scale": 2}), false),
        ("sd35", json!({"cfg_normalization": true}), false),
        ("sd35", json!({"true_guidance_scale": 2}), false),
        ("z-image", json!({"cfg_normalization": true, "cfg_truncation": 0.5}), true),
        ("z-image", json!({"cfg_truncation": 1.5}), false),
        ("z-image", json!({"prompt_2": "ink"}), false),
        ("pixart-alpha", json!({"max_sequence_length": 300}), true),
        ("pixart-alpha", json!({"image": image}), false),
        ("flux2-klein", json!({"image": image}), true),
        ("flux2-klein", json!({"image": pictures(1)}), true),
        ("flux2-klein", json!({"image": pictures(4)}), true),
        ("flux2-klein", json!({"image": pictures(5)}), false),
        ("flux2-klein", json!({"image": pictures(0)}), false),
        ("flux2-klein", json!({"image": [7]}), false),
        ("flux2-klein", json!({"image": image, "strength": 0.5}), false),
        ("flux2-klein", json!({"image": image, "mask": mask, "strength": 0.5}), true),
    ] {
        let schema = schema(&api, model).await;
        let small = json!({"model": model, "prompt": "a fox", "width": 64, "height": 64, "steps": 4});
        judge(&api, &schema, &request(&small, &fields), valid).await;
        let mut absent = small.clone();
        schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .filter(|name| !["model", "prompt"].contains(&name.as_str()))
            .for_each(|name| absent[name] = Value::Null);
        assert!(jsonschema::draft202012::is_valid(&schema, &absent), "null counts as absent: {absent}");
    }
}

/// The schedulers that the card of a model lists can draw with the model, and all others are refused.
#[tokio::test]
async fn a_card_lists_the_schedulers_that_fit_the_model() {
    let (api, _models) = api().await;
    let all = api.get("/v1/schedulers").await.json();
    let all: Vec<&str> = all["data"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    for (model, fewer) in [("emoji", false), ("flux-dev", true), ("z-image", true)] {
        let card = api.get(&format!("/v1/models/{model}")).await.json()["capabilities"].clone();
        let listed = card["schedulers"].as_array().unwrap();
        assert_eq!((listed.len() < all.len(), listed.contains(&"flow_euler".into())), (fewer, true), "{model}");
        for name in &all {
            let request = json!({"model": model, "prompt": "a fox", "width": 64, "height": 64, "scheduler": name});
            let answer = api.ask(post(&request, &[])).await;
            let about = answer.json()["errors"][0]["pointer"].clone();
            let is_of_scheduler = about.as_str().is_some_and(|pointer| pointer.starts_with("/scheduler"));
            let fits = answer.status == 202 || !is_of_scheduler || model == "emoji";
            assert_eq!(fits, listed.contains(&(*name).into()), "{request}: {}", answer.text());
        }
    }
}

/// A request that contains the defaults of the schema is the same as a request without them.
#[tokio::test]
async fn the_defaults_of_the_schema_are_those_of_the_server() {
    let (api, _models) = api().await;
    for model in ["emoji", "sd1", "sdxl", "ip2p", "sd1-inpaint"].into_iter().chain(transformers::NAMES) {
        let schema = schema(&api, model).await;
        assert!(jsonschema::meta::is_valid(&schema), "{schema}");
        let properties = schema["properties"].as_object().unwrap();
        let known = properties.keys().filter(|name| FIELDS.iter().any(|field| field.name == *name)).count();
        assert_eq!(known, properties.len());
        let base = json!({"model": model, "prompt": "a", "seed": 1});
        let brings = match model {
            "ip2p" => json!({"image": picture(), "width": 64, "height": 64}),
            "sd1-inpaint" => json!({"image": picture(), "mask": picture(), "width": 64, "height": 64}),
            _ => json!({}),
        };
        let base = request(&base, &brings);
        let needed =
            |property: &Value| property.get("x-needs").is_none_or(|name| base.get(name.as_str().unwrap()).is_some());
        let defaults: Map<String, Value> = properties
            .iter()
            .filter(|(_, property)| needed(property))
            .filter_map(|(name, property)| Some((name.clone(), property.get("default")?.clone())))
            .collect();
        assert!(defaults.len() >= 15, "{defaults:?}");
        let said = request(&Value::Object(defaults), &base);
        let shown = async |body: &Value| {
            let id = api.create(body.clone()).await;
            let shown = api.get(&format!("/v1/images/{id}")).await.json();
            let fields = ["params", "priority", "run_timeout_s", "metadata"];
            fields.map(|name| shown[name].clone())
        };
        assert_eq!(shown(&said).await, shown(&base).await, "{said}");
    }
}

#[tokio::test]
async fn the_schema_names_the_classes_that_have_names() {
    let (api, _models) = api().await;
    let dit = schema(&api, "dit").await["properties"]["class_label"]["x-classes"].clone();
    assert_eq!((dit.as_array().unwrap().len(), &dit[7]), (1000, &json!("class 7")));
    for model in ["classifier-guidance", "consistency"] {
        let properties = schema(&api, model).await["properties"].clone();
        assert_eq!((properties.get("prompt"), properties["class_label"].get("x-classes")), (None, None), "{model}");
    }
}

#[tokio::test]
async fn an_unavailable_model_has_no_schema() {
    let models = tempfile::tempdir().unwrap();
    std::fs::write(models.path().join("old.ckpt"), b"PK").unwrap();
    let api = TestApi::open(&[("models.dir", models.path().to_str().unwrap())]).await;
    for path in ["none/schema", "schema", "old/schema", "emoji/schema/schema"] {
        let answer = api.get(&format!("/v1/models/{path}")).await;
        assert_eq!((answer.status, &answer.json()["code"]), (404, &json!("not_found")), "{path}");
    }
}
