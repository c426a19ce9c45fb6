//! A schedule: the noise levels that a run passes through, from noise to picture.
//!
//! Built here and nowhere else, from a configuration and a number of steps, and rounded to float32 where diffusers
//! rounds.  What it hands out is sound: finite, falling, inside of the timesteps that the model was trained on.

use std::ops::Range;

use super::course::Course;
use super::error::InvalidSteps;
use super::latents::Latents;
use super::point::Point;
use super::prediction::Prediction;
use super::scheduler_config::{RunPoints, SchedulerConfig, ZeroSignal};
use super::sigmas::SigmaTable;
use crate::generation::{Draw, Levels};
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

/// The steps that PNDM needs where it begins with three Runge-Kutta steps.
const MIN_PRK_STEPS: usize = 4;

/// One [`Point`] per step and one for the end, and which of the steps are taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    points: Vec<Point>,
    run: Range<usize>,
    init_noise_sigma: f64,
    config: SchedulerConfig,
    /// `⌊T/n⌋` training timesteps.
    stride: f64,
}

impl Schedule {
    /// Fails where the steps do not fit the configuration, or where the configuration leads to levels that no sampler
    /// could use.
    pub fn new(config: &SchedulerConfig, steps: usize) -> Result<Schedule, InvalidSteps> {
        Schedule::along(config, Course::Steps(steps))
    }

    /// Fails also where the class takes no such list: only some of diffusers' `set_timesteps` do.
    pub fn over(config: &SchedulerConfig, levels: &Levels) -> Result<Schedule, InvalidSteps> {
        Schedule::along(config, Course::Over(levels))
    }

    /// The levels that a generation asks for.
    pub fn of(config: &SchedulerConfig, draw: &Draw) -> Result<Schedule, InvalidSteps> {
        match &draw.levels {
            Some(levels) => Schedule::over(config, levels),
            None => Schedule::new(config, draw.steps as usize),
        }
    }

    fn along(config: &SchedulerConfig, course: Course<'_>) -> Result<Schedule, InvalidSteps> {
        let steps = course.len();
        let min = if config.sampler.has_runge_kutta_steps() { MIN_PRK_STEPS } else { 1 };
        if steps < min {
            return Err(InvalidSteps::TooFew { steps, min, class: config.class_name() });
        }
        let max = config.num_train_timesteps();
        if matches!(course, Course::Steps(steps) if steps > max) {
            return Err(InvalidSteps::TooMany { steps, max });
        }
        let (points, init_noise_sigma) = config.sampler.levels(config, course)?;
        let run = 0..points.len() - 1;
        Schedule { points, run, init_noise_sigma, config: config.clone(), stride: config.stride(steps) }.checked()
    }

    /// All steps of a consistency model within the part of the schedule that a picture of this `strength` begins in, in
    /// (0, 1] (Luo et al. 2023, arXiv:2310.04378, in the form of diffusers). Of other classes as [`Schedule::for_strength`].
    pub fn compressed(config: &SchedulerConfig, steps: usize, strength: f64) -> Result<Schedule, InvalidSteps> {
        let whole = Schedule::new(config, steps)?;
        match config.sampler.compressed(config, steps, strength) {
            Some(points) => Schedule { points: points?, ..whole }.checked(),
            None => whole.for_strength(strength),
        }
    }

    /// The last steps alone, for a run that begins with a picture under noise: of n steps `⌊n · strength⌋`, `strength` in
    /// (0, 1] (Meng et al. 2022, arXiv:2108.01073, in the form of diffusers).
    pub fn for_strength(self, strength: f64) -> Result<Schedule, InvalidSteps> {
        let steps = self.run.len();
        let kept = ((steps as f64 * strength) as usize).min(steps);
        if kept == 0 {
            return Err(InvalidSteps::NothingLeft { steps, strength });
        }
        if kept < steps && self.config.sampler.has_runge_kutta_steps() {
            return Err(InvalidSteps::BeginsLate { class: self.config.class_name() });
        }
        Ok(Schedule { run: steps - kept..steps, ..self })
    }

    /// The first steps alone: those that begin before the share `end` of the training timesteps is behind, in (0, 1).
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

    /// The steps that [`Schedule::until`] leaves out.
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

    /// The timestep at which the share `end` of all is behind.
    fn cutoff(&self, end: f64) -> f64 {
        let all = self.config.num_train_timesteps() as f64;
        (all - end * all).round_ties_even()
    }

    /// The share of all timesteps that is behind at timestep `t`.
    fn share_at(&self, t: f64) -> f64 {
        let all = self.config.num_train_timesteps() as f64;
        (all - t.floor()) / all
    }

    /// How many of the steps begin at timestep `t` or before, on the way down.
    fn steps_from(&self, t: f64) -> usize {
        self.steps().take_while(|(now, _)| now.t >= t).count()
    }

    pub(super) fn config(&self) -> &SchedulerConfig {
        &self.config
    }

    /// One point per step, where the network is asked, and the end; of the whole schedule.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// The steps that are taken: the point a step starts from and the one it goes to.
    pub fn steps(&self) -> impl ExactSizeIterator<Item = (Point, Point)> {
        self.points[self.run.start..=self.run.end].windows(2).map(|pair| (pair[0], pair[1]))
    }

    /// Which steps of the whole schedule these are.
    pub(super) fn run(&self) -> Range<usize> {
        self.run.clone()
    }

    /// How many steps the whole schedule has.
    pub(super) fn whole(&self) -> usize {
        self.points.len() - 1
    }

    /// The point of every network call, in order: `timesteps` of diffusers, where a second-order sampler has two calls a
    /// step.  A run that begins with a picture begins at the first.
    pub fn timeline(&self) -> Vec<Point> {
        let Schedule { config, points, run, stride, .. } = self;
        config.sampler.timeline(&RunPoints { config, points, run: run.clone(), stride: *stride })
    }

    /// How often the network is asked.
    pub fn calls(&self) -> usize {
        self.timeline().len()
    }

    /// By how much unit noise is multiplied to become the first state.
    pub fn init_noise_sigma(&self) -> f64 {
        self.init_noise_sigma
    }

    /// The state at `point` of a picture `x0` under unit noise, in the scale in which this schedule's sampler keeps its
    /// state; both `(B, C, h, w)`.
    pub fn add_noise(&self, point: &Point, x0: &Latents, noise: &Latents) -> Latents {
        let (signal, noise_scale) =
            if self.config.class.is_over_alpha { (1.0, point.noise()) } else { (point.alpha, point.sigma) };
        Latents::combine(&[(signal, x0), (noise_scale, noise)])
    }

    /// The level of training timestep `t`; below 0 that of the end.
    pub fn level(&self, t: f64) -> Point {
        self.config.level(t)
    }

    /// `σ/α` of the training timesteps.
    pub(super) fn sigma_table(&self) -> SigmaTable {
        SigmaTable::new(self.config.betas.alphas_cumprod())
    }

    /// `⌊T/n⌋`, by which DDIM and PNDM go down from a point, wherever the next point is.
    pub(super) fn stride(&self) -> f64 {
        self.stride
    }

    fn checked(self) -> Result<Schedule, InvalidSteps> {
        let network_points = &self.points[..self.points.len() - 1];
        let has_formula = match self.config.class.zero_signal {
            ZeroSignal::Refused => false,
            ZeroSignal::WithoutEpsilon => self.config.prediction != Prediction::Epsilon,
            ZeroSignal::Taken => true,
        };
        if network_points[0].alpha == 0.0 && !has_formula {
            return Err(InvalidSteps::ZeroSignal { prediction_type: self.config.prediction.name() });
        }
        let finite = self.points.iter().all(|p| p.t.is_finite() && p.alpha.is_finite() && p.sigma.is_finite());
        let positive = self.points.iter().all(|p| p.alpha >= 0.0 && p.sigma >= 0.0);
        let sound = if self.config.sampler.is_rising() {
            self.steps().all(|(now, next)| next.sigma >= now.sigma)
        } else {
            // Compared crosswise, since a quotient would be infinite where the signal is zero.
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

/// Points of these timesteps and levels; the end, which the network never sees, is at timestep 0.
fn points(timesteps: Vec<f64>, sigmas: Vec<f64>) -> Vec<Point> {
    timesteps.into_iter().chain([0.0]).zip(sigmas).map(|(t, sigma)| Point::of_noise(t, sigma)).collect()
}

/// As float32 has it.
pub(super) fn rounded(x: f64) -> f64 {
    f64::from(x as f32)
}
