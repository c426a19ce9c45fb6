//! Tests of films, in process and over HTTP: comparisons with diffusers, independence of other runs, and resuming.
//!
//! The comparisons need the complete fixtures, which `LATENTD_PARITY_DIR` names. All other tests use a small model with
//! random weights.

#[path = "films/animate_diff.rs"]
mod animate_diff;
#[path = "films/animate_diff_http.rs"]
mod animate_diff_http;
#[path = "support/answer.rs"]
mod answer;
#[path = "films/case.rs"]
mod case;
#[path = "contract/conforms.rs"]
#[allow(dead_code, reason = "each test target uses its part")]
mod conforms;
#[path = "support/engine_fixture.rs"]
mod engine_fixture;
#[path = "support/films.rs"]
mod films;
#[path = "films/http.rs"]
mod http;
#[path = "support/motion_adapters.rs"]
mod motion_adapters;
#[path = "films/openai.rs"]
mod openai;
#[path = "support/random.rs"]
mod random;
#[path = "support/server.rs"]
mod server;
#[path = "support/transformers.rs"]
mod transformers;
#[path = "films/wan.rs"]
mod wan;
#[path = "support/wan_films.rs"]
mod wan_films;
#[path = "films/wan_http.rs"]
mod wan_http;
#[path = "films/wan_pictures.rs"]
mod wan_picture_films;
#[path = "films/wan_picture_http.rs"]
mod wan_picture_http;
#[path = "support/wan_pictures.rs"]
mod wan_pictures;

use std::{
    any::Any,
    cell::RefCell,
    sync::{Arc, mpsc},
    time::Duration,
};

use candle_core::Tensor;
use case::{FilmCase, default_film, stored};
use engine_fixture::{EngineFixture as FilmFixture, LIMITS, Observed, outcome};
use latentd::{
    catalogue::Catalogue,
    diffusion::Latents,
    engine::Log,
    generation::{
        Encoding, Fields, Film, ImageField, Job, MetadataLevel, Motion, OnDisconnect, Output, Phase, Priority,
        SafetyPolicy, SeedMode, Work, resolve,
    },
    imaging::RgbImage,
    kernels::Kernels,
    models::pause::ToEnd,
    pipelines::{
        Activation, Clip, Compute, Frame, Inputs, Model, PipelineError, Prepared, call::Call, calls::ClipRow,
        image_to_video,
    },
    service::CatalogueRules,
};
use serde_json::{Value, json};

/// The largest difference of final latents. It comes from the README of the fixtures.
const LATENTS: f32 = 2e-4;

/// The model of the cases.
const SVD: &str = "svd";

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
    let fixture = FilmFixture::of(&root.join("pipelines"), SVD, kernels, 16);
    let card = fixture.catalogue.card(SVD).unwrap();
    let cases = FilmCase::all(&root, SVD);
    let started: Vec<_> = cases
        .iter()
        .map(|case| {
            let (film, picture) = case.film(&card);
            fixture.start(job(SVD, film), picture)
        })
        .collect();
    for (case, observed) in cases.iter().zip(&started) {
        let clip = clips(outcome(observed).unwrap()).remove(0);
        println!("{}: {} levels", case.name, case.compare(&clip.frames));
    }
    assert!(cases.len() >= 2, "only {} cases", cases.len());
}

/// The inputs and answers of the networks, and the latents after the last step, equal diffusers', too.
#[test]
fn steps_equal_diffusers() {
    let Some(root) = case::complete() else { return };
    let catalogue = Catalogue::open(&root.join("pipelines"), SVD).unwrap();
    let (model, card) = (catalogue.load(SVD).unwrap(), catalogue.card(SVD).unwrap());
    for case in FilmCase::all(&root, SVD) {
        let (film, picture) = case.film(&card);
        let prepared = prepared(&catalogue, job(SVD, film), picture, model.clone());
        let compute = Direct { model: model.clone(), rows: RefCell::default(), decoded: RefCell::default() };
        image_to_video(&compute, &prepared).to_end().unwrap();
        let expected = case.intermediates();
        let close = |name: &str, made: Vec<f32>, bound: f32| case.assert_close(name, &made, &expected[name], bound);
        let (rows, answers) = compute.rows.borrow_mut().remove(0);
        let frame = |row: &ClipRow| row.latents.len() / 4;
        let sample = |row: &ClipRow| -> Vec<f32> {
            row.latents.chunks(frame(row)).flat_map(|x| x.iter().chain(row.picture.iter()).copied()).collect()
        };
        close("denoiser.0.sample", rows.iter().flat_map(sample).collect(), 1e-5);
        close("denoiser.0.added_time_ids", rows.iter().flat_map(|row| row.time_ids).collect(), 1e-6);
        close("denoiser.0.timestep", vec![rows[0].t], 1e-6);
        if expected.contains_key("denoiser.0.encoder_hidden_states") {
            let vectors = rows.iter().flat_map(|row| row.vector.to_vec()).collect();
            close("denoiser.0.encoder_hidden_states", vectors, 1e-4);
        }
        close("denoiser.0.out", answers.concat(), 1e-4);
        let chunks = compute.decoded.into_inner();
        let starts = chunks.iter().filter(|row| row.dim(2).unwrap() == 4);
        let latents = starts.map(|row| row.flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect::<Vec<_>>();
        close("scheduler.prev_sample.last", latents.concat(), LATENTS);
    }
}

/// The rows of a call of the denoiser, and its answers.
type Prediction = (Vec<ClipRow>, Vec<Vec<f32>>);

/// Runs each call at once, and keeps the calls of the denoiser and the rows of calls that decode.
struct Direct {
    model: Arc<Model>,
    rows: RefCell<Vec<Prediction>>,
    decoded: RefCell<Vec<Tensor>>,
}

impl Compute for Direct {
    fn refiner(&self) -> Option<Direct> {
        None
    }

    async fn call<C: Call>(&self, _: Phase, call: C, rows: Vec<C::Row>) -> Result<Vec<C::Answer>, PipelineError> {
        let answers = call.run(&self.model, &rows).await?;
        if let Some(rows) = (&rows as &dyn Any).downcast_ref::<Vec<Activation>>() {
            self.decoded.borrow_mut().extend(rows.iter().map(|row| row.0.clone()));
        }
        if let Some(rows) = (&rows as &dyn Any).downcast_ref::<Vec<ClipRow>>() {
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

// ---- a model with random weights ----

#[test]
fn a_film_does_not_depend_on_other_runs() {
    let (alone, crowded, single) = (FilmFixture::random(16), FilmFixture::random(16), FilmFixture::random(1));
    let film = alone.film();
    let expected = alone.make(film.clone());
    assert_eq!((expected[0].frames.len(), expected[0].fps), (3, 7));
    assert!(expected[0].frames[0] != expected[0].frames[2], "something moves");
    let strangers = |fixture: &FilmFixture| {
        let film = fixture.film();
        let motion = film.motion.map(|motion| Motion { motion_bucket_id: 9, ..motion });
        [
            Film { seed: 77, ..film.clone() },
            Film { n: 2, motion, guidance_scale: 1.0, ..film.clone() },
            Film { frames: 5, decode_chunk_size: Some(2), ..film.clone() },
            Film { width: 16, steps: 5, ..film },
        ]
    };
    for fixture in [&crowded, &single] {
        let [first, second, third, fourth] = strangers(fixture);
        let mut others: Vec<_> = [first, second].into_iter().map(|film| fixture.start_film(film)).collect();
        others.push(fixture.start_picture());
        let own = fixture.start_film(film.clone());
        others.extend([third, fourth].into_iter().map(|film| fixture.start_film(film)));
        others.push(fixture.start_picture());
        assert!(clips(outcome(&own).unwrap()) == expected);
        for observed in &others {
            outcome(observed).unwrap();
        }
    }
    assert_eq!(crowded.metrics.steps.get(), single.metrics.steps.get());
    let batches = |fixture: &FilmFixture| fixture.metrics.batch_runs.get_sample_count() as f64;
    assert!(batches(&crowded) < batches(&single));
    assert!(crowded.metrics.batch_runs.get_sample_sum() > batches(&crowded), "clips of one shape share batches");
}

/// Each row of a film takes longer than a slice, so each batch pauses.
#[test]
fn two_films_share_batches_that_pause() {
    let models = tempfile::tempdir().unwrap();
    films::put_model(models.path());
    let settings = (16, Duration::from_nanos(1));
    let fixture = FilmFixture::sliced(models.path(), "emoji", Kernels::default(), settings);
    let film = fixture.film();
    let of = |seed| Film { seed, ..film.clone() };
    let alone = [1, 2].map(|seed| fixture.make(of(seed)));
    let batches = || fixture.metrics.batch_runs.get_sample_count();
    let before = batches();
    let observed = [1, 2].map(|seed| fixture.start_film(of(seed)));
    assert!(observed.map(|observed| clips(outcome(&observed).unwrap())) == alone);
    // The films have 2 guided rows in each of 3 steps. The second film may begin while the first row is computed.
    assert!((6..=7).contains(&(batches() - before)), "{} batches", batches() - before);
}

#[test]
fn film_i_is_the_only_film_of_seed_plus_i() {
    let fixture = FilmFixture::random(16);
    let film = fixture.film();
    let three = fixture.make(Film { n: 3, ..film.clone() });
    for (i, made) in (0..).zip(&three) {
        assert!(fixture.make(Film { seed: film.seed + i, ..film.clone() }) == [made.clone()], "film {i}");
    }
    let batch = fixture.make(Film { n: 2, seed_mode: SeedMode::Batch, ..film });
    assert!(batch[0] != batch[1]);
}

#[test]
fn a_run_resumes_after_every_call() {
    let fixture = FilmFixture::random(16);
    let film = Film { n: 2, ..fixture.film() };
    let observed = fixture.start_film(film.clone());
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
        assert!(fixture.make(film.clone()) == expected, "after {kept} calls");
        assert_eq!(fixture.metrics.steps.get() - computed, 4 * (3 - kept as u64), "4 rows per call");
    }
}

#[test]
fn every_setting_has_an_effect() {
    let fixture = FilmFixture::random(16);
    let film = fixture.film();
    let motion = film.motion.unwrap();
    let of = |motion| Film { motion: Some(motion), ..film.clone() };
    let films = [
        film.clone(),
        Film { seed: 6, ..film.clone() },
        Film { fps: 12, ..film.clone() },
        Film { guidance_scale: 2.0, ..film.clone() },
        Film { guidance_scale: 1.0, ..film.clone() },
        Film { decode_chunk_size: Some(1), ..film.clone() },
        of(Motion { min_guidance_scale: 2.0, ..motion }),
        of(Motion { motion_bucket_id: 0, ..motion }),
        of(Motion { noise_aug_strength: 0.3, ..motion }),
    ];
    // The predictions are compared as well as the frames, because some effects are too small for a change of levels.
    let model = fixture.catalogue.load(films::NAME).unwrap();
    let made = |film: Film| {
        let prepared = prepared(&fixture.catalogue, job(films::NAME, film), Some(picture()), model.clone());
        let compute = Direct { model: model.clone(), rows: RefCell::default(), decoded: RefCell::default() };
        let frames = clips(image_to_video(&compute, &prepared).to_end().unwrap()).remove(0).frames;
        let predictions = compute.rows.into_inner().into_iter().map(|(_, answers)| answers).collect::<Vec<_>>();
        (predictions, frames)
    };
    let results: Vec<_> = films.into_iter().map(made).collect();
    for (i, result) in results.iter().enumerate() {
        let equal = results[..i].iter().position(|other| other == result);
        assert_eq!(equal, None, "film {i} equals another one");
    }
    for whole in [3, 99] {
        assert!(made(Film { decode_chunk_size: Some(whole), ..film.clone() }) == results[0]);
    }
}

#[test]
fn sizes_of_any_parity_and_single_frames_work() {
    let fixture = FilmFixture::random(16);
    let film = Film { width: 22, height: 18, frames: 1, ..fixture.film() };
    let clip = fixture.make(film).remove(0);
    assert_eq!((clip.frames.len(), clip.frames[0].width, clip.frames[0].height), (1, 22, 18));
}

#[test]
fn the_plan_grows_with_the_film() {
    let fixture = FilmFixture::random(16);
    let plan = |film: Film| fixture.catalogue.plan(&job(films::NAME, film)).unwrap();
    let film = fixture.film();
    let one = plan(film.clone());
    let unguided = plan(Film { guidance_scale: 1.0, ..film.clone() });
    let (twice, longer) = (plan(Film { n: 2, ..film.clone() }), plan(Film { frames: 12, ..film.clone() }));
    let chunked = plan(Film { frames: 12, decode_chunk_size: Some(2), ..film });
    assert!(one.cost > 0.0 && twice.cost > 1.8 * one.cost && unguided.cost < one.cost);
    assert!(longer.cost > 3.0 * one.cost && longer.bytes() > 3 * one.bytes() && twice.held > one.held);
    assert!(chunked.call < longer.call && (chunked.cost / longer.cost - 1.0).abs() < 0.01);
}

#[test]
fn a_film_that_the_model_cannot_make_is_refused() {
    let fixture = FilmFixture::random(16);
    let film = fixture.film();
    for (film, said) in [
        (Film { width: 33, ..film.clone() }, "makes no films of 33 × 16 pixels"),
        (Film { height: 8, ..film.clone() }, "makes no films of 32 × 8 pixels"),
        (Film { frames: 0, ..film.clone() }, "makes no films of 0 frames"),
        (Film { image: None, ..film }, "makes no films without a picture"),
    ] {
        let model = fixture.catalogue.load(films::NAME).unwrap();
        let refused = fixture.catalogue.prepare(job(films::NAME, film), Inputs::default(), model, None);
        assert!(refused.unwrap_err().to_string().contains(said), "{said}");
    }
}

// ---- the engine ----

impl FilmFixture {
    fn random(max_rows: usize) -> FilmFixture {
        FilmFixture::made(films::put_model, max_rows)
    }

    /// The default film of the random model, with a picture.
    fn film(&self) -> Film {
        let film = default_film(&self.catalogue.card(films::NAME).unwrap());
        assert_eq!((film.width, film.height, film.frames, film.steps), (32, 16, 3, 3));
        Film { image: Some(stored(&picture())), ..film }
    }

    fn start(&self, job: Job, picture: Option<RgbImage>) -> mpsc::Receiver<Observed> {
        let model = self.catalogue.load(&job.model).unwrap();
        self.run(prepared(&self.catalogue, job, picture, model)).1
    }

    fn start_film(&self, film: Film) -> mpsc::Receiver<Observed> {
        self.start(job(films::NAME, film), Some(picture()))
    }

    /// Starts a run that draws pictures with the embedded model.
    fn start_picture(&self) -> mpsc::Receiver<Observed> {
        let Value::Object(fields) = json!({"prompt": "a fox", "steps": 2, "seed": 1, "n": 2}) else { unreachable!() };
        let rules = CatalogueRules { catalogue: &self.catalogue, limits: &LIMITS };
        self.start(resolve(Fields::new(fields), &rules).unwrap(), None)
    }

    fn make(&self, film: Film) -> Vec<Clip> {
        clips(outcome(&self.start_film(film)).unwrap())
    }
}

/// A picture of 40 × 30 pixels.
fn picture() -> RgbImage {
    let levels = (0..40 * 30).flat_map(|i| [(i % 40 * 6) as u8, (i / 40 * 8) as u8, (i % 251) as u8]);
    RgbImage { width: 40, height: 30, pixels: levels.collect() }
}

fn job(model: &str, film: Film) -> Job {
    Job {
        model: model.to_owned(),
        work: Work::Film(film),
        precision: Default::default(),
        previews: 0,
        output: Output { encoding: Encoding::Png, metadata_level: MetadataLevel::None, provenance: true },
        on_disconnect: OnDisconnect::Keep,
        priority: Priority::Normal,
        start_timeout_s: 600,
        run_timeout_s: None,
        webhook: None,
        metadata: Default::default(),
        warnings: Vec::new(),
        safety: SafetyPolicy::Off,
        trace: None,
    }
}

fn prepared(catalogue: &Catalogue, job: Job, picture: Option<RgbImage>, model: Arc<Model>) -> Prepared {
    let mut inputs = Inputs::default();
    picture.into_iter().for_each(|picture| inputs.put(ImageField::Image, picture));
    catalogue.prepare(job, inputs, model, None).unwrap()
}

fn clips(frames: Vec<Frame>) -> Vec<Clip> {
    let clip = |frame| match frame {
        Frame::Clip(clip) => clip,
        Frame::Picture(_) | Frame::Sound(_) => panic!("a clip"),
    };
    frames.into_iter().map(clip).collect()
}
