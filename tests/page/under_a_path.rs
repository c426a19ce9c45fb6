//! Tests of the page behind a reverse proxy that serves it under a path.

use serde_json::json;

use crate::{
    READY,
    browser::Browser,
    path_proxy::{PATH, PathProxy},
    server::Server,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_page_works_under_a_path() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[("LATENTD_HTTP__URL_SECRET", "correct horse battery staple")]).await;
    let proxy = PathProxy::in_front_of(&server.public).await;
    browser.open(&proxy.url);
    browser.until("the page knows the models", READY);

    // Draws one picture from the form and opens the large view.
    browser.fill("#prompt", "a red fox");
    browser.fill("#steps", "20");
    browser.click("#form [type=submit]");
    browser.until("it has succeeded", "document.querySelector('.card[data-status=succeeded]')");
    browser.until("its picture is there", "document.querySelector('.card img.picture')?.naturalWidth === 128");
    assert!(proxy.requested_paths().iter().any(|path| path.ends_with("/events")), "its progress was streamed");
    browser.click(".card .tile");
    browser.until("the large picture is there", "document.getElementById('large-image').naturalWidth === 128");

    // All links and commands point below the path.
    for link in ["#large-download", "a.quiet-link", ".card .actions a"] {
        let (link, base) = (json!(link), json!(proxy.url));
        let found = browser.value(&format!(
            "fetch(document.querySelector({link}).href).then(answer => [answer.status, answer.url.startsWith({base})])"
        ));
        assert_eq!(found, json!([200, true]), "{link}");
    }
    let command = browser.value("import(new URL('curl.js', location.href)).then(curl => curl.command({prompt: 'a'}))");
    assert!(command.as_str().unwrap().ends_with(&format!("{}v1/images.png", proxy.url)), "{command}");

    // Loads the page again; the list shows the earlier picture.
    browser.open(&proxy.url);
    browser.until("it is listed", "document.querySelector('.card img.picture')?.naturalWidth === 128");
    let outside: Vec<String> =
        proxy.requested_paths().into_iter().filter(|path| !path.starts_with(&format!("{PATH}/"))).collect();
    assert!(outside.is_empty(), "requests outside the path: {outside:?}");
    let foreign: Vec<String> = browser
        .requests()
        .into_iter()
        .filter(|url| !url.starts_with(&proxy.url) && !url.starts_with("data:"))
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    assert_eq!(browser.complaints(), [""; 0]);
}
