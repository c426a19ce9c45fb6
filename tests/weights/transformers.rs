//! Tests of transformers and of their LoRAs with the names of the original code.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use candle_core::{
    Device as CandleDevice, Tensor,
    quantized::{GgmlDType, QTensor, gguf_file},
};
use latentd::{
    device::Device,
    families::checkpoints,
    weights::{
        LoadError, ModelFolder, Weights,
        lora::{Lora, Modules},
    },
};
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::{
    files::{Raw, Tensors, write},
    manifests::{Manifest, write_hollow},
    originals::{Place, flux2, sd3, z_image},
};

type Names = fn(&str) -> Place;

const PUBLISHED: [(&str, Names); 3] =
    [("z-image--transformer", z_image), ("flux2-klein-4b--transformer", flux2), ("flux2-klein-9b--transformer", flux2)];

/// The tensors of diffusers with the original names.
fn renamed(tensors: &Tensors, names: Names) -> Tensors {
    let mut places: Vec<(Place, &Raw)> = tensors.iter().map(|(name, raw)| (names(name), raw)).collect();
    places.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut made = Tensors::new();
    for (Place { name, is_swapped, .. }, raw) in places {
        let mut bytes = raw.bytes.clone();
        if is_swapped {
            let half = bytes.len() / 2;
            bytes.rotate_left(half);
        }
        match made.get_mut(&name) {
            None => drop(made.insert(name, Raw { bytes, ..raw.clone() })),
            Some(joined) => {
                joined.shape[0] += raw.shape[0];
                joined.bytes.extend(bytes);
            }
        }
    }
    made
}

/// A model that consists of `file` and of an empty base folder.
fn model(file: &Path, beside: &Value) -> ModelFolder {
    fs::create_dir_all(file.parent().unwrap().join("base")).unwrap();
    fs::write(file.with_extension("json"), beside.to_string()).unwrap();
    ModelFolder::single(file, &checkpoints()).unwrap()
}

fn open(folder: &ModelFolder) -> Weights {
    let same = |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec());
    Weights::open(folder, "transformer", "diffusion_pytorch_model", &Device::host(), same).unwrap()
}

/// Names, shapes and configurations in full size.
#[test]
fn published_transformers_are_read_with_their_original_names() {
    for (manifest, names) in PUBLISHED {
        let published = Manifest::read(manifest);
        let place = tempfile::tempdir().unwrap();
        for prefix in ["", "model.diffusion_model."] {
            let hollow = renamed(&published.hollow(), names).into_iter();
            let mut file: Tensors = hollow.map(|(name, raw)| (format!("{prefix}{name}"), raw)).collect();
            let more = |shape: &[usize]| Raw { dtype: Dtype::F16, shape: shape.to_vec(), bytes: vec![] };
            if manifest.starts_with("z-image") {
                file.insert(format!("{prefix}norm_final.weight"), more(&[3840]));
            }
            if !prefix.is_empty() {
                file.insert("vae.decoder.conv_in.bias".to_owned(), more(&[4]));
                file.insert("text_encoders.qwen3_4b.transformer.model.norm.weight".to_owned(), more(&[4]));
            }
            let folder = model(&write_hollow(place.path(), &file), &json!({"base": "base"}));
            let config = folder.json("transformer/config.json").unwrap();
            assert!(config.len() >= 8, "{manifest}: {config:?}");
            for (key, made) in &config {
                let wanted = published.config.get(key).unwrap_or(&Value::Null);
                let is_same = made == wanted || made.as_f64().is_some_and(|made| wanted.as_f64() == Some(made));
                assert!(is_same, "{manifest}: {key} is {made}, not {wanted}");
            }
            let request = |weights: &Weights| {
                published.tensors.iter().for_each(|(name, shape)| drop(weights.tensor(name, shape)));
            };
            open(&folder).check(request).unwrap_or_else(|error| panic!("{manifest}: {error}"));
        }
    }
}

/// The tensors of a published transformer outside its blocks and of its first two blocks, with fewer rows and columns.
fn small(manifest: &str) -> BTreeMap<String, Vec<usize>> {
    let tensors = Manifest::read(manifest).tensors.into_iter();
    let is_first = |name: &str| name.split('.').find_map(|part| part.parse::<u32>().ok()).is_none_or(|n| n < 2);
    let fewer = |shape: Vec<usize>| -> Vec<usize> { shape.into_iter().map(|axis| axis.div_ceil(256)).collect() };
    tensors.filter(|(name, _)| is_first(name)).map(|(name, shape)| (name, fewer(shape))).collect()
}

/// Numbers that are different in each tensor and that float16 has exactly.
fn numbers(shapes: &BTreeMap<String, Vec<usize>>) -> Tensors {
    let mut next = 0;
    let mut raw = |shape: &[usize]| {
        next += 1;
        let seed = next;
        Raw::floats(shape, move |i| ((i * 7 + seed * 13) % 1021) as f32 / 64.0 - 8.0)
    };
    shapes.iter().map(|(name, shape)| (name.clone(), raw(shape))).collect()
}

/// All numbers of a transformer.
fn read(folder: &ModelFolder, shapes: &BTreeMap<String, Vec<usize>>) -> Result<Vec<f32>, LoadError> {
    let weights = open(folder);
    let values = |(name, shape): (&String, &Vec<usize>)| {
        weights.tensor(name, shape).flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let read = shapes.iter().flat_map(values).collect();
    weights.finish().map(|()| read)
}

#[test]
fn each_tensor_with_an_original_name_keeps_its_numbers() {
    for (manifest, names) in PUBLISHED {
        let shapes = small(manifest);
        let tensors = numbers(&shapes);
        let wanted: Vec<f32> = tensors.values().flat_map(floats).collect();
        let place = tempfile::tempdir().unwrap();
        let original = renamed(&tensors, names);
        assert!(original.len() < tensors.len());
        let file = place.path().join("mine.safetensors");
        fs::write(&file, write(&original)).unwrap();
        let base = json!({"base": "base"});
        assert_eq!(read(&model(&file, &base), &shapes).unwrap(), wanted, "{manifest}");

        // A GGUF file, whose vectors may lack an axis of length 1.
        let file = place.path().join("quantized.gguf");
        fs::write(&file, gguf(&original)).unwrap();
        assert_eq!(read(&model(&file, &base), &shapes).unwrap(), wanted, "{manifest}");

        // 8-bit floats with scales: 0x38 is 1 in E4M3, and 0x3c is 1.5.
        let file = place.path().join("scaled.safetensors");
        let of_bits = |bits: usize| if bits == 0 { 1.0 } else { 1.5 };
        let bits =
            |raw: &Raw| -> Vec<usize> { (0..raw.shape.iter().product()).map(|i: usize| i * i % 3 % 2).collect() };
        let mut scaled = original.clone();
        for (name, raw) in &original {
            if let (Some(layer), 2) = (name.strip_suffix(".weight"), raw.shape.len()) {
                let bytes = bits(raw).into_iter().map(|bits| if bits == 0 { 0x38 } else { 0x3c }).collect();
                scaled.insert(name.clone(), Raw { dtype: Dtype::F8_E4M3, bytes, ..raw.clone() });
                scaled.insert(format!("{layer}.weight_scale"), Raw::floats(&[], |_| 0.25));
            }
        }
        fs::write(&file, write(&scaled)).unwrap();
        let mut plain = original.clone();
        for (name, raw) in plain.iter_mut().filter(|(name, raw)| name.ends_with(".weight") && raw.shape.len() == 2) {
            let values: Vec<f32> = bits(raw).into_iter().map(|bits| 0.25 * of_bits(bits)).collect();
            assert_eq!(scaled[name].dtype, Dtype::F8_E4M3);
            *raw = Raw::floats(&raw.shape, |i| values[i]);
        }
        assert!(plain != original);
        let same = place.path().join("plain.safetensors");
        fs::write(&same, write(&plain)).unwrap();
        assert_eq!(read(&model(&file, &base), &shapes).unwrap(), read(&model(&same, &base), &shapes).unwrap());

        // A stray tensor is named.
        let mut stray = original.clone();
        let name = format!("{}.gate", stray.keys().next().unwrap());
        stray.insert(name.clone(), Raw::floats(&[2], |_| 0.0));
        fs::write(&same, write(&stray)).unwrap();
        let error = read(&model(&same, &base), &shapes).unwrap_err().to_string();
        assert!(error.contains(&name), "{manifest}: {error}");
    }
}

fn floats(raw: &Raw) -> Vec<f32> {
    raw.bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// The tensors in float16, vectors in float32. An axis of length 1 at the front is left out.
pub fn gguf(tensors: &Tensors) -> Vec<u8> {
    let quantized = |(name, raw): (&String, &Raw)| {
        let shape = if raw.shape[0] == 1 && name.ends_with("_token") { &raw.shape[1..] } else { &raw.shape[..] };
        let tensor = Tensor::from_vec(floats(raw), shape, &CandleDevice::Cpu).unwrap();
        let dtype = if shape.len() == 1 { GgmlDType::F32 } else { GgmlDType::F16 };
        (name.clone(), QTensor::quantize(&tensor, dtype).unwrap())
    };
    let quantized: Vec<(String, QTensor)> = tensors.iter().map(quantized).collect();
    let borrowed: Vec<_> = quantized.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut file = std::io::Cursor::new(Vec::new());
    gguf_file::write(&mut file, &[], &borrowed).unwrap();
    file.into_inner()
}

/// Two blocks of Stability's transformer, as far as names are not obvious.
fn sd3_blocks() -> BTreeMap<String, Vec<usize>> {
    let shape = |name: &str, rows: usize| (format!("{name}.weight"), vec![rows, 4]);
    let of_block = |block: usize| {
        let rows_of_context = if block == 0 { 24 } else { 8 };
        let more = if block == 0 { vec!["attn.to_add_out"] } else { vec![] };
        let squares = [
            &["attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"][..],
            &["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
            &more,
        ]
        .concat();
        let squares = squares.into_iter().map(|name| (name, 4));
        let all = squares.chain([("norm1.linear", 24), ("norm1_context.linear", rows_of_context)]);
        all.map(|(name, rows)| shape(&format!("transformer_blocks.{block}.{name}"), rows)).collect::<Vec<_>>()
    };
    (0..2).flat_map(of_block).chain([shape("norm_out.linear", 8), shape("proj_out", 4)]).collect()
}

const ENDS: [[&str; 2]; 2] = [[".lora_A.weight", ".lora_B.weight"], [".lora_down.weight", ".lora_up.weight"]];

/// A LoRA in all spellings: of diffusers, and with the names of the original code.
#[test]
fn all_spellings_of_a_lora_of_a_transformer_are_the_same() {
    let shapes = [small("z-image--transformer"), small("flux2-klein-4b--transformer"), sd3_blocks()];
    for (shapes, names) in shapes.into_iter().zip([z_image as Names, flux2, sd3]) {
        let mut modules = Modules::default();
        modules.add("transformer", &shapes);
        let sites: Vec<(&str, &Vec<usize>)> = shapes
            .iter()
            .filter_map(|(name, shape)| Some((name.strip_suffix(".weight").filter(|_| shape.len() == 2)?, shape)))
            .collect();
        // The layers that the original joins have the same down matrix.
        let down = |inputs: usize| Raw::floats(&[2, inputs], |i| i as f32 - 1.5);
        let mut ups: Tensors = Tensors::new();
        for (at, (name, shape)) in sites.iter().enumerate() {
            let up = Raw::floats(&[shape[0], 2], |i| (i * 3 + at * 7) as f32 / 16.0);
            ups.insert(format!("{name}.weight"), up);
        }
        let spelled = |ups: &Tensors, [a, b]: [&str; 2], spell: &dyn Fn(&str) -> String| -> Tensors {
            let inputs: BTreeMap<String, usize> =
                sites.iter().map(|(name, shape)| (format!("{name}.weight"), shape[1])).collect();
            let of_original: BTreeMap<String, usize> =
                inputs.iter().map(|(name, inputs)| (names(name).name, *inputs)).collect();
            let pair = |(name, up): (&String, &Raw)| {
                let inputs = inputs.get(name).or_else(|| of_original.get(name)).copied().unwrap();
                let module = spell(name.strip_suffix(".weight").unwrap());
                [(format!("{module}{a}"), down(inputs)), (format!("{module}{b}"), up.clone())]
            };
            ups.iter().flat_map(pair).collect()
        };
        let load = |tensors: &Tensors| Lora::read("adapter.safetensors", &write(tensors), &modules);
        let [peft, kohya] = ENDS;
        let expected = load(&spelled(&ups, peft, &|name| format!("transformer.{name}"))).unwrap();
        assert_eq!(expected.sites.len(), sites.len());
        let joined = renamed(&ups, names);
        assert!(joined.len() < ups.len());
        for (prefix, is_flat) in [
            ("diffusion_model.", false),
            ("base_model.model.", false),
            ("", false),
            ("lora_unet_", true),
            ("lora_unet__", true),
            ("lora_transformer_", true),
            ("lycoris_", true),
        ] {
            let spell = |name: &str| match is_flat {
                true => format!("{prefix}{}", name.replace('.', "_")),
                false => format!("{prefix}{name}"),
            };
            for ups in [&ups, &joined] {
                for ends in [peft, kohya] {
                    let tensors = spelled(ups, ends, &spell);
                    let lora = load(&tensors).unwrap_or_else(|error| panic!("{prefix}: {error}"));
                    assert!(lora == expected, "{prefix} {ends:?}");
                }
            }
            let alphas = joined.keys().map(|name| spell(name.strip_suffix(".weight").unwrap()));
            let alphas = alphas.map(|module| (format!("{module}.alpha"), Raw::floats(&[], |_| 1.0)));
            let halved: Tensors = spelled(&joined, kohya, &spell).into_iter().chain(alphas).collect();
            assert!(load(&halved).unwrap().sites.values().all(|site| site.scale == 0.5), "{prefix}");
            let mut strange = spelled(&joined, peft, &spell);
            let key = format!("{}.lora_A.weight", spell("layers.9.attention.qkv"));
            strange.insert(key.clone(), down(4));
            let error = load(&strange).unwrap_err().to_string();
            assert!(error.contains(&key), "{prefix}: {error}");
        }
    }
}

/// The rows of the modulation of the prompt in the last block are exchanged only in files with original names.
#[test]
fn halves_of_a_modulation_are_exchanged_where_the_codes_differ() {
    let mut modules = Modules::default();
    modules.add("transformer", &sd3_blocks());
    let up = |key: &str| {
        let tensors = Tensors::from([
            (format!("{key}.lora_down.weight"), Raw::floats(&[1, 4], |i| i as f32)),
            (format!("{key}.lora_up.weight"), Raw::floats(&[if key.contains('0') { 24 } else { 8 }, 1], |i| i as f32)),
        ]);
        let sites = Lora::read("adapter.safetensors", &write(&tensors), &modules).unwrap().sites;
        assert_eq!(sites.len(), 1);
        sites.into_values().next().unwrap().up
    };
    let ordered = |count: usize| (0..count).map(|i| i as f32).collect::<Vec<f32>>();
    let swapped = [4.0, 5.0, 6.0, 7.0, 0.0, 1.0, 2.0, 3.0];
    assert_eq!(up("lora_unet_joint_blocks_1_context_block_adaLN_modulation_1"), swapped);
    assert_eq!(up("diffusion_model.final_layer.adaLN_modulation.1"), swapped);
    assert_eq!(up("lora_unet_joint_blocks_0_context_block_adaLN_modulation_1"), ordered(24));
    assert_eq!(up("transformer.transformer_blocks.1.norm1_context.linear"), ordered(8));
    assert_eq!(up("lora_transformer_norm_out_linear"), ordered(8));
}

/// The layers of a module are changed by their rows of its up matrix.
#[test]
fn the_change_of_a_module_is_divided_among_its_layers() {
    let mut modules = Modules::default();
    modules.add(
        "transformer",
        &BTreeMap::from([("a.weight".to_owned(), vec![5, 3]), ("b.weight".to_owned(), vec![5, 3])]),
    );
    let of = |module: &str| {
        [
            (format!("transformer.{module}.lora_A.weight"), Raw::floats(&[2, 3], |i| i as f32)),
            (format!("transformer.{module}.lora_B.weight"), Raw::floats(&[5, 2], |i| i as f32)),
        ]
    };
    let lora =
        Lora::read("adapter.safetensors", &write(&of("a").into_iter().chain(of("b")).collect()), &modules).unwrap();
    let divided = lora.divided(|site| (site == "transformer.a").then(|| vec![2, 3]));
    let found: BTreeSet<&str> = divided.sites.keys().map(String::as_str).collect();
    assert_eq!(found, BTreeSet::from(["transformer.a.0", "transformer.a.1", "transformer.b"]));
    assert_eq!(divided.sites["transformer.a.0"].up, [0.0, 1.0, 2.0, 3.0]);
    assert_eq!(divided.sites["transformer.a.1"].up, [4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
    assert_eq!((divided.sites["transformer.a.1"].outputs, divided.sites["transformer.b"].outputs), (3, 5));
}
