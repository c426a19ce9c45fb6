//! Prepares a generation for its recipe.

use std::sync::Arc;

use super::{Catalogue, CatalogueError, ControlLease, blocking};
use crate::{
    device::Device,
    diffusion::{InvalidScheduler, SchedulerConfig},
    generation::{Draw, Film, Job, ModelCard, Sound, SoundCard, Task, Work},
    pipelines::{Auxiliary, FittedInputs, Inputs, Model, Prepared},
};

/// Why a generation whose model is loaded cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error(transparent)]
    Model(#[from] CatalogueError),
    #[error("{0}")]
    Auxiliary(String),
    /// The model or a ControlNet has changed since the request was accepted.
    #[error("{0}")]
    Unfit(String),
    /// The encoder of pictures cannot see the picture that a film begins with.
    #[error("{0}")]
    Picture(String),
    #[error(transparent)]
    Scheduler(#[from] InvalidScheduler),
    #[error("the refiner cannot use this scheduler: {0}")]
    RefinerScheduler(InvalidScheduler),
}

impl Catalogue {
    /// [`Catalogue::prepare_in`] for a caller that computes one generation at a time. The function takes the lease of
    /// the room for ControlNets itself and drops it at its end, because no other generation competes for the room.
    ///
    /// # Errors
    /// Those of [`Catalogue::prepare_in`].
    pub fn prepare(
        &self,
        job: Job,
        inputs: Inputs,
        model: Arc<Model>,
        refiner: Option<Arc<Model>>,
    ) -> Result<Prepared, PrepareError> {
        let lease = blocking::wait(self.lease_control_nets(&job, &model.device));
        self.prepare_in(&lease, job, inputs, model, refiner)
    }

    /// Waits for room for the ControlNets of a generation in the memory of the device.
    pub async fn lease_control_nets(&self, job: &Job, device: &Device) -> ControlLease {
        self.control_nets().lease(job.work.control_nets(), device).await
    }

    /// Prepares a generation whose models are loaded: checks the request against the current files, builds the
    /// scheduler, loads everything else that the request names, and resizes the pictures. Blocks meanwhile. The lease
    /// must belong to the generation.
    ///
    /// # Errors
    /// A name is unknown, or the named file cannot be loaded or used.
    pub fn prepare_in(
        &self,
        lease: &ControlLease,
        job: Job,
        inputs: Inputs,
        model: Arc<Model>,
        refiner: Option<Arc<Model>>,
    ) -> Result<Prepared, PrepareError> {
        let card = self.card(&job.model).ok_or_else(|| CatalogueError::Unknown(job.model.clone()))?;
        if !card.does(job.work.kind()) {
            return Err(unfit(&job.model, card.work_kind().does().to_owned()));
        }
        let scheduler = self.scheduler(&job.work, &job.model)??;
        let draw = match &job.work {
            Work::Draw(draw) => draw,
            Work::Sound(sound) => {
                check_sound(sound, &job.model, &card)?;
                let (auxiliary, inputs) = (Auxiliary::default(), FittedInputs::default());
                return Ok(Prepared { job, model, scheduler, auxiliary, inputs });
            }
            Work::Film(film) => {
                check_film(film, &job.model, &card)?;
                let inputs = inputs.fitted_to_film(film, model.networks.as_ref());
                let inputs = inputs.map_err(|error| PrepareError::Picture(error.detail))?;
                let auxiliary = match &film.motion_adapter {
                    Some(name) => self.motion(lease, &job.work, (&card, name), &model)?,
                    None => Auxiliary::default(),
                };
                return Ok(Prepared { job, model, scheduler, auxiliary, inputs });
            }
        };
        self.check_fits(draw, &job.model)?;
        let auxiliary = self.auxiliary(lease, &job.work, draw, &model, refiner)?;
        let sees = self.card(&job.model).is_some_and(|card| card.edits_beside);
        let inputs = inputs.fitted(draw, sees);
        Ok(Prepared { job, model, scheduler, auxiliary, inputs })
    }

    /// Checks that the model, as it is listed now, can still draw the request.
    fn check_fits(&self, draw: &Draw, model: &str) -> Result<(), PrepareError> {
        let card = self.card(model).ok_or_else(|| CatalogueError::Unknown(model.to_owned()))?;
        for control in &draw.controls {
            self.control_nets().check(&card, &control.model).map_err(|(_, reason)| {
                PrepareError::Unfit(format!(
                    "the ControlNet {reason}; the ControlNet could be used when the request was accepted"
                ))
            })?;
        }
        let Draw { width, height, .. } = *draw;
        let is_size = |side: u32| {
            side.is_multiple_of(card.size_multiple)
                && (card.min_side_pixels..=card.max_side_pixels.unwrap_or(u32::MAX)).contains(&side)
        };
        let reason = if !(is_size(width) && is_size(height)) {
            format!("draws no pictures of {width} × {height} pixels")
        } else if !card.takes_prompt && !draw.prompt.is_empty() {
            "takes no prompt".to_owned()
        } else if draw.clip_skip > card.max_clip_skip {
            format!("takes a clip_skip of at most {}", card.max_clip_skip)
        } else {
            return Ok(());
        };
        Err(unfit(model, reason))
    }

    /// What films with the motion adapter `name` need besides the model.
    fn motion(
        &self,
        lease: &ControlLease,
        work: &Work,
        (card, name): (&ModelCard, &str),
        model: &Model,
    ) -> Result<Auxiliary, PrepareError> {
        self.control_nets().check_motion(card, name).map_err(|(_, reason)| {
            PrepareError::Unfit(format!(
                "the motion adapter {reason}; the motion adapter could be used when the request was accepted"
            ))
        })?;
        let motion = self.control_nets().load_motion_in(lease, name, &model.device).map_err(PrepareError::Auxiliary)?;
        let adapters = self.adapters();
        Ok(Auxiliary {
            adapters: adapters.changes(work.loras(), model).map_err(PrepareError::Auxiliary)?,
            learned: adapters.learned(work, model).map_err(PrepareError::Auxiliary)?,
            motion: Some(motion),
            ..Auxiliary::default()
        })
    }

    fn auxiliary(
        &self,
        lease: &ControlLease,
        work: &Work,
        draw: &Draw,
        model: &Model,
        refiner: Option<Arc<Model>>,
    ) -> Result<Auxiliary, PrepareError> {
        let controls = draw.controls.iter();
        let control_nets = controls.map(|control| self.control_nets().load_in(lease, &control.model, &model.device));
        let refiner = match refiner {
            Some(model) => {
                let scheduler = self.scheduler(work, &model.name)?.map_err(PrepareError::RefinerScheduler)?;
                Some((model, scheduler))
            }
            None => None,
        };
        let adapters = self.adapters();
        Ok(Auxiliary {
            adapters: adapters.changes(&draw.loras, model).map_err(PrepareError::Auxiliary)?,
            learned: adapters.learned(work, model).map_err(PrepareError::Auxiliary)?,
            control_nets: control_nets.collect::<Result<_, _>>().map_err(PrepareError::Auxiliary)?,
            refiner,
            motion: None,
        })
    }

    /// The scheduler of the model's folder with the changes that the request makes.
    fn scheduler(&self, work: &Work, model: &str) -> Result<Result<SchedulerConfig, InvalidScheduler>, CatalogueError> {
        let card = self.card(model).ok_or_else(|| CatalogueError::Unknown(model.to_owned()))?;
        Ok(SchedulerConfig::overlay(&card.scheduler_config, work.scheduler()))
    }
}

/// The error of a request that the model, as it is listed now, cannot compute. `reason` is the end of the sentence "the
/// model …".
fn unfit(model: &str, reason: String) -> PrepareError {
    PrepareError::Unfit(format!(
        "the model {model:?} {reason}; the request was accepted for an earlier version of the model"
    ))
}

/// Checks that the model, as it is listed now, can still make the films.
fn check_film(film: &Film, model: &str, card: &ModelCard) -> Result<(), PrepareError> {
    let Film { width, height, frames, .. } = *film;
    let multiple = card.film.map_or(1, |of_films| of_films.frames_multiple.max(1));
    let is_size = |side: u32| side.is_multiple_of(card.size_multiple) && side >= card.min_side_pixels;
    let needs_picture = card.tasks.iter().all(|task| task.begins_with_picture());
    let takes_picture = card.tasks.contains(&Task::ImageToVideo);
    let adapter = film.motion_adapter.as_ref();
    let max_frames = adapter.and_then(|name| card.motion_adapters.iter().find(|adapter| adapter.name == *name));
    let reason = if !(is_size(width) && is_size(height)) {
        format!("makes no films of {width} × {height} pixels")
    } else if frames == 0 || !(frames - 1).is_multiple_of(multiple) {
        format!("makes no films of {frames} frames")
    } else if max_frames.is_some_and(|adapter| frames > adapter.max_frames) {
        format!("makes no films of {frames} frames with this motion adapter")
    } else if adapter.is_none() && !card.motion_adapters.is_empty() {
        "makes no films without a motion adapter".to_owned()
    } else if film.image.is_none() && needs_picture {
        "makes no films without a picture".to_owned()
    } else if film.image.is_some() && !takes_picture {
        "takes no picture".to_owned()
    } else {
        return Ok(());
    };
    Err(unfit(model, reason))
}

/// Checks that the model, as it is listed now, can still make the sounds.
fn check_sound(sound: &Sound, model: &str, card: &ModelCard) -> Result<(), PrepareError> {
    match card.sound {
        Some(SoundCard { least_seconds, .. }) if sound.seconds < least_seconds => {
            Err(unfit(model, format!("makes no sounds of {} seconds", sound.seconds)))
        }
        _ => Ok(()),
    }
}
