//! A schedule: the noise levels that a run passes through, from noise to picture.
//!
//! Built here and nowhere else, from a configuration and a number of steps, and rounded to float32 where diffusers
//! rounds.  What it hands out is sound: finite, falling, inside of the timesteps that the model was trained on.

use std::ops::Range;

use super::error::InvalidSteps;
use super::latents::Latents;
use super::point::Point;
use super::prediction::Prediction;
use super::scheduler_config::{EulerLevels, FinalSigma, Sampler, SchedulerConfig};
use super::sigmas::{Respacing, SigmaTable};
use super::spacing::Spacing;

/// One [`Point`] per step and one for the end, and which of the steps are taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    points: Vec<Point>,
    run: Range<usize>,
    init_noise_sigma: f64,
    trained: Trained,
}

/// The levels of the training timesteps, which DDIM and PNDM also visit off the schedule's points.
#[derive(Debug, Clone, PartialEq)]
struct Trained {
    config: SchedulerConfig,
    /// `⌊T/n⌋` training timesteps.
    stride: f64,
}

impl Schedule {
    /// Fails where the steps do not fit the configuration, or where the configuration leads to levels that no sampler
    /// could use.
    pub fn new(config: &SchedulerConfig, steps: usize) -> Result<Schedule, InvalidSteps> {
        let min = if let Sampler::Pndm { skip_prk_steps: false, .. } = config.sampler { 4 } else { 1 };
        if steps < min {
            return Err(InvalidSteps::TooFew { steps, min, class: config.class_name() });
        }
        let trained = Trained { config: config.clone(), stride: (config.num_train_timesteps() / steps) as f64 };
        let (points, init_noise_sigma) = match &config.sampler {
            Sampler::Ddpm { .. } | Sampler::Ddim { .. } | Sampler::Pndm { .. } => {
                (trained_points(&trained, steps)?, 1.0)
            }
            Sampler::Euler(levels) => euler_points(config, steps, levels)?,
            Sampler::EulerAncestral => euler_points(config, steps, &EulerLevels::plain(None))?,
            Sampler::Heun { respacing, .. } => euler_points(config, steps, &EulerLevels::plain(*respacing))?,
            Sampler::Lms { respacing } => euler_points(config, steps, &EulerLevels::plain(*respacing))?,
            Sampler::Dpm2 { respacing, .. } => {
                let (mut points, max) = euler_points(config, steps, &EulerLevels::plain(*respacing))?;
                if *respacing == Some(Respacing::Karras) {
                    points.iter_mut().for_each(|point| point.t = point.t.round_ties_even());
                }
                (points, max)
            }
            Sampler::DpmMultistep(options) => {
                let rounds = options.rounded && matches!(options.respacing, Some(Respacing::Karras | Respacing::Lu));
                let levels = DpmLevels {
                    rounds,
                    lambda_min_clipped: options.lambda_min_clipped,
                    ..DpmLevels::of(config, options.respacing, Last::from(options.end))
                };
                (dpm_points(config, steps, &levels)?, 1.0)
            }
            Sampler::DpmSinglestep(options) => {
                let levels = DpmLevels {
                    spacing: Spacing::Linspace,
                    steps_offset: 0,
                    lambda_min_clipped: options.lambda_min_clipped,
                    ..DpmLevels::of(config, options.respacing, Last::from(options.end))
                };
                (dpm_points(config, steps, &levels)?, 1.0)
            }
            Sampler::UniPc(options) => {
                let last = match (options.end, options.respacing) {
                    (FinalSigma::SigmaMin, Some(_)) => Last::Repeated,
                    (end, _) => end.into(),
                };
                (dpm_points(config, steps, &DpmLevels::of(config, options.respacing, last))?, 1.0)
            }
            Sampler::Deis(options) => {
                let last = if options.respacing.is_some() { Last::Repeated } else { Last::SigmaMin };
                (dpm_points(config, steps, &DpmLevels::of(config, options.respacing, last))?, 1.0)
            }
            Sampler::Lcm { original_inference_steps, .. } => (
                consistency_points(&trained, (*original_inference_steps, *original_inference_steps), steps, -1.0)?,
                1.0,
            ),
            Sampler::Tcd { original_inference_steps } => {
                (consistency_points(&trained, (*original_inference_steps, *original_inference_steps), steps, 0.0)?, 1.0)
            }
        };
        let run = 0..points.len() - 1;
        Schedule { points, run, init_noise_sigma, trained }.checked(config)
    }

    /// All steps of a consistency model within the part of the schedule that a picture of this `strength` begins in, in
    /// (0, 1] (Luo et al. 2023, arXiv:2310.04378, in the form of diffusers). Of other classes as [`Schedule::for_strength`].
    pub fn compressed(config: &SchedulerConfig, steps: usize, strength: f64) -> Result<Schedule, InvalidSteps> {
        let Sampler::Lcm { original_inference_steps, .. } = config.sampler else {
            return Schedule::new(config, steps)?.for_strength(strength);
        };
        let whole = Schedule::new(config, steps)?;
        let kept = (original_inference_steps as f64 * strength) as usize;
        let points = consistency_points(&whole.trained, (original_inference_steps, kept), steps, -1.0)?;
        Schedule { points, ..whole }.checked(config)
    }

    /// The last steps alone, for a run that begins with a picture under noise: of n steps `⌊n · strength⌋`, `strength` in
    /// (0, 1] (Meng et al. 2022, arXiv:2108.01073, in the form of diffusers).
    pub fn for_strength(self, strength: f64) -> Result<Schedule, InvalidSteps> {
        let steps = self.run.len();
        let kept = ((steps as f64 * strength) as usize).min(steps);
        if kept == 0 {
            return Err(InvalidSteps::NothingLeft { steps, strength });
        }
        if kept < steps && matches!(self.config().sampler, Sampler::Pndm { skip_prk_steps: false, .. }) {
            return Err(InvalidSteps::BeginsLate { class: self.config().class_name() });
        }
        Ok(Schedule { run: steps - kept..steps, ..self })
    }

    /// The first steps alone: those that begin before the share `end` of the training timesteps is behind, in (0, 1).
    pub fn until(self, end: f64) -> Result<Schedule, InvalidSteps> {
        let kept = self.steps_from(self.cutoff(end));
        let run = self.run.start..(self.run.start + kept).min(self.run.end);
        if run.is_empty() {
            return Err(InvalidSteps::NothingLeft { steps: self.run.len(), strength: end });
        }
        Ok(Schedule { run, ..self })
    }

    /// The steps that [`Schedule::until`] leaves out.
    pub fn from(self, start: f64) -> Result<Schedule, InvalidSteps> {
        let left = self.steps_from(self.cutoff(start));
        let run = (self.run.start + left).min(self.run.end)..self.run.end;
        if run.is_empty() {
            return Err(InvalidSteps::NothingLeft { steps: self.run.len(), strength: 1.0 - start });
        }
        if !run.is_empty()
            && run != self.run
            && matches!(self.config().sampler, Sampler::Pndm { skip_prk_steps: false, .. })
        {
            return Err(InvalidSteps::BeginsLate { class: self.config().class_name() });
        }
        Ok(Schedule { run, ..self })
    }

    /// The timestep at which the share `end` of all is behind.
    fn cutoff(&self, end: f64) -> f64 {
        let all = self.config().num_train_timesteps() as f64;
        (all - end * all).round_ties_even()
    }

    /// How many of the steps begin at timestep `t` or before, on the way down.
    fn steps_from(&self, t: f64) -> usize {
        self.steps().take_while(|(now, _)| now.t >= t).count()
    }

    pub(super) fn config(&self) -> &SchedulerConfig {
        &self.trained.config
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
        let points = &self.points[..self.run.end];
        let (timeline, begin): (Vec<Point>, usize) = match self.config().sampler {
            // The first step of PLMS is done twice, with its second point.
            Sampler::Pndm { skip_prk_steps: true, .. } if points.len() > 1 => {
                (points[..2].iter().chain(&points[1..]).copied().collect(), self.run.start)
            }
            // The first three of PRK take four calls each.
            Sampler::Pndm { skip_prk_steps: false, .. } => {
                let half = (self.stride() / 2.0).floor();
                let four = |pair: &[Point]| {
                    let middle = self.level(pair[1].t + half);
                    [pair[0], middle, middle, pair[1]]
                };
                let first = points.windows(2).take(3).flat_map(four);
                (first.chain(points[3..].iter().copied()).collect(), self.run.start)
            }
            Sampler::Heun { .. } | Sampler::Dpm2 { .. } => {
                let pairs = points[1..].iter().flat_map(|point| [*point, *point]);
                (points[..1].iter().copied().chain(pairs).collect(), 2 * self.run.start)
            }
            _ => (points.to_vec(), self.run.start),
        };
        timeline[begin..].to_vec()
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
        let (signal, noise_scale) = match self.trained.config.sampler {
            Sampler::Euler(_)
            | Sampler::EulerAncestral
            | Sampler::Heun { .. }
            | Sampler::Lms { .. }
            | Sampler::Dpm2 { .. } => (1.0, point.noise()),
            _ => (point.alpha, point.sigma),
        };
        Latents::combine(&[(signal, x0), (noise_scale, noise)])
    }

    /// The level of training timestep `t`; below 0 that of the end.
    pub fn level(&self, t: f64) -> Point {
        self.trained.level(t)
    }

    /// `σ/α` of the training timesteps.
    pub(super) fn sigma_table(&self) -> SigmaTable {
        SigmaTable::new(self.config().betas.alphas_cumprod())
    }

    /// `⌊T/n⌋`, by which DDIM and PNDM go down from a point, wherever the next point is.
    pub(super) fn stride(&self) -> f64 {
        self.trained.stride
    }

    fn checked(self, config: &SchedulerConfig) -> Result<Schedule, InvalidSteps> {
        let network_points = &self.points[..self.points.len() - 1];
        let has_formula = matches!(
            config.sampler,
            Sampler::Ddpm { .. } | Sampler::Ddim { .. } | Sampler::Lcm { .. } | Sampler::Tcd { .. }
        );
        if network_points[0].alpha == 0.0 && !(has_formula && config.prediction != Prediction::Epsilon) {
            return Err(InvalidSteps::ZeroSignal { prediction_type: config.prediction.name() });
        }
        let finite = self.points.iter().all(|p| p.t.is_finite() && p.alpha.is_finite() && p.sigma.is_finite());
        let noisy = network_points.iter().all(|p| p.sigma > 0.0);
        // Compared crosswise, since a quotient would be infinite where the signal is zero.
        let falling = self.steps().all(|(now, next)| next.sigma * now.alpha <= now.sigma * next.alpha);
        if finite && noisy && falling && self.init_noise_sigma.is_finite() {
            Ok(self)
        } else {
            Err(InvalidSteps::Degenerate)
        }
    }
}

impl Trained {
    fn level(&self, t: f64) -> Point {
        let alphas_cumprod = self.config.betas.alphas_cumprod();
        let alpha_cumprod = if t >= 0.0 {
            alphas_cumprod[(t as usize).min(alphas_cumprod.len() - 1)]
        } else {
            match self.config.sampler {
                Sampler::Ddim { set_alpha_to_one: false, .. } | Sampler::Pndm { set_alpha_to_one: false, .. } => {
                    alphas_cumprod[0]
                }
                _ => 1.0,
            }
        };
        Point::of_alpha_cumprod(t, alpha_cumprod)
    }
}

/// DDPM, DDIM and PNDM: whole training timesteps.
fn trained_points(trained: &Trained, steps: usize) -> Result<Vec<Point>, InvalidSteps> {
    let config = &trained.config;
    let num_train_timesteps = config.num_train_timesteps();
    let timesteps = config.spacing.timesteps(num_train_timesteps, steps, config.steps_offset, true)?;
    if let Some(t) = timesteps.iter().find(|t| **t >= num_train_timesteps as f64) {
        return Err(InvalidSteps::OutOfRange { t: *t, num_train_timesteps });
    }
    let last = timesteps[steps - 1];
    let end = if let Sampler::Ddpm { .. } = config.sampler { -1.0 } else { last - trained.stride };
    Ok(timesteps.into_iter().chain([end]).map(|t| trained.level(t)).collect())
}

/// The Euler family: levels between the training timesteps or between two given ones.  Also its `init_noise_sigma`.
fn euler_points(config: &SchedulerConfig, n: usize, levels: &EulerLevels) -> Result<(Vec<Point>, f64), InvalidSteps> {
    let table = SigmaTable::new(config.betas.alphas_cumprod());
    let mut timesteps = config.spacing.timesteps(config.num_train_timesteps(), n, config.steps_offset, false)?;
    let mut sigmas: Vec<f64> = if levels.log_linear {
        Respacing::Exponential.levels(table.max(), table.min(), n + 1)
    } else {
        timesteps.iter().map(|t| table.at(*t)).collect()
    };
    if let Some(respacing) = levels.respacing {
        let max = levels.sigma_max.unwrap_or(sigmas[0]);
        let min = levels.sigma_min.unwrap_or(sigmas[sigmas.len() - 1]);
        sigmas = respacing.levels(max, min, n);
        timesteps = sigmas.iter().map(|sigma| rounded(table.timestep_of(*sigma))).collect();
    }
    sigmas.push(final_sigma(levels.end, &table));
    let sigmas: Vec<f64> = sigmas.into_iter().take(n + 1).map(rounded).collect();
    if levels.continuous && config.prediction == Prediction::Velocity {
        timesteps = sigmas[..n].iter().map(|sigma| rounded(0.25 * libm::log(*sigma))).collect();
    }
    let max = sigmas[0];
    let init_noise_sigma = match config.spacing {
        Spacing::Linspace | Spacing::Trailing => max,
        Spacing::Leading => rounded(libm::sqrt(max * max + 1.0)),
    };
    Ok((points(timesteps, sigmas), init_noise_sigma))
}

/// Consistency models: some of the timesteps that they were distilled at, of the last `kept` of these, and timestep `end`.
fn consistency_points(
    trained: &Trained,
    (original_inference_steps, kept): (usize, usize),
    steps: usize,
    end: f64,
) -> Result<Vec<Point>, InvalidSteps> {
    if steps > kept {
        return Err(InvalidSteps::TooMany { steps, max: kept });
    }
    let stride = trained.config.num_train_timesteps() / original_inference_steps;
    let left_out = |i: usize| (i as f64 * (kept as f64 / steps as f64)) as usize;
    let timestep = |i: usize| ((kept - left_out(i)) * stride - 1) as f64;
    Ok((0..steps).map(timestep).chain([end]).map(|t| trained.level(t)).collect())
}

/// How the classes around DPM-Solver choose their levels.
struct DpmLevels {
    spacing: Spacing,
    steps_offset: usize,
    respacing: Option<Respacing>,
    /// Whether timesteps of chosen levels are rounded before they are cut to whole ones.
    rounds: bool,
    lambda_min_clipped: f64,
    last: Last,
}

/// Where the last step ends.
enum Last {
    Zero,
    /// At the level of timestep 0.
    SigmaMin,
    /// Where it began.
    Repeated,
}

impl From<FinalSigma> for Last {
    fn from(end: FinalSigma) -> Last {
        match end {
            FinalSigma::Zero => Last::Zero,
            FinalSigma::SigmaMin => Last::SigmaMin,
        }
    }
}

impl DpmLevels {
    fn of(config: &SchedulerConfig, respacing: Option<Respacing>, last: Last) -> DpmLevels {
        DpmLevels {
            spacing: config.spacing,
            steps_offset: config.steps_offset,
            respacing,
            rounds: respacing == Some(Respacing::Karras),
            lambda_min_clipped: f64::NEG_INFINITY,
            last,
        }
    }
}

fn dpm_points(config: &SchedulerConfig, n: usize, levels: &DpmLevels) -> Result<Vec<Point>, InvalidSteps> {
    let alphas_cumprod = config.betas.alphas_cumprod();
    let table = SigmaTable::new(alphas_cumprod);
    let kept = SigmaTable::with_lambda_from(alphas_cumprod, levels.lambda_min_clipped);
    let mut timesteps = levels.spacing.dpm_timesteps(kept, config.num_train_timesteps(), n, levels.steps_offset)?;
    let mut sigmas: Vec<f64> = timesteps.iter().map(|t| table.at(*t)).collect();
    if let Some(respacing) = levels.respacing {
        sigmas = respacing.levels(table.max(), table.min(), n);
        let whole = |t: f64| {
            if levels.rounds { t.round_ties_even() } else { t.trunc() }
        };
        timesteps = sigmas.iter().map(|sigma| whole(table.timestep_of(*sigma))).collect();
    }
    sigmas.push(match levels.last {
        Last::Zero => 0.0,
        Last::SigmaMin => table.min(),
        Last::Repeated => sigmas[sigmas.len() - 1],
    });
    Ok(points(timesteps, sigmas.into_iter().map(rounded).collect()))
}

fn final_sigma(end: FinalSigma, table: &SigmaTable) -> f64 {
    match end {
        FinalSigma::Zero => 0.0,
        FinalSigma::SigmaMin => table.min(),
    }
}

/// Points of these timesteps and levels; the end, which the network never sees, is at timestep 0.
fn points(timesteps: Vec<f64>, sigmas: Vec<f64>) -> Vec<Point> {
    timesteps.into_iter().chain([0.0]).zip(sigmas).map(|(t, sigma)| Point::of_noise(t, sigma)).collect()
}

fn rounded(x: f64) -> f64 {
    f64::from(x as f32)
}
