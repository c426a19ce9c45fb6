//! A schedule: the noise levels of a run, in the order of its steps.
//!
//! This module alone builds schedules, from a configuration and a number of steps. It rounds to float32 where diffusers
//! does. Every schedule that it returns is valid: its levels are finite, and fall from noise to the picture. Only
//! inverted flow levels rise from the picture to noise.

use std::ops::Range;

use super::error::InvalidSteps;
use super::latents::Latents;
use super::point::Point;
use super::prediction::Prediction;
use super::scheduler_config::{RunPoints, SchedulerConfig, ZeroSignal};
use super::sigmas::SigmaTable;
use super::step_source::StepSource;
use crate::generation::{Draw, Levels, Sound};
pub(super) use dpm_levels::{DpmLevels, Last, dpm_points};
pub(super) use edm_levels::{edm_points, of_rho};
pub(super) use euler_levels::euler_points;
pub(super) use flow_levels::flow_points;
pub(super) use trained::{distilled_points, trained_points};

mod dpm_levels;
mod edm_levels;
mod euler_levels;
mod flow_levels;
mod trained;

/// The least number of steps for PNDM if it starts with three Runge-Kutta steps.
const MIN_PRK_STEPS: usize = 4;

/// The noise levels of a run: one [`Point`] for the start of each step and one for the end of the last step; and the
/// range of steps that the run takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    points: Vec<Point>,
    /// The steps that the run takes.
    run: Range<usize>,
    init_noise_sigma: f64,
    config: SchedulerConfig,
    /// The length of a step in training timesteps: `⌊T/n⌋`.
    stride: f64,
}

impl Schedule {
    /// A schedule of `steps` steps.
    ///
    /// # Errors
    /// The scheduler cannot run this number of steps, or the configuration gives levels that no sampler can use.
    pub fn new(config: &SchedulerConfig, steps: usize) -> Result<Schedule, InvalidSteps> {
        Schedule::along(config, StepSource::Steps(steps))
    }

    /// A schedule over explicit levels. Fails as [`Schedule::new`], and if the class takes no such list: in diffusers,
    /// `set_timesteps` takes lists only in some classes.
    pub fn over(config: &SchedulerConfig, levels: &Levels) -> Result<Schedule, InvalidSteps> {
        Schedule::along(config, StepSource::Over(levels))
    }

    /// The schedule that a generation requests. Fails as [`Schedule::new`] and [`Schedule::over`].
    pub fn of(config: &SchedulerConfig, draw: &Draw) -> Result<Schedule, InvalidSteps> {
        match &draw.levels {
            Some(levels) => Schedule::over(config, levels),
            None => Schedule::new(config, draw.steps as usize),
        }
    }

    /// The schedule that a generation of sounds requests. Fails as [`Schedule::new`] and [`Schedule::over`].
    pub fn of_sound(config: &SchedulerConfig, sound: &Sound) -> Result<Schedule, InvalidSteps> {
        let steps = sound.steps as usize;
        match sound.log_snr() {
            Some(range) => Schedule::over(config, &Levels::Sigmas(range.sigmas(steps))),
            None => Schedule::new(config, steps),
        }
    }

    fn along(config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<Schedule, InvalidSteps> {
        let steps = step_source.len();
        let min = if config.sampler.has_runge_kutta_steps() { MIN_PRK_STEPS } else { 1 };
        if steps < min {
            return Err(InvalidSteps::TooFew { steps, min, class: config.class_name() });
        }
        let max = config.num_train_timesteps();
        if matches!(step_source, StepSource::Steps(steps) if steps > max) {
            return Err(InvalidSteps::TooMany { steps, max });
        }
        let (points, init_noise_sigma) = config.sampler.levels(config, step_source)?;
        let run = 0..points.len() - 1;
        Schedule { points, run, init_noise_sigma, config: config.clone(), stride: config.stride(steps) }.checked()
    }

    /// The schedule of a run that starts from a picture with noise added; `strength` is in (0, 1]. With the LCM
    /// scheduler (Luo et al. 2023, arXiv:2310.04378, in the form of diffusers), the run has `steps` steps, all within
    /// the last part of the levels. With another scheduler, the run has the last of `steps` steps, as
    /// [`Schedule::for_strength`] chooses them.
    ///
    /// # Errors
    /// No step is left, or the schedule is not valid.
    pub fn compressed(config: &SchedulerConfig, steps: usize, strength: f64) -> Result<Schedule, InvalidSteps> {
        let whole = Schedule::new(config, steps)?;
        match config.sampler.compressed(config, steps, strength) {
            Some(points) => Schedule { points: points?, ..whole }.checked(),
            None => whole.for_strength(strength),
        }
    }

    /// Keeps the last `⌊n · strength⌋` of n steps, for a run that starts from a picture with noise added; `strength` is
    /// in (0, 1] (Meng et al. 2022, arXiv:2108.01073, in the form of diffusers).
    ///
    /// # Errors
    /// No step is left, or Runge-Kutta steps would be left out.
    pub fn for_strength(self, strength: f64) -> Result<Schedule, InvalidSteps> {
        let steps = self.run.len();
        self.last((steps as f64 * strength) as usize, strength)
    }

    /// Keeps the last `⌈n · strength⌉` of n steps, as diffusers' pipelines of flow matching do. Otherwise as
    /// [`Schedule::for_strength`].
    ///
    /// # Errors
    /// Those of [`Schedule::for_strength`].
    pub fn for_strength_rounded_up(self, strength: f64) -> Result<Schedule, InvalidSteps> {
        let steps = self.run.len();
        let left_out = (steps as f64 - (steps as f64 * strength).min(steps as f64)) as usize;
        self.last(steps - left_out, strength)
    }

    fn last(self, kept: usize, strength: f64) -> Result<Schedule, InvalidSteps> {
        let steps = self.run.len();
        let kept = kept.min(steps);
        if kept == 0 {
            return Err(InvalidSteps::NothingLeft { steps, strength });
        }
        if kept < steps && self.config.sampler.has_runge_kutta_steps() {
            return Err(InvalidSteps::BeginsLate { class: self.config.class_name() });
        }
        Ok(Schedule { run: steps - kept..steps, ..self })
    }

    /// Keeps the steps that begin at or above timestep `(1 − end)·T`, rounded. T is the number of training timesteps;
    /// `end` is in (0, 1).
    ///
    /// # Errors
    /// No step is left, or too few for Runge-Kutta steps.
    pub fn until(self, end: f64) -> Result<Schedule, InvalidSteps> {
        let kept = self.steps_from(self.cutoff(end));
        let run = self.run.start..(self.run.start + kept).min(self.run.end);
        if run.is_empty() {
            let least = self.share_at(self.points[self.run.start].t);
            return Err(match least < 1.0 {
                true => InvalidSteps::EndsEarly { steps: self.run.len(), share: end, least },
                false => InvalidSteps::BeginsAtEnd,
            });
        }
        if run.end < MIN_PRK_STEPS && self.config.sampler.has_runge_kutta_steps() {
            let (steps, class) = (run.len(), self.config.class_name());
            return Err(InvalidSteps::TooFew { steps, min: MIN_PRK_STEPS, class });
        }
        Ok(Schedule { run, ..self })
    }

    /// Keeps the steps that [`until(start)`](Schedule::until) leaves out.
    ///
    /// # Errors
    /// No step is left, or Runge-Kutta steps would be left out.
    pub fn from(self, start: f64) -> Result<Schedule, InvalidSteps> {
        let left = self.steps_from(self.cutoff(start));
        let run = (self.run.start + left).min(self.run.end)..self.run.end;
        if run.is_empty() {
            let bound = self.share_at(self.points[self.run.end - 1].t);
            return Err(InvalidSteps::BeginsAfterAll { steps: self.run.len(), share: start, bound });
        }
        if run != self.run && self.config.sampler.has_runge_kutta_steps() {
            return Err(InvalidSteps::BeginsLate { class: self.config.class_name() });
        }
        Ok(Schedule { run, ..self })
    }

    /// The timestep `(1 − end)·T`, rounded.
    fn cutoff(&self, end: f64) -> f64 {
        let all = self.config.num_train_timesteps() as f64;
        (all - end * all).round_ties_even()
    }

    /// The fraction of the schedule whose [`cutoff`](Self::cutoff) is `⌊t⌋`.
    fn share_at(&self, t: f64) -> f64 {
        let all = self.config.num_train_timesteps() as f64;
        (all - t.floor()) / all
    }

    /// The number of steps that begin at timestep `t` or higher.
    fn steps_from(&self, t: f64) -> usize {
        self.steps().take_while(|(now, _)| now.t >= t).count()
    }

    pub(super) fn config(&self) -> &SchedulerConfig {
        &self.config
    }

    /// The points of the whole schedule: the start of each step, and the end of the last step.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// The steps of the run, as the points where each step starts and ends.
    pub fn steps(&self) -> impl ExactSizeIterator<Item = (Point, Point)> {
        self.points[self.run.start..=self.run.end].windows(2).map(|pair| (pair[0], pair[1]))
    }

    /// Range of the steps of the run within the whole schedule.
    pub(super) fn run(&self) -> Range<usize> {
        self.run.clone()
    }

    /// The number of steps of the whole schedule.
    pub(super) fn whole(&self) -> usize {
        self.points.len() - 1
    }

    /// The point of every network call of the run, in order. These are diffusers' `timesteps`, which list both calls of
    /// each step of a second-order sampler. A run that starts from a picture starts at the first of these points.
    pub fn timeline(&self) -> Vec<Point> {
        let Schedule { config, points, run, stride, .. } = self;
        config.sampler.timeline(&RunPoints { config, points, run: run.clone(), stride: *stride })
    }

    /// The number of network calls of the run.
    pub fn calls(&self) -> usize {
        self.timeline().len()
    }

    /// The factor that scales unit noise to the first state.
    pub fn init_noise_sigma(&self) -> f64 {
        self.init_noise_sigma
    }

    /// The state at `point` for the picture `x0` and unit `noise`, scaled like the states of this schedule's sampler.
    /// Both arguments are `(B, C, h, w)`.
    pub fn add_noise(&self, point: &Point, x0: &Latents, noise: &Latents) -> Latents {
        let (signal, noise_scale) =
            if self.config.class.is_over_alpha { (1.0, point.noise()) } else { (point.alpha, point.sigma) };
        Latents::combine(&[(signal, x0), (noise_scale, noise)])
    }

    /// The noise level of training timestep `t`; for negative `t`, the level after the last step.
    pub fn level(&self, t: f64) -> Point {
        self.config.level(t)
    }

    /// `σ/α` of the training timesteps.
    pub(super) fn sigma_table(&self) -> SigmaTable {
        SigmaTable::new(self.config.betas.alphas_cumprod())
    }

    /// `⌊T/n⌋` training timesteps: how far a step of DDIM or PNDM goes, even if the next point lies elsewhere.
    pub(super) fn stride(&self) -> f64 {
        self.stride
    }

    /// Returns the schedule if a sampler can run it.
    fn checked(self) -> Result<Schedule, InvalidSteps> {
        let network_points = &self.points[..self.points.len() - 1];
        let has_formula = match self.config.class.zero_signal {
            ZeroSignal::Refused => false,
            ZeroSignal::WithoutEpsilon => self.config.prediction != Prediction::Epsilon,
            ZeroSignal::Allowed => true,
        };
        if network_points[0].alpha == 0.0 && !has_formula {
            return Err(InvalidSteps::ZeroSignal { prediction_type: self.config.prediction.name() });
        }
        let finite = self.points.iter().all(|p| p.t.is_finite() && p.alpha.is_finite() && p.sigma.is_finite());
        let positive = self.points.iter().all(|p| p.alpha >= 0.0 && p.sigma >= 0.0);
        let sound = if self.config.sampler.is_rising() {
            self.steps().all(|(now, next)| next.sigma >= now.sigma)
        } else {
            // Compares products instead of quotients, because σ/α is infinite where the signal is zero.
            let falling = self.steps().all(|(now, next)| next.sigma * now.alpha <= now.sigma * next.alpha);
            falling && network_points.iter().all(|p| p.sigma > 0.0)
        };
        if finite && positive && sound && self.init_noise_sigma.is_finite() {
            Ok(self)
        } else {
            Err(InvalidSteps::Degenerate)
        }
    }
}

/// Points with these timesteps and levels. The end, which the network never receives, has timestep 0.
fn points(timesteps: Vec<f64>, sigmas: Vec<f64>) -> Vec<Point> {
    timesteps.into_iter().chain([0.0]).zip(sigmas).map(|(t, sigma)| Point::of_noise(t, sigma)).collect()
}

/// Rounds to float32.
pub(super) fn rounded(x: f64) -> f64 {
    f64::from(x as f32)
}
