//! Tests of T5: its text encoder and its tokenizer.

use std::{fs, path::Path};

use candle_core::{DType, Tensor};
use latentd::{
    device::Device,
    generation::PromptSyntax,
    models::{
        ClipTokenizer, T5EncoderModel, T5Tokenizer,
        pause::ToEnd,
        prompt_tokenizers::{Cut, PromptText, PromptTokenizer, PromptTokenizers},
        t5_encoder::T5Config,
        t5_tokenizer::T5Ids,
    },
    weights::{LoadError, Weights},
};
use serde_json::{Map, Value, json};

use crate::{
    fixtures::{Copy, assert_close, bits, parity, pipeline_folder, prompts, tensors, walk},
    roots,
};

/// The pipelines with T5, and the numbers in the names of its folders.
const PIPELINES: [(&str, &str); 6] = [
    ("pixart-alpha", ""),
    ("pixart-sigma", ""),
    ("flux-dev", "_2"),
    ("flux-schnell", "_2"),
    ("sd3", "_3"),
    ("sd35", "_3"),
];

/// The pipelines with T5 in the fixtures in use.
fn pipelines() -> Vec<(&'static str, &'static str)> {
    let is_there = |(name, _): &(&str, &str)| parity().join("pipelines").join(name).is_dir();
    let pipelines: Vec<_> = PIPELINES.into_iter().filter(is_there).collect();
    if pipelines.len() < PIPELINES.len() {
        assert!(std::env::var_os("LATENTD_PARITY_DIR").is_none(), "the fixtures have T5 in {pipelines:?} alone");
        println!("pipelines with T5: {pipelines:?}; LATENTD_PARITY_DIR does not name the complete fixtures");
    }
    pipelines
}

fn as_stored(name: &str, shape: &[usize]) -> (String, Vec<usize>) {
    (name.to_owned(), shape.to_vec())
}

fn encoder(root: &Path, number: &str) -> Result<T5EncoderModel, LoadError> {
    let (folder, part) = (pipeline_folder(root)?, format!("text_encoder{number}"));
    let path = format!("{part}/config.json");
    let config = T5Config::read(&path, &folder.json(&path)?)?;
    let weights = Weights::open(&folder, &part, "model", &Device::host(), as_stored)?;
    let model = T5EncoderModel::new(&config, &weights).unwrap();
    weights.finish()?;
    Ok(model)
}

fn tokenizer(root: &Path, number: &str) -> Result<T5Tokenizer, LoadError> {
    T5Tokenizer::load(&pipeline_folder(root)?, &format!("tokenizer{number}"), 77)
}

fn encoded(model: &T5EncoderModel, ids: &[T5Ids], masked: bool) -> Tensor {
    let rows: Vec<&[u32]> = ids.iter().map(|ids| ids.ids.as_slice()).collect();
    let tokens: Vec<usize> = ids.iter().map(|ids| ids.tokens).collect();
    model.forward(&rows, masked.then_some(&tokens[..])).to_end().unwrap()
}

#[test]
fn the_text_encoders_and_tokenizers_equal_transformers() {
    let whole = |x: &Tensor| x.to_dtype(DType::I64).unwrap().to_vec2::<i64>().unwrap();
    for (name, number) in pipelines() {
        let root = parity().join("pipelines").join(name);
        let golden = tensors(&parity().join(format!("components/{name}.safetensors")));
        let tokenizer = tokenizer(&root, number).unwrap();
        let ids: Vec<T5Ids> = prompts().iter().map(|prompt| tokenizer.encode(prompt, tokenizer.length())).collect();
        let made = ids.iter().map(|ids| ids.ids.iter().map(|id| i64::from(*id)).collect());
        let expected = whole(&golden[&format!("tokenizer{number}.input_ids")]);
        assert_eq!(made.collect::<Vec<Vec<_>>>(), expected, "{name}");
        let masks = whole(&golden[&format!("tokenizer{number}.attention_mask")]);
        let expected = masks.iter().map(|mask| mask.iter().filter(|seen| **seen == 1).count());
        assert_eq!(ids.iter().map(|ids| ids.tokens).collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{name}");
        let states = encoded(&encoder(&root, number).unwrap(), &ids, false);
        assert_close(&states, &golden[&format!("text_encoder{number}.last_hidden_state")], name);
    }
}

/// PixArt's pipelines convert prompts to lower case and pass a mask.
#[test]
fn prompts_with_a_mask_equal_diffusers() {
    for (name, number) in pipelines().into_iter().filter(|(name, _)| name.starts_with("pixart")) {
        let root = parity().join("pipelines").join(name);
        let golden = tensors(&parity().join(format!("cases/{name}/default/intermediates.safetensors")));
        let (tokenizer, model) = (tokenizer(&root, number).unwrap().lowercased(), encoder(&root, number).unwrap());
        let prompts = ["\u{1f} A photo of a RED fox sitting in the snow, highly detailed\n", ""];
        let ids: Vec<T5Ids> = prompts.iter().map(|prompt| tokenizer.encode(prompt, 64)).collect();
        let states = encoded(&model, &ids, true);
        for (i, (states_of, mask_of)) in [("0", "1"), ("2", "3")].into_iter().enumerate() {
            let mask = golden[&format!("encode_prompt.{mask_of}")].to_dtype(DType::I64).unwrap();
            let tokens =
                mask.flatten_all().unwrap().to_vec1::<i64>().unwrap().iter().filter(|seen| **seen == 1).count();
            assert_eq!(ids[i].tokens, tokens, "{name} {i}");
            let of = |x: &Tensor, row| x.get(row).unwrap().narrow(0, 0, tokens).unwrap();
            assert_close(&of(&states, i), &of(&golden[&format!("encode_prompt.{states_of}")], 0), name);
        }
    }
}

#[test]
fn with_a_mask_a_prompt_does_not_depend_on_its_padding_or_on_other_prompts() {
    for (name, number) in pipelines() {
        let root = parity().join("pipelines").join(name);
        let (tokenizer, model) = (tokenizer(&root, number).unwrap(), encoder(&root, number).unwrap());
        let ids: Vec<T5Ids> = prompts().iter().map(|prompt| tokenizer.encode(prompt, 60)).collect();
        let (masked, open) = (encoded(&model, &ids, true), encoded(&model, &ids, false));
        for (i, T5Ids { ids, tokens }) in ids.iter().enumerate() {
            let short = T5Ids { ids: ids[..*tokens].to_vec(), tokens: *tokens };
            let of = |x: &Tensor| bits(&x.get(i).unwrap().narrow(0, 0, *tokens).unwrap());
            assert_eq!(bits(&encoded(&model, &[short], true)), of(&masked), "{name}");
            let alone = encoded(&model, &[T5Ids { ids: ids.clone(), tokens: *tokens }], false);
            assert_eq!(bits(&alone.narrow(1, 0, *tokens).unwrap()), of(&open), "{name}");
            assert_ne!(of(&masked), of(&open), "{name}: without a mask, padding counts");
        }
    }
}

#[test]
fn both_files_of_a_tokenizer_give_the_same_ids() {
    let root = parity().join("pipelines/sd3");
    if !root.join("tokenizer_3/spiece.model").is_file() {
        assert!(std::env::var_os("LATENTD_PARITY_DIR").is_none(), "the fixtures have no spiece.model");
        println!("no spiece.model: LATENTD_PARITY_DIR does not name the complete fixtures");
        return;
    }
    let of_json = tokenizer(&root, "_3").unwrap();
    let copy = Copy::of("sd3");
    fs::remove_file(copy.path("tokenizer_3/tokenizer.json")).unwrap();
    let of_pieces = tokenizer(copy.0.path(), "_3").unwrap();
    assert_eq!(of_json.largest_id(), of_pieces.largest_id());
    let mut texts = prompts();
    for file in walk(&parity().join("cases")).into_iter().filter(|file| file.ends_with("request.json")) {
        texts.extend(strings(&serde_json::from_slice(&fs::read(file).unwrap()).unwrap()));
    }
    texts.extend(
        ["<extra_id_3> a</s>b", " two  spaces ", "\u{fb01}ne ① ﬀ\u{a0}x\u{200b}y\tz", "a\n b"].map(str::to_owned),
    );
    for text in &texts {
        assert_eq!(of_json.words(text), of_pieces.words(text), "{text:?}");
    }
    fs::write(copy.path("tokenizer_3/spiece.model"), [0x0a, 0x05]).unwrap();
    let error = tokenizer(copy.0.path(), "_3").unwrap_err().to_string();
    assert!(error.contains("spiece.model") && error.contains("broken"), "{error}");
}

/// All texts of a JSON value.
fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(values) => values.iter().flat_map(strings).collect(),
        Value::Object(values) => values.values().flat_map(strings).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn a_prompt_is_cut_before_its_end_token() {
    let Some((name, number)) = pipelines().first().copied() else { return };
    let tokenizer = tokenizer(&parity().join("pipelines").join(name), number).unwrap();
    let words = tokenizer.words("a photo of a red fox");
    let T5Ids { ids, tokens } = tokenizer.encode("a photo of a red fox", 4);
    assert_eq!((&ids[..3], tokens, ids.len()), (&words[..3], 4, 4));
    let end = ids[3];
    let T5Ids { ids, tokens } = tokenizer.encode("", 4);
    assert_eq!((ids[0], tokens), (end, 1));
    assert_eq!(tokenizer.encode("a", 0).ids, [end]);
}

#[test]
fn the_encoder_that_reads_most_of_a_text_decides_whether_it_is_cut() {
    let root = parity().join("pipelines/flux-dev");
    if !pipelines().iter().any(|(name, _)| *name == "flux-dev") {
        return;
    }
    let clip = ClipTokenizer::load(&pipeline_folder(&root).unwrap(), "tokenizer", 77).unwrap();
    let tokenizers =
        PromptTokenizers(vec![PromptTokenizer::Clip(clip), PromptTokenizer::T5(tokenizer(&root, "_2").unwrap())]);
    let text = "a fox ".repeat(200);
    let total = tokenizer(&root, "_2").unwrap().words(&text).len();
    let cut = |readers: &[usize], length: usize| {
        let (syntax, words, sequence_length) = (PromptSyntax::Plain, &[][..], Some(length));
        let (is_negative, sees) = (false, false);
        tokenizers.cut(&PromptText { text: &text, readers, syntax, words, sequence_length, is_negative, sees })
    };
    assert_eq!(cut(&[0, 1], total + 1), None);
    assert_eq!(cut(&[1], total + 1), None);
    assert_eq!(cut(&[0], total + 1).map(|cut| cut.used), Some(75));
    assert_eq!(cut(&[0, 1], total), Some(Cut { used: total - 1, total }));
    assert_eq!(cut(&[0, 1], 10).map(|cut| cut.used), Some(75));
    assert_eq!(cut(&[7], 10), Some(Cut { used: 9, total }), "the last encoder");
}

#[test]
fn tensors_and_keys_that_do_not_fit_are_named() {
    if let Some((name, number)) = pipelines().first() {
        let copy = Copy::of(name);
        let file = format!("text_encoder{number}/model.safetensors");
        copy.edit_tensors(&file, |tensors| {
            let tensor = tensors.remove("encoder.block.1.layer.1.DenseReluDense.wo.weight").unwrap();
            tensors.insert("encoder.block.1.layer.1.DenseReluDense.w.weight".to_owned(), tensor);
        });
        let error = encoder(copy.0.path(), number).unwrap_err().to_string();
        assert!(error.contains("DenseReluDense.wo.weight") && error.contains("DenseReluDense.w.weight"), "{error}");
    }
    for (key, value) in [
        ("model_type", json!("mt5")),
        ("feed_forward_proj", json!("gated-silu")),
        ("num_layers", json!(0)),
        ("relative_attention_num_buckets", json!(3)),
        ("relative_attention_max_distance", json!(8)),
        ("d_model", json!(1 << 20)),
        ("soft_cap", json!(50)),
    ] {
        let keys = Map::from_iter([(key.to_owned(), value)]);
        let error = T5Config::read("text_encoder/config.json", &keys).unwrap_err().to_string();
        assert!(error.contains(key), "{key}: {error}");
    }
}

#[test]
fn both_names_of_the_token_embeddings_are_read() {
    let Some((name, number)) = pipelines().first().copied() else { return };
    let file = format!("text_encoder{number}/model.safetensors");
    let root = parity().join("pipelines").join(name);
    let ids = [tokenizer(&root, number).unwrap().encode("a fox", 8)];
    let expected = bits(&encoded(&encoder(&root, number).unwrap(), &ids, true));
    for keep_first in [false, true] {
        let copy = Copy::of(name);
        copy.edit_tensors(&file, |tensors| {
            let (one, two) = ("shared.weight", "encoder.embed_tokens.weight");
            let tensor = tensors.remove(one).or_else(|| tensors.remove(two)).unwrap();
            tensors.insert(two.to_owned(), tensor.clone());
            if keep_first {
                tensors.insert(one.to_owned(), tensor);
            }
        });
        let model = encoder(copy.0.path(), number).unwrap();
        assert_eq!(bits(&encoded(&model, &ids, true)), expected);
    }
}

/// Such mixtures are usual in GGUF files, and float8 files have a scale for each matrix.
#[test]
fn gates_and_values_of_different_formats_stay_as_they_are_stored() {
    let Some((name, number)) = pipelines().first().copied() else { return };
    let file = format!("text_encoder{number}/model.safetensors");
    let ids = [tokenizer(&parity().join("pipelines").join(name), number).unwrap().encode("a red fox", 8)];
    let made = |keeps_types: bool| {
        let copy = Copy::of(name);
        copy.edit_tensors(&file, |tensors| {
            for (name, tensor) in tensors.iter_mut() {
                let dtype = match name {
                    _ if name.contains(".wi_0.") => DType::F16,
                    _ if name.contains(".wi_1.") => DType::BF16,
                    _ => DType::F32,
                };
                let rounded = tensor.to_dtype(dtype).unwrap();
                *tensor = if keeps_types { rounded } else { rounded.to_dtype(DType::F32).unwrap() };
            }
        });
        let folder = pipeline_folder(copy.0.path()).unwrap();
        let path = format!("text_encoder{number}/config.json");
        let config = T5Config::read(&path, &folder.json(&path).unwrap()).unwrap();
        let part = format!("text_encoder{number}");
        let weights = Weights::open(&folder, &part, "model", &Device::host(), as_stored).unwrap();
        let model = T5EncoderModel::new(&config, &weights.with_stored_matrices()).unwrap();
        weights.finish().unwrap();
        model
    };
    let (stored, plain) = (made(true), made(false));
    let shown = format!("{stored:?}");
    assert!(shown.contains("Apart"), "{shown}");
    assert!(!format!("{plain:?}").contains("Apart"));
    assert_eq!(bits(&encoded(&stored, &ids, true)), bits(&encoded(&plain, &ids, true)), "{name}");
}

#[test]
fn the_requested_tensors_are_those_of_the_published_encoder() {
    let (config, published) = roots::manifest("sd3-medium--text_encoder_3");
    let weights = Weights::outline("text_encoder_3");
    drop(T5EncoderModel::new(&T5Config::read("text_encoder_3", &config).unwrap(), &weights).unwrap());
    assert_eq!(weights.requested(), published);
}
