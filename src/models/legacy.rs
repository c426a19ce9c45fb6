//! Corrections of old configurations, as diffusers' `StableDiffusionPipeline` makes them.

use serde_json::{Map, Value};

/// Sets `steps_offset` to 1, and `clip_sample` from true to false, as the constructor of the pipeline does.
///
/// The constructor reads the values of the scheduler, so an absent key has the default of the scheduler's class:
/// `steps_offset` is 0 in all classes, `clip_sample` is true only in DDIM and DDPM.
pub(super) fn scheduler_config(mut keys: Map<String, Value>) -> Map<String, Value> {
    keys.insert("steps_offset".into(), 1.into());
    let class = keys.get("_class_name").and_then(Value::as_str).unwrap_or_default();
    let clips_by_default = class.starts_with("DDIM") || class.starts_with("DDPM");
    if keys.get("clip_sample").and_then(Value::as_bool).unwrap_or(clips_by_default) {
        keys.insert("clip_sample".into(), false.into());
    }
    keys
}

/// The `sample_size` that a U-Net was trained on, from the `sample_size` in its configuration. In files of diffusers
/// before 0.9.0, a square size below 64 is wrong: these U-Nets were trained on 64.
pub(super) fn sample_size(unet: &Map<String, Value>, (h, w): (usize, usize)) -> (usize, usize) {
    let version = unet.get("_diffusers_version").and_then(Value::as_str).unwrap_or("1");
    let mut numbers = version.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    let before_0_9 = numbers.next() == Some(0) && numbers.next().unwrap_or(0) < 9;
    if before_0_9 && h == w && h < 64 { (64, 64) } else { (h, w) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(keys: Value) -> Value {
        scheduler_config(keys.as_object().unwrap().clone()).into()
    }

    #[test]
    fn old_schedulers() {
        assert_eq!(
            patched(json!({"_class_name": "PNDMScheduler", "beta_end": 0.012})),
            json!({"_class_name": "PNDMScheduler", "beta_end": 0.012, "steps_offset": 1})
        );
        assert_eq!(
            patched(json!({"_class_name": "PNDMScheduler", "steps_offset": 0, "clip_sample": true})),
            json!({"_class_name": "PNDMScheduler", "steps_offset": 1, "clip_sample": false})
        );
        assert_eq!(
            patched(json!({"_class_name": "DDIMScheduler"})),
            json!({"_class_name": "DDIMScheduler", "steps_offset": 1, "clip_sample": false})
        );
    }

    #[test]
    fn old_sample_sizes() {
        let of = |version: &str, size| {
            sample_size(json!({"_diffusers_version": version}).as_object().unwrap(), (size, size)).0
        };
        assert_eq!(
            [of("0.6.0", 32), of("0.8.1", 96), of("0.9.0", 32), of("0.42.1", 8), of("1.0.0", 8)],
            [64, 96, 32, 8, 8]
        );
    }
}
