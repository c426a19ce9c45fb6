//! Tests of single-file checkpoints made from the tiny pipelines: tensors and outputs equal the folders' tensors and
//! outputs.

use std::{collections::BTreeMap, fs, path::Path};

use candle_core::{Device, Tensor};
use latentd::{
    catalogue::{Catalogue, ControlNets},
    families::checkpoints,
    models::{
        StableDiffusion,
        control_net::{ControlNetConfig, Residuals},
        pause::ToEnd,
        text_encoders::LearnedTokens,
        unet2d_condition::{Added, Conditions},
    },
    weights::{LoadError, ModelFolder, Weights},
};
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::{
    files::{Raw, Tensors, parity, pipeline_folder, read_at, write},
    inverse,
};

const STEMS: [(&str, &str); 4] = [
    ("unet", "diffusion_pytorch_model"),
    ("vae", "diffusion_pytorch_model"),
    ("text_encoder", "model"),
    ("text_encoder_2", "model"),
];

/// The tensors of a pipeline by component. Returns `None`, and prints so, if these fixtures do not contain it.
fn parts(pipeline: &str) -> Option<BTreeMap<&'static str, Tensors>> {
    let root = parity().join("pipelines").join(pipeline);
    if !root.exists() {
        println!("waiting: {}", root.display());
        return None;
    }
    let read = |(component, stem): (&'static str, &str)| {
        let path = root.join(component).join(format!("{stem}.safetensors"));
        path.exists().then(|| (component, read_at(path)))
    };
    Some(STEMS.into_iter().filter_map(read).collect())
}

/// A folder with one checkpoint and optionally its JSON file.
struct Place(tempfile::TempDir);

impl Place {
    fn with(tensors: &Tensors, sidecar: Option<&Value>) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::write(place.0.path().join("model.safetensors"), write(tensors)).unwrap();
        if let Some(sidecar) = sidecar {
            fs::write(place.0.path().join("model.json"), sidecar.to_string()).unwrap();
        }
        place
    }

    fn open(&self) -> Result<ModelFolder, LoadError> {
        ModelFolder::single(&self.0.path().join("model.safetensors"), &checkpoints())
    }
}

/// The configuration values of a tiny pipeline that do not follow from shapes.
fn tiny(pipeline: &str) -> Value {
    let folder = parity().join("pipelines").join(pipeline);
    let config = |path: &str| -> Value {
        let Ok(text) = fs::read(folder.join(path)) else { return json!({}) };
        serde_json::from_slice(&text).unwrap()
    };
    let some = |path: &str, keys: &[&str]| -> Value {
        let config = config(path);
        keys.iter()
            .filter_map(|key| Some(((*key).to_owned(), config.get(key)?.clone())))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let mut all = json!({
        "unet": some("unet/config.json", &["attention_head_dim", "norm_num_groups", "sample_size"]),
        "vae": some("vae/config.json", &["norm_num_groups", "sample_size"]),
    });
    for component in ["text_encoder", "text_encoder_2"] {
        if folder.join(component).exists() {
            all[component] = some(&format!("{component}/config.json"), &["num_attention_heads"]);
        }
    }
    all
}

fn open(folder: &ModelFolder, component: &str, stem: &str) -> Weights {
    let same = |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec());
    Weights::open(folder, component, stem, &latentd::device::Device::host(), same).unwrap()
}

fn bits(x: &Tensor) -> Vec<u32> {
    x.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|x| x.to_bits()).collect()
}

#[test]
fn all_tensors_and_configurations_equal_those_of_the_folder() {
    for pipeline in ["sd1", "sd1-inpaint", "ip2p", "lcm", "sd2", "sdxl", "sdxl-refiner"] {
        let Some(parts) = parts(pipeline) else { continue };
        let place = Place::with(&inverse::single_file(&parts), Some(&tiny(pipeline)));
        let single = place.open().unwrap_or_else(|e| panic!("{pipeline}: {e}"));
        let folder = pipeline_folder(&parity().join("pipelines").join(pipeline)).unwrap();
        for (component, stem) in STEMS.into_iter().filter(|(component, _)| parts.contains_key(component)) {
            let (expected, made) = (open(&folder, component, stem), open(&single, component, stem));
            assert!(made.stored() == expected.stored(), "{pipeline} {component}");
            for (name, shape) in expected.stored() {
                assert!(
                    bits(&made.tensor(&name, &shape)) == bits(&expected.tensor(&name, &shape)),
                    "{pipeline} {name}"
                );
                if let [outputs, inputs] = shape[..] {
                    let matrix = |weights: &Weights| bits(&weights.matrix(&name, outputs, inputs));
                    assert!(matrix(&made) == matrix(&expected), "{pipeline} {name} transposed");
                }
            }
        }
        for path in [
            "model_index.json",
            "scheduler/scheduler_config.json",
            "unet/config.json",
            "vae/config.json",
            "text_encoder/config.json",
            "text_encoder_2/config.json",
        ] {
            assert_eq!(folder.has(path), single.has(path), "{pipeline} {path}");
            if !folder.has(path) {
                continue;
            }
            let (expected, made) = (folder.json(path).unwrap(), single.json(path).unwrap());
            for (key, made) in made {
                // A list with one number per block equals a single number. A 1 has no effect in blocks without
                // attention. The tiny LCM has a scheduler with special keys.
                let each = made.as_array().is_some_and(|each| {
                    let none = |made: &Value| key == "transformer_layers_per_block" && made == 1;
                    each.iter().all(|made| none(made) || Some(made) == expected.get(&key))
                });
                let other = pipeline == "lcm" && path.starts_with("scheduler") || key == "scheduler";
                let of_class = expected.get(&key).is_none() && key == "prediction_type" && made == "epsilon";
                assert!(
                    each || other || of_class || expected.get(&key) == Some(&made),
                    "{pipeline} {path} {key}: {made} is not {:?}",
                    expected.get(&key)
                );
            }
        }
    }
}

/// Extends the embeddings to CLIP's whole vocabulary. The tiny encoders have only the first ids.
fn with_whole_vocabulary(parts: &mut BTreeMap<&'static str, Tensors>) {
    for component in ["text_encoder", "text_encoder_2"] {
        let Some(tensors) = parts.get_mut(component) else { continue };
        let embedding = tensors.get_mut("text_model.embeddings.token_embedding.weight").unwrap();
        let row = embedding.bytes.len() / embedding.shape[0];
        embedding.shape[0] = 49408;
        embedding.bytes.resize(49408 * row, 0);
    }
}

fn noise(shape: &[usize]) -> Tensor {
    let number =
        |i: usize| (((i as u64 + 7).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1 << 24) as f32 - 0.5) * 3.4;
    Tensor::from_vec((0..shape.iter().product()).map(number).collect::<Vec<f32>>(), shape, &Device::Cpu).unwrap()
}

#[test]
fn all_network_outputs_equal_those_of_the_folder() {
    for pipeline in ["sd1", "sd1-inpaint", "ip2p", "sd2", "lcm", "sdxl", "sdxl-refiner"] {
        let Some(mut parts) = parts(pipeline) else { continue };
        with_whole_vocabulary(&mut parts);
        let place = Place::with(&inverse::single_file(&parts), Some(&tiny(pipeline)));
        let load = |folder: &ModelFolder| StableDiffusion::load(folder, &latentd::device::Device::host()).unwrap();
        let folder = load(&pipeline_folder(&parity().join("pipelines").join(pipeline)).unwrap());
        let single = load(&place.open().unwrap());
        assert_eq!(single.spec(), folder.spec());
        let prompt = [folder.tokenize(&["a red fox"], &LearnedTokens::default())];
        let spec = folder.spec();
        let channels = parts["unet"]["conv_in.weight"].shape[1];
        let answers = |sd: &StableDiffusion| {
            let text = sd.encode_text(&prompt, 0).to_end().unwrap();
            let time_ids = (0..spec.time_id_count).map(|i| 40.0 + i as f32).collect();
            let added = text.pooled.clone().map(|text_embeds| Added { text_embeds: Some(text_embeds), time_ids });
            let guidance = [6.5];
            let conditions = Conditions {
                added: added.as_ref(),
                guidance: spec.guidance_embedding.then_some(&guidance[..]),
                ..Conditions::plain(&[500.5], &text.hidden)
            };
            let predicted = sd.denoise(&noise(&[1, channels, 8, 8]), &conditions, Residuals::NONE).to_end().unwrap();
            let moments = sd.encode(&noise(&[1, 3, 32, 32])).to_end().unwrap();
            let all = [Some(text.hidden.clone()), text.pooled.clone(), Some(predicted), Some(moments.mean)];
            let decoded = sd.decode(&noise(&[1, 4, 8, 8])).to_end().unwrap();
            all.iter().flatten().chain([&decoded]).map(bits).collect::<Vec<_>>()
        };
        assert!(answers(&single) == answers(&folder), "{pipeline}");
    }
}

#[test]
fn prompts_are_tokenized_with_the_built_in_vocabulary() {
    let Some(mut parts) = parts("sd1") else { return };
    with_whole_vocabulary(&mut parts);
    let place = Place::with(&inverse::single_file(&parts), Some(&tiny("sd1")));
    let sd = StableDiffusion::load(&place.open().unwrap(), &latentd::device::Device::host()).unwrap();
    let all = |prompt: &str| sd.tokenize(&[prompt], &LearnedTokens::default()).ids.remove(0);
    let ids = |prompt: &str| all(prompt).into_iter().take_while(|id| *id != 49407).skip(1).collect::<Vec<_>>();
    assert_eq!(ids("a photo of a cat"), [320, 1125, 539, 320, 2368]);
    assert_eq!(ids("A  Photo of a CAT"), ids("a photo of a cat"));
    assert_eq!(all("").len(), 77);
}

#[test]
fn single_file_control_nets_equal_their_folders() {
    for name in ["canny", "depth", "sdxl-canny"] {
        let root = parity().join("controlnets").join(name);
        if !root.exists() {
            println!("waiting: {}", root.display());
            continue;
        }
        let tensors = read_at(root.join("diffusion_pytorch_model.safetensors"));
        let expected: Value = serde_json::from_slice(&fs::read(root.join("config.json")).unwrap()).unwrap();
        let keys = ["attention_head_dim", "norm_num_groups", "addition_time_embed_dim"];
        let known: Value =
            keys.iter().map(|key| ((*key).to_owned(), expected[key].clone())).collect::<serde_json::Map<_, _>>().into();
        for file in [inverse::control_net(&tensors), tensors.clone()] {
            let place = Place::with(&file, Some(&json!({"controlnet": known})));
            let single = place.open().unwrap();
            let weights = open(&single, "", "diffusion_pytorch_model");
            let shapes: BTreeMap<_, _> = tensors.iter().map(|(name, raw)| (name.clone(), raw.shape.clone())).collect();
            assert!(weights.stored() == shapes, "{name}");
            // The catalogue of ControlNets reads the configuration in this way.
            ControlNetConfig::of(&single, "any").unwrap();
            let made = single.json("config.json").unwrap();
            for (key, made) in made {
                let each = made.as_array().is_some_and(|each| each.iter().all(|made| *made == expected[&key]));
                assert!(each || made == expected[&key], "{name} {key}: {made} is not {}", expected[&key]);
            }
        }
    }
}

#[test]
fn incomplete_checkpoints_and_foreign_tensors_are_refused() {
    let Some(parts) = parts("sd2") else { return };
    let whole = inverse::single_file(&parts);
    let without = |prefix: &str| -> Tensors {
        whole
            .iter()
            .filter(|(name, _)| !name.starts_with(prefix))
            .map(|(name, raw)| (name.clone(), raw.clone()))
            .collect()
    };
    for prefix in ["model.diffusion_model.", "first_stage_model.", "cond_stage_model.", ""] {
        match Place::with(&without(prefix), None).open() {
            Err(LoadError::Checkpoint { reason, .. }) => assert!(reason.contains("it has no"), "{reason}"),
            other => panic!("without {prefix}: {other:?}"),
        }
    }
    // Tensors from which configurations follow.
    let odd = [
        "model.diffusion_model.input_blocks.0.0.weight",
        "model.diffusion_model.out.2.weight",
        "cond_stage_model.model.token_embedding.weight",
        "first_stage_model.decoder.conv_in.weight",
    ];
    for name in odd {
        assert!(matches!(Place::with(&without(name), None).open(), Err(LoadError::Checkpoint { .. })), "{name}");
        let mut flat = whole.clone();
        flat.insert(name.into(), Raw::floats(&[], |_| 0.0));
        let refused = Place::with(&flat, None).open();
        assert!(
            matches!(refused, Err(LoadError::Checkpoint { .. } | LoadError::Tensors(_))),
            "{name} flat: {refused:?}"
        );
    }
    for (name, shape) in [
        ("model.diffusion_model.input_blocks.1.7.proj", &[1][..]),
        ("model.diffusion_model.input_blocks.1.0.in_layers.9.weight", &[1]),
        ("first_stage_model.decoder.up.9999.block.0.conv1.weight", &[1]),
        ("cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight", &[4, 4]),
        ("cond_stage_model.model.transformer.resblocks.0.attn.in_proj_bias", &[]),
        ("first_stage_model.quantize.embedding.weight", &[4, 4]),
    ] {
        let mut more = whole.clone();
        more.insert(name.into(), Raw::floats(shape, |_| 0.0));
        match Place::with(&more, None).open() {
            Err(LoadError::Tensors(mismatch)) => assert_eq!(mismatch.unused[0].0, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    // A file with both names of one tensor.
    let mut twice = whole.clone();
    let projection = Raw { dtype: Dtype::F16, shape: vec![2, 2], bytes: vec![0; 8] };
    twice.insert("model.diffusion_model.output_blocks.2.2.conv.bias".into(), projection);
    assert!(matches!(Place::with(&twice, None).open(), Err(LoadError::Tensors(_))));
    let empty = tempfile::tempdir().unwrap();
    let path = empty.path().join("model.safetensors");
    assert!(matches!(ModelFolder::single(&path, &checkpoints()), Err(LoadError::Read { .. })));
    assert!(matches!(ModelFolder::single(empty.path(), &checkpoints()), Err(LoadError::Read { .. })));
    fs::write(&path, b"").unwrap();
    assert!(matches!(ModelFolder::single(&path, &checkpoints()), Err(LoadError::Safetensors { .. })));
}

#[test]
fn marker_tensors_and_the_json_file_change_the_configuration() {
    let Some(parts) = parts("sd1") else { return };
    let mut file = inverse::single_file(&parts);
    let scheduler = |place: &Place| place.open().unwrap().json("scheduler/scheduler_config.json").unwrap();
    assert_eq!(scheduler(&Place::with(&file, None))["prediction_type"], "epsilon");
    for marker in ["v_pred", "ztsnr"] {
        file.insert(marker.into(), Raw::floats(&[0], |_| 0.0));
    }
    let marked = scheduler(&Place::with(&file, None));
    assert_eq!((&marked["prediction_type"], &marked["rescale_betas_zero_snr"]), (&json!("v_prediction"), &json!(true)));
    assert_eq!(marked["_class_name"], "DDIMScheduler", "PNDM does not support zero terminal SNR");
    let said = json!({"scheduler": {"prediction_type": "sample"}, "latentd": {"steps": 7}});
    let place = Place::with(&file, Some(&said));
    assert_eq!(scheduler(&place)["prediction_type"], "sample");
    assert_eq!(place.open().unwrap().json("latentd.json").unwrap()["steps"], 7);
    // AUTOMATIC1111's web interface writes a file of the same name; some programs begin it with a byte order mark.
    let notes = json!({"description": "", "sd version": "SD1", "activation text": "", "preferred weight": 0});
    let place = Place::with(&file, Some(&notes));
    assert_eq!(scheduler(&place)["prediction_type"], "v_prediction");
    // The class in the model index takes precedence.
    let class = |said: &Value| {
        let index = Place::with(&file, Some(said)).open().unwrap().json("model_index.json").unwrap();
        index["scheduler"][1].clone()
    };
    let euler = json!({"_class_name": "EulerDiscreteScheduler"});
    assert_eq!(class(&json!({"scheduler": euler})), "EulerDiscreteScheduler");
    let index = json!({"scheduler": ["diffusers", "LMSDiscreteScheduler"]});
    assert_eq!(class(&json!({"scheduler": euler, "model_index": index})), "LMSDiscreteScheduler");

    for (wrong, key) in [
        (json!({"unet2": {}}), "unet2"),
        (json!({"text_encoder_2": {}}), "text_encoder_2"),
        (json!({"unet": 3}), "unet"),
    ] {
        match Place::with(&file, Some(&wrong)).open() {
            Err(LoadError::UnknownKey { key: named, .. } | LoadError::BadKey { key: named, .. }) => {
                assert_eq!(named, key)
            }
            other => panic!("{wrong}: {other:?}"),
        }
    }
    let place = Place::with(&file, Some(&json!([])));
    assert!(matches!(place.open(), Err(LoadError::Json { .. })));
    fs::write(place.0.path().join("model.json"), vec![b' '; (1 << 20) + 1]).unwrap();
    assert!(matches!(place.open(), Err(LoadError::Read { .. })));
}

#[test]
fn a_single_file_has_the_files_of_a_folder() {
    let Some(parts) = parts("sd1") else { return };
    let place = Place::with(&inverse::single_file(&parts), None);
    let folder = place.open().unwrap();
    for path in ["model_index.json", "unet/config.json", "tokenizer/vocab.json", "tokenizer/merges.txt"] {
        assert!(folder.has(path) && !folder.bytes(path).unwrap().is_empty(), "{path}");
    }
    assert_eq!(folder.names("tokenizer").unwrap(), ["merges.txt", "tokenizer_config.json", "vocab.json"]);
    for path in
        ["tokenizer_2/vocab.json", "unet/diffusion_pytorch_model.safetensors", "vae_tiny/config.json", "nothing"]
    {
        assert!(!folder.has(path), "{path}");
        assert!(matches!(folder.bytes(path), Err(LoadError::Absent { .. })), "{path}");
    }
    assert!(matches!(folder.bytes("../model.json"), Err(LoadError::Escapes { .. })));
    let Err(error) = Weights::open(&folder, "text_encoder_2", "model", &latentd::device::Device::host(), |n, s| {
        (n.into(), s.to_vec())
    }) else {
        panic!("the model has no second text encoder")
    };
    assert!(error.to_string().contains("it has no text_encoder_2"), "{error}");
    assert!(Path::new(&format!("{folder:?}")).components().count() > 1, "{folder:?}");
}

/// Tensors that belong to no network are ignored, as in diffusers, and a note names them.
#[test]
fn tensors_of_no_network_are_ignored() {
    for (pipeline, names) in [
        ("sd1", &["cond_stage_model.logit_scale", "cond_stage_model.text_projection"][..]),
        ("sd1", &["first_stage_model.model_ema.decay", "first_stage_model.model_ema.num_updates"]),
        ("sd1", &["edm_vpred.sigma_max", "edm_vpred.sigma_min", "model.alphas_cumprod", "something.else", ""]),
        ("sd1", &["cond_stage_model.transformer.vision_model.embeddings.class_embedding"]),
        ("sd2", &["cond_stage_model.model.logit_scale", "cond_stage_model.model.visual.proj"]),
        (
            "sdxl",
            &["conditioner.embedders.0.logit_scale", "conditioner.embedders.0.text_projection", "denoiser.sigmas"],
        ),
    ] {
        let Some(parts) = parts(pipeline) else { continue };
        let whole = inverse::single_file(&parts);
        let mut more = whole.clone();
        for name in names {
            more.insert((*name).to_owned(), Raw::floats(&[1], |_| 1.0));
        }
        let (plain, place) = (Place::with(&whole, None), Place::with(&more, None));
        let (plain, folder) = (plain.open().unwrap(), place.open().unwrap_or_else(|e| panic!("{names:?}: {e}")));
        for (component, stem) in STEMS.into_iter().filter(|(component, _)| parts.contains_key(component)) {
            assert_eq!(open(&folder, component, stem).stored(), open(&plain, component, stem).stored());
        }
        let scheduler = |folder: &ModelFolder| folder.json("scheduler/scheduler_config.json").unwrap();
        assert_eq!(scheduler(&folder), scheduler(&plain), "{names:?}");
        let notes = folder.notes().join("; ");
        assert!(names.iter().all(|name| notes.contains(name)), "{notes}");
    }
}

/// Tests files with the prediction type in the header, in marker tensors, and in the JSON file of the owner.
#[test]
fn the_prediction_type_comes_from_the_json_file_then_tensors_then_the_header() {
    let Some(parts) = parts("sd1") else { return };
    let whole = inverse::single_file(&parts);
    let file = |note: Option<&str>, marker: bool, owner: Option<&Value>| {
        let mut tensors = whole.clone();
        if marker {
            tensors.insert("v_pred".into(), Raw::floats(&[0], |_| 0.0));
        }
        let place = Place::with(&tensors, owner);
        let views = tensors.iter().map(|(name, raw)| (name, raw.view()));
        let notes = note.map(|note| [("modelspec.prediction_type".to_owned(), note.to_owned())].into());
        fs::write(place.0.path().join("model.safetensors"), safetensors::serialize(views, notes).unwrap()).unwrap();
        let folder = place.open().unwrap();
        let config = folder.json("scheduler/scheduler_config.json").unwrap();
        (config["prediction_type"].as_str().unwrap().to_owned(), folder.notes().join("; "))
    };
    let owner = json!({"scheduler": {"prediction_type": "epsilon"}});
    for (note, marker, owner, prediction, by) in [
        (None, false, None, "epsilon", "no mark"),
        (Some("v"), false, None, "v_prediction", "modelspec.prediction_type"),
        (Some("epsilon"), false, None, "epsilon", "modelspec.prediction_type"),
        (Some("epsilon"), true, None, "v_prediction", "v_pred"),
        (Some("Velocity"), false, None, "epsilon", "modelspec.prediction_type is \"Velocity\", which is not known"),
        (Some("v"), true, Some(&owner), "epsilon", "beside it"),
    ] {
        let (made, notes) = file(note, marker, owner);
        assert_eq!(made, prediction, "{note:?} {marker}");
        assert!(notes.contains(by), "{note:?} {marker}: {notes}");
    }
}

#[test]
fn a_value_declared_as_default_is_not_noted_as_used() {
    let Some(parts) = parts("sd1") else { return };
    let owner = json!({"scheduler": {"_use_default_values": ["prediction_type"], "prediction_type": "v_prediction"}});
    let notes = Place::with(&inverse::single_file(&parts), Some(&owner)).open().unwrap().notes().join("; ");
    let said = "prediction_type is the default of the scheduler's class (by _use_default_values of the .json file";
    assert!(notes.contains(said) && !notes.contains("v_prediction"), "{notes}");
}

/// Stable Diffusion XL with the noise levels of EDM, from the marker tensors that other programs read.
#[test]
fn marker_tensors_of_edm_select_its_scheduler() {
    let Some(parts) = parts("sdxl") else { return };
    let mut file = inverse::single_file(&parts);
    file.insert("edm_vpred.sigma_max".into(), Raw::floats(&[], |_| 120.0));
    file.insert("edm_vpred.sigma_min".into(), Raw::floats(&[1], |_| 0.5));
    let config = Place::with(&file, None).open().unwrap().json("scheduler/scheduler_config.json").unwrap();
    let some =
        ["_class_name", "prediction_type", "sigma_min", "sigma_max", "sigma_data"].map(|key| config[key].clone());
    assert_eq!(json!(some), json!(["EDMEulerScheduler", "v_prediction", 0.5, 120.0, 1.0]));
    file.insert("edm_vpred.sigma_max".into(), Raw::floats(&[], |_| 0.1));
    assert!(matches!(Place::with(&file, None).open(), Err(LoadError::Checkpoint { .. })));
    file.insert("edm_mean".into(), Raw::floats(&[4], |_| 0.0));
    let Err(LoadError::Checkpoint { reason, .. }) = Place::with(&file, None).open() else { panic!("edm_mean") };
    assert!(reason.contains("edm_mean"), "{reason}");
}

#[test]
fn errors_about_other_files_name_the_right_folder() {
    for (name, place) in [
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "loras.dir"),
        ("unet.down_blocks.0.attentions.0.proj_in.lora_A.weight", "loras.dir"),
        ("emb_params", "embeddings.dir"),
    ] {
        let file = Tensors::from([(name.to_owned(), Raw::floats(&[2, 2], |_| 0.0))]);
        let Err(LoadError::Checkpoint { reason, .. }) = Place::with(&file, None).open() else { panic!("{name}") };
        assert!(reason.contains(place), "{name}: {reason}");
    }
}

#[test]
fn catalogues_list_files_and_folders() {
    let Some(mut parts) = parts("sd1") else { return };
    let small = inverse::single_file(&parts);
    with_whole_vocabulary(&mut parts);
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    for name in ["one", "bad name", "both"] {
        fs::write(at(&format!("{name}.safetensors")), write(&inverse::single_file(&parts))).unwrap();
        fs::write(at(&format!("{name}.json")), tiny("sd1").to_string()).unwrap();
    }
    fs::write(at("broken.safetensors"), "none").unwrap();
    fs::write(at("little.safetensors"), write(&small)).unwrap();
    fs::write(at("little.json"), tiny("sd1").to_string()).unwrap();
    // A folder takes precedence over a file of the same name, even if the folder cannot be used.
    fs::create_dir(at("both")).unwrap();
    fs::write(at("both/model_index.json"), "{}").unwrap();
    let catalogue = Catalogue::open(place.path(), "one").unwrap();
    assert_eq!(catalogue.names(), ["bad name", "both", "both.safetensors", "broken", "emoji", "little", "one"]);
    assert!(catalogue.card("one").is_some() && catalogue.card("bad name").is_some());
    // An unusable model has a reason and cannot be loaded.
    for (name, reason) in [("both", "_class_name"), ("both.safetensors", "both"), ("broken", "4 bytes are too few")] {
        assert!(catalogue.card(name).is_none());
        let fault = catalogue.fault(name).unwrap();
        assert!(fault.contains(reason), "{name}: {fault}");
        assert_eq!(catalogue.state(name), ("failed", Some(fault)));
    }
    let numbers: usize = parts.values().flatten().map(|(_, raw)| raw.shape.iter().product::<usize>()).sum();
    assert_eq!(catalogue.bytes("one"), Some(4 * numbers as u64));
    assert_eq!(catalogue.load("one").unwrap().name, "one");
    // The embeddings are fewer than CLIP's vocabulary, so the built-in tokenizer does not fit.
    let (state, reason) = catalogue.state("little");
    assert!(state == "failed" && reason.as_ref().is_some_and(|reason| reason.contains("vocab_size")), "{reason:?}");
}

#[test]
fn single_file_control_nets_are_listed_and_loaded() {
    let root = parity().join("controlnets/canny");
    let place = tempfile::tempdir().unwrap();
    let tensors = read_at(root.join("diffusion_pytorch_model.safetensors"));
    fs::write(place.path().join("edges.safetensors"), write(&inverse::control_net(&tensors))).unwrap();
    fs::write(place.path().join("edges.json"), r#"{"controlnet": {"norm_num_groups": 4}}"#).unwrap();
    let nets = ControlNets::open(place.path()).unwrap();
    assert_eq!(nets.names().find(|(name, _)| *name == "edges"), Some(("edges", None)));
    nets.load("edges", &latentd::device::Device::host()).unwrap();
    // A ControlNet in the folder of models is listed with a fault.
    let catalogue = Catalogue::open(place.path(), "emoji").unwrap();
    assert_eq!(catalogue.names(), ["edges", "emoji"]);
    let fault = catalogue.fault("edges").unwrap();
    assert!(fault.contains("controlnets.dir"), "{fault}");
}
