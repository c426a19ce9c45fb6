//! UniPC, a predictor and corrector (Zhao et al. 2023, arXiv:2302.04867): diffusers' `UniPCMultistepScheduler`.

use std::{collections::VecDeque, sync::Arc};

use serde_json::Value;

use super::SamplerInputs;
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::{Clip, Prediction};
use crate::diffusion::sample::Denoise;
use crate::diffusion::schedule::{DpmLevels, Last, dpm_points};
use crate::diffusion::scheduler_config::flow::FlowKeys;
use crate::diffusion::scheduler_config::keys::{Keys, RESPACING, SPACING, THRESHOLDING, TRAINING, refused};
use crate::diffusion::scheduler_config::{Class, FinalSigma, Label, Name, Sampler, SchedulerConfig};
use crate::diffusion::sigmas::Respacing;
use crate::diffusion::step_source::StepSource;

pub(super) static CLASS: Class = Class {
    names: &[Name::new("unipc", "Predictor and corrector of Zhao et al. (2023), good from 10 steps on")],
    flow: FlowKeys { needs_size: true, ..FlowKeys::OPTIONAL },
    ..Class::new("UniPCMultistepScheduler", KEYS, read)
};

const KEYS: &[&[&str]] = &[
    &TRAINING,
    &SPACING,
    &THRESHOLDING,
    &RESPACING,
    &["solver_order", "predict_x0", "solver_type", "lower_order_final", "disable_corrector", "solver_p"],
    &["use_flow_sigmas", "flow_shift", "use_dynamic_shifting", "time_shift_type", "shift_terminal"],
    &["final_sigmas_type", "sigma_min", "sigma_max", "rescale_betas_zero_snr"],
];

#[derive(Debug, Clone, PartialEq)]
pub(super) struct UniPc {
    respacing: Option<Respacing>,
    end: FinalSigma,
    clip: Clip,
    /// From 1 to 3.
    order: usize,
    /// Whether `B(h)` is `h` (bh1); otherwise it is `e^h − 1` (bh2).
    bh1: bool,
    /// Whether the solver integrates x0; otherwise it integrates ε.
    predict_x0: bool,
    lower_order_final: bool,
    /// Steps, counted from 0, whose predicted states are not corrected.
    disable_corrector: Vec<usize>,
}

fn read(keys: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    if let Some(value) = keys.get("solver_p") {
        return Err(refused("solver_p", value, "null".to_owned()));
    }
    let end = keys.final_sigma()?;
    // The last three values belong to other classes; diffusers treats them as bh2.
    let types = [("bh1", true), ("bh2", false), ("midpoint", false), ("heun", false), ("logrho", false)];
    let bh1 = keys.word("solver_type", "bh2", &types)?;
    if bh1 && end == FinalSigma::Zero {
        return Err(InvalidScheduler::Conflict {
            keys: "solver_type and final_sigmas_type",
            why: "bh1 has no step to zero noise, it needs final_sigmas_type sigma_min",
        });
    }
    let predict_x0 = keys.flag("predict_x0", true)?;
    if !predict_x0 && end == FinalSigma::Zero {
        return Err(InvalidScheduler::Conflict {
            keys: "predict_x0 and final_sigmas_type",
            why: "a step to zero noise needs predict_x0 true, or the end must be sigma_min",
        });
    }
    let (order, lower_order_final) = (keys.integer("solver_order", 2, 1, 3)?, keys.flag("lower_order_final", true)?);
    if order > 1 && !lower_order_final && end == FinalSigma::Zero {
        return Err(InvalidScheduler::Conflict {
            keys: "lower_order_final and final_sigmas_type",
            why: "a step to zero noise is of first order, so lower_order_final must be true or the end sigma_min",
        });
    }
    Ok(Arc::new(UniPc {
        respacing: keys.respacing()?,
        end,
        clip: keys.thresholding()?,
        order,
        bh1,
        predict_x0,
        lower_order_final,
        disable_corrector: indices(keys, "disable_corrector")?,
    }))
}

fn indices(keys: Keys<'_>, key: &str) -> Result<Vec<usize>, InvalidScheduler> {
    let Some(value) = keys.get(key) else { return Ok(Vec::new()) };
    let index = |value: &Value| value.as_u64().and_then(|index| usize::try_from(index).ok());
    let indices: Option<Vec<usize>> = value.as_array().and_then(|list| list.iter().map(index).collect());
    indices.ok_or_else(|| refused(key, value, "a list of whole numbers from 0".to_owned()))
}

impl Sampler for UniPc {
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        let last = match (self.end, self.respacing, config.flow) {
            (FinalSigma::SigmaMin, Some(_), _) | (FinalSigma::SigmaMin, _, Some(_)) => Last::Repeated,
            (end, ..) => end.into(),
        };
        let levels = DpmLevels { below_one: true, ..DpmLevels::of(config, self.respacing, last) };
        let step_source = if config.flow.is_some() { step_source } else { step_source.without_lists(config)? };
        Ok((dpm_points(config, step_source, &levels)?, 1.0))
    }

    fn respacing(&self) -> Option<Respacing> {
        self.respacing
    }

    fn label(&self) -> Label {
        Label::AtOwnLevels("UniPC")
    }
}

/// Algorithms 1 and 2 of Zhao et al. (2023) with states `x = α x0 + σ ε`, λ = ln(α/σ). The network output at a point
/// first corrects the state that was predicted there, and then predicts the next state.
pub(super) async fn sample<D: Denoise>(options: &UniPc, run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    let SamplerInputs { network, schedule, mut x, .. } = run;
    // λ and the integrand (x0 or ε) at the last points, the newest first.
    let mut known: VecDeque<(f64, Latents)> = VecDeque::with_capacity(options.order);
    // The inputs of the last prediction, for its correction: state, point and order.
    let mut predicted: Option<(Latents, Point, usize)> = None;
    for (i, (now, next)) in schedule.steps().enumerate() {
        let at = schedule.run().start + i;
        let (x0, epsilon) = network.x0_and_epsilon(&x, &now, options.clip).await?;
        let m = match options.clip {
            _ if options.predict_x0 => x0.clone(),
            Clip::Nothing => epsilon,
            _ => Prediction::Sample.epsilon(&x, &x0, &now),
        };
        if let Some((from, before, order)) = predicted.take()
            && !options.disable_corrector.contains(&(at - 1))
        {
            x = step(options, order, &from, &known, (&before, &now), Some(&m));
        }
        known.truncate(options.order - 1);
        known.push_front((now.lambda(), m));
        let left = if options.lower_order_final { schedule.whole() - at } else { options.order };
        let order = options.order.min(left).min(known.len());
        predicted = Some((x.clone(), now, order));
        x = network.adjusted(step(options, order, &x, &known, (&now, &next), None));
        network.stepped(i, &x0);
    }
    Ok(x)
}

/// One step of this order. `there` is the integrand at the next point: with it, the step is UniC (equation 9); without
/// it, UniP (equation 3).
fn step(
    options: &UniPc,
    order: usize,
    x: &Latents,
    known: &VecDeque<(f64, Latents)>,
    (now, next): (&Point, &Point),
    there: Option<&Latents>,
) -> Latents {
    let h = next.lambda() - now.lambda();
    if h == 0.0 {
        return x.clone();
    }
    let (c, scale, hh) = match options.predict_x0 {
        true => (next.sigma / now.sigma, next.alpha, -h),
        false => (next.alpha / now.alpha, next.sigma, h),
    };
    let phi = libm::expm1(hh);
    let big_b = if options.bh1 { hh } else { phi };
    let mut r: Vec<f64> = (1..order).map(|i| (known[i].0 - now.lambda()) / h).collect();
    let rho = match there {
        None => weights(&r, hh, big_b),
        Some(_) => weights(&[&r[..], &[1.0]].concat(), hh, big_b),
    };
    // Each term is the difference between another integrand and the newest one, divided by their distance `r`.
    r.push(1.0);
    let others = known.iter().skip(1).take(order - 1).map(|(_, m)| m).chain(there);
    let m0 = &known[0].1;
    let mut terms = vec![(c, x)];
    let mut of_m0 = -scale * phi;
    for ((rho, r), m) in rho.iter().zip(&r).zip(others) {
        let weight = -scale * big_b * rho / r;
        of_m0 -= weight;
        terms.push((weight, m));
    }
    terms.push((of_m0, m0));
    Latents::combine(&terms)
}

/// The solution ρ of `Σ_k r_k^(i−1) ρ_k = i! φ_(i+1)(hh) hh / B(h)` for i from 1 to the number of r. The paper uses 1/2
/// for the only unknown of its second-order predictor and of its first-order corrector.
fn weights(r: &[f64], hh: f64, big_b: f64) -> Vec<f64> {
    if r.len() == 1 {
        return vec![0.5];
    }
    let mut phi = libm::expm1(hh) / hh - 1.0;
    let mut factorial = 1.0;
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(r.len());
    for i in 1..=r.len() {
        let powers = r.iter().map(|r| libm::pow(*r, (i - 1) as f64));
        rows.push(powers.chain([phi * factorial / big_b]).collect());
        factorial *= (i + 1) as f64;
        phi = phi / hh - 1.0 / factorial;
    }
    solved(rows)
}

/// Solves a small linear system by Gaussian elimination with pivoting; each row ends with its right side.
fn solved(mut rows: Vec<Vec<f64>>) -> Vec<f64> {
    let n = rows.len();
    for column in 0..n {
        let largest = (column..n).max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()));
        rows.swap(column, largest.unwrap_or(column));
        let pivot = rows[column].clone();
        for (i, row) in rows.iter_mut().enumerate() {
            if i != column {
                let factor = row[column] / pivot[column];
                row.iter_mut().zip(&pivot).for_each(|(value, pivot)| *value -= factor * pivot);
            }
        }
    }
    rows.iter().enumerate().map(|(i, row)| row[n] / row[i]).collect()
}
