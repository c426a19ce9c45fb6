//! DPM-Solver (Lu et al. 2022a, arXiv:2206.00927) and DPM-Solver++ (2022b, arXiv:2211.01095), multistep: diffusers'
//! `DPMSolverMultistepScheduler`.

use std::{collections::VecDeque, sync::Arc};

use serde_json::Value;

use super::SamplerInputs;
use super::exponential::Step;
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::{Clip, Prediction};
use crate::diffusion::sample::Denoise;
use crate::diffusion::schedule::{DpmLevels, Last, dpm_points};
use crate::diffusion::scheduler_config::keys::{Keys, RESPACING, SPACING, THRESHOLDING, TRAINING};
use crate::diffusion::scheduler_config::{Class, DpmSolver, FinalSigma, Label, Name, Preset, Sampler, SchedulerConfig};
use crate::diffusion::sigmas::Respacing;
use crate::diffusion::step_source::StepSource;

pub(super) static CLASS: Class = Class {
    names: &[
        Name::new("dpmpp_2m", "DPM-Solver++ of Lu et al. (2022), multistep, good from 15 steps on"),
        Name::new("dpmpp_2m_sde", "DPM-Solver++ multistep with noise in every step")
            .with("algorithm_type", Preset::Word("sde-dpmsolver++")),
        Name::new("dpmpp_3m", "DPM-Solver++ multistep of third order").with("solver_order", Preset::Number(3)),
    ],
    ..Class::new("DPMSolverMultistepScheduler", KEYS, read)
};

const KEYS: &[&[&str]] = &[
    &TRAINING,
    &SPACING,
    &THRESHOLDING,
    &RESPACING,
    &["solver_order", "algorithm_type", "solver_type", "lower_order_final", "euler_at_final", "use_lu_lambdas"],
    &["use_flow_sigmas", "flow_shift", "use_dynamic_shifting", "time_shift_type"],
    &["final_sigmas_type", "lambda_min_clipped", "variance_type", "rescale_betas_zero_snr"],
];

#[derive(Debug, Clone, PartialEq)]
pub(super) struct DpmMultistep {
    respacing: Option<Respacing>,
    /// Whether the timesteps of karras and Lu levels are rounded to integers; with cosine betas they are truncated.
    rounded: bool,
    lambda_min_clipped: f64,
    steps: Multistep,
}

/// The options of the steps, which do not depend on how the levels are chosen.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Multistep {
    pub(super) end: FinalSigma,
    pub(super) clip: Clip,
    pub(super) solver: DpmSolver,
}

fn read(keys: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    keys.no_learned_variance()?;
    // As in diffusers, karras levels take precedence over Lu levels, and Lu levels over the others.
    let respacing = match keys.respacing()? {
        Some(Respacing::Karras) => Some(Respacing::Karras),
        other => {
            if keys.flag("use_lu_lambdas", false)? {
                Some(Respacing::Lu)
            } else {
                other
            }
        }
    };
    let end = keys.final_sigma()?;
    let solver = keys.dpm_solver(end, true)?;
    Ok(Arc::new(DpmMultistep {
        respacing,
        rounded: keys.get("beta_schedule").and_then(Value::as_str) != Some("squaredcos_cap_v2"),
        lambda_min_clipped: keys.lambda_min_clipped()?,
        steps: Multistep { end, clip: keys.thresholding()?, solver },
    }))
}

impl Sampler for DpmMultistep {
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        let levels = DpmLevels {
            rounds: self.rounded && matches!(self.respacing, Some(Respacing::Karras | Respacing::Lu)),
            lambda_min_clipped: self.lambda_min_clipped,
            ..DpmLevels::of(config, self.respacing, Last::from(self.steps.end))
        };
        Ok((dpm_points(config, step_source.without_sigmas(config)?, &levels)?, 1.0))
    }

    fn respacing(&self) -> Option<Respacing> {
        self.respacing
    }

    fn label(&self) -> Label {
        match self.steps.solver {
            DpmSolver { plus_plus: true, sde: false, order: 2, heun: false, .. } => Label::WithLevels("DPM++ 2M"),
            DpmSolver { plus_plus: true, sde: true, order: 2, heun: false, .. } => Label::WithLevels("DPM++ 2M SDE"),
            DpmSolver { plus_plus: true, sde: true, order: 2, heun: true, .. } => {
                Label::WithLevels("DPM++ 2M SDE Heun")
            }
            DpmSolver { plus_plus: true, sde: true, order: 3, .. } => Label::WithLevels("DPM++ 3M SDE"),
            DpmSolver { plus_plus: true, sde: false, order: 3, .. } => Label::Name("dpmpp_3m"),
            _ => Label::Class,
        }
    }
}

pub(super) async fn sample<D: Denoise>(options: &DpmMultistep, run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    dpm_multistep(&options.steps, run).await
}

/// Algorithm 2 of Lu et al. (2022b), its stochastic form, and the solvers of Lu et al. (2022a), which integrate ε; all
/// of order 1 to 3. States are `x = α x0 + σ ε`, λ = ln(α/σ). The stochastic forms draw noise in every step.
pub(super) async fn dpm_multistep<D: Denoise>(
    options: &Multistep,
    run: SamplerInputs<'_, D>,
) -> Result<Latents, Error> {
    let SamplerInputs { network, schedule, mut x, noise, .. } = run;
    let solver = options.solver;
    // The order of a step depends on its position in the whole schedule, also if the run starts late.
    let (begin, steps) = (schedule.run().start, schedule.whole());
    // λ and the integrand (x0 or ε) at the last steps, the newest first.
    let mut known: VecDeque<(f64, Latents)> = VecDeque::with_capacity(solver.order);
    for (i, (now, next)) in schedule.steps().enumerate() {
        let (x0, epsilon) = network.x0_and_epsilon(&x, &now, options.clip).await?;
        let integrand = match options.clip {
            _ if solver.plus_plus => x0.clone(),
            Clip::Nothing => epsilon,
            _ => Prediction::Sample.epsilon(&x, &x0, &now),
        };
        known.truncate(solver.order - 1);
        known.push_front((now.lambda(), integrand));
        let z = solver.sde.then(|| noise.draw(x.shape()));
        let order = order_of_step(&solver, options.end, begin + i, steps).min(known.len());
        x = step(&solver, order, &x, &known, (&now, &next), z.as_ref());
        x = network.adjusted(x);
        network.stepped(i, &x0);
    }
    Ok(x)
}

/// The order of step `i`: lower in the last steps of short runs, and 1 for a step to zero noise. The caller also limits
/// the order of the first steps.
fn order_of_step(solver: &DpmSolver, end: FinalSigma, i: usize, steps: usize) -> usize {
    let short = solver.lower_order_final && steps < 15;
    let wanted = match steps - i {
        1 if solver.euler_at_final || short || end == FinalSigma::Zero => 1,
        2 if short => 2,
        _ => 3,
    };
    wanted.min(solver.order)
}

/// One step from the integrands at the last steps (the newest first, with their λ).
fn step(
    solver: &DpmSolver,
    order: usize,
    x: &Latents,
    known: &VecDeque<(f64, Latents)>,
    (now, next): (&Point, &Point),
    z: Option<&Latents>,
) -> Latents {
    let Step { h, c, c0, c1, c2, s } = Step::new(solver, order, now, next);
    if h == 0.0 {
        return x.clone();
    }
    let (lambda0, m0) = &known[0];
    let x = match order {
        1 => Latents::combine(&[(c, x), (c0, m0)]),
        2 => {
            let (lambda1, m1) = &known[1];
            let d1 = c1 * quotient(h, lambda0 - lambda1);
            Latents::combine(&[(c, x), (c0 + d1, m0), (-d1, m1)])
        }
        _ => {
            let ((lambda1, m1), (lambda2, m2)) = (&known[1], &known[2]);
            let (h0, h1) = (lambda0 - lambda1, lambda1 - lambda2);
            // D1 and D2, expressed by the slopes from m1 to m0 and from m2 to m1.
            let (share, curve) = (quotient(h0, h0 + h1), quotient(h, h0 + h1));
            let d0 = (c1 * (1.0 + share) + c2 * curve) * quotient(h, h0);
            let d1 = -(c1 * share + c2 * curve) * quotient(h, h1);
            Latents::combine(&[(c, x), (c0 + d0, m0), (d1 - d0, m1), (-d1, m2)])
        }
    };
    match z {
        Some(z) => Latents::combine(&[(1.0, &x), (s, z)]),
        None => x,
    }
}

/// `over / under`, or zero between two equal levels, which have no slope between them.
fn quotient(over: f64, under: f64) -> f64 {
    if under == 0.0 { 0.0 } else { over / under }
}
