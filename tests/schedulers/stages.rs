//! Tests of the stages of a generation: every accepted request can be sampled to its end.

use latentd::diffusion::{BaseSchedule, InvalidSteps, Noise, Schedule, SchedulerConfig, Stages, names, sample};
use latentd::generation::{Draw, Job, SchedulerChoice, Work};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::network::{CLASSES, Synthetic, block_on, map};

/// A drawing as stored in the ledger, with these fields changed.
fn draw(more: &Value) -> Draw {
    let mut kept = json!({
        "model": "m", "prompt": "a", "negative_prompt": "", "width": 64, "height": 64, "n": 1, "steps": 20,
        "guidance_scale": 5.0, "guidance_rescale": 0.0, "scheduler": "euler", "eta": 0.0, "clip_skip": 0, "seed": 1,
        "seed_mode": "per_image", "previews": 0, "metadata_level": "full", "on_disconnect": "auto",
        "start_timeout_s": 600, "metadata": {},
    });
    more.as_object().unwrap().iter().for_each(|(key, value)| kept[key] = value.clone());
    let Work::Draw(draw) = serde_json::from_value::<Job>(kept).unwrap().work else { panic!("a drawing") };
    draw
}

/// The fields of a request with a start image.
fn with_image(strength: f64) -> Value {
    json!({"image": {"upload": "0".repeat(64), "width": 64, "height": 64}, "strength": strength})
}

/// The fields of a request to a base model that ends early.
fn ends_at(denoising_end: f64) -> Value {
    let size = json!([64, 64]);
    json!({
        "original_size": size, "crop_top_left": [0, 0], "target_size": size, "negative_original_size": size,
        "negative_crop_top_left": [0, 0], "negative_target_size": size, "aesthetic_score": 6.0,
        "negative_aesthetic_score": 2.5, "denoising_end": denoising_end,
    })
}

/// The fields of a request with a refiner.
fn refined_from(switch_at: f64) -> Value {
    json!({"refiner": {"model": "r", "switch_at": switch_at, "aesthetic_score": 6.0, "negative_aesthetic_score": 2.5}})
}

fn joined(parts: &[Value]) -> Value {
    let mut all = Map::new();
    parts.iter().for_each(|part| all.extend(part.as_object().unwrap().clone()));
    all.into()
}

/// Configurations of common models, each with every scheduler name, and each class with its defaults.
fn configs() -> Vec<SchedulerConfig> {
    let sd1 = json!({"_class_name": "PNDMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
        "beta_end": 0.012, "skip_prk_steps": true, "steps_offset": 1, "set_alpha_to_one": false});
    let sdxl = json!({"_class_name": "EulerDiscreteScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
        "beta_end": 0.012, "timestep_spacing": "leading", "steps_offset": 1});
    let emoji = json!({"_class_name": "DPMSolverMultistepScheduler", "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": "v_prediction", "timestep_spacing": "trailing"});
    let lcm = json!({"_class_name": "LCMScheduler", "beta_schedule": "scaled_linear", "original_inference_steps": 50});
    let named = [sd1, sdxl, emoji, lcm].into_iter().flat_map(|model| {
        let model = map(model);
        names().filter_map(move |name| SchedulerConfig::overlay(&model, &SchedulerChoice::Name(name.name)).ok())
    });
    let plain = CLASSES.into_iter().map(|class| crate::network::config(json!({"_class_name": class})));
    named.chain(plain).collect()
}

/// Runs all stages and checks that they take the calls and steps of their schedules.
fn run(stages: &Stages) {
    for schedule in [Some(&stages.base), stages.refiner.as_ref()].into_iter().flatten() {
        let network = Synthetic::default();
        let x = Noise::batch(7).draw([1, 1, 2, 2]);
        let drawn = block_on(sample(&network, schedule, 0.5, x, &mut Noise::batch(3)));
        assert!(drawn.is_ok(), "{drawn:?}");
        assert_eq!(network.asked.borrow().len(), schedule.calls());
        assert!(schedule.steps().len() > 0 && !schedule.timeline().is_empty());
        assert_eq!(network.steps.borrow().last().map(|(step, _)| *step), Some(schedule.steps().len()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// For every sampler and model configuration, an accepted request is sampled to its end.
    #[test]
    fn accepted_stages_can_be_run(
        steps in prop_oneof![1usize..6, 1usize..30],
        strength in prop_oneof![Just(None), (0.001f64..=1.0).prop_map(Some)],
        end in prop_oneof![Just(None), (0.001f64..0.999).prop_map(Some)],
        switch_at in prop_oneof![Just(None), (0.001f64..0.999).prop_map(Some)],
        levels in prop_oneof![
            3 => Just(None),
            1 => prop::collection::btree_set(0u32..1000, 1..6)
                .prop_map(|set| Some(json!({"timesteps": set.into_iter().rev().collect::<Vec<_>>()}))),
            1 => prop::collection::vec(0.0f64..14.0, 1..6).prop_map(|mut sigmas| {
                sigmas.sort_by(|a, b| b.total_cmp(a));
                Some(json!({"sigmas": sigmas}))
            }),
        ],
        is_distilled in any::<bool>(),
    ) {
        let second = match (end, switch_at) {
            (_, Some(switch_at)) => refined_from(switch_at),
            (Some(end), None) => ends_at(end),
            (None, None) => json!({}),
        };
        let first = strength.map_or(json!({}), with_image);
        let levels = levels.unwrap_or_else(|| json!({}));
        let draw = draw(&joined(&[json!({"steps": steps}), first, second, levels]));
        for config in configs() {
            let refiner = switch_at.map(|_| &config);
            if let Ok(stages) = Stages::of(&draw, BaseSchedule { config: &config, is_distilled, flow: None }, refiner) {
                run(&stages);
            }
        }
    }
}

#[test]
fn stages_without_a_step_are_refused_with_field_and_bound() {
    let config = |name: &str| {
        let sd1 = map(json!({"_class_name": "PNDMScheduler", "beta_schedule": "scaled_linear", "steps_offset": 1}));
        SchedulerConfig::overlay(&sd1, &SchedulerChoice::Name(name.to_owned())).unwrap()
    };
    let refused = |name: &str, parts: &[Value]| {
        let config = config(name);
        let draw = draw(&joined(parts));
        let own = BaseSchedule { config: &config, is_distilled: false, flow: None };
        Stages::of(&draw, own, draw.refiner.as_ref().map(|_| &config)).unwrap_err()
    };
    let steps = |steps: usize| json!({"steps": steps});
    let short = refused("euler", &[steps(3), with_image(0.3)]);
    assert_eq!((short.field, short.error), (&["strength"][..], InvalidSteps::NothingLeft { steps: 3, strength: 0.3 }));
    let late = refused("pndm", &[steps(8), with_image(0.6)]);
    assert_eq!((late.field, late.error), (&["strength"][..], InvalidSteps::BeginsLate { class: "PNDMScheduler" }));
    let few = refused("pndm", &[steps(10), ends_at(0.2)]);
    let too_few = InvalidSteps::TooFew { steps: 2, min: 4, class: "PNDMScheduler" };
    assert_eq!((few.field, few.error), (&["denoising_end"][..], too_few));

    let last = refused("euler", &[steps(1), json!({"timesteps": [0]}), ends_at(0.9)]);
    assert_eq!((last.field, last.error), (&["denoising_end"][..], InvalidSteps::BeginsAtEnd));

    // The bounds in the errors are exact: a share within them leaves one step.
    for name in ["euler", "ddim", "dpmpp_2m_karras", "heun", "lcm"] {
        let config = config(name);
        let all = Schedule::new(&config, 3).unwrap();
        let early = refused(name, &[steps(3), ends_at(0.0001)]);
        let InvalidSteps::EndsEarly { steps: 3, share: 0.0001, least } = early.error else { panic!("{name}: {early}") };
        assert_eq!(early.field, ["denoising_end"]);
        assert_eq!(all.clone().until(least).unwrap().steps().len(), 1, "{name}");
        let after = refused(name, &[steps(3), refined_from(0.9999)]);
        let InvalidSteps::BeginsAfterAll { bound, .. } = after.error else { panic!("{name}: {after}") };
        assert_eq!(after.field, ["refiner", "switch_at"]);
        assert_eq!(all.from(bound - 0.002).unwrap().steps().len(), 1, "{name}");
    }
}
