//! Tests of Qwen3-VL, the text encoder of DreamLite, and of its chats: comparisons with transformers and diffusers.

use std::{fs, path::Path};

use candle_core::{DType, Tensor};
use latentd::{
    device::Device,
    imaging::{RgbImage, decode},
    kernels::Kernels,
    models::{
        Qwen3Vl,
        pause::ToEnd,
        qwen3_vl::{Chat, Picture, Qwen3VlConfig, Qwen3VlRow, Qwen3VlTokenizer, SIDE, Seen},
    },
    weights::{LoadError, ModelFolder, Weights, as_stored},
};
use serde_json::{Map, Value, json};

use crate::{
    fixtures::{Copy, assert_close, bits, noise, parity, pipeline_folder, tensors},
    qwen::has,
};

fn config(folder: &ModelFolder) -> Result<Qwen3VlConfig, LoadError> {
    Qwen3VlConfig::read("text_encoder/config.json", &folder.json("text_encoder/config.json")?)
}

fn encoder_of(root: &Path, device: &Device, narrow: impl Fn(&Weights) -> Weights) -> Result<Qwen3Vl, LoadError> {
    let folder = pipeline_folder(root)?;
    let weights = Weights::open(&folder, "text_encoder", "model", device, as_stored)?;
    let network = Qwen3Vl::new(&config(&folder)?, &narrow(&weights));
    weights.finish()?;
    Ok(network)
}

fn encoder(root: &Path) -> Result<Qwen3Vl, LoadError> {
    encoder_of(root, &Device::host(), Weights::clone)
}

/// The encoder with each set of kernels.
fn encoders(root: &Path) -> [Qwen3Vl; 2] {
    let device = |kernels| Device::host().with_kernels(kernels);
    [Kernels::default(), Kernels::REFERENCE].map(|kernels| encoder_of(root, &device(kernels), Weights::clone).unwrap())
}

fn tokenizer(root: &Path) -> Result<Qwen3VlTokenizer, LoadError> {
    let folder = pipeline_folder(root)?;
    Qwen3VlTokenizer::load(&folder, &config(&folder)?)
}

fn states(encoder: &Qwen3Vl, ids: &[u32], seen: Option<&Seen>) -> candle_core::Result<Tensor> {
    encoder.forward(Qwen3VlRow { ids, seen }).to_end()
}

fn input(name: &str) -> RgbImage {
    decode(&fs::read(parity().join(name)).unwrap(), 255).unwrap()
}

/// Rows of integers.
fn rows(x: &Tensor) -> Vec<Vec<u32>> {
    x.to_dtype(DType::U32).unwrap().to_vec2().unwrap()
}

/// The picture of `components/dreamlite.safetensors`.
fn picture() -> Picture {
    Picture::of(latentd::imaging::resize(&input("inputs/init_96x64.png"), 256, 256))
}

#[test]
fn states_of_texts_equal_transformers() {
    if !has("dreamlite") {
        return;
    }
    let golden = tensors(&parity().join("components/dreamlite.safetensors"));
    let masks = rows(&golden["tokenizer.attention_mask"]);
    for encoder in encoders(&parity().join("pipelines/dreamlite")) {
        for (row, ids) in rows(&golden["tokenizer.input_ids"]).iter().enumerate() {
            let length = masks[row].iter().sum::<u32>() as usize;
            let made = states(&encoder, &ids[..length], None).unwrap();
            let wanted = golden["text_encoder.text.hidden_states.-1"].narrow(0, row, 1).unwrap();
            assert_close(&made, &wanted.narrow(1, 0, length).unwrap(), &format!("prompt {row}"));
        }
    }
}

#[test]
fn a_picture_is_seen_as_by_transformers() {
    if !has("dreamlite") {
        return;
    }
    let root = parity().join("pipelines/dreamlite");
    let golden = tensors(&parity().join("components/dreamlite.safetensors"));
    let (patches, grid) = picture().patches(&config(&pipeline_folder(&root).unwrap()).unwrap().vision).unwrap();
    assert_eq!([1, grid[0] as u32, grid[1] as u32], rows(&golden["processor.image_grid_thw"])[0][..]);
    let wanted = golden["processor.pixel_values.first_8"].flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(patches[..wanted.len()], wanted);

    let ids = &rows(&golden["processor.input_ids"])[0];
    for encoder in encoders(&root) {
        let seen = encoder.see(&picture()).to_end().unwrap();
        assert_close(&seen.features.squeeze(0).unwrap(), &golden["vision.1"], "features");
        assert_eq!(seen.deep.len(), 2);
        for (i, features) in seen.deep.iter().enumerate() {
            assert_close(&features.squeeze(0).unwrap(), &golden[&format!("vision.2.{i}")], &format!("features of {i}"));
        }
        let made = states(&encoder, ids, Some(&seen)).unwrap();
        assert_close(&made, &golden["text_encoder.image.hidden_states.-1"], "states");
    }
}

/// The rows of `encode_prompt` of a case: negative prompts first, then the prompt.
fn embeddings(encoder: &Qwen3Vl, tokenizer: &Qwen3VlTokenizer, request: &Value) -> Vec<Tensor> {
    let params = &request["params"];
    let picture = params["image"]["file"].as_str().map(|file| Picture::square(&input(file)));
    let chat = if picture.is_some() { Chat::Edit } else { Chat::Generate };
    let seen = picture.map(|picture| encoder.see(&picture).to_end().unwrap());
    let negatives = if chat == Chat::Edit { 2 } else { 1 };
    let negative = params["negative_prompt"].as_str().map(str::to_owned);
    let mut instructions: Vec<String> = negative.into_iter().flat_map(|text| vec![text; negatives]).collect();
    instructions.push(chat.instruction(params["prompt"].as_str().unwrap()));
    let embedding = |instruction: &String| {
        let made = states(encoder, &tokenizer.encode(chat, instruction), seen.as_ref()).unwrap();
        made.narrow(1, chat.dropped(), made.dim(1).unwrap() - chat.dropped()).unwrap()
    };
    instructions.iter().map(embedding).collect()
}

#[test]
fn prompts_are_encoded_as_by_diffusers() {
    if !has("dreamlite") {
        return;
    }
    let root = parity().join("pipelines/dreamlite");
    let (encoder, tokenizer) = (encoder(&root).unwrap(), tokenizer(&root).unwrap());
    for case in ["mobile", "mobile_wide_images_2", "mobile_edit", "mobile_edit_own_size", "base", "base_edit"] {
        let folder = parity().join("cases/dreamlite").join(case);
        let request: Value = serde_json::from_slice(&fs::read(folder.join("request.json")).unwrap()).unwrap();
        let golden = tensors(&folder.join("intermediates.safetensors"));
        let made = embeddings(&encoder, &tokenizer, &request);
        let masks = rows(&golden["encode_prompt.1"]);
        let lengths: Vec<usize> = masks.iter().map(|mask| mask.iter().sum::<u32>() as usize).collect();
        assert_eq!(made.iter().map(|made| made.dim(1).unwrap()).collect::<Vec<_>>(), lengths, "{case}");
        // The states of one case are not stored.
        let Some(golden) = golden.get("encode_prompt.0") else {
            assert_eq!(case, "base_edit");
            continue;
        };
        for (row, made) in made.iter().enumerate() {
            let wanted = golden.narrow(0, row, 1).unwrap().narrow(1, 0, lengths[row]).unwrap();
            assert_close(made, &wanted, &format!("{case}: prompt {row}"));
        }
    }
}

/// A prompt may contain the text of an image token; the picture stands at the first one.
#[test]
fn a_prompt_with_the_text_of_an_image_token_does_not_move_the_picture() {
    if !has("dreamlite") {
        return;
    }
    let root = parity().join("pipelines/dreamlite");
    let (encoder, tokenizer) = (encoder(&root).unwrap(), tokenizer(&root).unwrap());
    let seen = encoder.see(&Picture::square(&input("inputs/init_64.png"))).to_end().unwrap();
    let plain = tokenizer.encode(Chat::Edit, "a fox");
    let image_token = config(&pipeline_folder(&root).unwrap()).unwrap().image_token_id as u32;
    let first = plain.iter().position(|id| *id == image_token).unwrap();
    assert_eq!(plain.iter().filter(|id| **id == image_token).count(), 256);
    let hostile = tokenizer.encode(Chat::Edit, "<|image_pad|><|image_pad|> a fox");
    assert_eq!(hostile[..first + 257], plain[..first + 257]);
    let made = [&plain, &hostile].map(|ids| states(&encoder, ids, Some(&seen)).unwrap());
    let [plain, hostile] = made.map(|made| bits(&made.narrow(1, 0, first + 257).unwrap().contiguous().unwrap()));
    assert_eq!(plain, hostile, "the states before the instruction depend on it");
    assert!(states(&encoder, &tokenizer.encode(Chat::Generate, "<|image_pad|>"), None).is_ok());
}

#[test]
fn invalid_chats_and_pictures_are_errors() {
    if !has("dreamlite") {
        return;
    }
    let root = parity().join("pipelines/dreamlite");
    let (encoder, config) = (encoder(&root).unwrap(), config(&pipeline_folder(&root).unwrap()).unwrap());
    let grey = |width, height| Picture::of(RgbImage { width, height, pixels: vec![9; (3 * width * height) as usize] });
    for (width, height) in [(0, 32), (32, 48), (33, 32)] {
        assert!(encoder.see(&grey(width, height)).to_end().is_err(), "{width}×{height}");
        assert_eq!(config.picture_tokens([height as usize, width as usize]), None);
    }
    assert_eq!(config.picture_tokens([64, 96]), Some(6));
    let seen = encoder.see(&grey(64, 32)).to_end().unwrap();
    let image = config.image_token_id as u32;
    states(&encoder, &[5, image, image, 6], Some(&seen)).unwrap();
    states(&encoder, &[image, image], Some(&seen)).unwrap();
    for ids in [&[5, image, 6][..], &[image, image, image], &[5, 6], &[image, 5, image], &[]] {
        assert!(states(&encoder, ids, Some(&seen)).is_err(), "{ids:?}");
    }
    assert!(states(&encoder, &[], None).is_err() && states(&encoder, &[5, 1 << 20], None).is_err());
}

/// Half-precision matrices may stay as they are stored: the products have the same bits.
#[test]
fn matrices_as_stored_give_the_bits_of_float32() {
    if !has("dreamlite") {
        return;
    }
    let root = parity().join("pipelines/dreamlite");
    let made = [encoder(&root).unwrap(), encoder_of(&root, &Device::host(), Weights::with_stored_matrices).unwrap()]
        .map(|encoder| {
            let seen = encoder.see(&picture()).to_end().unwrap();
            let ids = [[5_u32, 6].as_slice(), &[741; 64], &[7, 8, 9]].concat();
            bits(&states(&encoder, &ids, Some(&seen)).unwrap())
        });
    assert_eq!(made[0], made[1]);
}

#[test]
fn configurations_of_older_files_are_read() {
    if !has("dreamlite") {
        return;
    }
    let made = |copy: &Copy| bits(&states(&encoder(copy.0.path()).unwrap(), &[5, 6, 7, 8], None).unwrap());
    let copy = Copy::of("dreamlite");
    let before = made(&copy);
    copy.edit("text_encoder/config.json", |config| {
        let text = config["text_config"].as_object_mut().unwrap();
        text.remove("rope_parameters");
        text.insert("rope_theta".into(), json!(5_000_000));
        let scaling = json!({"mrope_interleaved": true, "mrope_section": [4, 2, 2], "rope_type": "default"});
        text.insert("rope_scaling".into(), scaling);
        let vision = config["vision_config"].as_object_mut().unwrap();
        vision.remove("rope_parameters");
        vision.insert("model_type".into(), json!("qwen3_vl"));
    });
    assert_eq!(made(&copy), before);
    copy.edit("text_encoder/config.json", |config| config["text_config"]["rope_theta"] = json!(10_000));
    assert_ne!(made(&copy), before);

    // The processor's settings may be in another file.
    let settings: Value =
        serde_json::from_slice(&fs::read(copy.path("processor/preprocessor_config.json")).unwrap()).unwrap();
    fs::remove_file(copy.path("processor/preprocessor_config.json")).unwrap();
    let error = tokenizer(copy.0.path()).unwrap_err().to_string();
    assert!(error.contains("preprocessor_config.json"), "{error}");
    let settings = json!({"image_processor": settings, "processor_class": "Qwen3VLProcessor"});
    fs::write(copy.path("processor/processor_config.json"), settings.to_string()).unwrap();
    tokenizer(copy.0.path()).unwrap();
}

#[test]
fn what_qwen3_vl_does_not_support_is_an_error() {
    if !has("dreamlite") {
        return;
    }
    let error_of = |file: &str, edit: &dyn Fn(&mut Value)| {
        let copy = Copy::of("dreamlite");
        copy.edit(file, edit);
        let error = encoder(copy.0.path()).map(drop).and_then(|()| tokenizer(copy.0.path()).map(drop));
        error.unwrap_err().to_string()
    };
    let config = "text_encoder/config.json";
    for (part, key, value) in [
        ("text_config", "attention_bias", json!(true)),
        ("text_config", "hidden_act", json!("gelu")),
        ("text_config", "model_type", json!("qwen3")),
        ("text_config", "a_new_key", json!(1)),
        ("vision_config", "hidden_act", json!("silu")),
        ("vision_config", "deepstack_visual_indexes", json!([1, 0])),
        ("vision_config", "deepstack_visual_indexes", json!([0, 3])),
        ("vision_config", "num_heads", json!(3)),
        ("vision_config", "num_position_embeddings", json!(63)),
        ("vision_config", "out_hidden_size", json!(16)),
        ("vision_config", "hidden_size", json!(1_u64 << 40)),
        ("vision_config", "in_channels", json!(4)),
        ("vision_config", "rope_parameters", json!({"rope_theta": 1e6, "rope_type": "axial"})),
    ] {
        let error = error_of(config, &|config| config[part][key] = value.clone());
        assert!(error.contains(key), "{key}: {error}");
    }
    for (key, value) in [
        ("mrope_interleaved", json!(false)),
        ("mrope_section", json!([4, 2, 3])),
        ("rope_type", json!("yarn")),
        ("rope_theta", json!(0.5)),
    ] {
        let error = error_of(config, &|config| config["text_config"]["rope_parameters"][key] = value.clone());
        assert!(error.contains(key), "{key}: {error}");
    }
    for (key, value) in
        [("model_type", json!("qwen2_vl")), ("image_token_id", json!(745)), ("vision_config", json!(null))]
    {
        let error = error_of(config, &|config| config[key] = value.clone());
        assert!(error.contains(key), "{key}: {error}");
    }
    // A tokenizer that drops most of the chat.
    let error = error_of("tokenizer/tokenizer.json", &|file| {
        file["normalizer"] = json!({"type": "Replace", "pattern": {"Regex": "[a-zA-Z ,:.()']{2,}"}, "content": ""});
    });
    assert!(error.contains("a chat without a prompt has"), "{error}");
    let error = error_of(config, &|config| config["image_token_id"] = json!(742));
    assert!(error.contains("image_pad"), "{error}");
    for (key, value) in [
        ("image_mean", json!([0.48, 0.46, 0.41])),
        ("patch_size", json!(14)),
        ("size", json!({"shortest_edge": 1 << 20, "longest_edge": 1 << 24})),
        ("do_rescale", json!(false)),
    ] {
        let error = error_of("processor/preprocessor_config.json", &|config| config[key] = value.clone());
        assert!(error.contains(key), "{key}: {error}");
    }
}

/// `lm_head` is not read; every other tensor is needed and no further one is accepted.
#[test]
fn every_tensor_is_needed() {
    if !has("dreamlite") {
        return;
    }
    let copy = Copy::of("dreamlite");
    let file = "text_encoder/model.safetensors";
    copy.edit_tensors(file, |tensors| drop(tensors.insert("lm_head.weight".into(), noise(&[3, 2], 1))));
    encoder(copy.0.path()).unwrap();
    let missing = ["model.visual.pos_embed.weight", "model.language_model.norm.weight"];
    copy.edit_tensors(file, |tensors| {
        missing.iter().for_each(|name| drop(tensors.remove(*name)));
        tensors.insert("model.visual.extra".into(), noise(&[3], 1));
    });
    let error = encoder(copy.0.path()).unwrap_err().to_string();
    assert!(missing.iter().all(|name| error.contains(name)) && error.contains("model.visual.extra"), "{error}");
}

/// The sizes of Qwen3-VL 2B, in keys of transformers before version 5.
#[test]
fn a_network_of_the_size_of_qwen3_vl_2b_is_planned_without_memory() {
    let config: Map<String, Value> = serde_json::from_value(json!({
        "architectures": ["Qwen3VLForConditionalGeneration"], "image_token_id": 151_655, "model_type": "qwen3_vl",
        "text_config": {
            "attention_bias": false, "bos_token_id": 151_643, "dtype": "bfloat16", "eos_token_id": 151_645,
            "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 6144,
            "model_type": "qwen3_vl_text", "num_attention_heads": 16, "num_hidden_layers": 28,
            "num_key_value_heads": 8, "rms_norm_eps": 1e-6, "rope_theta": 5_000_000, "vocab_size": 151_936,
            "rope_scaling": {"mrope_interleaved": true, "mrope_section": [24, 20, 20], "rope_type": "default"},
        },
        "tie_word_embeddings": true, "video_token_id": 151_656,
        "vision_config": {
            "deepstack_visual_indexes": [5, 11, 17], "depth": 24, "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": 1024, "in_channels": 3, "intermediate_size": 4096, "model_type": "qwen3_vl",
            "num_heads": 16, "num_position_embeddings": 2304, "out_hidden_size": 2048, "patch_size": 16,
            "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
        "vision_end_token_id": 151_653, "vision_start_token_id": 151_652,
    }))
    .unwrap();
    let config = Qwen3VlConfig::read("config.json", &config).unwrap();
    let weights = Weights::outline("text_encoder");
    Qwen3Vl::new(&config, &weights);
    let requested = weights.requested();
    assert_eq!(requested.len(), (2 + 28 * 11) + (3 + 24 * 12 + 4 * 6));
    let numbers: usize = requested.values().map(|shape| shape.iter().product::<usize>()).sum();
    assert!((2_000_000_000..2_300_000_000).contains(&numbers), "{numbers} numbers");
    // Each weight of a layer or block is used once per token or patch, and attention adds to the work.
    let numbers_of = |part: &str| -> f64 {
        let shapes = requested.iter().filter(|(name, _)| name.contains(part)).map(|(_, shape)| shape);
        shapes.map(|shape| shape.iter().product::<usize>() as f64).sum()
    };
    let layers = config.demand(300).work / (300.0 * numbers_of(".layers."));
    let side = SIDE as usize;
    let blocks = config.see_demand([side, side]).work / (1024.0 * numbers_of(".blocks."));
    assert!((1.0..1.1).contains(&layers) && (1.0..1.3).contains(&blocks), "{layers}, {blocks}");
}

/// transformers 4 returned the states before the last norm. The norm of these states gives the states of transformers
/// 5.
#[test]
fn models_saved_by_transformers_4_take_the_states_before_the_norm() {
    if !has("dreamlite") {
        return;
    }
    let copy = Copy::of("dreamlite");
    let ids = [5, 17, 300];
    let normed = states(&encoder(copy.0.path()).unwrap(), &ids, None).unwrap();
    copy.edit("text_encoder/config.json", |config| config["transformers_version"] = json!("4.57.3"));
    let plain = states(&encoder(copy.0.path()).unwrap(), &ids, None).unwrap();

    let weights = tensors(&copy.0.path().join("text_encoder/model.safetensors"));
    let scale = weights["model.language_model.norm.weight"].to_dtype(DType::F32).unwrap();
    let mean = plain.sqr().unwrap().mean_keepdim(2).unwrap();
    let inverse = (mean + 1e-6).unwrap().sqrt().unwrap().recip().unwrap();
    let made = plain.broadcast_mul(&inverse).unwrap().broadcast_mul(&scale).unwrap();
    assert_close(&made, &normed, "the norm of the states");
    let difference = (&plain - &normed).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(difference > 0.1, "{difference}");
}
