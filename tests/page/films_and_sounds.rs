//! Tests of the tabs for films and sounds: both are made on the page and played in the browser.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    browser::Browser,
    faults, films,
    server::Server,
    sounds,
    source::{bring, fixture, open},
    waveform_sounds,
};

/// Chromium plays without a click of a user.
const PLAYS: [&str; 1] = ["--autoplay-policy=no-user-gesture-required"];

async fn start(data: &Path) -> Server {
    let models = data.join("models");
    films::put_model(&models);
    sounds::put_model(&models);
    Server::start(data, &[("LATENTD_MODELS__DIR", models.to_str().unwrap())]).await
}

/// Chooses a tab, and waits until the form has a model of its kind.
fn choose(browser: &Browser, kind: &str, model: &str) {
    browser.click(&format!("#tab-{kind}"));
    browser
        .until("the form has the models of the tab", &format!("document.getElementById('model').value === '{model}'"));
}

/// Submits the form and returns the succeeded generation of `/v1/audio` or `/v1/videos`.
async fn submitted(browser: &Browser, server: &Server, root: &str) -> Value {
    let before = browser.value("document.querySelector('.card')?.dataset.id ?? ''");
    browser.click("#form [type=submit]");
    let done = format!("document.querySelector('.card:first-child[data-status=succeeded]:not([data-id={before}])')");
    browser.until("it is made", &done);
    let id = browser.value("document.querySelector('.card').dataset.id");
    server.json(&format!("{root}/{}", id.as_str().unwrap())).await
}

/// Plays the player of the newest card until its time advances. Returns its error, which is null without one.
fn played(browser: &Browser, player: &str) -> Value {
    let player = format!("document.querySelector('.card {player}')");
    browser.until("the file is loaded", &format!("{player}?.readyState >= 2 || {player}?.error"));
    browser.value(&format!("{player}.muted = true, {player}.loop = true, {player}.play().then(() => 0)"));
    browser.until("its time advances", &format!("{player}.currentTime > 0"));
    browser.value(&format!("{player}.pause(), {player}.error"))
}

/// Whether the page is at most as wide as the window of a phone.
fn fits_a_phone(browser: &Browser) -> bool {
    let size = |width: u32| json!({"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": true});
    browser.call("Emulation.setDeviceMetricsOverride", size(360));
    let fits = browser.value("document.documentElement.scrollWidth <= 360") == true;
    browser.call("Emulation.clearDeviceMetricsOverride", json!({}));
    fits
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_is_made_drawn_and_played() {
    let Some(browser) = Browser::start_with(&PLAYS) else { return };
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    open(&browser, &server);
    choose(&browser, "audio", sounds::NAME);
    browser.fill("#prompt", "rain on a tin roof");
    browser.fill("#seconds", "0.2");
    browser.fill("#steps", "2");
    browser.fill("#seed", "5");
    let visible = |id: &str| browser.value(&format!("document.getElementById('{id}').checkVisibility()"));
    assert_eq!((visible("width"), visible("output"), visible("seconds")), (json!(false), json!(true), json!(true)));
    for (format, media_type) in [("flac", "audio/flac"), ("opus", "audio/ogg")] {
        browser.fill("#output", format);
        let generation = submitted(&browser, &server, "/v1/audio").await;
        assert_eq!(generation["artifacts"][0]["content_type"], media_type);
        let audio = "document.querySelector('.card audio')";
        browser.until("the file is loaded", &format!("{audio}?.readyState >= 2 || {audio}?.error"));
        assert_eq!(browser.value(&format!("{audio}.error")), Value::Null, "{format}");
    }
    browser.fill("#output", "wav");
    let generation = submitted(&browser, &server, "/v1/audio").await;
    let (params, sound) = (&generation["params"], &generation["artifacts"][0]);
    assert_eq!((&params["prompt"], &params["seconds"]), (&json!("rain on a tin roof"), &json!(0.2)));

    browser.until("the waveform is drawn", "document.querySelector('.card .wave path')?.getBBox().height > 0");
    let colors = "(() => { const canvas = document.querySelector('.card .spectrum'); \
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height); \
        return new Set(new Uint32Array(data.buffer)).size; })()";
    browser.until("the spectrogram shows different levels", &format!("{colors} > 20"));
    let said = browser.value("document.querySelector('.card .axis').textContent");
    let seconds = sound["seconds"].as_f64().unwrap();
    assert_eq!(said, json!(format!("0 s0 to 4 kHz{} s", (seconds * 100.0).round() / 100.0)));
    assert_eq!(played(&browser, "audio"), Value::Null);
    let length = browser.value("document.querySelector('.card audio').duration").as_f64().unwrap();
    assert!((length - seconds).abs() < 0.01, "{length} s, not {seconds} s");

    // A click on the waveform goes to that time.
    let middle = "{ const views = document.querySelector('.card .views'); const { left, width } = views.getBoundingClientRect(); \
        views.dispatchEvent(new MouseEvent('click', { bubbles: true, clientX: left + width / 2 })); 0 }";
    browser.value(middle);
    let at = browser.value("document.querySelector('.card audio').currentTime").as_f64().unwrap();
    assert!((at - length / 2.0).abs() < 0.02, "{at} s of {length} s");
    assert!(fits_a_phone(&browser));

    // The card gives the settings back, and equal requests have equal files.
    browser.fill("#seconds", "0.1");
    browser.click(".card [aria-label='Use these settings']");
    assert_eq!(browser.value("document.getElementById('seconds').value"), "0.2");
    let again = submitted(&browser, &server, "/v1/audio").await;
    assert_eq!(again["artifacts"][0]["unsigned_sha256"], sound["unsigned_sha256"]);
    assert_eq!(faults(&browser), [""; 0]);
}

/// A field that only the model before has is neither shown nor sent, and comes back with that model.
#[tokio::test(flavor = "multi_thread")]
async fn fields_that_a_model_lacks_are_not_sent() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    waveform_sounds::put_model(&data.path().join("models"));
    let server = start(data.path()).await;
    open(&browser, &server);
    choose(&browser, "audio", waveform_sounds::NAME);
    let switch = |model: &str| {
        browser.value(&format!(
            "{{ const model = document.getElementById('model'); model.value = '{model}'; \
             model.dispatchEvent(new Event('change', {{ bubbles: true }})); 0 }}"
        ));
    };
    browser.fill("#prompt", "rain");
    browser.fill("#seconds", "0.1");
    browser.fill("#padding_seconds", "0.1");
    let listed = || browser.value("[...document.querySelectorAll('#extras li')].map(item => item.dataset.extra)");
    assert_eq!(listed(), json!(["padding_seconds"]));
    switch(sounds::NAME);
    assert_eq!(listed(), json!([]));
    browser.fill("#steps", "1");
    let params = submitted(&browser, &server, "/v1/audio").await["params"].clone();
    assert_eq!((&params["model"], &params["padding_seconds"]), (&json!(sounds::NAME), &Value::Null));
    switch(waveform_sounds::NAME);
    assert_eq!(listed(), json!(["padding_seconds"]));
    browser.fill("#steps", "1");
    let params = submitted(&browser, &server, "/v1/audio").await["params"].clone();
    assert_eq!(params["padding_seconds"], 0.1);
    assert_eq!(faults(&browser), [""; 0]);
}

/// The spectrogram of a tone has its highest level at the frequency of the tone.
#[tokio::test(flavor = "multi_thread")]
async fn a_spectrogram_shows_the_frequency_of_a_tone() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    open(&browser, &server);
    let loudest = "import(new URL('fourier.js', location.href)).then(({ spectrogram }) => { \
        const tone = Float32Array.from({ length: 4000 }, (_, at) => 0.5 * Math.sin(2 * Math.PI * 1000 * at / 8000)); \
        return spectrogram(tone, 10, 256).map((column) => column.indexOf(Math.max(...column))); })";
    // 256 samples of 8000 per second: the frequency of place 32 is 1000 Hz.
    assert_eq!(browser.value(loudest), json!(vec![32; 10]));
    let silence = "import(new URL('fourier.js', location.href)).then(({ spectrogram }) => \
        spectrogram(new Float32Array(100), 2, 64).every((column) => column.every((level) => level === 0)))";
    assert_eq!(browser.value(silence), true);
    assert_eq!(browser.value("document.getElementById('kinds').hidden"), true, "a server of pictures has no tabs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_is_made_from_a_picture_and_played() {
    let Some(browser) = Browser::start_with(&PLAYS) else { return };
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    open(&browser, &server);
    assert_eq!(
        browser.value("document.getElementById('kinds').innerText.split(/\\s+/)"),
        json!(["Pictures", "Video", "Sound"])
    );
    browser.focus("#tab-image");
    browser.press("ArrowRight");
    browser.until(
        "the arrow chooses the next tab",
        &format!("document.getElementById('model').value === '{}'", films::NAME),
    );
    assert_eq!(browser.value("document.activeElement.id"), "tab-video");
    assert_eq!(browser.value("document.getElementById('work').getAttribute('aria-labelledby')"), "tab-video");

    // Without its picture, the film is refused, and the form says so where the picture belongs.
    browser.fill("#steps", "2");
    browser.click("#form [type=submit]");
    browser.until("the error is shown", "document.getElementById('image-error').checkVisibility()");
    bring(&browser, "drop", "main", "image/png", &fixture("init_96x64.png"));
    browser.until("the picture is there", "document.querySelector('#source img.thumbnail')?.naturalWidth > 0");
    browser.fill("#width", "48");
    browser.fill("#height", "32");
    browser.fill("#frames", "5");
    browser.fill("#fps", "10");
    browser.fill("#motion_bucket_id", "90");
    let generation = submitted(&browser, &server, "/v1/videos").await;
    let (params, film) = (&generation["params"], &generation["artifacts"][0]);
    assert_eq!((&params["frames"], &params["fps"], &params["motion_bucket_id"]), (&json!(5), &json!(10), &json!(90)));
    assert_eq!((&film["width"], &film["height"], &film["content_type"]), (&json!(48), &json!(32), &json!("video/mp4")));

    assert_eq!(played(&browser, "video"), Value::Null);
    let video = "(({ videoWidth, videoHeight, duration }) => [videoWidth, videoHeight, duration])(document.querySelector('.card video'))";
    assert_eq!(browser.value(video), json!([48, 32, 0.5]));
    let frames = browser.value("document.querySelector('.card video').getVideoPlaybackQuality().totalVideoFrames");
    assert!(frames.as_u64().unwrap() > 0, "no frame was decoded");
    assert!(fits_a_phone(&browser));

    // An animation is an image; an archive is only downloaded.
    browser.click(".card [aria-label='Use these settings']");
    browser.until("the picture is there", "document.querySelector('#source img.thumbnail')?.naturalWidth > 0");
    for (format, shown) in [
        ("gif", "document.querySelector('.card .film img')?.naturalWidth === 48"),
        ("zip", "document.querySelector('.card .film p')"),
    ] {
        browser.fill("#output", format);
        let generation = submitted(&browser, &server, "/v1/videos").await;
        assert_eq!(generation["params"]["output"]["format"], format);
        browser.until("the card shows it", shown);
    }
    assert_eq!(browser.value("document.querySelector('.card a[download]').download.endsWith('.zip')"), true);

    // Each tab has its own cards and contents of the form, and the page remembers the tab.
    choose(&browser, "image", "emoji");
    browser
        .until("there are no pictures", "!document.getElementById('empty').hidden && !document.querySelector('.card')");
    browser.fill("#prompt", "a red fox");
    open(&browser, &server);
    assert_eq!(browser.value("document.getElementById('prompt').value"), "a red fox");
    choose(&browser, "video", films::NAME);
    browser.until("the films are there", "document.querySelectorAll('.card').length === 3");
    assert_eq!(browser.value("document.getElementById('frames').value"), "5");
    open(&browser, &server);
    browser.until("the tab is remembered", "document.querySelectorAll('.card .film').length === 3");
    assert_eq!(faults(&browser), [""; 0]);
}

/// The command that the page copies makes the file.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_commands_for_films_and_sounds_work() {
    let Some(browser) = Browser::start() else { return };
    let (data, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = start(data.path()).await;
    open(&browser, &server);
    let picture = format!("data:image/png;base64,{}", crate::source::base64(&fixture("init_64.png")));
    for (kind, request, file, place, magic) in [
        ("SOUNDS", json!({"model": sounds::NAME, "prompt": "rain", "steps": 1, "seed": 3}), "rain-3.wav", 0, b"RIFF"),
        ("FILMS", json!({"model": films::NAME, "image": picture, "steps": 1, "seed": 3}), "video-3.mp4", 4, b"ftyp"),
    ] {
        let script = format!(
            "Promise.all(['curl.js', 'kinds.js'].map(name => import(new URL(name, location.href)))) \
             .then(([curl, kinds]) => curl.command({request}, kinds.{kind}))"
        );
        let command = browser.value(&script).as_str().unwrap().to_owned();
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).current_dir(folder.path());
        assert!(tokio::task::block_in_place(|| shell.status()).unwrap().success(), "{command}");
        assert_eq!(&fs::read(folder.path().join(file)).unwrap()[place..place + 4], magic, "{command}");
    }
}
