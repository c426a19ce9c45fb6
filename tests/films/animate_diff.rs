//! Tests of films by models of pictures with motion adapters: comparisons with diffusers, and independence of other
//! runs.

use std::{
    any::Any,
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use latentd::{
    catalogue::{Catalogue, ControlNets},
    diffusion::Latents,
    families,
    generation::{Film, Phase, SchedulerChoice, SeedMode},
    kernels::Kernels,
    models::pause::ToEnd,
    pipelines::{
        Clip, Compute, Frame, Inputs, Model, PipelineError,
        call::Call,
        calls::{DenoiseFrames, FramesRow},
    },
};
use serde_json::{Value, json};

use crate::{
    FilmFixture, Log, Observed,
    case::{default_film, floats},
    clips, job, motion_adapters, outcome, prepared,
};

/// The pipeline of the comparisons, and its adapter.
const SD1: &str = "sd1";
const MOVES: &str = "moves";
/// The adapter of the embedded model.
const WIGGLE: &str = "wiggle";
/// The largest difference of predictions, relative to the largest value of diffusers.
const PREDICTION: f32 = 1e-4;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// The folder that `animate_diff.py` writes.
fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/films/animate_diff")
}

fn json_of(file: &str) -> Value {
    serde_json::from_slice(&fs::read(goldens().join(file)).unwrap()).unwrap()
}

/// The folder of adapters: one for the pipeline of the comparisons, and one for the embedded model.
fn put_adapters(folder: &Path) {
    motion_adapters::put_adapter(&folder.join(MOVES), &json_of("config.json"));
    motion_adapters::put_adapter(&folder.join(WIGGLE), &motion_adapters::for_emoji());
}

/// An engine with the pipelines of the fixtures, the embedded model and the adapters.
fn fixture(kernels: Kernels, max_rows: usize) -> FilmFixture {
    let folder = tempfile::tempdir().unwrap();
    let (models, adapters) = (folder.path().join("models"), folder.path().join("adapters"));
    put_adapters(&adapters);
    copy(&fixtures().join("parity/pipelines").join(SD1), &models.join(SD1));
    fs::write(models.join(SD1).join("latentd.json"), json!({"min_size": 8}).to_string()).unwrap();
    let mut fixture = FilmFixture::of(&models, "emoji", kernels, max_rows);
    let catalogue = std::mem::replace(&mut fixture.catalogue, Catalogue::open(Path::new(""), "emoji").unwrap());
    fixture.catalogue = catalogue.with_control_nets(ControlNets::open(&adapters).unwrap());
    fixture.holding(folder)
}

/// The film of a case, with the defaults of the model for everything else.
fn film_of(case: &Value, catalogue: &Catalogue) -> Film {
    let params = &case["params"];
    let whole = |name: &str| params[name].as_u64().unwrap() as u32;
    let text = |name: &str| params[name].as_str().unwrap_or_default().to_owned();
    Film {
        prompt: text("prompt"),
        negative_prompt: text("negative_prompt"),
        frames: whole("num_frames"),
        width: whole("width"),
        height: whole("height"),
        steps: whole("num_inference_steps"),
        guidance_scale: params["guidance_scale"].as_f64().unwrap(),
        seed: whole("seed").into(),
        seed_mode: SeedMode::Batch,
        scheduler: SchedulerChoice::Object(case["scheduler"].as_object().unwrap().clone()),
        ..default_film(&catalogue.card(SD1).unwrap())
    }
}

#[test]
fn films_and_predictions_equal_diffusers() {
    compare(Kernels::default());
}

#[test]
fn films_and_predictions_equal_diffusers_with_reference_kernels() {
    compare(Kernels::REFERENCE);
}

fn compare(kernels: Kernels) {
    let fixture = fixture(kernels, 16);
    let cases = json_of("cases.json");
    let model = fixture.catalogue.load(SD1).unwrap();
    for (name, case) in cases.as_object().unwrap() {
        let film = film_of(case, &fixture.catalogue);
        assert_eq!(film.motion_adapter.as_deref(), Some(MOVES), "the only adapter that fits");
        let file = goldens().join(format!("{name}.safetensors"));
        let expected = candle_core::safetensors::load(file, &candle_core::Device::Cpu).unwrap();
        let compute = Direct { model: model.clone(), rows: RefCell::default() };
        let prepared = prepared(&fixture.catalogue, job(SD1, film.clone()), None, model.clone());
        families::draw(&compute, &prepared).to_end().unwrap();
        let (rows, answers) = compute.rows.borrow_mut().remove(0);
        close(name, "sample", rows.iter().flat_map(|row| row.latents.clone()).collect(), &floats(&expected["sample"]));
        close(name, "timestep", vec![rows[0].t], &floats(&expected["timestep"]));
        close(name, "prediction", answers.concat(), &floats(&expected["prediction"]));

        let clip = make(&fixture, SD1, film).remove(0);
        let made: Vec<u8> = clip.frames.iter().flat_map(|frame| frame.pixels.clone()).collect();
        let golden: Vec<u8> = expected["frames"].flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!((made.len(), clip.fps), (golden.len(), 8), "{name}");
        let differences = made.iter().zip(&golden).map(|(made, golden)| made.abs_diff(*golden));
        let (largest, sum) = differences.fold((0, 0), |(largest, sum), by| (by.max(largest), sum + u64::from(by)));
        println!("{name}: {largest} levels, {} on average", sum as f64 / made.len() as f64);
        assert!(largest <= 2 && 10 * sum < made.len() as u64, "{name}: {largest} levels");
    }
}

fn close(case: &str, what: &str, made: Vec<f32>, expected: &[f32]) {
    assert_eq!(made.len(), expected.len(), "{case}: {what}");
    let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let error = made.iter().zip(expected).fold(0.0f32, |error, (made, value)| error.max((made - value).abs()));
    println!("{case}: {what} differs by {error:.1e}, of at most {largest:.1e}");
    assert!(error <= PREDICTION * largest.max(1.0), "{case}: {what} differs by {error:e}");
}

/// The rows of a call of the denoiser, and its answers.
type Prediction = (Vec<FramesRow>, Vec<Vec<f32>>);

/// Runs each call at once, and keeps the calls of the denoiser.
struct Direct {
    model: Arc<Model>,
    rows: RefCell<Vec<Prediction>>,
}

impl Compute for Direct {
    fn refiner(&self) -> Option<Direct> {
        None
    }

    async fn call<C: Call>(&self, _: Phase, call: C, rows: Vec<C::Row>) -> Result<Vec<C::Answer>, PipelineError> {
        let answers = call.run(&self.model, &rows).await?;
        if (&call as &dyn Any).is::<DenoiseFrames>() {
            let rows = (&rows as &dyn Any).downcast_ref::<Vec<FramesRow>>().unwrap();
            let answers = (&answers as &dyn Any).downcast_ref::<Vec<Vec<f32>>>().unwrap();
            self.rows.borrow_mut().push((rows.clone(), answers.clone()));
        }
        Ok(answers)
    }

    fn wants_decoded_preview(&self, _: usize, _: usize) -> bool {
        false
    }

    fn show(&self, _: usize, _: Vec<Frame>) {}

    fn stepped(&self, _: usize, _: usize, _: &Latents) {}
}

// ---- the embedded model with an adapter of random weights ----

fn emoji_film(fixture: &FilmFixture) -> Film {
    let film = default_film(&fixture.catalogue.card("emoji").unwrap());
    assert_eq!((film.frames, film.fps, film.motion_adapter.as_deref()), (16, 8, Some(WIGGLE)));
    Film { prompt: "a red fox".to_owned(), frames: 3, steps: 2, width: 64, height: 64, ..film }
}

fn make(fixture: &FilmFixture, model: &str, film: Film) -> Vec<Clip> {
    clips(outcome(&fixture.start(job(model, film), None)).unwrap())
}

#[test]
fn a_film_does_not_depend_on_other_runs() {
    let (alone, crowded, single) =
        (fixture(Kernels::default(), 16), fixture(Kernels::default(), 16), fixture(Kernels::default(), 1));
    let own = emoji_film(&alone);
    let expected = make(&alone, "emoji", own.clone());
    assert_eq!(expected[0].frames.len(), 3);
    assert!(expected[0].frames[0] != expected[0].frames[2], "something moves");
    let strangers = [
        Film { seed: 77, prompt: "two cats".to_owned(), ..own.clone() },
        Film { n: 2, guidance_scale: 1.0, ..own.clone() },
        Film { frames: 5, ..own.clone() },
    ];
    for fixture in [&crowded, &single] {
        let mut others: Vec<_> =
            strangers[..2].iter().map(|film| fixture.start(job("emoji", film.clone()), None)).collect();
        let observed = fixture.start(job("emoji", own.clone()), None);
        others.push(fixture.start(job("emoji", strangers[2].clone()), None));
        others.push(fixture.start_picture());
        assert!(clips(outcome(&observed).unwrap()) == expected);
        for observed in &others {
            outcome(observed).unwrap();
        }
    }
    let batches = |fixture: &FilmFixture| fixture.metrics.batch_runs.get_sample_count() as f64;
    assert!(batches(&crowded) < batches(&single), "films of one shape share batches");
}

#[test]
fn film_i_is_the_only_film_of_seed_plus_i() {
    let fixture = fixture(Kernels::default(), 16);
    let film = emoji_film(&fixture);
    let two = make(&fixture, "emoji", Film { n: 2, ..film.clone() });
    for (i, made) in (0..).zip(&two) {
        assert!(make(&fixture, "emoji", Film { seed: film.seed + i, ..film.clone() }) == [made.clone()], "film {i}");
    }
}

#[test]
fn a_run_resumes_after_every_call() {
    let fixture = fixture(Kernels::default(), 16);
    let film = emoji_film(&fixture);
    let observed = fixture.start(job("emoji", film.clone()), None);
    let mut log = Log::default();
    let expected = loop {
        match observed.recv().unwrap() {
            Observed::Portion(portion) => assert!(log.join(portion), "portions follow each other"),
            Observed::Ended(frames) => break clips(frames.unwrap()),
        }
    };
    assert_eq!(log.calls.len(), 2);
    for kept in 1..=2 {
        *fixture.replay.borrow_mut() = Log { first: 0, calls: log.calls[..kept].to_vec() };
        let computed = fixture.metrics.steps.get();
        assert!(make(&fixture, "emoji", film.clone()) == expected, "after {kept} calls");
        assert_eq!(fixture.metrics.steps.get() - computed, 2 * (2 - kept as u64), "2 rows per call");
    }
}

#[test]
fn loras_and_words_change_films_as_they_change_pictures() {
    let mut fixture = fixture(Kernels::default(), 16);
    let catalogue = std::mem::replace(&mut fixture.catalogue, Catalogue::open(Path::new(""), "emoji").unwrap());
    let none = Path::new("");
    fixture.catalogue = catalogue.with_adapters(latentd::catalogue::Adapters::open(none, none).unwrap());
    let film = emoji_film(&fixture);
    let lora = latentd::generation::LoraUse { name: "emoji-pixel".to_owned(), scale: 1.0 };
    let films = [
        film.clone(),
        Film { loras: vec![lora], ..film.clone() },
        Film { prompt: "a <teal> fox".to_owned(), ..film.clone() },
        Film { negative_prompt: "blurry".to_owned(), ..film.clone() },
        Film { frames: 4, ..film },
    ];
    let made: Vec<_> = films.into_iter().map(|film| make(&fixture, "emoji", film)).collect();
    for (i, film) in made.iter().enumerate() {
        assert!(!made[..i].contains(film), "film {i}");
    }
}

#[test]
fn the_plan_grows_with_the_film() {
    let fixture = fixture(Kernels::default(), 16);
    let plan = |film: Film| fixture.catalogue.plan(&job("emoji", film)).unwrap();
    let film = emoji_film(&fixture);
    let one = plan(film.clone());
    let (twice, longer) = (plan(Film { n: 2, ..film.clone() }), plan(Film { frames: 12, ..film.clone() }));
    let still = plan(Film { motion_adapter: None, ..film.clone() });
    assert!(one.cost > 0.0 && twice.cost > 1.8 * one.cost && still.cost < one.cost);
    assert!(longer.cost > 3.0 * one.cost && longer.bytes() > one.bytes() && longer.held > 2 * one.held);
    assert!(plan(Film { guidance_scale: 1.0, ..film }).cost < one.cost);
}

#[test]
fn a_film_that_the_model_cannot_make_is_refused() {
    let fixture = fixture(Kernels::default(), 16);
    let film = emoji_film(&fixture);
    let named = |name: &str| Film { motion_adapter: Some(name.to_owned()), ..film.clone() };
    for (film, said) in [
        (Film { width: 65, ..film.clone() }, "makes no films of 65 × 64 pixels"),
        (Film { frames: 17, ..film.clone() }, "makes no films of 17 frames with this motion adapter"),
        (Film { motion_adapter: None, ..film.clone() }, "makes no films without a motion adapter"),
        (named(MOVES), "was not made for models like \"emoji\""),
        (named("emoji-canny"), "is a ControlNet and no motion adapter"),
        (named("gone"), "is not in the catalogue"),
    ] {
        let model = fixture.catalogue.load("emoji").unwrap();
        let refused = fixture.catalogue.prepare(job("emoji", film), Inputs::default(), model, None);
        assert!(refused.as_ref().unwrap_err().to_string().contains(said), "{said}: {refused:?}");
    }
}

// ---- the catalogue ----

/// A folder whose configuration or weights do not fit is listed with the reason.
#[test]
fn an_adapter_that_cannot_be_used_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let with = |key: &str, value: Value| {
        let mut config = motion_adapters::for_emoji();
        config[key] = value;
        config
    };
    let put = |name: &str| motion_adapters::put_adapter(&folder.path().join(name), &motion_adapters::for_emoji());
    let cases = [
        ("pia", with("conv_in_channels", json!(9)), "conv_in_channels"),
        ("heads", with("motion_num_attention_heads", json!(3)), "motion_num_attention_heads"),
        ("nested", with("motion_transformer_layers_per_block", json!([[1], [1], [1]])), "motion_transformer_layers"),
        ("wide", with("block_out_channels", json!([64, 128, 192])), "expected [192]"),
        ("few", with("use_motion_mid_block", json!(false)), "mid_block"),
        ("unknown", with("other", json!(1)), "other"),
    ];
    for (name, config, _) in &cases {
        put(name);
        fs::write(folder.path().join(name).join("config.json"), config.to_string()).unwrap();
    }
    put("groups");
    let listed = ControlNets::open(folder.path()).unwrap();
    let reasons: std::collections::BTreeMap<_, _> = listed.names().collect();
    for (name, _, said) in &cases {
        let reason = reasons[name].unwrap_or_default();
        assert!(reason.contains(said), "{name}: {reason}");
    }
    assert_eq!(reasons["groups"], None);
}

/// An adapter of the right widths with other norms does not fit; without a default, films need a name.
#[test]
fn the_card_names_the_adapters_that_fit() {
    let (models, adapters) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let put = |name: &str, config: &Value| motion_adapters::put_adapter(&adapters.path().join(name), config);
    put("one", &motion_adapters::for_emoji());
    let card = || {
        let control_nets = ControlNets::open(adapters.path()).unwrap();
        let catalogue = Catalogue::open(models.path(), "emoji").unwrap().with_control_nets(control_nets);
        let card = catalogue.card("emoji").unwrap();
        let names: Vec<String> = card.motion_adapters.iter().map(|adapter| adapter.name.clone()).collect();
        (names, card.default_motion_adapter.clone(), catalogue.notes("emoji"))
    };
    assert_eq!(card().1.as_deref(), Some("one"));
    let mut other = motion_adapters::for_emoji();
    other["motion_norm_num_groups"] = json!(8);
    put("other-norms", &other);
    assert_eq!(card().0, ["one"]);
    put("two", &motion_adapters::for_emoji());
    let (names, default, _) = card();
    assert_eq!((names, default), (vec!["one".to_owned(), "two".to_owned()], None));
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/emoji"), &models.path().join("emoji"));
    let file = models.path().join("emoji/latentd.json");
    let mut extras: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    for (named, default, note) in [("two", Some("two"), None), ("gone", None, Some("\"gone\" is not in the catalogue"))]
    {
        extras["motion_adapter"] = json!(named);
        fs::write(&file, extras.to_string()).unwrap();
        let (_, made, notes) = card();
        assert_eq!(made.as_deref(), default);
        assert_eq!(
            notes.iter().any(|said| said.contains(note.unwrap_or("motion_adapter"))),
            note.is_some(),
            "{notes:?}"
        );
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(path, to).unwrap();
        }
    }
}
