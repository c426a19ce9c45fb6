//! Cases of the parity fixtures: converts their `request.json` to requests of the native API.

#![allow(dead_code, reason = "each test target uses its part")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use latentd::imaging::RgbImage;
use serde_json::{Map, Value, json};

/// One case of the fixtures, or one prompt of a case with several prompts.
pub struct Case {
    pub name: String,
    root: PathBuf,
    folder: PathBuf,
    json: Value,
    /// The index of the prompt, if several prompts share a generator. The request then draws as many images.
    of_prompts: Option<usize>,
}

/// The folders of the cases.
pub const FOLDERS: [&str; 29] = [
    "sd1",
    "sd2",
    "sd1-inpaint",
    "ip2p",
    "sdxl",
    "sdxl-turbo",
    "sdxl-refiner",
    "lcm",
    "controlnet",
    "controlnet-sdxl",
    "lora",
    "ddpm",
    "ldm-uncond",
    "consistency",
    "dit",
    "classifier-guidance",
    "score-sde-ve",
    "flux-dev",
    "flux-schnell",
    "flux-extra",
    "flux-lora",
    "flux-gguf",
    "pixart-alpha",
    "pixart-sigma",
    "z-image",
    "flux2-klein",
    "dreamlite",
    "sd3",
    "sd35",
];

/// The tasks that this version supports.
const TASKS: [&str; 12] = [
    "edit",
    "txt2img",
    "img2img",
    "inpaint",
    "instruct-pix2pix",
    "controlnet",
    "controlnet-img2img",
    "controlnet-inpaint",
    "base+refiner",
    "unconditional",
    "class-conditional",
    "classifier-guidance",
];

/// A folder with the models of the cases: copies of the pipelines. The tiny autoencoder is in `sd1`, whose latents it
/// decodes.
pub fn models(root: &Path, pipelines: &[&str]) -> tempfile::TempDir {
    let (models, more) = (tempfile::tempdir().unwrap(), more());
    for pipeline in pipelines {
        let root = if root.join("pipelines").join(pipeline).is_dir() { root } else { more.as_path() };
        copy(&root.join("pipelines").join(pipeline), &models.path().join(pipeline));
        // Some fixtures are smaller than the default minimum size.
        fs::write(models.path().join(pipeline).join("latentd.json"), r#"{"min_size": 8}"#).unwrap();
        let folders = [*pipeline, "flux-gguf"].into_iter().filter(|folder| root.join("cases").join(folder).is_dir());
        let mut cases = Case::all(root, &folders.collect::<Vec<_>>());
        cases.retain(|case| case.json["pipeline"] == *pipeline);
        for case in cases.iter().filter(|case| is_variant(&case.json)) {
            let variant = models.path().join(case.model(&case.json));
            if case.json["gguf"]["transformer"].as_str().is_some_and(|file| file.contains("Q8_0")) {
                // A transformer alone, as it is published.
                let file = fs::read(root.join(case.json["gguf"]["transformer"].as_str().unwrap())).unwrap();
                fs::write(variant.with_extension("gguf"), file).unwrap();
                let base = base_of(models.path(), pipeline, case, root);
                let config = models.path().join(pipeline).join("transformer/config.json");
                let config: Value = serde_json::from_slice(&fs::read(config).unwrap()).unwrap();
                // The fixtures have other proportions than the published models.
                let beside = json!({"base": base, "transformer": {"axes_dims_rope": config["axes_dims_rope"]}});
                fs::write(variant.with_extension("json"), beside.to_string()).unwrap();
                continue;
            }
            copy(&models.path().join(pipeline), &variant);
            for (part, keys) in case.json["config_overrides"].as_object().into_iter().flatten() {
                extend(&variant.join(part).join("config.json"), keys.as_object().unwrap());
            }
            for (part, file) in case.json["gguf"].as_object().into_iter().flatten() {
                put_gguf(root, file.as_str().unwrap(), &variant.join(part));
            }
            // Parts without which diffusers loads the pipeline, and settings of the pipeline.
            let arguments = case.json["from_pretrained_args"].as_object().into_iter().flatten();
            let of_index = |value: &Value| if value.is_null() { json!([null, null]) } else { value.clone() };
            let mut keys: Map<String, Value> = arguments.map(|(key, value)| (key.clone(), of_index(value))).collect();
            keys.extend(is_guided_dream_lite(&case.json).then(|| ("_class_name".to_owned(), GUIDED_DREAM_LITE.into())));
            extend(&variant.join("model_index.json"), &keys);
        }
    }
    copy(&root.join(TINY), &models.path().join("sd1/vae_tiny"));
    models
}

/// The folder of the repository. cargo sets the variable for the tests that it runs, and `benches/gpu/run.sh` sets it
/// on a machine where the repository is in another folder than at the build.
pub fn repository() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()).into()
}

/// The name of a folder with the parts of the case besides the transformer.
fn base_of(models: &Path, pipeline: &str, case: &Case, root: &Path) -> String {
    let others = case.json["gguf"].as_object().into_iter().flatten().filter(|(part, _)| *part != "transformer");
    let others: Vec<_> = others.collect();
    if others.is_empty() {
        return pipeline.to_owned();
    }
    let base = format!("{}-base", case.model(&case.json));
    copy(&models.join(pipeline), &models.join(&base));
    for (part, file) in others {
        put_gguf(root, file.as_str().unwrap(), &models.join(&base).join(part));
    }
    base
}

/// Puts a GGUF file beside the weights that it replaces.
fn put_gguf(root: &Path, file: &str, part: &Path) {
    let name = file.rsplit('/').next().unwrap();
    fs::write(part.join(name), fs::read(root.join(file)).unwrap()).unwrap();
}

/// Whether a case changes its pipeline, so that it needs a copy of the model.
fn is_variant(case: &Value) -> bool {
    let keys = ["config_overrides", "from_pretrained_args", "gguf"];
    keys.into_iter().any(|key| !case[key].is_null()) || is_guided_dream_lite(case)
}

/// The class of DreamLite's pipeline with guidance. The folder of the fixtures has the class without it.
const GUIDED_DREAM_LITE: &str = "DreamLitePipeline";

fn is_guided_dream_lite(case: &Value) -> bool {
    case["diffusers_class"] == GUIDED_DREAM_LITE
}

/// Replaces keys of a JSON file.
fn extend(file: &Path, keys: &Map<String, Value>) {
    let mut json: Map<String, Value> = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    json.extend(keys.clone());
    fs::write(file, Value::Object(json).to_string()).unwrap();
}

/// The folder of additional cases, which run with every set of fixtures.
pub fn more() -> PathBuf {
    repository().join("tests/fixtures/more")
}

/// A folder with the textual inversions, named by the words that the cases use.
pub fn embeddings(root: &Path) -> tempfile::TempDir {
    let embeddings = tempfile::tempdir().unwrap();
    for word in ["mug", "one"] {
        let file = fs::read(root.join(format!("adapters/ti_{word}.safetensors"))).unwrap();
        fs::write(embeddings.path().join(format!("{word}.safetensors")), file).unwrap();
    }
    embeddings
}

/// A folder with the LoRAs of several sets of fixtures.
pub fn loras(roots: &[&Path]) -> tempfile::TempDir {
    let loras = tempfile::tempdir().unwrap();
    roots.iter().for_each(|root| copy(&root.join("adapters"), loras.path()));
    exchange_halves(&loras.path().join("sd3_kohya.safetensors"));
    loras
}

/// The modulation of the prompt in the last joint block, whose halves diffusers has in the opposite order. The golden
/// pictures take the halves of this file as diffusers' order, but files of trainers have the order of the original
/// code.
fn exchange_halves(file: &Path) {
    let Ok(mut tensors) = candle_core::safetensors::load(file, &candle_core::Device::Cpu) else { return };
    let is_of_context = |name: &&String| name.ends_with("_context_block_adaLN_modulation_1.lora_up.weight");
    let last = tensors.keys().filter(is_of_context).max().unwrap().clone();
    let [first, second] = &tensors[&last].chunk(2, 0).unwrap()[..] else { panic!("two halves") };
    let exchanged = candle_core::Tensor::cat(&[second, first], 0).unwrap();
    tensors.insert(last, exchanged);
    candle_core::safetensors::save(&tensors, file).unwrap();
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

/// The path of the tiny autoencoder in the fixtures.
const TINY: &str = "vaes/taesd";

/// The scheduler classes that this version supports.
const CLASSES: [&str; 23] = [
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
    "ScoreSdeVeScheduler",
    "ScoreSdeVpScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
];

impl Case {
    /// Every case of [`more`].
    pub fn of_more() -> Vec<Case> {
        let folders = fs::read_dir(more().join("cases")).unwrap();
        let mut folders: Vec<String> = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        folders.sort();
        Case::all(&more(), &folders.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Every case of the pipelines, in the order of their names.
    pub fn all(root: &Path, pipelines: &[&str]) -> Vec<Case> {
        let mut cases = Vec::new();
        for pipeline in pipelines {
            // The compact part of the fixtures does not have all pipelines.
            let Ok(folders) = fs::read_dir(root.join("cases").join(pipeline)) else {
                assert!(std::env::var_os("LATENTD_PARITY_DIR").is_none(), "the fixtures have no cases of {pipeline}");
                println!("no cases of {pipeline}: LATENTD_PARITY_DIR does not name the complete fixtures");
                continue;
            };
            let mut folders: Vec<PathBuf> = folders.map(|entry| entry.unwrap().path()).collect();
            folders.sort();
            for folder in folders {
                let json: Value = serde_json::from_slice(&fs::read(folder.join("request.json")).unwrap()).unwrap();
                let name = json["case"].as_str().unwrap().to_owned();
                let prompts = json["params"]["prompt"].as_array().map(Vec::len);
                let parts = prompts.map_or(vec![None], |prompts| (0..prompts).map(Some).collect());
                let (root, folder) = (root.to_owned(), folder.clone());
                cases.extend(parts.into_iter().map(|of_prompts| Case {
                    name: name.clone(),
                    root: root.clone(),
                    folder: folder.clone(),
                    json: json.clone(),
                    of_prompts,
                }));
            }
        }
        cases
    }

    /// The missing feature that the case needs. If it is `None`, the case must pass.
    pub fn waits_for(&self) -> Option<String> {
        let scheduler = &self.json["scheduler"];
        let set = |value: &Value| !value.is_null() && *value != json!(false);
        if !TASKS.contains(&self.json["task"].as_str().unwrap()) {
            return Some(self.json["task"].as_str().unwrap().to_owned());
        }
        if set(&self.json["vae"]) && self.json["vae"] != json!({"_class_name": "AutoencoderTiny", "path": TINY}) {
            return Some("another autoencoder".to_owned());
        }
        if let Some(class) = scheduler["_class_name"].as_str().filter(|class| !CLASSES.contains(class)) {
            return Some(class.to_owned());
        }
        None
    }

    /// The pipelines of the case and of its stages.
    pub fn pipelines(&self) -> Vec<&str> {
        let stages = self.json["stages"].as_array().into_iter().flatten();
        stages.chain([&self.json]).map(|of| of["pipeline"].as_str().unwrap()).collect()
    }

    /// The body of the request.
    pub fn body(&self) -> Map<String, Value> {
        let mut body = match self.json["stages"].as_array() {
            None => self.fields(&self.json),
            Some(stages) => {
                let [base, refiner] = &stages[..] else { panic!("{}: two stages", self.name) };
                let mut body = self.fields(base);
                let switch_at = body.remove("denoising_end").unwrap();
                assert_eq!(switch_at, refiner["params"]["denoising_start"]);
                let mut own = json!({"model": refiner["pipeline"], "switch_at": switch_at});
                if let Some(negative) = refiner["params"].get("negative_prompt") {
                    own["negative_prompt"] = negative.clone();
                }
                body.insert("refiner".to_owned(), own);
                body
            }
        };
        let params = &self.json["params"];
        let controls = self.controls();
        let first = if params.get("control_image").is_some() || controls.is_empty() { "image" } else { "-" };
        for (theirs, ours) in [(first, "image"), ("mask_image", "mask")] {
            if let Some(picture) = self.picture(&params[theirs]) {
                body.insert(ours.to_owned(), picture);
            }
            if let Some(pictures) = params[theirs].as_array() {
                body.insert(ours.to_owned(), pictures.iter().filter_map(|picture| self.picture(picture)).collect());
            }
        }
        if !controls.is_empty() {
            body.insert("controls".to_owned(), controls.into());
        }
        body.insert("loras".to_owned(), self.loras().into());
        body
    }

    /// The name of the model: the pipeline, or its copy if the case changes the configuration.
    fn model(&self, stage: &Value) -> String {
        let pipeline = stage["pipeline"].as_str().unwrap();
        if is_variant(stage) { self.name.replace('/', "--") } else { pipeline.to_owned() }
    }

    fn picture(&self, value: &Value) -> Option<Value> {
        let file = fs::read(self.root.join(value["file"].as_str()?)).unwrap();
        Some(json!({"b64": STANDARD.encode(file)}))
    }

    fn loras(&self) -> Vec<Value> {
        let all = &self.json["params"]["cross_attention_kwargs"]["scale"].as_f64().unwrap_or(1.0);
        let loras = self.json["loras"].as_array().into_iter().flatten();
        let name = |path: &Value| Path::new(path.as_str().unwrap()).file_stem().unwrap().to_str().unwrap().to_owned();
        loras.map(|lora| json!({"name": name(&lora["path"]), "scale": lora["scale"].as_f64().unwrap() * all})).collect()
    }

    fn controls(&self) -> Vec<Value> {
        let params = &self.json["params"];
        let nets = self.json["controlnets"].as_array().into_iter().flatten().enumerate();
        // One value for all networks, or a list with one value per network.
        let of = |key: &str, i: usize| match params.get(key) {
            Some(Value::Array(values)) => values[i].clone(),
            Some(value) => value.clone(),
            None => Value::Null,
        };
        let image = if params.get("control_image").is_some() { "control_image" } else { "image" };
        nets.map(|(i, net)| {
            json!({
                "model": net.as_str().unwrap().rsplit('/').next(),
                "image": self.picture(&of(image, i)),
                "scale": of("controlnet_conditioning_scale", i),
                "start": of("control_guidance_start", i),
                "end": of("control_guidance_end", i),
                "guess_mode": of("guess_mode", i),
            })
        })
        .collect()
    }

    /// The fields of one stage of the case.
    fn fields(&self, stage: &Value) -> Map<String, Value> {
        let params = &stage["params"];
        let mut request = Map::new();
        request.insert("model".to_owned(), self.model(stage).into());
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
            ("true_cfg_scale", "true_guidance_scale"),
            ("num_images_per_prompt", "n"),
            ("batch_size", "n"),
            ("class_labels", "class_label"),
            ("classifier_scale", "class_guidance_scale"),
            ("eta", "eta"),
            ("clip_skip", "clip_skip"),
            ("max_sequence_length", "max_sequence_length"),
            ("cfg_normalization", "cfg_normalization"),
            ("cfg_truncation", "cfg_truncation"),
            ("strength", "strength"),
            ("image_guidance_scale", "image_guidance_scale"),
            ("padding_mask_crop", "padding_mask_crop"),
            ("seed", "seed"),
            ("prompt_2", "prompt_2"),
            ("negative_prompt_2", "negative_prompt_2"),
            ("prompt_3", "prompt_3"),
            ("negative_prompt_3", "negative_prompt_3"),
            ("skip_guidance_layers", "skip_guidance_layers"),
            ("skip_layer_guidance_scale", "skip_layer_guidance_scale"),
            ("skip_layer_guidance_start", "skip_layer_guidance_start"),
            ("skip_layer_guidance_stop", "skip_layer_guidance_stop"),
            ("original_size", "original_size"),
            ("crops_coords_top_left", "crop_top_left"),
            ("target_size", "target_size"),
            ("negative_original_size", "negative_original_size"),
            ("negative_crops_coords_top_left", "negative_crop_top_left"),
            ("negative_target_size", "negative_target_size"),
            ("aesthetic_score", "aesthetic_score"),
            ("negative_aesthetic_score", "negative_aesthetic_score"),
            ("denoising_end", "denoising_end"),
        ] {
            if let Some(value) = params.get(theirs) {
                request.insert(ours.to_owned(), value.clone());
            }
        }
        // FLUX.1 schnell does not take the guidance scale; the cases set it to 0.
        if stage["pipeline"] == "flux-schnell" {
            request.remove("guidance_scale");
        }
        if let (Some(classes), None) = (params["class_labels"].as_array(), params.get("batch_size")) {
            request.insert("n".to_owned(), classes.len().into());
        }
        if let Some(i) = self.of_prompts {
            request.insert("n".to_owned(), request["prompt"].as_array().unwrap().len().into());
            for field in ["prompt", "negative_prompt"] {
                if let Some(of_all) = request.get(field) {
                    let own = of_all[i].clone();
                    request.insert(field.to_owned(), own);
                }
            }
        }
        // diffusers has other default sizes: the size of the picture, or for a mask the size of the model.
        let size = self.json["size"].as_array().unwrap();
        request.insert("width".to_owned(), size[0].clone());
        request.insert("height".to_owned(), size[1].clone());
        if params.get("mask_image").is_some() {
            request.insert("keep_unmasked".to_owned(), false.into());
        }
        // With one seed, one generator draws the noise of the whole batch. A list of seeds means one generator per
        // image, and the lists of the fixtures increase by one.
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
        if let Some(scheduler) = stage.get("scheduler").filter(|scheduler| !scheduler.is_null()) {
            request.insert("scheduler".to_owned(), scheduler.clone());
        }
        if let Some(steps) = params.get("original_inference_steps") {
            request.insert("scheduler".to_owned(), json!({"original_inference_steps": steps}));
        }
        if let Some(clipped) = params.get("use_clipped_model_output") {
            request["scheduler"]["use_clipped_model_output"] = clipped.clone();
        }
        request
    }

    /// The pictures of the request that belong to the case.
    pub fn wanted<T>(&self, pictures: Vec<T>) -> Vec<T> {
        let own = |i: &usize| self.of_prompts.is_none_or(|of| of == *i);
        pictures.into_iter().enumerate().filter(|(i, _)| own(i)).map(|(_, picture)| picture).collect()
    }

    pub fn goldens(&self) -> Vec<RgbImage> {
        let names = self.wanted(self.json["outputs"].as_array().unwrap().iter().collect());
        names.into_iter().map(|name| read_png(&self.folder.join(name.as_str().unwrap()))).collect()
    }
}

impl Case {
    /// Whether latentd differs from diffusers on purpose.
    pub fn has_own_golden(&self) -> bool {
        self.own().exists()
    }

    /// The picture that latentd draws where it differs from diffusers on purpose.
    pub fn own_golden(&self) -> RgbImage {
        read_png(&self.own())
    }

    fn own(&self) -> PathBuf {
        more().join("own").join(format!("{}.png", self.name.replace('/', "-")))
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
