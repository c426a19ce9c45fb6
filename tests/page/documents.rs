//! Runs the JavaScript of the README in a browser.

use std::fs;

use crate::{READY, browser::Browser, server::Server};

#[tokio::test(flavor = "multi_thread")]
async fn the_javascript_of_the_readme_fetches_the_picture() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    browser.open(&server.url("/"));
    browser.until("the page knows the models", READY);
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (_, rest) = readme.split_once("```js\n").expect("the README has JavaScript");
    let program = rest.split("```").next().unwrap().replace("http://localhost:8080", &server.url(""));
    let script =
        format!("(async () => {{ {program} return [picture.status, picture.headers.get('content-type')]; }})()");
    assert_eq!(browser.value(&script), serde_json::json!([200, "image/png"]));
}
