//! Tests of "Use these settings": the form sends a request with the settings of an earlier generation.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    READY,
    browser::Browser,
    server::{Server, decode},
};

/// Starts a server with the embedded model and the models of the compact fixtures. Webhooks may go to this machine.
async fn start(data: &Path) -> Server {
    let pipelines = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity/pipelines");
    let secret = format!("whsec_{}", STANDARD.encode([7; 32]));
    let settings = [
        ("LATENTD_MODELS__DIR", pipelines.to_str().unwrap()),
        ("LATENTD_WEBHOOKS__SECRET", &secret),
        ("LATENTD_WEBHOOKS__ALLOW_HOSTS", "127.0.0.1"),
    ];
    Server::start(data, &settings).await
}

fn picture(name: &str) -> Value {
    let inputs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity/inputs");
    json!({"b64": STANDARD.encode(std::fs::read(inputs.join(name)).unwrap())})
}

/// The pixels of every picture.
async fn pixels(server: &Server, generation: &Value) -> Vec<Vec<u8>> {
    let id = generation["id"].as_str().unwrap();
    let mut all = Vec::new();
    for index in 0..generation["images"].as_array().unwrap().len() {
        all.push(decode(&server.picture(id, index).await).2);
    }
    all
}

/// Draws a request; returns the succeeded generation and the selector of its card.
async fn drawn(server: &Server, body: &Value) -> (Value, String) {
    let ended = server.ended(&server.accept(body).await).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let card = format!(".card[data-id={}]", ended["id"].as_str().unwrap());
    (ended, card)
}

/// Waits for a card and clicks its "Use these settings".
fn reuse(browser: &Browser, card: &str) {
    browser
        .until("its card is there", &format!("document.querySelector('{card} [aria-label=\"Use these settings\"]')"));
    browser.click(&format!("{card} [aria-label=\"Use these settings\"]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn reused_settings_draw_the_same_pictures() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    let bodies = [
        json!({
            "prompt": "(a red fox:1.2)", "prompt_syntax": "weighted", "negative_prompt": "blurry", "image": picture("init_64.png"),
            "mask": picture("mask_64.png"), "strength": 0.7, "mask_blur": 3, "mask_invert": true, "keep_unmasked": false,
            "steps": 4, "size": "64x64", "eta": 0.4, "scheduler": {"_class_name": "DDIMScheduler", "timestep_spacing": "trailing"},
            "loras": [{"name": "emoji-flat", "scale": 0.5}], "clip_skip": 1, "guidance_rescale": 0.3, "decoder": "tiny",
            "guidance_interval": [0.1, 0.9], "output": {"metadata": "none"}, "seed": 9007199254740993u64,
        }),
        json!({
            "prompt": "a frog", "scheduler": "euler", "sigmas": [10.0, 5.0, 1.0, 0.0], "n": 2, "seed_mode": "batch",
            "controls": [{"model": "emoji-canny", "image": picture("edges_64.png"), "scale": 0.6, "end": 0.9}], "size": "64x64",
        }),
        // This model distinguishes an empty negative prompt from an absent one.
        json!({
            "model": "sdxl", "prompt": "a fox", "prompt_2": "watercolor", "negative_prompt": "", "size": "64x64", "steps": 3,
            "original_size": [512, 512], "crop_top_left": [8, 16], "negative_target_size": [32, 32], "guidance_scale": 4,
            "refiner": {"model": "sdxl", "switch_at": 0.6, "negative_prompt": "dull"},
        }),
        json!({"model": "sdxl", "prompt": "a fox", "size": "64x64", "steps": 2, "feature_cache": {"kind": "deepcache", "interval": 2}, "output": {"format": "webp"}}),
    ];
    for body in &bodies {
        let (first, card) = drawn(&server, body).await;
        browser.open(&server.url("/"));
        browser.until("the page knows the models", READY);
        reuse(&browser, &card);
        browser.click("#form [type=submit]");
        browser.until(
            "it is drawn",
            &format!("document.querySelector('.card:first-child:not({card})[data-status=succeeded]')"),
        );
        let id = browser.value("document.querySelector('.card').dataset.id");
        let second = server.json(&format!("/v1/images/{}", id.as_str().unwrap())).await;
        for (field, value) in first["params"].as_object().unwrap() {
            if !["previews", "on_disconnect", "start_timeout_s"].contains(&field.as_str()) {
                assert_eq!(&second["params"][field], value, "{field} of {}", first["params"]);
            }
        }
        let expected = pixels(&server, &first).await;
        assert!(expected == pixels(&server, &second).await, "other pictures of {}", second["params"]);
        // The request of the shell command draws the same pictures.
        let request = browser.value(&format!(
            "Promise.all([import(new URL('settings.js', location.href)), import(new URL('json.js', location.href))])\
             .then(([settings, json]) => json.print(settings.request(json.parse({}))))",
            json!(first["params"].to_string())
        ));
        let request: Value = serde_json::from_str(request.as_str().unwrap()).unwrap();
        let (third, _) = drawn(&server, &request).await;
        assert!(expected == pixels(&server, &third).await, "other pictures of {request}");
    }
    assert_eq!(browser.complaints(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_without_a_form_field_are_shown_and_can_be_removed() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    let body = json!({
        "prompt": "a red fox", "image": picture("init_64.png"), "mask": picture("mask_64.png"), "mask_blur": 3, "steps": 3,
        "strength": 0.7, "size": "64x64", "controls": [{"model": "emoji-canny", "image": picture("edges_64.png")}],
        "scheduler": {"_class_name": "DDIMScheduler", "timestep_spacing": "trailing"}, "priority": "high",
    });
    let (_, card) = drawn(&server, &body).await;
    browser.open(&server.url("/"));
    browser.until("the page knows the models", READY);
    let extras =
        || browser.value("[...document.querySelectorAll('#extras li')].map(item => item.dataset.extra).sort()");
    assert_eq!(extras(), json!([]));
    reuse(&browser, &card);
    // The input picture and its mask have a place of their own.
    let all = json!(["controls", "priority", "scheduler"]);
    assert_eq!(extras(), all);
    assert_eq!(browser.value("document.getElementById('extras').checkVisibility()"), true);
    let values = || browser.value("['strength', 'mask_blur'].map(id => document.getElementById(id)?.value ?? null)");
    assert_eq!(values(), json!(["0.7", "3"]));
    let seen =
        "[...document.querySelectorAll('#form img.thumbnail')].filter(image => image.naturalWidth === 64).length === 3";
    browser.until("picture, mask and the control's picture are seen", seen);
    if let Some(file) = std::env::var_os("PAGE_PICTURE") {
        browser.picture(Path::new(&file));
    }

    // The extras are still there after the page is loaded again.
    browser.open(&server.url("/"));
    browser.until("the page knows the models", READY);
    assert_eq!(extras(), all);
    browser.until("the pictures are seen again", seen);

    // Removing the mask or the picture also removes the settings that depend on it. Filling a form field replaces its
    // extra.
    let remove = |name: &str| browser.click(&format!("#extras [data-extra={name}] button"));
    browser.click("#source [aria-label='Remove the mask']");
    assert_eq!(values(), json!(["0.7", null]));
    browser.click("#source [aria-label='Remove the input picture']");
    assert_eq!(values(), json!([null, null]));
    assert_eq!(extras(), all);
    browser.fill("#scheduler", "euler");
    assert_eq!(extras(), json!(["controls", "priority"]));
    remove("controls");
    remove("priority");
    assert_eq!(browser.value("document.getElementById('extras').checkVisibility()"), false);
    assert_eq!(browser.value("document.activeElement.id"), "prompt", "the keyboard goes on at the form");
    browser.click("#form [type=submit]");
    browser.until(
        "it is drawn",
        &format!("document.querySelector('.card:first-child:not({card})[data-status=succeeded]')"),
    );
    let id = browser.value("document.querySelector('.card').dataset.id");
    let second = server.json(&format!("/v1/images/{}", id.as_str().unwrap())).await;
    let params = &second["params"];
    assert_eq!((&params["image"], &params["mask"], &params["controls"]), (&Value::Null, &Value::Null, &json!([])));
    assert_eq!((&params["scheduler"], &second["priority"]), (&json!("euler"), &json!("normal")));
    assert_eq!(browser.complaints(), [""; 0]);
}

/// Settings that do not change the picture are also part of the request.
#[tokio::test(flavor = "multi_thread")]
async fn settings_that_do_not_change_the_picture_are_reused() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    let body = json!({
        "prompt": "a red fox", "steps": 1, "size": "64x64", "run_timeout_s": 77, "start_timeout_s": 500,
        "on_disconnect": "keep", "priority": "low", "metadata": {"album": "animals"},
        // Nothing listens there: the messages are lost, which does not matter here.
        "webhook": {"url": "https://127.0.0.1/hook?token=abc", "events": ["started"]},
    });
    let (first, card) = drawn(&server, &body).await;
    browser.open(&server.url("/"));
    browser.until("the page knows the models", READY);
    reuse(&browser, &card);
    let extras = "[...document.querySelectorAll('#extras li')].map(item => item.dataset.extra).sort()";
    let said = json!(["metadata", "on_disconnect", "priority", "run_timeout_s", "start_timeout_s", "webhook"]);
    assert_eq!(browser.value(extras), said);
    browser.click("#form [type=submit]");
    browser.until(
        "it is drawn",
        &format!("document.querySelector('.card:first-child:not({card})[data-status=succeeded]')"),
    );
    let id = browser.value("document.querySelector('.card').dataset.id");
    let second = server.json(&format!("/v1/images/{}", id.as_str().unwrap())).await;
    for field in ["run_timeout_s", "priority", "metadata", "webhook"] {
        assert_eq!(second[field], first[field], "{field}");
    }
    for (field, value) in first["params"].as_object().unwrap() {
        if field != "previews" {
            assert_eq!(&second["params"][field], value, "{field}");
        }
    }

    // Default values are not shown as extras.
    let (_, card) = drawn(&server, &json!({"prompt": "a frog", "steps": 1, "size": "64x64"})).await;
    browser.open(&server.url("/"));
    browser.until("the page knows the models", READY);
    reuse(&browser, &card);
    assert_eq!(browser.value(extras), json!([]));
    assert_eq!(browser.complaints(), [""; 0]);
}
