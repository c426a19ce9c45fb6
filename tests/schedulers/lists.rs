//! Tests of runs over explicit timesteps or sigmas, and of options that the stored trajectories do not cover.

use latentd::diffusion::{InvalidSteps, Noise, Schedule, SchedulerConfig, names, sample};
use latentd::generation::{Levels, SchedulerChoice};
use serde_json::{Map, Value, json};

use crate::choices::{overlay, sd1};
use crate::goldens::{close, distance, largest, wide};
use crate::network::{Synthetic, block_on, map};

/// Timesteps and final states of diffusers 0.42.1 for the start, network and noise of the goldens. Third-order DEIS
/// with flow sigmas is computed in float64, because float32 is inaccurate for differences of logarithms near σ = 1.
const CASES: &str = include_str!("../fixtures/schedulers.json");

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn levels_of(case: &Map<String, Value>) -> Option<Levels> {
    let timesteps = |list: &Value| Levels::Timesteps(numbers(list).into_iter().map(|t| t as u32).collect());
    let sigmas = case.get("sigmas").map(|list| Levels::Sigmas(numbers(list)));
    sigmas.or(case.get("timesteps").map(timesteps))
}

#[test]
fn runs_over_lists_end_like_those_of_diffusers() {
    let cases: Vec<Map<String, Value>> = serde_json::from_str(CASES).unwrap();
    let mut wrong = Vec::new();
    for case in &cases {
        let mut model = map(case["config"].clone());
        model.insert("_class_name".into(), case["class"].clone());
        let name = format!("{} {}", case["class"], case["config"]);
        let mut config = SchedulerConfig::from_model(&model).unwrap_or_else(|error| panic!("{name}: {error}"));
        if let Some(mu) = case.get("mu") {
            config = config.shifted(mu.as_f64().unwrap());
        }
        let schedule = match levels_of(case) {
            Some(levels) => Schedule::over(&config, &levels),
            None => Schedule::new(&config, case["steps"].as_u64().unwrap() as usize),
        };
        let schedule = schedule.unwrap_or_else(|error| panic!("{name}: {error}"));
        let network = Synthetic::default();
        let x = Noise::batch(99).draw([1, 1, 4, 4]).scale(schedule.init_noise_sigma());
        let eta = case.get("eta").map_or(0.0, |eta| eta.as_f64().unwrap());
        let end = block_on(sample(&network, &schedule, eta, x, &mut Noise::batch(1234))).unwrap();
        let timesteps: Vec<f64> = network.asked.borrow().iter().map(|(t, _)| *t).collect();
        let wanted = numbers(&case["end"]);
        let off = distance(&wide(end.data()), &wanted) / largest(&wanted);
        let expected = numbers(&case["asked"]);
        if !(close(&timesteps, &expected) || distance(&timesteps, &expected) < 1e-6) || off > 2e-5 {
            wrong.push(format!("{name}: off by {off:.1e}, timesteps {timesteps:?}, wanted {}", case["asked"]));
        }
    }
    assert!(cases.len() >= 40);
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// The contract names the schedulers that take lists: the classes of diffusers whose `set_timesteps` takes a list.
#[test]
fn the_contract_names_the_schedulers_that_take_lists() {
    let contract: Value = serde_yaml_ng::from_str(include_str!("../../openapi.yaml")).unwrap();
    let fields = &contract["components"]["schemas"]["GenerateImage"]["properties"];
    let named = |field: &str, name: &str| {
        let text = fields[field]["description"].as_str().unwrap();
        text.contains(&format!("`{name}`"))
    };
    let with = |choice: &str, levels: Levels| {
        let config = SchedulerConfig::overlay(&sd1(), &SchedulerChoice::Name(choice.to_owned())).unwrap();
        Schedule::over(&config, &levels)
    };
    let takes = |name: &str, levels: Levels| !matches!(with(name, levels), Err(InvalidSteps::NoList { .. }));
    let mut taking = 0;
    for name in names().map(|name| name.name).filter(|name| !name.contains("_karras")) {
        let base = name.trim_end_matches("_exponential").trim_end_matches("_beta");
        let takes_timesteps = takes(&name, Levels::Timesteps(vec![900, 500, 20]));
        assert_eq!(takes_timesteps, named("timesteps", base), "{name}");
        // UniPC takes sigmas only with `use_flow_sigmas`, which is not an option of the model here.
        let takes_sigmas = takes(&name, Levels::Sigmas(vec![0.9, 0.5, 0.1]));
        assert_eq!(takes_sigmas, base != "unipc" && named("sigmas", base), "{name}");
        taking += usize::from(takes_timesteps) + usize::from(takes_sigmas);
    }
    assert!(taking >= 12, "{taking}");
}

#[test]
fn lists_out_of_bounds_are_refused() {
    let over = |choice: Value, levels: Levels| Schedule::over(&overlay(choice).unwrap(), &levels).unwrap_err();
    let timesteps = |list: &[u32]| Levels::Timesteps(list.to_vec());
    let sigmas = |list: &[f64]| Levels::Sigmas(list.to_vec());
    for name in ["ddpm", "euler", "heun", "dpmpp_2m", "dpmpp_2s", "lcm", "tcd", "flow_euler"] {
        let name = || Value::from(name);
        assert!(matches!(over(name(), timesteps(&[1000, 20])), InvalidSteps::OutOfRange { t: 1000.0, .. }));
        assert_eq!(over(name(), timesteps(&[20, 20])), InvalidSteps::Rising);
        assert!(matches!(over(name(), timesteps(&[])), InvalidSteps::TooFew { .. }));
    }
    for name in ["euler_karras", "heun_beta", "dpmpp_2m_exponential", "dpmpp_2s_karras"] {
        assert_eq!(over(name.into(), timesteps(&[900, 20])), InvalidSteps::ListAndRespacing, "{name}");
    }
    assert!(matches!(over("euler".into(), sigmas(&[14.0])), InvalidSteps::OneSigma { .. }));
    for list in [&[1.0, 2.0][..], &[f64::NAN, 1.0], &[f64::INFINITY, 1.0], &[-1.0, -2.0], &[0.0, 0.0]] {
        let error = over("euler".into(), sigmas(list));
        assert!(matches!(error, InvalidSteps::Degenerate | InvalidSteps::ZeroSignal { .. }), "{list:?}: {error}");
    }
    assert_eq!(over("flow_euler".into(), sigmas(&[2.0, 0.5])), InvalidSteps::Degenerate);
    let by_size = json!({"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": true});
    assert_eq!(over(by_size, sigmas(&[1.0, 0.5])), InvalidSteps::NoSize);
}
