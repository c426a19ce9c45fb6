//! DPM-Solver (Lu et al. 2022a, arXiv:2206.00927) and DPM-Solver++ (2022b, arXiv:2211.01095), singlestep: diffusers'
//! `DPMSolverSinglestepScheduler`.

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
use crate::diffusion::scheduler_config::keys::{Keys, RESPACING, THRESHOLDING, TRAINING, refused};
use crate::diffusion::scheduler_config::{Class, DpmSolver, FinalSigma, Name, Sampler, SchedulerConfig};
use crate::diffusion::sigmas::Respacing;
use crate::diffusion::spacing::Spacing;
use crate::diffusion::step_source::StepSource;

pub(super) static CLASS: Class = Class {
    names: &[Name::new("dpmpp_2s", "DPM-Solver++ singlestep of second order")],
    ..Class::new("DPMSolverSinglestepScheduler", KEYS, read)
};

const KEYS: &[&[&str]] = &[
    &TRAINING,
    &THRESHOLDING,
    &RESPACING,
    &["solver_order", "algorithm_type", "solver_type", "lower_order_final"],
    &["use_flow_sigmas", "flow_shift", "use_dynamic_shifting", "time_shift_type"],
    &["final_sigmas_type", "lambda_min_clipped", "variance_type"],
];

/// Options of the class. `solver.lower_order_final` gives the last step first order if the number of steps is a
/// multiple of the order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct DpmSinglestep {
    respacing: Option<Respacing>,
    lambda_min_clipped: f64,
    end: FinalSigma,
    clip: Clip,
    solver: DpmSolver,
}

fn read(keys: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    keys.no_learned_variance()?;
    let end = keys.final_sigma()?;
    let solver = keys.dpm_solver(end, false)?;
    if solver.sde && !solver.plus_plus {
        let value = Value::from("sde-dpmsolver");
        return Err(refused("algorithm_type", &value, "dpmsolver++, dpmsolver or sde-dpmsolver++".to_owned()));
    }
    Ok(Arc::new(DpmSinglestep {
        respacing: keys.respacing()?,
        lambda_min_clipped: keys.lambda_min_clipped()?,
        end,
        clip: keys.thresholding()?,
        solver,
    }))
}

impl Sampler for DpmSinglestep {
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        let levels = DpmLevels {
            spacing: Spacing::Linspace,
            steps_offset: 0,
            lambda_min_clipped: self.lambda_min_clipped,
            ..DpmLevels::of(config, self.respacing, Last::from(self.end))
        };
        Ok((dpm_points(config, step_source.without_sigmas(config)?, &levels)?, 1.0))
    }

    fn respacing(&self) -> Option<Respacing> {
        self.respacing
    }
}

/// Algorithm 1 of Lu et al. (2022b), its stochastic form, and the solvers of Lu et al. (2022a), which integrate ε.
/// States are `x = α x0 + σ ε`. Steps form groups; the number of steps of a group is the order. Each step moves the
/// first state of its group to the next point, using all network outputs of the group so far. The stochastic form draws
/// noise in every step.
pub(super) async fn sample<D: Denoise>(options: &DpmSinglestep, run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    let SamplerInputs { network, schedule, mut x, noise, .. } = run;
    let (solver, points) = (options.solver, schedule.points());
    let orders = orders(&solver, options.end, schedule.whole());
    let mut first = x.clone();
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
        let at = schedule.run().start + i;
        let order = orders[at].min(known.len());
        if order == 1 {
            first = x;
        }
        let step = Step::new(&solver, order, &points[at + 1 - order], &next);
        let z = solver.sde.then(|| noise.draw(first.shape()));
        x = group(&step, &solver, order, &first, &known);
        if let Some(z) = z {
            x = Latents::combine(&[(1.0, &x), (step.s, &z)]);
        }
        x = network.adjusted(x);
        network.stepped(i, &x0);
    }
    Ok(x)
}

/// The order of every step: 1, 2, … up to the solver's order, repeated; the last step may have first order.
fn orders(solver: &DpmSolver, end: FinalSigma, steps: usize) -> Vec<usize> {
    let order = solver.order;
    let mut orders: Vec<usize> = (0..steps).map(|i| i % order + 1).collect();
    // A step to zero noise always has first order. If the last group is incomplete, its last step already has a lower
    // order.
    if end == FinalSigma::Zero || (solver.lower_order_final && steps.is_multiple_of(order)) {
        orders[steps - 1] = 1;
    }
    orders
}

/// The first state of a group, moved to the next point without noise.
fn group(step: &Step, solver: &DpmSolver, order: usize, first: &Latents, known: &VecDeque<(f64, Latents)>) -> Latents {
    let &Step { h, c, c0, c1, c2, .. } = step;
    let m = |j: usize| &known[j].1;
    // The distance in λ from the first point of the group to point j, in units of the step.
    let r = |j: usize| (known[j].0 - known[order - 1].0) / h;
    match order {
        1 => Latents::combine(&[(c, first), (c0, m(0))]),
        2 => Latents::combine(&[(c, first), (c0 - c1 / r(0), m(1)), (c1 / r(0), m(0))]),
        _ if !solver.heun => Latents::combine(&[(c, first), (c0 - c1 / r(0), m(2)), (c1 / r(0), m(0))]),
        _ => {
            let (r0, r1) = (r(0), r(1));
            // D1 = (r0 S1 − r1 S0)/(r0 − r1) and D2 = 2 (S0 − S1)/(r0 − r1), where S0 and S1 are the slopes to m0 and
            // m1.
            let s0 = (-c1 * r1 + 2.0 * c2) / (r0 - r1) / r0;
            let s1 = (c1 * r0 - 2.0 * c2) / (r0 - r1) / r1;
            Latents::combine(&[(c, first), (c0 - s0 - s1, m(2)), (s1, m(1)), (s0, m(0))])
        }
    }
}
