//! Properties that hold for any scheduler configuration.

use latentd::diffusion::{InvalidSteps, Noise, Schedule, SchedulerConfig, sample, steps_and_calls};
use latentd::generation::Levels;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::network::{CLASSES, Synthetic, block_on, map, run};

/// A plausible configuration of any class.
fn plausible() -> impl Strategy<Value = Map<String, Value>> {
    let keys = (
        prop::sample::select(CLASSES.to_vec()),
        prop::sample::select(vec!["linear", "scaled_linear", "squaredcos_cap_v2"]),
        prop::sample::select(vec!["linspace", "leading", "trailing"]),
        prop::sample::select(vec!["epsilon", "v_prediction"]),
        prop::sample::select(vec![
            "use_karras_sigmas",
            "use_exponential_sigmas",
            "use_beta_sigmas",
            "use_lu_lambdas",
            "none",
        ]),
        prop::sample::select(vec![1000usize, 100, 50, 1234]),
        (0usize..3, 1usize..4, any::<[bool; 5]>()),
    );
    keys.prop_map(|(class, betas, spacing, prediction, respacing, train, (offset, order, flags))| {
        // UniPC does not support a higher-order step to zero noise.
        let ends_low = flags[3] || (class == "UniPCMultistepScheduler" && flags[4]);
        map(json!({
            "_class_name": class, "beta_schedule": betas, "timestep_spacing": spacing, "prediction_type": prediction,
            "num_train_timesteps": train, "steps_offset": offset, "solver_order": order, respacing: true,
            "skip_prk_steps": flags[0], "thresholding": flags[1], "clip_sample": flags[2], "lower_order_final": ends_low,
            "final_sigmas_type": if flags[4] { "zero" } else { "sigma_min" }, "rescale_betas_zero_snr": flags[0],
        }))
    })
}

/// Arbitrary JSON values for the keys that are read.
fn hostile() -> impl Strategy<Value = Map<String, Value>> {
    let value = prop_oneof![
        Just(json!(null)),
        Just(json!([])),
        Just(json!({})),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-2i64..1002).prop_map(Value::from),
        (0.0f64..1.0).prop_map(Value::from),
        (-60.0f64..1.0).prop_map(|e| json!(10f64.powf(e))),
        prop::collection::vec(1e-30f64..1.0, 0..4).prop_map(Value::from),
        prop::sample::select(vec![
            "linear",
            "scaled_linear",
            "squaredcos_cap_v2",
            "v_prediction",
            "sample",
            "leading",
            "trailing",
            "log_linear",
            "continuous",
            "sigma_min",
            "heun",
            "dpmsolver",
            "sde-dpmsolver++",
            "fixed_large",
            "flow_prediction",
            "noise_prediction",
            "exponential",
        ])
        .prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "trained_betas",
        "prediction_type",
        "timestep_spacing",
        "steps_offset",
        "clip_sample",
        "clip_sample_range",
        "thresholding",
        "sample_max_value",
        "dynamic_thresholding_ratio",
        "variance_type",
        "rescale_betas_zero_snr",
        "set_alpha_to_one",
        "skip_prk_steps",
        "interpolation_type",
        "sigma_min",
        "sigma_max",
        "timestep_type",
        "final_sigmas_type",
        "use_karras_sigmas",
        "use_exponential_sigmas",
        "use_beta_sigmas",
        "use_lu_lambdas",
        "solver_order",
        "algorithm_type",
        "solver_type",
        "lower_order_final",
        "euler_at_final",
        "lambda_min_clipped",
        "noise_sampler_seed",
        "predictor_order",
        "corrector_order",
        "sigma_data",
        "sigma_schedule",
        "rho",
        "use_flow_sigmas",
        "flow_shift",
        "use_dynamic_shifting",
        "time_shift_type",
        "shift",
        "shift_terminal",
        "invert_sigmas",
        "stochastic_sampling",
        "s_noise",
    ]);
    let class = prop::sample::select(CLASSES.to_vec());
    (class, prop::collection::vec((key, value), 0..5)).prop_map(|(class, keys)| {
        let class = ("_class_name".to_owned(), Value::from(class));
        keys.into_iter().map(|(key, value)| (key.to_owned(), value)).chain([class]).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn schedules_decrease_and_are_sampled_to_their_end(model in plausible(), steps in 1usize..40) {
        let config = SchedulerConfig::from_model(&model).unwrap();
        let (points, calls) = match steps_and_calls(&config, steps) {
            Ok((counted, calls)) => {
                prop_assert_eq!(counted, steps);
                (Schedule::new(&config, steps).unwrap().points().to_vec(), calls)
            }
            Err(InvalidSteps::TooFew { min, .. }) => { prop_assert!(steps < min); return Ok(()) }
            // Only an offset can leave the training timesteps. Only a rescaled schedule can have zero signal.
            Err(InvalidSteps::OutOfRange { .. }) => { prop_assert!(model["steps_offset"] != 0); return Ok(()) }
            Err(InvalidSteps::ZeroSignal { .. }) => { prop_assert_eq!(&model["rescale_betas_zero_snr"], true); return Ok(()) }
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        };
        prop_assert_eq!(points.len(), steps + 1);
        for p in &points {
            let class = model["_class_name"].as_str().unwrap();
            let one = match class {
                _ if class.starts_with("FlowMatch") => p.alpha + p.sigma,
                _ if ["EDM", "CM", "ScoreSdeVe"].iter().any(|family| class.starts_with(family)) => p.alpha,
                _ => p.alpha * p.alpha + p.sigma * p.sigma,
            };
            prop_assert!((one - 1.0).abs() < 1e-6 && p.t.is_finite());
        }
        prop_assert!(points.windows(2).all(|p| p[1].sigma <= p[0].sigma && p[1].alpha >= p[0].alpha));

        let network = Synthetic::default();
        let x = run(&network, &config, steps, 0.5, [1, 1, 4, 4], &mut Noise::batch(3));
        prop_assert!(x.is_ok(), "{:?}", x);
        prop_assert_eq!(network.asked.borrow().len(), calls);
        prop_assert!(network.steps.borrow().iter().copied().eq((1..=steps).map(|step| (step, steps))));
    }

    #[test]
    fn every_configuration_ends_without_panic(model in hostile(), steps in prop_oneof![0usize..20, 900usize..1100, Just(usize::MAX)]) {
        if let Ok(config) = SchedulerConfig::from_model(&model) && let Ok((counted, calls)) = steps_and_calls(&config, steps) {
            prop_assert!(counted <= steps && calls >= counted);
            if calls < 100 && let Ok(x) = run(&Synthetic::default(), &config, steps, 1.0, [1, 1, 4, 4], &mut Noise::batch(3)) {
                prop_assert!(x.is_finite());
            }
        }
    }

    #[test]
    fn every_accepted_list_gives_finite_states(
        model in hostile(),
        sigmas in prop::collection::vec(prop_oneof![0.0f64..20.0, any::<f64>(), Just(0.0), Just(1.0)], 0..6),
        timesteps in prop::collection::vec(prop_oneof![0u32..1001, any::<u32>()], 0..6),
        falls in any::<bool>(),
    ) {
        let Ok(config) = SchedulerConfig::from_model(&model) else { return Ok(()) };
        let (mut sigmas, mut timesteps) = (sigmas, timesteps);
        if falls {
            sigmas.sort_by(|a, b| b.total_cmp(a));
            timesteps.sort_by(|a, b| b.cmp(a));
        }
        for levels in [Levels::Sigmas(sigmas), Levels::Timesteps(timesteps)] {
            let Ok(schedule) = Schedule::over(&config, &levels) else { continue };
            let x = Noise::batch(7).draw([1, 1, 4, 4]).scale(schedule.init_noise_sigma());
            if let Ok(x) = block_on(sample(&Synthetic::default(), &schedule, 0.5, x, &mut Noise::batch(3))) {
                prop_assert!(x.is_finite());
            }
        }
    }

    #[test]
    fn the_same_request_gives_the_same_picture(model in plausible(), seed in any::<u64>(), steps in 4usize..12) {
        let config = SchedulerConfig::from_model(&model).unwrap();
        let picture = || run(&Synthetic::default(), &config, steps, 0.7, [2, 1, 4, 4], &mut Noise::batch(seed)).ok();
        prop_assert_eq!(picture(), picture());
    }

    #[test]
    fn images_with_their_own_seeds_do_not_depend_on_the_batch(model in plausible(), seeds in prop::collection::vec(any::<u64>(), 1..4), h in 1usize..6, steps in 4usize..7) {
        let shape = |b| [b, 3, h, 5];
        let config = SchedulerConfig::from_model(&model).unwrap();
        let picture = |seeds: &[u64]| {
            let mut noise = Noise::per_image(seeds);
            let schedule = Schedule::new(&config, steps).ok()?;
            let x = noise.draw(shape(seeds.len())).scale(schedule.init_noise_sigma());
            block_on(sample(&Synthetic::default(), &schedule, 1.0, x, &mut noise)).ok()
        };
        if let Some(together) = picture(&seeds) {
            for (b, seed) in seeds.iter().enumerate() {
                let alone = picture(&[*seed]).unwrap();
                prop_assert_eq!(together.row(b), alone.data());
            }
        }
    }
}
