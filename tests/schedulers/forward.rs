//! Tests of the forward process, and of the plot of the noise schedules in the documentation.

use latentd::diffusion::{Latents, Noise, SchedulerConfig, Transition};
use proptest::prelude::*;
use serde_json::json;

use crate::network::{config, map};

#[path = "../../examples/noise_schedules.rs"]
mod noise_schedules;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn the_closed_form_equals_the_product_of_single_steps(
        schedule in prop::sample::select(vec!["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"]),
        train in 1usize..1200,
        (start, end) in (1e-5f64..0.02, 1e-5f64..0.5),
        share in 0.0f64..1.0,
    ) {
        let model = map(json!({
            "_class_name": "DDPMScheduler", "beta_schedule": schedule, "num_train_timesteps": train,
            "beta_start": start, "beta_end": end,
        }));
        let config = SchedulerConfig::from_model(&model).unwrap();
        let betas = config.betas();
        let t = (share * train as f64) as usize;
        let steps = (0..=t).map(|s| betas.step(s).unwrap()).fold(Transition::IDENTITY, Transition::then);
        let whole = betas.marginal(t).unwrap();
        // Betas and products are rounded to float32, each with a relative error of at most 2⁻²⁴.
        let limit = 1e-6 + f64::from(u32::try_from(t).unwrap()) * 6e-8;
        prop_assert!((steps.signal - whole.signal).abs() <= limit * whole.signal.max(1e-3), "{steps:?} {whole:?}");
        prop_assert!((steps.variance - whole.variance).abs() <= limit, "{steps:?} {whole:?}");
        prop_assert_eq!(betas.step(train), None);
        prop_assert_eq!(betas.marginal(train), None);
    }
}

/// Mean and variance of 16,384 chains of 50 single steps are within four standard errors of the closed form.
#[test]
fn chains_of_draws_have_the_mean_and_variance_of_the_closed_form() {
    let config = config(json!({"_class_name": "DDPMScheduler", "num_train_timesteps": 50, "beta_end": 0.1}));
    let (betas, mut noise) = (config.betas(), Noise::batch(3));
    let x0 = 0.7;
    let mut x = Latents::new([1, 1, 128, 128], vec![x0; 128 * 128]).unwrap();
    for t in 0..50 {
        let z = noise.draw(x.shape());
        x = betas.step(t).unwrap().sample(&x, &z);
    }
    let count = x.data().len() as f64;
    let mean = x.data().iter().map(|x| f64::from(*x)).sum::<f64>() / count;
    let variance = x.data().iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let wanted = betas.marginal(49).unwrap();
    let error = (wanted.variance / count).sqrt();
    assert!((mean - wanted.signal * f64::from(x0)).abs() < 4.0 * error, "mean {mean}");
    assert!((variance - wanted.variance).abs() < 4.0 * wanted.variance * (2.0 / count).sqrt(), "variance {variance}");
}

#[test]
fn the_plot_in_the_documentation_is_current() {
    let plotted = noise_schedules::svg();
    assert!(plotted.starts_with("<svg") && plotted.len() > 2000);
    let committed = include_str!("../../docs/noise-schedules.svg");
    assert!(plotted == committed, "run `cargo run --example noise_schedules`");
}
