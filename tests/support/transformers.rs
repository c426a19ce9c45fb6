//! Folders of small models with transformers and of LoRAs for them: the configurations, shapes and tokenizers come from
//! `tests/fixtures/transformers.json.gz`, the weights are random and the same on every machine.

#![allow(dead_code, reason = "each test target uses its part")]

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use crate::random::Random;

/// Writes folders of these models into `models`; `NAMES` has the models that exist.
pub fn put_models(names: &[&str], models: &Path) {
    let fixtures = bundle();
    for name in names {
        let folder = models.join(name);
        for (path, content) in entries(&fixtures["models"][name]) {
            match content.as_str() {
                Some(tokenizer) => put_tokenizer(&fixtures, tokenizer, &folder.join(path)),
                None => put_file(&folder.join(path), content),
            }
        }
        // Small pictures by default, so that a request without a size is drawn at once.
        let own = json!({"min_size": 32, "width": 64, "height": 64, "steps": 4});
        put_file(&folder.join("latentd.json"), &own);
    }
}

/// Writes the files of the LoRAs into `loras`, except files that exist.
pub fn put_loras(loras: &Path) {
    for (name, content) in entries(&bundle()["adapters"]) {
        let path = loras.join(format!("{name}.safetensors"));
        if !path.exists() {
            put_file(&path, content);
        }
    }
}

/// All models, by the names that the pages of `docs/families` use.
pub const NAMES: [&str; 7] = ["flux-dev", "schnell", "sd35", "z-image", "flux2-klein", "pixart-alpha", "pixart-sigma"];

fn bundle() -> Value {
    let file = fs::read(fixtures().join("transformers.json.gz")).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(&file[..]).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn entries(object: &Value) -> &Map<String, Value> {
    object.as_object().unwrap()
}

fn put_tokenizer(bundle: &Value, name: &str, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    if name == "clip" {
        for file in fs::read_dir(fixtures().join("parity/pipelines/sd1/tokenizer")).unwrap().map(Result::unwrap) {
            fs::write(folder.join(file.file_name()), fs::read(file.path()).unwrap()).unwrap();
        }
        return;
    }
    for (file, text) in entries(&bundle["tokenizers"][name]) {
        fs::write(folder.join(file), text.as_str().unwrap()).unwrap();
    }
}

fn put_file(path: &Path, content: &Value) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let bytes = match path.extension().unwrap().to_str() {
        Some("safetensors") => safetensors(entries(content)),
        _ => serde_json::to_vec_pretty(content).unwrap(),
    };
    fs::write(path, bytes).unwrap();
}

/// A file with random tensors in bfloat16. A shape is a list of sizes; one of integers, which are zeros, is
/// `["I64", sizes]`.
pub fn safetensors(shapes: &Map<String, Value>) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, shape) in shapes {
        let start = data.len();
        let is_whole = shape[0] == "I64";
        let shape: Vec<usize> = serde_json::from_value(if is_whole { &shape[1] } else { shape }.clone()).unwrap();
        let count = shape.iter().product();
        match is_whole {
            true => data.resize(start + 8 * count, 0),
            false => data.extend(weights(name, &shape, count).flat_map(bfloat16)),
        }
        let kind = if is_whole { "I64" } else { "BF16" };
        header.insert(name.clone(), json!({"dtype": kind, "shape": shape, "data_offsets": [start, data.len()]}));
    }
    let mut header = serde_json::to_vec(&header).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    [&(header.len() as u64).to_le_bytes(), &header[..], &data].concat()
}

/// The values of a tensor, which depend on its name: matrices that keep the size of activations, scales around 1, small
/// biases.
fn weights(name: &str, shape: &[usize], count: usize) -> impl Iterator<Item = f32> {
    let seed = name
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    let (mean, deviation) = match shape {
        // The alpha of a LoRA with 4 or 8 columns.
        [] => (4.0, 0.0),
        [_] if ["weight", "var", "gamma", ".alpha", "freqs", "inv_freq", "running_std"]
            .iter()
            .any(|end| name.ends_with(end)) =>
        {
            (1.0, 0.1)
        }
        [_] => (0.0, 0.05),
        [_, columns @ ..] => (0.0, (columns.iter().product::<usize>() as f64).sqrt().recip()),
    };
    let mut random = Random::of(seed, 0);
    // The sum of three numbers of variance 1/3 each.
    let mut normal = move || (0..3).map(|_| random.whole(0, 1 << 20) as f64 / f64::from(1 << 19) - 1.0).sum::<f64>();
    (0..count).map(move |_| (mean + deviation * normal()) as f32)
}

fn bfloat16(value: f32) -> [u8; 2] {
    ((value.to_bits() >> 16) as u16).to_le_bytes()
}
