//! The network as a sampler sees it: one prediction for each picture, guidance already applied where it is wanted.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use super::{
    Compute, Control, DenoiseRow, Denoised, Inputs, PipelineError, TextEmbedding, calls::DenoiseCall,
    feature_cache::KeptFeatures, latents::decode_tiny, setup::Setup, steering::Steering,
};
use crate::{
    diffusion::{Denoise, Error, InvalidStage, Latents, Schedule, guide, guide_edit},
    generation::{GuidanceInterval, Phase},
    models::adapters::AdapterSet,
};

/// What one row of every call is told beside noise and time.
pub(super) struct Branch {
    pub text: TextEmbedding,
    /// Channels behind those of the latents, (C', h, w) for each picture; none for most models.
    pub beside: Vec<Vec<f32>>,
    /// What SDXL is told of sizes.
    pub time_ids: Arc<[f32]>,
    /// The class of each picture, for networks that are told classes.
    pub classes: Vec<u32>,
    /// The one that a guess of a ControlNet is for.
    pub follows_prompt: bool,
}

/// How the answers of the branches become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Guidance {
    /// The only branch's.
    Off,
    /// Of [unconditional, conditional].
    ClassifierFree { scale: f64, rescale: f64 },
    /// Of [text and picture, picture, neither].
    Edit { scale: f64, image_scale: f64 },
}

/// A [`Denoise`] by the networks of a [`Compute`].
pub(super) struct Guided<'a, C> {
    compute: &'a C,
    branches: Vec<Branch>,
    guidance: Guidance,
    interval: GuidanceInterval,
    /// The guidance scale less one, for a network that is told it.
    told: Option<f32>,
    adapters: AdapterSet,
    steering: Steering,
    blend: Option<Blend>,
    /// Steps before this run's own, and of all runs of the generation together.
    steps_before: usize,
    steps_after: usize,
    /// An estimate of the end that is to be shown before the next call.
    unseen: RefCell<Option<(usize, Latents)>>,
    /// The share of the steps that the sampler has reported as done.
    done: Cell<f64>,
    features: RefCell<KeptFeatures>,
}

impl<'a, C: Compute> Guided<'a, C> {
    pub fn new(setup: &Setup<'a, C>, (branches, guidance): (Vec<Branch>, Guidance)) -> Self {
        let draw = setup.draw;
        let told = setup.networks.spec().guidance_embedding.then_some((draw.guidance_scale - 1.0) as f32);
        Guided {
            compute: setup.compute,
            branches,
            guidance,
            interval: draw.guidance_interval,
            told,
            adapters: setup.companions.adapters.clone(),
            steering: Steering::default(),
            blend: None,
            steps_before: 0,
            steps_after: 0,
            unseen: RefCell::default(),
            done: Cell::new(0.0),
            features: RefCell::new(KeptFeatures::new(draw.feature_cache)),
        }
    }

    /// For the run of this schedule by the generation's own model: steered by the request's ControlNets, and followed by the
    /// refiner's steps.
    pub fn steered(self, setup: &Setup<'a, C>, inputs: &Inputs, schedule: &Schedule) -> Result<Self, PipelineError> {
        let steering = Steering::new(setup, inputs, schedule.calls())?;
        let steps_after = setup.stages.refiner.as_ref().map_or(0, |schedule| schedule.steps().len());
        Ok(Guided { steering, steps_after, ..self })
    }

    /// Reports its steps as the last ones of more.
    pub fn after(self, steps_before: usize) -> Self {
        Guided { steps_before, ..self }
    }

    /// After every step puts back what the mask keeps.
    pub fn blended(self, blend: Blend) -> Self {
        Guided { blend: Some(blend), ..self }
    }

    /// The branches of the next call: all, or where guidance is left out the one that follows the prompt.
    fn active(&self) -> &[Branch] {
        let followed = match self.guidance {
            _ if self.interval.covers(self.done.get()) => return &self.branches,
            Guidance::Off | Guidance::Edit { .. } => 0,
            Guidance::ClassifierFree { .. } => 1,
        };
        &self.branches[followed..=followed]
    }
}

impl<C: Compute> Denoise for Guided<'_, C> {
    async fn predict(&self, x: &Latents, t: f64) -> Result<Latents, Error> {
        let unseen = self.unseen.borrow_mut().take();
        if let Some((step, denoised)) = unseen {
            let pictures = decode_tiny(self.compute, Phase::Denoising, &denoised).await;
            self.compute.show(step, pictures.map_err(|error| Error::Denoiser(Box::new(error)))?);
        }
        let [b, c, h, w] = x.shape();
        let branches = self.active();
        let controls = self.steering.next();
        let row = |branch: &Branch, i: usize| DenoiseRow {
            sample: [x.row(i), branch.beside.get(i).map_or(&[], Vec::as_slice)].concat(),
            t: t as f32,
            context: branch.text.clone(),
            time_ids: branch.time_ids.clone(),
            class: branch.classes.get(i).copied(),
            guidance: self.told,
            controls: controls
                .iter()
                .filter(|control: &&Control| branch.follows_prompt || !control.guess)
                .cloned()
                .collect(),
            adapters: self.adapters.clone(),
            features: None,
        };
        let mut rows: Vec<DenoiseRow> = branches
            .iter()
            .flat_map(|branch| (0..b).map(move |i| (branch, i)))
            .map(|(branch, i)| row(branch, i))
            .collect();
        let channels = rows.first().map_or(c, |row| row.sample.len() / (h * w));
        let (depth, starts) = self.features.borrow_mut().next(rows.len());
        rows.iter_mut().zip(starts).for_each(|(row, start)| row.features = start);
        let context = rows.first().map(|row| row.context.dims()).unwrap_or_default();
        let call = DenoiseCall { shape: [channels, h, w], context, depth, channels: c };
        let answers = self.compute.call(Phase::Denoising, call, rows).await;
        let answers = answers.map_err(|error| Error::Denoiser(Box::new(error)))?;
        let (answers, kept): (Vec<_>, Vec<_>) =
            answers.into_iter().map(|Denoised { prediction, features }| (prediction, features)).unzip();
        self.features.borrow_mut().keep(kept.into_iter().flatten());

        let predictions = answers.chunks(b).map(|rows| Latents::new([b, c, h, w], rows.concat()));
        let predictions = predictions.collect::<Result<Vec<Latents>, Error>>()?;
        match (&predictions[..], self.guidance) {
            ([uncond, cond], Guidance::ClassifierFree { scale, rescale }) => Ok(guide(uncond, cond, scale, rescale)),
            ([text, image, uncond], Guidance::Edit { scale, image_scale }) => {
                Ok(guide_edit(text, image, uncond, scale, image_scale))
            }
            ([only], _) => Ok(only.clone()),
            _ => Err(Error::Denoiser(format!("{} answers to {} branches", predictions.len(), branches.len()).into())),
        }
    }

    fn amend(&self, x: Latents, noised: &dyn Fn(&Latents, &Latents) -> Latents) -> Latents {
        match &self.blend {
            Some(blend) => blend.apply(x, noised),
            None => x,
        }
    }

    fn stepped(&self, step: usize, steps: usize, denoised: &Latents) {
        self.done.set(step as f64 / steps as f64);
        let (step, steps) = (self.steps_before + step, self.steps_before + steps + self.steps_after);
        self.compute.stepped(step, steps, denoised);
        if self.compute.wants_sketch(step, steps) {
            *self.unseen.borrow_mut() = Some((step, denoised.clone()));
        }
    }
}

/// What stands where a mask is black: the picture that is filled in, with as much noise as the step has.
pub(super) struct Blend {
    /// The picture's latents, (B, C, h, w).
    pub image: Latents,
    /// The run's first noise, (B, C, h, w).
    pub noise: Latents,
    /// 1 where the sampler's result stands, else 0; (h, w).
    pub mask: Vec<f32>,
}

impl Blend {
    fn apply(&self, x: Latents, noised: &dyn Fn(&Latents, &Latents) -> Latents) -> Latents {
        let kept = noised(&self.image, &self.noise);
        x.masked(&self.mask, &kept)
    }
}

impl From<InvalidStage> for PipelineError {
    fn from(error: InvalidStage) -> PipelineError {
        PipelineError::Sampler(error.to_string())
    }
}

impl From<Error> for PipelineError {
    fn from(error: Error) -> PipelineError {
        PipelineError::Sampler(error.to_string())
    }
}
