//! Tests of edits and variations: the names of the parts of a form, and masks.

use super::*;

const EDITS: &str = "/v1/images/edits";

/// A PNG of 64 × 64 pixels whose left half has this alpha.
fn picture(alpha: u8) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 64, 64);
    encoder.set_color(png::ColorType::Rgba);
    let pixels: Vec<u8> = (0..64 * 64).flat_map(|i| [200, 30, 30, if i % 64 < 32 { alpha } else { 255 }]).collect();
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    file
}

/// A form whose parts have these headers after `form-data; `, and these contents.
fn form(path: &str, parts: &[(&str, &[u8])]) -> Request<Body> {
    let mut body = Vec::new();
    for (head, content) in parts {
        body.extend(format!("--openai-x\r\nContent-Disposition: form-data; {head}\r\n\r\n").bytes());
        body.extend(*content);
        body.extend(b"\r\n");
    }
    body.extend(b"--openai-x--\r\n");
    let request = Request::post(path).header("content-type", "multipart/form-data; boundary=openai-x");
    request.body(Body::from(body)).unwrap()
}

/// The gray levels of the left and the right half of the stored mask of a job; `None` without a mask.
async fn mask(api: &TestApi, job: &Job) -> Option<[u8; 2]> {
    let Work::Draw(draw) = &job.work else { panic!("a drawing") };
    let upload = &draw.source.as_ref().unwrap().mask.as_ref()?.mask.upload;
    let stored = api.get(&format!("/v1/uploads/{upload}")).await;
    let mut reader = png::Decoder::new(std::io::Cursor::new(stored.body)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    Some([pixels[0], pixels[3 * 63]])
}

const PROMPT: (&str, &[u8]) = ("name=\"prompt\"", b"a green fox");

#[tokio::test]
async fn a_picture_is_found_in_every_form_of_its_part() {
    let api = TestApi::open(&[]).await;
    let file = picture(255);
    for head in [
        "name=\"image\"; filename=\"upload\"\r\nContent-Type: application/octet-stream",
        "name=\"image[]\"; filename=\"blob\"\r\nContent-Type: image/png",
        "name=\"image[]\"",
        "name=\"image\"",
    ] {
        for parts in [[(head, &*file), PROMPT], [PROMPT, (head, &*file)]] {
            let (answer, job) = drawn(&api, form(EDITS, &parts)).await;
            assert_eq!(answer.status, 200, "{head}: {}", answer.text());
            let Work::Draw(draw) = &job.work else { panic!("a drawing") };
            assert_eq!(draw.source.as_ref().unwrap().image.width, 64);
            assert_eq!(mask(&api, &job).await, None, "the picture is opaque");
        }
    }
}

#[tokio::test]
async fn transparent_parts_are_redrawn() {
    let api = TestApi::open(&[]).await;
    let (opaque, holed) = (picture(255), picture(0));
    let image = |file| ("name=\"image\"; filename=\"a.png\"", file);
    let of_mask = ("name=\"mask\"; filename=\"m.png\"", &*holed);
    let (answer, job) = drawn(&api, form(EDITS, &[of_mask, image(&*opaque), PROMPT])).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(mask(&api, &job).await, Some([255, 0]), "alpha 0 is redrawn, whatever the color");
    let (_, job) = drawn(&api, form(EDITS, &[image(&*holed), PROMPT])).await;
    assert_eq!(mask(&api, &job).await, Some([255, 0]), "the transparency of the picture itself");
    let body = json!({"prompt": "a", "image": BASE64_STANDARD.encode(&holed)});
    let (_, job) = drawn(&api, sdk(EDITS, &body, &[])).await;
    assert_eq!(mask(&api, &job).await, Some([255, 0]), "also in JSON");
    let none = ("name=\"mask\"; filename=\"m.png\"", &*opaque);
    let answer = api.ask(form(EDITS, &[image(&*opaque), none, PROMPT])).await;
    assert_eq!(error(&answer), (400, "mask".to_owned(), "image_undecodable".to_owned()));
    assert!(answer.text().contains("mask has no transparent part"), "{}", answer.text());
}

#[tokio::test]
async fn texts_of_a_form_are_read_as_values() {
    let api = TestApi::open(&[]).await;
    let file = picture(255);
    let parts: [(&str, &[u8]); 7] = [
        ("name=\"image\"; filename=\"a.png\"", &file),
        PROMPT,
        ("name=\"n\"", b"2"),
        ("name=\"size\"", b"auto"),
        ("name=\"strength\"", b"0.5"),
        ("name=\"safety_identifier\"", b"007"),
        ("name=\"stream\"", b"true"),
    ];
    let (answer, job) = drawn(&api, form(EDITS, &parts)).await;
    assert!(answer.text().starts_with("event: image_edit.completed\n"), "{}", answer.text());
    let params = job.params();
    assert_eq!((&params["n"], &params["strength"]), (&json!(2), &json!(0.5)));
    assert_eq!(job.metadata["safety_identifier"], "007");
}

#[tokio::test]
async fn an_edit_needs_one_picture() {
    let api = TestApi::open(&[]).await;
    let file = picture(255);
    let answer = api.ask(form(EDITS, &[PROMPT])).await;
    assert_eq!(error(&answer), (400, "image".to_owned(), "missing_required_parameter".to_owned()));
    let one = ("name=\"image[]\"; filename=\"a.png\"", &*file);
    let answer = api.ask(form(EDITS, &[one, one, PROMPT])).await;
    assert_eq!(error(&answer).0, 400);
    assert!(answer.text().contains("edits one at a time"), "{}", answer.text());
}

#[tokio::test]
async fn a_variation_needs_no_prompt() {
    let api = TestApi::open(&[]).await;
    let file = picture(255);
    let parts: [(&str, &[u8]); 3] =
        [("name=\"n\"", b"1"), ("name=\"size\"", b"64x64"), ("name=\"image\"; filename=\"upload\"", &file)];
    let (answer, job) = drawn(&api, form("/v1/images/variations", &parts)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let Work::Draw(draw) = &job.work else { panic!("a drawing") };
    assert_eq!((draw.prompt.as_str(), draw.source.as_ref().unwrap().strength()), ("", 0.75));
    assert_eq!(answer.json()["usage"]["input_tokens_details"]["image_tokens"], 16);
}
