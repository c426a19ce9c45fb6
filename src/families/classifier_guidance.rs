//! Pixel models that a classifier of noisy pictures guides (Dhariwal and Nichol 2021, arXiv:2105.05233). A folder has a
//! `unet`, a `classifier` and a scheduler. diffusers has no pipeline for these models; their
//! `model_index.json` names `ClassifierGuidancePipeline`.

use serde_json::Value;

use super::{
    CardError, ControlDemand, Description, Family, ModelIndex, ModelSize, Outline, Plan, Recipe, SamplingDemand,
    card::{self, Defaults},
    extras::Extras,
    plan::calls,
};
use crate::{
    device::Device,
    generation::{Decoder, Job, ModelCard, Task, Work},
    models::{
        NoisyClassifier, UNet2DModel, autoencoder_kl::current_name, demand::Demand,
        noisy_classifier::NoisyClassifierConfig, unet2d::UNet2DConfig,
    },
    pipelines::{Classifier, Compute, Frame, Loaded, Output, PipelineError, PlainUNet, Prepared, classifier_guided},
    weights::{LoadError, ModelFolder, WeightSize, Weights, as_stored},
};

/// The family of pixel models with a classifier.
pub struct ClassifierGuidance;

const UNET: (&str, &str) = ("unet", "diffusion_pytorch_model");
const CLASSIFIER: (&str, &str) = ("classifier", "model");

/// The configurations of a folder's networks.
#[derive(Clone, Debug)]
struct Sizes {
    unet: UNet2DConfig,
    classifier: NoisyClassifierConfig,
}

impl Sizes {
    fn read(folder: &ModelFolder) -> Result<Sizes, LoadError> {
        let (unet, classifier) = ("unet/config.json", "classifier/config.json");
        let sizes = Sizes {
            unet: UNet2DConfig::read(unet, &folder.json(unet)?)?,
            classifier: NoisyClassifierConfig::read(classifier, &folder.json(classifier)?)?,
        };
        sizes.check(unet, classifier)?;
        Ok(sizes)
    }

    /// Checks that both networks take pictures of the same size and channels, and that a U-Net with classes has at
    /// least as many classes as the classifier.
    fn check(&self, unet: &str, classifier: &str) -> Result<(), LoadError> {
        let refused = |path: &str, key: &str, value: Value, supported: String| {
            Err(LoadError::UnsupportedKey { path: path.into(), key: key.into(), value: Box::new(value), supported })
        };
        let side = self.classifier.image_size;
        let size = self.unet.sample_size.map(|size| size.height_width());
        if size != Some((side, side)) {
            let value = size.map_or(Value::Null, |(h, w)| vec![h, w].into());
            return refused(unet, "sample_size", value, format!("{side}, the image_size of the classifier"));
        }
        if self.unet.in_channels != 3 {
            return refused(unet, "in_channels", self.unet.in_channels.into(), "3".into());
        }
        if ![3, 6].contains(&self.unet.out_channels) {
            return refused(unet, "out_channels", self.unet.out_channels.into(), "3, 6".into());
        }
        if self.classifier.in_channels != 3 {
            return refused(classifier, "in_channels", self.classifier.in_channels.into(), "3".into());
        }
        match self.unet.num_class_embeds {
            Some(classes) if classes < self.classifier.num_classes => {
                let supported = format!("{classes} or fewer, the classes of the unet");
                refused(classifier, "num_classes", self.classifier.num_classes.into(), supported)
            }
            _ => Ok(()),
        }
    }
}

impl Family for ClassifierGuidance {
    fn name(&self) -> &'static str {
        "classifier_guidance"
    }

    fn classes(&self) -> &'static [&'static str] {
        &["ClassifierGuidancePipeline"]
    }

    fn describe(&self, name: &str, folder: &ModelFolder) -> Result<Description, CardError> {
        let extras = Extras::read(folder)?;
        let sizes = Sizes::read(folder)?;
        let index = ModelIndex::of(folder)?;
        let mut notes = folder.notes();
        let scheduler_config = card::scheduler(folder, &index, &mut notes)?;
        let unet = Weights::open(folder, UNET.0, UNET.1, &Device::host(), current_name)?;
        notes.extend(unet.note());
        unet.check(|weights| drop(UNet2DModel::new(&sizes.unet, weights)))?;
        let classifier = Weights::open(folder, CLASSIFIER.0, CLASSIFIER.1, &Device::host(), as_stored)?;
        notes.extend(classifier.note());
        classifier.check(|weights| drop(NoisyClassifier::new(&sizes.classifier, weights)))?;

        let side = sizes.classifier.image_size as u32;
        let defaults = Defaults { width: side, height: side, steps: 250, guidance_scale: 1.0 };
        let card = ModelCard {
            min_side_pixels: side,
            size_multiple: side,
            latents: (3, 1),
            tasks: vec![Task::ClassConditional],
            takes_prompt: false,
            max_side_pixels: Some(side),
            classes: vec![String::new(); sizes.classifier.num_classes].into(),
            classifier_guidance: true,
            predicts_variance: sizes.unet.out_channels == 6,
            decoders: vec![Decoder::Full],
            ..card::base(name, &extras, scheduler_config, defaults)?
        };
        let classifier = WeightSize::read_wide(folder, CLASSIFIER.0, CLASSIFIER.1)?;
        let size = ModelSize::float32(card::size(folder, &[UNET])?.and(classifier));
        Ok(Description { card, size, notes, outline: Box::new(sizes) })
    }

    fn load(&self, folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError> {
        let sizes = Sizes::read(folder)?;
        let weights = Weights::open(folder, UNET.0, UNET.1, device, current_name)?;
        let unet = UNet2DModel::new(&sizes.unet, &weights);
        weights.finish()?;
        let weights = Weights::open(folder, CLASSIFIER.0, CLASSIFIER.1, device, as_stored)?;
        let classifier = NoisyClassifier::new(&sizes.classifier, &weights);
        weights.finish()?;
        Ok(Box::new(PlainUNet {
            unet,
            config: sizes.unet,
            output: Output::Signed,
            classifier: Some(Classifier { network: classifier, config: sizes.classifier }),
            device: device.clone(),
        }))
    }
}

impl Recipe for ClassifierGuidance {
    async fn draw(&self, compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
        classifier_guided(compute, prepared).await
    }
}

impl Outline for Sizes {
    fn plan(&self, job: &Job, card: &ModelCard, _controls: &ControlDemand<'_>) -> Plan {
        let Work::Draw(draw) = &job.work else { return Plan::default() };
        let [h, w] = [draw.height as usize, draw.width as usize];
        let unet = self.unet.demand([h, w]);
        let call = if draw.class_guidance_scale.unwrap_or_default() == 0.0 {
            unet
        } else {
            unet.then(self.classifier.demand())
        };
        let sampling = SamplingDemand {
            state: 3 * h * w,
            branches: 1,
            calls: calls(draw, card),
            call,
            before: Demand::default(),
            after: Demand::default(),
        };
        Plan::of(draw, sampling)
    }
}
