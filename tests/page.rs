//! Tests of the web page in a real browser. Without Chromium (or Chrome), these tests print that they are skipped.

#[path = "support/browser.rs"]
mod browser;
#[path = "support/films.rs"]
mod films;
#[path = "support/path_proxy.rs"]
mod path_proxy;
#[path = "support/random.rs"]
mod random;
#[path = "support/server.rs"]
mod server;
#[path = "support/sounds.rs"]
mod sounds;
#[path = "support/transformers.rs"]
mod transformers;
#[path = "support/waveform_sounds.rs"]
mod waveform_sounds;

#[path = "page/cards.rs"]
mod cards;
#[path = "page/classes.rs"]
mod classes;
#[path = "page/documents.rs"]
mod documents;
#[path = "page/fields.rs"]
mod fields;
#[path = "page/films_and_sounds.rs"]
mod films_and_sounds;
#[path = "page/formats.rs"]
mod formats;
#[path = "page/model_cards.rs"]
mod model_cards;
#[path = "page/other_origins.rs"]
mod other_origins;
#[path = "page/references.rs"]
mod references;
#[path = "page/reuse.rs"]
mod reuse;
#[path = "page/sending.rs"]
mod sending;
#[path = "page/source.rs"]
mod source;
#[path = "page/under_a_path.rs"]
mod under_a_path;

/// JavaScript condition: the page has loaded the catalogue.
const READY: &str = "document.getElementById('model').options.length > 0";

/// The complaints of a browser without failed requests, which tests of errors expect.
fn faults(browser: &browser::Browser) -> Vec<String> {
    let is_answer = |complaint: &String| complaint.contains(r#""source":"network""#);
    browser.complaints().into_iter().filter(|complaint| !is_answer(complaint)).collect()
}
