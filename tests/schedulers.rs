//! Schedules, samplers and noise against what diffusers and torch compute, and the properties that hold for any
//! configuration.  Goldens come from `LATENTD_PARITY_DIR` (a folder with `components/`), else from `tests/fixtures`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use latentd::diffusion::mt19937::Mt19937;
use latentd::diffusion::noise::Generator;
use latentd::diffusion::{
    Denoise, Error, InvalidScheduler, InvalidSteps, Latents, Noise, Schedule, SchedulerChoice,
    SchedulerConfig, guide, names, sample, steps_and_calls,
};
use proptest::prelude::*;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

// ---------------------------------------------------------------------------------------------------------- goldens

struct Goldens {
    index: Value,
    tensors: Vec<u8>,
}

impl Goldens {
    fn read(name: &str) -> Goldens {
        let fixtures = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity");
        let folder = std::env::var_os("LATENTD_PARITY_DIR").map_or_else(fixtures, PathBuf::from);
        let file = |ext| std::fs::read(folder.join(format!("components/{name}.{ext}"))).unwrap();
        Goldens {
            index: serde_json::from_slice(&file("json")).unwrap(),
            tensors: file("safetensors"),
        }
    }

    fn tensor(&self, key: &str) -> Option<Vec<f64>> {
        let tensors = SafeTensors::deserialize(&self.tensors).unwrap();
        let view = tensors.tensor(key).ok()?;
        let bytes = view.data();
        Some(match view.dtype() {
            Dtype::F32 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b).into())
                .collect(),
            Dtype::F64 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| f64::from_le_bytes(*b))
                .collect(),
            Dtype::I64 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| i64::from_le_bytes(*b) as f64)
                .collect(),
            other => panic!("{key}: {other:?}"),
        })
    }
}

/// The largest difference, or infinity where the lengths differ or a number is not finite.
fn distance(got: &[f64], wanted: &[f64]) -> f64 {
    if got.len() != wanted.len() || !got.iter().chain(wanted).all(|x| x.is_finite()) {
        return f64::INFINITY;
    }
    got.iter()
        .zip(wanted)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max)
}

fn largest(values: &[f64]) -> f64 {
    values.iter().map(|x| x.abs()).fold(0.0, f64::max)
}

/// Equal to 1e-6 of each number.
fn close(got: &[f64], wanted: &[f64]) -> bool {
    got.len() == wanted.len()
        && got
            .iter()
            .zip(wanted)
            .all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs())
}

fn wide(data: &[f32]) -> Vec<f64> {
    data.iter().map(|x| f64::from(*x)).collect()
}

// ------------------------------------------------------------------------------------------------- a network of ours

/// The synthetic network of the goldens; answers only when polled a second time and remembers what it was asked.
#[derive(Default)]
struct Synthetic {
    asked: RefCell<Vec<(f64, Vec<f64>)>>,
    steps: RefCell<Vec<(usize, usize)>>,
    wrong_shape: bool,
}

impl Denoise for Synthetic {
    async fn predict(&self, x: &Latents, t: f64) -> Result<Latents, Error> {
        let mut polled = false;
        std::future::poll_fn(|_| {
            if std::mem::replace(&mut polled, true) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        self.asked.borrow_mut().push((t, wide(x.data())));
        let answer = |x: &f32| (0.9 * x / (1.0 + x * x).sqrt()) + (0.1 * (t / 1000.0)) as f32;
        let [b, c, h, w] = x.shape();
        let shape = if self.wrong_shape {
            [b, c, w, 2 * h]
        } else {
            [b, c, h, w]
        };
        let data = x
            .data()
            .iter()
            .map(answer)
            .cycle()
            .take(shape.iter().product())
            .collect();
        Latents::new(shape, data)
    }

    fn stepped(&self, step: usize, steps: usize, denoised: &Latents) {
        assert!(!denoised.data().is_empty());
        self.steps.borrow_mut().push((step, steps));
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..100_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
    panic!("the sampler asks without end")
}

fn run(
    network: &Synthetic,
    config: &SchedulerConfig,
    steps: usize,
    eta: f64,
    shape: [usize; 4],
    noise: &mut Noise,
) -> Result<Latents, Error> {
    let x = Noise::batch(99).draw(shape);
    block_on(sample(network, config, steps, eta, x, noise))
}

fn map(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn config(value: Value) -> SchedulerConfig {
    SchedulerConfig::from_model(&map(value)).unwrap()
}

const CLASSES: [&str; 7] = [
    "DDPMScheduler",
    "DDIMScheduler",
    "PNDMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "DPMSolverMultistepScheduler",
];

fn scales_its_input(class: &str) -> bool {
    class.starts_with("Euler") || class.starts_with("Heun")
}

// ------------------------------------------------------------------------------------------------------ trajectories

#[test]
fn samplers_follow_the_trajectories_of_diffusers() {
    let goldens = Goldens::read("schedulers");
    let (mut ran, mut waiting, mut wrong) = (0, BTreeMap::<String, usize>::new(), Vec::new());
    for entry in goldens.index["trajectories"].as_array().unwrap() {
        let (key, class) = (
            entry["key"].as_str().unwrap(),
            entry["scheduler"].as_str().unwrap(),
        );
        let mut model = map(entry["config"].clone());
        model.insert("_class_name".into(), class.into());
        match SchedulerConfig::from_model(&model) {
            Ok(config) => {
                ran += 1;
                if let Err(why) = replay(&goldens, entry, &config) {
                    wrong.push(format!("{key}: {why}"));
                }
            }
            Err(InvalidScheduler::UnsupportedClass { class }) => {
                *waiting.entry(class).or_default() += 1
            }
            Err(InvalidScheduler::Value { key, value, .. }) => {
                *waiting.entry(format!("{key} {value}")).or_default() += 1
            }
            Err(other) => wrong.push(format!("{key}: {other}")),
        }
    }
    for (feature, count) in &waiting {
        println!("waiting: {feature} ({count})");
    }
    println!(
        "{ran} trajectories ran, {} wait",
        waiting.values().sum::<usize>()
    );
    assert!(
        wrong.is_empty(),
        "{} of {ran} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    let of_ours: Vec<_> = waiting
        .keys()
        .filter(|feature| !feature.ends_with("Scheduler"))
        .collect();
    assert_eq!(
        of_ours,
        [
            "prediction_type flow_prediction",
            "variance_type fixed_large_log"
        ]
    );
    assert!(CLASSES.iter().all(|class| !waiting.contains_key(*class)) && ran > 0);
}

fn replay(goldens: &Goldens, entry: &Value, config: &SchedulerConfig) -> Result<(), String> {
    let (key, class) = (
        entry["key"].as_str().unwrap(),
        entry["scheduler"].as_str().unwrap(),
    );
    let steps = entry["steps"].as_u64().unwrap() as usize;
    let network = Synthetic::default();
    let got = run(
        &network,
        config,
        steps,
        entry["eta"].as_f64().unwrap_or(0.0),
        [1, 1, 4, 4],
        &mut Noise::batch(1234),
    );
    if entry["finite"] == false {
        return got.map_or(Ok(()), |_| Err("finite, where diffusers is not".to_owned()));
    }
    let last = got.map_err(|e| e.to_string())?;
    let schedule = Schedule::new(config, steps).unwrap();
    let asked = network.asked.borrow();
    let golden = |part: &str| goldens.tensor(&format!("{key}/{part}"));

    let timesteps: Vec<f64> = asked.iter().map(|(t, _)| *t).collect();
    let wanted = golden("timesteps").unwrap();
    if !close(&timesteps, &wanted) {
        return Err(format!("timesteps {timesteps:?}, wanted {wanted:?}"));
    }
    if let Some(wanted) = golden("sigmas") {
        let sigmas: Vec<f64> = schedule
            .points()
            .iter()
            .map(|point| point.noise())
            .collect();
        // Heun's list names each inner level twice; the log-linear one is longer than the steps.
        let skip = if class.starts_with("Heun") { 2 } else { 1 };
        let wanted: Vec<f64> = wanted[..1]
            .iter()
            .chain(wanted[1..].iter().step_by(skip))
            .copied()
            .collect();
        if !close(&sigmas, &wanted[..sigmas.len()]) {
            return Err(format!("sigmas {sigmas:?}, wanted {wanted:?}"));
        }
    }
    if !close(
        &[schedule.init_noise_sigma()],
        &[entry["init_noise_sigma"].as_f64().unwrap()],
    ) {
        return Err(format!("init_noise_sigma {}", schedule.init_noise_sigma()));
    }
    // A state is what the network was asked about before it was scaled for it.
    let sigmas = golden("sigmas").filter(|_| scales_its_input(class));
    let unscaled = |(i, (_, x)): (usize, &(f64, Vec<f64>))| {
        let scale = sigmas
            .as_ref()
            .map_or(1.0, |sigmas| (sigmas[i] * sigmas[i] + 1.0).sqrt());
        x.iter().map(|x| x * scale).collect::<Vec<_>>()
    };
    let states: Vec<f64> = asked
        .iter()
        .enumerate()
        .flat_map(unscaled)
        .chain(wide(last.data()))
        .collect();
    let wanted = golden("trajectory").unwrap();
    let (off, scale) = (distance(&states, &wanted), largest(&wanted));
    if off > 2e-5 * scale {
        Err(format!("states off by {:.1e} of the largest", off / scale))
    } else {
        Ok(())
    }
}

#[test]
fn what_diffusers_cannot_run_is_refused() {
    let goldens = Goldens::read("schedulers");
    let refused = goldens.index["unsupported"].as_array().unwrap();
    assert!(!refused.is_empty());
    for entry in refused
        .iter()
        .filter(|entry| CLASSES.contains(&entry["scheduler"].as_str().unwrap()))
    {
        let mut model = map(entry["config"].clone());
        model.insert("_class_name".into(), entry["scheduler"].clone());
        let config = SchedulerConfig::from_model(&model).unwrap();
        let steps = entry["steps"].as_u64().unwrap() as usize;
        assert!(
            matches!(
                steps_and_calls(&config, steps),
                Err(InvalidSteps::TooFew { min: 4, .. })
            ),
            "{entry}"
        );
    }
}

#[test]
fn betas_are_those_of_torch() {
    let goldens = Goldens::read("schedulers");
    for schedule in ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"] {
        for (rescale, suffix) in [(false, ""), (true, "_zsnr")] {
            let config = config(json!({
                "_class_name": "DDPMScheduler", "beta_schedule": schedule, "rescale_betas_zero_snr": rescale,
                "beta_start": 0.00085, "beta_end": 0.012,
            }));
            let key = format!("betas/{schedule}{suffix}");
            let betas = goldens.tensor(&format!("{key}/betas")).unwrap();
            let alphas_cumprod = goldens.tensor(&format!("{key}/alphas_cumprod")).unwrap();
            assert!(
                distance(&wide(config.betas().betas()), &betas) < 2e-7,
                "{key}"
            );
            assert!(
                close(&wide(config.betas().alphas_cumprod()), &alphas_cumprod),
                "{key}"
            );
        }
    }
}

#[test]
fn add_noise_is_that_of_diffusers() {
    let goldens = Goldens::read("schedulers");
    let latents = |key| {
        let data = goldens
            .tensor(key)
            .unwrap()
            .into_iter()
            .map(|x| x as f32)
            .collect();
        Latents::new([1, 1, 4, 4], data).unwrap()
    };
    let (x0, noise) = (latents("add_noise/x0"), latents("add_noise/noise"));
    for class in CLASSES {
        let config = config(json!({
            "_class_name": class, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
        }));
        let schedule = Schedule::new(&config, 10).unwrap();
        let timesteps = goldens
            .tensor(&format!("add_noise/{class}/timesteps"))
            .unwrap();
        let wanted = goldens.tensor(&format!("add_noise/{class}/out")).unwrap();
        for (t, wanted) in timesteps.into_iter().zip(wanted.chunks(16)) {
            let point = schedule
                .points()
                .iter()
                .find(|point| (point.t - t).abs() < 1e-3)
                .copied();
            let noisy =
                schedule.add_noise(&point.unwrap_or_else(|| schedule.level(t)), &x0, &noise);
            assert!(
                distance(&wide(noisy.data()), wanted) <= 1e-6 * largest(wanted),
                "{class} at {t}"
            );
        }
    }
}

// -------------------------------------------------------------------------------------------------------------- noise

#[test]
fn noise_is_that_of_torch() {
    let goldens = Goldens::read("randn");
    let mut ran = 0;
    for entry in goldens.index.as_array().unwrap() {
        let key = entry["key"].as_str().unwrap();
        let seeds: Vec<u64> = entry["seed"]
            .as_array()
            .map_or(vec![&entry["seed"]], |seeds| seeds.iter().collect())
            .into_iter()
            .map(|seed| {
                seed.as_u64()
                    .unwrap_or_else(|| seed.as_i64().unwrap() as u64)
            })
            .collect();
        let shape = [2, 4, 8, 8];
        let got = match key.split('/').next().unwrap() {
            "randn" | "sequence" | "shape" => {
                let mut generator = Generator::new(seeds[0]);
                let calls = entry["calls"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|n| n.as_u64().unwrap() as usize);
                calls
                    .flat_map(|n| {
                        let mut out = vec![0.0; n];
                        generator.fill_randn(&mut out);
                        out
                    })
                    .collect()
            }
            "randn_tensor" if key == "randn_tensor/list" => {
                Noise::per_image(&seeds).draw(shape).into_data()
            }
            "randn_tensor" => Noise::batch(seeds[0]).draw(shape).into_data(),
            "mt19937" => {
                let mut words = Mt19937::new(seeds[0] as u32);
                for wanted in goldens.tensor(key).unwrap() {
                    assert_eq!(f64::from(words.word()), wanted, "{key}");
                }
                continue;
            }
            // Other types and distributions, which nothing here draws.
            _ => continue,
        };
        ran += 1;
        assert!(
            distance(&wide(&got), &goldens.tensor(key).unwrap()) <= 1e-6,
            "{key}"
        );
    }
    assert!(ran > 100);
}

// ------------------------------------------------------------------------------------------------------------ choices

fn sd1() -> Map<String, Value> {
    map(json!({
        "_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "beta_start": 0.00085, "clip_sample": false, "num_train_timesteps": 1000, "set_alpha_to_one": false,
        "skip_prk_steps": true, "steps_offset": 1, "trained_betas": null,
    }))
}

fn overlay(request: Value) -> Result<SchedulerConfig, InvalidScheduler> {
    SchedulerConfig::overlay(&sd1(), &serde_json::from_value(request).unwrap())
}

#[test]
fn every_name_is_a_scheduler_of_its_own() {
    let mut seen: Vec<(String, SchedulerConfig)> = Vec::new();
    for name in names() {
        assert!(!name.description.is_empty() && name.description.lines().count() == 1);
        let config =
            SchedulerConfig::overlay(&sd1(), &SchedulerChoice::Name(name.name.clone())).unwrap();
        assert!(
            seen.iter()
                .all(|(other, c)| *other != name.name && *c != config),
            "{}",
            name.name
        );
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
fn a_name_means_from_config_and_a_suffix_sets_its_flag_alone() {
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
    assert_eq!(
        named(&karras, "euler"),
        SchedulerConfig::from_model(&karras).unwrap()
    );
    assert_eq!(
        named(&karras, "euler_exponential"),
        SchedulerConfig::from_model(&with("use_exponential_sigmas")).unwrap()
    );
    assert_eq!(named(&karras, "dpmpp_2m"), named(&sd1(), "dpmpp_2m_karras"));
}

#[test]
fn a_request_lays_over_the_model() {
    assert_eq!(overlay(json!({})), SchedulerConfig::from_model(&sd1()));
    assert_eq!(
        overlay(json!({"_class_name": "DDIMScheduler"})),
        overlay(json!("ddim"))
    );
    // Null takes the default of the class.
    let mut model = sd1();
    model.remove("steps_offset");
    assert_eq!(
        overlay(json!({"steps_offset": null})),
        SchedulerConfig::from_model(&model)
    );
    let trailing =
        overlay(json!({"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"}))
            .unwrap();
    assert_eq!(Schedule::new(&trailing, 10).unwrap().points()[0].t, 999.0);
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let refused = |request: Value| overlay(request).unwrap_err().to_string();
    assert_eq!(
        refused(json!("ddim_karras")),
        r#"unknown scheduler name "ddim_karras""#
    );
    assert_eq!(
        refused(json!("euler_karras_karras")),
        r#"unknown scheduler name "euler_karras_karras""#
    );
    assert_eq!(
        refused(json!({"_class_name": "LMSDiscreteScheduler"})),
        r#"unsupported scheduler class "LMSDiscreteScheduler""#
    );
    assert_eq!(
        refused(json!({"eta": 1})),
        r#"PNDMScheduler has no key "eta""#
    );
    // The model file has this key, and PNDM ignores it there.
    assert_eq!(
        refused(json!({"clip_sample": false})),
        r#"PNDMScheduler has no key "clip_sample""#
    );
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
        json!({"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": true}),
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
    ] {
        assert!(matches!(
            overlay(request),
            Err(InvalidScheduler::Conflict { .. })
        ));
    }
}

// --------------------------------------------------------------------------------------------------------- edge cases

#[test]
fn zero_terminal_snr_stays_finite() {
    for class in CLASSES
        .iter()
        .filter(|class| !class.starts_with("PNDM") && !class.starts_with("Heun"))
    {
        for prediction in ["epsilon", "v_prediction", "sample"] {
            let model = map(json!({
                "_class_name": class, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
                "rescale_betas_zero_snr": true, "timestep_spacing": "trailing", "prediction_type": prediction,
            }));
            let Ok(config) = SchedulerConfig::from_model(&model) else {
                assert_eq!(
                    (*class, prediction),
                    ("EulerAncestralDiscreteScheduler", "sample")
                );
                continue;
            };
            assert!(Schedule::new(&config, 8).is_ok() || prediction == "epsilon");
            let got = run(
                &Synthetic::default(),
                &config,
                8,
                1.0,
                [1, 4, 8, 8],
                &mut Noise::batch(1),
            );
            match got {
                Ok(x) => assert!(x.is_finite()),
                // With no signal at all ε does not lead to x0; diffusers divides by zero.
                Err(Error::Steps(InvalidSteps::ZeroSignal {
                    prediction_type: "epsilon",
                })) => assert!(class.starts_with("DD")),
                Err(other) => panic!("{class} {prediction}: {other}"),
            }
        }
    }
}

#[test]
fn steps_out_of_bounds_are_refused() {
    for name in names() {
        let config = SchedulerConfig::overlay(&sd1(), &SchedulerChoice::Name(name.name)).unwrap();
        assert!(matches!(
            steps_and_calls(&config, 0),
            Err(InvalidSteps::TooFew { steps: 0, .. })
        ));
        assert!(matches!(
            steps_and_calls(&config, 1001),
            Err(InvalidSteps::TooMany { steps: 1001, .. })
        ));
    }
    let beyond = overlay(json!({"_class_name": "DDIMScheduler", "steps_offset": 999})).unwrap();
    assert!(matches!(
        steps_and_calls(&beyond, 10),
        Err(InvalidSteps::OutOfRange {
            num_train_timesteps: 1000,
            ..
        })
    ));
    let rising = overlay(
        json!({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": true, "sigma_min": 10, "sigma_max": 1}),
    );
    assert_eq!(
        steps_and_calls(&rising.unwrap(), 10),
        Err(InvalidSteps::Degenerate)
    );
}

#[test]
fn a_network_of_another_shape_is_an_error() {
    let network = Synthetic {
        wrong_shape: true,
        ..Synthetic::default()
    };
    let got = run(
        &network,
        &overlay(json!("euler")).unwrap(),
        3,
        0.0,
        [1, 4, 4, 4],
        &mut Noise::batch(1),
    );
    assert!(matches!(
        got,
        Err(Error::Shape {
            expected: [1, 4, 4, 4],
            got: [1, 4, 4, 8]
        })
    ));
    assert!(matches!(
        Latents::new([1, 4, 2, 2], vec![0.0; 15]),
        Err(Error::Length { len: 15, .. })
    ));
    assert!(Latents::new([usize::MAX, 2, 1, 1], vec![]).is_err());
}

#[test]
fn guidance_follows_its_formula() {
    let latents = |data: [f32; 4]| Latents::new([1, 1, 2, 2], data.to_vec()).unwrap();
    let (uncond, cond) = (
        latents([0.0, 1.0, 2.0, -1.0]),
        latents([1.0, 1.0, 4.0, -3.0]),
    );
    assert_eq!(guide(&uncond, &cond, 1.0, 0.0), cond);
    assert_eq!(
        guide(&uncond, &cond, 3.0, 0.0),
        latents([3.0, 1.0, 8.0, -7.0])
    );
    // Unbiased deviations: sqrt(24.75/3) of cond, sqrt(116.75/3) of the guided one.
    let factor = 0.5 * (24.75f64 / 116.75).sqrt() + 0.5;
    let wanted = [3.0, 1.0, 8.0, -7.0].map(|x: f64| (factor * x) as f32);
    assert!(
        distance(
            &wide(guide(&uncond, &cond, 3.0, 0.5).data()),
            &wide(&wanted)
        ) < 1e-6
    );
    let flat = latents([2.0; 4]);
    assert_eq!(guide(&flat, &flat, 7.5, 1.0), flat);
}

// --------------------------------------------------------------------------------------------------------- properties

/// A configuration that each class could have.
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
        map(json!({
            "_class_name": class, "beta_schedule": betas, "timestep_spacing": spacing, "prediction_type": prediction,
            "num_train_timesteps": train, "steps_offset": offset, "solver_order": order, respacing: true,
            "skip_prk_steps": flags[0], "thresholding": flags[1], "clip_sample": flags[2], "lower_order_final": flags[3],
            "final_sigmas_type": if flags[4] { "zero" } else { "sigma_min" }, "rescale_betas_zero_snr": flags[0],
        }))
    })
}

/// Any JSON under the keys that are read.
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
    ]);
    let class = prop::sample::select(CLASSES.to_vec());
    (class, prop::collection::vec((key, value), 0..5)).prop_map(|(class, keys)| {
        let class = ("_class_name".to_owned(), Value::from(class));
        keys.into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .chain([class])
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn schedules_fall_and_are_walked_to_their_end(model in plausible(), steps in 1usize..40) {
        let config = SchedulerConfig::from_model(&model).unwrap();
        let (points, calls) = match steps_and_calls(&config, steps) {
            Ok((counted, calls)) => {
                prop_assert_eq!(counted, steps);
                (Schedule::new(&config, steps).unwrap().points().to_vec(), calls)
            }
            Err(InvalidSteps::TooFew { min, .. }) => { prop_assert!(steps < min); return Ok(()) }
            // Only an offset leaves the training timesteps, only a rescaled end has no signal.
            Err(InvalidSteps::OutOfRange { .. }) => { prop_assert!(model["steps_offset"] != 0); return Ok(()) }
            Err(InvalidSteps::ZeroSignal { .. }) => { prop_assert_eq!(&model["rescale_betas_zero_snr"], true); return Ok(()) }
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        };
        prop_assert_eq!(points.len(), steps + 1);
        for p in &points {
            prop_assert!((p.alpha * p.alpha + p.sigma * p.sigma - 1.0).abs() < 1e-6 && p.t.is_finite());
        }
        prop_assert!(points.windows(2).all(|p| p[1].sigma <= p[0].sigma && p[1].alpha >= p[0].alpha));

        let network = Synthetic::default();
        let x = run(&network, &config, steps, 0.5, [1, 1, 4, 4], &mut Noise::batch(3));
        prop_assert!(x.is_ok(), "{:?}", x);
        prop_assert_eq!(network.asked.borrow().len(), calls);
        prop_assert!(network.steps.borrow().iter().copied().eq((1..=steps).map(|step| (step, steps))));
    }

    #[test]
    fn no_configuration_panics_or_runs_for_ever(model in hostile(), steps in prop_oneof![0usize..20, 900usize..1100, Just(usize::MAX)]) {
        if let Ok(config) = SchedulerConfig::from_model(&model) && let Ok((counted, calls)) = steps_and_calls(&config, steps) {
            prop_assert!(counted <= steps && calls >= counted);
            if calls < 100 && let Ok(x) = run(&Synthetic::default(), &config, steps, 1.0, [1, 1, 4, 4], &mut Noise::batch(3)) {
                prop_assert!(x.is_finite());
            }
        }
    }

    #[test]
    fn a_batch_of_seeds_is_its_images_one_by_one(model in plausible(), seeds in prop::collection::vec(any::<u64>(), 1..4), h in 1usize..6, steps in 4usize..7) {
        let shape = |b| [b, 3, h, 5];
        let config = SchedulerConfig::from_model(&model).unwrap();
        let picture = |seeds: &[u64]| {
            let mut noise = Noise::per_image(seeds);
            let x = noise.draw(shape(seeds.len()));
            block_on(sample(&Synthetic::default(), &config, steps, 1.0, x, &mut noise)).ok()
        };
        if let Some(together) = picture(&seeds) {
            for (b, seed) in seeds.iter().enumerate() {
                let alone = picture(&[*seed]).unwrap();
                prop_assert_eq!(together.row(b), alone.data());
            }
        }
    }
}
