//! Draws random objects for the field `scheduler`.

use serde_json::{Value, json};

use crate::random::Random;

/// A scheduler class of diffusers with some of its keys. A few combinations of values are invalid and refused.
pub fn config(random: &mut Random) -> Value {
    let (class, groups) = random.pick(CLASSES);
    let mut config = json!({"_class_name": class});
    for (key, values) in groups.iter().flat_map(|group| group.iter()) {
        if random.chance(30) {
            let values: Vec<Value> = serde_json::from_str(values).unwrap();
            config[*key] = random.pick(&values).clone();
        }
    }
    config
}

/// Keys, each with a JSON list of values.
type Keys = &'static [(&'static str, &'static str)];

const FLAG: &str = "[true, false]";

const TRAINING: Keys = &[
    ("beta_schedule", r#"["linear", "scaled_linear", "squaredcos_cap_v2"]"#),
    ("beta_start", "[0.0001, 0.00085]"),
    ("beta_end", "[0.012, 0.02]"),
    ("prediction_type", r#"["epsilon", "v_prediction"]"#),
];
const SPACING: Keys = &[("timestep_spacing", r#"["linspace", "leading", "trailing"]"#), ("steps_offset", "[0, 1]")];
const CLIP: Keys = &[("clip_sample", FLAG), ("clip_sample_range", "[1.0, 2.5]")];
const THRESHOLD: Keys =
    &[("thresholding", FLAG), ("dynamic_thresholding_ratio", "[0.9, 0.995]"), ("sample_max_value", "[1.0, 1.5]")];
const KARRAS: Keys = &[("use_karras_sigmas", FLAG)];
const EXPONENTIAL: Keys = &[("use_exponential_sigmas", FLAG)];
const BETA: Keys = &[("use_beta_sigmas", FLAG)];
const LU: Keys = &[("use_lu_lambdas", FLAG)];
const FLOW: Keys = &[("use_flow_sigmas", "[false, false, true]"), ("flow_shift", "[1.0, 3.0]")];
const ZERO_SNR: Keys = &[("rescale_betas_zero_snr", FLAG)];
const SOLVER: Keys = &[("solver_order", "[1, 2, 3]"), ("lower_order_final", "[true, true, false]")];
const MIDPOINT: Keys = &[("solver_type", r#"["midpoint", "heun"]"#)];
const DPM: Keys = &[
    ("algorithm_type", r#"["dpmsolver++", "dpmsolver++", "sde-dpmsolver++"]"#),
    ("final_sigmas_type", r#"["zero", "sigma_min"]"#),
];
const SHIFT: Keys = &[("shift", "[1.0, 3.0]")];
const DISTILLED: Keys = &[("original_inference_steps", "[50, 100]")];
const EDM: Keys = &[
    ("sigma_data", "[0.5, 1.0]"),
    ("sigma_schedule", r#"["karras", "exponential"]"#),
    ("sigma_min", "[0.002, 0.02]"),
    ("sigma_max", "[14.6, 80.0]"),
    ("rho", "[5.0, 7.0]"),
];

const CLASSES: &[(&str, &[Keys])] = &[
    (
        "DDPMScheduler",
        &[TRAINING, SPACING, CLIP, THRESHOLD, ZERO_SNR, &[("variance_type", r#"["fixed_small", "fixed_large"]"#)]],
    ),
    ("DDIMScheduler", &[TRAINING, SPACING, CLIP, THRESHOLD, ZERO_SNR, &[("set_alpha_to_one", FLAG)]]),
    ("PNDMScheduler", &[TRAINING, SPACING, &[("set_alpha_to_one", FLAG), ("skip_prk_steps", "[true, true, false]")]]),
    ("IPNDMScheduler", &[&[("num_train_timesteps", "[1000]")]]),
    (
        "EulerDiscreteScheduler",
        &[TRAINING, SPACING, BETA, ZERO_SNR, &[("final_sigmas_type", r#"["zero", "sigma_min"]"#)]],
    ),
    (
        "EulerDiscreteScheduler",
        &[
            KARRAS,
            &[
                ("interpolation_type", r#"["linear", "log_linear"]"#),
                ("timestep_type", r#"["discrete", "continuous"]"#),
            ],
        ],
    ),
    ("EulerAncestralDiscreteScheduler", &[TRAINING, SPACING, ZERO_SNR]),
    ("HeunDiscreteScheduler", &[TRAINING, SPACING, EXPONENTIAL, CLIP]),
    ("LMSDiscreteScheduler", &[TRAINING, SPACING, KARRAS]),
    ("KDPM2DiscreteScheduler", &[TRAINING, SPACING, EXPONENTIAL]),
    ("KDPM2AncestralDiscreteScheduler", &[TRAINING, SPACING, BETA]),
    ("DPMSolverSDEScheduler", &[TRAINING, SPACING, KARRAS, &[("noise_sampler_seed", "[0, 7]")]]),
    (
        "DPMSolverMultistepScheduler",
        &[TRAINING, SPACING, KARRAS, THRESHOLD, SOLVER, MIDPOINT, DPM, &[("euler_at_final", FLAG)]],
    ),
    ("DPMSolverMultistepScheduler", &[LU, SPACING, SOLVER, MIDPOINT, ZERO_SNR]),
    ("DPMSolverMultistepScheduler", &[FLOW, SOLVER, DPM]),
    ("DPMSolverSinglestepScheduler", &[TRAINING, KARRAS, THRESHOLD, SOLVER, MIDPOINT, DPM]),
    (
        "UniPCMultistepScheduler",
        &[
            TRAINING,
            SPACING,
            EXPONENTIAL,
            THRESHOLD,
            SOLVER,
            &[("solver_type", r#"["bh1", "bh2"]"#), ("predict_x0", FLAG)],
        ],
    ),
    (
        "UniPCMultistepScheduler",
        &[
            FLOW,
            SOLVER,
            &[("disable_corrector", "[[], [0], [0, 1]]"), ("final_sigmas_type", r#"["zero", "sigma_min"]"#)],
        ],
    ),
    ("DEISMultistepScheduler", &[TRAINING, SPACING, BETA, SOLVER]),
    (
        "SASolverScheduler",
        &[
            TRAINING,
            SPACING,
            KARRAS,
            THRESHOLD,
            &[
                ("predictor_order", "[1, 2, 3]"),
                ("corrector_order", "[1, 2]"),
                ("algorithm_type", r#"["data_prediction", "noise_prediction"]"#),
            ],
        ],
    ),
    ("LCMScheduler", &[TRAINING, SPACING, CLIP, DISTILLED]),
    ("TCDScheduler", &[TRAINING, SPACING, DISTILLED]),
    ("EDMEulerScheduler", &[EDM]),
    ("EDMDPMSolverMultistepScheduler", &[EDM, SOLVER, MIDPOINT]),
    (
        "FlowMatchEulerDiscreteScheduler",
        &[KARRAS, SHIFT, &[("stochastic_sampling", FLAG), ("invert_sigmas", "[false]")]],
    ),
    ("FlowMatchHeunDiscreteScheduler", &[SHIFT]),
    (
        "CMStochasticIterativeScheduler",
        &[&[("sigma_min", "[0.002]"), ("sigma_max", "[80.0]"), ("clip_denoised", FLAG)]],
    ),
];
