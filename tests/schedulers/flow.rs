//! Properties of flow matching with new noise in each step, at the noise levels of sounds.

use latentd::diffusion::{Denoise, Error, Latents, Noise, Schedule, SchedulerConfig, sample};
use latentd::generation::{Levels, LogSnr};
use proptest::prelude::*;
use serde_json::json;

use crate::network::{block_on, map};

const SHAPE: [usize; 4] = [2, 3, 4, 1];

/// The exact velocity if all data equals field 0: ε − x0, for the state `(1 − t) x0 + t ε`.
struct Toward(Latents);

impl Denoise for Toward {
    async fn predict(&self, x: &Latents, t: f64) -> Result<Latents, Error> {
        Ok(Latents::combine(&[(1.0 / t, x), (-1.0 / t, &self.0)]))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn each_step_draws_once_and_the_last_ends_at_the_estimate(
        min in -20.0f64..=0.0, max in 0.0f64..=20.0, steps in 1usize..30, seed: u64, is_stochastic: bool,
    ) {
        let config = map(json!({
            "_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1,
            "stochastic_sampling": is_stochastic,
        }));
        let config = SchedulerConfig::from_model(&config).unwrap();
        let schedule = Schedule::over(&config, &Levels::Sigmas(LogSnr { min, max }.sigmas(steps))).unwrap();
        prop_assert_eq!((schedule.steps().len(), schedule.calls()), (steps, steps));
        let data = Noise::batch(seed ^ 1).draw(SHAPE);
        let mut noise = Noise::batch(seed);
        let x = noise.draw(SHAPE);
        let end = block_on(sample(&Toward(data.clone()), &schedule, 0.0, x, &mut noise)).unwrap();
        let error = end.data().iter().zip(data.data()).fold(0.0f32, |error, (a, b)| error.max((a - b).abs()));
        prop_assert!(error < 1e-4, "{error:e}");
        let mut counted = Noise::batch(seed);
        (0..=if is_stochastic { steps } else { 0 }).for_each(|_| drop(counted.draw(SHAPE)));
        prop_assert_eq!(noise.draw(SHAPE), counted.draw(SHAPE));
    }
}
