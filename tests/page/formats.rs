//! Tests of choosing the file format in the form and of reusing the format of a generation.

use serde_json::{Value, json};

use crate::{READY, browser::Browser, server::Server};

/// Submits the form and waits for `cards` finished cards; returns the new generation.
async fn submitted(browser: &Browser, server: &Server, cards: usize) -> Value {
    browser.click("#form [type=submit]");
    browser
        .until("it is drawn", &format!("document.querySelectorAll('.card[data-status=succeeded]').length === {cards}"));
    browser.until("its picture is there", "document.querySelector('.card img.picture')?.naturalWidth === 64");
    let id = browser.value("document.querySelector('.card').dataset.id");
    server.json(&format!("/v1/images/{}", id.as_str().unwrap())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_form_has_a_choice_of_formats() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let body = json!({"prompt": "a fox", "steps": 1, "size": "64x64", "output": {"format": "jpeg", "quality": 80, "metadata": "none"}});
    server.ended(&server.accept(&body).await).await;
    browser.open(&server.url("/"));
    browser.until("the page knows the models", READY);
    browser.until("the card is there", "document.querySelector('.card [aria-label=\"Use these settings\"]')");

    // All output settings of the request are kept.
    browser.click(".card [aria-label='Use these settings']");
    assert_eq!(browser.value("document.getElementById('output').value"), "jpeg");
    let output = submitted(&browser, &server, 2).await["params"]["output"].clone();
    assert_eq!(output, json!({"format": "jpeg", "quality": 80, "metadata": "none"}));

    // Choosing another format drops the quality and keeps the level of metadata.
    browser.fill("#output", "webp");
    let generation = submitted(&browser, &server, 3).await;
    assert_eq!(generation["params"]["output"], json!({"format": "webp", "metadata": "none"}));
    assert_eq!(generation["images"][0]["content_type"], "image/webp");
    let download = browser.value("document.querySelector('.card .actions a').download");
    assert!(download.as_str().unwrap().ends_with(".webp"), "{download}");

    browser.click("#extras [data-extra=output] button");
    browser.fill("#output", "png");
    let output = submitted(&browser, &server, 4).await["params"]["output"].clone();
    assert_eq!(output, json!({"format": "png", "metadata": "full"}));

    let command = |request: Value| {
        let script = format!("import(new URL('curl.js', location.href)).then(curl => curl.command({request}))");
        browser.value(&script).as_str().unwrap().to_owned()
    };
    for (format, extension) in [("jpeg", "jpg"), ("webp", "webp"), ("png", "png")] {
        let command = command(json!({"prompt": "a fox", "output": {"format": format}}));
        assert!(command.starts_with(&format!("curl -f -o a-fox.{extension} ")), "{command}");
        assert!(command.ends_with(&format!("/v1/images.{extension}")), "{command}");
    }
    assert_eq!(browser.complaints(), [""; 0]);
}
