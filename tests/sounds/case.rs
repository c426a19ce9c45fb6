//! Cases of the parity fixtures for sounds: converts their `request.json` to requests of the native API.

#![allow(dead_code, reason = "each test target uses its part")]

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use candle_core::Tensor;
use serde_json::{Map, Value, json};

/// The models of the cases, which are also the folders of the cases.
pub const MODELS: [&str; 2] = ["audioldm", "stable-audio-3"];

/// One case of the fixtures.
pub struct SoundCase {
    /// MODEL/CASE
    pub name: String,
    model: &'static str,
    folder: PathBuf,
    json: Value,
}

/// The complete fixtures; `None` if `LATENTD_PARITY_DIR` does not name them. The compact part has no sounds.
pub fn complete() -> Option<PathBuf> {
    let root = std::env::var_os("LATENTD_PARITY_DIR").map(PathBuf::from);
    if root.is_none() {
        println!("no cases of {MODELS:?}: LATENTD_PARITY_DIR does not name the complete fixtures");
    }
    root
}

impl SoundCase {
    /// Every case, in the order of their names.
    pub fn all(root: &Path) -> Vec<SoundCase> {
        MODELS.into_iter().flat_map(|model| SoundCase::of(root, model)).collect()
    }

    fn of(root: &Path, model: &'static str) -> Vec<SoundCase> {
        let folders = fs::read_dir(root.join("cases").join(model)).unwrap();
        let mut folders: Vec<PathBuf> = folders.map(|entry| entry.unwrap().path()).collect();
        folders.sort();
        let case = |folder: PathBuf| SoundCase {
            name: format!("{model}/{}", folder.file_name().unwrap().to_str().unwrap()),
            model,
            json: serde_json::from_slice(&fs::read(folder.join("request.json")).unwrap()).unwrap(),
            folder,
        };
        folders.into_iter().map(case).collect()
    }

    /// The fields of the request.
    pub fn body(&self) -> Map<String, Value> {
        let mut fields = Map::from_iter([("model".to_owned(), json!(self.model))]);
        for (name, value) in self.json["params"].as_object().unwrap() {
            let name = match name.as_str() {
                "audio_length_in_s" | "duration" => "seconds",
                "silence_padding_duration" => "padding_seconds",
                "num_inference_steps" => "steps",
                "num_waveforms_per_prompt" => "n",
                "eta" | "guidance_scale" | "logsnr_max" | "logsnr_min" | "negative_prompt" | "prompt" | "seed" => name,
                other => panic!("{}: {other} is not known", self.name),
            };
            fields.insert(name.to_owned(), value.clone());
        }
        if let Some(scheduler) = self.json.get("scheduler") {
            fields.insert("scheduler".to_owned(), scheduler.clone());
        }
        // All waveforms of a case share a generator.
        fields.insert("seed_mode".to_owned(), "batch".into());
        fields
    }

    /// The waveforms of diffusers. The samples of the channels alternate.
    pub fn goldens(&self) -> Vec<Vec<f32>> {
        let audio = self.tensors("golden.safetensors")["audio"].clone(); // (B, N) or (B, channels, N)
        let audio = if audio.rank() == 3 { audio.transpose(1, 2).unwrap().flatten_from(1).unwrap() } else { audio };
        audio.to_vec2().unwrap()
    }

    pub fn intermediate(&self, name: &str) -> Tensor {
        self.tensors("intermediates.safetensors")[name].clone()
    }

    fn tensors(&self, file: &str) -> HashMap<String, Tensor> {
        candle_core::safetensors::load(self.folder.join(file), &candle_core::Device::Cpu).unwrap()
    }

    /// Checks that the samples differ by at most 1e-3 of the largest sample from diffusers' samples. Returns the
    /// largest difference as a share of the largest sample.
    pub fn compare(&self, sounds: &[Vec<f32>]) -> f32 {
        let goldens = self.goldens();
        assert_eq!(sounds.len(), goldens.len(), "{}", self.name);
        let mut largest = 0.0f32;
        for (sound, golden) in sounds.iter().zip(&goldens) {
            assert_eq!(sound.len(), golden.len(), "{}: samples", self.name);
            let peak = golden.iter().fold(0.0f32, |peak, sample| peak.max(sample.abs()));
            let error = sound.iter().zip(golden).fold(0.0f32, |error, (made, golden)| error.max((made - golden).abs()));
            largest = largest.max(error / peak);
        }
        assert!(largest <= 1e-3, "{}: {largest:e} of the largest sample", self.name);
        largest
    }
}
