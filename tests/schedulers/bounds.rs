//! Tests of limits: zero terminal SNR, too few and too many steps, wrong shapes, and guidance.

use latentd::diffusion::{
    Error, InvalidSteps, Latents, Noise, Schedule, SchedulerConfig, guide, names, steps_and_calls,
};
use latentd::generation::SchedulerChoice;
use serde_json::json;

use crate::choices::{overlay, sd1};
use crate::goldens::{distance, wide};
use crate::network::{CLASSES, Synthetic, has_betas, map, run};

#[test]
fn zero_terminal_snr_stays_finite() {
    let without = ["PNDM", "Heun"];
    let classes =
        CLASSES.iter().filter(|class| has_betas(class) && !without.iter().any(|other| class.starts_with(other)));
    for class in classes {
        for prediction in ["epsilon", "v_prediction", "sample"] {
            let model = map(json!({
                "_class_name": class, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
                "rescale_betas_zero_snr": true, "timestep_spacing": "trailing", "prediction_type": prediction,
            }));
            let Ok(config) = SchedulerConfig::from_model(&model) else {
                assert!(
                    ["EulerAncestral", "KDPM2", "DPMSolverSDE"].iter().any(|name| class.starts_with(name)),
                    "{class} {prediction}"
                );
                assert_eq!(prediction, "sample");
                continue;
            };
            assert!(Schedule::new(&config, 8).is_ok() || prediction == "epsilon");
            let got = run(&Synthetic::default(), &config, 8, 1.0, [1, 4, 8, 8], &mut Noise::batch(1));
            match got {
                Ok(x) => assert!(x.is_finite()),
                // With zero signal, ε does not determine x0. diffusers divides by zero here.
                Err(Error::Steps(InvalidSteps::ZeroSignal { prediction_type: "epsilon" })) => {
                    assert!(["DD", "LCM", "TCD"].iter().any(|name| class.starts_with(name)), "{class}")
                }
                Err(other) => panic!("{class} {prediction}: {other}"),
            }
        }
    }
}

#[test]
fn steps_out_of_bounds_are_refused() {
    for name in names() {
        let config = SchedulerConfig::overlay(&sd1(), &SchedulerChoice::Name(name.name)).unwrap();
        assert!(matches!(steps_and_calls(&config, 0), Err(InvalidSteps::TooFew { steps: 0, .. })));
        assert!(matches!(steps_and_calls(&config, 1001), Err(InvalidSteps::TooMany { steps: 1001, .. })));
    }
    // The default of original_inference_steps is 50.
    for class in ["LCMScheduler", "TCDScheduler"] {
        assert!(overlay(json!({"_class_name": class, "num_train_timesteps": 49})).is_err(), "{class}");
        assert!(overlay(json!({"_class_name": class, "num_train_timesteps": 50})).is_ok(), "{class}");
    }
    let beyond = overlay(json!({"_class_name": "DDIMScheduler", "steps_offset": 999})).unwrap();
    assert!(matches!(steps_and_calls(&beyond, 10), Err(InvalidSteps::OutOfRange { num_train_timesteps: 1000, .. })));
    let rising = overlay(
        json!({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": true, "sigma_min": 10, "sigma_max": 1}),
    );
    assert_eq!(steps_and_calls(&rising.unwrap(), 10), Err(InvalidSteps::Degenerate));
}

#[test]
fn the_last_step_ends_below_the_first_timestep() {
    for (name, alpha_cumprod) in [("ddpm", 1.0), ("ddim", 0.99915), ("pndm", 0.99915)] {
        let config = SchedulerConfig::overlay(&sd1(), &SchedulerChoice::Name(name.to_owned())).unwrap();
        let points = Schedule::new(&config, 10).unwrap().points().to_vec();
        assert_eq!((points[0].t, points[9].t), (901.0, 1.0));
        let end = points[10];
        assert!(end.t < 0.0 && (end.alpha * end.alpha - alpha_cumprod).abs() < 1e-6, "{name}: {end:?}");
    }
}

#[test]
fn a_network_of_another_shape_is_an_error() {
    let network = Synthetic { wrong_shape: true, ..Synthetic::default() };
    let got = run(&network, &overlay(json!("euler")).unwrap(), 3, 0.0, [1, 4, 4, 4], &mut Noise::batch(1));
    assert!(matches!(got, Err(Error::Shape { expected: [1, 4, 4, 4], got: [1, 4, 4, 8] })));
    assert!(matches!(Latents::new([1, 4, 2, 2], vec![0.0; 15]), Err(Error::Length { len: 15, .. })));
    assert!(Latents::new([usize::MAX, 2, 1, 1], vec![]).is_err());
}

#[test]
fn guidance_follows_its_formula() {
    let latents = |data: [f32; 4]| Latents::new([1, 1, 2, 2], data.to_vec()).unwrap();
    let (uncond, cond) = (latents([0.0, 1.0, 2.0, -1.0]), latents([1.0, 1.0, 4.0, -3.0]));
    assert_eq!(guide(&uncond, &cond, 1.0, 0.0), cond);
    assert_eq!(guide(&uncond, &cond, 3.0, 0.0), latents([3.0, 1.0, 8.0, -7.0]));
    // The unbiased standard deviations are sqrt(24.75/3) for cond and sqrt(116.75/3) for the guided prediction.
    let factor = 0.5 * (24.75f64 / 116.75).sqrt() + 0.5;
    let wanted = [3.0, 1.0, 8.0, -7.0].map(|x: f64| (factor * x) as f32);
    assert!(distance(&wide(guide(&uncond, &cond, 3.0, 0.5).data()), &wide(&wanted)) < 1e-6);
    let flat = latents([2.0; 4]);
    assert_eq!(guide(&flat, &flat, 7.5, 1.0), flat);
}
