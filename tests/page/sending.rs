//! Tests of the requests that the page sends, and of its messages while the server is unreachable.

use serde_json::{Value, json};

use crate::{
    READY,
    browser::Browser,
    server::{Server, request, with},
};

/// JavaScript expression: the number of requests for pictures that the page has sent.
const COUNTED: &str = "window.sent";

/// Counts the page's requests for pictures. Delays the answers for which the JavaScript function `holds` returns true
/// until `release()` is called.
fn watch(browser: &Browser, holds: &str) {
    browser.value(&format!(
        "{{ const real = window.fetch; window.sent = 0; const held = new Promise(done => {{ window.release = done; }}); \
         window.fetch = async (path, options) => {{ \
           if (options?.method === 'POST' && String(path) === 'v1/images') window.sent += 1; \
           const answer = await real(path, options); \
           if (({holds})(String(path), options)) {{ window.holding = true; await held; }} \
           return answer; }}; 0 }}"
    ));
}

fn key(browser: &Browser, selector: &str, held: bool, control: bool) {
    let event = json!({"key": "Enter", "bubbles": true, "cancelable": true, "repeat": held, "ctrlKey": control});
    browser.value(&format!(
        "document.querySelector({}).dispatchEvent(new KeyboardEvent('keydown', {event})) && 0",
        json!(selector)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_key_sends_one_request() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    browser.open(&server.url("/"));
    browser.until("the page knows the models", READY);
    for (field, value) in [("prompt", "a red fox"), ("steps", "1"), ("width", "64"), ("height", "64")] {
        browser.fill(&format!("#{field}"), value);
    }
    watch(&browser, "path => path === 'v1/images'");
    key(&browser, "#prompt", false, true);
    browser.until("the answer is on its way", "window.holding");
    // The key is held, pressed again, and the button clicked before the answer arrives.
    key(&browser, "#prompt", true, true);
    key(&browser, "#prompt", false, true);
    browser.click("#form [type=submit]");
    browser.value("window.release()");
    browser.until("the card is there", "document.querySelectorAll('.card').length === 1");
    // The key is still held after the answer has arrived.
    for selector in ["#prompt", "#steps"] {
        key(&browser, selector, true, true);
    }
    assert_eq!(browser.value(COUNTED), json!(1));
    key(&browser, "#prompt", false, true);
    browser.until("another press sends another request", "document.querySelectorAll('.card').length === 2");
    assert_eq!(browser.value(COUNTED), json!(2));
    assert_eq!(server.json("/v1/images").await["data"].as_array().unwrap().len(), 2);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_too_large_seed_is_reported_at_its_field() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    browser.open(&server.url("/"));
    browser.until("the page knows the models", READY);
    browser.fill("#prompt", "a red fox");
    for seed in ["9".repeat(400), "9223372036854775808".to_owned()] {
        browser.fill("#seed", &seed);
        browser.click("#form [type=submit]");
        browser.until("the field is marked", "document.getElementById('seed').getAttribute('aria-invalid') === 'true'");
        let said = browser.value("document.getElementById('seed-error').textContent");
        assert_eq!(said, "must be between 0 and 9223372036854775807");
        assert_eq!(browser.value("document.getElementById('form-error').hidden"), true);
    }
    assert_eq!(server.json("/v1/images").await["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_about_an_unreachable_server_disappear_when_it_is_back() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    browser.open(&server.url("/"));
    browser.until("the page knows the models", READY);
    browser.fill("#prompt", "a red fox");
    let away = |offline: bool| {
        browser.call(
            "Network.emulateNetworkConditions",
            json!({"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}),
        );
    };
    away(true);
    browser.click("#form [type=submit]");
    let said = "document.getElementById('form-error').textContent.includes('does not answer')";
    browser.until("the form says that the server is away", said);
    browser.until("so does the banner", "!document.getElementById('offline').hidden");
    away(false);
    browser.until("the banner goes", "document.getElementById('offline').hidden");
    browser.until("and so does the error", "document.getElementById('form-error').hidden");
    // Other errors of the form are still shown.
    browser.fill("#steps", "0");
    browser.click("#form [type=submit]");
    browser.until("an error is shown", "!document.getElementById('steps-error').hidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_is_canceled_even_if_the_answer_comes_after_the_event() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    browser.open(&server.url("/"));
    browser.until("the page knows the models", READY);
    watch(&browser, "path => path.endsWith('/cancel')");
    for (field, value) in [("prompt", "a red fox"), ("steps", "1000"), ("width", "512"), ("height", "512")] {
        browser.fill(&format!("#{field}"), value);
    }
    browser.click("#form [type=submit]");
    browser.until("it runs", "document.querySelector('.card[data-status=running]')");
    browser.click(".card .actions button");
    browser.until("the answer is held back", "window.holding");
    browser.until("the event has come", "document.querySelector('.card[data-status=canceled]')");
    browser.value("window.release()");
    browser.value("new Promise(done => setTimeout(done, 100))");
    assert_eq!(browser.value("document.querySelector('.card').dataset.status"), "canceled");
    assert_eq!(browser.value("document.querySelector('.card .status').textContent"), "Canceled");
    // Later generations still work.
    let small = with(request("a blue bird", 1), &json!({"steps": 1, "size": "64x64"}));
    let ended: Value = server.ended(&server.accept(&small).await).await;
    assert_eq!(ended["status"], "succeeded");
}
