//! Tests of the controls that the page makes from the schema of a model: its add-ons, and all other fields.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{READY, browser::Browser, faults, server::Server};

async fn start(data: &Path) -> Server {
    let parity = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity");
    let folder = |name: &str| parity.join(name).to_str().unwrap().to_owned();
    let (models, controls, loras) = (folder("pipelines"), folder("controlnets"), folder("adapters"));
    let settings =
        [("LATENTD_MODELS__DIR", models), ("LATENTD_CONTROLNETS__DIR", controls), ("LATENTD_LORAS__DIR", loras)];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Server::start(data, &settings).await
}

/// Selects a model as a user does.
fn choose(browser: &Browser, model: &str) {
    browser.fill("#model", model);
    browser.value("document.getElementById('model').dispatchEvent(new Event('change', { bubbles: true }))");
}

/// The fields of the request beside the fixed fields of the form, as the page stores them.
fn extras(browser: &Browser) -> Value {
    browser.value("JSON.parse(localStorage.getItem('latentd.form')).extras")
}

fn options(browser: &Browser, selector: &str) -> Value {
    browser
        .value(&format!("[...document.querySelectorAll({} + ' option')].map(option => option.value)", json!(selector)))
}

/// Each field of each model has one control, except fields that are a second name of another field.
#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_every_model_has_a_control() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    browser.open(&server.url("/"));
    browser.until("the page knows the models", READY);
    let models = server.json("/v1/models").await["data"].clone();
    let usable = models.as_array().unwrap().iter().filter(|model| !model["capabilities"].is_null());
    let mut seen = BTreeSet::new();
    for model in usable.map(|model| model["id"].as_str().unwrap()) {
        let schema = server.json(&format!("/v1/models/{model}/schema")).await;
        choose(&browser, model);
        let shown = "[...document.querySelectorAll('#form [id$=\"-error\"]')].map(place => place.id.replace(/-error$/, '')) \
            .filter(name => !name.includes('.') || name.startsWith('output.'))";
        let shown: Vec<String> = serde_json::from_value(browser.value(shown)).unwrap();
        for (name, property) in schema["properties"].as_object().unwrap() {
            // A field with a single value has no control.
            let values =
                property["enum"].as_array().map(|values| values.iter().filter(|value| !value.is_null()).count());
            let has_choice = values.is_none_or(|values| values > 1)
                && (property["minimum"].is_null() || property["minimum"] != property["maximum"]);
            let is_alias = ["size", "num_inference_steps", "previews"].contains(&name.as_str());
            // Models without an add-on that fits have no control for it. The fields of the mask appear with a mask.
            let waits = ["loras", "controls", "refiner", "strength", "image_guidance_scale"].contains(&name.as_str())
                || name.contains("mask");
            let controls = shown.iter().filter(|shown| *shown == name).count();
            assert!(controls <= 1, "{controls} controls for {name} of {model}");
            assert!(!has_choice || is_alias || waits || controls == 1, "no control for {name} of {model}");
            seen.insert(name.clone());
        }
        assert!(["output.quality", "output.metadata"].iter().all(|name| shown.iter().any(|shown| shown == name)));
    }
    assert!(["prompt_2", "sigmas", "metadata", "webhook", "class_label"].iter().all(|name| seen.contains(*name)));
    assert_eq!(faults(&browser), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_all_kinds_reach_the_request() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    browser.open(&server.url("/"));
    browser.until("the page knows the models", READY);
    browser.fill("#prompt", "a red fox");
    for (field, text) in [
        ("steps", "2"),
        ("clip_skip", "1"),
        ("guidance_rescale", "0.25"),
        ("decoder", "tiny"),
        ("guidance_interval", "0.2, 0.8"),
        ("feature_cache.interval", "3"),
        ("metadata", "album: animals\nnote: a: b"),
        ("run_timeout_s", "77"),
        ("seed_mode", "batch"),
        ("output.metadata", "seed"),
    ] {
        browser.fill(&format!("[id='{field}']"), text);
    }
    let wanted = json!({
        "clip_skip": 1, "guidance_rescale": 0.25, "decoder": "tiny", "guidance_interval": [0.2, 0.8],
        "feature_cache": {"kind": "deepcache", "interval": 3}, "metadata": {"album": "animals", "note": "a: b"},
        "run_timeout_s": 77, "seed_mode": "batch", "output": {"metadata": "seed"},
    });
    assert_eq!(extras(&browser), wanted);
    browser.click("#form [type=submit]");
    browser.until("it is drawn", "document.querySelector('.card[data-status=succeeded]')");
    let generation = server.json("/v1/images").await["data"][0].clone();
    for (name, value) in wanted.as_object().unwrap() {
        let got = if generation["params"][name].is_null() { &generation[name] } else { &generation["params"][name] };
        let got = if name == "output" { json!({"metadata": got["metadata"]}) } else { got.clone() };
        assert_eq!(&got, value, "{name}");
    }

    // The list shows the fields that are set. Fields that have their defaults again, and fields that were removed, are
    // not in the request.
    browser.fill("#decoder", "full");
    browser.fill("#clip_skip", "");
    browser.fill("[id='feature_cache.interval']", "");
    for name in ["metadata", "output", "seed_mode", "run_timeout_s"] {
        browser.click(&format!("#extras [data-extra={name}] button"));
    }
    assert_eq!(extras(&browser), json!({"guidance_rescale": 0.25, "guidance_interval": [0.2, 0.8]}));
    let values =
        "['metadata', 'output.metadata', 'seed_mode', 'run_timeout_s'].map(id => document.getElementById(id).value)";
    assert_eq!(browser.value(values), json!(["", "full", "per_image", ""]));
    assert_eq!(faults(&browser), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_shown_at_their_fields() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    browser.open(&server.url("/"));
    browser.until("the page knows the models", READY);
    browser.fill("#prompt", "a red fox");
    for (field, text) in
        [("sigmas", "3, two, 1"), ("run_timeout_s", "0"), ("feature_cache.interval", "99"), ("output.quality", "300")]
    {
        browser.fill(&format!("[id='{field}']"), text);
    }
    browser.click("#loras");
    browser.fill("[id='loras.0.scale']", "9");
    browser.click("#controls");
    browser.value("for (const part of document.querySelectorAll('#form details')) part.open = false");
    browser.click("#form [type=submit]");
    browser.until("the errors are there", "document.querySelector('#form [aria-invalid]')");
    let errors = "Object.fromEntries([...document.querySelectorAll('#form .error:not([hidden])')] \
        .map(place => [place.id, place.textContent]))";
    let errors: BTreeMap<String, String> = serde_json::from_value(browser.value(errors)).unwrap();
    let fields =
        ["sigmas", "run_timeout_s", "feature_cache.interval", "output.quality", "loras.0.scale", "controls.0.image"];
    let places: BTreeSet<String> = fields.iter().map(|field| format!("{field}-error")).collect();
    assert_eq!(errors.keys().cloned().collect::<BTreeSet<_>>(), places, "{errors:?}");
    assert!(errors["run_timeout_s-error"].contains("between 1 and 3600"), "{errors:?}");
    // The first of them has the focus, in a section that is open now.
    assert_eq!(browser.value("document.activeElement.checkVisibility() && document.activeElement.id"), "loras.0.scale");
    browser.fill("[id='loras.0.scale']", "1");
    assert_eq!(browser.value("document.getElementById('loras.0.scale-error').hidden"), true);
    assert_eq!(server.json("/v1/images").await["data"], json!([]));
    assert_eq!(faults(&browser), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_add_ons_that_fit_the_model_are_offered() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    browser.open(&server.url("/"));
    browser.until("the page knows the models", READY);

    let mut offered = Vec::new();
    for (model, is_refined) in [("emoji", false), ("sd1", false), ("sdxl", true)] {
        choose(&browser, model);
        let lists = [("loras", "#loras", "loras.0.name"), ("controlnets", "#controls", "controls.0.model")];
        for (list, button, select) in lists {
            let all = server.json(&format!("/v1/{list}")).await["data"].clone();
            let fits = |one: &&Value| {
                one["error"].is_null() && one["models"].as_array().unwrap().iter().any(|name| name == model)
            };
            let names: Vec<Value> =
                all.as_array().unwrap().iter().filter(fits).map(|one| one["name"].clone()).collect();
            let has_control = browser.value(&format!("Boolean(document.querySelector('{button}'))"));
            assert_eq!(has_control, !names.is_empty(), "{list} of {model}");
            if names.is_empty() {
                continue;
            }
            browser.click(button);
            let mut shown: Vec<Value> = serde_json::from_value(options(&browser, &format!("[id='{select}']"))).unwrap();
            shown.retain(|name| name != "");
            assert_eq!(shown, names, "{list} of {model}");
            offered.push((model, list));
            let remove = "document.getElementById(SELECT).closest('.row-of').querySelector('button').click()";
            browser.value(&remove.replace("SELECT", &json!(select).to_string()));
        }
        let has_refiner = browser.value("Boolean(document.getElementById('refiner.model'))");
        assert_eq!(has_refiner, is_refined, "{model}");
    }
    for some in [("emoji", "loras"), ("emoji", "controlnets"), ("sd1", "loras"), ("sd1", "controlnets")] {
        assert!(offered.contains(&some), "{some:?}");
    }
    assert_eq!(extras(&browser), json!({}));

    // A refiner, and its removal with all its fields.
    assert_eq!(options(&browser, "[id='refiner.model']"), json!(["", "sdxl"]));
    browser.fill("[id='refiner.model']", "sdxl");
    browser.fill("[id='refiner.switch_at']", "0.6");
    assert_eq!(extras(&browser), json!({"refiner": {"model": "sdxl", "switch_at": 0.6}}));
    browser.fill("[id='refiner.model']", "");
    assert_eq!(extras(&browser), json!({}));

    // The word of a textual inversion goes to the cursor of the prompt. Models that cannot use it do not offer it.
    assert_eq!(browser.value("document.getElementById('words').hidden"), true);
    choose(&browser, "emoji");
    browser.fill("#prompt", "a frog");
    browser.value("document.getElementById('prompt').setSelectionRange(2, 2)");
    browser.click("#words .chip");
    assert_eq!(browser.value("document.getElementById('prompt').value"), "a <teal> frog");

    // A LoRA with a weight, and a ControlNet, whose picture is chosen by dropping it there.
    browser.click("#loras");
    browser.fill("[id='loras.0.scale']", "0.4");
    let name = browser.value("document.getElementById('loras.0.name').value");
    assert_eq!(extras(&browser), json!({"loras": [{"name": name, "scale": 0.4}]}));
    assert_eq!(faults(&browser), [""; 0]);
}

/// The page finds the same edges as the server, and the server finds the same edges as OpenCV.
#[tokio::test(flavor = "multi_thread")]
async fn the_preview_of_a_control_net_has_the_edges_of_the_server() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    browser.open(&server.url("/"));
    browser.until("the page knows the models", READY);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/canny");
    let url = |name: &str| {
        let bytes = fs::read(folder.join(name)).unwrap();
        json!(format!("data:image/png;base64,{}", STANDARD.encode(bytes)))
    };
    for name in ["fields", "shapes"] {
        let wrong = browser.value(&format!(
            "(async () => {{ const {{ canny }} = await import(new URL('canny.js', location.href)); \
             const {{ drawn }} = await import(new URL('picture.js', location.href)); \
             const canvas = async (src) => {{ const image = new Image(); image.src = src; await image.decode(); \
               return drawn(image, image.naturalWidth, image.naturalHeight); }}; \
             const pixels = (canvas) => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data; \
             const made = await canvas({}); canny(made); const wanted = pixels(await canvas({})); \
             const got = pixels(made); return [wanted.includes(0) && wanted.length === got.length, \
               wanted.filter((level, at) => level !== got[at]).length]; }})()",
            url(&format!("{name}.png")),
            url(&format!("{name}_edges.png")),
        ));
        assert_eq!(wrong, json!([true, 0]), "{name}");
    }

    // The control shows the edges after a picture is dropped on it.
    browser.click("#controls");
    browser.value(&format!(
        "{{ const bytes = Uint8Array.from(atob({}.split(',')[1]), (one) => one.charCodeAt(0)); const data = new DataTransfer(); \
         data.items.add(new File([bytes], 'shapes.png', {{ type: 'image/png' }})); \
         document.querySelector('[data-takes-picture] button').dispatchEvent(new DragEvent('drop', {{ bubbles: true, cancelable: true, dataTransfer: data }})); 0 }}",
        url("shapes.png")
    ));
    let label = "document.querySelector('[data-takes-picture] canvas')?.getAttribute('aria-label') === 'The edges that the ControlNet receives'";
    browser.until("the edges are shown", label);
    let control = extras(&browser)["controls"][0].clone();
    assert_eq!((&control["model"], &control["preprocess"]), (&json!("emoji-canny"), &json!("canny")));
    assert_eq!(browser.value("document.querySelector('#source img')"), Value::Null, "it is not the input picture");
    browser.fill("[id='controls.0.preprocess']", "none");
    browser.until("the picture is shown", &format!("!({label})"));
    assert_eq!(faults(&browser), [""; 0]);
}
