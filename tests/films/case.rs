//! Cases of the parity fixtures for films: converts their `request.json` to jobs.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use candle_core::Tensor;
use latentd::{
    generation::{Film, InputImage, ModelCard, SchedulerChoice, SeedMode},
    imaging::{RgbImage, decode},
};
use serde_json::{Map, Value, json};

/// One case of the fixtures.
pub struct FilmCase {
    pub name: String,
    root: PathBuf,
    folder: PathBuf,
    json: Value,
}

/// The numbers of a tensor.
pub fn floats(x: &Tensor) -> Vec<f32> {
    x.to_dtype(candle_core::DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The complete fixtures; `None` if `LATENTD_PARITY_DIR` does not name them. The compact part has no films.
pub fn complete() -> Option<PathBuf> {
    let root = std::env::var_os("LATENTD_PARITY_DIR").map(PathBuf::from);
    if root.is_none() {
        println!("no cases of films: LATENTD_PARITY_DIR does not name the complete fixtures");
    }
    root
}

impl FilmCase {
    /// Every case of a model, in the order of their names.
    pub fn all(root: &Path, model: &str) -> Vec<FilmCase> {
        let folders = fs::read_dir(root.join("cases").join(model)).unwrap();
        let mut folders: Vec<PathBuf> = folders.map(|entry| entry.unwrap().path()).collect();
        folders.sort();
        let case = |folder: PathBuf| FilmCase {
            name: format!("{model}/{}", folder.file_name().unwrap().to_str().unwrap()),
            root: root.to_owned(),
            json: serde_json::from_slice(&fs::read(folder.join("request.json")).unwrap()).unwrap(),
            folder,
        };
        folders.into_iter().map(case).collect()
    }

    /// The film of the case, with the defaults of the model for everything else, and its picture, if it has one.
    pub fn film(&self, card: &ModelCard) -> (Film, Option<RgbImage>) {
        let mut film = default_film(card);
        let mut picture = None;
        for (name, value) in self.json["params"].as_object().unwrap() {
            let whole = || value.as_u64().unwrap() as u32;
            let number = || value.as_f64().unwrap();
            let text = || value.as_str().unwrap().to_owned();
            let motion = || panic!("{}: a model with settings of the motion", self.name);
            match name.as_str() {
                "prompt" => film.prompt = text(),
                "negative_prompt" => film.negative_prompt = text(),
                "decode_chunk_size" => film.decode_chunk_size = Some(whole()),
                "fps" => film.fps = whole(),
                "height" => film.height = whole(),
                "width" => film.width = whole(),
                "num_frames" => film.frames = whole(),
                "num_inference_steps" => film.steps = whole(),
                "min_guidance_scale" => film.motion.as_mut().unwrap_or_else(motion).min_guidance_scale = number(),
                "max_guidance_scale" | "guidance_scale" => film.guidance_scale = number(),
                "guidance_scale_2" => film.guidance_scale_2 = Some(number()),
                "max_sequence_length" => film.max_sequence_length = Some(whole()),
                "motion_bucket_id" => film.motion.as_mut().unwrap_or_else(motion).motion_bucket_id = whole(),
                "noise_aug_strength" => film.motion.as_mut().unwrap_or_else(motion).noise_aug_strength = number(),
                "seed" => film.seed = value.as_u64().unwrap(),
                "image" => picture = Some(self.root.join(value["file"].as_str().unwrap())),
                other => panic!("{}: {other} is not known", self.name),
            }
        }
        if let Some(scheduler) = self.json.get("scheduler") {
            film.scheduler = SchedulerChoice::Object(scheduler.as_object().unwrap().clone());
        }
        let picture = picture.map(|picture| decode(&fs::read(picture).unwrap(), 255).unwrap());
        film.image = picture.as_ref().map(stored);
        // All films of a case share a generator.
        film.seed_mode = SeedMode::Batch;
        (film, picture)
    }

    /// The request of the native API for the film of the case.
    pub fn body(&self, model: &str) -> Value {
        let mut fields = Map::from_iter([("model".to_owned(), json!(model)), ("seed_mode".to_owned(), json!("batch"))]);
        for (name, value) in self.json["params"].as_object().unwrap() {
            let name = match name.as_str() {
                "num_frames" => "frames",
                "num_inference_steps" => "steps",
                "max_guidance_scale" => "guidance_scale",
                name => name,
            };
            let value = match name {
                "image" => {
                    let file = fs::read(self.root.join(value["file"].as_str().unwrap())).unwrap();
                    json!(STANDARD.encode(file))
                }
                _ => value.clone(),
            };
            fields.insert(name.to_owned(), value);
        }
        if let Some(scheduler) = self.json.get("scheduler") {
            fields.insert("scheduler".to_owned(), scheduler.clone());
        }
        Value::Object(fields)
    }

    /// The task of the case, such as `text-to-video`.
    pub fn task(&self) -> &str {
        self.json["task"].as_str().unwrap()
    }

    /// The keys of `model_index.json` that the case changes.
    pub fn index(&self) -> Option<&Map<String, Value>> {
        self.json.get("from_pretrained_args").map(|keys| keys.as_object().unwrap())
    }

    /// The frames of diffusers.
    pub fn goldens(&self) -> Vec<RgbImage> {
        let outputs = self.json["outputs"].as_array().unwrap().iter();
        outputs.map(|name| decode(&fs::read(self.folder.join(name.as_str().unwrap())).unwrap(), 255).unwrap()).collect()
    }

    pub fn intermediates(&self) -> HashMap<String, Tensor> {
        let file = self.folder.join("intermediates.safetensors");
        candle_core::safetensors::load(file, &candle_core::Device::Cpu).unwrap()
    }

    /// Checks that numbers differ from diffusers' numbers by at most `bound`, in relation to the largest number if that
    /// is above 1.
    pub fn assert_close(&self, name: &str, made: &[f32], expected: &Tensor, bound: f32) {
        let expected = floats(expected);
        assert_eq!(made.len(), expected.len(), "{}: {name}", self.name);
        let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let error = made.iter().zip(&expected).fold(0.0f32, |error, (made, value)| error.max((made - value).abs()));
        println!("{}: {name} differs by {error:.1e}, of at most {largest:.1e}", self.name);
        assert!(error <= bound * largest.max(1.0), "{}: {name} differs by {error:e}", self.name);
    }

    /// Checks that the levels differ by at most 2 from diffusers' levels, and by less than 0.1 on average. Returns the
    /// largest difference.
    pub fn compare(&self, frames: &[RgbImage]) -> u8 {
        let goldens = self.goldens();
        assert_eq!(frames.len(), goldens.len(), "{}", self.name);
        let (mut largest, mut sum, mut count) = (0, 0, 0);
        for (frame, golden) in frames.iter().zip(&goldens) {
            assert_eq!((frame.width, frame.height), (golden.width, golden.height), "{}", self.name);
            for (made, golden) in frame.pixels.iter().zip(&golden.pixels) {
                largest = largest.max(made.abs_diff(*golden));
                sum += u64::from(made.abs_diff(*golden));
                count += 1;
            }
        }
        assert!(largest <= 2, "{}: {largest} levels", self.name);
        assert!(
            (sum as f64) < 0.1 * f64::from(count),
            "{}: {} levels on average",
            self.name,
            sum as f64 / f64::from(count)
        );
        largest
    }
}

/// A film with the defaults of the model, without a picture.
pub fn default_film(card: &ModelCard) -> Film {
    let of_films = card.film.unwrap();
    Film {
        prompt: String::new(),
        negative_prompt: String::new(),
        loras: Vec::new(),
        motion_adapter: card.default_motion_adapter.clone(),
        image: None,
        frames: of_films.default_frames,
        fps: of_films.default_fps,
        width: card.default_width,
        height: card.default_height,
        n: 1,
        steps: card.default_steps,
        guidance_scale: card.default_guidance_scale,
        guidance_scale_2: of_films.has_second_guidance.then_some(card.default_guidance_scale),
        motion: of_films.motion,
        decode_chunk_size: None,
        max_sequence_length: card.sequence_lengths.map(|(usual, _)| usual),
        scheduler: SchedulerChoice::Object(Default::default()),
        seed: 5,
        seed_mode: SeedMode::PerImage,
    }
}

/// The picture as a request names it.
pub fn stored(picture: &RgbImage) -> InputImage {
    InputImage { upload: String::new(), width: picture.width, height: picture.height }
}
