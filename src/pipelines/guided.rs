//! The network as a sampler sees it: one prediction for each picture, guidance already applied where it is wanted.

use std::cell::{Cell, RefCell};

use super::{Compute, DenoiseRow, Denoised, PipelineError, TextEmbedding, feature_cache::KeptFeatures};
use crate::{
    diffusion::{Denoise, Error, InvalidSteps, Latents, guide, guide_edit},
    generation::{Generation, GuidanceInterval},
};

/// What one row of every call is told beside noise and time.
pub(super) struct Branch {
    pub text: TextEmbedding,
    /// Channels behind those of the latents, (C', h, w) for each picture; none for most models.
    pub beside: Vec<Vec<f32>>,
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
    blend: Option<Blend>,
    /// The share of the steps that the sampler has reported as done.
    done: Cell<f64>,
    features: RefCell<KeptFeatures>,
}

impl<'a, C: Compute> Guided<'a, C> {
    pub fn new(compute: &'a C, branches: Vec<Branch>, guidance: Guidance, generation: &Generation) -> Self {
        Guided {
            compute,
            branches,
            guidance,
            interval: generation.guidance_interval,
            blend: None,
            done: Cell::new(0.0),
            features: RefCell::new(KeptFeatures::new(generation.feature_cache)),
        }
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
        let [b, c, h, w] = x.shape();
        let branches = self.active();
        let row = |branch: &Branch, i: usize| DenoiseRow {
            sample: [x.row(i), branch.beside.get(i).map_or(&[], Vec::as_slice)].concat(),
            t: t as f32,
            context: branch.text.clone(),
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
        let answers = self.compute.denoise([channels, h, w], depth, rows).await;
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
        self.compute.stepped(step, steps, denoised);
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

impl From<InvalidSteps> for PipelineError {
    fn from(error: InvalidSteps) -> PipelineError {
        Error::from(error).into()
    }
}

impl From<Error> for PipelineError {
    fn from(error: Error) -> PipelineError {
        PipelineError::Sampler(error.to_string())
    }
}
