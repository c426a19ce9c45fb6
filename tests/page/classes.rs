//! Tests of the form with models without a prompt and with class-conditional models, and of the fields that it has.

use std::{fs, path::Path};

use latentd::generation::FIELDS;
use serde_json::{Value, json};

use crate::{READY, browser::Browser, server::Server};

async fn start(data: &Path) -> Server {
    let pipelines = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity/pipelines");
    Server::start(data, &[("LATENTD_MODELS__DIR", pipelines.to_str().unwrap())]).await
}

/// Whether each of these fields of the form is visible.
fn visible_fields(browser: &Browser, names: &[&str]) -> Vec<bool> {
    let script = "document.getElementById('settings').open = true;\
                  NAMES.map(name => document.getElementById(name).checkVisibility())";
    serde_json::from_value(browser.value(&script.replace("NAMES", &json!(names).to_string()))).unwrap()
}

/// Selects a model and fires the event of a user's choice.
fn choose(browser: &Browser, model: &str) {
    browser.fill("#model", model);
    browser.value("document.getElementById('model').dispatchEvent(new Event('change', { bubbles: true }))");
}

/// Submits the form; returns the generation after it has ended.
async fn submitted(browser: &Browser, server: &Server) -> Value {
    let before = browser.value("document.querySelectorAll('.card').length");
    browser.click("#form [type=submit]");
    browser.until(
        "it is drawn",
        &format!(
            "document.querySelectorAll('.card').length > {before} && \
             document.querySelector('.card:first-child[data-status=succeeded]')"
        ),
    );
    let id = browser.value("document.querySelector('.card').dataset.id");
    server.json(&format!("/v1/images/{}", id.as_str().unwrap())).await
}

const FIELDS_OF_KINDS: [&str; 6] =
    ["prompt", "negative_prompt", "suggestions", "guidance_scale", "class_label", "class_guidance_scale"];

#[tokio::test(flavor = "multi_thread")]
async fn the_form_shows_the_fields_of_the_model() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    browser.open(&server.url("/"));
    browser.until("the page knows the models", READY);
    assert_eq!(visible_fields(&browser, &FIELDS_OF_KINDS), [true, true, true, true, false, false]);
    browser.fill("#prompt", "a red fox");
    browser.fill("#negative_prompt", "blurry");

    choose(&browser, "ddpm");
    assert_eq!(visible_fields(&browser, &FIELDS_OF_KINDS), [false; 6]);
    let fields = "['width', 'height', 'steps'].map(name => Number(document.getElementById(name).value))";
    let schema = server.json("/v1/models/ddpm/schema").await;
    let card = server.json("/v1/models/ddpm").await["capabilities"].clone();
    let defaults = ["default_width", "default_height", "default_steps"].map(|name| card[name].clone());
    assert_eq!(browser.value(fields), json!(defaults));
    let bounds = "['min', 'max', 'step'].map(bound => Number(document.getElementById('width')[bound]))";
    let width = &schema["properties"]["width"];
    assert_eq!(browser.value(bounds), json!(["minimum", "maximum", "multipleOf"].map(|bound| width[bound].clone())));
    browser.fill("#steps", "2");
    let params = submitted(&browser, &server).await["params"].clone();
    assert_eq!((&params["model"], &params["prompt"], &params["steps"]), (&json!("ddpm"), &json!(""), &json!(2)));

    choose(&browser, "dit");
    assert_eq!(visible_fields(&browser, &FIELDS_OF_KINDS), [false, false, false, true, true, false]);
    let names = "[...document.querySelectorAll('#classes option')].map(option => option.value)";
    let all: Vec<String> = (0..1000).map(|class| format!("class {class}")).collect();
    assert_eq!(browser.value(names), json!(all));
    browser.fill("#steps", "2");
    browser.click("#form [type=submit]");
    browser.until("the class is asked for", "!document.getElementById('class_label-error').hidden");
    assert_eq!(browser.value("document.activeElement.id"), "class_label");
    for (text, class) in [("class 7", 7), ("207", 207)] {
        browser.fill("#class_label", text);
        let params = submitted(&browser, &server).await["params"].clone();
        assert_eq!(params["class_label"], json!([class]));
        let words = browser.value("document.querySelector('.card .words').textContent");
        assert_eq!(words, format!("class {class}"));
    }

    choose(&browser, "classifier-guidance");
    assert_eq!(visible_fields(&browser, &FIELDS_OF_KINDS), [false, false, false, false, true, true]);
    assert_eq!(browser.value(names), json!([]), "its classes have no names");
    assert_eq!(browser.value("document.getElementById('class_guidance_scale').value"), "1");
    browser.fill("#class_label", "4");
    browser.fill("#class_guidance_scale", "2.5");
    browser.fill("#steps", "2");
    let params = submitted(&browser, &server).await["params"].clone();
    assert_eq!((&params["class_label"], &params["class_guidance_scale"]), (&json!([4]), &json!(2.5)));

    // The text for models with a prompt is still there, also after the page is loaded again.
    browser.open(&server.url("/"));
    browser.until("the page knows the models", READY);
    assert_eq!(browser.value("document.getElementById('class_label').value"), "4");
    choose(&browser, "emoji");
    assert_eq!(visible_fields(&browser, &FIELDS_OF_KINDS), [true, true, true, true, false, false]);
    assert_eq!(browser.value("document.getElementById('prompt').value"), "a red fox");
    assert_eq!(browser.value("document.getElementById('negative_prompt').value"), "blurry");
    // Chromium logs the answer 422.
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|complaint| complaint.contains("422")), "{complaints:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn class_labels_of_a_generation_are_reused() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    for (body, text) in [
        (json!({"model": "consistency", "class_label": [1, 5], "n": 2, "steps": 2}), "[1,5]"),
        (json!({"model": "consistency", "class_label": 3, "n": 2, "steps": 2}), "3"),
        (json!({"model": "dit", "class_label": "class 7", "steps": 2}), "class 7"),
        (json!({"model": "classifier-guidance", "class_label": 2, "class_guidance_scale": 3.5, "steps": 2}), "2"),
        (json!({"model": "ddpm", "steps": 2}), ""),
    ] {
        let first = server.ended(&server.accept(&body).await).await;
        assert_eq!(first["status"], "succeeded", "{first}");
        let card = format!(".card[data-id={}]", first["id"].as_str().unwrap());
        browser.open(&server.url("/"));
        browser.until("the page knows the models", READY);
        let again = format!("{card} [aria-label=\"Use these settings\"]");
        browser.until("the card is there", &format!("document.querySelector('{again}')"));
        browser.click(&again);
        if !text.is_empty() {
            assert_eq!(browser.value("document.getElementById('class_label').value"), text);
        }
        assert_eq!(browser.value("document.querySelectorAll('#extras li').length"), 0, "{body}");
        let second = submitted(&browser, &server).await;
        for (field, value) in first["params"].as_object().unwrap().iter().filter(|(field, _)| *field != "previews") {
            assert_eq!(&second["params"][field], value, "{field} of {body}");
        }
    }

    // Reusing one picture of several sends only the class of that picture.
    let several = json!({"model": "consistency", "class_label": [1, 5], "n": 2, "steps": 2, "seed": 9});
    let first = server.ended(&server.accept(&several).await).await;
    let card = format!(".card[data-id={}]", first["id"].as_str().unwrap());
    browser.open(&server.url("/"));
    browser.until("the pictures are there", &format!("document.querySelectorAll('{card} img.picture').length === 2"));
    browser.click(&format!("{card} .tile:nth-child(2)"));
    browser.until("the large view is open", "document.getElementById('large').open");
    assert_eq!(browser.value("document.getElementById('large-prompt').textContent"), "class 5");
    browser.click("#large [data-do=use]");
    let params = submitted(&browser, &server).await["params"].clone();
    assert_eq!((&params["class_label"], &params["n"], &params["seed"]), (&json!([5]), &json!(1), &json!(10)));
    assert_eq!(browser.complaints(), [""; 0]);
}

/// Each field of a request is in the form or in this list. The page keeps the fields of the list when the settings of a
/// generation are reused (`web/extras.js`).
#[test]
fn every_field_is_in_the_form_or_kept_as_an_extra() {
    let kept = [
        "prompt_syntax",
        "num_inference_steps",
        "size",
        "sigmas",
        "timesteps",
        "guidance_rescale",
        "guidance_interval",
        "true_guidance_scale",
        "cfg_normalization",
        "cfg_truncation",
        "skip_guidance_layers",
        "skip_layer_guidance_scale",
        "skip_layer_guidance_start",
        "skip_layer_guidance_stop",
        "max_sequence_length",
        "eta",
        "seed_mode",
        "image",
        "strength",
        "image_guidance_scale",
        "mask",
        "mask_blur",
        "mask_invert",
        "padding_mask_crop",
        "keep_unmasked",
        "loras",
        "controls",
        "clip_skip",
        "decoder",
        "feature_cache",
        "precision",
        "prompt_2",
        "negative_prompt_2",
        "prompt_3",
        "negative_prompt_3",
        "original_size",
        "crop_top_left",
        "target_size",
        "negative_original_size",
        "negative_crop_top_left",
        "negative_target_size",
        "aesthetic_score",
        "negative_aesthetic_score",
        "denoising_end",
        "refiner",
        "on_disconnect",
        "priority",
        "start_timeout_s",
        "run_timeout_s",
        "webhook",
        "metadata",
        // The page always requests its own number of previews.
        "previews",
    ];
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("web/index.html")).unwrap();
    for field in FIELDS {
        let has = page.contains(&format!(" name=\"{}\"", field.name));
        assert!(has != kept.contains(&field.name), "{}: in the form {has}", field.name);
    }
    assert!(kept.iter().all(|name| FIELDS.iter().any(|field| field.name == *name)));
}
