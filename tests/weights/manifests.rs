//! Tests with the tensor names and shapes of published models in full size. The files are sparse and contain zeros.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use latentd::{
    families::checkpoints,
    weights::{ModelFolder, Weights},
};
use safetensors::Dtype;
use serde_json::{Map, Value, json};

use crate::{
    files::{Raw, Tensors, parity},
    inverse,
};

pub struct Manifest {
    pub config: Map<String, Value>,
    pub tensors: BTreeMap<String, Vec<usize>>,
}

impl Manifest {
    pub fn read(name: &str) -> Self {
        let file = fs::File::open(parity().join(format!("manifests/{name}.json.gz"))).unwrap();
        let mut text = String::new();
        GzDecoder::new(file).read_to_string(&mut text).unwrap();
        let manifest: Value = serde_json::from_str(&text).unwrap();
        Self {
            config: manifest["config"].as_object().unwrap().clone(),
            tensors: serde_json::from_value(manifest["tensors"].clone()).unwrap(),
        }
    }

    /// The tensors without bytes.
    pub fn hollow(&self) -> Tensors {
        let hollow = |shape: &Vec<usize>| Raw { dtype: Dtype::F16, shape: shape.clone(), bytes: vec![] };
        self.tensors.iter().map(|(name, shape)| (name.clone(), hollow(shape))).collect()
    }
}

/// Writes a sparse file with these tensors. Only the header takes space on disk.
pub fn write_hollow(folder: &Path, tensors: &Tensors) -> PathBuf {
    let mut header = Map::new();
    let mut end = 0;
    for (name, raw) in tensors {
        let (size, dtype) = if raw.dtype == Dtype::F32 { (4, "F32") } else { (2, "F16") };
        let length = raw.shape.iter().product::<usize>() * size;
        header.insert(name.clone(), json!({"dtype": dtype, "shape": raw.shape, "data_offsets": [end, end + length]}));
        end += length;
    }
    let header = Value::Object(header).to_string();
    let path = folder.join("model.safetensors");
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
    path
}

/// Whether a derived configuration equals the published one. A list equals a number if all its elements do.
fn same(made: &Value, published: &Value) -> bool {
    let number = |value: &Value| value.as_f64();
    match (made, published) {
        (Value::Array(made), Value::Array(published)) => {
            made.len() == published.len() && made.iter().zip(published).all(|(made, published)| same(made, published))
        }
        (Value::Array(made), one) => made.iter().all(|made| same(made, one)),
        (made, published) => made == published || (number(made).is_some() && number(made) == number(published)),
    }
}

/// Whether the values differ only for blocks without attention, whose number of transformer layers has no effect.
fn without_attention(key: &str, made: &Value, published: &Value) -> bool {
    let or_one = |made: &Value| made == 1 || made == published;
    key == "transformer_layers_per_block" && made.as_array().is_some_and(|made| made.iter().all(or_one))
}

/// Whether a value of a published file has no effect or is the default of the class.
fn is_default(key: &str, value: &Value) -> bool {
    let defaults = json!({
        "act_fn": "silu", "center_input_sample": false, "downsample_padding": 1, "flip_sin_to_cos": true, "freq_shift": 0,
        "mid_block_scale_factor": 1, "norm_eps": 1e-5, "norm_num_groups": 32, "layer_norm_eps": 1e-5,
        "force_upcast": true, "upcast_attention": true,
    });
    // A text encoder without a projection has a projection width too.
    key == "projection_dim" || key.starts_with('_') || defaults.get(key).is_some_and(|default| same(default, value))
}

#[test]
fn every_published_model_is_read_from_one_file() {
    let sd1 = |unet| vec![("unet", unet), ("vae", "sd15--vae"), ("text_encoder", "sd15--text_encoder")];
    let xl = |unet| {
        let mut parts = vec![("unet", unet), ("vae", "sdxl-base--vae"), ("text_encoder", "sdxl-base--text_encoder")];
        parts.push(("text_encoder_2", "sdxl-base--text_encoder_2"));
        parts
    };
    for (parts, class, prediction) in [
        (sd1("sd15--unet"), "StableDiffusionPipeline", "epsilon"),
        (sd1("sd15-inpainting--unet"), "StableDiffusionInpaintPipeline", "epsilon"),
        (sd1("instruct-pix2pix--unet"), "StableDiffusionInstructPix2PixPipeline", "epsilon"),
        (sd1("lcm-dreamshaper--unet"), "LatentConsistencyModelPipeline", "epsilon"),
        (
            vec![("unet", "sd21--unet"), ("vae", "sd21--vae"), ("text_encoder", "sd21--text_encoder")],
            "StableDiffusionPipeline",
            "v_prediction",
        ),
        (xl("sdxl-base--unet"), "StableDiffusionXLPipeline", "epsilon"),
        (xl("sdxl-inpainting--unet"), "StableDiffusionXLInpaintPipeline", "epsilon"),
        (
            vec![
                ("unet", "sdxl-refiner--unet"),
                ("vae", "sdxl-base--vae"),
                ("text_encoder_2", "sdxl-base--text_encoder_2"),
            ],
            "StableDiffusionXLImg2ImgPipeline",
            "epsilon",
        ),
    ] {
        let what = parts[0].1;
        let manifests: BTreeMap<&str, Manifest> =
            parts.iter().map(|(component, name)| (*component, Manifest::read(name))).collect();
        let hollow = manifests.iter().map(|(component, manifest)| (*component, manifest.hollow())).collect();
        let mut tensors = inverse::single_file(&hollow);
        for left in LEFT {
            tensors.insert(left.to_owned(), Raw { dtype: Dtype::F32, shape: vec![1000], bytes: vec![] });
        }
        if what == "sd21--unet" {
            // OpenCLIP has one layer more than Stable Diffusion 2 reads, and a projection.
            let layer: Vec<_> = tensors
                .iter()
                .filter(|(name, _)| name.contains("resblocks.22."))
                .map(|(n, r)| (n.clone(), r.clone()))
                .collect();
            tensors.extend(layer.into_iter().map(|(name, raw)| (name.replace("blocks.22.", "blocks.23."), raw)));
            let projection = Raw { dtype: Dtype::F16, shape: vec![1024, 1024], bytes: vec![] };
            tensors.insert("cond_stage_model.model.text_projection".into(), projection);
        }
        let place = tempfile::tempdir().unwrap();
        let folder = ModelFolder::single(&write_hollow(place.path(), &tensors), &checkpoints())
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        for (component, manifest) in &manifests {
            check(&folder, component, &format!("{component}/config.json"), manifest, what);
        }
        let index = folder.json("model_index.json").unwrap();
        assert_eq!(index["_class_name"], class, "{what}");
        let scheduler = folder.json("scheduler/scheduler_config.json").unwrap();
        assert_eq!(scheduler["prediction_type"], prediction, "{what}");
        assert_eq!(
            folder.names("tokenizer").unwrap().len(),
            if manifests.contains_key("text_encoder") { 3 } else { 0 }
        );
        assert_eq!(
            folder.names("tokenizer_2").unwrap().len(),
            if manifests.contains_key("text_encoder_2") { 3 } else { 0 }
        );
    }
}

/// Tensors of published files that are not read.
const LEFT: [&str; 6] = [
    "alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "model_ema.decay",
    "posterior_mean_coef1",
    "cond_stage_model.transformer.text_model.embeddings.position_ids",
    "denoiser.sigmas",
];

#[test]
fn every_published_control_net_is_read_from_one_file() {
    for name in ["sd15-controlnet--controlnet", "sdxl-controlnet--controlnet"] {
        let manifest = Manifest::read(name);
        let hollow = manifest.hollow();
        let own = inverse::control_net(&hollow);
        let bare = own.iter().map(|(name, raw)| (name.replace("control_model.", ""), raw.clone())).collect();
        for tensors in [own, bare, hollow] {
            let place = tempfile::tempdir().unwrap();
            let folder = ModelFolder::single(&write_hollow(place.path(), &tensors), &checkpoints()).unwrap();
            check(&folder, "controlnet", "config.json", &manifest, name);
            assert!(!folder.has("model_index.json"));
        }
    }
}

/// Checks that the shapes and the configuration of a component equal the manifest's.
fn check(folder: &ModelFolder, component: &str, config: &str, manifest: &Manifest, what: &str) {
    let same_name = |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec());
    let weights = Weights::open(folder, component, "any", &latentd::device::Device::host(), same_name).unwrap();
    assert!(weights.stored() == manifest.tensors, "{what} {component}");
    let made = folder.json(config).unwrap();
    for (key, value) in &manifest.config {
        match made.get(key) {
            Some(made) => {
                assert!(
                    key.starts_with('_') || same(made, value) || without_attention(key, made, value),
                    "{what} {component} {key}: {made} is not {value}"
                )
            }
            None => assert!(is_default(key, value), "{what} {component} {key}: missing, should be {value}"),
        }
    }
}
