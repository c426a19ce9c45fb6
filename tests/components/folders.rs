//! Tests of model folders: supported layouts and configurations, and errors for all others.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs,
};

use candle_core::{DType, Device, Tensor};
use latentd::{
    models::{StableDiffusion, pause::ToEnd},
    weights::{LoadError, ModelFolder, TensorMismatch},
};
use serde_json::{Value, json};

use super::fixtures::{Copy, ids_of, load, noise, outputs, parity, prompts, tensors, walk, with_tiny_decoder};

#[test]
fn the_spec_and_the_scheduler_are_read() {
    let sd = load(&parity().join("pipelines/sd2")).unwrap();
    let spec = sd.spec();
    assert_eq!((spec.latent_channels, spec.vae_scale_factor, spec.size_multiple), (4, 8, 8));
    assert_eq!((spec.sample_size, spec.context_length, spec.context_width, spec.text_layers), ((12, 12), 77, 48, 4));
    assert_eq!(sd.scheduler_config()["_class_name"], "DDIMScheduler");

    let copy = Copy::of("sd1");
    let text = r#"{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity, "steps_offset": 0}"#;
    fs::write(copy.path("scheduler/scheduler_config.json"), text).unwrap();
    let scheduler = copy.load().unwrap();
    assert_eq!(scheduler.scheduler_config()["lambda_min_clipped"], "-Infinity");
    assert_eq!(scheduler.scheduler_config()["steps_offset"], 1);
}

fn notes(copy: &Copy) -> Vec<String> {
    StableDiffusion::check(&ModelFolder::open(copy.0.path()).unwrap()).unwrap()
}

/// diffusers also loads each component with the class in the index.
#[test]
fn the_index_names_the_class_of_the_scheduler() {
    let class = |copy: &Copy| copy.load().unwrap().scheduler_config()["_class_name"].clone();
    let copy = Copy::of("sd1");
    assert_eq!((class(&copy), notes(&copy)), (json!("PNDMScheduler"), vec![]));
    copy.edit("model_index.json", |index| index["scheduler"] = json!(["diffusers", "EulerDiscreteScheduler"]));
    assert_eq!(class(&copy), "EulerDiscreteScheduler");
    let [note] = &notes(&copy)[..] else { panic!("one note") };
    assert!(
        note.contains("makes the scheduler a EulerDiscreteScheduler") && note.contains("a PNDMScheduler"),
        "{note}"
    );
    for keys in [json!({"steps_offset": 1}), json!({"_class_name": "X", "_use_default_values": ["_class_name"]})] {
        fs::write(copy.path("scheduler/scheduler_config.json"), keys.to_string()).unwrap();
        assert_eq!((class(&copy), notes(&copy)), (json!("EulerDiscreteScheduler"), vec![]));
    }
    // Without a class in the index, the class in the file is used.
    let own = json!({"_class_name": "DDIMScheduler"}).to_string();
    fs::write(copy.path("scheduler/scheduler_config.json"), own).unwrap();
    copy.edit("model_index.json", |index| index["scheduler"] = json!([null, null]));
    assert_eq!((class(&copy), notes(&copy)), (json!("DDIMScheduler"), vec![]));
}

/// The Stable Diffusion pipelines of diffusers divide latents by `scaling_factor` and ignore `shift_factor`.
#[test]
fn a_shift_of_the_latents_is_not_used() {
    let whole = Copy::of("sd1").outputs();
    let shifted = with_tiny_decoder();
    for part in ["vae", "vae_tiny"] {
        shifted.edit(&format!("{part}/config.json"), |config| config["shift_factor"] = json!(0.3));
    }
    assert_eq!(shifted.outputs(), whole);
    let tiny = |copy: &Copy| {
        let pixels = copy.load().unwrap().decode_tiny(&noise(&[1, 4, 8, 8], 3)).to_end().unwrap();
        pixels.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_eq!(tiny(&shifted), tiny(&with_tiny_decoder()));
    let notes = notes(&shifted);
    assert!(notes.len() == 2 && notes.iter().all(|note| note.contains("shift_factor 0.3 is not used")), "{notes:?}");
}

/// Otherwise the network would return numbers that are not finite in the middle of a generation.
#[test]
fn numbers_that_are_not_finite_or_too_large_are_refused_with_their_file() {
    const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
    for (value, shown) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (-1e30, "-1e30"), (1e300, "inf")] {
        let copy = Copy::of("sd1");
        copy.edit_tensors(UNET, |tensors| {
            // Change the last number of a matrix that is packed when it is loaded.
            let name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight";
            let mut values =
                tensors[name].flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
            *values.last_mut().unwrap() = value;
            let shape = tensors[name].shape().clone();
            tensors.insert(name.into(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap());
        });
        let error = copy.load().unwrap_err().to_string();
        let parts = [UNET, "attn1.to_q.weight", &format!("has the number {shown}; weights are finite and at most 1e6")];
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    // The largest number of float16 is allowed.
    let copy = Copy::of("sd1");
    copy.edit_tensors(UNET, |tensors| {
        tensors.insert("conv_out.bias".into(), Tensor::full(65504f32, 4, &Device::Cpu).unwrap());
    });
    copy.load().unwrap();
}

#[test]
fn prompts_are_truncated_and_padded() {
    let copy = Copy::of("sd1");
    let with_json = copy.load().unwrap();
    fs::remove_file(copy.path("tokenizer/tokenizer.json")).unwrap();
    let with_merges = copy.load().unwrap();
    let long = "fox ".repeat(200);
    for prompt in
        prompts().iter().map(String::as_str).chain([&*long, "  Ünïcode\t\nİ½ ２ <|endoftext|> it's 12345", "\u{0}"])
    {
        let ids = ids_of(&with_json, prompt);
        assert_eq!(ids, ids_of(&with_merges, prompt), "{prompt:?}");
        assert_eq!(ids.len(), 77);
    }
    let end = *ids_of(&with_json, "").last().unwrap();
    let cut = ids_of(&with_json, &long);
    assert_eq!(cut[76], end);
    assert!(cut[1..76].iter().all(|id| *id != end));

    copy.edit("tokenizer/tokenizer_config.json", |config| config["model_max_length"] = json!(1e30));
    assert_eq!(copy.load().unwrap().spec().context_length, 77);
    copy.edit("tokenizer/tokenizer_config.json", |config| config["model_max_length"] = json!(20));
    let short = copy.load().unwrap();
    assert_eq!((short.spec().context_length, ids_of(&short, &long).len()), (20, 20));
    copy.edit("tokenizer/special_tokens_map.json", |map| map["pad_token"] = json!({"content": "!", "lstrip": false}));
    assert_eq!(ids_of(&copy.load().unwrap(), "")[2..], [0; 18]);
    copy.edit("tokenizer/special_tokens_map.json", |map| map["pad_token"] = json!("<|nothing|>"));
    assert!(matches!(copy.load(), Err(LoadError::Tokenizer { .. })));
}

/// With an empty list of merges, every word would become single letters.
#[test]
fn an_empty_list_of_merges_is_refused() {
    let copy = Copy::of("sd1");
    fs::remove_file(copy.path("tokenizer/tokenizer.json")).unwrap();
    for empty in ["", "\n", "\u{feff}"] {
        fs::write(copy.path("tokenizer/merges.txt"), empty).unwrap();
        let error = copy.load().unwrap_err().to_string();
        assert!(error.contains("tokenizer/merges.txt") && error.contains("the file is empty"), "{error}");
    }
}

#[test]
fn missing_unused_and_misshapen_tensors_are_all_named() {
    let copy = Copy::of("sd1");
    copy.edit_tensors("unet/diffusion_pytorch_model.safetensors", |tensors| {
        tensors.remove("conv_in.bias").unwrap();
        tensors.remove("mid_block.resnets.1.norm2.weight").unwrap();
        tensors.insert("lora.extra".into(), noise(&[3], 1));
        tensors.insert("conv_out.bias".into(), noise(&[5], 1));
        tensors.insert("conv_norm_out.bias".into(), Tensor::zeros(8, DType::I64, &Device::Cpu).unwrap());
    });
    let Err(error) = copy.load() else { panic!("loaded") };
    let text = error.to_string();
    for part in [
        "conv_in.bias [8]",
        "lora.extra [3]",
        "conv_out.bias is [5], expected [4]",
        "conv_norm_out.bias is of type I64",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let LoadError::Tensors(found) = error else { panic!("{text}") };
    let expected = TensorMismatch {
        component: "unet".into(),
        missing: vec![("conv_in.bias".into(), vec![8]), ("mid_block.resnets.1.norm2.weight".into(), vec![16])],
        unused: vec![("lora.extra".into(), vec![3])],
        misshapen: vec![("conv_out.bias".into(), vec![4], vec![5])],
        not_float: vec![("conv_norm_out.bias".into(), "I64".into())],
    };
    assert_eq!(*found, expected);
}

#[test]
fn keys_are_honored_or_refused_by_name() {
    let cases = [
        ("unet/config.json", "time_cond_proj_dim", json!(6)),
        ("unet/config.json", "addition_embed_type", json!("image")),
        ("unet/config.json", "class_embed_type", json!("timestep")),
        ("unet/config.json", "num_class_embeds", json!(10)),
        ("unet/config.json", "only_cross_attention", json!([true, false, false, false])),
        ("unet/config.json", "dual_cross_attention", json!(true)),
        ("unet/config.json", "resnet_time_scale_shift", json!("scale_shift")),
        ("unet/config.json", "act_fn", json!("gelu")),
        ("unet/config.json", "num_attention_heads", json!(8)),
        ("unet/config.json", "encoder_hid_dim", json!(64)),
        ("unet/config.json", "mid_block_type", json!("UNetMidBlock2DSimpleCrossAttn")),
        ("unet/config.json", "down_block_types", json!(["DownBlock2D"; 3].to_vec())),
        ("unet/config.json", "attention_head_dim", json!([8, 8, 8])),
        ("unet/config.json", "attention_head_dim", json!(3)),
        ("unet/config.json", "norm_num_groups", json!(0)),
        ("unet/config.json", "norm_num_groups", Value::Null),
        ("unet/config.json", "layers_per_block", json!(1_000_000_000_000u64)),
        ("unet/config.json", "block_out_channels", json!([])),
        ("unet/config.json", "sample_size", Value::Null),
        ("unet/config.json", "conv_in_kernel", json!(4)),
        ("unet/config.json", "a_key_of_tomorrow", json!(1)),
        ("vae/config.json", "latents_mean", json!([0.0])),
        ("vae/config.json", "scaling_factor", json!(0.0)),
        ("vae/config.json", "down_block_types", json!(["DownEncoderBlock2D"])),
        ("vae/config.json", "up_block_types", json!(["AttnUpDecoderBlock2D"; 4].to_vec())),
        ("vae/config.json", "decoder_only", json!(true)),
        ("text_encoder/config.json", "hidden_act", json!("relu")),
        ("text_encoder/config.json", "num_attention_heads", json!(5)),
        ("text_encoder/config.json", "architectures", json!(["T5EncoderModel"])),
        ("text_encoder/config.json", "use_something_new", json!(true)),
        ("tokenizer/tokenizer_config.json", "tokenizer_class", json!("T5Tokenizer")),
        ("tokenizer/tokenizer_config.json", "model_max_length", json!(1)),
        ("model_index.json", "_class_name", json!("StableDiffusionUpscalePipeline")),
        ("model_index.json", "unet", json!(["diffusers", "UNet2DModel"])),
        ("model_index.json", "controlnet", json!(["diffusers", "ControlNetModel"])),
    ];
    for (file, key, value) in &cases {
        let copy = Copy::of("sd1");
        copy.edit(file, |config| config[*key] = value.clone());
        let Err(error) = copy.load() else { panic!("{file}: {key} = {value} was accepted") };
        let text = error.to_string();
        assert!(text.contains(file) && text.contains(key), "{key} = {value}: {text}");
    }
    let copy = Copy::of("sd1");
    copy.edit("unet/config.json", |config| {
        config["_note"] = json!("ignored");
        config["dropout"] = json!(0.1);
        config["mid_block_scale_factor"] = json!(1.0);
        config["attention_head_dim"] = json!([8, 8, 8, 8]);
        config["transformer_layers_per_block"] = json!([1, 1, 1, 1]);
        config["sample_size"] = json!([8, 16]);
    });
    assert_eq!(copy.load().unwrap().spec().sample_size, (8, 16));
    println!("{} keys refused", cases.len());
}

#[test]
fn a_tiny_decoder_is_read_or_refused_by_name() {
    for (key, value) in [
        ("act_fn", json!("gelu")),
        ("upsample_fn", json!("bilinear")),
        ("decoder_block_out_channels", json!([8, 8, 8, 16])),
        ("decoder_block_out_channels", json!([])),
        ("num_decoder_blocks", json!([3, 3, 3])),
        ("num_decoder_blocks", json!([3, 3, 3, 1_000_000])),
        ("upsampling_scaling_factor", json!(0)),
        ("scaling_factor", json!(0.0)),
        ("a_key_of_tomorrow", json!(1)),
    ] {
        let copy = with_tiny_decoder();
        copy.edit("vae_tiny/config.json", |config| config[key] = value.clone());
        let text = copy.load().err().unwrap_or_else(|| panic!("{key} = {value} was accepted")).to_string();
        assert!(text.contains("vae_tiny/config.json") && text.contains(key), "{key} = {value}: {text}");
    }
    for (key, value) in [("latent_channels", json!(16)), ("upsampling_scaling_factor", json!(1))] {
        let copy = with_tiny_decoder();
        copy.edit("vae_tiny/config.json", |config| config[key] = value.clone());
        assert!(matches!(copy.load(), Err(LoadError::Disagree { .. })), "{key}");
    }
    let copy = with_tiny_decoder();
    copy.edit_tensors("vae_tiny/diffusion_pytorch_model.safetensors", |tensors| {
        tensors.retain(|name, _| name.starts_with("decoder."));
    });
    assert!(copy.load().unwrap().spec().tiny_decoder, "the encoder may be absent");
    copy.edit_tensors("vae_tiny/diffusion_pytorch_model.safetensors", |tensors| {
        tensors.remove("decoder.layers.2.conv.4.bias").unwrap();
        tensors.insert("decoder.layers.99.weight".into(), noise(&[3], 1));
    });
    let text = copy.load().err().unwrap().to_string();
    assert!(text.contains("decoder.layers.2.conv.4.bias") && text.contains("decoder.layers.99.weight"), "{text}");
}

#[test]
fn components_that_do_not_fit_each_other_are_refused() {
    let copy = Copy::of("sd1");
    copy.edit("unet/config.json", |config| config["cross_attention_dim"] = json!(48));
    assert!(matches!(copy.load(), Err(LoadError::Disagree { .. })));
    let copy = Copy::of("sd1");
    copy.edit("text_encoder/config.json", |config| config["vocab_size"] = json!(500));
    assert!(matches!(copy.load(), Err(LoadError::Disagree { .. })));
}

#[test]
fn damaged_files_are_errors_that_name_them() {
    let mut cases = 0;
    for file in [
        "model_index.json",
        "unet/config.json",
        "tokenizer/tokenizer.json",
        "scheduler/scheduler_config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ] {
        let copy = Copy::of("sd1");
        let whole = fs::read(copy.path(file)).unwrap();
        let header = 60.min(whole.len());
        for cut in (0..header).step_by(7).chain([whole.len() / 2, whole.len() - 1, whole.len() - 2]) {
            fs::write(copy.path(file), &whole[..cut]).unwrap();
            // A JSON text that only lacks its last line break is complete.
            if whole[cut..].iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let Err(error) = copy.load() else { panic!("{file} cut to {cut} bytes was accepted") };
            assert!(error.to_string().contains(file), "{file} cut to {cut}: {error}");
            cases += 1;
        }
        // A changed byte in the header must never cause a panic.
        for at in 0..200.min(whole.len()) {
            let mut changed = whole.clone();
            changed[at] ^= 0x55;
            fs::write(copy.path(file), changed).unwrap();
            let _ = copy.load();
        }
    }
    for file in ["unet/config.json", "vae/diffusion_pytorch_model.safetensors", "tokenizer/special_tokens_map.json"] {
        let copy = Copy::of("sd1");
        fs::write(copy.path(file), b"\xff\xfe\x00garbage").unwrap();
        let Err(error) = copy.load() else { panic!("garbage in {file} was accepted") };
        assert!(error.to_string().contains(file), "{error}");
    }
    for file in ["unet/config.json", "text_encoder/model.safetensors", "scheduler/scheduler_config.json"] {
        let copy = Copy::of("sd1");
        fs::remove_file(copy.path(file)).unwrap();
        assert!(matches!(copy.load(), Err(LoadError::Absent { path }) if path == file));
    }
    println!("{cases} truncations refused");
}

#[test]
fn old_and_flattened_names_are_read_as_current_names() {
    let whole = Copy::of("sd1").outputs();
    let copy = Copy::of("sd1");
    copy.edit_tensors("vae/diffusion_pytorch_model.safetensors", |tensors| {
        for (old, new) in [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")] {
            for half in ["encoder", "decoder"] {
                let attention = format!("{half}.mid_block.attentions.0");
                let bias = tensors.remove(&format!("{attention}.{new}.bias")).unwrap();
                tensors.insert(format!("{attention}.{old}.bias"), bias);
                let weight = tensors.remove(&format!("{attention}.{new}.weight")).unwrap();
                let weight = if half == "encoder" { weight.reshape((16, 16, 1, 1)).unwrap() } else { weight };
                tensors.insert(format!("{attention}.{old}.weight"), weight);
            }
        }
    });
    copy.edit_tensors("text_encoder/model.safetensors", |tensors| {
        let flattened =
            tensors.drain().map(|(name, t)| (name.strip_prefix("text_model.").unwrap().to_owned(), t)).collect();
        *tensors = flattened;
        let ids = Tensor::arange(0i64, 77, &Device::Cpu).unwrap().reshape((1, 77)).unwrap();
        tensors.insert("embeddings.position_ids".into(), ids);
    });
    assert_eq!(copy.outputs(), whole);
}

#[test]
fn shards_variants_and_embedded_folders_give_the_same_model() {
    const UNET: &str = "unet/diffusion_pytorch_model";
    let whole = Copy::of("sd1").outputs();

    let split = |index: bool| {
        let copy = Copy::of("sd1");
        let mut names: Vec<_> = tensors(&copy.path(&format!("{UNET}.safetensors"))).into_iter().collect();
        names.sort_by(|a, b| a.0.cmp(&b.0));
        let (mut shards, mut map) = (vec![HashMap::new(), HashMap::new(), HashMap::new()], BTreeMap::new());
        for (i, (name, tensor)) in names.into_iter().enumerate() {
            map.insert(name.clone(), format!("diffusion_pytorch_model-{:05}-of-00003.safetensors", i % 3 + 1));
            shards[i % 3].insert(name, tensor);
        }
        for (i, shard) in shards.iter().enumerate() {
            candle_core::safetensors::save(shard, copy.path(&format!("{UNET}-{:05}-of-00003.safetensors", i + 1)))
                .unwrap();
        }
        if index {
            let index = json!({"metadata": {}, "weight_map": map});
            fs::write(copy.path(&format!("{UNET}.safetensors.index.json")), index.to_string()).unwrap();
        }
        fs::remove_file(copy.path(&format!("{UNET}.safetensors"))).unwrap();
        copy
    };
    let by_name = split(false);
    assert_eq!(by_name.outputs(), whole);
    fs::remove_file(by_name.path(&format!("{UNET}-00003-of-00003.safetensors"))).unwrap();
    assert!(matches!(by_name.load(), Err(LoadError::Absent { path }) if path.contains("00003-of-00003")));

    let by_index = split(true);
    assert_eq!((by_index.outputs(), notes(&by_index)), (whole.clone(), vec![]));
    // A tensor that exists only in the index is ignored if the network does not use it.
    let index = format!("{UNET}.safetensors.index.json");
    by_index.edit(&index, |index| {
        index["weight_map"]["extra"] = json!("diffusion_pytorch_model-00002-of-00003.safetensors")
    });
    assert_eq!(by_index.outputs(), whole);

    // If there is a single file too, diffusers uses the shards if all of them exist.
    let single = by_index.path(&format!("{UNET}.safetensors"));
    let halves = tensors(&parity().join(format!("pipelines/sd1/{UNET}.safetensors")));
    let halves: HashMap<String, Tensor> = halves.into_iter().map(|(name, t)| (name, (t * 0.5).unwrap())).collect();
    candle_core::safetensors::save(&halves, &single).unwrap();
    assert_eq!(by_index.outputs(), whole);
    let [note] = &notes(&by_index)[..] else { panic!("one note") };
    assert!(note.contains("the shards of unet/") && note.contains(".safetensors is not used"), "{note}");
    let halved = Copy::of("sd1");
    fs::copy(&single, halved.path(&format!("{UNET}.safetensors"))).unwrap();
    let lost = by_index.path(&format!("{UNET}-00003-of-00003.safetensors"));
    let shard = fs::read(&lost).unwrap();
    fs::remove_file(&lost).unwrap();
    assert_eq!(by_index.outputs(), halved.outputs());
    let [note] = &notes(&by_index)[..] else { panic!("one note") };
    assert!(note.contains("shards of it are missing"), "{note}");
    fs::write(&lost, shard).unwrap();
    fs::remove_file(&single).unwrap();

    // transformers uses the single file.
    let both = Copy::of("sd1");
    fs::write(both.path("text_encoder/model.safetensors.index.json"), r#"{"weight_map": {"x": "x.safetensors"}}"#)
        .unwrap();
    fs::copy(halved.path(&format!("{UNET}.safetensors")), both.path("text_encoder/x.safetensors")).unwrap();
    assert_eq!(both.outputs(), whole);
    assert!(notes(&both)[0].contains("as in transformers"), "{:?}", notes(&both));
    for (file, escapes) in [("../vae/diffusion_pytorch_model.safetensors", true), ("nowhere.safetensors", false)] {
        by_index
            .edit(&format!("{UNET}.safetensors.index.json"), |index| index["weight_map"]["conv_in.bias"] = json!(file));
        match by_index.load() {
            Err(LoadError::BadKey { key, .. }) if escapes && key == "weight_map.conv_in.bias" => {}
            Err(LoadError::Absent { path }) if !escapes && path.contains(file) => {}
            other => panic!("{file}: {:?}", other.err()),
        }
    }

    // Half precision is converted exactly: a float32 file with the rounded values gives the same outputs.
    for half in [DType::F16, DType::BF16] {
        let (rounded, narrow) = (Copy::of("sd1"), Copy::of("sd1"));
        rounded.edit_tensors(&format!("{UNET}.safetensors"), |tensors| {
            tensors.values_mut().for_each(|t| *t = t.to_dtype(half).unwrap().to_dtype(DType::F32).unwrap());
        });
        narrow.edit_tensors(&format!("{UNET}.safetensors"), |tensors| {
            tensors.values_mut().for_each(|t| *t = t.to_dtype(half).unwrap());
        });
        fs::rename(narrow.path(&format!("{UNET}.safetensors")), narrow.path(&format!("{UNET}.fp16.safetensors")))
            .unwrap();
        assert_eq!(narrow.outputs(), rounded.outputs());
        assert_ne!(narrow.outputs(), whole);
    }

    fn embedded(path: &str) -> Option<Cow<'static, [u8]>> {
        fs::read(parity().join("pipelines/sd1").join(path)).ok().map(Cow::Owned)
    }
    let root = parity().join("pipelines/sd1");
    let files =
        walk(&root).into_iter().map(|file| Cow::Owned(file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned()));
    let folder = ModelFolder::embedded("sd1", files, embedded);
    assert_eq!(outputs(&StableDiffusion::load(&folder, &latentd::device::Device::host()).unwrap()), whole);
    assert!(folder.has("unet/config.json") && !folder.has("unet"));
    assert_eq!(folder.names("unet").unwrap(), ["config.json", "diffusion_pytorch_model.safetensors"]);
}

#[test]
fn nothing_outside_the_folder_is_read() {
    let copy = Copy::of("sd1");
    let folder = ModelFolder::open(copy.0.path()).unwrap();
    fs::write(copy.0.path().parent().unwrap().join("latentd-outside.json"), "{}").ok();
    for path in ["../latentd-outside.json", "/etc/hostname", "unet/../../x", "..", "unet\\..\\config.json"] {
        assert!(matches!(folder.bytes(path), Err(LoadError::Escapes { .. })), "{path}");
        assert!(!folder.has(path), "{path}");
    }
    fs::remove_file(copy.0.path().parent().unwrap().join("latentd-outside.json")).ok();
    #[cfg(unix)]
    {
        let elsewhere = Copy::of("sd1");
        fs::remove_file(copy.path("unet/config.json")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path("unet/config.json"), copy.path("unet/config.json")).unwrap();
        let loaded =
            || StableDiffusion::load(&ModelFolder::open(copy.0.path()).unwrap(), &latentd::device::Device::host());
        assert!(matches!(loaded(), Err(LoadError::Escapes { path }) if path == "unet/config.json"));
        fs::remove_file(copy.path("unet/config.json")).unwrap();
        fs::copy(elsewhere.path("unet/config.json"), copy.path("unet/real.json")).unwrap();
        std::os::unix::fs::symlink("real.json", copy.path("unet/config.json")).unwrap();
        assert!(loaded().is_ok());
    }
    assert!(ModelFolder::open(&copy.path("model_index.json")).is_err());
    assert!(ModelFolder::open(&copy.path("nowhere")).is_err());
}
