//! Tests of the scheduler field of a request: names, classes, keys and bounds.

use latentd::diffusion::{InvalidScheduler, Schedule, SchedulerConfig, names};
use latentd::generation::SchedulerChoice;
use serde_json::{Map, Value, json};

use crate::network::map;

/// The scheduler configuration of Stable Diffusion 1.
pub fn sd1() -> Map<String, Value> {
    map(json!({
        "_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "beta_start": 0.00085, "clip_sample": false, "num_train_timesteps": 1000, "set_alpha_to_one": false,
        "skip_prk_steps": true, "steps_offset": 1, "trained_betas": null,
    }))
}

/// The configuration of a request on the model [`sd1`].
pub fn overlay(request: Value) -> Result<SchedulerConfig, InvalidScheduler> {
    SchedulerConfig::overlay(&sd1(), &serde_json::from_value(request).unwrap())
}

#[test]
fn every_name_gives_a_different_scheduler() {
    let mut seen: Vec<(String, SchedulerConfig)> = Vec::new();
    for name in names() {
        assert!(!name.description.is_empty() && name.description.lines().count() == 1);
        let config = SchedulerConfig::overlay(&sd1(), &SchedulerChoice::Name(name.name.clone())).unwrap();
        assert!(seen.iter().all(|(other, c)| *other != name.name && *c != config), "{}", name.name);
        seen.push((name.name, config));
    }
    for wanted in [
        "pndm",
        "ddim",
        "ddpm",
        "euler",
        "euler_a",
        "heun",
        "dpmpp_2m",
        "euler_karras",
        "heun_karras",
        "dpmpp_2m_karras",
    ] {
        assert!(seen.iter().any(|(name, _)| name == wanted), "{wanted}");
    }
}

#[test]
fn the_documentation_lists_every_sampler() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/requests.md")).unwrap();
    let suffixes = ["_karras", "_exponential", "_beta"];
    for name in names().map(|named| named.name).filter(|name| !suffixes.iter().any(|suffix| name.ends_with(suffix))) {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn a_name_keeps_the_options_of_the_model_and_a_suffix_sets_only_its_flag() {
    let with = |flag: &str| {
        let mut model = sd1();
        model.insert("_class_name".into(), "EulerDiscreteScheduler".into());
        model.insert(flag.into(), true.into());
        model
    };
    let named = |model: &Map<String, Value>, name: &str| {
        SchedulerConfig::overlay(model, &SchedulerChoice::Name(name.into())).unwrap()
    };
    let karras = with("use_karras_sigmas");
    assert_eq!(named(&karras, "euler"), SchedulerConfig::from_model(&karras).unwrap());
    assert_eq!(
        named(&karras, "euler_exponential"),
        SchedulerConfig::from_model(&with("use_exponential_sigmas")).unwrap()
    );
    assert_eq!(named(&karras, "dpmpp_2m"), named(&sd1(), "dpmpp_2m_karras"));
}

#[test]
fn a_request_overrides_the_model() {
    assert_eq!(overlay(json!({})), SchedulerConfig::from_model(&sd1()));
    assert_eq!(overlay(json!({"_class_name": "DDIMScheduler"})), overlay(json!("ddim")));
    // Null means the default of the class.
    let mut model = sd1();
    model.remove("steps_offset");
    assert_eq!(overlay(json!({"steps_offset": null})), SchedulerConfig::from_model(&model));
    // A flag that is null is false, as in Python, even if the default of the class is true.
    let ddim = |value: Value| overlay(json!({"_class_name": "DDIMScheduler", "set_alpha_to_one": value}));
    assert_eq!(ddim(Value::Null), ddim(json!(false)));
    assert_ne!(ddim(Value::Null), ddim(json!(true)));
    let trailing = overlay(json!({"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"})).unwrap();
    assert_eq!(Schedule::new(&trailing, 10).unwrap().points()[0].t, 999.0);
}

/// The rule comes from `ConfigMixin.extract_init_dict` in diffusers 0.42.1.
#[test]
fn values_marked_as_defaults_are_ignored() {
    let file = |noted: Value| {
        let mut file = sd1();
        file.insert("timestep_spacing".into(), "trailing".into());
        file.insert("_use_default_values".into(), noted);
        file
    };
    let mut given = sd1();
    assert_eq!(SchedulerConfig::given(file(json!(["timestep_spacing", "rho", 1]))), given);
    given.insert("timestep_spacing".into(), "trailing".into());
    for nothing in [json!([]), json!(null), json!({"timestep_spacing": 1})] {
        assert_eq!(SchedulerConfig::given(file(nothing)), given);
    }
}

/// Numbers of Python that JSON does not support are read as strings.
#[test]
fn only_lambda_min_clipped_may_be_infinite() {
    for class in ["DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "SASolverScheduler"] {
        let clipped = |value: Value| overlay(json!({"_class_name": class, "lambda_min_clipped": value}));
        assert_eq!(clipped(json!("-Infinity")), overlay(json!({"_class_name": class})));
        assert_ne!(clipped(json!(-5.1)), overlay(json!({"_class_name": class})));
        for value in ["Infinity", "NaN", "-infinity", "-5.1"] {
            assert!(matches!(clipped(json!(value)), Err(InvalidScheduler::Value { .. })), "{class} {value}");
        }
    }
}

#[test]
fn every_number_has_a_bound() {
    let of =
        |class: &str, keys: &[&str]| keys.iter().map(|key| (class.to_owned(), (*key).to_owned())).collect::<Vec<_>>();
    let numbers = [
        of("DDPMScheduler", &["num_train_timesteps", "beta_start", "beta_end", "steps_offset", "clip_sample_range"]),
        of("DDIMScheduler", &["dynamic_thresholding_ratio", "sample_max_value"]),
        of("EulerDiscreteScheduler", &["sigma_min", "sigma_max"]),
        of("DPMSolverMultistepScheduler", &["solver_order"]),
        of("UniPCMultistepScheduler", &["solver_order", "solver_p"]),
        of("SASolverScheduler", &["predictor_order", "corrector_order"]),
        of("LCMScheduler", &["original_inference_steps", "timestep_scaling"]),
        of("EDMEulerScheduler", &["sigma_min", "sigma_max", "sigma_data", "rho"]),
        of("CMStochasticIterativeScheduler", &["s_noise"]),
        of("ScoreSdeVeScheduler", &["snr", "correct_steps", "sampling_eps"]),
        of("ScoreSdeVpScheduler", &["beta_min", "beta_max"]),
        of("FlowMatchEulerDiscreteScheduler", &["shift", "shift_terminal"]),
        of("DPMSolverSDEScheduler", &["noise_sampler_seed"]),
    ];
    for (class, name) in numbers.concat() {
        for value in [json!(-1), json!(1e300), json!("Infinity"), json!("NaN"), json!([]), json!(true)] {
            let request = json!({"_class_name": class, &*name: value});
            let Err(InvalidScheduler::Value { key, bound, .. }) = overlay(request.clone()) else {
                panic!("{request} is accepted");
            };
            assert!(key == name && !bound.is_empty(), "{request}");
        }
    }
}

/// The `step` methods of both classes are identical in diffusers.
#[test]
fn parallel_classes_equal_those_without_the_word() {
    for class in ["DDIM", "DDPM"] {
        let of = |word: &str| overlay(json!({"_class_name": format!("{class}{word}Scheduler"), "clip_sample": true}));
        assert_eq!(of("Parallel").unwrap(), of("").unwrap());
    }
}

#[test]
fn unknown_and_invalid_values_are_refused_by_name() {
    let refused = |request: Value| overlay(request).unwrap_err().to_string();
    assert_eq!(refused(json!("ddim_karras")), r#"unknown scheduler name "ddim_karras""#);
    assert_eq!(refused(json!("euler_karras_karras")), r#"unknown scheduler name "euler_karras_karras""#);
    assert_eq!(
        refused(json!({"_class_name": "VQDiffusionScheduler"})),
        r#"unsupported scheduler class "VQDiffusionScheduler""#
    );
    assert_eq!(refused(json!({"_class_name": null})), "has no _class_name");
    assert_eq!(refused(json!({"skip_prk_steps": "true"})), r#"skip_prk_steps is "true", it must be true or false"#);
    assert_eq!(refused(json!({"eta": 1})), r#"PNDMScheduler has no key "eta""#);
    // PNDM ignores this key in a model file.
    assert_eq!(refused(json!({"clip_sample": false})), r#"PNDMScheduler has no key "clip_sample""#);
    let cases = [
        json!({"num_train_timesteps": 0}),
        json!({"num_train_timesteps": 10_001}),
        json!({"beta_start": 0}),
        json!({"beta_end": 1}),
        json!({"beta_schedule": "sigmoid"}),
        json!({"timestep_spacing": "even"}),
        json!({"prediction_type": "sample"}),
        json!({"trained_betas": [0.1, 0.2]}),
        json!({"steps_offset": -1}),
        json!({"skip_prk_steps": "yes"}),
        json!({"_class_name": "EulerDiscreteScheduler", "sigma_max": 0}),
        json!({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 4}),
        json!({"_class_name": "UniPCMultistepScheduler", "use_dynamic_shifting": true}),
        json!({"_class_name": "DPMSolverSDEScheduler", "noise_sampler_seed": -1}),
        json!({"_class_name": "SASolverScheduler", "predictor_order": 5}),
        json!({"_class_name": "SASolverScheduler", "tau_func": "lambda t: 1"}),
        json!({"_class_name": "EDMEulerScheduler", "sigma_schedule": "even"}),
        json!({"_class_name": "EDMDPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"}),
        json!({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 0}),
        json!({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift_terminal": 1}),
        json!({"_class_name": "FlowMatchEulerDiscreteScheduler", "time_shift_type": "even"}),
        json!({"_class_name": "IPNDMScheduler", "trained_betas": [0.1]}),
        json!({"_class_name": "DPMSolverMultistepScheduler", "variance_type": "learned"}),
        json!({"_class_name": "DDIMScheduler", "thresholding": true, "dynamic_thresholding_ratio": 1.5}),
    ];
    for request in cases {
        let error = overlay(request.clone()).unwrap_err();
        assert!(
            matches!(&error, InvalidScheduler::Value { key, .. } if request.get(key).is_some()),
            "{request}: {error}"
        );
    }
    for request in [
        json!({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": true, "use_beta_sigmas": true}),
        json!({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"}),
        json!({"_class_name": "DPMSolverMultistepScheduler", "prediction_type": "flow_prediction"}),
        json!({"_class_name": "UniPCMultistepScheduler", "shift_terminal": 0.1}),
        json!({"_class_name": "UniPCMultistepScheduler", "predict_x0": false}),
        json!({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": true, "use_karras_sigmas": true}),
        json!({"_class_name": "EDMEulerScheduler", "sigma_min": 2, "sigma_max": 1}),
        json!({"_class_name": "EDMDPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++", "solver_order": 3}),
    ] {
        assert!(matches!(overlay(request), Err(InvalidScheduler::Conflict { .. })));
    }
}

#[test]
fn sa_solver_ignores_the_algorithm_of_another_class() {
    let mut model = sd1();
    model.insert("_class_name".into(), "DPMSolverMultistepScheduler".into());
    model.insert("algorithm_type".into(), "dpmsolver++".into());
    let overlay = |model: &Map<String, Value>, request: Value| {
        SchedulerConfig::overlay(model, &serde_json::from_value(request).unwrap())
    };
    assert_eq!(overlay(&model, json!("sa_solver")), overlay(&sd1(), json!("sa_solver")));
    // A request's own value must be valid for the class. A valid value of the model is used.
    let asked = json!({"_class_name": "SASolverScheduler", "algorithm_type": "dpmsolver++"});
    let refused = overlay(&model, asked).unwrap_err().to_string();
    assert_eq!(refused, r#"algorithm_type is "dpmsolver++", it must be one of data_prediction, noise_prediction"#);
    model.insert("algorithm_type".into(), "noise_prediction".into());
    assert_ne!(overlay(&model, json!("sa_solver")), overlay(&sd1(), json!("sa_solver")));
}

#[test]
fn whole_numbers_may_be_written_with_a_fraction_of_zero() {
    assert_eq!(overlay(json!({"steps_offset": 3.0})), overlay(json!({"steps_offset": 3})));
    for value in [json!(0.5), json!(-1.0), json!("3")] {
        let refused = overlay(json!({"steps_offset": value})).unwrap_err().to_string();
        assert_eq!(refused, format!("steps_offset is {value}, it must be a whole number from 0 to 10000"));
    }
}

#[test]
fn beta_schedules_of_single_classes_equal_those_of_diffusers() {
    // The values are betas[0], [500] and [998] and alphas_cumprod[500] of diffusers 0.42.1.
    for (class, schedule, expected) in [
        ("DDPMScheduler", "laplace", [0.021_153_757, 0.000_250_031_4, 0.151_629_66, 0.707_283_44]),
        ("HeunDiscreteScheduler", "exp", [0.011_928_287, 0.011_928_287, 0.011_928_287, 0.002_449_218_2]),
    ] {
        let config = overlay(json!({"_class_name": class, "beta_schedule": schedule})).unwrap();
        let (betas, alphas) = (config.betas().betas(), config.betas().alphas_cumprod());
        for (got, expected) in [betas[0], betas[500], betas[998], alphas[500]].into_iter().zip(expected) {
            assert!((got - expected).abs() <= 1e-6 * expected.abs(), "{class} {schedule}: {got} {expected}");
        }
    }
    let refused = overlay(json!({"_class_name": "DDIMScheduler", "beta_schedule": "laplace"})).unwrap_err().to_string();
    assert_eq!(refused, r#"beta_schedule is "laplace", it must be one of linear, scaled_linear, squaredcos_cap_v2"#);
}
