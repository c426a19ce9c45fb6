//! Tests of films from a prompt, in process: comparisons with diffusers, independence of other runs, and resuming.

use std::{
    any::Any,
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::Tensor;
use latentd::{
    catalogue::Catalogue,
    diffusion::Latents,
    engine::Log,
    families,
    generation::{Film, Phase, SchedulerChoice, SeedMode},
    kernels::Kernels,
    models::{autoencoder_kl_wan::FilmState, pause::ToEnd},
    pipelines::{
        Compute, Frame, Inputs, Model, PipelineError,
        call::Call,
        calls::{DenoiseFilm, FilmRow, FilmStage, FilmWay},
    },
};
use serde_json::{Value, json};

use crate::{
    FilmFixture, LATENTS, Observed,
    case::{self, FilmCase, default_film, floats, stored},
    clips, job, outcome, picture, prepared,
    wan_films::{self, TIMES, TWO},
};

const PIPELINES: [&str; 3] = ["wan-t2v", "wan22-a14b", "wan22-ti2v"];

/// The cases of a pipeline that make films from a prompt.
fn cases(root: &Path, pipeline: &str) -> Vec<FilmCase> {
    FilmCase::all(root, pipeline).into_iter().filter(|case| case.task() == "text-to-video").collect()
}

/// A folder with the pipelines and, for each case that changes `model_index.json`, a changed copy of its pipeline.
struct Models(tempfile::TempDir);

impl Models {
    fn of(root: &Path) -> Models {
        let models = Models(tempfile::tempdir().unwrap());
        for pipeline in PIPELINES {
            let folder = root.join("pipelines").join(pipeline);
            std::os::unix::fs::symlink(&folder, models.0.path().join(pipeline)).unwrap();
            for case in cases(root, pipeline) {
                let Some(keys) = case.index() else { continue };
                let changed = models.0.path().join(Models::model(&case, pipeline));
                copy(&folder, &changed);
                let index = fs::read(folder.join("model_index.json")).unwrap();
                let mut index: Value = serde_json::from_slice(&index).unwrap();
                keys.iter().for_each(|(key, value)| index[key] = value.clone());
                fs::write(changed.join("model_index.json"), index.to_string()).unwrap();
            }
        }
        models
    }

    /// The name of the model of a case.
    fn model(case: &FilmCase, pipeline: &str) -> String {
        match case.index() {
            Some(_) => case.name.replace(['/', '.'], "-"),
            None => pipeline.to_owned(),
        }
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::write(to, fs::read(path).unwrap()).unwrap();
        }
    }
}

// ---- comparisons with diffusers ----

#[test]
fn films_equal_diffusers() {
    compare(Kernels::default());
}

#[test]
fn films_equal_diffusers_with_reference_kernels() {
    compare(Kernels::REFERENCE);
}

fn compare(kernels: Kernels) {
    let Some(root) = case::complete() else { return };
    let models = Models::of(&root);
    let fixture = FilmFixture::of(&models.path(), PIPELINES[0], kernels, 16);
    let mut count = 0;
    for pipeline in PIPELINES {
        for case in cases(&root, pipeline) {
            let model = Models::model(&case, pipeline);
            let (film, picture) = case.film(&fixture.catalogue.card(&model).unwrap());
            let clip = clips(outcome(&fixture.start(job(&model, film), picture)).unwrap()).remove(0);
            println!("{}: {} levels", case.name, case.compare(&clip.frames));
            count += 1;
        }
    }
    assert!(count >= 10, "only {count} cases");
}

/// The inputs and answers of the networks, and the latents after the last step, equal diffusers', too.
#[test]
fn steps_equal_diffusers() {
    let Some(root) = case::complete() else { return };
    let models = Models::of(&root);
    let catalogue = Catalogue::open(&models.path(), PIPELINES[0]).unwrap();
    for pipeline in PIPELINES {
        for case in cases(&root, pipeline) {
            let name = Models::model(&case, pipeline);
            let (model, card) = (catalogue.load(&name).unwrap(), catalogue.card(&name).unwrap());
            let (film, picture) = case.film(&card);
            let tokens = film.max_sequence_length.unwrap() as usize;
            let prepared = prepared(&catalogue, job(&name, film), picture, model.clone());
            let compute = Direct::new(model);
            families::draw(&compute, &prepared).to_end().unwrap();
            let expected = case.intermediates();
            let close = |name: &str, made: &[f32], bound: f32| {
                let Some(expected) = expected.get(name) else { return };
                case.assert_close(name, made, expected, bound);
            };
            let first = compute.predictions.borrow_mut().remove(0);
            let (cond, of_cond) = (first.rows.last().unwrap(), first.answers.last().unwrap());
            close("denoiser.0.hidden_states", &cond.sample, 1e-5);
            close("denoiser.0.out", of_cond, 1e-4);
            for (name, row) in [("encode_prompt.0", Some(cond)), ("encode_prompt.1", first.rows.first())] {
                let padded = row.unwrap().text.hidden.clone();
                let padding = tokens - padded.dim(0).unwrap();
                let is_there = first.rows.len() == 2 || name == "encode_prompt.0";
                if is_there {
                    close(name, &floats(&padded.pad_with_zeros(0, 0, padding).unwrap()), 1e-4);
                }
            }
            let times = &expected["scheduler.timesteps"];
            let calls = compute.predictions.borrow();
            let made = std::iter::once(cond.t).chain(calls.iter().map(|call| call.rows[0].t)).collect::<Vec<_>>();
            close("scheduler.timesteps", &made, 1e-6);
            assert_eq!(made.len(), times.elem_count(), "{}", case.name);
            close("scheduler.prev_sample.last", &compute.latents(), LATENTS);
        }
    }
}

/// A call of the denoiser.
pub struct Prediction {
    pub call: DenoiseFilm,
    pub rows: Vec<FilmRow>,
    pub answers: Vec<Vec<f32>>,
}

/// Runs each call at once, and keeps the calls of the denoiser and the latents that are decoded.
pub struct Direct {
    model: Arc<Model>,
    pub predictions: RefCell<Vec<Prediction>>,
    /// (1, h, w, C) each
    decoded: RefCell<Vec<Tensor>>,
}

impl Direct {
    pub fn new(model: Arc<Model>) -> Direct {
        Direct { model, predictions: RefCell::default(), decoded: RefCell::default() }
    }

    /// The latents (C, F, h, w) of the only film.
    pub fn latents(&self) -> Vec<f32> {
        let frames = Tensor::cat(&self.decoded.borrow(), 0).unwrap();
        floats(&frames.permute((3, 0, 1, 2)).unwrap().contiguous().unwrap())
    }
}

impl Compute for Direct {
    fn refiner(&self) -> Option<Direct> {
        None
    }

    async fn call<C: Call>(&self, _: Phase, call: C, rows: Vec<C::Row>) -> Result<Vec<C::Answer>, PipelineError> {
        let answers = call.run(&self.model, &rows).await?;
        if let Some(FilmStage { way: FilmWay::Decode(_), stage: 0, .. }) = (&call as &dyn Any).downcast_ref() {
            let films = (&rows as &dyn Any).downcast_ref::<Vec<FilmState>>().unwrap();
            self.decoded.borrow_mut().extend(films.iter().map(|film| film.map().unwrap().clone()));
        }
        if let Some(call) = (&call as &dyn Any).downcast_ref::<DenoiseFilm>() {
            let rows = (&rows as &dyn Any).downcast_ref::<Vec<FilmRow>>().unwrap().clone();
            let answers = (&answers as &dyn Any).downcast_ref::<Vec<Vec<f32>>>().unwrap().clone();
            self.predictions.borrow_mut().push(Prediction { call: *call, rows, answers });
        }
        Ok(answers)
    }

    fn wants_decoded_preview(&self, _: usize, _: usize) -> bool {
        false
    }

    fn show(&self, _: usize, _: Vec<Frame>) {}

    fn stepped(&self, _: usize, _: usize, _: &Latents) {}
}

// ---- models with random weights ----

fn fixture(max_rows: usize) -> FilmFixture {
    FilmFixture::made(wan_films::put_models, max_rows)
}

/// A short film of a random model.
fn film(fixture: &FilmFixture, model: &str) -> Film {
    let film = default_film(&fixture.catalogue.card(model).unwrap());
    assert_eq!((film.frames, film.steps, film.max_sequence_length), (81, 3, Some(512)));
    let (prompt, negative_prompt) = ("a red fox".to_owned(), "blurry".to_owned());
    Film { prompt, negative_prompt, frames: 5, max_sequence_length: Some(20), ..film }
}

fn make(fixture: &FilmFixture, model: &str, film: Film) -> Vec<latentd::pipelines::Clip> {
    clips(outcome(&fixture.start(job(model, film), None)).unwrap())
}

#[test]
fn a_film_does_not_depend_on_other_runs() {
    for model in [TWO, TIMES] {
        let (alone, crowded, single) = (fixture(16), fixture(16), fixture(1));
        let own = film(&alone, model);
        let expected = make(&alone, model, own.clone());
        let size = (expected[0].frames[0].width, expected[0].frames[0].height);
        assert_eq!((expected[0].frames.len(), size), (5, (own.width, own.height)));
        assert!(expected[0].frames[0] != expected[0].frames[4], "something moves");
        let strangers = [
            Film { seed: 77, prompt: "a much longer prompt".to_owned(), ..own.clone() },
            Film { n: 2, guidance_scale: 1.0, ..own.clone() },
            Film { frames: 9, ..own.clone() },
            Film { steps: 5, max_sequence_length: Some(9), ..own.clone() },
        ];
        for fixture in [&crowded, &single] {
            let start = |film: &Film| fixture.start(job(model, film.clone()), None);
            let mut others: Vec<_> = strangers[..2].iter().map(start).collect();
            let observed = start(&own);
            others.extend(strangers[2..].iter().map(start));
            others.push(fixture.start_picture());
            assert!(clips(outcome(&observed).unwrap()) == expected, "{model}");
            for observed in &others {
                outcome(observed).unwrap();
            }
        }
        let batches = |fixture: &FilmFixture| fixture.metrics.batch_runs.get_sample_count() as f64;
        assert!(batches(&crowded) < batches(&single), "films of one shape share batches");
    }
}

#[test]
fn film_i_is_the_only_film_of_seed_plus_i() {
    let fixture = fixture(16);
    let film = film(&fixture, TWO);
    let three = make(&fixture, TWO, Film { n: 3, ..film.clone() });
    for (i, made) in (0..).zip(&three) {
        assert!(make(&fixture, TWO, Film { seed: film.seed + i, ..film.clone() }) == [made.clone()], "film {i}");
    }
    let batch = make(&fixture, TWO, Film { n: 2, seed_mode: SeedMode::Batch, ..film });
    assert!(batch[0] != batch[1]);
}

/// The runs resume before and after the second denoiser begins.
#[test]
fn a_run_resumes_after_every_call() {
    let fixture = fixture(16);
    let film = Film { n: 2, ..film(&fixture, TWO) };
    let observed = fixture.start(job(TWO, film.clone()), None);
    let mut log = Log::default();
    let expected = loop {
        match observed.recv().unwrap() {
            Observed::Portion(portion) => assert!(log.join(portion), "portions follow each other"),
            Observed::Ended(frames) => break clips(frames.unwrap()),
        }
    };
    assert_eq!(log.calls.len(), 3);
    for kept in 1..=3 {
        *fixture.replay.borrow_mut() = Log { first: 0, calls: log.calls[..kept].to_vec() };
        let computed = fixture.metrics.steps.get();
        assert!(make(&fixture, TWO, film.clone()) == expected, "after {kept} calls");
        assert_eq!(fixture.metrics.steps.get() - computed, 4 * (3 - kept as u64), "4 rows per call");
    }
}

#[test]
fn the_second_denoiser_computes_the_last_steps() {
    let fixture = fixture(16);
    let made = |model: &str| {
        let film = Film { steps: 6, ..film(&fixture, model) };
        let loaded = fixture.catalogue.load(model).unwrap();
        let prepared = prepared(&fixture.catalogue, job(model, film), None, loaded.clone());
        let compute = Direct::new(loaded);
        families::draw(&compute, &prepared).to_end().unwrap();
        let calls = compute.predictions.into_inner();
        calls.iter().map(|call| (call.rows[0].t, call.call.network, call.call.tokens)).collect::<Vec<_>>()
    };
    let times = [999.0, 937.0, 857.0, 750.0, 600.0, 376.0];
    let networks = [0, 0, 1, 1, 1, 1];
    let expected: Vec<_> = times.into_iter().zip(networks).map(|(t, network)| (t, network, 20)).collect();
    assert_eq!(made(TWO), expected);
    assert!(made(TIMES).iter().all(|(_, network, _)| *network == 0));
}

#[test]
fn every_setting_has_an_effect() {
    let fixture = fixture(16);
    let film = film(&fixture, TWO);
    let euler = json!({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0});
    let films = [
        film.clone(),
        Film { seed: 6, ..film.clone() },
        Film { prompt: "a red cat".to_owned(), ..film.clone() },
        Film { negative_prompt: String::new(), ..film.clone() },
        Film { guidance_scale: 2.0, ..film.clone() },
        Film { guidance_scale_2: Some(2.0), ..film.clone() },
        Film { guidance_scale: 1.0, ..film.clone() },
        Film { max_sequence_length: Some(21), ..film.clone() },
        Film { max_sequence_length: Some(4), ..film.clone() },
        Film { steps: 4, ..film.clone() },
        Film { scheduler: SchedulerChoice::Object(euler.as_object().unwrap().clone()), ..film.clone() },
    ];
    // The latents are compared, because some effects are too small for a change of levels.
    let model = fixture.catalogue.load(TWO).unwrap();
    let made = |film: Film| {
        let prepared = prepared(&fixture.catalogue, job(TWO, film), None, model.clone());
        let compute = Direct::new(model.clone());
        families::draw(&compute, &prepared).to_end().unwrap();
        compute.latents()
    };
    let results: Vec<_> = films.into_iter().map(made).collect();
    for (i, result) in results.iter().enumerate() {
        let equal = results[..i].iter().position(|other| other == result);
        assert_eq!(equal, None, "film {i} equals another one");
    }
    let spaced = Film { prompt: " a  red\nfox ".to_owned(), ..film.clone() };
    let escaped = Film { prompt: "a r&#101;d fox".to_owned(), ..film };
    assert!(made(spaced) == results[0] && made(escaped) == results[0], "prompts are cleaned");
}

#[test]
fn the_plan_grows_with_the_film() {
    let fixture = fixture(16);
    for model in [TWO, TIMES] {
        let plan = |film: Film| fixture.catalogue.plan(&job(model, film)).unwrap();
        let film = film(&fixture, model);
        let one = plan(film.clone());
        let unguided = plan(Film { guidance_scale: 1.0, ..film.clone() });
        let (twice, longer) = (plan(Film { n: 2, ..film.clone() }), plan(Film { frames: 41, ..film.clone() }));
        let more = plan(Film { max_sequence_length: Some(512), ..film });
        assert!(one.cost > 0.0 && twice.cost > 1.8 * one.cost && unguided.cost < one.cost && more.cost > one.cost);
        assert!(longer.cost > 3.0 * one.cost && longer.held > 3 * one.held && twice.held > one.held);
    }
}

#[test]
fn a_film_that_the_model_cannot_make_is_refused() {
    let fixture = fixture(16);
    let film = film(&fixture, TWO);
    for (film, said) in [
        (Film { width: 40, ..film.clone() }, "makes no films of 40 × 16 pixels"),
        (Film { frames: 6, ..film.clone() }, "makes no films of 6 frames"),
        (Film { image: Some(stored(&picture())), ..film }, "takes no picture"),
    ] {
        let model = fixture.catalogue.load(TWO).unwrap();
        let refused = fixture.catalogue.prepare(job(TWO, film), Inputs::default(), model, None);
        assert!(refused.unwrap_err().to_string().contains(said), "{said}");
    }
}

#[test]
fn folders_whose_parts_do_not_fit_are_refused_with_the_key() {
    let models = tempfile::tempdir().unwrap();
    wan_films::put_models(models.path());
    let refused = |file: &str, key: &str, value: Value| {
        let path = models.path().join(TWO).join(file);
        let before = fs::read_to_string(&path).unwrap();
        let mut json: Value = serde_json::from_str(&before).unwrap();
        json[key] = value;
        fs::write(&path, json.to_string()).unwrap();
        let catalogue = Catalogue::open(models.path(), TIMES).unwrap();
        let error = catalogue.load(TWO).map(|_| ()).unwrap_err().to_string();
        fs::write(&path, before).unwrap();
        error
    };
    for (file, key, value, said) in [
        ("model_index.json", "boundary_ratio", json!(null), "must be a number if the folder has a transformer_2"),
        ("model_index.json", "boundary_ratio", json!(1.5), "from 0 to 1"),
        ("model_index.json", "transformer_2", json!([null, null]), "must be a number if the folder has"),
        ("model_index.json", "expand_timesteps", json!("yes"), "true or false"),
        ("transformer_2/config.json", "in_channels", json!(36), "the z_dim of the vae"),
        ("transformer/config.json", "text_dim", json!(32), "the d_model of the text_encoder"),
        ("text_encoder/config.json", "vocab_size", json!(50), "shared.weight is [98, 16], expected [50, 16]"),
    ] {
        let error = refused(file, key, value);
        assert!(error.contains(said), "{key}: {error}");
    }
}
