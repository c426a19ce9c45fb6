//! The safety checker of Stable Diffusion (diffusers' `StableDiffusionSafetyChecker`): compares what a picture shows
//! with vectors of unwanted concepts.

mod configuration;

use candle_core::Tensor;

use super::{clip_preparation::Preparation, clip_vision::ClipVisionModel, layers::Linear, pause::ToEnd};
use crate::{
    device::Device,
    imaging::Pixels,
    weights::{LoadError, ModelFolder, WeightSize, Weights, as_stored},
};
use configuration::SafetyCheckerConfig;

/// The network with its concepts.
#[derive(Debug)]
pub struct SafetyChecker {
    vision_model: ClipVisionModel,
    visual_projection: Linear,
    /// A picture that is near one of these concepts is compared more strictly with the others.
    special_care: Concepts,
    concepts: Concepts,
    preparation: Preparation,
    device: Device,
}

/// Vectors of concepts, each with the cosine from which a picture counts as near.
#[derive(Debug)]
struct Concepts {
    /// Vectors of length 1.
    directions: Vec<Vec<f32>>,
    thresholds: Vec<f32>,
}

/// How near a picture is to each concept: its cosine minus the threshold, rounded to three decimals. A positive score
/// is a hit.
#[derive(Clone, Debug, PartialEq)]
pub struct SafetyScores {
    pub special_care: Vec<f32>,
    pub concepts: Vec<f32>,
}

impl SafetyScores {
    /// Whether the picture is near an unwanted concept (diffusers' `has_nsfw_concepts`).
    pub fn is_flagged(&self) -> bool {
        self.concepts.iter().any(|score| *score > 0.0)
    }
}

/// The number that a hit among the concepts for special care adds to the later scores.
const ADJUSTMENT: f32 = 0.01;

/// The number of unwanted concepts, and the number of concepts for special care.
const CONCEPTS: usize = 17;
const SPECIAL_CARE: usize = 3;

impl SafetyChecker {
    /// Whether the folder has a safety checker: its configuration and its weights. Many copies of pipelines have only
    /// the configuration, because few programs use the weights.
    pub fn is_in(folder: &ModelFolder) -> bool {
        let component = component(folder);
        let names = folder.names(component).unwrap_or_default();
        folder.has(&format!("{component}/config.json")) && names.iter().any(|name| name.ends_with(".safetensors"))
    }

    /// Loads the checker of a folder: of a pipeline, which has it in `safety_checker` and the settings for pictures in
    /// `feature_extractor`, or of a checker alone. Blocks until the weights are in memory. `device` must be a CPU.
    ///
    /// # Errors
    /// A file is missing or broken, or does not fit the network.
    pub fn load(folder: &ModelFolder, device: &Device) -> Result<Self, LoadError> {
        let (weights, config) = open(folder, device)?;
        let preparation = Preparation::read(folder, component(folder) == ROOT, config.vision.image_size)?;
        let checker = Self::new(&config, &weights, preparation, device);
        weights.finish()?;
        Ok(checker)
    }

    /// Checks the configuration and the headers of the weights, without reading numbers.
    ///
    /// # Errors
    /// Those of [`SafetyChecker::load`] that can be found in this way.
    pub fn check(folder: &ModelFolder) -> Result<(), LoadError> {
        let device = Device::host();
        let (weights, config) = open(folder, &device)?;
        let preparation = Preparation::read(folder, component(folder) == ROOT, config.vision.image_size)?;
        weights.check(|weights| drop(Self::new(&config, weights, preparation, &device)))
    }

    /// Bytes that the weights take in the memory of the host. Reads only the headers of the files.
    ///
    /// # Errors
    /// A file is missing, or its header is broken.
    pub fn bytes(folder: &ModelFolder) -> Result<u64, LoadError> {
        let device = Device::host();
        let size = WeightSize::read(folder, component(folder), "model")?;
        Ok(size.bytes(device.precision(), device.kernels()))
    }

    fn new(config: &SafetyCheckerConfig, weights: &Weights, preparation: Preparation, device: &Device) -> Self {
        let width = config.projection_dim;
        let concepts = |embeddings: &str, thresholds: &str, count| {
            let directions = weights.tensor(embeddings, &[count, width]).to_vec2::<f32>();
            let thresholds = weights.tensor(thresholds, &[count]).to_vec1::<f32>();
            Concepts {
                directions: directions.unwrap_or_default().into_iter().map(normalized).collect(),
                thresholds: thresholds.unwrap_or_default(),
            }
        };
        Self {
            vision_model: ClipVisionModel::new(&config.vision, &weights.pp("vision_model")),
            visual_projection: Linear::without_bias(&weights.pp("visual_projection"), config.vision.hidden_size, width),
            special_care: concepts("special_care_embeds", "special_care_embeds_weights", SPECIAL_CARE),
            concepts: concepts("concept_embeds", "concept_embeds_weights", CONCEPTS),
            preparation,
            device: device.clone(),
        }
    }

    /// Compares a picture with the concepts, on the threads of the device.
    ///
    /// # Errors
    /// An operation of the device failed, or the picture is so narrow that it cannot be prepared.
    pub fn scores(&self, picture: &Pixels<3>) -> candle_core::Result<SafetyScores> {
        let pixels = self.preparation.prepared(picture)?;
        self.scores_of(&pixels)
    }

    /// Compares a prepared picture (1, side, side, 3) with the concepts.
    fn scores_of(&self, pixels: &Tensor) -> candle_core::Result<SafetyScores> {
        let embedded = self.device.install(|| {
            let pooled = self.vision_model.pooled(pixels).to_end()?;
            self.visual_projection.forward(&pooled)?.flatten_all()?.to_vec1::<f32>()
        })?;
        if embedded.iter().any(|value| !value.is_finite()) {
            candle_core::bail!("the vector of the picture has numbers that are not finite");
        }
        let picture = normalized(embedded);
        // As in diffusers, a hit also raises the scores of the concepts for special care that follow.
        let mut adjustment = 0.0;
        let mut special_care = Vec::with_capacity(SPECIAL_CARE);
        for (direction, threshold) in self.special_care.each() {
            let score = score(cosine(&picture, direction), threshold, adjustment);
            adjustment = if score > 0.0 { ADJUSTMENT } else { adjustment };
            special_care.push(score);
        }
        let concepts = self.concepts.each();
        let concepts = concepts.map(|(direction, threshold)| score(cosine(&picture, direction), threshold, adjustment));
        Ok(SafetyScores { concepts: concepts.collect(), special_care })
    }
}

impl Concepts {
    fn each(&self) -> impl Iterator<Item = (&[f32], f32)> {
        self.directions.iter().map(Vec::as_slice).zip(self.thresholds.iter().copied())
    }
}

/// The component of a folder that is a checker itself.
const ROOT: &str = ".";

/// Where the folder has its checker.
fn component(folder: &ModelFolder) -> &'static str {
    if folder.has("safety_checker/config.json") { "safety_checker" } else { ROOT }
}

fn open(folder: &ModelFolder, device: &Device) -> Result<(Weights, SafetyCheckerConfig), LoadError> {
    let component = component(folder);
    let path = format!("{component}/config.json");
    let config = SafetyCheckerConfig::read(&path, &folder.json(&path)?)?;
    Ok((Weights::open(folder, component, "model", device, as_stored)?, config))
}

/// A cosine minus its threshold, rounded to three decimals in float32, as by diffusers' code in numpy.
fn score(cosine: f32, threshold: f32, adjustment: f32) -> f32 {
    ((cosine - threshold + adjustment) * 1000.0).round_ties_even() / 1000.0
}

/// The vector at length 1, as by torch's `normalize`.
fn normalized(vector: Vec<f32>) -> Vec<f32> {
    let squares: f64 = vector.iter().map(|value| f64::from(*value).powi(2)).sum();
    let length = squares.sqrt().max(1e-12);
    vector.into_iter().map(|value| (f64::from(value) / length) as f32).collect()
}

fn cosine(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_rounded_to_three_decimals() {
        assert_eq!(score(0.2006, 0.2, 0.0), 0.001);
        assert_eq!(score(0.2004, 0.2, 0.0), 0.0, "less than half of a thousandth is no hit");
        assert_eq!(score(0.195, 0.2, ADJUSTMENT), 0.005);
        assert!(score(0.1, 0.2, 0.0) < 0.0);
        let flagged = |concepts: &[f32], special_care: &[f32]| {
            SafetyScores { concepts: concepts.to_vec(), special_care: special_care.to_vec() }.is_flagged()
        };
        assert!(flagged(&[-0.1, 0.001], &[]) && !flagged(&[-0.1, 0.0], &[0.2]));
    }

    #[test]
    fn the_cosine_of_vectors_does_not_depend_on_their_lengths() {
        let (a, b) = (normalized(vec![3.0, 4.0]), normalized(vec![30.0, 40.0]));
        assert!((cosine(&a, &b) - 1.0).abs() < 1e-6);
        assert_eq!(normalized(vec![0.0; 3]), [0.0; 3]);
    }
}
