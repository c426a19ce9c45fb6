//! [`Guided`], the [`Denoise`] of recipes with a prompt or a class: calls the denoiser for each branch of guidance and
//! combines the predictions to one per picture.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use super::{
    Compute, Control, DenoiseRow, Denoised, FittedInputs, PipelineError, Reference, TextEmbedding, calls::DenoiseCall,
    control_schedule::ControlSchedule, feature_cache::KeptFeatures, latents::decode_tiny, setup::Setup,
};
use crate::{
    diffusion::{Denoise, Error, InvalidStage, Latents, Schedule, guide, guide_edit, limited},
    generation::{GuidanceInterval, GuidanceLimits, Phase, SkipLayerGuidance},
    models::adapters::AdapterSet,
};

/// The conditioning of one group of rows, such as the rows of the negative prompt. Each branch adds one row per picture
/// to a call.
#[derive(Clone)]
pub(super) struct Branch {
    pub text: TextEmbedding,
    /// Input channels that follow the channels of the latents, (C', h, w) per picture; empty for most models.
    pub extra_channels: Vec<Vec<f32>>,
    /// SDXL's micro-conditioning; see [`DenoiseRow::time_ids`].
    pub time_ids: Arc<[f32]>,
    /// The class of each picture, for networks that take one.
    pub classes: Vec<u32>,
    /// Whether a ControlNet with `guess_mode` acts on this branch. Such a ControlNet skips the branch of the negative
    /// prompt.
    pub follows_prompt: bool,
    /// The blocks of the network that are left out, by index.
    pub skipped: Arc<[u32]>,
}

/// How the predictions of the branches are combined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Guidance {
    /// Uses the prediction of the only branch.
    Off,
    /// Combines the branches [unconditional, conditional], and for some calls a third branch: conditional without some
    /// blocks.
    ClassifierFree { scale: f64, rescale: f64 },
    /// Combines the branches [text and picture, picture alone, neither].
    Edit { scale: f64, image_scale: f64 },
}

/// A [`Denoise`] that calls the denoiser through a [`Compute`].
pub(super) struct Guided<'a, C> {
    compute: &'a C,
    branches: Vec<Branch>,
    guidance: Guidance,
    interval: GuidanceInterval,
    limits: Option<GuidanceLimits>,
    /// The pictures that the network sees as further tokens.
    references: Arc<[Reference]>,
    skip_layer_guidance: Option<SkipLayerGuidance>,
    /// The number of calls so far.
    calls: Cell<usize>,
    /// The number of this sampler run's steps.
    steps: usize,
    /// The guidance scale, for a network that takes it as input.
    guidance_input: Option<f64>,
    /// Maximum number of tokens of a prompt, if prompts of different lengths may share a call.
    most_tokens: Option<usize>,
    adapters: AdapterSet,
    control_schedule: ControlSchedule,
    blend: Option<Blend>,
    /// Steps of the generation before this sampler run.
    steps_before: usize,
    /// Steps of the generation after this sampler run.
    steps_after: usize,
    /// A step and its estimate of x0, to be shown as a preview before the next call.
    unseen: RefCell<Option<(usize, Latents)>>,
    /// The share of this sampler run's steps that are done, in [0, 1].
    done: Cell<f64>,
    features: RefCell<KeptFeatures>,
}

impl<'a, C: Compute> Guided<'a, C> {
    pub fn new(setup: &Setup<'a, C>, (branches, guidance): (Vec<Branch>, Guidance)) -> Self {
        let draw = setup.draw;
        let guidance_input = setup.networks.spec().guidance_embedding.then_some(draw.guidance_scale);
        Guided {
            compute: setup.compute,
            branches,
            guidance,
            interval: draw.guidance_interval,
            limits: draw.guidance_limits,
            references: Arc::from([]),
            skip_layer_guidance: draw.skip_layer_guidance.clone(),
            calls: Cell::new(0),
            steps: setup.stages.base.steps().len(),
            guidance_input,
            most_tokens: setup.networks.spec().masks_padding.then(|| {
                draw.max_sequence_length.map_or(setup.networks.spec().context_length, |length| length as usize)
            }),
            adapters: setup.auxiliary.adapters.clone(),
            control_schedule: ControlSchedule::default(),
            blend: None,
            steps_before: 0,
            steps_after: 0,
            unseen: RefCell::default(),
            done: Cell::new(0.0),
            features: RefCell::new(KeptFeatures::new(draw.feature_cache)),
        }
    }

    /// Makes this the sampler run of the generation's base model, with `schedule`: adds the request's ControlNets, and
    /// counts the refiner's steps as steps to come.
    pub fn for_base_model(
        self,
        setup: &Setup<'a, C>,
        inputs: &FittedInputs,
        schedule: &Schedule,
    ) -> Result<Self, PipelineError> {
        let control_schedule = ControlSchedule::new(setup, inputs, schedule.calls())?;
        let steps_after = setup.stages.refiner.as_ref().map_or(0, |schedule| schedule.steps().len());
        Ok(Guided { control_schedule, steps_after, ..self })
    }

    /// Counts `steps_before` steps of an earlier sampler run as done.
    pub fn after(self, steps_before: usize) -> Self {
        Guided { steps_before, ..self }
    }

    /// Shows pictures to the network.
    pub fn showing(self, references: Vec<Reference>) -> Self {
        Guided { references: references.into(), ..self }
    }

    /// Makes the sampler restore, after every network call, the part of the picture that the mask keeps.
    pub fn blended(self, blend: Blend) -> Self {
        Guided { blend: Some(blend), ..self }
    }

    /// The branches of the next call, at training timestep `t`: all branches inside the guidance interval and the
    /// limits of guidance, otherwise only the branch of the prompt. The branch without some blocks is active only where
    /// skip-layer guidance acts.
    fn active(&self, t: f64) -> &[Branch] {
        let call = self.calls.replace(self.calls.get() + 1);
        let skips = self.skip_layer_guidance.as_ref().is_some_and(|guidance| guidance.covers(call, self.steps));
        let is_truncated = self.limits.is_some_and(|limits| limits.truncates(t));
        let is_guided = self.interval.covers(self.done.get()) && !is_truncated;
        match self.guidance {
            Guidance::ClassifierFree { .. } if !is_guided => &self.branches[1..2],
            Guidance::ClassifierFree { .. } if !skips => &self.branches[..2],
            Guidance::Edit { .. } if !is_guided => &self.branches[..1],
            _ => &self.branches,
        }
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
        let branches = self.active(t);
        let controls = self.control_schedule.next();
        let row = |branch: &Branch, i: usize| DenoiseRow {
            sample: [x.row(i), branch.extra_channels.get(i).map_or(&[], Vec::as_slice)].concat(),
            t: t as f32,
            context: branch.text.clone(),
            time_ids: branch.time_ids.clone(),
            class: branch.classes.get(i).copied(),
            guidance: self.guidance_input,
            controls: controls
                .iter()
                .filter(|control: &&Control| branch.follows_prompt || !control.guess)
                .cloned()
                .collect(),
            adapters: self.adapters.clone(),
            skipped: branch.skipped.clone(),
            references: self.references.clone(),
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
        // The rows of a call have embeddings of the same length, unless the network masks padding.
        let context = |row: &DenoiseRow| {
            let [tokens, width] = row.context.dims();
            [self.most_tokens.unwrap_or(tokens), width]
        };
        let mut answers = Vec::with_capacity(rows.len());
        let mut rows = rows.into_iter().peekable();
        while let Some(first) = rows.next() {
            let (context_of_call, references) = (context(&first), self.references.iter().map(Reference::tokens).sum());
            let call =
                DenoiseCall { shape: [channels, h, w], context: context_of_call, depth, channels: c, references };
            let mut alike = vec![first];
            while let Some(row) = rows.next_if(|row| context(row) == call.context) {
                alike.push(row);
            }
            let of_alike = self.compute.call(Phase::Denoising, call, alike).await;
            answers.extend(of_alike.map_err(|error| Error::Denoiser(Box::new(error)))?);
        }
        let (answers, kept): (Vec<_>, Vec<_>) =
            answers.into_iter().map(|Denoised { prediction, features }| (prediction, features)).unzip();
        self.features.borrow_mut().keep(kept.into_iter().flatten());

        let predictions = answers.chunks(b).map(|rows| Latents::new([b, c, h, w], rows.concat()));
        let predictions = predictions.collect::<Result<Vec<Latents>, Error>>()?;
        match (&predictions[..], self.guidance) {
            ([uncond, cond], Guidance::ClassifierFree { scale, rescale }) => {
                let guided = guide(uncond, cond, scale, rescale);
                let normalizes = self.limits.is_some_and(|limits| limits.cfg_normalization);
                Ok(if normalizes { limited(guided, cond) } else { guided })
            }
            ([uncond, cond, skipped], Guidance::ClassifierFree { scale, rescale }) => {
                let away = self.skip_layer_guidance.as_ref().map_or(0.0, |guidance| guidance.scale);
                let guided = guide(uncond, cond, scale, rescale);
                Ok(Latents::combine(&[(1.0, &guided), (away, cond), (-away, skipped)]))
            }
            ([text, image, uncond], Guidance::Edit { scale, image_scale }) => {
                Ok(guide_edit(text, image, uncond, scale, image_scale))
            }
            ([only], _) => Ok(only.clone()),
            _ => Err(Error::Denoiser(format!("{} answers to {} branches", predictions.len(), branches.len()).into())),
        }
    }

    fn adjust_state(&self, x: Latents, noised: &dyn Fn(&Latents, &Latents) -> Latents) -> Latents {
        match &self.blend {
            Some(blend) => blend.apply(x, noised),
            None => x,
        }
    }

    fn stepped(&self, step: usize, steps: usize, denoised: &Latents) {
        self.done.set(step as f64 / steps as f64);
        let (step, steps) = (self.steps_before + step, self.steps_before + steps + self.steps_after);
        self.compute.stepped(step, steps, denoised);
        if self.compute.wants_decoded_preview(step, steps) {
            *self.unseen.borrow_mut() = Some((step, denoised.clone()));
        }
    }
}

/// Where a mask is black, this replaces the sampler's state by the picture, with noise of the step's level.
pub(super) struct Blend {
    /// The picture's latents, (B, C, h, w).
    pub image: Latents,
    /// The run's first noise, (B, C, h, w).
    pub noise: Latents,
    /// 1 where the sampler's result is used, otherwise 0; (h, w).
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
        match error {
            Error::NotFinite => PipelineError::NotFinite("the sampler's result".to_owned()),
            Error::Denoiser(error) => match error.downcast::<PipelineError>() {
                Ok(error) => *error,
                Err(error) => PipelineError::Sampler(error.to_string()),
            },
            error => PipelineError::Sampler(error.to_string()),
        }
    }
}
