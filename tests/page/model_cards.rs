//! Tests of the dialog that shows a model's card.

use std::{fs, path::Path};

use crate::{READY, browser::Browser, server::Server};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn html_in_the_card_of_a_model_is_shown_and_not_interpreted() {
    let Some(browser) = Browser::start() else { return };
    let (data, models) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tiny = models.path().join("org/tiny");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity/pipelines/sd1"), &tiny);
    let card = "# Tiny\n\n<img src=x onerror=\"document.title='taken'\"><b id=bold>bold</b>";
    fs::write(tiny.join("README.md"), card).unwrap();
    let server = Server::start(data.path(), &[("LATENTD_MODELS__DIR", models.path().to_str().unwrap())]).await;
    browser.open(&server.url("/"));
    browser.until("the page knows the models", READY);
    browser.click("#models-open");
    let row =
        "[...document.querySelectorAll('dialog .entries > li')].find((li) => li.textContent.startsWith('org/tiny'))";
    browser.until("the models are listed", &format!("{row} !== undefined"));
    browser.value(&format!(
        "[...{row}.querySelectorAll('button')].find((button) => button.textContent === 'Model card').click()"
    ));
    let text = "document.querySelector('dialog pre.wrapped')?.textContent";
    browser.until("the card is there", &format!("{text}?.startsWith('# Tiny')"));
    assert_eq!(browser.value(text), card);
    assert_eq!(browser.value("document.querySelector('#bold, dialog pre img') === null"), true);
    assert_eq!(browser.complaints(), [""; 0]);
}
