//! Random objects of the field `scheduler`.

use serde_json::{Value, json};

use crate::dice::Dice;

/// Keys of diffusers' `scheduler_config.json` that a class takes, with values that it takes whatever the others are.
pub fn config(dice: &mut Dice) -> Value {
    const TRAINING: &[(&str, &str)] = &[
        ("beta_schedule", r#"["linear", "scaled_linear", "squaredcos_cap_v2"]"#),
        ("beta_start", "[0.0001, 0.00085]"),
        ("beta_end", "[0.012, 0.02]"),
        ("prediction_type", r#"["epsilon", "v_prediction"]"#),
    ];
    const SPACING: &[(&str, &str)] =
        &[("timestep_spacing", r#"["linspace", "leading", "trailing"]"#), ("steps_offset", "[0, 1]")];
    const CLIP: &[(&str, &str)] = &[("clip_sample", "[true, false]"), ("clip_sample_range", "[1.0, 2.5]")];
    const THRESHOLD: &[(&str, &str)] = &[
        ("thresholding", "[true, false]"),
        ("dynamic_thresholding_ratio", "[0.9, 0.995]"),
        ("sample_max_value", "[1.0, 1.5]"),
    ];
    const RESPACED: &[(&str, &str)] = &[("use_karras_sigmas", "[true, false]")];
    const EXPONENTIAL: &[(&str, &str)] = &[("use_exponential_sigmas", "[true, false]")];
    const ZERO_SNR: &[(&str, &str)] = &[("rescale_betas_zero_snr", "[true, false]")];
    const SOLVER: &[(&str, &str)] = &[("solver_order", "[1, 2, 3]"), ("lower_order_final", "[true]")];
    const MIDPOINT: &[(&str, &str)] = &[("solver_type", r#"["midpoint", "heun"]"#)];
    const CLASSES: &[(&str, &[&[(&str, &str)]])] = &[
        (
            "DDPMScheduler",
            &[TRAINING, SPACING, CLIP, THRESHOLD, ZERO_SNR, &[("variance_type", r#"["fixed_small", "fixed_large"]"#)]],
        ),
        ("DDIMScheduler", &[TRAINING, SPACING, CLIP, THRESHOLD, ZERO_SNR, &[("set_alpha_to_one", "[true, false]")]]),
        (
            "PNDMScheduler",
            &[TRAINING, SPACING, &[("set_alpha_to_one", "[true, false]"), ("skip_prk_steps", "[true, false]")]],
        ),
        (
            "EulerDiscreteScheduler",
            &[TRAINING, SPACING, RESPACED, ZERO_SNR, &[("final_sigmas_type", r#"["zero", "sigma_min"]"#)]],
        ),
        ("EulerAncestralDiscreteScheduler", &[TRAINING, SPACING, ZERO_SNR]),
        ("HeunDiscreteScheduler", &[TRAINING, SPACING, EXPONENTIAL, CLIP]),
        ("LMSDiscreteScheduler", &[TRAINING, SPACING, RESPACED]),
        ("KDPM2DiscreteScheduler", &[TRAINING, SPACING, EXPONENTIAL]),
        ("KDPM2AncestralDiscreteScheduler", &[TRAINING, SPACING, RESPACED]),
        ("DPMSolverSDEScheduler", &[TRAINING, SPACING, RESPACED, &[("noise_sampler_seed", "[0, 7]")]]),
        (
            "DPMSolverMultistepScheduler",
            &[TRAINING, SPACING, RESPACED, THRESHOLD, SOLVER, MIDPOINT, &[("euler_at_final", "[true, false]")]],
        ),
        ("DPMSolverSinglestepScheduler", &[TRAINING, RESPACED, THRESHOLD, SOLVER, MIDPOINT]),
        (
            "UniPCMultistepScheduler",
            &[
                TRAINING,
                SPACING,
                EXPONENTIAL,
                THRESHOLD,
                SOLVER,
                &[("solver_type", r#"["bh1", "bh2"]"#), ("predict_x0", "[true, false]")],
            ],
        ),
        ("DEISMultistepScheduler", &[TRAINING, SPACING, RESPACED, SOLVER]),
        (
            "SASolverScheduler",
            &[
                TRAINING,
                SPACING,
                RESPACED,
                THRESHOLD,
                &[("predictor_order", "[1, 2, 3]"), ("corrector_order", "[1, 2]")],
            ],
        ),
        ("LCMScheduler", &[TRAINING, SPACING, CLIP, &[("original_inference_steps", "[50, 100]")]]),
        ("TCDScheduler", &[TRAINING, SPACING, &[("original_inference_steps", "[50, 100]")]]),
        ("EDMEulerScheduler", &[&[("sigma_data", "[0.5, 1.0]"), ("sigma_schedule", r#"["karras", "exponential"]"#)]]),
        (
            "FlowMatchEulerDiscreteScheduler",
            &[RESPACED, &[("shift", "[1.0, 3.0]"), ("stochastic_sampling", "[true, false]")]],
        ),
        ("FlowMatchHeunDiscreteScheduler", &[&[("shift", "[1.0, 3.0]")]]),
    ];
    let (class, groups) = dice.pick(CLASSES);
    let mut config = json!({"_class_name": class});
    for (key, values) in groups.iter().copied().flatten() {
        if dice.chance(30) {
            let values: Vec<Value> = serde_json::from_str(values).unwrap();
            config[*key] = dice.pick(&values).clone();
        }
    }
    config
}
