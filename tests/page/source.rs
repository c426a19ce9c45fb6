//! Tests of input pictures and masks, and of reading the settings of a picture from its file.

use std::{fs, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    READY,
    browser::Browser,
    faults,
    server::{Server, decode, with},
};

async fn start(data: &Path) -> Server {
    let pipelines = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity/pipelines");
    Server::start(data, &[("LATENTD_MODELS__DIR", pipelines.to_str().unwrap())]).await
}

pub fn open(browser: &Browser, server: &Server) {
    browser.open(&server.url("/"));
    browser.until("the page knows the models", READY);
}

pub fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity/inputs").join(name)).unwrap()
}

pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Drops or pastes a file on an element, as the event `drop` or `paste`.
pub fn bring(browser: &Browser, event: &str, selector: &str, kind: &str, bytes: &[u8]) {
    // The page's policy forbids `fetch` of data URLs.
    let script = "{ const bytes = Uint8Array.from(atob(BASE64), (one) => one.charCodeAt(0)); const data = new DataTransfer(); \
        data.items.add(new File([bytes], 'brought', { type: KIND })); \
        const options = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data }; \
        const Kind = { drop: DragEvent, paste: ClipboardEvent }[EVENT]; \
        document.querySelector(SELECTOR).dispatchEvent(new Kind(EVENT, options)); 0 }";
    let values = [
        ("BASE64", json!(STANDARD.encode(bytes))),
        ("KIND", json!(kind)),
        ("SELECTOR", json!(selector)),
        ("EVENT", json!(event)),
    ];
    let script =
        values.iter().fold(script.to_owned(), |script, (name, value)| script.replace(name, &value.to_string()));
    browser.value(&script);
}

/// Chooses a file in the dialog that the last click has opened.
fn choose(browser: &Browser, file: &Path) {
    let found = browser.call("Runtime.evaluate", json!({"expression": "document.querySelector('input[type=file]')"}));
    let id = found["result"]["objectId"].clone();
    browser.call("DOM.setFileInputFiles", json!({"objectId": id, "files": [file]}));
}

/// Moves the pressed mouse over the easel, through points in shares of its size.
fn stroke(browser: &Browser, points: &[(f64, f64)]) {
    let sides = "(() => { const { left, top, width, height } = document.querySelector('.easel').getBoundingClientRect(); \
        return [left, top, width, height]; })()";
    let sides: Vec<f64> = serde_json::from_value(browser.value(sides)).unwrap();
    let mouse = |kind: &str, (x, y): (f64, f64)| {
        let place = json!({"type": kind, "x": sides[0] + x * sides[2], "y": sides[1] + y * sides[3]});
        browser
            .call("Input.dispatchMouseEvent", with(place, &json!({"button": "left", "buttons": 1, "clickCount": 1})));
    };
    mouse("mousePressed", points[0]);
    points.iter().for_each(|point| mouse("mouseMoved", *point));
    mouse("mouseReleased", points[points.len() - 1]);
}

/// Submits the form and returns the succeeded generation.
pub async fn submitted(browser: &Browser, server: &Server) -> Value {
    let before = browser.value("document.querySelector('.card')?.dataset.id ?? ''");
    browser.click("#form [type=submit]");
    let done = format!("document.querySelector('.card:first-child[data-status=succeeded]:not([data-id={before}])')");
    browser.until("it is drawn", &done);
    let id = browser.value("document.querySelector('.card').dataset.id");
    server.json(&format!("/v1/images/{}", id.as_str().unwrap())).await
}

/// The pixels of a picture of a request.
pub async fn uploaded(server: &Server, picture: &Value) -> (u32, u32, Vec<u8>) {
    let answer = server.get(&format!("/v1/uploads/{}", picture["upload"].as_str().unwrap())).await;
    decode(&answer.bytes().await.unwrap())
}

const SIZE: &str = "['width', 'height'].map(name => Number(document.getElementById(name).value))";
const HAS_PICTURE: &str = "document.querySelector('#source img.thumbnail')?.naturalWidth > 0";

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_chosen_dropped_pasted_or_taken_from_a_card() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    open(&browser, &server);
    browser.fill("#prompt", "a red fox");
    browser.fill("#steps", "2");

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity/inputs/init_64.png");
    choose(&browser, &file);
    browser.until("the chosen picture is there", HAS_PICTURE);
    assert_eq!(browser.value(SIZE), json!([64, 64]), "the new picture has the size of its source");
    browser.fill("#strength", "0.6");
    let params = submitted(&browser, &server).await["params"].clone();
    assert_eq!((&params["strength"], &params["width"]), (&json!(0.6), &json!(64)));
    assert_eq!(uploaded(&server, &params["image"]).await, decode(&fixture("init_64.png")));

    // Without the picture, the request has none of the fields that need it.
    browser.click("#source [aria-label='Remove the input picture']");
    assert_eq!(browser.value("document.querySelector('#source button').textContent"), "Add a picture");
    assert_eq!(browser.value("document.activeElement.closest('#source') !== null"), true);
    let params = submitted(&browser, &server).await["params"].clone();
    assert_eq!((&params["image"], &params["strength"]), (&Value::Null, &Value::Null));

    // A format that the server does not read becomes a PNG. A wide picture gives a wide size with the model's pixels.
    let drawing = b"<svg xmlns='http://www.w3.org/2000/svg' width='640' height='160'><rect width='640' height='160' fill='red'/></svg>";
    bring(&browser, "paste", "#prompt", "image/svg+xml", drawing);
    browser.until("the pasted picture is there", HAS_PICTURE);
    assert_eq!(browser.value(SIZE), json!([256, 64]));
    assert_eq!(browser.value("document.getElementById('size-note').textContent.includes('128 × 128')"), true);
    let params = submitted(&browser, &server).await["params"].clone();
    let (width, height, pixels) = uploaded(&server, &params["image"]).await;
    assert_eq!((width, height, &pixels[..3]), (640, 160, &[255, 0, 0][..]));

    bring(&browser, "drop", "main", "text/plain", b"words");
    browser.until(
        "the page says what is wrong",
        "document.getElementById('toast').textContent === 'brought is not a picture.'",
    );
    bring(&browser, "drop", "main", "image/png", b"no picture");
    browser
        .until("and again", "document.getElementById('toast').textContent.includes('brought is not a picture that')");
    bring(&browser, "drop", "main", "image/png", &fixture("init_64.png"));
    browser.until("the dropped picture replaces it", &format!("String({SIZE}) === '64,64'"));

    // The picture of a card.
    let first = browser.value("document.querySelector('.card').dataset.id");
    browser.click(".card [aria-label='Use as source']");
    browser.until("the picture of the card replaces it", &format!("String({SIZE}) === '256,64'"));
    let params = submitted(&browser, &server).await["params"].clone();
    let drawn = decode(&server.picture(first.as_str().unwrap(), 0).await);
    assert_eq!(uploaded(&server, &params["image"]).await, drawn);
    assert_eq!(faults(&browser), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mask_is_painted_with_the_mouse_and_with_keys() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    open(&browser, &server);
    browser.fill("#prompt", "a panda");
    browser.fill("#steps", "2");
    bring(&browser, "drop", "#form", "image/png", &fixture("init_64.png"));
    browser.until("the picture is there", HAS_PICTURE);
    let open_mask = || {
        browser.click(".mask-open");
        browser.until("the easel is there", "document.querySelector('dialog .easel')");
    };
    let button = |text: &str| {
        let found =
            format!("[...document.querySelectorAll('dialog button')].find(one => one.textContent === {})", json!(text));
        browser.value(&format!("{found}.click()"));
    };
    let use_mask = || {
        browser.click("dialog .primary");
        browser.until("the dialog is closed", "!document.querySelector('dialog[open]')");
    };
    let level = |pixels: &[u8], x: usize, y: usize| pixels[3 * (64 * y + x)];

    // A stroke in the upper half; a second one is undone.
    open_mask();
    stroke(&browser, &[(0.25, 0.25), (0.5, 0.25), (0.75, 0.25)]);
    stroke(&browser, &[(0.5, 0.75), (0.75, 0.75)]);
    browser.click("dialog [aria-label^='Undo']");
    use_mask();
    let params = submitted(&browser, &server).await["params"].clone();
    let (width, height, pixels) = uploaded(&server, &params["mask"]).await;
    assert_eq!((width, height), (64, 64));
    let levels = [(16, 16), (32, 16), (48, 16), (48, 48), (2, 2)].map(|(x, y)| level(&pixels, x, y));
    assert_eq!(levels, [255, 255, 255, 0, 0]);

    // The mask is painted on: inverted, and a part erased.
    open_mask();
    button("Invert");
    button("Erase");
    stroke(&browser, &[(0.5, 0.75), (0.75, 0.75)]);
    use_mask();
    browser.fill("#mask_blur", "2");
    browser.fill("#padding_mask_crop", "8");
    browser.click("#keep_unmasked");
    let params = submitted(&browser, &server).await["params"].clone();
    let (_, _, pixels) = uploaded(&server, &params["mask"]).await;
    let levels = [(32, 16), (48, 48), (2, 2), (10, 50)].map(|(x, y)| level(&pixels, x, y));
    assert_eq!(levels, [0, 0, 255, 255]);
    assert_eq!((&params["mask_blur"], &params["padding_mask_crop"]), (&json!(2), &json!(8)));
    assert_eq!(params["keep_unmasked"], false);

    // With keys alone: a line from the middle to the right edge.
    browser.click("#source [aria-label='Remove the mask']");
    assert_eq!(browser.value("document.activeElement.className"), "plain mask-open");
    browser.press("Enter");
    browser.until("the easel has the focus", "document.activeElement.className === 'easel'");
    let key = |name: &str| {
        let event = json!({"key": name, "bubbles": true, "cancelable": true});
        browser.value(&format!("document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {event})) && 0"));
    };
    key(" ");
    (0..40).for_each(|_| key("ArrowRight"));
    key(" ");
    (0..4).for_each(|_| key("ArrowDown"));
    use_mask();
    let params = submitted(&browser, &server).await["params"].clone();
    let (_, _, pixels) = uploaded(&server, &params["mask"]).await;
    let levels = [(33, 32), (60, 32), (10, 32), (60, 45)].map(|(x, y)| level(&pixels, x, y));
    assert_eq!(levels, [255, 255, 0, 0]);
    assert_eq!(
        (&params["mask_blur"], &params["keep_unmasked"]),
        (&json!(0), &json!(true)),
        "they went with the old mask"
    );

    // An empty mask is no mask.
    open_mask();
    button("Clear");
    use_mask();
    assert_eq!(submitted(&browser, &server).await["params"]["mask"], Value::Null);
    assert_eq!(faults(&browser), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_picture_gives_its_settings_back() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    let picture = |name: &str| json!({"b64": STANDARD.encode(fixture(name))});
    let body = json!({
        "prompt": "a \"red\" & <fox>", "seed": 9007199254740993u64, "steps": 3, "size": "64x64", "strength": 0.7, "clip_skip": 1,
        "image": picture("init_64.png"), "mask": picture("mask_64.png"), "loras": [{"name": "emoji-flat", "scale": 0.5}],
        "controls": [{"model": "emoji-canny", "image": picture("init_64.png"), "preprocess": "canny", "scale": 0.6}],
    });
    for (format, kind) in [("png", "image/png"), ("jpeg", "image/jpeg"), ("webp", "image/webp")] {
        let body = with(body.clone(), &json!({"output": {"format": format}}));
        let first = server.ended(&server.accept(&body).await).await;
        assert_eq!(first["status"], "succeeded", "{first}");
        let file = server.picture(first["id"].as_str().unwrap(), 0).await;
        open(&browser, &server);
        bring(&browser, "drop", "main", kind, &file);
        browser.until("the page asks", "!document.getElementById('found').hidden");
        assert_eq!(browser.value("document.querySelector('#found strong').textContent"), "a \"red\" & <fox>");
        assert_eq!(browser.value("document.activeElement.textContent"), "Use its settings");
        browser.press("Enter");
        assert_eq!(browser.value("document.getElementById('prompt').value"), "a \"red\" & <fox>");
        let second = submitted(&browser, &server).await;
        for (field, value) in first["params"].as_object().unwrap().iter().filter(|(field, _)| *field != "previews") {
            assert_eq!(&second["params"][field], value, "{field}, {format}");
        }
        let again = server.picture(second["id"].as_str().unwrap(), 0).await;
        assert!(decode(&file) == decode(&again), "other pixels, {format}");
    }

    // The same picture can be a source.
    bring(&browser, "drop", "main", "image/webp", &server.picture(&newest(&browser), 0).await);
    browser.until("the page asks", "!document.getElementById('found').hidden");
    browser.click("#found button:nth-of-type(2)");
    browser.until(
        "it is the source, without the old mask",
        "document.querySelectorAll('#source img.thumbnail').length === 1",
    );
    assert_eq!(faults(&browser), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_of_another_tool_gives_its_settings_back() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let text = b"parameters\0a fox, (red:1.2)\nNegative prompt: blurry,\ndull\nSteps: 3, Sampler: DPM++ 2M, Schedule type: Karras, \
        CFG scale: 2.5, Seed: 9007199254740993, Size: 64x96, Model hash: 12ab, Model: other, Clip skip: 2, ADetailer: \"a, b: c\"";
    // The text stands behind the first chunk. Its checksum is not read.
    let file = fixture("init_64.png");
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    let file = [&file[..33], &length, b"tEXt", text, &[0; 4], &file[33..]].concat();
    open(&browser, &server);
    bring(&browser, "drop", "main", "image/png", &file);
    browser.until("the page asks", "!document.getElementById('found').hidden");
    browser.click("#found button");
    let request = "import(new URL('json.js', location.href)).then(({ parse }) => { const kept = parse(localStorage.getItem('latentd.form')); \
        return ['prompt', 'negative_prompt', 'width', 'height', 'steps', 'guidance_scale', 'scheduler', 'seed', 'model'] \
          .map(name => kept[name]).concat(JSON.stringify(kept.extras)); })";
    let wanted = json!([
        "a fox, (red:1.2)",
        "blurry,\ndull",
        "64",
        "96",
        "3",
        "2.5",
        "dpmpp_2m_karras",
        "9007199254740993",
        "emoji",
        "{\"prompt_syntax\":\"weighted\",\"clip_skip\":1}",
    ]);
    assert_eq!(browser.value(request), wanted);
    // The page names the fields that it cannot use.
    assert_eq!(browser.value("document.getElementById('toast').textContent"), "Not used: Model, ADetailer.");
    assert_eq!(faults(&browser), [""; 0]);
}

/// A request with a picture is too long for an argument of a command.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_command_for_a_long_request_works() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    open(&browser, &server);
    let request = with(crate::server::request("it's a fox", 1), &json!({"steps": 2, "size": "64x64"}));
    let mut state = 1_u32;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    let noise: Vec<u8> = (0..200 * 200 * 3).map(|_| random()).collect();
    let mut picture = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_raw(200, 200, noise).unwrap().write_to(&mut picture, image::ImageFormat::Png).unwrap();
    let url = format!("data:image/png;base64,{}", STANDARD.encode(picture.into_inner()));
    let request = with(request, &json!({"image": {"data_url": url}}));
    let script = format!("import(new URL('curl.js', location.href)).then(curl => curl.command({request}))");
    let command = browser.value(&script).as_str().unwrap().to_owned();
    assert!(command.len() > 140_000, "{}", command.len());
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("command.sh"), command).unwrap();
    let mut shell = std::process::Command::new("sh");
    shell.arg("command.sh").current_dir(folder.path());
    assert!(tokio::task::block_in_place(|| shell.status()).unwrap().success());
    let drawn = fs::read(folder.path().join("it-s-a-fox-1.png")).unwrap();
    assert_eq!((decode(&drawn).0, decode(&drawn).1), (64, 64));
}

fn newest(browser: &Browser) -> String {
    browser.value("document.querySelector('.card').dataset.id").as_str().unwrap().to_owned()
}
