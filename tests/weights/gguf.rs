//! Tests of GGUF files, which candle writes here, and of 8-bit floats with scales.

use std::{collections::BTreeMap, fs, io::Cursor};

use candle_core::{
    Device as CandleDevice, Tensor,
    quantized::{GgmlDType, QTensor, gguf_file},
};
use latentd::{
    device::Device,
    kernels::{Kernels, matrix::Matrix, narrow::Narrow},
    weights::{LoadError, ModelFolder, StoredMatrix, WeightSize, Weights},
};
use proptest::prelude::*;
use safetensors::Dtype;
use tempfile::TempDir;

use crate::files::{Raw, Tensors, parity, read_at, write};

/// A model folder with these files in `transformer`.
fn folder(files: &[(&str, &[u8])]) -> (TempDir, ModelFolder) {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("transformer")).unwrap();
    for (name, file) in files {
        fs::write(place.path().join("transformer").join(name), file).unwrap();
    }
    let folder = ModelFolder::open(place.path()).unwrap();
    (place, folder)
}

fn open(folder: &ModelFolder) -> Result<Weights, LoadError> {
    let same = |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec());
    Weights::open(folder, "transformer", "diffusion_pytorch_model", &Device::host(), same)
}

fn error(file: &[u8]) -> String {
    let (_place, folder) = folder(&[("model.gguf", file)]);
    open(&folder).unwrap_err().to_string()
}

/// Numbers between -1 and 1.
fn numbers(shape: &[usize]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|i: usize| (i as f32 * 0.37 + 0.1).sin()).collect();
    Tensor::from_vec(values, shape, &CandleDevice::Cpu).unwrap()
}

const TYPES: [GgmlDType; 13] = [
    GgmlDType::F32,
    GgmlDType::F16,
    GgmlDType::BF16,
    GgmlDType::Q4_0,
    GgmlDType::Q4_1,
    GgmlDType::Q5_0,
    GgmlDType::Q5_1,
    GgmlDType::Q8_0,
    GgmlDType::Q2K,
    GgmlDType::Q3K,
    GgmlDType::Q4K,
    GgmlDType::Q5K,
    GgmlDType::Q6K,
];

/// A file with a matrix (24, 512) of each type and a vector, and the values that candle reads from it.
fn made() -> (Vec<u8>, BTreeMap<String, Vec<f32>>) {
    let matrix = numbers(&[24, 512]);
    let quantized = |dtype| (format!("{dtype:?}.weight"), QTensor::quantize(&matrix, dtype).unwrap());
    let mut tensors: Vec<(String, QTensor)> = TYPES.into_iter().map(quantized).collect();
    tensors.push(("norm.scale".to_owned(), QTensor::quantize(&numbers(&[7]), GgmlDType::F32).unwrap()));
    let words = ["a", "bc", ""].map(|word| gguf_file::Value::String(word.into())).to_vec();
    let metadata = [
        ("general.architecture", gguf_file::Value::String("flux".into())),
        ("tokenizer.ggml.tokens", gguf_file::Value::Array(words)),
        ("tokenizer.ggml.scores", gguf_file::Value::Array(vec![gguf_file::Value::F32(0.5); 3])),
        ("general.file_type", gguf_file::Value::U32(7)),
        ("general.quantized", gguf_file::Value::Bool(true)),
    ];
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let borrowed: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut file = Cursor::new(Vec::new());
    gguf_file::write(&mut file, &metadata, &borrowed).unwrap();
    let values = |tensor: &QTensor| {
        let values = tensor.dequantize(&CandleDevice::Cpu).unwrap();
        values.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let values = tensors.iter().map(|(name, tensor)| (name.clone(), values(tensor))).collect();
    (file.into_inner(), values)
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

#[test]
fn tensors_of_a_gguf_file_have_the_values_that_candle_reads() {
    let (file, expected) = made();
    let (_place, folder) = folder(&[("model.gguf", &file)]);
    let weights = open(&folder).unwrap();
    assert_eq!(weights.stored().len(), expected.len());
    for (name, shape) in weights.stored() {
        let values: Vec<u32> = expected[&name].iter().map(|value| value.to_bits()).collect();
        assert_eq!(bits(&weights.tensor(&name, &shape)), values, "{name}");
    }
    weights.finish().unwrap();
}

#[test]
fn matrices_stay_as_they_are_stored_and_products_keep_their_bits() {
    let (file, _) = made();
    let (_place, folder) = folder(&[("model.gguf", &file)]);
    let wide = open(&folder).unwrap();
    let stored = open(&folder).unwrap().with_stored_matrices();
    let x = numbers(&[2, 5, 512]);
    let mut kept = 0;
    for (name, shape) in stored.stored() {
        let [outputs, inputs] = shape[..] else {
            assert!(stored.tensor(&name, &shape).elem_count() > 0);
            continue;
        };
        let expected = Matrix::new(&wide.matrix(&name, outputs, inputs), None, Kernels::default()).unwrap();
        let Some(StoredMatrix { format, scale, bytes }) = stored.stored_matrix(&name, outputs, inputs) else {
            assert_eq!(name, "F32.weight");
            stored.matrix(&name, outputs, inputs);
            continue;
        };
        kept += 1;
        let narrow = Narrow::pack(format, scale, &bytes, (inputs, outputs), |row| row).unwrap();
        let narrow = Matrix::narrow(narrow, None).unwrap();
        assert_eq!(bits(&narrow.times(&x).unwrap()), bits(&expected.times(&x).unwrap()), "{name}");
        assert!(wide.stored_matrix(&name, outputs, inputs).is_none(), "only where it is allowed");
    }
    assert_eq!(kept, TYPES.len() - 1);
    stored.finish().unwrap();
}

#[test]
fn the_memory_that_is_planned_is_that_of_the_stored_matrices() {
    let (file, _) = made();
    let (_place, folder) = folder(&[("model.gguf", &file)]);
    let bytes = |size: WeightSize| {
        let host = Device::host();
        size.bytes(host.precision(), host.kernels())
    };
    let read = |read: fn(&ModelFolder, &str, &str) -> Result<WeightSize, LoadError>| {
        bytes(read(&folder, "transformer", "diffusion_pytorch_model").unwrap())
    };
    assert_eq!(read(WeightSize::read), 4 * (TYPES.len() as u64 * 24 * 512 + 7));
    // 24 columns are filled up to 32.
    let rows: usize = TYPES[1..].iter().map(|dtype| 512 / dtype.block_size() * dtype.type_size()).sum();
    assert_eq!(read(WeightSize::read_as_stored), (32 * rows + 4 * (24 * 512 + 7)) as u64);
}

#[test]
fn a_gguf_file_replaces_safetensors_files() {
    let (file, _) = made();
    let other = write(&Tensors::from([("other".to_owned(), Raw::floats(&[2], |_| 1.0))]));
    let safetensors = ("diffusion_pytorch_model.safetensors", &*other);
    let (_place, both) = folder(&[("flux-Q4_K_S.gguf", &file), safetensors]);
    let weights = open(&both).unwrap();
    assert!(!weights.stored().contains_key("other"));
    assert!(weights.note().unwrap().contains("flux-Q4_K_S.gguf"), "{:?}", weights.note());
    let (_place, two) = folder(&[("a.gguf", &file), ("b.gguf", &file)]);
    let error = open(&two).unwrap_err().to_string();
    assert!(error.contains("a.gguf") && error.contains("b.gguf"), "{error}");
}

/// The fixtures of the complete set that gguf-py wrote, with the values that it reads from them.
#[test]
fn the_fixtures_have_the_values_of_gguf_py() {
    let whole = parity().join("components/gguf.safetensors");
    if !whole.is_file() {
        assert!(std::env::var_os("LATENTD_PARITY_DIR").is_none(), "the fixtures have no GGUF");
        println!("waiting: the complete set of fixtures (LATENTD_PARITY_DIR)");
        return;
    }
    // The names that networks use. The fixtures have the first 64 rows: queries and keys of the fused layers.
    let names = |name: &str| match name {
        "token_embd.weight" => vec!["shared"],
        "enc.blk.0.attn_q.weight" => vec!["encoder.block.0.layer.0.SelfAttention.q"],
        "double_blocks.0.img_attn.qkv.weight" => {
            vec!["transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_k"]
        }
        "single_blocks.1.linear1.weight" => {
            vec!["single_transformer_blocks.1.attn.to_q", "single_transformer_blocks.1.attn.to_k"]
        }
        "final_layer.linear.weight" => vec!["proj_out"],
        _ => panic!("{name}"),
    };
    for (key, raw) in read_at(whole) {
        let (file, name) = key.split_once('/').unwrap();
        let bytes = fs::read(parity().join("gguf").join(file)).unwrap();
        let (_place, folder) = folder(&[("model.gguf", &bytes)]);
        let weights = open(&folder).unwrap();
        let stored = weights.stored();
        let values = |part: &str| {
            let name = format!("{part}.weight");
            bits(&weights.tensor(&name, &stored[&name]))
        };
        let made: Vec<u32> = names(name).into_iter().flat_map(values).collect();
        let expected: Vec<u32> = raw.bytes.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        assert_eq!(made[..expected.len()], expected, "{key}");
        assert!(!weights.stored().keys().any(|name| name.starts_with("enc.")), "names of transformers");
    }
}

/// The beginning of a file: magic number, version, numbers of tensors and of metadata entries.
fn start(version: u32, tensors: u64, entries: u64) -> Vec<u8> {
    [&b"GGUF"[..], &version.to_le_bytes(), &tensors.to_le_bytes(), &entries.to_le_bytes()].concat()
}

/// A text with its length.
fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// A tensor in the header.
fn tensor(name: &str, shape: &[u64], dtype: u32, offset: u64) -> Vec<u8> {
    let shape_bytes: Vec<u8> = shape.iter().flat_map(|axis| axis.to_le_bytes()).collect();
    let axes = (shape.len() as u32).to_le_bytes();
    [&text(name)[..], &axes, &shape_bytes, &dtype.to_le_bytes(), &offset.to_le_bytes()].concat()
}

/// A header, filled up to the alignment, and `numbers` zero bytes.
fn whole(header: &[Vec<u8>], numbers: usize) -> Vec<u8> {
    let mut file = header.concat();
    file.resize(file.len().next_multiple_of(32) + numbers, 0);
    file
}

#[test]
fn broken_gguf_files_are_errors_that_say_what_is_wrong() {
    let sound = whole(&[start(3, 1, 0), tensor("t", &[32], 8, 0)], 34);
    let (_place, good) = folder(&[("model.gguf", &sound)]);
    open(&good).unwrap();
    let entry = |kind: u32, value: &[u8]| [&text("key")[..], &kind.to_le_bytes(), value].concat();
    let list = |kind: u32, count: u64| entry(9, &[&kind.to_le_bytes()[..], &count.to_le_bytes()].concat());
    let alignment = |bytes: u32| [&text("general.alignment")[..], &4u32.to_le_bytes(), &bytes.to_le_bytes()].concat();
    for (what, file, expected) in [
        ("empty", vec![], "first four bytes"),
        ("a web page", b"<!DOCTYPE html><html>".to_vec(), "does not begin with GGUF"),
        ("safetensors", write(&Tensors::new()), "does not begin with GGUF"),
        ("version 1", start(1, 0, 0), "version is 1; 2 and 3 are read"),
        ("big-endian", start(3u32.swap_bytes(), 0, 0), "big-endian"),
        ("a billion tensors", start(3, 1 << 30, 0), "more than 100000"),
        ("cut within a tensor", sound[..40].to_vec(), "incomplete"),
        ("cut within the numbers", sound[..sound.len() - 1].to_vec(), "t: 34 bytes from 0 on are not in the file"),
        ("a text of 16 EiB", [start(3, 1, 0), u64::MAX.to_le_bytes().to_vec()].concat(), "longer than 65536"),
        ("a metadata entry of 2⁶⁴ words", [start(3, 0, 1), list(8, u64::MAX)].concat(), "incomplete"),
        ("a metadata entry of 2⁶⁴ numbers", [start(3, 0, 1), list(12, u64::MAX)].concat(), "incomplete"),
        ("lists of lists", [start(3, 0, 1), list(9, 1)].concat(), "lists of lists"),
        ("a metadata entry of an unknown type", [start(3, 0, 1), entry(77, &[])].concat(), "unknown type 77"),
        ("no alignment", whole(&[start(3, 0, 1), alignment(0)], 0), "alignment of 0 bytes"),
        ("five axes", [start(3, 1, 0), tensor("t", &[1; 5], 0, 0)].concat(), "t: 5 axes are more than 4"),
        ("a product above 64 bits", [start(3, 1, 0), tensor("t", &[1 << 33; 2], 0, 0)].concat(), "too large"),
        ("half a block", whole(&[start(3, 1, 0), tensor("t", &[16, 2], 8, 0)], 34), "no whole blocks of 32"),
        ("a type that is not read", whole(&[start(3, 1, 0), tensor("t", &[256], 20, 0)], 0), "type 20 are not read"),
        (
            "a name twice",
            whole(&[start(3, 2, 0), tensor("t", &[8], 0, 0), tensor("t", &[8], 0, 32)], 64),
            "t occurs twice",
        ),
        (
            "overlapping tensors",
            whole(&[start(3, 2, 0), tensor("a", &[8], 0, 0), tensor("b", &[8], 0, 16)], 64),
            "b: its bytes overlap",
        ),
        (
            "a gap",
            whole(&[start(3, 2, 0), tensor("a", &[8], 0, 0), tensor("b", &[8], 0, 64)], 96),
            "b: its bytes leave a gap",
        ),
        ("bytes of no tensor", whole(&[start(3, 1, 0), tensor("t", &[8], 0, 0)], 96), "64 bytes at the end"),
        ("a place above 64 bits", whole(&[start(3, 1, 0), tensor("t", &[8], 0, u64::MAX)], 32), "incomplete"),
    ] {
        let error = error(&file);
        assert!(error.contains(expected), "{what}: {error}");
        assert!(error.contains("transformer/model.gguf: not a sound GGUF file"), "{what}: {error}");
        assert!(error.len() < 400, "{what}: an error of {} bytes", error.len());
    }
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 1440\n", "0".repeat(64));
    assert!(error(pointer.as_bytes()).contains("git lfs pull"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Every file is read or refused, without a panic: sound files with a few other bytes, or cut off.
    #[test]
    fn changed_gguf_files_do_not_panic(changes in prop::collection::vec((0usize..1400, any::<u8>()), 1..4), cut in 0usize..1 << 20) {
        let (mut file, _) = made();
        for (at, byte) in changes {
            file[at] = byte;
        }
        if cut % 3 == 0 {
            file.truncate(cut % file.len());
        }
        let (_place, folder) = folder(&[("model.gguf", &file)]);
        if let Ok(weights) = open(&folder) {
            for (name, shape) in weights.stored() {
                let tensor = weights.tensor(&name, &shape);
                prop_assert_eq!(tensor.dims(), &shape[..]);
            }
            drop(weights.finish());
        }
    }
}

#[test]
fn numbers_of_8_bits_are_multiplied_by_their_scale() {
    let f8 = |bytes: &[u8]| Raw { dtype: Dtype::F8_E4M3, shape: vec![2, bytes.len() / 2], bytes: bytes.to_vec() };
    let scale = |scale: f32| Raw::floats(&[], |_| scale);
    let tensors = |others: &[(&str, Raw)]| {
        let mut tensors = Tensors::from([("a.weight".to_owned(), f8(&[0x38, 0x40, 0xb8, 0x01]))]);
        tensors.extend(others.iter().map(|(name, raw)| ((*name).to_owned(), raw.clone())));
        write(&tensors)
    };
    let mark = Raw { dtype: Dtype::F8_E4M3, shape: vec![0], bytes: vec![] };
    let expected = [0.1f32, 0.2, -0.1, 0.1 / 512.0];
    for others in [
        &[("a.scale_weight", scale(0.1)), ("a.scale_input", scale(7.0)), ("scaled_fp8", mark.clone())][..],
        &[("a.weight_scale", scale(0.1)), ("a.input_scale", scale(7.0))],
        &[("a.weight_scale", Raw::floats(&[1], |_| 0.1))],
    ] {
        let (_place, folder) = folder(&[("diffusion_pytorch_model.safetensors", &tensors(others))]);
        let weights = open(&folder).unwrap().with_stored_matrices();
        let values = weights.tensor("a.weight", &[2, 2]).flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values, expected);
        let stored = weights.stored_matrix("a.weight", 2, 2).unwrap();
        assert_eq!((stored.scale, stored.bytes.len()), (0.1, 4));
        weights.finish().unwrap();
    }
    // Several scales, scales of other weights and scales that are no numbers are errors.
    for (others, expected) in [
        (&[("a.scale_weight", Raw::floats(&[2], |_| 0.1))][..], "unused a.scale_weight"),
        (&[("b.scale_weight", scale(0.1))], "unused b.scale_weight"),
        (&[("a.scale_weight", scale(f32::NAN))], "a.weight"),
    ] {
        let (_place, folder) = folder(&[("diffusion_pytorch_model.safetensors", &tensors(others))]);
        let weights = open(&folder).unwrap();
        weights.tensor("a.weight", &[2, 2]);
        let error = weights.finish().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
