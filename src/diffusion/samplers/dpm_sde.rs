//! DPM-Solver++ SDE, singlestep with noise from a Brownian path (Lu et al. 2022b, arXiv:2211.01095): diffusers'
//! `DPMSolverSDEScheduler`.

use std::sync::Arc;

use super::SamplerInputs;
use super::dpm2::{between, down_and_up};
use crate::diffusion::brownian::BrownianNoise;
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::Clip;
use crate::diffusion::sample::Denoise;
use crate::diffusion::schedule::euler_points;
use crate::diffusion::scheduler_config::keys::{Keys, RESPACING, SPACING, TRAINING, refused};
use crate::diffusion::scheduler_config::{
    Class, EulerLevels, Label, Name, RunPoints, Sampler, SchedulerConfig, Training, epsilon_or_velocity,
};
use crate::diffusion::sigmas::Respacing;
use crate::diffusion::step_source::StepSource;

pub(super) static CLASS: Class = Class {
    names: &[Name::new("dpmpp_sde", "DPM-Solver++ singlestep with noise along a path, two network calls a step")],
    training: Training::LATENTS,
    prediction: epsilon_or_velocity,
    keeps_karras_ends: true,
    is_over_alpha: true,
    ..Class::new("DPMSolverSDEScheduler", &[&TRAINING, &SPACING, &RESPACING, &["noise_sampler_seed"]], read)
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct DpmSde {
    respacing: Option<Respacing>,
    /// Seed of the Brownian path; if `None`, the seeds of the run are used.
    seed: Option<u64>,
}

fn read(keys: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    Ok(Arc::new(DpmSde { respacing: keys.respacing()?, seed: seed(keys)? }))
}

/// Reads `noise_sampler_seed`, at most 64 bits; numpy accepts longer seeds.
fn seed(keys: Keys<'_>) -> Result<Option<u64>, InvalidScheduler> {
    let key = "noise_sampler_seed";
    let Some(value) = keys.get(key) else { return Ok(None) };
    let seed = value.as_u64().ok_or_else(|| refused(key, value, "a whole number from 0 to 2^64 - 1".to_owned()))?;
    Ok(Some(seed))
}

impl Sampler for DpmSde {
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        euler_points(config, step_source.without_lists(config)?, &EulerLevels::plain(self.respacing))
    }

    fn timeline(&self, run: &RunPoints<'_>) -> Vec<Point> {
        run.at_both_ends()
    }

    fn respacing(&self) -> Option<Respacing> {
        self.respacing
    }

    fn label(&self) -> Label {
        Label::WithLevels("DPM++ SDE")
    }
}

/// The second-order singlestep solver of Lu et al. (2022b) with states `x = x0 + σ ε` and ancestral noise. All noise of
/// an image comes from one Brownian path, which `noise_sampler_seed` or a seed of the run seeds. The last step, to zero
/// noise, is an Euler step.
pub(super) async fn sample<D: Denoise>(options: &DpmSde, run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    let SamplerInputs { network, schedule, mut x, noise, .. } = run;
    let seed = options.seed;
    let table = schedule.sigma_table();
    let levels = || schedule.points().iter().map(Point::noise).filter(|sigma| *sigma > 0.0);
    let path = noise.brownian(seed, x.shape(), levels().fold(f64::INFINITY, f64::min), levels().fold(0.0, f64::max));
    for (i, (now, next)) in schedule.steps().enumerate() {
        let (sigma, sigma_next) = (now.noise(), next.noise());
        let mut x0 = network.denoised(&x, &now, Clip::Nothing).await?;
        if sigma_next == 0.0 {
            x = x0.clone();
        } else {
            let middle = between(sigma, sigma_next);
            let half = network.adjusted(step(&x, &x0, &path, sigma, middle));
            let there = Point::of_noise(table.timestep_of(middle), middle);
            x0 = network.denoised(&half, &there, Clip::Nothing).await?;
            x = step(&x, &x0, &path, sigma, sigma_next);
        }
        x = network.adjusted(x);
        network.stepped(i, &x0);
    }
    Ok(x)
}

/// Goes down to `σ_down` with constant x0, then adds noise up to the level `to`.
fn step(x: &Latents, x0: &Latents, path: &BrownianNoise, from: f64, to: f64) -> Latents {
    let (down, up) = down_and_up(from, to);
    let z = path.between(through_log(from), through_log(to));
    Latents::combine(&[(down / from, x), (1.0 - down / from, x0), (up, &z)])
}

/// The level after diffusers' round trip through `−ln σ` in float32. The Brownian path uses the result as time. The
/// path rounds times to six decimals, which is about the precision of float32 here; where torch rounds a time
/// differently, its noise differs by the increment over one millionth.
fn through_log(sigma: f64) -> f64 {
    let log = libm::log(sigma) as f32;
    f64::from(libm::exp(f64::from(log)) as f32)
}
