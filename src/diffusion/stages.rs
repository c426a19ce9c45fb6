//! The schedules of a generation: one for its base model, and one for its refiner.

use super::{InvalidSteps, Schedule, SchedulerConfig};
use crate::generation::{Draw, FlowLevels, ImageInfluence, Levels, Mu, Refiner};

/// The schedules of a generation. They are built twice: when a request arrives, to reject a request that the model's
/// scheduler cannot run, and when the generation runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Stages {
    /// The steps of the generation's base model.
    pub base: Schedule,
    /// The steps of the refiner.
    pub refiner: Option<Schedule>,
}

/// The inputs that choose the steps of a generation's base model.
#[derive(Clone, Copy, Debug)]
pub struct BaseSchedule<'a> {
    pub config: &'a SchedulerConfig,
    /// Whether the network takes the guidance scale as an input, as LCM networks do. If such a network gets a source
    /// picture with a `strength`, and the request lists no levels, the LCM scheduler runs all requested steps within
    /// the last part of the levels; `strength` is the fraction of the levels in this part. In all other cases with a
    /// `strength`, only the last part of the requested steps runs; `strength` is the fraction of the steps in this
    /// part.
    pub is_distilled: bool,
    /// How a model of flow matching chooses its noise levels. With a `strength`, such a model runs the last
    /// `⌈n · strength⌉` of n steps, as diffusers' pipelines do.
    pub flow: Option<FlowLevels>,
}

impl BaseSchedule<'_> {
    /// All steps of a generation of this width and height. Without `levels`, there are `steps` steps.
    ///
    /// # Errors
    /// The scheduler cannot run the steps.
    pub fn whole(
        &self,
        steps: usize,
        levels: Option<&Levels>,
        [width, height]: [u32; 2],
    ) -> Result<Schedule, InvalidSteps> {
        let config = match self.flow {
            Some(flow) => {
                let (config, tokens) = (self.config.clone(), flow.tokens(width, height));
                &match flow.mu {
                    Mu::Tokens => config.for_tokens(tokens),
                    Mu::TokensAndSteps => config.shifted(FlowLevels::mu_of_steps(tokens, steps)),
                }
            }
            None => self.config,
        };
        match (levels, self.flow) {
            (Some(levels), _) => Schedule::over(config, levels),
            (None, Some(flow)) if flow.is_linear => Schedule::over(config, &Levels::Sigmas(FlowLevels::linear(steps))),
            (None, _) => Schedule::new(config, steps),
        }
    }
}

/// The field of a request that leads to an invalid schedule, and the reason.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}: {error}", field.join("/"))]
pub struct InvalidStage {
    /// The path of the field.
    pub field: &'static [&'static str],
    pub error: InvalidSteps,
}

impl Stages {
    /// The schedules of the generation `draw`.
    ///
    /// # Errors
    /// A field leaves a model without a step, or requests something that the model's scheduler cannot do.
    pub fn of(draw: &Draw, base: BaseSchedule<'_>, refiner: Option<&SchedulerConfig>) -> Result<Stages, InvalidStage> {
        let steps = draw.steps as usize;
        let at = |field| move |error| InvalidStage { field, error };
        let levels = draw.levels.as_ref();
        let listed: &[&str] = match levels.map(|levels| levels.name()) {
            Some("sigmas") => &["sigmas"],
            Some(_) => &["timesteps"],
            None => &["steps"],
        };
        let whole = || base.whole(steps, levels, [draw.width, draw.height]).map_err(at(listed));
        let begun = match draw.source.as_ref().map(|source| source.hold) {
            Some(ImageInfluence::Strength { strength }) if base.flow.is_some() => {
                whole()?.for_strength_rounded_up(strength).map_err(at(&["strength"]))?
            }
            Some(ImageInfluence::Strength { strength }) if base.is_distilled && levels.is_none() => {
                Schedule::compressed(base.config, steps, strength).map_err(at(&["strength"]))?
            }
            Some(ImageInfluence::Strength { strength }) => {
                whole()?.for_strength(strength).map_err(at(&["strength"]))?
            }
            Some(ImageInfluence::Guidance { .. } | ImageInfluence::Reference {}) | None => whole()?,
        };
        let denoising_end = draw.micro_conditioning.as_ref().and_then(|micro| micro.denoising_end);
        Ok(match (&draw.refiner, refiner) {
            (Some(Refiner { switch_at, .. }), Some(config)) => {
                let follows = Schedule::new(config, steps).map_err(at(&["steps"]))?;
                Stages {
                    base: begun.until(*switch_at).map_err(at(&["refiner", "switch_at"]))?,
                    refiner: Some(follows.from(*switch_at).map_err(at(&["refiner", "switch_at"]))?),
                }
            }
            _ => {
                let base = match denoising_end {
                    Some(end) => begun.until(end).map_err(at(&["denoising_end"]))?,
                    None => begun,
                };
                Stages { base, refiner: None }
            }
        })
    }
}
