//! The networks against what diffusers and transformers compute, and against themselves in other company; and what a
//! model folder may look like.
//!
//! Fixtures come from `LATENTD_PARITY_DIR`, or else from `tests/fixtures/parity`.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use latentd::{
    models::{
        AutoencoderKl, ClipTextModel, StableDiffusion, UNet2DConditionModel,
        autoencoder_kl::{AutoencoderKlConfig, current_name},
        clip_text::ClipTextConfig,
        unet2d_condition::UNet2DConditionConfig,
    },
    weights::{LoadError, ModelFolder, TensorMismatch, Weights},
};
use serde_json::{Value, json};

const PIPELINES: [&str; 2] = ["sd1", "sd2"];

// ---- what diffusers computes ----

#[test]
fn goldens() {
    let mut cases = 0;
    for pipeline in PIPELINES {
        let golden = tensors(&parity().join(format!("components/{pipeline}.safetensors")));
        let sd = load(&parity().join("pipelines").join(pipeline)).unwrap();
        let mut like = |made: &Tensor, name: &str| {
            assert_close(made, &golden[name], &format!("{pipeline} {name}"));
            cases += 1;
        };

        let ids: Vec<Vec<u32>> = prompts().iter().map(|prompt| sd.tokenize(prompt)).collect();
        let expected = golden["tokenizer.input_ids"].to_vec2::<i64>().unwrap();
        assert_eq!(
            ids.iter()
                .map(|ids| ids.iter().map(|id| i64::from(*id)).collect())
                .collect::<Vec<Vec<i64>>>(),
            expected
        );

        like(
            &sd.encode_text(&ids, 0).unwrap(),
            "text_encoder.last_hidden_state",
        );
        for t in [7f32, 951.0] {
            let made = sd
                .denoise(
                    &golden["unet.sample"],
                    &[t; 2],
                    &golden["unet.encoder_hidden_states"],
                )
                .unwrap();
            like(&made, &format!("unet.out.t{t}"));
        }
        let vae = vae(pipeline);
        let moments = vae.encode(&golden["vae.image"]).unwrap();
        like(&moments.mean, "vae.mean");
        like(&moments.logvar, "vae.logvar");
        like(&vae.decode(&golden["vae.latent"]).unwrap(), "vae.decoded");
        let scaled = (&golden["vae.latent"] * 0.18215).unwrap();
        like(&sd.decode(&scaled).unwrap(), "vae.decoded");
    }
    println!(
        "{cases} tensors like diffusers', and the token ids of {} pipelines",
        PIPELINES.len()
    );
    assert_eq!(cases, 14);
}

#[test]
fn clip_skip_leaves_out_layers_but_not_the_norm() {
    for pipeline in PIPELINES {
        let root = parity().join("pipelines").join(pipeline);
        let golden = tensors(&parity().join(format!("components/{pipeline}.safetensors")));
        let weights = tensors(&root.join("text_encoder/model.safetensors"));
        let sd = load(&root).unwrap();
        let norm = |part: &str| {
            weights[&format!("text_model.final_layer_norm.{part}")]
                .to_dtype(DType::F32)
                .unwrap()
        };
        let hidden = &golden["text_encoder.hidden_states.-2"];
        let expected =
            candle_nn::ops::layer_norm_slow(hidden, &norm("weight"), &norm("bias"), 1e-5).unwrap();
        let ids: Vec<Vec<u32>> = prompts().iter().map(|prompt| sd.tokenize(prompt)).collect();
        assert_close(&sd.encode_text(&ids, 1).unwrap(), &expected, pipeline);
        assert!(sd.encode_text(&ids, sd.spec().text_layers).is_ok());
        assert!(sd.encode_text(&ids, sd.spec().text_layers + 1).is_err());
    }
}

#[test]
fn published_models_are_made_of_the_tensors_we_ask_for() {
    let mut cases = 0;
    for model in ["sd15", "sd21"] {
        for part in ["unet", "vae", "vae-legacy-names", "text_encoder"] {
            if (model, part) == ("sd21", "vae-legacy-names") {
                continue; // the same file as sd15's
            }
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!(
                "tests/fixtures/parity/manifests/{model}--{part}.json"
            ));
            let manifest: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
            let published: BTreeMap<String, Vec<usize>> =
                serde_json::from_value(manifest["tensors"].clone()).unwrap();
            let config = manifest["config"].as_object().unwrap();
            let weights = Weights::outline(part);
            match part {
                "unet" => drop(UNet2DConditionModel::new(
                    &UNet2DConditionConfig::read(part, config).unwrap(),
                    &weights,
                )),
                "text_encoder" => drop(ClipTextModel::new(
                    &ClipTextConfig::read(part, config).unwrap(),
                    &weights,
                )),
                _ => drop(AutoencoderKl::new(
                    &AutoencoderKlConfig::read(part, config).unwrap(),
                    &weights,
                )),
            }
            let known: BTreeMap<_, _> = match part {
                "vae-legacy-names" => published
                    .iter()
                    .map(|(name, shape)| current_name(name, shape))
                    .collect(),
                _ => published,
            };
            assert_eq!(weights.requested(), known, "{model} {part}");
            cases += 1;
        }
    }
    println!("{cases} manifests of published models");
}

// ---- a row does not feel the others ----

#[test]
fn rows_are_the_same_in_every_company_and_on_any_number_of_threads() {
    let wide = wide_model();
    let roots = PIPELINES.map(|pipeline| parity().join("pipelines").join(pipeline));
    for (root, sizes) in [
        (&roots[0], [(8, 8), (5, 7)]),
        (&roots[1], [(8, 8), (6, 5)]),
        (&wide.path().into(), [(8, 8), (3, 5)]),
    ] {
        let sd = load(root).unwrap();
        let spec = sd.spec();
        for (h, w) in sizes {
            let latents = noise(&[16, spec.latent_channels, h, w], 1);
            let context = noise(&[16, spec.context_length, spec.context_width], 2);
            let t: Vec<f32> = (0..16).map(|i| 999.0 - 61.3 * i as f32).collect();
            let prompts: Vec<Vec<u32>> = (0..16)
                .map(|i| sd.tokenize(&"a fox and a dog ".repeat(i)))
                .collect();
            let rows = |first: usize, count: usize| {
                let of = |x: &Tensor| x.narrow(0, first, count).unwrap();
                [
                    sd.encode_text(&prompts[first..first + count], 0).unwrap(),
                    sd.denoise(&of(&latents), &t[first..first + count], &of(&context))
                        .unwrap(),
                    sd.decode(&of(&latents)).unwrap(),
                ]
            };
            let alone: Vec<_> = (0..16).map(|i| rows(i, 1)).collect();
            for (threads, first, count) in [
                (1, 0, 2),
                (2, 0, 2),
                (1, 3, 5),
                (2, 3, 5),
                (1, 0, 16),
                (2, 0, 16),
                (1, 7, 1),
                (2, 7, 1),
            ] {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                let together = pool.install(|| rows(first, count));
                for i in 0..count {
                    for (network, (together, alone)) in ["text", "unet", "vae"]
                        .iter()
                        .zip(together.iter().zip(&alone[first + i]))
                    {
                        assert_eq!(
                            bits(&together.narrow(0, i, 1).unwrap()),
                            bits(alone),
                            "{}: {network} at {h}×{w}, row {i} of {count}, {threads} threads",
                            root.display()
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_model_is_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<StableDiffusion>();
    shared::<ModelFolder>();
    shared::<Weights>();
}

#[test]
fn calls_that_do_not_fit_are_errors() {
    let sd = load(&parity().join("pipelines/sd1")).unwrap();
    let (latents, context) = (noise(&[2, 4, 8, 8], 1), noise(&[2, 77, 32], 2));
    assert!(sd.denoise(&latents, &[1.0], &context).is_err());
    assert!(
        sd.denoise(&latents, &[1.0; 2], &noise(&[1, 77, 32], 2))
            .is_err()
    );
    assert!(
        sd.denoise(&noise(&[2, 3, 8, 8], 1), &[1.0; 2], &context)
            .is_err()
    );
    assert!(
        sd.denoise(&latents, &[1.0; 2], &noise(&[2, 77, 31], 2))
            .is_err()
    );
    assert!(sd.decode(&noise(&[1, 5, 8, 8], 1)).is_err());
    assert!(sd.encode_text(&[vec![0; 78]], 0).is_err());
    assert!(sd.encode_text(&[vec![994; 77]], 0).is_err());
    assert!(sd.encode_text(&[vec![0; 77], vec![0; 76]], 0).is_err());
    assert_eq!(sd.encode_text(&[vec![0; 5]], 0).unwrap().dims(), [1, 5, 32]);
}

// ---- what a folder may look like ----

#[test]
fn the_spec_and_the_scheduler() {
    let sd = load(&parity().join("pipelines/sd2")).unwrap();
    let spec = sd.spec();
    assert_eq!(
        (
            spec.latent_channels,
            spec.vae_scale_factor,
            spec.size_multiple
        ),
        (4, 8, 8)
    );
    assert_eq!(
        (
            spec.sample_size,
            spec.context_length,
            spec.context_width,
            spec.text_layers
        ),
        ((12, 12), 77, 48, 4)
    );
    assert_eq!(sd.scheduler_config()["_class_name"], "DDIMScheduler");

    let copy = Copy::of("sd1");
    let text = r#"{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity, "steps_offset": 0}"#;
    fs::write(copy.path("scheduler/scheduler_config.json"), text).unwrap();
    let scheduler = copy.load().unwrap();
    assert_eq!(
        scheduler.scheduler_config()["lambda_min_clipped"],
        "-Infinity"
    );
    assert_eq!(scheduler.scheduler_config()["steps_offset"], 1);
}

#[test]
fn prompts_are_cut_and_padded() {
    let copy = Copy::of("sd1");
    let with_json = copy.load().unwrap();
    fs::remove_file(copy.path("tokenizer/tokenizer.json")).unwrap();
    let with_merges = copy.load().unwrap();
    let long = "fox ".repeat(200);
    for prompt in prompts().iter().map(String::as_str).chain([
        &*long,
        "  Ünïcode\t\nİ½ ２ <|endoftext|> it's 12345",
        "\u{0}",
    ]) {
        let ids = with_json.tokenize(prompt);
        assert_eq!(ids, with_merges.tokenize(prompt), "{prompt:?}");
        assert_eq!(ids.len(), 77);
    }
    let end = *with_json.tokenize("").last().unwrap();
    let cut = with_json.tokenize(&long);
    assert_eq!(cut[76], end);
    assert!(cut[1..76].iter().all(|id| *id != end));

    copy.edit("tokenizer/tokenizer_config.json", |config| {
        config["model_max_length"] = json!(1e30)
    });
    assert_eq!(copy.load().unwrap().spec().context_length, 77);
    copy.edit("tokenizer/tokenizer_config.json", |config| {
        config["model_max_length"] = json!(20)
    });
    let short = copy.load().unwrap();
    assert_eq!(
        (short.spec().context_length, short.tokenize(&long).len()),
        (20, 20)
    );
    copy.edit("tokenizer/special_tokens_map.json", |map| {
        map["pad_token"] = json!({"content": "!", "lstrip": false})
    });
    assert_eq!(copy.load().unwrap().tokenize("")[2..], [0; 18]);
    copy.edit("tokenizer/special_tokens_map.json", |map| {
        map["pad_token"] = json!("<|nothing|>")
    });
    assert!(matches!(copy.load(), Err(LoadError::Tokenizer { .. })));
}

#[test]
fn missing_unused_and_misshapen_tensors_are_all_named() {
    let copy = Copy::of("sd1");
    copy.edit_tensors("unet/diffusion_pytorch_model.safetensors", |tensors| {
        tensors.remove("conv_in.bias").unwrap();
        tensors.remove("mid_block.resnets.1.norm2.weight").unwrap();
        tensors.insert("lora.extra".into(), noise(&[3], 1));
        tensors.insert("conv_out.bias".into(), noise(&[5], 1));
        tensors.insert(
            "conv_norm_out.bias".into(),
            Tensor::zeros(8, DType::I64, &Device::Cpu).unwrap(),
        );
    });
    let Err(error) = copy.load() else {
        panic!("loaded")
    };
    let text = error.to_string();
    for part in [
        "conv_in.bias [8]",
        "lora.extra [3]",
        "conv_out.bias is [5], expected [4]",
        "conv_norm_out.bias is of type I64",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let LoadError::Tensors(found) = error else {
        panic!("{text}")
    };
    let expected = TensorMismatch {
        component: "unet".into(),
        missing: vec![
            ("conv_in.bias".into(), vec![8]),
            ("mid_block.resnets.1.norm2.weight".into(), vec![16]),
        ],
        unused: vec![("lora.extra".into(), vec![3])],
        misshapen: vec![("conv_out.bias".into(), vec![4], vec![5])],
        not_float: vec![("conv_norm_out.bias".into(), "I64".into())],
    };
    assert_eq!(
        TensorMismatch {
            missing: sorted(found.missing.clone()),
            ..found
        },
        expected
    );
}

#[test]
fn keys_are_honoured_or_refused_by_name() {
    let cases = [
        ("unet/config.json", "time_cond_proj_dim", json!(256)),
        (
            "unet/config.json",
            "addition_embed_type",
            json!("text_time"),
        ),
        ("unet/config.json", "class_embed_type", json!("timestep")),
        ("unet/config.json", "num_class_embeds", json!(10)),
        (
            "unet/config.json",
            "only_cross_attention",
            json!([true, false, false, false]),
        ),
        ("unet/config.json", "dual_cross_attention", json!(true)),
        (
            "unet/config.json",
            "resnet_time_scale_shift",
            json!("scale_shift"),
        ),
        ("unet/config.json", "act_fn", json!("gelu")),
        ("unet/config.json", "num_attention_heads", json!(8)),
        ("unet/config.json", "encoder_hid_dim", json!(64)),
        (
            "unet/config.json",
            "mid_block_type",
            json!("UNetMidBlock2DSimpleCrossAttn"),
        ),
        (
            "unet/config.json",
            "down_block_types",
            json!(["DownBlock2D"; 3].to_vec()),
        ),
        ("unet/config.json", "attention_head_dim", json!([8, 8, 8])),
        ("unet/config.json", "attention_head_dim", json!(3)),
        ("unet/config.json", "norm_num_groups", json!(0)),
        ("unet/config.json", "norm_num_groups", Value::Null),
        (
            "unet/config.json",
            "layers_per_block",
            json!(1_000_000_000_000u64),
        ),
        ("unet/config.json", "block_out_channels", json!([])),
        ("unet/config.json", "sample_size", Value::Null),
        ("unet/config.json", "conv_in_kernel", json!(4)),
        ("unet/config.json", "a_key_of_tomorrow", json!(1)),
        ("vae/config.json", "latents_mean", json!([0.0])),
        ("vae/config.json", "scaling_factor", json!(0.0)),
        (
            "vae/config.json",
            "down_block_types",
            json!(["DownEncoderBlock2D"]),
        ),
        (
            "vae/config.json",
            "up_block_types",
            json!(["AttnUpDecoderBlock2D"; 4].to_vec()),
        ),
        ("vae/config.json", "decoder_only", json!(true)),
        ("text_encoder/config.json", "hidden_act", json!("relu")),
        ("text_encoder/config.json", "num_attention_heads", json!(5)),
        (
            "text_encoder/config.json",
            "architectures",
            json!(["CLIPTextModelWithProjection"]),
        ),
        ("text_encoder/config.json", "use_something_new", json!(true)),
        (
            "tokenizer/tokenizer_config.json",
            "tokenizer_class",
            json!("T5Tokenizer"),
        ),
        (
            "tokenizer/tokenizer_config.json",
            "model_max_length",
            json!(1),
        ),
        (
            "model_index.json",
            "_class_name",
            json!("StableDiffusionInpaintPipeline"),
        ),
        (
            "model_index.json",
            "unet",
            json!(["diffusers", "UNet2DModel"]),
        ),
        (
            "model_index.json",
            "controlnet",
            json!(["diffusers", "ControlNetModel"]),
        ),
    ];
    for (file, key, value) in &cases {
        let copy = Copy::of("sd1");
        copy.edit(file, |config| config[*key] = value.clone());
        let Err(error) = copy.load() else {
            panic!("{file}: {key} = {value} was taken")
        };
        let text = error.to_string();
        assert!(
            text.contains(file) && text.contains(key),
            "{key} = {value}: {text}"
        );
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
fn parts_that_do_not_fit_each_other_are_refused() {
    let copy = Copy::of("sd1");
    copy.edit("unet/config.json", |config| {
        config["cross_attention_dim"] = json!(48)
    });
    assert!(matches!(copy.load(), Err(LoadError::Disagree { .. })));
    let copy = Copy::of("sd1");
    copy.edit("text_encoder/config.json", |config| {
        config["vocab_size"] = json!(500)
    });
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
        for cut in (0..header)
            .step_by(7)
            .chain([whole.len() / 2, whole.len() - 1, whole.len() - 2])
        {
            fs::write(copy.path(file), &whole[..cut]).unwrap();
            // A JSON text that lost but its last line break is whole.
            if whole[cut..].iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let Err(error) = copy.load() else {
                panic!("{file} cut to {cut} bytes was taken")
            };
            assert!(
                error.to_string().contains(file),
                "{file} cut to {cut}: {error}"
            );
            cases += 1;
        }
        // Bytes turned over anywhere in the header must never panic, whatever else they do.
        for at in 0..200.min(whole.len()) {
            let mut turned = whole.clone();
            turned[at] ^= 0x55;
            fs::write(copy.path(file), turned).unwrap();
            let _ = copy.load();
        }
    }
    for file in [
        "unet/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "tokenizer/special_tokens_map.json",
    ] {
        let copy = Copy::of("sd1");
        fs::write(copy.path(file), b"\xff\xfe\x00garbage").unwrap();
        let Err(error) = copy.load() else {
            panic!("garbage in {file} was taken")
        };
        assert!(error.to_string().contains(file), "{error}");
    }
    for file in [
        "unet/config.json",
        "text_encoder/model.safetensors",
        "scheduler/scheduler_config.json",
    ] {
        let copy = Copy::of("sd1");
        fs::remove_file(copy.path(file)).unwrap();
        assert!(matches!(copy.load(), Err(LoadError::Absent { path }) if path == file));
    }
    println!("{cases} truncations refused");
}

#[test]
fn old_and_flattened_names_mean_the_same_tensors() {
    let whole = Copy::of("sd1").outputs();
    let copy = Copy::of("sd1");
    copy.edit_tensors("vae/diffusion_pytorch_model.safetensors", |tensors| {
        for (old, new) in [
            ("query", "to_q"),
            ("key", "to_k"),
            ("value", "to_v"),
            ("proj_attn", "to_out.0"),
        ] {
            for half in ["encoder", "decoder"] {
                let attention = format!("{half}.mid_block.attentions.0");
                let bias = tensors.remove(&format!("{attention}.{new}.bias")).unwrap();
                tensors.insert(format!("{attention}.{old}.bias"), bias);
                let weight = tensors
                    .remove(&format!("{attention}.{new}.weight"))
                    .unwrap();
                let weight = if half == "encoder" {
                    weight.reshape((16, 16, 1, 1)).unwrap()
                } else {
                    weight
                };
                tensors.insert(format!("{attention}.{old}.weight"), weight);
            }
        }
    });
    copy.edit_tensors("text_encoder/model.safetensors", |tensors| {
        let flattened = tensors
            .drain()
            .map(|(name, t)| (name.strip_prefix("text_model.").unwrap().to_owned(), t))
            .collect();
        *tensors = flattened;
        let ids = Tensor::arange(0i64, 77, &Device::Cpu)
            .unwrap()
            .reshape((1, 77))
            .unwrap();
        tensors.insert("embeddings.position_ids".into(), ids);
    });
    assert_eq!(copy.outputs(), whole);
}

#[test]
fn shards_variants_and_embedded_folders_hold_the_same_model() {
    const UNET: &str = "unet/diffusion_pytorch_model";
    let whole = Copy::of("sd1").outputs();

    let split = |index: bool| {
        let copy = Copy::of("sd1");
        let mut names: Vec<_> = tensors(&copy.path(&format!("{UNET}.safetensors")))
            .into_iter()
            .collect();
        names.sort_by(|a, b| a.0.cmp(&b.0));
        let (mut shards, mut map) = (
            vec![HashMap::new(), HashMap::new(), HashMap::new()],
            BTreeMap::new(),
        );
        for (i, (name, tensor)) in names.into_iter().enumerate() {
            map.insert(
                name.clone(),
                format!(
                    "diffusion_pytorch_model-{:05}-of-00003.safetensors",
                    i % 3 + 1
                ),
            );
            shards[i % 3].insert(name, tensor);
        }
        for (i, shard) in shards.iter().enumerate() {
            candle_core::safetensors::save(
                shard,
                copy.path(&format!("{UNET}-{:05}-of-00003.safetensors", i + 1)),
            )
            .unwrap();
        }
        if index {
            let index = json!({"metadata": {}, "weight_map": map});
            fs::write(
                copy.path(&format!("{UNET}.safetensors.index.json")),
                index.to_string(),
            )
            .unwrap();
        }
        fs::remove_file(copy.path(&format!("{UNET}.safetensors"))).unwrap();
        copy
    };
    let by_name = split(false);
    assert_eq!(by_name.outputs(), whole);
    fs::remove_file(by_name.path(&format!("{UNET}-00003-of-00003.safetensors"))).unwrap();
    assert!(
        matches!(by_name.load(), Err(LoadError::Absent { path }) if path.contains("00003-of-00003"))
    );

    let by_index = split(true);
    assert_eq!(by_index.outputs(), whole);
    for (file, escapes) in [
        ("../vae/diffusion_pytorch_model.safetensors", true),
        ("nowhere.safetensors", false),
    ] {
        by_index.edit(&format!("{UNET}.safetensors.index.json"), |index| {
            index["weight_map"]["conv_in.bias"] = json!(file)
        });
        match by_index.load() {
            Err(LoadError::Escapes { .. }) if escapes => {}
            Err(LoadError::Absent { path }) if !escapes && path.contains(file) => {}
            other => panic!("{file}: {:?}", other.err()),
        }
    }

    // Half precision is widened exactly: the same as a float32 file with the rounded values.
    for half in [DType::F16, DType::BF16] {
        let (rounded, narrow) = (Copy::of("sd1"), Copy::of("sd1"));
        rounded.edit_tensors(&format!("{UNET}.safetensors"), |tensors| {
            tensors
                .values_mut()
                .for_each(|t| *t = t.to_dtype(half).unwrap().to_dtype(DType::F32).unwrap());
        });
        narrow.edit_tensors(&format!("{UNET}.safetensors"), |tensors| {
            tensors
                .values_mut()
                .for_each(|t| *t = t.to_dtype(half).unwrap());
        });
        fs::rename(
            narrow.path(&format!("{UNET}.safetensors")),
            narrow.path(&format!("{UNET}.fp16.safetensors")),
        )
        .unwrap();
        assert_eq!(narrow.outputs(), rounded.outputs());
        assert_ne!(narrow.outputs(), whole);
    }

    fn embedded(path: &str) -> Option<Cow<'static, [u8]>> {
        fs::read(parity().join("pipelines/sd1").join(path))
            .ok()
            .map(Cow::Owned)
    }
    let root = parity().join("pipelines/sd1");
    let files = walk(&root).into_iter().map(|file| {
        Cow::Owned(
            file.strip_prefix(&root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned(),
        )
    });
    let folder = ModelFolder::embedded("sd1", files, embedded);
    assert_eq!(
        outputs(&StableDiffusion::load(&folder, &Device::Cpu).unwrap()),
        whole
    );
    assert!(folder.has("unet/config.json") && !folder.has("unet"));
    assert_eq!(
        folder.names("unet").unwrap(),
        ["config.json", "diffusion_pytorch_model.safetensors"]
    );
}

#[test]
fn nothing_outside_the_folder_is_read() {
    let copy = Copy::of("sd1");
    let folder = ModelFolder::open(copy.0.path()).unwrap();
    fs::write(
        copy.0.path().parent().unwrap().join("latentd-outside.json"),
        "{}",
    )
    .ok();
    for path in [
        "../latentd-outside.json",
        "/etc/hostname",
        "unet/../../x",
        "..",
        "unet\\..\\config.json",
    ] {
        assert!(
            matches!(folder.bytes(path), Err(LoadError::Escapes { .. })),
            "{path}"
        );
        assert!(!folder.has(path), "{path}");
    }
    fs::remove_file(copy.0.path().parent().unwrap().join("latentd-outside.json")).ok();
    #[cfg(unix)]
    {
        let elsewhere = Copy::of("sd1");
        fs::remove_file(copy.path("unet/config.json")).unwrap();
        std::os::unix::fs::symlink(
            elsewhere.path("unet/config.json"),
            copy.path("unet/config.json"),
        )
        .unwrap();
        assert!(
            matches!(copy.load(), Err(LoadError::Escapes { path }) if path == "unet/config.json")
        );
        fs::remove_file(copy.path("unet/config.json")).unwrap();
        fs::copy(
            elsewhere.path("unet/config.json"),
            copy.path("unet/real.json"),
        )
        .unwrap();
        std::os::unix::fs::symlink("real.json", copy.path("unet/config.json")).unwrap();
        assert!(copy.load().is_ok());
    }
    assert!(ModelFolder::open(&copy.path("model_index.json")).is_err());
    assert!(ModelFolder::open(&copy.path("nowhere")).is_err());
}

// ---- fixtures ----

fn parity() -> PathBuf {
    std::env::var_os("LATENTD_PARITY_DIR")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity"))
}

fn prompts() -> Vec<String> {
    serde_json::from_slice(&fs::read(parity().join("components/prompts.json")).unwrap()).unwrap()
}

fn tensors(path: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn load(root: &Path) -> Result<StableDiffusion, LoadError> {
    StableDiffusion::load(&ModelFolder::open(root)?, &Device::Cpu)
}

fn vae(pipeline: &str) -> AutoencoderKl {
    let folder = ModelFolder::open(&parity().join("pipelines").join(pipeline)).unwrap();
    let config =
        AutoencoderKlConfig::read("vae/config.json", &folder.json("vae/config.json").unwrap())
            .unwrap();
    let weights = Weights::open(
        &folder,
        "vae",
        "diffusion_pytorch_model",
        &Device::Cpu,
        current_name,
    )
    .unwrap();
    let vae = AutoencoderKl::new(&config, &weights);
    weights.finish().unwrap();
    vae
}

/// Within 1e-4 of the largest value.
fn assert_close(made: &Tensor, golden: &Tensor, what: &str) {
    assert_eq!(made.dims(), golden.dims(), "{what}");
    let largest = |x: &Tensor| {
        x.abs()
            .unwrap()
            .max_all()
            .unwrap()
            .to_scalar::<f32>()
            .unwrap()
    };
    let error = largest(&(made - golden).unwrap()) / largest(golden);
    println!("{what}: {error:.1e}");
    assert!(error < 1e-4, "{what}: {error:e}");
}

fn bits(x: &Tensor) -> Vec<u32> {
    x.flatten_all()
        .unwrap()
        .to_vec1::<f32>()
        .unwrap()
        .iter()
        .map(|x| x.to_bits())
        .collect()
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort();
    list
}

/// Numbers in [-1.7, 1.7] that are the same in every run (Knuth's MMIX generator).
fn noise(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1 << 24) as f32 - 0.5) * 3.4
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// What a model makes of fixed inputs, as bits.
fn outputs(sd: &StableDiffusion) -> Vec<Vec<u32>> {
    let context = sd.encode_text(&[sd.tokenize("a red fox")], 0).unwrap();
    let latents = noise(&[1, 4, 8, 8], 3);
    let predicted = sd.denoise(&latents, &[500.5], &context).unwrap();
    [context, predicted, sd.decode(&latents).unwrap()]
        .iter()
        .map(bits)
        .collect()
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                walk(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

/// A copy of a pipeline to spoil.
struct Copy(tempfile::TempDir);

impl Copy {
    fn of(pipeline: &str) -> Self {
        let copy = Self(tempfile::tempdir().unwrap());
        let root = parity().join("pipelines").join(pipeline);
        for file in walk(&root) {
            let to = copy.0.path().join(file.strip_prefix(&root).unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::write(to, fs::read(file).unwrap()).unwrap();
        }
        copy
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn load(&self) -> Result<StableDiffusion, LoadError> {
        load(self.0.path())
    }

    fn outputs(&self) -> Vec<Vec<u32>> {
        outputs(&self.load().unwrap())
    }

    fn edit(&self, file: &str, edit: impl FnOnce(&mut Value)) {
        let mut json = serde_json::from_slice(&fs::read(self.path(file)).unwrap()).unwrap();
        edit(&mut json);
        fs::write(self.path(file), json.to_string()).unwrap();
    }

    fn edit_tensors(&self, file: &str, edit: impl FnOnce(&mut HashMap<String, Tensor>)) {
        let mut edited = tensors(&self.path(file));
        edit(&mut edited);
        candle_core::safetensors::save(&edited, self.path(file)).unwrap();
    }
}

/// sd1 with a wider U-Net and autoencoder: layers with more than 512 numbers to sum and no more than 64 channels and pixels,
/// where the products of a batch must not be made in one.
fn wide_model() -> tempfile::TempDir {
    let copy = Copy::of("sd1");
    copy.edit("unet/config.json", |config| {
        config["block_out_channels"] = json!([64, 64]);
        config["down_block_types"] = json!(["DownBlock2D", "CrossAttnDownBlock2D"]);
        config["up_block_types"] = json!(["CrossAttnUpBlock2D", "UpBlock2D"]);
        config["layers_per_block"] = json!(1);
    });
    copy.edit("vae/config.json", |config| {
        config["block_out_channels"] = json!([8, 64]);
        config["down_block_types"] = json!(["DownEncoderBlock2D"; 2].to_vec());
        config["up_block_types"] = json!(["UpDecoderBlock2D"; 2].to_vec());
    });
    let folder = ModelFolder::open(copy.0.path()).unwrap();
    for (part, file) in [
        ("unet", "unet/diffusion_pytorch_model.safetensors"),
        ("vae", "vae/diffusion_pytorch_model.safetensors"),
    ] {
        let config = folder.json(&format!("{part}/config.json")).unwrap();
        let weights = Weights::outline(part);
        match part {
            "unet" => drop(UNet2DConditionModel::new(
                &UNet2DConditionConfig::read(part, &config).unwrap(),
                &weights,
            )),
            _ => drop(AutoencoderKl::new(
                &AutoencoderKlConfig::read(part, &config).unwrap(),
                &weights,
            )),
        }
        let made: HashMap<String, Tensor> = weights
            .requested()
            .into_iter()
            .enumerate()
            .map(|(seed, (name, shape))| {
                let inputs = shape[1..].iter().product::<usize>() as f64;
                (name, (noise(&shape, seed as u64) / inputs.sqrt()).unwrap())
            })
            .collect();
        candle_core::safetensors::save(&made, copy.path(file)).unwrap();
    }
    copy.0
}
