//! Ways to a picture faster that change it: off unless the request asks, and told wherever the picture is shown.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Fields, ModelCard};

/// Between which shares of the sampling steps guidance is computed (Kynkäänniemi et al. 2024, arXiv:2404.07724).
///
/// The paper bounds guidance by noise levels, this by position: with i of n steps done, the network calls of the next step
/// are guided where `start ≤ i/n < end`. So 0 is the first step, and an `end` of 1 takes in the last.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f64; 2]", into = "[f64; 2]")]
pub struct GuidanceInterval {
    start: f64,
    end: f64,
}

impl GuidanceInterval {
    /// Every step is guided.
    pub const WHOLE: GuidanceInterval = GuidanceInterval { start: 0.0, end: 1.0 };

    /// Whether the step is guided before which this share of all steps, in `[0, 1)`, is done.
    pub fn covers(&self, done: f64) -> bool {
        self.start <= done && done < self.end
    }

    /// `[a, b]` with `0 ≤ a < b ≤ 1`.
    pub(super) fn read(fields: &mut Fields) -> Option<GuidanceInterval> {
        const NAME: &str = "guidance_interval";
        let value = fields.take(NAME)?;
        let bounds = value.as_array().map(|bounds| bounds.iter().map(Value::as_f64).collect::<Vec<_>>());
        let Some([Some(start), Some(end)]) = bounds.as_deref() else {
            return fields.wrong_type(NAME, "two numbers, such as [0.2, 0.8]", &value);
        };
        let (start, end) = (*start, *end);
        for (key, bound) in [("0", start), ("1", end)] {
            if !(0.0..=1.0).contains(&bound) {
                fields.error_below(NAME, key, "out_of_range", format!("must be between 0 and 1, not {bound}"));
                return None;
            }
        }
        if start >= end {
            fields.error(
                NAME,
                "invalid_value",
                format!("must begin before it ends, not at {start} with its end at {end}"),
            );
            return None;
        }
        Some(GuidanceInterval { start, end })
    }
}

impl Default for GuidanceInterval {
    fn default() -> Self {
        GuidanceInterval::WHOLE
    }
}

impl From<[f64; 2]> for GuidanceInterval {
    fn from([start, end]: [f64; 2]) -> Self {
        GuidanceInterval { start, end }
    }
}

impl From<GuidanceInterval> for [f64; 2] {
    fn from(GuidanceInterval { start, end }: GuidanceInterval) -> Self {
        [start, end]
    }
}

/// Which network makes the picture of the latents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decoder {
    /// The model's own autoencoder.
    #[default]
    Full,
    /// A far smaller network trained to give nearly the same, where the model folder has one.
    Tiny,
}

impl Decoder {
    /// One that the model has.
    pub(super) fn read(fields: &mut Fields, card: &ModelCard) -> Option<Decoder> {
        let decoder = fields.choice("decoder", &["full", "tiny"])?;
        if !card.decoders.contains(&decoder) {
            let detail = format!("must be full, not tiny: the model {:?} has no part vae_tiny", card.name);
            fields.error("decoder", "invalid_value", detail);
            return None;
        }
        Some(decoder)
    }
}

/// Parts of the denoiser's answers that a run uses again in its next calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureCache {
    pub kind: FeatureCacheKind,
    /// Every so many calls of the denoiser are whole, the first always; 2 or more.
    pub interval: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureCacheKind {
    /// Between whole calls of the U-Net only its shallowest branch runs, on deep features of the last whole call (Ma et
    /// al. 2023, arXiv:2312.00858).
    #[serde(rename = "deepcache")]
    DeepCache,
}

impl FeatureCache {
    /// `{"kind": "deepcache", "interval": N}` with N in 2..=10.
    pub(super) fn read(fields: &mut Fields) -> Option<FeatureCache> {
        fields.nested("feature_cache", |cache| {
            for (key, example) in [("kind", "deepcache"), ("interval", "3")] {
                match cache.take(key) {
                    Some(value) => cache.put_back(key, value),
                    None => cache.error(key, "required", format!("is required, such as {example}")),
                }
            }
            let kind = cache.choice("kind", &["deepcache"]);
            let interval = cache.integer("interval", 2, 10);
            Some(FeatureCache { kind: kind?, interval: interval? as u32 })
        })?
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_interval_takes_in_its_start_and_leaves_out_its_end_but_for_the_last_step() {
        let covered = |interval: [f64; 2], steps: u32| -> Vec<u32> {
            let interval = GuidanceInterval::from(interval);
            (0..steps).filter(|i| interval.covers(f64::from(*i) / f64::from(steps))).collect()
        };
        assert_eq!(covered([0.0, 1.0], 4), [0, 1, 2, 3]);
        assert_eq!(covered([0.25, 0.75], 4), [1, 2]);
        assert_eq!(covered([0.3, 0.7], 10), [3, 4, 5, 6], "a decimal bound meets its step");
        assert_eq!(covered([0.8, 1.0], 4), [0; 0]);
        for steps in 1..200 {
            let split = (1..10).map(|tenth| f64::from(tenth) / 10.0);
            for at in split {
                let (first, last) = (covered([0.0, at], steps), covered([at, 1.0], steps));
                assert_eq!([first, last].concat(), (0..steps).collect::<Vec<_>>(), "{steps} steps parted at {at}");
            }
        }
    }

    #[test]
    fn they_are_read_as_they_are_written() {
        let interval = GuidanceInterval::from([0.2, 0.8]);
        assert_eq!(serde_json::to_value(interval).unwrap(), json!([0.2, 0.8]));
        let cache = FeatureCache { kind: FeatureCacheKind::DeepCache, interval: 3 };
        assert_eq!(serde_json::to_value(cache).unwrap(), json!({"kind": "deepcache", "interval": 3}));
        let Value::Object(request) = json!({"guidance_interval": interval, "feature_cache": cache}) else {
            panic!("a request is an object")
        };
        let mut fields = Fields::new(request);
        assert_eq!(GuidanceInterval::read(&mut fields), Some(interval));
        assert_eq!(FeatureCache::read(&mut fields), Some(cache));
        assert_eq!(fields.finish(), []);
    }

    #[test]
    fn generations_that_were_kept_before_there_were_any_are_exact() {
        let kept = json!({
            "model": "m", "prompt": "a", "negative_prompt": "", "width": 64, "height": 64, "n": 1, "steps": 20,
            "guidance_scale": 5.0, "guidance_rescale": 0.0, "scheduler": "euler", "eta": 0.0, "clip_skip": 0, "seed": 1,
            "seed_mode": "per_image", "previews": 0, "metadata_level": "full", "on_disconnect": "auto",
            "start_timeout_s": 600, "metadata": {},
        });
        let generation: super::super::Generation = serde_json::from_value(kept).unwrap();
        assert_eq!(generation.approximations(), [""; 0]);
        assert_eq!(generation.guidance_interval, GuidanceInterval::WHOLE);
    }
}
