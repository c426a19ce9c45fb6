//! Tests of files with whole models: a transformer with its original names, text encoders and an autoencoder.

use std::{collections::BTreeMap, fs};

use latentd::{
    device::Device,
    families::checkpoints,
    kernels::Kernels,
    models::autoencoder_kl::current_name,
    weights::{LoadError, ModelFolder, WeightSize, Weights},
};
use serde_json::json;

use crate::{
    files::{Raw, Tensors, write},
    transformers::gguf,
};

/// The tensors from which the configuration of a transformer follows: of FLUX.1, and of Stable Diffusion 3.
const TRANSFORMERS: [&[(&str, &[usize])]; 2] = [
    &[
        ("double_blocks.0.img_attn.qkv.weight", &[48, 16]),
        ("double_blocks.0.img_attn.norm.query_norm.scale", &[16]),
        ("img_in.weight", &[16, 4]),
        ("txt_in.weight", &[16, 8]),
        ("vector_in.in_layer.weight", &[16, 4]),
        ("final_layer.linear.weight", &[4, 16]),
    ],
    &[
        ("joint_blocks.0.x_block.attn.qkv.weight", &[48, 16]),
        ("x_embedder.proj.weight", &[16, 4, 2, 2]),
        ("context_embedder.weight", &[16, 8]),
        ("y_embedder.mlp.0.weight", &[16, 4]),
        ("final_layer.linear.weight", &[16, 16]),
        ("pos_embed", &[1, 16, 16]),
    ],
];

/// Tensors of other networks: the name in the file, the folder, and diffusers' name.
const CLIP: &str = "text_model.final_layer_norm.weight";
const T5: &str = "encoder.final_layer_norm.weight";
const VAE: [(&str, &[usize], &str); 5] = [
    ("encoder.down.1.block.0.conv1.weight", &[2, 3, 3, 3], "encoder.down_blocks.1.resnets.0.conv1.weight"),
    ("decoder.up.0.block.0.conv1.weight", &[2, 3, 3, 3], "decoder.up_blocks.1.resnets.0.conv1.weight"),
    ("decoder.up.1.upsample.conv.bias", &[2], "decoder.up_blocks.0.upsamplers.0.conv.bias"),
    ("decoder.mid.attn_1.q.weight", &[2, 2, 1, 1], "decoder.mid_block.attentions.0.to_q.weight"),
    ("decoder.conv_in.weight", &[2, 2, 3, 3], "decoder.conv_in.weight"),
];

#[test]
fn text_encoders_and_the_autoencoder_of_a_file_come_before_those_of_the_base() {
    compare_parts(false);
}

#[test]
fn a_gguf_file_can_have_text_encoders_and_an_autoencoder() {
    compare_parts(true);
}

fn compare_parts(as_gguf: bool) {
    let encoders = [
        &[("clip_l", "text_encoder", CLIP), ("t5xxl", "text_encoder_2", T5)][..],
        &[("clip_l", "text_encoder", CLIP), ("clip_g", "text_encoder_2", CLIP), ("t5xxl", "text_encoder_3", T5)],
    ];
    for (at, (transformer, encoders)) in TRANSFORMERS.into_iter().zip(encoders).enumerate() {
        let raw = |shape: &[usize]| Raw::floats(shape, |i| i as f32 + 0.5);
        let mut file: Tensors =
            transformer.iter().map(|(name, shape)| (format!("model.diffusion_model.{name}"), raw(shape))).collect();
        let mut expected: BTreeMap<&str, BTreeMap<String, Vec<usize>>> = BTreeMap::new();
        for (name, component, tensor) in encoders {
            file.insert(format!("text_encoders.{name}.transformer.{tensor}"), raw(&[3]));
            if !as_gguf {
                file.insert(format!("text_encoders.{name}.logit_scale"), raw(&[]));
            }
            expected.entry(component).or_default().insert((*tensor).to_owned(), vec![3]);
        }
        // CLIP's projection belongs to the network only in Stable Diffusion 3.
        let projection = "text_projection.weight";
        file.insert(format!("text_encoders.clip_l.transformer.{projection}"), raw(&[3, 3]));
        if at == 1 {
            expected.get_mut("text_encoder").unwrap().insert(projection.to_owned(), vec![3, 3]);
        }
        for (name, shape, known) in VAE {
            file.insert(format!("vae.{name}"), raw(shape));
            let shape = if shape.ends_with(&[1, 1]) { &shape[..2] } else { shape };
            expected.entry("vae").or_default().insert(known.to_owned(), shape.to_vec());
        }
        let place = tempfile::tempdir().unwrap();
        let base = place.path().join("base");
        for component in ["text_encoder", "text_encoder_2", "text_encoder_3", "vae"] {
            fs::create_dir_all(base.join(component)).unwrap();
            fs::write(base.join(component).join("config.json"), "{}").unwrap();
            for name in ["model.safetensors", "diffusion_pytorch_model.safetensors"] {
                let own = Tensors::from([("of_the_base.weight".to_owned(), raw(&[1]))]);
                fs::write(base.join(component).join(name), write(&own)).unwrap();
            }
        }
        let (path, content) = match as_gguf {
            true => (place.path().join("whole.gguf"), gguf(&file)),
            false => (place.path().join("whole.safetensors"), write(&file)),
        };
        fs::write(&path, content).unwrap();
        fs::write(path.with_extension("json"), json!({"base": "base"}).to_string()).unwrap();
        let folder = ModelFolder::single(&path, &checkpoints()).unwrap();
        for (component, tensors) in &expected {
            let stem = if *component == "vae" { "diffusion_pytorch_model" } else { "model" };
            let weights = Weights::open(&folder, component, stem, &Device::host(), current_name).unwrap();
            assert_eq!(&weights.stored(), tensors, "{component}");
            for (name, shape) in tensors {
                let values = weights.tensor(name, shape).flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert!(values.iter().enumerate().all(|(i, value)| *value == i as f32 + 0.5), "{component}: {name}");
            }
            weights.finish().unwrap();
            let numbers: usize = tensors.values().map(|shape| shape.iter().product::<usize>()).sum();
            let size = WeightSize::read(&folder, component, stem).unwrap();
            let bytes = size.bytes(latentd::device::Precision::F32, Kernels::REFERENCE);
            assert_eq!(bytes, 4 * numbers as u64, "{component}");
            assert!(folder.has(&format!("{component}/config.json")));
        }
        // A network that the file lacks comes from the base.
        if at == 0 {
            let weights = Weights::open(&folder, "text_encoder_3", "model", &Device::host(), current_name).unwrap();
            assert_eq!(weights.stored().into_keys().collect::<Vec<_>>(), ["of_the_base.weight"]);
        }
        let numbers: usize = transformer.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        let size = WeightSize::read(&folder, "transformer", "diffusion_pytorch_model").unwrap();
        assert_eq!(size.bytes(latentd::device::Precision::F32, Kernels::REFERENCE), 4 * numbers as u64);
    }
}

/// A file with FLUX.1's transformer and further tensors, beside an empty folder `base`.
fn flux_with(more: &[&str]) -> (tempfile::TempDir, Result<ModelFolder, LoadError>) {
    let raw = |shape: &[usize]| Raw::floats(shape, |i| i as f32);
    let own = TRANSFORMERS[0].iter().map(|(name, shape)| (format!("model.diffusion_model.{name}"), raw(shape)));
    let file: Tensors = own.chain(more.iter().map(|name| ((*name).to_owned(), raw(&[2, 3, 3, 3])))).collect();
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("base")).unwrap();
    let path = place.path().join("whole.safetensors");
    fs::write(&path, write(&file)).unwrap();
    fs::write(path.with_extension("json"), json!({"base": "base"}).to_string()).unwrap();
    let folder = ModelFolder::single(&path, &checkpoints());
    (place, folder)
}

#[test]
fn tensors_that_belong_to_no_network_of_the_file_are_noted() {
    assert!(flux_with(&[]).1.unwrap().notes().is_empty());
    let strays = ["text_encoders.clip_l.text_model.a.weight", "text_encoders.gemma.weight"];
    let notes = flux_with(&strays).1.unwrap().notes();
    assert_eq!(notes, [format!("2 tensors that belong to no network are ignored: {}, {}", strays[0], strays[1])]);
}

#[test]
fn networks_and_tensors_that_occur_twice_are_errors() {
    let conv = "decoder.up.0.block.0.conv1.weight";
    let both = [format!("vae.{conv}"), format!("first_stage_model.{conv}")];
    let error = flux_with(&both.each_ref().map(String::as_str)).1.unwrap_err().to_string();
    assert!(error.contains("two networks for vae: vae.… and first_stage_model.…"), "{error}");

    let twice = ["vae.decoder.up.0.block.0.conv1.weight", "vae.decoder.up.00.block.0.conv1.weight"];
    let (_place, folder) = flux_with(&twice);
    let opened = Weights::open(&folder.unwrap(), "vae", "diffusion_pytorch_model", &Device::host(), current_name);
    let error = opened.unwrap_err().to_string();
    assert!(error.contains("occurs twice"), "{error}");
}

/// Users know the file and `NAME.json`, and not the files of the folder that the file stands for.
#[test]
fn errors_name_the_file_and_not_the_folder_that_it_stands_for() {
    let (place, folder) = flux_with(&["vae.strange.weight"]);
    let folder = folder.unwrap();
    let opened = Weights::open(&folder, "vae", "diffusion_pytorch_model", &Device::host(), current_name);
    let file = place.path().join("whole.safetensors");
    let told = folder.told(&opened.unwrap_err());
    assert!(told.starts_with(&file.display().to_string()) && told.contains("vae.strange.weight"), "{told}");
    let told = folder.told(&"transformer/config.json: num_layers: must be at least 1");
    assert_eq!(
        told,
        format!("{}, \"transformer\": num_layers: must be at least 1", file.with_extension("json").display())
    );
}
