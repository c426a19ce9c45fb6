//! Approximations: settings that make a picture faster and change it slightly. All are off by default; the API and the
//! picture's metadata list the ones in use.

use serde::{Deserialize, Serialize};

use super::{
    Fields,
    field::Bounds,
    table::{self, CACHE_INTERVAL, CACHE_KIND, FEATURE_CACHE},
};

/// The range of sampling steps that use guidance, as fractions of all steps (Kynkäänniemi et al. 2024,
/// arXiv:2404.07724).
///
/// The paper gives the range as noise levels; this type gives it as positions: after i of n steps, the network calls of
/// the next step are guided if `start ≤ i/n < end`. Hence a `start` of 0 includes the first step, and an `end` of 1
/// includes the last step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f64; 2]", into = "[f64; 2]")]
pub struct GuidanceInterval {
    start: f64,
    end: f64,
}

impl GuidanceInterval {
    /// Every step is guided.
    pub const WHOLE: GuidanceInterval = GuidanceInterval { start: 0.0, end: 1.0 };

    /// Whether the next step is guided. `done`, in `[0, 1)`, is the finished fraction of all steps.
    pub fn covers(&self, done: f64) -> bool {
        self.start <= done && done < self.end
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

/// The network that decodes latents into a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decoder {
    /// The model's own autoencoder.
    #[default]
    Full,
    /// A much smaller network that approximates the autoencoder: the component `vae_tiny` of the model folder.
    Tiny,
}

impl Decoder {
    /// Reads `decoder`. A decoder that the model does not have is an error.
    pub(super) fn read(fields: &mut Fields, on: &Bounds<'_>) -> Decoder {
        let name = table::DECODER.name;
        if fields.peek(name).is_some_and(|word| word == "tiny") && !on.card.decoders.contains(&Decoder::Tiny) {
            fields.take(name);
            let detail = format!("must be full, not tiny: the model {:?} has no component vae_tiny", on.card.name);
            fields.error(name, "invalid_value", detail);
        }
        fields.get_or_default(&table::DECODER, on)
    }
}

/// Reuses features of the denoiser in later calls of the same run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureCache {
    pub kind: FeatureCacheKind,
    /// One of every `interval` calls of the denoiser is computed in full, starting with the first call; 2 to 10.
    pub interval: u32,
}

/// The method of a feature cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureCacheKind {
    /// In the calls between two full calls, only the shallowest branch of the U-Net runs, on the deep features of the
    /// last full call (Ma et al. 2023, arXiv:2312.00858).
    #[serde(rename = "deepcache")]
    DeepCache,
}

impl FeatureCache {
    /// Reads `{"kind": "deepcache", "interval": N}` with N in 2..=10.
    pub(super) fn read(fields: &mut Fields, on: &Bounds<'_>) -> Option<FeatureCache> {
        fields.nested(&FEATURE_CACHE, |cache| {
            let kind = cache.required(&CACHE_KIND, on, "for example deepcache");
            let interval = cache.required(&CACHE_INTERVAL, on, "for example 3");
            Some(FeatureCache { kind: kind?, interval: interval? })
        })?
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::generation::{Job, ModelCard, Work, limits::LIMITS};

    #[test]
    fn an_interval_contains_its_start_but_its_end_only_in_the_last_step() {
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
    fn written_approximations_are_read_unchanged() {
        let interval = GuidanceInterval::from([0.2, 0.8]);
        assert_eq!(serde_json::to_value(interval).unwrap(), json!([0.2, 0.8]));
        let cache = FeatureCache { kind: FeatureCacheKind::DeepCache, interval: 3 };
        assert_eq!(serde_json::to_value(cache).unwrap(), json!({"kind": "deepcache", "interval": 3}));
        let serde_json::Value::Object(request) = json!({"guidance_interval": interval, "feature_cache": cache}) else {
            panic!("a request is an object")
        };
        let mut fields = Fields::new(request);
        let card = ModelCard::default();
        let on = Bounds { card: &card, limits: &LIMITS };
        assert_eq!(fields.get(&table::GUIDANCE_INTERVAL, &on), Some(interval));
        assert_eq!(FeatureCache::read(&mut fields, &on), Some(cache));
        assert_eq!(fields.finish(), []);
    }

    #[test]
    fn generations_stored_before_approximations_existed_are_exact() {
        let kept = json!({
            "model": "m", "prompt": "a", "negative_prompt": "", "width": 64, "height": 64, "n": 1, "steps": 20,
            "guidance_scale": 5.0, "guidance_rescale": 0.0, "scheduler": "euler", "eta": 0.0, "clip_skip": 0, "seed": 1,
            "seed_mode": "per_image", "previews": 0, "metadata_level": "full", "on_disconnect": "auto",
            "start_timeout_s": 600, "metadata": {},
        });
        let job: Job = serde_json::from_value(kept).unwrap();
        let Work::Draw(draw) = job.work else { panic!("a drawing") };
        assert_eq!(draw.approximations(), [""; 0]);
        assert_eq!(draw.guidance_interval, GuidanceInterval::WHOLE);
    }
}
