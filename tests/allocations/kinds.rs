//! Request bodies that the server refuses. Each body repeats one element until the body has a given length.

use std::io::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// One kind of refused body.
pub struct Kind {
    pub name: &'static str,
    pub content_type: &'static str,
    /// Makes a body of at most the given number of bytes, and more than half of that number.
    pub body: fn(usize) -> Vec<u8>,
}

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data; boundary=frontier";

pub fn all() -> Vec<Kind> {
    let json = |name, body| Kind { name, content_type: JSON, body };
    let form = |name, body| Kind { name, content_type: FORM, body };
    let multipart = |name, body| Kind { name, content_type: MULTIPART, body };
    vec![
        json("empty lists", |n| repeated(n, r#"{"prompt":"a","x":["#, "[],", "0]}")),
        json("empty objects", |n| repeated(n, r#"{"prompt":"a","controls":["#, "{},", "0]}")),
        json("small objects", |n| repeated(n, r#"{"prompt":"a","x":["#, r#"{"a":0},"#, "0]}")),
        json("nested lists", |n| repeated(n, r#"{"prompt":"a","x":["#, "[[[[[[[[]]]]]]]],", "0]}")),
        json("numbers", |n| repeated(n, r#"{"prompt":"a","sigmas":["#, "0,", "0]}")),
        json("texts", |n| repeated(n, r#"{"prompt":"a","timesteps":["#, r#""a","#, "0]}")),
        json("one long number", |n| repeated(n, r#"{"prompt":"a","eta":1"#, "1", "}")),
        json("one long fraction", |n| repeated(n, r#"{"prompt":"a","eta":5."#, "1", "}")),
        json("keys", |n| numbered(n, "{", |i| format!(r#""{i:x}":0,"#), r#""z":0}"#)),
        json("labels", |n| numbered(n, r#"{"prompt":"a","metadata":{"#, |i| format!(r#""{i:x}":0,"#), r#""z":0}}"#)),
        json("one long key", |n| repeated(n, r#"{"prompt":"a",""#, "a", r#"":0}"#)),
        json("one long key of slashes", |n| repeated(n, r#"{"prompt":"a",""#, "/~", r#"":0}"#)),
        json("a long label", |n| repeated(n, r#"{"prompt":"a","metadata":{""#, "k", r#"":0}}"#)),
        json("pictures that are none", |n| repeated(n, r#"{"prompt":"a","controls":["#, r#"{"image":1},"#, "0]}")),
        json("tags of LoRAs", |n| numbered(n, r#"{"prompt":""#, |i| format!("<lora:{i}>"), r#""}"#)),
        json("the longest prompt of tags", |n| {
            let tags: String = (0..1100).map(|i| format!("<lora:{i}>")).collect();
            repeated(n, &format!(r#"{{"prompt":"{}","x":""#, &tags[..9_990]), "a", r#""}"#)
        }),
        json("a long prompt", |n| repeated(n, r#"{"prompt":""#, "a", r#""}"#)),
        json("a prompt of escapes", |n| repeated(n, r#"{"prompt":""#, r"\u0001", r#""}"#)),
        json("a long prompt in a wrong place", |n| repeated(n, r#"{"prompt":"a","steps":""#, r"\u0001", r#""}"#)),
        json("a long model", |n| repeated(n, r#"{"prompt":"a","model":""#, "狐", r#""}"#)),
        json("a long scheduler", |n| repeated(n, r#"{"prompt":"a","scheduler":""#, "a", r#""}"#)),
        json("a scheduler's long value", |n| {
            repeated(
                n,
                r#"{"prompt":"a","scheduler":{"_class_name":"EulerDiscreteScheduler","timestep_type":""#,
                "a",
                r#""}}"#,
            )
        }),
        json("betas", |n| repeated(n, r#"{"prompt":"a","scheduler":{"trained_betas":["#, "0.1,", "0]}}")),
        json("a long address", |n| repeated(n, r#"{"prompt":"a","webhook":{"url":"https://"#, "a", r#""}}"#)),
        json("base64 of no picture", |n| repeated(n, r#"{"prompt":"a","image":""#, "AAAA", r#""}"#)),
        json("base64 in lines", |n| repeated(n, r#"{"prompt":"a","image":{"b64":""#, r"AAAA\n", r#""}}"#)),
        json("a data URL of no picture", |n| {
            repeated(n, r#"{"prompt":"a","mask":{"data_url":"data:image/png;base64,"#, "AAAA", r#""}}"#)
        }),
        json("an upload of no digest", |n| repeated(n, r#"{"prompt":"a","image":{"upload":""#, "a", r#""}}"#)),
        json("a file of a long name", |n| repeated(n, r#"{"prompt":"a","image":{"file":""#, r"\u0001", r#""}}"#)),
        json("a word of no choice", |n| repeated(n, r#"{"prompt":"a","priority":""#, "a", r#""}"#)),
        json("space", |n| repeated(n, "", " ", "{}")),
        json("an open bracket", |n| repeated(n, "", "[", "")),
        form("names", |n| repeated(n, "", "a&", "a")),
        form("other names", |n| numbered(n, "", |i| format!("{i:x}&"), "z")),
        form("one long name", |n| repeated(n, "prompt=a&", "a", "=1")),
        form("one long name that is no text", |n| repeated(n, "prompt=a&%FF", "a", "=1")),
        form("one long value", |n| repeated(n, "prompt=", "%41", "")),
        form("one long value that is no text", |n| repeated(n, "prompt=%FF", "a", "")),
        form("lists in a form", |n| repeated(n, "prompt=a&sigmas=[", "[],", "0]")),
        form("a list that does not end", |n| repeated(n, "prompt=a&sigmas=[", "[],", "")),
        form("a label of a form", |n| repeated(n, "prompt=a&metadata[k]=", "a", "")),
        form("separators", |n| repeated(n, "x=1", "&", "x")),
        multipart("parts", |n| {
            let part = "--frontier\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\r\n";
            repeated(n, "", part, "--frontier--\r\n")
        }),
        multipart("one long text", |n| in_a_part(n, "name=\"prompt\"")),
        multipart("one long file", |n| in_a_part(n, "name=\"image\"; filename=\"a.png\"")),
        multipart("one long file without a field", |n| in_a_part(n, "name=\"other\"; filename=\"a.png\"")),
        multipart("a long name of a part", |n| {
            repeated(n, "--frontier\r\nContent-Disposition: form-data; name=\"", "a", "\"\r\n\r\na\r\n--frontier--\r\n")
        }),
        multipart("a long header of a part", |n| {
            repeated(n, "--frontier\r\nx: ", "a", "\r\n\r\na\r\n--frontier--\r\n")
        }),
        multipart("a part without an end", |n| {
            repeated(n, "--frontier\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n", "\r\n--frontie", "")
        }),
        multipart("no boundary", |n| repeated(n, "", "--frontie\r\n", "")),
    ]
}

/// A valid request with a prompt, a LoRA, a ControlNet, a picture and a mask.
pub fn valid_request() -> Value {
    let mut file = Vec::new();
    png::Encoder::new(&mut file, 64, 64).write_header().unwrap().write_image_data(&[0; 64 * 64]).unwrap();
    let image = STANDARD.encode(file);
    let control = json!({"model": "emoji-canny", "image": image});
    json!({"prompt": "a <lora:emoji-lcm> fox", "controls": [control], "image": image, "mask": image})
}

/// Requests with small files of large pictures. The server can refuse each request without decoding pixels.
pub fn pictures() -> Vec<(String, Vec<u8>)> {
    let image = STANDARD.encode(large_picture());
    let control = json!({"model": "emoji-canny", "image": image});
    let bomb = STANDARD.encode(profile_bomb());
    let cases: [(&str, Value); 7] = [
        ("five controls", json!({"prompt": "a", "controls": vec![&control; 5]})),
        ("a control of no name", json!({"prompt": "a", "controls": [{"model": "none", "image": image}]})),
        ("a model of no name", json!({"prompt": "a", "model": "none", "image": image})),
        ("no step", json!({"prompt": "a", "steps": 0, "image": image})),
        ("a size of no multiple", json!({"prompt": "a", "width": 65, "image": image, "mask": image})),
        ("a profile that inflates, and no step", json!({"prompt": "a", "steps": 0, "image": bomb, "mask": bomb})),
        ("a faulty picture beside it", json!({"prompt": "a", "image": image, "mask": "AAAA"})),
    ];
    cases
        .into_iter()
        .map(|(what, body)| (format!("a large picture and {what}"), body.to_string().into_bytes()))
        .collect()
}

/// A PNG file of a few kilobytes with fifty million black pixels.
fn large_picture() -> Vec<u8> {
    let (width, height) = (16_384, 3_051);
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    encoder.set_deflate_compression(png::DeflateCompression::Level(9));
    encoder.write_header().unwrap().write_image_data(&vec![0; (width / 8 * height) as usize]).unwrap();
    file
}

/// A small PNG file whose color profile has one hundred million bytes when inflated.
fn profile_bomb() -> Vec<u8> {
    let mut profile = b"a\0\0".to_vec();
    let mut zlib = flate2::write::ZlibEncoder::new(&mut profile, flate2::Compression::best());
    (0..100).for_each(|_| zlib.write_all(&vec![0; 1_000_000]).unwrap());
    zlib.finish().unwrap();
    let mut file = Vec::new();
    let mut writer = png::Encoder::new(&mut file, 64, 64).write_header().unwrap();
    writer.write_chunk(png::chunk::iCCP, &profile).unwrap();
    writer.write_image_data(&[0; 64 * 64]).unwrap();
    writer.finish().unwrap();
    file
}

fn repeated(length: usize, before: &str, unit: &str, after: &str) -> Vec<u8> {
    let count = length.saturating_sub(before.len() + after.len()) / unit.len();
    [before, &unit.repeat(count), after].concat().into_bytes()
}

fn numbered(length: usize, before: &str, unit: impl Fn(usize) -> String, after: &str) -> Vec<u8> {
    let mut body = before.to_owned();
    for i in 0.. {
        let unit = unit(i);
        if body.len() + unit.len() + after.len() > length {
            break;
        }
        body.push_str(&unit);
    }
    (body + after).into_bytes()
}

fn in_a_part(length: usize, disposition: &str) -> Vec<u8> {
    let before = format!("--frontier\r\nContent-Disposition: form-data; {disposition}\r\n\r\n");
    repeated(length, &before, "a", "\r\n--frontier--\r\n")
}
