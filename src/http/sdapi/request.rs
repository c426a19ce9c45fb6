//! Turns a request of the web interface into the fields of a generation.

use serde_json::{Map, Value, json};

use super::{LABEL, control_net, control_net::Units, idle, notes::Notes, pointers, unused};
use crate::{
    diffusion::{SCHEDULE_TYPES, UnknownLabel, labelled, sampler_labels},
    generation::{Draw, Fields, Invalid, ModelCard, WorkKind},
    http::error::ApiError,
};

/// Which of the two drawing operations the request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    TextToImage,
    ImageToImage,
}

/// A request whose fields were translated into fields of a generation.
#[derive(Debug)]
pub(super) struct Request {
    /// The fields of the generation.
    pub fields: Fields,
    pub notes: Notes,
    /// The request without its pictures and without unknown fields, for `parameters` in the answer.
    pub echo: Map<String, Value>,
    /// Whether the answer contains the pictures.
    pub sends_images: bool,
    /// `force_task_id`: the client's name for the request.
    pub task_id: Option<String>,
    /// The units of ControlNet in the request.
    units: Units,
}

/// How many previews a generation makes for `GET /sdapi/v1/progress`.
const PREVIEWS: u32 = 10;
/// Fields that this file reads for every model. [`idle`] lists the other fields of the web interface: those that have
/// no effect here, and those that this file reads only for some requests, such as `mask_blur` for a request with a
/// mask.
const READ: [&str; 20] = [
    "prompt",
    "negative_prompt",
    "width",
    "height",
    "steps",
    "cfg_scale",
    "seed",
    "n_iter",
    "batch_size",
    "eta",
    "sampler_name",
    "sampler_index",
    "scheduler",
    "send_images",
    "force_task_id",
    "refiner_checkpoint",
    "override_settings",
    "init_images",
    "mask",
    "alwayson_scripts",
];
/// Fields that contain pictures.
const PICTURES: [&str; 3] = ["init_images", "mask", "alwayson_scripts"];

impl Request {
    /// Names the fields of this request in an error about the fields of the generation.
    pub fn renamed(&self, error: impl Into<ApiError>) -> ApiError {
        pointers::renamed(error.into(), &self.units.places)
    }

    /// Adds the notes that need the sizes of the accepted pictures.
    pub fn note_sizes(&mut self, draw: &Draw) {
        let Units { fitted, places, .. } = &self.units;
        self.notes.extend(fitted.iter().filter_map(|index| control_net::stretched(draw, *index, *places.get(*index)?)));
    }
}

/// Reads a request. `card` is the card of its model, or `None` if the model is unknown.
///
/// # Errors
/// The request has a value that cannot be translated into a field of a generation. All other values are checked later,
/// as fields of the generation.
pub(super) fn read(mut fields: Fields, kind: Kind, card: Option<&ModelCard>) -> Result<Request, ApiError> {
    let mut body = fields.take_all();
    body.retain(|_, value| !value.is_null());
    let is_echoed = |name: &str| (READ.contains(&name) || idle::is_known(name)) && !PICTURES.contains(&name);
    let echo = body.iter().filter(|(name, _)| is_echoed(name)).map(|(name, value)| (name.clone(), value.clone()));
    let echo = echo.collect();
    let mut reader = Reader { body, fields, card, notes: Notes::default() };
    let sends_images = reader.flag("send_images").unwrap_or(true);
    let task_id = reader.text("force_task_id").filter(|id| !id.is_empty());
    reader.prompts();
    reader.numbers();
    reader.sampler();
    reader.settings();
    if kind == Kind::ImageToImage {
        reader.source();
    }
    let units = reader.scripts();
    reader.rest();
    let Reader { mut fields, notes, .. } = reader;
    fields.put_back("previews", PREVIEWS.into());
    fields.put_back("metadata", json!({LABEL.0: LABEL.1}));
    if fields.has_errors() {
        // Nobody has read the fields of the generation, so `finish` would report them as unknown. Only the errors found
        // here count.
        fields.take_all();
        return Err(ApiError::Invalid(Invalid { errors: fields.finish() }));
    }
    Ok(Request { fields, notes, echo, sends_images, task_id, units })
}

struct Reader<'a> {
    /// The fields of the request that are not read yet, without null.
    body: Map<String, Value>,
    fields: Fields,
    card: Option<&'a ModelCard>,
    notes: Notes,
}

impl Reader<'_> {
    fn prompts(&mut self) {
        let (prompt, negative) = (self.body.remove("prompt"), self.body.remove("negative_prompt"));
        // If the model makes films or sounds, the request fails later with an error about the model. Then no note about
        // the prompt is needed.
        if self.card.is_some_and(|card| !card.takes_prompt && card.work_kind() == WorkKind::Draw) {
            for (name, value) in [("prompt", prompt), ("negative_prompt", negative)] {
                if let Some(value) = value.filter(|value| value != "") {
                    self.ignore(name, &value, "this model takes no text");
                }
            }
            return;
        }
        self.fields.put_back("prompt", prompt.unwrap_or_else(|| "".into()));
        if self.card.is_none_or(|card| card.weighted_prompts) {
            self.fields.put_back("prompt_syntax", "weighted".into());
        }
        // In the web interface, an empty negative prompt counts as a missing one. SDXL then uses an embedding of zeros.
        if let Some(negative) = negative.filter(|negative| *negative != "") {
            self.fields.put_back("negative_prompt", negative);
        }
    }

    fn numbers(&mut self) {
        self.pass("steps", "steps");
        self.side("width");
        self.side("height");
        if self
            .card
            .is_some_and(|card| card.no_guidance_scale || !card.takes_prompt && card.default_guidance_scale == 1.0)
        {
            if let Some(scale) =
                self.body.remove("cfg_scale").filter(|scale| !matches!(scale.as_f64(), Some(1.0 | 7.0)))
            {
                self.ignore("cfg_scale", &scale, "this model takes no guidance scale");
            }
        } else {
            self.pass("cfg_scale", "guidance_scale");
        }
        // -1 asks for a random seed.
        if self.body.get("seed").and_then(Value::as_f64) == Some(-1.0) {
            self.body.remove("seed");
        }
        self.pass("seed", "seed");
        let (rounds, size) = (self.count("n_iter"), self.count("batch_size"));
        self.fields.put_back("n", rounds.saturating_mul(size).into());
    }

    /// Rounds a width or a height down to what the model can draw, as the web interface does.
    fn side(&mut self, name: &str) {
        let multiple = self.card.map_or(8, |card| u64::from(card.size_multiple.max(1)));
        match self.body.get(name).and_then(Value::as_u64) {
            Some(pixels) if pixels > multiple && !pixels.is_multiple_of(multiple) => {
                let rounded = pixels - pixels % multiple;
                self.notes.push(format!("{name} is {rounded}: it must be a multiple of {multiple}"));
                self.body.remove(name);
                self.fields.put_back(name, rounded.into());
            }
            _ => self.pass(name, name),
        }
    }

    fn count(&mut self, name: &str) -> u64 {
        match self.body.remove(name) {
            None => 1,
            Some(value) => {
                match value.as_u64().or_else(|| value.as_f64().filter(|n| n.fract() == 0.0).map(|n| n as u64)) {
                    Some(count) if count > 0 => count,
                    _ => {
                        self.fields.error(name, "invalid_value", "must be an integer of at least 1");
                        1
                    }
                }
            }
        }
    }

    fn sampler(&mut self) {
        let (name, index) = (self.text("sampler_name"), self.text("sampler_index"));
        let schedule_type = self.text("scheduler");
        let eta = self.body.remove("eta");
        let Some(name) = name.or(index).filter(|name| !name.is_empty()) else {
            if schedule_type.is_some_and(|kind| !kind.is_empty() && !kind.eq_ignore_ascii_case("automatic")) {
                self.note("scheduler", "the request names no sampler_name");
            }
            return self.eta_without_effect(eta.as_ref());
        };
        match labelled(&name, schedule_type.as_deref()) {
            Ok(found) => {
                if found.ignores_schedule_type {
                    self.note("scheduler", "this sampler has its own noise levels");
                }
                self.fields.put_back("scheduler", json!(found.sampler.choice));
                match eta {
                    Some(eta) if found.sampler.label.eta.is_some() => self.fields.put_back("eta", eta),
                    eta => self.eta_without_effect(eta.as_ref()),
                }
            }
            Err(UnknownLabel::Sampler) => {
                let known = sampler_labels().join(", ");
                self.fields.error("sampler_name", "invalid_value", format!("must be one of {known}"));
            }
            Err(UnknownLabel::ScheduleType) => {
                let known = SCHEDULE_TYPES.map(|kind| kind.label).join(", ");
                self.fields.error("scheduler", "invalid_value", format!("must be one of {known}"));
            }
        }
    }

    /// Notes that `eta` is ignored, unless it is 1. Clients send 1 for every sampler, because 1 is the default of the
    /// samplers that always add noise.
    fn eta_without_effect(&mut self, eta: Option<&Value>) {
        if let Some(eta) = eta.filter(|eta| eta.as_f64() != Some(1.0)) {
            self.ignore("eta", eta, "this sampler does not use it");
        }
    }

    fn settings(&mut self) {
        if let Some(model) = self.text("refiner_checkpoint").filter(|name| !name.is_empty() && name != "None") {
            let mut refiner = Map::from_iter([("model".to_owned(), Value::from(control_net::without_hash(&model)))]);
            refiner.extend(self.body.remove("refiner_switch_at").map(|at| ("switch_at".to_owned(), at)));
            self.fields.put_back("refiner", refiner.into());
        }
        let settings = match self.body.remove("override_settings") {
            Some(Value::Object(settings)) => settings,
            None => Map::new(),
            Some(_) => return self.fields.error("override_settings", "wrong_type", "must be an object"),
        };
        if settings.is_empty() {
            // Without such settings, there is nothing to restore.
            self.body.remove("override_settings_restore_afterwards");
        }
        for (name, value) in settings {
            match (name.as_str(), &value) {
                // The handler has already chosen the model.
                ("sd_model_checkpoint", Value::String(_)) | (_, Value::Null) => {}
                ("sd_model_checkpoint", _) => {
                    let path = ["override_settings", "sd_model_checkpoint"];
                    self.fields.error_at(&path, "wrong_type", "must be a string");
                }
                ("CLIP_stop_at_last_layers", value) => match value.as_u64() {
                    // The web interface counts the last layer as 1; `clip_skip` counts the last layer as 0.
                    Some(layer @ 1..=12) => self.fields.put_back("clip_skip", (layer - 1).into()),
                    _ => {
                        let path = ["override_settings", "CLIP_stop_at_last_layers"];
                        self.fields.error_at(&path, "out_of_range", "must be an integer between 1 and 12");
                    }
                },
                ("samples_format", value) => match value.as_str() {
                    Some(format @ ("png" | "webp")) => self.fields.put_back("output", json!({"format": format})),
                    Some("jpg" | "jpeg") => self.fields.put_back("output", json!({"format": "jpeg"})),
                    _ => {
                        let path = ["override_settings", "samples_format"];
                        self.fields.error_at(&path, "invalid_value", "must be png, jpg or webp");
                    }
                },
                ("sd_vae", Value::String(vae)) if matches!(vae.as_str(), "Automatic" | "None") => {}
                ("randn_source", Value::String(source)) if source == "CPU" => {}
                (name, _) => {
                    let shown: String = name.chars().take(64).collect();
                    self.note(&format!("override_settings.{shown}"), "this server does not support it");
                }
            }
        }
    }

    /// Reads the picture to start from, and its mask.
    fn source(&mut self) {
        match self.body.remove("init_images") {
            Some(Value::Array(mut images)) if images.len() <= 1 => {
                match images.pop().filter(|image| !image.is_null()) {
                    Some(image) => self.fields.put_back("image", image),
                    None => self.fields.error("init_images", "required", "must have one picture"),
                }
            }
            Some(Value::Array(images)) => {
                let detail = format!("must have one picture, not {}", images.len());
                self.fields.error("init_images", "out_of_range", detail);
            }
            Some(_) => self.fields.error("init_images", "wrong_type", "must be a list with one picture"),
            None => self.fields.error("init_images", "required", "is required: a list with one picture"),
        }
        if self.card.is_some_and(|card| card.image_guidance_scale.is_some()) {
            self.pass("image_cfg_scale", "image_guidance_scale");
        }
        if self.card.is_some_and(|card| !card.draws_over_pictures()) {
            let strength = self.body.remove("denoising_strength");
            if let Some(strength) = strength.filter(|strength| strength.as_f64() != Some(0.75)) {
                self.ignore("denoising_strength", &strength, "this model edits by an instruction");
            }
        } else {
            let strength = self.body.remove("denoising_strength").unwrap_or_else(|| 0.75.into());
            self.fields.put_back("strength", strength);
        }
        let Some(mask) = self.body.remove("mask") else { return };
        self.fields.put_back("mask", mask);
        self.fields.put_back("mask_blur", self.body.remove("mask_blur").unwrap_or_else(|| 4.into()));
        if let Some(invert) = self.flag("inpainting_mask_invert") {
            self.fields.put_back("mask_invert", invert.into());
        }
        let padding = self.body.remove("inpaint_full_res_padding").unwrap_or_else(|| 0.into());
        if self.flag("inpaint_full_res").unwrap_or(true) {
            self.fields.put_back("padding_mask_crop", padding);
        }
        match self.body.remove("inpainting_fill").map(|fill| fill.as_u64()) {
            None | Some(Some(1)) => {}
            Some(Some(0 | 2 | 3)) => {
                self.note("inpainting_fill", "the masked part always starts from the picture (1, original)");
            }
            Some(_) => self.fields.error("inpainting_fill", "out_of_range", "must be 0, 1, 2 or 3"),
        }
    }

    /// Reads the units of ControlNet.
    fn scripts(&mut self) -> Units {
        let scripts = match self.body.remove("alwayson_scripts") {
            None => return Units::default(),
            Some(Value::Object(scripts)) => scripts,
            Some(_) => {
                self.fields.error("alwayson_scripts", "wrong_type", "must be an object");
                return Units::default();
            }
        };
        let mut units = Units::default();
        for (name, script) in scripts {
            if name.eq_ignore_ascii_case("controlnet") {
                let source = self.fields.take("image");
                let mut read = control_net::units(script, source.as_ref(), &mut self.fields);
                if let Some(source) = source {
                    self.fields.put_back("image", source);
                }
                self.notes.extend(std::mem::take(&mut read.notes));
                if !read.controls.is_empty() {
                    self.fields.put_back("controls", std::mem::take(&mut read.controls).into());
                    units = read;
                }
            } else if does_something(&script) {
                let shown: String = name.chars().take(64).collect();
                self.note(&format!("alwayson_scripts.{shown}"), "this server does not have the script");
            }
        }
        units
    }

    /// Adds a note about each field that was not read, or an error if the type of the field is wrong.
    fn rest(&mut self) {
        for (name, value) in &self.body {
            if let Some(expected) = unused::mistyped(name, value) {
                self.fields.wrong_type::<()>(name, expected, value);
            }
        }
        let note = |(name, value): (&String, &Value)| match READ.contains(&name.as_str()) {
            true => Some(format!("{name} is ignored: this operation does not use it")),
            false => idle::note(name, value),
        };
        self.notes.extend(self.body.iter().filter_map(note));
    }

    fn pass(&mut self, theirs: &str, ours: &str) {
        if let Some(value) = self.body.remove(theirs) {
            self.fields.put_back(ours, value);
        }
    }

    /// Notes that a field is ignored. If the type of its value is wrong, adds an error instead.
    fn ignore(&mut self, name: &str, value: &Value, why: &str) {
        match unused::mistyped(name, value) {
            Some(expected) => _ = self.fields.wrong_type::<()>(name, expected, value),
            None => self.note(name, why),
        }
    }

    fn note(&mut self, name: &str, why: &str) {
        self.notes.push(format!("{name} is ignored: {why}"));
    }

    fn text(&mut self, name: &str) -> Option<String> {
        match self.body.remove(name)? {
            Value::String(text) => Some(text),
            other => self.fields.wrong_type(name, "a string", &other),
        }
    }

    /// A truth value, also as the number 0 or 1.
    fn flag(&mut self, name: &str) -> Option<bool> {
        let value = self.body.remove(name)?;
        match (value.as_bool(), value.as_u64()) {
            (Some(flag), _) => Some(flag),
            (_, Some(0)) => Some(false),
            (_, Some(1)) => Some(true),
            _ => self.fields.wrong_type(name, "true or false", &value),
        }
    }
}

/// Whether the arguments of a script switch anything on: clients send `[false]` or `[]` to switch it off.
fn does_something(script: &Value) -> bool {
    let args = script.get("args").and_then(Value::as_array);
    args.is_none_or(|args| args.iter().any(|arg| !matches!(arg, Value::Null | Value::Bool(false))))
}
