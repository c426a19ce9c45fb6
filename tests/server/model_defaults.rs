//! Tests of the defaults of models in each stage that they draw, against pictures by diffusers
//! (`tests/fixtures/refiner`).

use std::{fs, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    harness::{Server, decode, with},
    parity_over_http::case,
};

pub fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// The model `sdxl` of the fixtures, and `plain`, a copy that sets `force_zeros_for_empty_prompt` to false.
fn models() -> tempfile::TempDir {
    let models = case::models(&fixtures().join("parity"), &["sdxl"]);
    let plain = case::models(&fixtures().join("parity"), &["sdxl"]);
    fs::rename(plain.path().join("sdxl"), models.path().join("plain")).unwrap();
    let index = models.path().join("plain/model_index.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    json["force_zeros_for_empty_prompt"] = json!(false);
    fs::write(index, json.to_string()).unwrap();
    models
}

/// Asserts that each channel differs by at most 2 of 255 from the picture by diffusers.
fn assert_equal(picture: &[u8], golden: &str) {
    let (picture, golden_file) = (decode(picture), fs::read(fixtures().join("refiner").join(golden)).unwrap());
    let golden_picture = decode(&golden_file);
    assert_eq!((picture.0, picture.1), (golden_picture.0, golden_picture.1));
    let most = picture.2.iter().zip(&golden_picture.2).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(most <= Some(2), "{golden}: {most:?} levels");
}

#[tokio::test]
async fn the_default_negative_prompt_depends_on_each_model() {
    let (data, models) = (tempfile::tempdir().unwrap(), models());
    let settings = [("LATENTD_MODELS__DIR", models.path().to_str().unwrap()), ("LATENTD_MODELS__DEFAULT", "sdxl")];
    let server = Server::start(data.path(), &settings).await;
    let body = json!({"prompt": "a fox", "seed": 3, "steps": 10, "guidance_scale": 5, "scheduler": "euler",
        "model": "sdxl"});
    let picture = async |more: Value| {
        let id = server.accept(&with(body.clone(), &more)).await;
        let ended = server.ended(&id).await;
        assert_eq!(ended["status"], "succeeded", "{ended}");
        (server.picture(&id, 0).await, ended["params"].clone())
    };
    let refiner = |model: &str| json!({"model": model, "switch_at": 0.5});
    assert_equal(&picture(json!({"refiner": refiner("sdxl")})).await.0, "none.png");
    assert_equal(&picture(json!({"refiner": refiner("plain")})).await.0, "empty.png");
    let empty = with(refiner("sdxl"), &json!({"negative_prompt": ""}));
    assert_equal(&picture(json!({"refiner": empty})).await.0, "empty.png");

    // `plain` uses an empty negative prompt by default. With the refiner `sdxl`, which has another default, the params
    // keep null, so that they draw the same picture when they are sent again.
    let (drawn, params) = picture(json!({"model": "plain", "refiner": refiner("sdxl")})).await;
    assert_eq!(params["negative_prompt"], Value::Null);
    assert_eq!(picture(params).await.0, drawn);
    let (other, params) = picture(json!({"model": "plain", "refiner": refiner("plain")})).await;
    assert_eq!(params["negative_prompt"], "");
    assert_ne!(decode(&other), decode(&drawn));

    // With an input picture, the crop of the negative prompt defaults to the crop of the prompt.
    let image = json!({"b64": STANDARD.encode(fs::read(fixtures().join("parity/inputs/init_64.png")).unwrap())});
    let over = json!({"image": image, "strength": 0.8, "crop_top_left": [16, 8], "negative_original_size": [64, 64]});
    let (drawn, params) = picture(over).await;
    assert_eq!(params["negative_crop_top_left"], json!([16, 8]));
    assert_equal(&drawn, "cropped.png");
}

/// The word of a textual inversion in the model's vocabulary and the same vector in a file draw the same picture.
#[tokio::test]
async fn a_textual_inversion_in_a_model_draws_the_same_as_its_file() {
    let (data, models, words) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let parity = fixtures().join("parity");
    let copied = case::models(&parity, &["sd1"]);
    fs::rename(copied.path().join("sd1"), models.path().join("with")).unwrap();
    let copied = case::models(&parity, &["sd1"]);
    fs::rename(copied.path().join("sd1"), models.path().join("without")).unwrap();
    let word = parity.join("adapters/ti_one.safetensors");
    fs::copy(&word, words.path().join("My-Cat.safetensors")).unwrap();

    let with_word = models.path().join("with");
    fs::write(with_word.join("tokenizer/added_tokens.json"), r#"{"<my-cat>": 994}"#).unwrap();
    let config = with_word.join("text_encoder/config.json");
    let text = fs::read_to_string(&config).unwrap().replace("\"vocab_size\": 994", "\"vocab_size\": 995");
    fs::write(config, text).unwrap();
    let device = candle_core::Device::Cpu;
    let weights = with_word.join("text_encoder/model.safetensors");
    let mut tensors = candle_core::safetensors::load(&weights, &device).unwrap();
    let vector = candle_core::safetensors::load(&word, &device).unwrap().into_values().next().unwrap();
    let name = "text_model.embeddings.token_embedding.weight";
    let rows = candle_core::Tensor::cat(&[&tensors[name], &vector.reshape((1, 32)).unwrap()], 0).unwrap();
    tensors.insert(name.to_owned(), rows);
    candle_core::safetensors::save(&tensors, &weights).unwrap();

    let settings = [
        ("LATENTD_MODELS__DIR", models.path().to_str().unwrap()),
        ("LATENTD_MODELS__DEFAULT", "with"),
        ("LATENTD_EMBEDDINGS__DIR", words.path().to_str().unwrap()),
    ];
    let mut server = Server::start(data.path(), &settings).await;
    let draw = async |server: &Server, model: &str, prompt: &str| {
        let body = json!({"model": model, "prompt": prompt, "seed": 7, "steps": 3, "size": "64x64"});
        let id = server.accept(&body).await;
        let ended = server.ended(&id).await;
        assert_eq!(ended["status"], "succeeded", "{ended}");
        decode(&server.picture(&id, 0).await)
    };
    let file = draw(&server, "without", "a photo of <My-Cat>").await;
    assert_eq!(file, draw(&server, "without", "a photo of <MY-cat>").await, "letter case does not matter");
    assert_ne!(file, draw(&server, "without", "a photo of my cat").await);
    // A prompt of the maximum length that consists of textual inversions must not overflow the stack.
    draw(&server, "without", &"<My-Cat>".repeat(1250)).await;
    assert!(server.is_running());

    // A file takes precedence over the model's own word, so the file is removed first.
    fs::remove_file(words.path().join("My-Cat.safetensors")).unwrap();
    server.kill();
    let server = Server::start(data.path(), &settings).await;
    assert_eq!(draw(&server, "with", "a photo of <My-Cat>").await, file);
}
