//! Tests of the score SDE samplers: states of diffusers, probability flow, corrections, and bounds of options.

use std::cell::RefCell;

use latentd::diffusion::{Denoise, Error, Latents, Noise, Schedule, SchedulerConfig, sample};
use serde_json::{Value, json};

use crate::goldens::{close, distance, largest, wide};
use crate::network::{block_on, config, map};

/// A network with `score = −a/t` or `ε = a`, where `a` is the formula of `sde.py`.
struct Formula {
    is_score: bool,
    asked: RefCell<Vec<(f64, Vec<f64>)>>,
}

impl Denoise for Formula {
    async fn predict(&self, x: &Latents, t: f64) -> Result<Latents, Error> {
        self.asked.borrow_mut().push((t, wide(x.data())));
        let scale = if self.is_score { -1.0 / t as f32 } else { 1.0 };
        let answer = |x: &f32| scale * (0.9 * x / (1.0 + x * x).sqrt() + (0.1 * t / 1000.0) as f32);
        Latents::new(x.shape(), x.data().iter().map(answer).collect())
    }
}

/// Returns the final state, and the timestep and state of each call of the network.
fn run(config: &SchedulerConfig, steps: usize, batch: usize, noise: &mut Noise) -> (Latents, Vec<(f64, Vec<f64>)>) {
    let x = Noise::batch(99).draw([batch, 1, 4, 4]);
    let is_score = config.class_name() == "ScoreSdeVeScheduler";
    let schedule = Schedule::new(config, steps).unwrap();
    let network = Formula { is_score, asked: RefCell::default() };
    let x = block_on(sample(&network, &schedule, 0.0, x.scale(schedule.init_noise_sigma()), noise)).unwrap();
    let asked = network.asked.into_inner();
    assert_eq!(asked.len(), schedule.calls());
    (x, asked)
}

/// The expected states are in `sde.json`, which `sde.py` in this folder writes.
#[test]
fn score_sdes_follow_the_states_of_diffusers() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("sde.json")).unwrap();
    assert_eq!(cases.len(), 8);
    for case in cases {
        let mut model = map(case["config"].clone());
        model.insert("_class_name".into(), case["class"].clone());
        let config = SchedulerConfig::from_model(&model).unwrap();
        let number = |key: &str| case[key].as_u64().unwrap() as usize;
        let (last, asked) = run(&config, number("steps"), number("batch"), &mut Noise::batch(1234));
        let numbers = |value: &Value| -> Vec<f64> { serde_json::from_value(value.clone()).unwrap() };
        let times: Vec<f64> = asked.iter().map(|(t, _)| *t).collect();
        assert!(close(&times, &numbers(&case["told"])), "{model:?}: {times:?}");
        let states = asked.into_iter().map(|(_, x)| x).chain([wide(last.data())]);
        let wanted = case["states"].as_array().unwrap();
        assert_eq!(wanted.len(), times.len() + 1);
        for (i, (got, wanted)) in states.zip(wanted).enumerate() {
            let wanted = numbers(wanted);
            let off = distance(&got, &wanted) / largest(&wanted);
            assert!(off <= 2e-5, "{model:?}: state {i} is off by {off:.1e} of the largest");
        }
    }
}

/// With one generator for a batch, the corrections use norms over the whole batch, as in diffusers. With one generator
/// per image, an image does not depend on the others.
#[test]
fn corrections_of_an_image_with_its_own_seed_do_not_depend_on_others() {
    let config = config(json!({"_class_name": "ScoreSdeVeScheduler", "sigma_max": 50.0}));
    let start = Noise::batch(99).draw([2, 1, 4, 4]);
    let schedule = Schedule::new(&config, 5).unwrap();
    let draw = |rows: Vec<&[f32]>, noise: &mut Noise| {
        let x = Latents::new([rows.len(), 1, 4, 4], rows.concat()).unwrap().scale(schedule.init_noise_sigma());
        let network = Formula { is_score: true, asked: RefCell::default() };
        block_on(sample(&network, &schedule, 0.0, x, noise)).unwrap()
    };
    let together = draw(vec![start.row(0), start.row(1)], &mut Noise::per_image(&[3, 4]));
    for (b, seed) in [3, 4].into_iter().enumerate() {
        assert_eq!(draw(vec![start.row(b)], &mut Noise::per_image(&[seed])).data(), together.row(b));
    }
    let common = draw(vec![start.row(0), start.row(1)], &mut Noise::batch(3));
    let alone = draw(vec![start.row(0)], &mut Noise::batch(3));
    assert_ne!(common.row(0), alone.data());
}

/// For normally distributed data of width s and exploding variance, the score is `−x / (s² + σ²)`. The exact flow keeps
/// the quantile of a state from the width `√(s² + σ_max²)` to the width s.
#[test]
fn the_probability_flow_of_exploding_variance_keeps_quantiles() {
    struct Normal;
    impl Denoise for Normal {
        async fn predict(&self, x: &Latents, sigma: f64) -> Result<Latents, Error> {
            Latents::new(x.shape(), x.data().iter().map(|x| x / -(1.0 + sigma * sigma) as f32).collect())
        }
    }
    let config = config(json!({
        "_class_name": "ScoreSdeVeScheduler", "sigma_max": 50.0, "probability_flow": true, "correct_steps": 0,
    }));
    let x = Noise::batch(7).draw([1, 1, 4, 4]).scale((1.0f64 + 50.0 * 50.0).sqrt());
    let end = |steps: usize, seed: u64| {
        let schedule = Schedule::new(&config, steps).unwrap();
        block_on(sample(&Normal, &schedule, 0.0, x.clone(), &mut Noise::batch(seed))).unwrap()
    };
    assert_eq!(end(1000, 1), end(1000, 2), "the flow draws no noise");
    let wanted: Vec<f64> = x.data().iter().map(|x| f64::from(*x) / (1.0f64 + 50.0 * 50.0).sqrt()).collect();
    let off = |steps| distance(&wide(end(steps, 1).data()), &wanted);
    // The method has first order: twice the steps give half the error.
    let (coarse, fine) = (off(1000), off(2000));
    assert!(fine < 0.02 && fine < 0.55 * coarse, "off by {coarse}, then by {fine}");
}

/// The same for preserved variance: data of width s has the width `√(α² s² + σ²)` at a level (α, σ).
#[test]
fn the_probability_flow_of_preserved_variance_keeps_quantiles() {
    struct Normal(Schedule);
    const WIDTH: f64 = 0.5;
    impl Denoise for Normal {
        async fn predict(&self, x: &Latents, t: f64) -> Result<Latents, Error> {
            let point = self.0.points().iter().find(|point| point.t == t).unwrap();
            let variance = point.alpha * point.alpha * WIDTH * WIDTH + point.sigma * point.sigma;
            Latents::new(x.shape(), x.data().iter().map(|x| x * (point.sigma / variance) as f32).collect())
        }
    }
    let config = config(json!({"_class_name": "ScoreSdeVpScheduler", "probability_flow": true}));
    let network = Normal(Schedule::new(&config, 2000).unwrap());
    let x = Noise::batch(7).draw([1, 1, 4, 4]);
    let end = block_on(sample(&network, &network.0, 0.0, x.clone(), &mut Noise::batch(1))).unwrap();
    let wanted: Vec<f64> = x.data().iter().map(|x| f64::from(*x) * WIDTH).collect();
    let off = distance(&wide(end.data()), &wanted);
    assert!(off < 0.01, "off by {off}");
}

/// With preserved variance, unit normal data stay unit normal at all levels, with and without corrections.
#[test]
fn corrections_keep_the_width_of_the_data() {
    struct Normal(Schedule);
    impl Denoise for Normal {
        async fn predict(&self, x: &Latents, t: f64) -> Result<Latents, Error> {
            let point = self.0.points().iter().find(|point| point.t == t).unwrap();
            Latents::new(x.shape(), x.data().iter().map(|x| x * point.sigma as f32).collect())
        }
    }
    let config = config(json!({"_class_name": "ScoreSdeVpScheduler", "correct_steps": 2, "snr": 0.1}));
    let network = Normal(Schedule::new(&config, 200).unwrap());
    let calls = network.0.timeline();
    assert_eq!((calls.len(), calls[0], calls[2]), (3 * 200, calls[1], calls[1]));
    let x = Noise::batch(7).draw([1, 1, 64, 64]);
    let end = block_on(sample(&network, &network.0, 0.0, x, &mut Noise::batch(8))).unwrap();
    let variance = end.data().iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>() / end.data().len() as f64;
    // The variance of 4096 numbers has a standard error of 2 %.
    assert!((variance - 1.0).abs() < 0.1, "{variance}");
}

#[test]
fn options_out_of_bounds_are_refused() {
    let refused = |class: &str, key: &str, value: Value| {
        let model = map(json!({"_class_name": class, key: value}));
        SchedulerConfig::from_model(&model).unwrap_err().to_string()
    };
    assert_eq!(
        refused("ScoreSdeVeScheduler", "correct_steps", json!(101)),
        "correct_steps is 101, it must be a whole number from 0 to 100"
    );
    assert_eq!(
        refused("ScoreSdeVpScheduler", "sampling_eps", json!(0)),
        "sampling_eps is 0, it must be from 1e-6 to 1"
    );
    assert_eq!(
        refused("ScoreSdeVeScheduler", "sigma_min", json!(2000)),
        "sigma_min and sigma_max cannot be combined: the levels would rise"
    );
    assert_eq!(
        refused("ScoreSdeVpScheduler", "beta_min", json!(21)),
        "beta_min and beta_max cannot be combined: the noise would shrink"
    );
}
