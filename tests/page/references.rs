//! Tests of models that take several input pictures, and of what the form offers for models with transformers.

use serde_json::{Value, json};

use crate::{
    browser::Browser,
    faults,
    server::{Server, decode},
    source::{bring, fixture, open, submitted, uploaded},
    transformers,
};

const SHOWN: &str = "document.querySelectorAll('#source img.thumbnail').length";

/// Selects a model as a user does.
fn choose(browser: &Browser, model: &str) {
    browser.fill("#model", model);
    browser.value("document.getElementById('model').dispatchEvent(new Event('change', { bubbles: true }))");
}

fn until_shown(browser: &Browser, count: usize) {
    browser.until(&format!("{count} pictures are there"), &format!("{SHOWN} === {count}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_takes_several_pictures_in_an_order() {
    let Some(browser) = Browser::start() else { return };
    let (data, models) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    transformers::put_models(&["flux2-klein"], models.path());
    let server = Server::start(data.path(), &[("LATENTD_MODELS__DIR", models.path().to_str().unwrap())]).await;
    open(&browser, &server);
    choose(&browser, "flux2-klein");
    browser.fill("#prompt", "make it snow");
    browser.fill("#steps", "1");
    browser.fill("#max_sequence_length", "32");

    let files = ["init_64.png", "edges_64.png", "init_96x64.png"];
    for (count, (file, event)) in files.into_iter().zip(["drop", "paste", "drop"]).enumerate() {
        bring(&browser, event, "#source", "image/png", &fixture(file));
        until_shown(&browser, count + 1);
    }
    let size = "['width', 'height'].map(name => Number(document.getElementById(name).value))";
    assert_eq!(browser.value(size), json!([64, 64]), "the size is that of the first picture");
    assert_eq!(browser.value("document.querySelector('.mask-open')"), Value::Null, "a mask needs a single picture");
    // The third picture moves up, and the first one goes.
    browser.click("#source [aria-label='Move input picture 3 up']");
    browser.click("#source [aria-label='Remove input picture 1']");
    until_shown(&browser, 2);
    assert_eq!(browser.value("document.activeElement.closest('#source') !== null"), true);
    let first = submitted(&browser, &server).await;
    let pictures = first["params"]["image"].as_array().unwrap();
    assert_eq!(pictures.len(), 2);
    assert_eq!(uploaded(&server, &pictures[0]).await, decode(&fixture("init_96x64.png")));
    assert_eq!(uploaded(&server, &pictures[1]).await, decode(&fixture("edges_64.png")));

    // The card gives the pictures back, in their order.
    browser.click("#reset");
    until_shown(&browser, 0);
    browser.click(".card [aria-label='Use these settings']");
    until_shown(&browser, 2);
    let second = submitted(&browser, &server).await;
    assert_eq!(second["params"], first["params"]);
    assert_eq!(second["images"][0]["unsigned_sha256"], first["images"][0]["unsigned_sha256"]);

    // The form survives a new visit.
    open(&browser, &server);
    until_shown(&browser, 2);

    // The model takes four pictures at most.
    for count in [3, 4] {
        bring(&browser, "drop", "main", "image/png", &fixture("init_64.png"));
        until_shown(&browser, count);
    }
    bring(&browser, "drop", "main", "image/png", &fixture("init_64.png"));
    let told = "document.getElementById('toast').textContent.includes('takes at most 4 input pictures')";
    browser.until("the page says so", told);
    assert_eq!(browser.value(SHOWN), 4);

    // A model that takes one picture says that the others must go.
    choose(&browser, "emoji");
    until_shown(&browser, 4);
    assert_eq!(browser.value("document.getElementById('source').textContent.includes('takes one picture')"), true);
    (0..3).for_each(|_| browser.click("#source [aria-label='Remove input picture 1']"));
    until_shown(&browser, 1);
    assert_eq!(browser.value("document.getElementById('source').textContent.includes('takes one picture')"), false);
    assert_eq!(browser.value("document.querySelector('.mask-open') !== null"), true);
    assert_eq!(faults(&browser), [""; 0]);
}

/// The form has the fields of the chosen model that have a choice, and no others.
#[tokio::test(flavor = "multi_thread")]
async fn the_form_offers_what_a_transformer_takes() {
    let Some(browser) = Browser::start() else { return };
    let (data, models) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    transformers::put_models(&transformers::NAMES, models.path());
    let server = Server::start(data.path(), &[("LATENTD_MODELS__DIR", models.path().to_str().unwrap())]).await;
    open(&browser, &server);
    let fields = [
        "true_guidance_scale",
        "guidance_scale",
        "cfg_normalization",
        "skip_guidance_layers",
        "prompt_3",
        "prompt_2",
        "max_sequence_length",
        "clip_skip",
        "feature_cache.kind",
        "decoder",
        "loras",
        "controls",
    ];
    let offered = [
        ("flux-dev", vec!["true_guidance_scale", "guidance_scale", "prompt_2", "max_sequence_length"]),
        ("schnell", vec!["true_guidance_scale", "prompt_2", "max_sequence_length"]),
        (
            "sd35",
            vec!["guidance_scale", "skip_guidance_layers", "prompt_3", "prompt_2", "max_sequence_length", "clip_skip"],
        ),
        ("z-image", vec!["guidance_scale", "cfg_normalization", "max_sequence_length"]),
        ("flux2-klein", vec!["guidance_scale", "max_sequence_length"]),
        ("pixart-alpha", vec!["guidance_scale", "max_sequence_length"]),
    ];
    for (model, wanted) in offered {
        choose(&browser, model);
        let shown = format!(
            "{}.filter(name => {{ const control = document.getElementById(name); \
                return control && !control.closest('#form [hidden]'); }})",
            json!(fields)
        );
        assert_eq!(browser.value(&shown), json!(wanted), "{model}");
        let has_source = browser.value("!document.getElementById('source').hidden");
        assert_eq!(has_source, model != "pixart-alpha", "{model}");
        let card = server.json(&format!("/v1/models/{model}")).await["capabilities"].clone();
        let names = browser.value("[...document.getElementById('scheduler').options].map(one => one.value).slice(1)");
        assert_eq!(names, card["schedulers"], "{model}");
    }
    assert_eq!(faults(&browser), [""; 0]);
}
