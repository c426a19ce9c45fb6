//! Tests of using the cards with the keyboard.

use serde_json::json;

use crate::{
    READY,
    browser::Browser,
    server::{Server, request, with},
};

#[tokio::test(flavor = "multi_thread")]
async fn enter_on_a_card_opens_that_card() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    for (seed, prompt) in (0..).zip(["a red fox", "a green frog", "a blue bird"]) {
        let small = with(request(prompt, seed), &json!({"steps": 1, "size": "64x64"}));
        server.ended(&server.accept(&small).await).await;
    }
    browser.open(&server.url("/"));
    browser.until("the page knows the models", READY);
    browser.until("the cards are there", "document.querySelectorAll('.card .actions a').length === 3");

    // The newest card is the first; each card has a neighbor.
    for (place, prompt) in [(1, "a blue bird"), (2, "a green frog"), (3, "a red fox")] {
        let card = format!(".card:nth-child({place})");
        browser.focus(&card);
        browser.press("Enter");
        browser.until("the large view is open", "document.getElementById('large').open");
        assert_eq!(browser.value("document.getElementById('large-prompt').textContent"), prompt);
        browser.press("Escape");
        browser.until("it is closed", "!document.getElementById('large').open");
        assert_eq!(browser.value(&format!("document.activeElement === document.querySelector('{card}')")), true);
    }

    // Enter on a picture opens the same view, and arrow keys move to the next card.
    browser.focus(".card:nth-child(1) .tile");
    browser.press("Enter");
    browser.until("the large view is open", "document.getElementById('large').open");
    assert_eq!(browser.value("document.getElementById('large-prompt').textContent"), "a blue bird");
    browser.press("ArrowRight");
    assert_eq!(browser.value("document.getElementById('large-prompt').textContent"), "a green frog");

    // No key press has sent a request for a picture.
    assert_eq!(server.json("/v1/images").await["data"].as_array().unwrap().len(), 3);
    assert_eq!(browser.complaints(), [""; 0]);
}
