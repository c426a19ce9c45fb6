//! Draws random requests over all fields that are valid by `openapi.yaml` and the server's catalogue.

#![allow(dead_code, reason = "each test target uses its part")]

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::random::Random;

#[path = "requests/schedulers.rs"]
mod schedulers;
#[path = "requests/transformers.rs"]
mod transformers;

/// The entries of a server's catalogue and the pictures that requests can use.
pub struct Requests {
    /// The models, each with its `schema`.
    models: Vec<Value>,
    loras: Vec<Value>,
    control_nets: Vec<Value>,
    pictures: Vec<Value>,
    masks: Vec<Value>,
}

impl Requests {
    /// Takes the lists of a server's catalogue, with the `schema` of each model, and the folder of the parity fixtures
    /// for pictures.
    pub fn new(models: &Value, loras: &Value, control_nets: &Value, fixtures: &Path) -> Requests {
        let picture =
            |name: &&str| json!({"b64": STANDARD.encode(std::fs::read(fixtures.join("inputs").join(name)).unwrap())});
        let mut models: Vec<Value> = usable(models).cloned().collect();
        models.sort_by_key(|model| model["id"].to_string());
        Requests {
            models,
            loras: usable(loras).cloned().collect(),
            control_nets: usable(control_nets).cloned().collect(),
            pictures: ["init_64.png", "init_70x61.png", "init_96x64.png", "edges_64.png"].iter().map(picture).collect(),
            masks: ["mask_64.png"].iter().map(picture).collect(),
        }
    }

    /// The request with this number of a seed; the same seed and number give the same request.
    pub fn draw(&self, seed: u64, number: u64) -> Value {
        let mut random = Random::of(seed, number);
        let model = random.pick(&self.models);
        let (can, takes) = (&model["capabilities"], &model["schema"]["properties"]);
        Draw { of: self, can, takes, model: model["id"].as_str().unwrap(), random, body: Map::new() }.all()
    }
}

fn usable(list: &Value) -> impl Iterator<Item = &Value> {
    list["data"].as_array().unwrap().iter().filter(|entry| entry["error"].is_null())
}

/// Words for prompts, in several scripts.
const WORDS: [&str; 10] =
    ["a", "red", "fox", "in the snow,", "watercolor", "überall", "狐", "1920s photo,", "very", "🦊"];

/// A request that is being drawn.
struct Draw<'a> {
    of: &'a Requests,
    model: &'a str,
    /// The capabilities of the model, as the API lists them.
    can: &'a Value,
    /// The fields that the model takes, as its JSON Schema describes them.
    takes: &'a Value,
    random: Random,
    body: Map<String, Value>,
}

impl Draw<'_> {
    fn all(mut self) -> Value {
        self.set("model", self.model);
        self.prompts();
        self.size();
        let steps = self.schedule();
        let steps = self.pictures(steps);
        self.guidance();
        self.transformer();
        self.loras();
        self.controls();
        if self.is_sdxl() {
            self.sdxl(steps);
        }
        self.rest();
        Value::Object(self.body)
    }

    fn set(&mut self, field: &str, value: impl Into<Value>) {
        self.body.insert(field.to_owned(), value.into());
    }

    /// Sets the field with a probability of `percent` %, if the model takes it.
    fn maybe<V: Into<Value>>(&mut self, percent: u64, field: &str, value: impl FnOnce(&mut Random) -> V) {
        if self.takes(field) && self.random.chance(percent) {
            let value = value(&mut self.random);
            self.set(field, value);
        }
    }

    fn whole(&self, key: &str) -> u64 {
        self.can[key].as_u64().unwrap()
    }

    fn takes(&self, field: &str) -> bool {
        self.takes.get(field).is_some()
    }

    fn does(&self, task: &str) -> bool {
        self.can["tasks"].as_array().unwrap().contains(&task.into())
    }

    fn is_sdxl(&self) -> bool {
        self.model.starts_with("sdxl")
    }

    fn text(&mut self, weighted: bool) -> String {
        let count = *self.random.pick(&[0, 1, 3, 5, 8, 40]);
        let known = [&WORDS, self.learned_words()].concat();
        let (mut words, mut breaks) = (Vec::new(), 0);
        for _ in 0..count {
            let word = *self.random.pick(&known);
            words.push(match self.random.whole(0, if weighted { 5 } else { 0 }) {
                1 => format!("({word}:{})", self.random.number(0.0, 2.0)),
                2 => format!("[{word}]"),
                3 => format!("(({word}))"),
                // A prompt has at most 8 parts between BREAKs.
                4 if breaks < 7 => {
                    breaks += 1;
                    format!("{word} BREAK")
                }
                _ => word.to_owned(),
            });
        }
        words.join(" ")
    }

    fn prompts(&mut self) {
        let weights = self.takes["prompt_syntax"]["enum"].as_array().is_some_and(|of| of.contains(&"weighted".into()));
        let weighted = weights && self.random.chance(30);
        let prompt = self.text(weighted);
        self.set("prompt", prompt);
        if self.random.chance(50) {
            let text = self.text(weighted);
            self.set("negative_prompt", text);
        }
        for field in ["prompt_2", "negative_prompt_2", "prompt_3", "negative_prompt_3"] {
            if self.takes(field) && self.random.chance(25) {
                let text = self.text(false);
                self.set(field, text);
            }
        }
        if weighted {
            self.set("prompt_syntax", "weighted");
        }
    }

    /// Sets a size close to the model's minimum, not always square. A few requests set none, so that the size of the
    /// model or of the picture applies.
    fn size(&mut self) {
        if self.random.chance(8) {
            return;
        }
        let (multiple, least) = (self.whole("size_multiple"), self.whole("min_side_pixels").max(32));
        let least = least.next_multiple_of(multiple);
        let mut side = || least + multiple * self.random.whole(0, 4);
        let (width, height) = (side(), side());
        match self.random.whole(0, 3) {
            0 => self.set("size", format!("{width}x{height}")),
            _ => {
                self.set("width", width);
                self.set("height", height);
            }
        }
    }

    /// Sets the scheduler, and steps or a list of levels; returns the number of steps.
    fn schedule(&mut self) -> u64 {
        let steps = self.random.whole(1, 6);
        if self.is_of_flow_matching() {
            return self.flow_schedule(steps);
        }
        if self.random.chance(10) {
            self.set("scheduler", "euler");
            let levels: Vec<f64> = (0..=steps).map(|i| 10.0 * (1.0 - i as f64 / steps as f64)).collect();
            self.set("sigmas", levels);
            return steps;
        }
        if self.random.chance(10) {
            let name = *self.random.pick(&["ddpm", "euler", "heun", "dpmpp_2m", "lcm", "tcd"]);
            self.set("scheduler", name);
            self.set("timesteps", (0..steps).map(|i| 999 - i * 999 / steps).collect::<Vec<_>>());
            return steps;
        }
        let field = if self.random.chance(25) { "num_inference_steps" } else { "steps" };
        self.set(field, steps);
        match self.random.whole(0, 9) {
            0..5 => {
                let name = self.random.pick(self.can["schedulers"].as_array().unwrap()).clone();
                self.set("scheduler", name);
            }
            5..8 => {
                let config = schedulers::config(&mut self.random);
                self.set("scheduler", config);
            }
            _ => {}
        }
        steps
    }

    /// Sets `image` and `mask` with the fields that depend on them; returns the number of steps that remain to run.
    fn pictures(&mut self, steps: u64) -> u64 {
        if self.does("edit") {
            return self.references(steps);
        }
        let (edits, fills) = (self.does("instruct-pix2pix"), self.does("inpaint"));
        let (from_text, from_image) = (self.does("text-to-image"), self.does("image-to-image"));
        if from_text && !self.random.chance(40) {
            return steps;
        }
        let masked = fills && (!from_image || self.random.chance(50));
        if !masked && !from_image && !edits {
            return steps;
        }
        let image = self.random.pick(&self.of.pictures).clone();
        self.set("image", image);
        if masked {
            let mask = self.random.pick(&self.of.masks).clone();
            self.set("mask", mask);
            self.maybe(30, "mask_blur", |random| random.whole(0, 64));
            self.maybe(30, "mask_invert", |random| random.chance(50));
            self.maybe(30, "padding_mask_crop", |random| random.whole(0, 512));
            self.maybe(30, "keep_unmasked", |random| random.chance(50));
        }
        if edits {
            self.maybe(60, "image_guidance_scale", |random| random.number(1.0, 10.0));
            return steps;
        }
        // At least one step must remain, and the default strength of 0.75 may leave none.
        let least = 1.0 / steps as f64;
        let strength = if self.random.chance(25) {
            1.0
        } else {
            self.random.number(least, 1.0).max((least * 100.0).ceil() / 100.0)
        };
        self.set("strength", strength.min(1.0));
        (steps as f64 * strength) as u64
    }

    fn guidance(&mut self) {
        self.maybe(70, "guidance_scale", |random| match random.whole(0, 4) {
            0 => 1.0,
            1 => 0.0,
            _ => random.number(1.0, 30.0),
        });
        if !self.does("instruct-pix2pix") {
            self.maybe(20, "guidance_rescale", |random| random.number(0.0, 1.0));
        }
        self.maybe(20, "guidance_interval", |random| {
            let start = random.number(0.0, 0.9);
            json!([start, random.number(start + 0.05, 1.0).max(start + 0.01)])
        });
    }

    /// The words of the textual inversions whose vectors have the width of the model's text encoder.
    fn learned_words(&self) -> &'static [&'static str] {
        match self.model {
            "emoji" => &["<teal>"],
            "sd1" | "sd1-inpaint" | "ip2p" | "lcm" => &["<mug>", "<one>"],
            _ => &[],
        }
    }

    /// The names of those files that fit the model.
    fn fitting(&self, files: &[Value]) -> Vec<String> {
        let fits = |file: &&Value| file["models"].as_array().unwrap().contains(&self.model.into());
        files.iter().filter(fits).map(|file| file["name"].as_str().unwrap().to_owned()).collect()
    }

    fn loras(&mut self) {
        let fitting = self.fitting(&self.of.loras);
        if fitting.is_empty() || !self.random.chance(35) {
            return;
        }
        let count = self.random.whole(1, 3.min(fitting.len() as u64)) as usize;
        let first = self.random.whole(0, (fitting.len() - count) as u64) as usize;
        let chosen = &fitting[first..first + count];
        if self.random.chance(30) {
            let tags: String =
                chosen.iter().map(|name| format!(" <lora:{name}:{}>", self.random.number(-1.0, 1.0))).collect();
            let prompt = format!("{}{tags}", self.body["prompt"].as_str().unwrap());
            return self.set("prompt", prompt);
        }
        let loras: Vec<Value> = chosen
            .iter()
            .map(|name| match self.random.chance(50) {
                true => json!({"name": name}),
                false => json!({"name": name, "scale": self.random.number(-2.0, 2.0)}),
            })
            .collect();
        self.set("loras", loras);
    }

    fn controls(&mut self) {
        let fitting = self.fitting(&self.of.control_nets);
        if fitting.is_empty() || !self.random.chance(30) {
            self.maybe(20, "feature_cache", |random| json!({"kind": "deepcache", "interval": random.whole(2, 10)}));
            return;
        }
        let count = self.random.whole(1, 2);
        let controls: Vec<Value> = (0..count)
            .map(|_| {
                let random = &mut self.random;
                let mut control = json!({"model": random.pick(&fitting), "image": random.pick(&self.of.pictures)});
                if random.chance(50) {
                    control["scale"] = random.number(0.0, 2.0).into();
                }
                if random.chance(30) {
                    control["start"] = random.number(0.0, 0.5).into();
                    control["end"] = random.number(0.51, 1.0).into();
                }
                if random.chance(30) {
                    control["guess_mode"] = true.into();
                }
                if random.chance(30) {
                    control["preprocess"] = "canny".into();
                }
                control
            })
            .collect();
        self.set("controls", controls);
    }

    fn sdxl(&mut self, steps: u64) {
        for field in ["original_size", "target_size", "negative_original_size", "negative_target_size"] {
            self.maybe(15, field, |random| json!([random.whole(1, 4096), random.whole(1, 4096)]));
        }
        for field in ["crop_top_left", "negative_crop_top_left"] {
            self.maybe(15, field, |random| json!([random.whole(0, 512), random.whole(0, 512)]));
        }
        for field in ["aesthetic_score", "negative_aesthetic_score"] {
            self.maybe(15, field, |random| random.number(0.0, 10.0));
        }
        // Both models must draw at least one step, and a list of levels applies to one scheduler only.
        let has_levels = self.body.contains_key("sigmas") || self.body.contains_key("timesteps");
        if steps < 3 || has_levels || self.body.contains_key("image") {
            return;
        }
        let share = |random: &mut Random| random.number(1.0 / steps as f64 + 0.01, 1.0 - 1.0 / steps as f64);
        match self.random.whole(0, 3) {
            0 => {
                let share = share(&mut self.random);
                self.set("denoising_end", share);
            }
            1 => {
                let others: Vec<&str> = self
                    .of
                    .models
                    .iter()
                    .filter_map(|model| model["id"].as_str())
                    .filter(|id| id.starts_with("sdxl"))
                    .collect();
                let mut refiner = json!({"model": self.random.pick(&others)});
                if self.random.chance(70) {
                    refiner["switch_at"] = share(&mut self.random).into();
                }
                if self.random.chance(40) {
                    refiner["negative_prompt"] = self.text(false).into();
                }
                if self.random.chance(30) {
                    refiner["aesthetic_score"] = self.random.number(0.0, 10.0).into();
                    refiner["negative_aesthetic_score"] = self.random.number(0.0, 10.0).into();
                }
                self.set("refiner", refiner);
            }
            _ => {}
        }
    }

    fn rest(&mut self) {
        let (clip_skip, decoders) = (self.whole("max_clip_skip"), self.can["decoders"].as_array().unwrap());
        self.maybe(20, "n", |random| random.whole(2, 3));
        self.maybe(15, "eta", |random| random.number(0.0, 1.0));
        self.maybe(20, "clip_skip", |random| random.whole(0, clip_skip));
        self.maybe(30, "decoder", |random| random.pick(decoders).clone());
        self.maybe(80, "seed", |random| *random.pick(&[0, 7, u64::from(u32::MAX), 1 << 53, i64::MAX as u64 - 8]));
        self.maybe(30, "seed_mode", |random| *random.pick(&["per_image", "batch"]));
        self.maybe(30, "previews", |random| random.whole(0, 10));
        self.maybe(30, "output", |random| match random.chance(50) {
            true => json!({"metadata": random.pick(&["full", "seed", "none"])}),
            false => json!({"format": random.pick(&["png", "jpeg", "webp"]), "metadata": null}),
        });
        self.maybe(20, "on_disconnect", |random| *random.pick(&["auto", "keep", "cancel"]));
        self.maybe(30, "priority", |random| *random.pick(&["low", "normal", "high"]));
        self.maybe(20, "run_timeout_s", |random| random.whole(600, 3600));
        self.maybe(20, "start_timeout_s", |random| random.whole(3600, 86_400));
        self.maybe(20, "metadata", |random| json!({"album": format!("n°{}", random.whole(0, 9)), "empty": ""}));
    }
}
