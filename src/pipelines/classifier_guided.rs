//! Recipe of sampling guided by a classifier (Dhariwal and Nichol 2021, arXiv:2105.05233).

use super::{
    Compute, Frame, PipelineError, PlainUNet, Prepared,
    calls::{ClassGradient, Predict, PredictRow},
    latents::noise_of,
};
use crate::{
    diffusion::{Denoise, Error, Latents, Prediction, Schedule, StepPosterior, sample},
    generation::Phase,
};

/// Draws the generation's `n` pictures, each of its class. With diffusers' `DDPMScheduler`, the recipe is algorithm 1
/// of the paper: the mean of each step is shifted along the classifier's gradient, in proportion to the variance. With
/// other schedulers, the recipe is algorithm 2, which changes the predicted noise.
///
/// # Errors
/// A network failed, the sampler produced a number that is not finite, or the model has networks of another type.
pub async fn classifier_guided(compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
    let Prepared { model, scheduler, .. } = prepared;
    let draw = prepared.draw()?;
    let networks = model.networks::<PlainUNet>()?;
    let schedule = Schedule::of(scheduler, draw).map_err(|error| PipelineError::Sampler(error.to_string()))?;
    let [c, h, w] = networks.sample_shape([draw.height, draw.width].map(|side| side as usize));

    let mut noise = noise_of(draw);
    let x = noise.draw([draw.n as usize, c, h, w]).scale(schedule.init_noise_sigma()); // (n, C, h, w)
    let guided = ClassifierGuided {
        compute,
        classes: &draw.class_labels,
        knows_classes: networks.config.num_class_embeds.is_some(),
        outputs: networks.config.out_channels,
        scale: draw.class_guidance_scale.unwrap_or_default(),
        prediction: scheduler.prediction(),
        schedule: &schedule,
    };
    let samples = sample(&guided, &schedule, draw.eta, x, &mut noise).await?;

    let pictures = (0..draw.n as usize).map(|i| networks.output.frame(samples.row(i), [c, h, w]));
    let pictures: Option<Vec<Frame>> = pictures.collect();
    pictures.ok_or_else(|| PipelineError::Sampler("the samples are no pictures".to_owned()))
}

/// A [`Denoise`] that combines a U-Net with the gradient of a classifier.
struct ClassifierGuided<'a, C> {
    compute: &'a C,
    /// One class per picture.
    classes: &'a [u32],
    /// Whether the U-Net also takes the class as input.
    knows_classes: bool,
    /// Channels of the U-Net's output: the number of channels of a sample, or twice this number if the network also
    /// predicts variances.
    outputs: usize,
    /// The scale `s` of the paper; 0 disables the classifier.
    scale: f64,
    prediction: Prediction,
    schedule: &'a Schedule,
}

impl<C: Compute> ClassifierGuided<'_, C> {
    /// The U-Net's prediction, and its prediction of the variance, if the U-Net predicts the variance. Both are (n, C,
    /// h, w).
    async fn unet(&self, x: &Latents, t: f64) -> Result<(Latents, Option<Latents>), Error> {
        let [b, c, h, w] = x.shape();
        let call = Predict { shape: [c, h, w], outputs: self.outputs };
        let rows = self.rows(x, t, self.knows_classes);
        let answers = self.compute.call(Phase::Denoising, call, rows).await;
        let answers = answers.map_err(|error| Error::Denoiser(Box::new(error)))?;
        let half = |from: usize| {
            let part = answers.iter().flat_map(|row| row.iter().skip(from).take(c * h * w).copied());
            Latents::new([b, c, h, w], part.collect())
        };
        let variance = (self.outputs == 2 * c).then(|| half(c * h * w)).transpose()?;
        Ok((half(0)?, variance))
    }

    /// The gradient `s ∇ ln p(y | x)`, (n, C, h, w); `None` if the scale is 0.
    async fn gradient(&self, x: &Latents, t: f64) -> Result<Option<Latents>, Error> {
        if self.scale == 0.0 {
            return Ok(None);
        }
        let [b, c, h, w] = x.shape();
        let call = ClassGradient { shape: [c, h, w] };
        let answers = self.compute.call(Phase::Denoising, call, self.rows(x, t, true)).await;
        let answers = answers.map_err(|error| Error::Denoiser(Box::new(error)))?;
        Ok(Some(Latents::new([b, c, h, w], answers.concat())?.scale(self.scale)))
    }

    fn rows(&self, x: &Latents, t: f64, with_classes: bool) -> Vec<PredictRow> {
        let class = |i: usize| self.classes.get(i).copied().filter(|_| with_classes);
        (0..x.shape()[0]).map(|i| PredictRow { sample: x.row(i).to_vec(), t: t as f32, class: class(i) }).collect()
    }
}

impl<C: Compute> Denoise for ClassifierGuided<'_, C> {
    /// Algorithm 2: the output predicts `ε − √(1 − ᾱ) s ∇ ln p(y | x)`.
    async fn predict(&self, x: &Latents, t: f64) -> Result<Latents, Error> {
        let (prediction, _) = self.unet(x, t).await?;
        let Some(gradient) = self.gradient(x, t).await? else { return Ok(prediction) };
        // Some samplers also call the network at midpoints of steps, which are not in the schedule. The nearest
        // training timestep has nearly the same noise level as the midpoint.
        let level = || self.schedule.level(t.round_ties_even());
        let point = self.schedule.points().iter().find(|point| point.t == t).copied().unwrap_or_else(level);
        Ok(Latents::combine(&[(1.0, &prediction), (self.prediction.gradient_factor(&point), &gradient)]))
    }

    /// Algorithm 1: the sampler applies the gradient to the mean of the step.
    async fn posterior(&self, x: &Latents, t: f64) -> Result<StepPosterior, Error> {
        let (prediction, variance) = self.unet(x, t).await?;
        Ok(StepPosterior { prediction, variance, gradient: self.gradient(x, t).await? })
    }

    fn stepped(&self, step: usize, steps: usize, denoised: &Latents) {
        self.compute.stepped(step, steps, denoised);
    }
}
