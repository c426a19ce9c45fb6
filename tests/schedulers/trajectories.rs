//! Tests that compare trajectories, tables of betas and noised states with the goldens of diffusers.

use std::collections::BTreeMap;

use latentd::diffusion::{
    InvalidScheduler, InvalidSteps, Latents, Noise, Point, Schedule, SchedulerConfig, steps_and_calls,
};
use serde_json::{Value, json};

use crate::goldens::{Goldens, close, distance, largest, wide};
use crate::network::{CLASSES, Synthetic, config, has_betas, input_scale, is_second_order, map, run};

#[test]
fn samplers_follow_the_trajectories_of_diffusers() {
    let goldens = Goldens::read("schedulers");
    let (mut ran, mut waiting, mut wrong) = (0, BTreeMap::<String, usize>::new(), Vec::new());
    for entry in goldens.index["trajectories"].as_array().unwrap() {
        let (key, class) = (entry["key"].as_str().unwrap(), entry["scheduler"].as_str().unwrap());
        let mut model = map(entry["config"].clone());
        model.insert("_class_name".into(), class.into());
        match SchedulerConfig::from_model(&model) {
            Ok(config) => {
                ran += 1;
                let config = entry["mu"].as_f64().map_or(config.clone(), |mu| config.shifted(mu));
                if let Err(why) = replay(&goldens, entry, &config) {
                    wrong.push(format!("{key}: {why}"));
                }
            }
            Err(InvalidScheduler::UnsupportedClass { class }) => *waiting.entry(class).or_default() += 1,
            // A configuration that gives infinities or NaN in diffusers may be refused.
            Err(InvalidScheduler::Conflict { .. } | InvalidScheduler::Value { .. }) if entry["finite"] == false => {
                ran += 1
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
    println!("{ran} trajectories ran, {} wait", waiting.values().sum::<usize>());
    assert!(wrong.is_empty(), "{} of {ran} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(waiting.is_empty() && ran > 0);
}

/// Runs a case of the goldens. Returns the first difference as an error.
fn replay(goldens: &Goldens, entry: &Value, config: &SchedulerConfig) -> Result<(), String> {
    let (key, class) = (entry["key"].as_str().unwrap(), entry["scheduler"].as_str().unwrap());
    let steps = entry["steps"].as_u64().unwrap() as usize;
    let network = Synthetic::default();
    let got = run(
        &network,
        config,
        steps,
        entry["eta"].as_f64().unwrap_or(if class == "TCDScheduler" { 0.3 } else { 0.0 }),
        [1, 1, 4, 4],
        &mut Noise::batch(1234),
    );
    if entry["finite"] == false {
        // In float32, the ancestral levels of DPM2 are roots of negative numbers. This code computes them in float64.
        let better = class == "KDPM2AncestralDiscreteScheduler";
        return if got.is_err() || better { Ok(()) } else { Err("finite, unlike diffusers".to_owned()) };
    }
    let last = got.map_err(|e| e.to_string())?;
    let schedule = Schedule::new(config, steps).map_err(|e| e.to_string())?;
    let asked = network.asked.borrow();
    let golden = |part: &str| goldens.tensor(&format!("{key}/{part}"));

    let timesteps: Vec<f64> = asked.iter().map(|(t, _)| *t).collect();
    let wanted = golden("timesteps").unwrap();
    // Float32 also rounds the timesteps between two points of DPM2.
    let blurred = class == "KDPM2AncestralDiscreteScheduler" && distance(&timesteps, &wanted) < 0.02;
    if !close(&timesteps, &wanted) && !blurred {
        return Err(format!("timesteps {timesteps:?}, wanted {wanted:?}"));
    }
    if let Some(wanted) = golden("sigmas") {
        let is_flow = class.starts_with("FlowMatch") || entry["config"]["use_flow_sigmas"] == true;
        let level = |point: &Point| if is_flow { point.sigma } else { point.noise() };
        let sigmas: Vec<f64> = schedule.points().iter().map(level).collect();
        // Lists of second-order classes contain each inner level twice. The log-linear list is longer than the steps.
        let skip = if is_second_order(class) { 2 } else { 1 };
        let wanted: Vec<f64> = wanted[..1].iter().chain(wanted[1..].iter().step_by(skip)).copied().collect();
        if !close(&sigmas, &wanted[..sigmas.len()]) {
            return Err(format!("sigmas {sigmas:?}, wanted {wanted:?}"));
        }
    }
    if !close(&[schedule.init_noise_sigma()], &[entry["init_noise_sigma"].as_f64().unwrap()]) {
        return Err(format!("init_noise_sigma {}", schedule.init_noise_sigma()));
    }
    // A state is the input of the network before scaling.
    let sigmas = golden("sigmas");
    let unscaled = |(i, (_, x)): (usize, &(f64, Vec<f64>))| {
        let scale = sigmas.as_ref().map_or(1.0, |sigmas| input_scale(class, sigmas[i]));
        x.iter().map(|x| x * scale).collect::<Vec<_>>()
    };
    // No list contains the levels of DPM2 between two points. The timesteps at these levels were compared above.
    let half = |i: usize| (class.starts_with("KDPM2") || class.starts_with("DPMSolverSDE")) && i % 2 == 1;
    let asked = asked.iter().enumerate().filter(|(i, _)| !half(*i));
    let states: Vec<f64> = asked.flat_map(unscaled).chain(wide(last.data())).collect();
    let wanted = golden("trajectory").unwrap();
    let count = wanted.len() / 16;
    let whole = wanted.chunks(16).enumerate().filter(|(i, _)| !half(*i) || i + 1 == count);
    let wanted: Vec<f64> = whole.flat_map(|(_, state)| state.to_vec()).collect();
    let (off, scale) = (distance(&states, &wanted), largest(&wanted));
    // torch's logarithm and exponential sometimes miss the nearest float, differently on different machines. Then a
    // time of the Brownian path is off by a millionth, and its noise by the root of that over the root of the step.
    // diffusers varies as much by itself: see dpm_sde.py in this folder and its output, dpm_sde.txt.
    let limit = if class == "DPMSolverSDEScheduler" { 5e-4 } else { 2e-5 };
    if off > limit * scale { Err(format!("states off by {:.1e} of the largest", off / scale)) } else { Ok(()) }
}

/// The goldens have no case in which PLMS repeats its first step at a timestep outside the schedule. The expected
/// numbers come from `PNDMScheduler.step_plms`, written in numpy with float64, for the same start and network.
#[test]
fn plms_repeats_its_first_step_at_a_stride_for_linspace() {
    let config = config(json!({
        "_class_name": "PNDMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
        "skip_prk_steps": true, "timestep_spacing": "linspace",
    }));
    let network = Synthetic::default();
    let x = run(&network, &config, 7, 0.0, [1, 1, 4, 4], &mut Noise::batch(1)).unwrap();
    let timesteps: Vec<f64> = network.asked.borrow().iter().map(|(t, _)| *t).collect();
    assert_eq!(timesteps, [999.0, 832.0, 832.0, 666.0, 500.0, 333.0, 166.0, 0.0]);
    let wanted = [0.141495, -18.922756, 0.911262, 1.39715];
    assert!(distance(&wide(&x.data()[..4]), &wanted) < 1e-4, "{:?}", &x.data()[..4]);
}

#[test]
fn configurations_that_diffusers_cannot_run_are_refused() {
    let goldens = Goldens::read("schedulers");
    let refused = goldens.index["unsupported"].as_array().unwrap();
    assert!(!refused.is_empty());
    for entry in refused.iter().filter(|entry| CLASSES.contains(&entry["scheduler"].as_str().unwrap())) {
        let mut model = map(entry["config"].clone());
        model.insert("_class_name".into(), entry["scheduler"].clone());
        let config = SchedulerConfig::from_model(&model).unwrap();
        let steps = entry["steps"].as_u64().unwrap() as usize;
        assert!(matches!(steps_and_calls(&config, steps), Err(InvalidSteps::TooFew { min: 4, .. })), "{entry}");
    }
}

#[test]
fn betas_equal_those_of_torch() {
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
            let (got, got_cumprod) = (wide(config.betas().betas()), wide(config.betas().alphas_cumprod()));
            // Rescaling subtracts almost equal roots at the end, and the root of torch may be off by one bit.
            let limit = if rescale { 1e-5 } else { 1e-7 };
            assert!(distance(&got, &betas) < limit, "{key}");
            let off = got_cumprod.iter().zip(&alphas_cumprod).map(|(a, b)| (a - b).abs() / b.max(1e-30));
            assert!(off.fold(0.0, f64::max) < limit, "{key}");
        }
    }
}

#[test]
fn add_noise_equals_that_of_diffusers() {
    let goldens = Goldens::read("schedulers");
    let latents = |key| {
        let data = goldens.tensor(key).unwrap().into_iter().map(|x| x as f32).collect();
        Latents::new([1, 1, 4, 4], data).unwrap()
    };
    let (x0, noise) = (latents("add_noise/x0"), latents("add_noise/noise"));
    for class in CLASSES {
        let config = config(json!({
            "_class_name": class, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
        }));
        let schedule = Schedule::new(&config, 10).unwrap();
        let Some(timesteps) = goldens.tensor(&format!("add_noise/{class}/timesteps")) else {
            let without = ["TCD", "DPMSolverSDE", "SASolver"];
            assert!(!has_betas(class) || without.iter().any(|name| class.starts_with(name)), "{class}");
            continue;
        };
        let wanted = goldens.tensor(&format!("add_noise/{class}/out")).unwrap();
        for (t, wanted) in timesteps.into_iter().zip(wanted.chunks(16)) {
            let point = schedule.points().iter().find(|point| (point.t - t).abs() < 1e-3).copied();
            if point.is_none() && class.starts_with("KDPM2") {
                continue; // A level between two points.
            }
            let noisy = schedule.add_noise(&point.unwrap_or_else(|| schedule.level(t)), &x0, &noise);
            assert!(distance(&wide(noisy.data()), wanted) <= 1e-6 * largest(wanted), "{class} at {t}");
        }
    }
}
