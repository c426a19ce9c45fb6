//! A fixture's `request.json` as a request of the native API.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use latentd::imaging::RgbImage;
use serde_json::{Map, Value, json};

pub struct Case {
    pub name: String,
    root: PathBuf,
    folder: PathBuf,
    json: Value,
}

/// What this version draws.
const TASKS: [&str; 4] = ["txt2img", "img2img", "inpaint", "instruct-pix2pix"];

/// A folder of the models that cases are run on: copies of the pipelines, with the tiny autoencoder that some cases ask for
/// in every one whose latents it was made for.
pub fn models(root: &Path, pipelines: &[&str]) -> tempfile::TempDir {
    let models = tempfile::tempdir().unwrap();
    for pipeline in pipelines {
        copy(&root.join("pipelines").join(pipeline), &models.path().join(pipeline));
        // Some fixtures are smaller than anybody would want a picture.
        fs::write(models.path().join(pipeline).join("latentd.json"), r#"{"min_size": 8}"#).unwrap();
    }
    copy(&root.join(TINY), &models.path().join("sd1/vae_tiny"));
    models
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => fs::write(to, fs::read(entry.path()).unwrap()).unwrap(),
        }
    }
}

/// Where the fixtures' tiny autoencoder is.
const TINY: &str = "vaes/taesd";

/// The scheduler classes that this version samples with.
const CLASSES: [&str; 19] = [
    "PNDMScheduler",
    "DDIMScheduler",
    "DDPMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "LMSDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "LCMScheduler",
    "TCDScheduler",
    "DPMSolverSDEScheduler",
    "SASolverScheduler",
    "IPNDMScheduler",
    "EDMEulerScheduler",
];

impl Case {
    /// Every case of the pipelines, in the order of their names.
    pub fn all(root: &Path, pipelines: &[&str]) -> Vec<Case> {
        let mut cases = Vec::new();
        for pipeline in pipelines {
            let mut folders: Vec<PathBuf> = fs::read_dir(root.join("cases").join(pipeline))
                .expect("the fixtures have a folder of cases")
                .map(|entry| entry.unwrap().path())
                .collect();
            folders.sort();
            for folder in folders {
                let json: Value = serde_json::from_slice(&fs::read(folder.join("request.json")).unwrap()).unwrap();
                let name = json["case"].as_str().unwrap().to_owned();
                cases.push(Case { name, root: root.to_owned(), folder, json });
            }
        }
        cases
    }

    /// The feature that is not built yet and that the case needs. Whatever is not named here must run and pass.
    pub fn waits_for(&self) -> Option<String> {
        let scheduler = &self.json["scheduler"];
        let params = &self.json["params"];
        let set = |value: &Value| !value.is_null() && *value != json!(false);
        if !TASKS.contains(&self.json["task"].as_str().unwrap()) {
            return Some(self.json["task"].as_str().unwrap().to_owned());
        }
        for part in ["loras", "controlnets", "textual_inversions", "stages"] {
            if set(&self.json[part]) && self.json[part] != json!([]) {
                return Some(part.to_owned());
            }
        }
        if set(&self.json["vae"]) && self.json["vae"] != json!({"_class_name": "AutoencoderTiny", "path": TINY}) {
            return Some("another autoencoder".to_owned());
        }
        if params["prompt"].is_array() {
            return Some("several prompts in one request".to_owned());
        }
        if let Some(class) = scheduler["_class_name"].as_str().filter(|class| !CLASSES.contains(class)) {
            return Some(class.to_owned());
        }
        None
    }

    /// What a client would post.
    pub fn body(&self) -> Map<String, Value> {
        let mut body = self.fields();
        for (theirs, ours) in [("image", "image"), ("mask_image", "mask")] {
            if let Some(file) = self.json["params"][theirs]["file"].as_str() {
                let file = fs::read(self.root.join(file)).unwrap();
                body.insert(ours.to_owned(), json!({"b64": STANDARD.encode(file)}));
            }
        }
        body
    }

    fn fields(&self) -> Map<String, Value> {
        let params = &self.json["params"];
        let mut request = Map::new();
        request.insert("model".to_owned(), self.json["pipeline"].clone());
        for (theirs, ours) in [
            ("prompt", "prompt"),
            ("negative_prompt", "negative_prompt"),
            ("width", "width"),
            ("height", "height"),
            ("num_inference_steps", "steps"),
            ("sigmas", "sigmas"),
            ("timesteps", "timesteps"),
            ("guidance_scale", "guidance_scale"),
            ("guidance_rescale", "guidance_rescale"),
            ("num_images_per_prompt", "n"),
            ("eta", "eta"),
            ("clip_skip", "clip_skip"),
            ("strength", "strength"),
            ("image_guidance_scale", "image_guidance_scale"),
            ("padding_mask_crop", "padding_mask_crop"),
            ("seed", "seed"),
        ] {
            if let Some(value) = params.get(theirs) {
                request.insert(ours.to_owned(), value.clone());
            }
        }
        // Without a size diffusers takes that of the picture, or the model's for a mask; this server has reasons of its own.
        let size = self.json["size"].as_array().unwrap();
        request.insert("width".to_owned(), size[0].clone());
        request.insert("height".to_owned(), size[1].clone());
        if params.get("mask_image").is_some() {
            request.insert("keep_unmasked".to_owned(), false.into());
        }
        // Several images from one seed are one generator's draws for the whole batch; a list of seeds is a list of
        // generators, and the fixtures' lists count up by one.
        let mode = match params.get("seeds").and_then(Value::as_array) {
            Some(seeds) => {
                let seeds: Vec<u64> = seeds.iter().map(|seed| seed.as_u64().unwrap()).collect();
                assert!(seeds.windows(2).all(|pair| pair[1] == pair[0] + 1), "{}", self.name);
                request.insert("seed".to_owned(), seeds[0].into());
                "per_image"
            }
            None => "batch",
        };
        request.insert("seed_mode".to_owned(), mode.into());
        if !self.json["vae"].is_null() {
            request.insert("decoder".to_owned(), "tiny".into());
        }
        if let Some(scheduler) = self.json.get("scheduler").filter(|scheduler| !scheduler.is_null()) {
            request.insert("scheduler".to_owned(), scheduler.clone());
        }
        request
    }

    pub fn goldens(&self) -> Vec<RgbImage> {
        let names = self.json["outputs"].as_array().unwrap();
        names.iter().map(|name| read_png(&self.folder.join(name.as_str().unwrap()))).collect()
    }
}

fn read_png(path: &Path) -> RgbImage {
    let decoder = png::Decoder::new(std::io::BufReader::new(fs::File::open(path).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!(info.color_type, png::ColorType::Rgb);
    pixels.truncate(info.buffer_size());
    RgbImage { width: info.width, height: info.height, pixels }
}
