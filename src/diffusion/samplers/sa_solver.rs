//! SA-Solver, a stochastic Adams method (Xue et al. 2023, arXiv:2309.05019): diffusers' `SASolverScheduler`.

use std::{collections::VecDeque, sync::Arc};

use super::SamplerInputs;
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::{Clip, Prediction};
use crate::diffusion::sample::Denoise;
use crate::diffusion::schedule::{DpmLevels, Last, dpm_points};
use crate::diffusion::scheduler_config::keys::{Keys, RESPACING, SPACING, THRESHOLDING, TRAINING, refused};
use crate::diffusion::scheduler_config::{Class, Name, Sampler, SchedulerConfig};
use crate::diffusion::sigmas::Respacing;
use crate::diffusion::step_source::StepSource;

pub(super) static CLASS: Class = Class {
    names: &[Name::new("sa_solver", "Stochastic Adams method of Xue et al. (2023), predictor and corrector")],
    exclusive_values: Some(("algorithm_type", &["data_prediction", "noise_prediction"])),
    ..Class::new("SASolverScheduler", KEYS, read)
};

const KEYS: &[&[&str]] = &[
    &TRAINING,
    &SPACING,
    &THRESHOLDING,
    &RESPACING,
    &["predictor_order", "corrector_order", "tau_func", "algorithm_type", "lower_order_final"],
    &["use_flow_sigmas", "flow_shift", "lambda_min_clipped", "variance_type"],
];

#[derive(Debug, Clone, PartialEq)]
pub(super) struct SaSolver {
    respacing: Option<Respacing>,
    lambda_min_clipped: f64,
    clip: Clip,
    /// From 1 to 4; the same holds for `corrector_order`.
    predictor_order: usize,
    corrector_order: usize,
    /// Whether the solver integrates x0 (`data_prediction`); otherwise it integrates ε (`noise_prediction`).
    predict_x0: bool,
    lower_order_final: bool,
}

/// diffusers' values of `prediction_type`.
const PREDICTIONS: [(&str, &str); 4] = [
    ("epsilon", "epsilon"),
    ("v_prediction", "v_prediction"),
    ("sample", "sample"),
    ("flow_prediction", "flow_prediction"),
];

fn read(keys: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    keys.no_learned_variance()?;
    if let Some(value) = keys.get("tau_func") {
        return Err(refused("tau_func", value, "null, because a function cannot be sent".to_owned()));
    }
    let algorithms = [("data_prediction", true), ("noise_prediction", false)];
    let predict_x0 = keys.word("algorithm_type", "data_prediction", &algorithms)?;
    if !predict_x0 && keys.word("prediction_type", "epsilon", &PREDICTIONS)? == "flow_prediction" {
        return Err(InvalidScheduler::Conflict {
            keys: "algorithm_type and prediction_type",
            why: "flow_prediction needs data_prediction",
        });
    }
    Ok(Arc::new(SaSolver {
        respacing: keys.respacing()?,
        lambda_min_clipped: keys.lambda_min_clipped()?,
        clip: keys.thresholding()?,
        predictor_order: keys.integer("predictor_order", 2, 1, 4)?,
        corrector_order: keys.integer("corrector_order", 2, 1, 4)?,
        predict_x0,
        lower_order_final: keys.flag("lower_order_final", true)?,
    }))
}

impl Sampler for SaSolver {
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        let repeats = self.respacing.is_some() || config.flow.is_some();
        let last = if repeats { Last::Repeated } else { Last::SigmaMin };

        let levels =
            DpmLevels { lambda_min_clipped: self.lambda_min_clipped, ..DpmLevels::of(config, self.respacing, last) };
        Ok((dpm_points(config, step_source.without_lists(config)?, &levels)?, 1.0))
    }

    fn respacing(&self) -> Option<Respacing> {
        self.respacing
    }
}

/// Algorithm 1 of Xue et al. (2023) with states `x = α x0 + σ ε`, λ = ln(α/σ). The network output at a point first
/// corrects the state that was predicted there, and then predicts the next state. Every step draws noise; the factor τ
/// of the noise is 1 at timesteps from 200 to 800, and otherwise 0.
pub(super) async fn sample<D: Denoise>(options: &SaSolver, run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    let SamplerInputs { network, schedule, mut x, noise, .. } = run;
    let kept = options.predictor_order.max(options.corrector_order - 1);
    // λ and the integrand (x0 or ε) at the last points, the newest first.
    let mut known: VecDeque<(f64, Latents)> = VecDeque::with_capacity(kept + 1);
    // The inputs of the last prediction, for its correction: state, point, noise, and the order of the corrector.
    let mut predicted: Option<(Latents, Point, Latents, usize)> = None;
    for (i, (now, next)) in schedule.steps().enumerate() {
        let left = schedule.whole() - (schedule.run().start + i);
        let (x0, epsilon) = network.x0_and_epsilon(&x, &now, options.clip).await?;
        let m = match options.clip {
            _ if options.predict_x0 => x0.clone(),
            Clip::Nothing => epsilon,
            _ => Prediction::Sample.epsilon(&x, &x0, &now),
        };
        known.push_front((now.lambda(), m));
        if let Some((from, before, z, order)) = predicted.take() {
            x = step(options, order, &from, &known, (&before, &now), &z);
        }
        known.truncate(kept);
        let z = noise.draw(x.shape());
        let lower = |order: usize, left: usize| if options.lower_order_final { order.min(left) } else { order };
        let corrector = lower(options.corrector_order, left + 1).min(known.len() + 1);
        let order = lower(options.predictor_order, left).min(known.len());
        predicted = Some((x.clone(), now, z.clone(), corrector));
        x = network.adjusted(step(options, order, &x, &known, (&now, &next), &z));
        network.stepped(i, &x0);
    }
    Ok(x)
}

/// The exact solution of the stochastic equation over one step, where a polynomial of this order through the newest
/// integrands replaces the integrand: equations 14 and 17. If the newest integrand is at the end of the step, the step
/// is a correction.
fn step(
    options: &SaSolver,
    order: usize,
    x: &Latents,
    known: &VecDeque<(f64, Latents)>,
    (now, next): (&Point, &Point),
    z: &Latents,
) -> Latents {
    let tau2 = if (200.0..=800.0).contains(&now.t) { 1.0 } else { 0.0 };
    let h = next.lambda() - now.lambda();
    let k = 1.0 + tau2;
    let (c, scale, rate, s) = if options.predict_x0 {
        let variance = -libm::expm1(-2.0 * tau2 * h);
        let c = libm::exp(-tau2 * h) * next.sigma / now.sigma;
        (c, k * next.alpha, k, next.sigma * libm::sqrt(variance.max(0.0)))
    } else {
        let variance = tau2 * libm::expm1(2.0 * h);
        (next.alpha / now.alpha, -k * next.sigma, -1.0, next.sigma * libm::sqrt(variance.max(0.0)))
    };
    // Nodes as distances in λ from the end of the step.
    let nodes: Vec<f64> = known.iter().take(order).map(|(lambda, _)| lambda - next.lambda()).collect();
    let moments = moments(h, rate, order);
    let mut weights: Vec<f64> = (0..order)
        .map(|i| lagrange(&nodes, i).iter().zip(&moments).map(|(c, moment)| scale * c * moment).sum())
        .collect();
    if options.predict_x0 && order == 2 {
        // Replaces the exact integral of the slope by h²/2, as the paper's implementation and diffusers do.
        let off = h * h / 2.0 - (h * k + libm::expm1(-k * h)) / (k * k);
        let slope = scale * off / (nodes[0] - nodes[1]);
        weights[0] += slope;
        weights[1] -= slope;
    }
    let integrands = weights.into_iter().zip(known).map(|(weight, (_, m))| (weight, m));
    let terms: Vec<_> = std::iter::once((c, x)).chain(integrands).chain([(s, z)]).collect();
    Latents::combine(&terms)
}

/// `∫ u^p e^(rate u) du` from −h to 0, for p from 0 to `count − 1`.
fn moments(h: f64, rate: f64, count: usize) -> Vec<f64> {
    let mut moments = vec![-libm::expm1(-rate * h) / rate];
    for p in 1..count {
        let lower = -libm::pow(-h, p as f64) * libm::exp(-rate * h) / rate;
        moments.push(lower - p as f64 / rate * moments[p - 1]);
    }
    moments
}

/// The coefficients, from the constant term up, of the polynomial that is 1 at node `i` and 0 at the other nodes.
fn lagrange(nodes: &[f64], i: usize) -> Vec<f64> {
    let mut polynomial = vec![1.0];
    for (j, node) in nodes.iter().enumerate().filter(|(j, _)| *j != i) {
        let below = nodes[i] - nodes[j];
        let shifted = std::iter::once(0.0).chain(polynomial.iter().copied());
        let unshifted = polynomial.iter().copied().chain([0.0]);
        polynomial = shifted.zip(unshifted).map(|(up, same)| (up - node * same) / below).collect();
    }
    polynomial
}
