//! A job: a valid request as an envelope (model, priority, deadlines, output) with its work.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    Draw, ImageField, InputImage, Output, Precision, Priority, SafetyPolicy, TraceContext, Warning, Webhook, Work,
    table,
};

/// A valid request: all defaults are set, and all bounds are checked. Every job, also a stored one, was made by
/// [`resolve`](super::resolve) when its request was accepted, so all other code can rely on these checks.
///
/// Code that queues, stores, authorizes or reports generations uses only the envelope. The stored form is one flat
/// object, which the previous version can read, too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub model: String,
    #[serde(flatten)]
    pub work: Work,
    /// How exactly the networks compute. Jobs of versions without this field are exact.
    #[serde(default)]
    pub precision: Precision,
    /// Number of preview frames, evenly spaced over the steps.
    pub previews: u32,
    #[serde(flatten)]
    pub output: Output,
    pub on_disconnect: OnDisconnect,
    #[serde(default)]
    pub priority: Priority,
    /// A generation that has not started after this many seconds expires.
    pub start_timeout_s: u32,
    /// Seconds that one attempt may take; `None` means the limit of the settings.
    #[serde(default)]
    pub run_timeout_s: Option<u32>,
    /// The receiver of messages about the generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    /// The client's own labels.
    pub metadata: BTreeMap<String, String>,
    /// Warnings to the client about the pictures. Warnings have no effect on how the pictures are drawn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// What happens to flagged pictures: the policy of the key or of the server when the request was accepted. It is
    /// not part of the fingerprint.
    #[serde(default, skip_serializing_if = "SafetyPolicy::is_off")]
    pub safety: SafetyPolicy,
    /// The trace of the request. It has no effect on how the pictures are drawn, and is not part of the fingerprint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
}

/// What happens to a generation when its waiting client disconnects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDisconnect {
    /// `Cancel` if the client waits for the bytes or the stream of its new generation, and the request has neither an
    /// idempotency key nor an id that the client chose, because this client could not find the generation again.
    /// Otherwise `Keep`.
    Auto,
    Keep,
    Cancel,
}

impl Job {
    /// The pictures that the request contained.
    pub fn inputs(&self) -> impl Iterator<Item = &InputImage> {
        self.work.placed_inputs().map(|(_, input)| input)
    }

    /// The picture in this field of the request.
    pub fn input_mut(&mut self, place: ImageField) -> Option<&mut InputImage> {
        match &mut self.work {
            Work::Draw(draw) => draw.input_mut(place),
            Work::Film(film) => {
                film.image.as_mut().filter(|_| matches!(place, ImageField::Image | ImageField::Reference(0)))
            }
            Work::Sound(_) => None,
        }
    }

    /// The names of the approximations that change the result; empty for an exact result.
    pub fn approximations(&self) -> Vec<&'static str> {
        let mut approximations = self.work.draw().map(Draw::approximations).unwrap_or_default();
        approximations.extend((self.precision == Precision::Fast).then_some("fast_precision"));
        approximations
    }

    /// The request that makes the same results again: `params` of the API, with the fields of the table for which
    /// [`Field::shown`](super::Field::shown) is true.
    pub fn params(&self) -> Map<String, Value> {
        let mut stored = match serde_json::to_value(self) {
            Ok(Value::Object(stored)) => stored,
            _ => Map::new(),
        };
        if let Some(Value::Array(further)) = stored.remove("further_images") {
            let first = stored.remove(table::IMAGE.name).into_iter();
            stored.insert(table::IMAGE.name.to_owned(), first.chain(further).collect());
        }
        stored.insert(table::OUTPUT.name.to_owned(), self.output.field());
        let shown = self.work.kind().fields().iter().filter(|field| field.shown);
        shown.filter_map(|field| stored.remove_entry(field.name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A flat object as the previous version stored it and still reads it, here without the pictures.
    const STORED: &str = r#"{
        "model": "tiny", "prompt": "a fox", "negative_prompt": null, "prompt_syntax": "weighted",
        "loras": [{"name": "ink", "scale": 0.7}], "width": 64, "height": 128, "n": 2, "steps": 3,
        "sigmas": [14.6, 0.3, 0.0], "guidance_scale": 7.5, "guidance_rescale": 0.25, "guidance_interval": [0.1, 0.9],
        "scheduler": {"_class_name": "DDIMScheduler"}, "eta": 0.5, "clip_skip": 1, "decoder": "tiny",
        "feature_cache": {"kind": "deepcache", "interval": 2}, "prompt_2": "ink", "original_size": [64, 64],
        "crop_top_left": [0, 0], "target_size": [64, 64], "negative_original_size": [64, 64],
        "negative_crop_top_left": [0, 0], "negative_target_size": [64, 64], "aesthetic_score": 6.0,
        "negative_aesthetic_score": 2.5,
        "refiner": {"model": "fine", "switch_at": 0.8, "aesthetic_score": 6.0, "negative_aesthetic_score": 2.5},
        "controls": [
            {"model": "edges", "scale": 1.0, "start": 0.0, "end": 1.0, "guess_mode": false, "preprocess": "canny"}
        ],
        "strength": 0.5, "mask_blur": 4, "mask_invert": true, "padding_mask_crop": 16, "keep_unmasked": false,
        "seed": 18446744073709551615, "seed_mode": "batch", "precision": "exact", "previews": 3,
        "encoding": {"format": "jpeg", "quality": 80}, "metadata_level": "seed", "on_disconnect": "cancel",
        "priority": "high", "start_timeout_s": 600, "run_timeout_s": 77,
        "webhook": {"url": "https://example.org/", "events": ["completed"]}, "metadata": {"key": "valué"}
    }"#;

    #[test]
    fn the_stored_form_is_the_flat_one_of_the_version_before() {
        let mut stored: Value = serde_json::from_str(STORED).unwrap();
        let image = json!({"upload": "ab".repeat(32), "width": 64, "height": 128});
        stored["image"] = image.clone();
        stored["mask"] = image.clone();
        stored["controls"][0]["image"] = image;
        let job: Job = serde_json::from_str(&stored.to_string()).unwrap();
        assert_eq!(serde_json::to_value(&job).unwrap(), stored);
        stored.as_object_mut().unwrap().remove("precision");
        let older: Job = serde_json::from_str(&stored.to_string()).unwrap();
        assert_eq!(older, job, "jobs of versions without precision are exact");
        let Work::Draw(draw) = &job.work else { panic!("{:?}", job.work) };
        assert_eq!((draw.seed, draw.n, job.previews, job.inputs().count()), (u64::MAX, 2, 3, 3));
        assert!(draw.levels.is_some() && draw.micro_conditioning.is_some() && draw.refiner.is_some());
    }

    #[test]
    fn a_sound_is_stored_as_a_flat_object_too() {
        let stored = json!({
            "model": "waves", "prompt": "rain", "negative_prompt": "", "seconds": 0.2031, "n": 2, "steps": 8,
            "guidance_scale": 2.5, "scheduler": "ddim", "eta": 0.5, "seed": 7, "seed_mode": "batch",
            "precision": "exact", "previews": 0,
            "encoding": {"format": "wav", "sample_format": "f32"}, "metadata_level": "none", "on_disconnect": "keep",
            "priority": "normal", "start_timeout_s": 600, "run_timeout_s": null, "metadata": {},
        });
        let job: Job = serde_json::from_str(&stored.to_string()).unwrap();
        assert_eq!(serde_json::to_value(&job).unwrap(), stored);
        let Work::Sound(sound) = &job.work else { panic!("{:?}", job.work) };
        assert_eq!((sound.seconds, sound.seed_of(1), job.inputs().count()), (0.2031, 7, 0));
        let params = job.params();
        assert_eq!(params["output"], json!({"format": "wav", "sample_format": "f32", "metadata": "none"}));
        assert!(params.contains_key("seconds") && !params.contains_key("width") && !params.contains_key("previews"));
    }

    #[test]
    fn a_film_is_stored_as_a_flat_object_too() {
        let image = json!({"upload": "ab".repeat(32), "width": 64, "height": 128});
        let stored = json!({
            "model": "svd", "prompt": "", "negative_prompt": "", "image": image, "frames": 14, "fps": 7, "width": 64,
            "height": 128, "n": 1, "steps": 8, "guidance_scale": 3.0, "min_guidance_scale": 1.0,
            "motion_bucket_id": 127, "noise_aug_strength": 0.02, "decode_chunk_size": 8, "scheduler": "euler",
            "seed": 7, "seed_mode": "batch", "precision": "exact", "previews": 0, "encoding": {"format": "gif"},
            "metadata_level": "seed", "on_disconnect": "keep", "priority": "normal", "start_timeout_s": 600, "run_timeout_s": null,
            "metadata": {},
        });
        let mut job: Job = serde_json::from_str(&stored.to_string()).unwrap();
        assert_eq!(serde_json::to_value(&job).unwrap(), stored);
        let Work::Film(film) = &job.work else { panic!("{:?}", job.work) };
        assert_eq!((film.frames, film.seed_of(1), job.inputs().count()), (14, 7, 1));
        let params = job.params();
        assert_eq!(params["output"], json!({"format": "gif", "metadata": "seed"}));
        assert!(params.contains_key("motion_bucket_id") && params["previews"] == 0);
        for place in [ImageField::Image, ImageField::Reference(0)] {
            assert!(job.input_mut(place).is_some(), "the picture alone, and in a list");
        }
        assert!(job.input_mut(ImageField::Mask).is_none());
    }

    #[test]
    fn a_row_without_its_work_is_an_error() {
        let envelope = json!({
            "model": "tiny", "previews": 0, "metadata_level": "full", "on_disconnect": "keep", "start_timeout_s": 600,
            "metadata": {},
        });
        assert!(serde_json::from_value::<Job>(envelope).is_err());
    }
}
