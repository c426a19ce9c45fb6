//! Fixtures on disk, copies of them that tests change, and comparisons of tensors.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use candle_core::{Device, Tensor};
use latentd::{
    models::{
        AutoencoderKl, StableDiffusion,
        autoencoder_kl::{AutoencoderKlConfig, current_name},
        control_net::Residuals,
        pause::ToEnd,
        text_encoders::{LearnedTokens, Tokens},
        unet2d_condition::Conditions,
    },
    weights::{LoadError, ModelFolder, Weights},
};
use serde_json::Value;

pub fn parity() -> PathBuf {
    std::env::var_os("LATENTD_PARITY_DIR")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity"))
}

pub fn prompts() -> Vec<String> {
    serde_json::from_slice(&fs::read(parity().join("components/prompts.json")).unwrap()).unwrap()
}

pub fn tensors(path: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

/// Opens a pipeline of the fixtures. Its files may be links to files of other pipelines in the same folder.
pub fn pipeline_folder(root: &Path) -> Result<ModelFolder, LoadError> {
    ModelFolder::open_within(root, root.parent().as_slice())
}

pub fn load(root: &Path) -> Result<StableDiffusion, LoadError> {
    StableDiffusion::load(&pipeline_folder(root)?, &latentd::device::Device::host())
}

pub fn vae(pipeline: &str) -> AutoencoderKl {
    let folder = pipeline_folder(&parity().join("pipelines").join(pipeline)).unwrap();
    let config = AutoencoderKlConfig::read("vae/config.json", &folder.json("vae/config.json").unwrap()).unwrap();
    let weights =
        Weights::open(&folder, "vae", "diffusion_pytorch_model", &latentd::device::Device::host(), current_name)
            .unwrap();
    let vae = AutoencoderKl::new(&config, &weights);
    weights.finish().unwrap();
    vae
}

/// Checks that the largest difference is less than 1e-4 of the largest golden value.
pub fn assert_close(made: &Tensor, golden: &Tensor, what: &str) {
    assert_eq!(made.dims(), golden.dims(), "{what}");
    let largest = |x: &Tensor| x.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    let error = largest(&(made - golden).unwrap()) / largest(golden);
    println!("{what}: {error:.1e}");
    assert!(error < 1e-4, "{what}: {error:e}");
}

pub fn bits(x: &Tensor) -> Vec<u32> {
    x.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|x| x.to_bits()).collect()
}

/// Numbers in [-1.7, 1.7] that are the same in every run (Knuth's MMIX generator).
pub fn noise(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1 << 24) as f32 - 0.5) * 3.4
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

pub fn tokens(sd: &StableDiffusion, prompt: &str) -> Tokens {
    sd.tokenize(&[prompt], &LearnedTokens::default())
}

/// The ids of a prompt for the first text encoder.
pub fn ids_of(sd: &StableDiffusion, prompt: &str) -> Vec<u32> {
    tokens(sd, prompt).ids.remove(0)
}

/// The outputs of a model for fixed inputs, as bits: text encoding, denoising and decoding.
pub fn outputs(sd: &StableDiffusion) -> Vec<Vec<u32>> {
    let context = sd.encode_text(&[tokens(sd, "a red fox")], 0).to_end().unwrap().hidden;
    let latents = noise(&[1, 4, 8, 8], 3);
    let predicted = sd.denoise(&latents, &Conditions::plain(&[500.5], &context), Residuals::NONE).to_end().unwrap();
    [context, predicted, sd.decode(&latents).to_end().unwrap()].iter().map(bits).collect()
}

/// All files in a folder and its subfolders.
pub fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// A copy of a pipeline that a test may change.
pub struct Copy(pub tempfile::TempDir);

impl Copy {
    pub fn of(pipeline: &str) -> Self {
        let copy = Self(tempfile::tempdir().unwrap());
        let root = parity().join("pipelines").join(pipeline);
        for file in walk(&root) {
            let to = copy.0.path().join(file.strip_prefix(&root).unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::write(to, fs::read(file).unwrap()).unwrap();
        }
        copy
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    pub fn load(&self) -> Result<StableDiffusion, LoadError> {
        load(self.0.path())
    }

    pub fn outputs(&self) -> Vec<Vec<u32>> {
        outputs(&self.load().unwrap())
    }

    pub fn edit(&self, file: &str, edit: impl FnOnce(&mut Value)) {
        let mut json = serde_json::from_slice(&fs::read(self.path(file)).unwrap()).unwrap();
        edit(&mut json);
        fs::write(self.path(file), json.to_string()).unwrap();
    }

    pub fn edit_tensors(&self, file: &str, edit: impl FnOnce(&mut HashMap<String, Tensor>)) {
        let mut edited = tensors(&self.path(file));
        edit(&mut edited);
        candle_core::safetensors::save(&edited, self.path(file)).unwrap();
    }
}

/// A copy of sd1 with the tiny autoencoder of the fixtures.
pub fn with_tiny_decoder() -> Copy {
    let copy = Copy::of("sd1");
    fs::create_dir(copy.path("vae_tiny")).unwrap();
    for file in walk(&parity().join("vaes/taesd")) {
        let to = copy.path("vae_tiny").join(file.file_name().unwrap());
        fs::write(to, fs::read(file).unwrap()).unwrap();
    }
    copy
}
