//! A synthetic network, functions that run a sampler with it, and properties of the scheduler classes.

use std::cell::RefCell;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use latentd::diffusion::{Denoise, Error, Latents, Noise, Schedule, SchedulerConfig, sample};
use serde_json::{Map, Value};

use crate::goldens::wide;

/// The synthetic network of the goldens. It returns at the second poll and records its inputs.
#[derive(Default)]
pub struct Synthetic {
    /// The timestep and the state of each call.
    pub asked: RefCell<Vec<(f64, Vec<f64>)>>,
    /// The reported steps and their total number.
    pub steps: RefCell<Vec<(usize, usize)>>,
    pub wrong_shape: bool,
}

impl Denoise for Synthetic {
    async fn predict(&self, x: &Latents, t: f64) -> Result<Latents, Error> {
        let mut polled = false;
        std::future::poll_fn(|_| if std::mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending })
            .await;
        self.asked.borrow_mut().push((t, wide(x.data())));
        let answer = |x: &f32| (0.9 * x / (1.0 + x * x).sqrt()) + (0.1 * (t / 1000.0)) as f32;
        let [b, c, h, w] = x.shape();
        let shape = if self.wrong_shape { [b, c, w, 2 * h] } else { [b, c, h, w] };
        let data = x.data().iter().map(answer).cycle().take(shape.iter().product()).collect();
        Latents::new(shape, data)
    }

    fn stepped(&self, step: usize, steps: usize, denoised: &Latents) {
        assert!(!denoised.data().is_empty());
        self.steps.borrow_mut().push((step, steps));
    }
}

pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..100_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
    panic!("the sampler does not end")
}

pub fn run(
    network: &Synthetic,
    config: &SchedulerConfig,
    steps: usize,
    eta: f64,
    shape: [usize; 4],
    noise: &mut Noise,
) -> Result<Latents, Error> {
    let schedule = Schedule::new(config, steps)?;
    let x = Noise::batch(99).draw(shape).scale(schedule.init_noise_sigma());
    block_on(sample(network, &schedule, eta, x, noise))
}

pub fn map(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

pub fn config(value: Value) -> SchedulerConfig {
    SchedulerConfig::from_model(&map(value)).unwrap()
}

pub const CLASSES: [&str; 25] = [
    "DDPMScheduler",
    "DDIMScheduler",
    "PNDMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "LMSDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "LCMScheduler",
    "TCDScheduler",
    "DPMSolverSDEScheduler",
    "SASolverScheduler",
    "IPNDMScheduler",
    "EDMEulerScheduler",
    "EDMDPMSolverMultistepScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "CMStochasticIterativeScheduler",
    "ScoreSdeVeScheduler",
    "ScoreSdeVpScheduler",
];

/// Whether the noise levels of the class come from betas.
pub fn has_betas(class: &str) -> bool {
    !["EDM", "FlowMatch", "CM", "IPNDM", "ScoreSde"].iter().any(|family| class.starts_with(family))
}

pub fn is_second_order(class: &str) -> bool {
    ["Heun", "KDPM2", "DPMSolverSDE", "FlowMatchHeun"].iter().any(|family| class.starts_with(family))
}

/// The factor by which the class divides a state at this noise level before it calls the network.
pub fn input_scale(class: &str, sigma: f64) -> f64 {
    let any = |families: &[&str]| families.iter().any(|family| class.starts_with(family));
    if any(&["Euler", "Heun", "LMS", "KDPM2", "DPMSolverSDE"]) {
        (sigma * sigma + 1.0).sqrt()
    } else if any(&["EDM", "CM"]) {
        (sigma * sigma + 0.25).sqrt()
    } else {
        1.0
    }
}
