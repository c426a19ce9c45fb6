//! DEIS multistep (Zhang and Chen 2023, arXiv:2204.13902): diffusers' `DEISMultistepScheduler`.

use std::{collections::VecDeque, sync::Arc};

use super::SamplerInputs;
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::{Clip, Prediction};
use crate::diffusion::sample::Denoise;
use crate::diffusion::schedule::{DpmLevels, Last, dpm_points};
use crate::diffusion::scheduler_config::keys::{Keys, RESPACING, SPACING, THRESHOLDING, TRAINING};
use crate::diffusion::scheduler_config::{Class, Name, Sampler, SchedulerConfig};
use crate::diffusion::sigmas::Respacing;
use crate::diffusion::step_source::StepSource;

pub(super) static CLASS: Class = Class {
    names: &[Name::new("deis", "Exponential integrator of Zhang and Chen (2023), multistep")],
    ..Class::new("DEISMultistepScheduler", KEYS, read)
};

const KEYS: &[&[&str]] = &[
    &TRAINING,
    &SPACING,
    &THRESHOLDING,
    &RESPACING,
    &["solver_order", "algorithm_type", "solver_type", "lower_order_final"],
    &["use_flow_sigmas", "flow_shift", "use_dynamic_shifting", "time_shift_type"],
];

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Deis {
    respacing: Option<Respacing>,
    clip: Clip,
    /// From 1 to 3.
    order: usize,
    lower_order_final: bool,
}

fn read(keys: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    // All values except `logrho` and `deis` belong to other classes; diffusers treats them as `logrho` and `deis`.
    let words = ["logrho", "midpoint", "heun", "bh1", "bh2"].map(|word| (word, ()));
    keys.word("solver_type", "logrho", &words)?;
    keys.word("algorithm_type", "deis", &["deis", "dpmsolver", "dpmsolver++"].map(|word| (word, ())))?;
    Ok(Arc::new(Deis {
        respacing: keys.respacing()?,
        clip: keys.thresholding()?,
        order: keys.integer("solver_order", 2, 1, 3)?,
        lower_order_final: keys.flag("lower_order_final", true)?,
    }))
}

impl Sampler for Deis {
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        let repeats = self.respacing.is_some() || config.flow.is_some();
        let last = if repeats { Last::Repeated } else { Last::SigmaMin };

        let levels = DpmLevels::of(config, self.respacing, last);
        Ok((dpm_points(config, step_source.without_lists(config)?, &levels)?, 1.0))
    }

    fn respacing(&self) -> Option<Respacing> {
        self.respacing
    }
}

/// tAB-DEIS of Zhang and Chen (2023), of order 1 to 3, in ρ = σ/α with polynomials in ln ρ. States are
/// `x = α x0 + σ ε`. The levels never reach zero noise.
pub(super) async fn sample<D: Denoise>(options: &Deis, run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    let SamplerInputs { network, schedule, mut x, .. } = run;
    // ρ and ε at the last points, the newest first.
    let mut known: VecDeque<(f64, Latents)> = VecDeque::with_capacity(options.order);
    for (i, (now, next)) in schedule.steps().enumerate() {
        let (x0, _) = network.x0_and_epsilon(&x, &now, options.clip).await?;
        known.truncate(options.order - 1);
        known.push_front((now.noise(), Prediction::Sample.epsilon(&x, &x0, &now)));
        let left = schedule.whole() - (schedule.run().start + i);
        let short = options.lower_order_final && schedule.whole() < 15;
        let order = if short { options.order.min(left) } else { options.order }.min(known.len());
        let rho: Vec<f64> = known.iter().take(order).map(|(rho, _)| *rho).collect();
        let weights = weights(&rho, next.noise());
        let answers = weights.iter().zip(&known).map(|(weight, (_, epsilon))| (next.alpha * weight, epsilon));
        let terms: Vec<_> = std::iter::once((next.alpha / now.alpha, &x)).chain(answers).collect();
        x = network.adjusted(Latents::combine(&terms));
        network.stepped(i, &x0);
    }
    Ok(x)
}

/// The integrals `∫ ℓ_j(ln ρ) dρ` from `rho[0]`, at the newest known point, to `next`, where `ℓ_j` are the Lagrange
/// polynomials in ln ρ through the known points.
fn weights(rho: &[f64], next: f64) -> Vec<f64> {
    let logs: Vec<f64> = rho.iter().map(|rho| libm::log(*rho)).collect();
    let weight = |j: usize| {
        let others: Vec<f64> = (0..logs.len()).filter(|k| *k != j).map(|k| logs[k]).collect();
        let below: f64 = others.iter().map(|other| logs[j] - other).product();
        // Antiderivatives of 1, (ln ρ − a) and (ln ρ − a)(ln ρ − b).
        let primitive = |rho: f64| {
            let log = libm::log(rho);
            match others[..] {
                [] => rho,
                [a] => rho * (log - a - 1.0),
                [a, b, ..] => rho * ((log - a) * (log - b) - 2.0 * log + a + b + 2.0),
            }
        };
        (primitive(next) - primitive(rho[0])) / below
    };
    (0..rho.len()).map(weight).collect()
}
