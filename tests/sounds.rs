//! Tests of sounds, in process and over HTTP: comparisons with diffusers, independence of other runs, and resuming.
//!
//! The comparisons need the complete fixtures, which `LATENTD_PARITY_DIR` names. All other tests use a small model with
//! random weights.

#[path = "support/answer.rs"]
mod answer;
#[path = "sounds/case.rs"]
mod case;
#[path = "contract/conforms.rs"]
#[allow(dead_code, reason = "each test target uses its part")]
mod conforms;
#[path = "support/engine_fixture.rs"]
mod engine_fixture;
#[path = "sounds/http.rs"]
mod http;
#[path = "support/random.rs"]
mod random;
#[path = "support/server.rs"]
mod server;
#[path = "support/sounds.rs"]
mod sounds;
#[path = "support/transformers.rs"]
mod transformers;
#[path = "support/waveform_sounds.rs"]
mod waveform_sounds;
#[path = "sounds/waveforms.rs"]
mod waveforms;

use std::{
    any::Any,
    cell::RefCell,
    path::Path,
    sync::{Arc, mpsc},
};

use answer::with;
use case::SoundCase;
use engine_fixture::{EngineFixture as SoundFixture, LIMITS, Observed, outcome};
use latentd::{
    audio::Waveform,
    catalogue::Catalogue,
    diffusion::Latents,
    engine::{Cancel, Log},
    families,
    generation::{Fields, Invalid, Job, Phase, WorkKind, resolve_work},
    kernels::Kernels,
    models::pause::ToEnd,
    pipelines::{Activation, Compute, Frame, Inputs, Model, PipelineError, call::Call},
    service::CatalogueRules,
};
use serde_json::{Map, Value, json};

/// The largest difference of final latents. It comes from the README of the fixtures.
const LATENTS: f32 = 2e-4;

/// A case whose final latents, which are at most 6.3, may differ by 5e-4; 3.2e-4 was measured. The likely cause:
/// PyTorch's exponential rounds the 12th of the 16 frequencies of the time to another last bit, and a guidance scale
/// of 4 multiplies the differences of the two predictions by 4 and by 3, in each of 12 steps without new noise.
const GUIDED: (&str, f32) = ("stable-audio-3/base_cfg", 5e-4);

// ---- comparisons with diffusers ----

#[test]
fn sounds_equal_diffusers() {
    compare(Kernels::default());
}

#[test]
fn sounds_equal_diffusers_with_reference_kernels() {
    compare(Kernels::REFERENCE);
}

fn compare(kernels: Kernels) {
    let Some(root) = case::complete() else { return };
    let fixture = SoundFixture::of(&root.join("pipelines"), case::MODELS[0], kernels, 16);
    let cases = SoundCase::all(&root);
    let started: Vec<_> = cases.iter().map(|case| fixture.start(case.body())).collect();
    for (case, (_, observed)) in cases.iter().zip(&started) {
        let waveforms = samples(&outcome(observed).unwrap());
        println!("{}: {:.1e} of the largest sample", case.name, case.compare(&waveforms));
    }
    assert!(cases.len() >= 13, "only {} cases", cases.len());
}

/// The latents after the last step are diffusers', too.
#[test]
fn latents_equal_diffusers() {
    let Some(root) = case::complete() else { return };
    let catalogue = Catalogue::open(&root.join("pipelines"), case::MODELS[0]).unwrap();
    for case in SoundCase::all(&root) {
        let job = resolved(&catalogue, case.body()).unwrap();
        let model = catalogue.load(&job.model).unwrap();
        let prepared = catalogue.prepare(job, Inputs::default(), model.clone(), None).unwrap();
        let compute = Direct { model: model.clone(), activations: RefCell::default() };
        families::draw(&compute, &prepared).to_end().unwrap();
        let expected = case.intermediate("scheduler.prev_sample.last");
        let expected: Vec<Vec<f32>> = expected.flatten_from(1).unwrap().to_vec2().unwrap();
        let calls = compute.activations.into_inner();
        let made: Vec<Vec<f32>> = calls[0].iter().map(|row| row.0.flatten_all().unwrap().to_vec1().unwrap()).collect();
        assert_eq!(made.len(), expected.len(), "{}", case.name);
        let numbers = made.iter().zip(&expected).flat_map(|(made, expected)| made.iter().zip(expected));
        let error = numbers.fold(0.0f32, |error, (made, expected)| error.max((made - expected).abs()));
        println!("{}: latents differ by {error:.1e}", case.name);
        let limit = if case.name == GUIDED.0 { GUIDED.1 } else { LATENTS };
        assert!(error < limit, "{}: {error:e}", case.name);
    }
}

/// Runs each call at once, and keeps the activations of calls that decode.
struct Direct {
    model: Arc<Model>,
    activations: RefCell<Vec<Vec<Activation>>>,
}

impl Compute for Direct {
    fn refiner(&self) -> Option<Direct> {
        None
    }

    async fn call<C: Call>(&self, _: Phase, call: C, rows: Vec<C::Row>) -> Result<Vec<C::Answer>, PipelineError> {
        if let Some(rows) = (&rows as &dyn Any).downcast_ref::<Vec<Activation>>() {
            self.activations.borrow_mut().push(rows.clone());
        }
        Ok(call.run(&self.model, &rows).await?)
    }

    fn wants_decoded_preview(&self, _: usize, _: usize) -> bool {
        false
    }

    fn show(&self, _: usize, _: Vec<Frame>) {}

    fn stepped(&self, _: usize, _: usize, _: &Latents) {}
}

// ---- a model with random weights ----

fn request() -> Value {
    json!({"model": sounds::NAME, "prompt": "rain on a roof", "negative_prompt": "music", "seed": 5, "steps": 4,
        "seconds": 0.1, "scheduler": "ddim", "eta": 0.4, "guidance_scale": 3.0})
}

#[test]
fn a_sound_does_not_depend_on_other_runs() {
    let (alone, crowded, single) = (SoundFixture::random(16), SoundFixture::random(16), SoundFixture::random(1));
    let strangers = [
        json!({"prompt": "a dog", "seed": 9}),
        json!({"prompt": "", "negative_prompt": "", "n": 3}),
        json!({"guidance_scale": 1.0, "seconds": 0.13}),
        json!({"seconds": 0.2, "scheduler": "dpmpp_2m", "steps": 7}),
    ];
    let stranger = |more: &Value| with(&request(), more);
    let expected = alone.make(request());
    assert_eq!(expected[0].samples.len(), 800);
    assert!(expected[0].samples.iter().any(|sample| sample.abs() > 1e-3), "the sound is not silent");
    for fixture in [&crowded, &single] {
        let before: Vec<_> = strangers[..2].iter().map(|more| fixture.start(fields(stranger(more)))).collect();
        let own = fixture.start(fields(request()));
        let after: Vec<_> = strangers[2..].iter().map(|more| fixture.start(fields(stranger(more)))).collect();
        assert!(sounds_of(outcome(&own.1).unwrap()) == expected);
        for (_, observed) in before.iter().chain(&after) {
            outcome(observed).unwrap();
        }
    }
}

#[test]
fn sound_i_is_the_only_sound_of_seed_plus_i() {
    let fixture = SoundFixture::random(16);
    let three = fixture.make(with(&request(), &json!({"n": 3})));
    for (i, sound) in three.iter().enumerate() {
        assert!(fixture.make(with(&request(), &json!({"seed": 5 + i}))) == [sound.clone()], "sound {i}");
    }
    let batch = fixture.make(with(&request(), &json!({"n": 2, "seed_mode": "batch"})));
    assert!(batch[0] != batch[1]);
}

#[test]
fn a_run_resumes_after_every_call() {
    let fixture = SoundFixture::random(16);
    for scheduler in ["ddim", "dpmpp_2m", "euler_a"] {
        let request = with(&request(), &json!({"scheduler": scheduler, "n": 2}));
        let (_, observed) = fixture.start(fields(request.clone()));
        let mut log = Log::default();
        let expected = loop {
            match observed.recv().unwrap() {
                Observed::Portion(portion) => assert!(log.join(portion), "portions follow each other"),
                Observed::Ended(frames) => break sounds_of(frames.unwrap()),
            }
        };
        assert_eq!(log.calls.len(), 4, "{scheduler}");
        for kept in 1..=4 {
            *fixture.replay.borrow_mut() = Log { first: 0, calls: log.calls[..kept].to_vec() };
            let computed = fixture.metrics.steps.get();
            assert!(fixture.make(request.clone()) == expected, "{scheduler} after {kept} calls");
            assert_eq!(fixture.metrics.steps.get() - computed, 4 * (4 - kept as u64), "{scheduler}: 4 rows per call");
        }
    }
}

#[test]
fn the_length_is_that_of_the_request() {
    let fixture = SoundFixture::random(16);
    let samples = |more: Value| fixture.make(with(&request(), &more))[0].samples.len();
    assert_eq!(samples(json!({"seconds": 0.0601})), 480);
    assert_eq!(samples(json!({"seconds": 0.005})), 40, "the shortest sound is one latent");
    let default = json!({"model": sounds::NAME, "prompt": "a", "steps": 1});
    let sound = fixture.make(default).remove(0);
    assert_eq!((sound.samples.len(), sound.sample_rate, sound.channels), (320, 8000, 1), "8 latents of 2 frames");
}

#[test]
fn fields_are_checked() {
    let fixture = SoundFixture::random(16);
    let errors = |more: Value| -> Vec<(String, &'static str)> {
        let invalid = resolved(&fixture.catalogue, fields(with(&request(), &more))).unwrap_err();
        invalid.errors.into_iter().map(|error| (error.pointer, error.code)).collect()
    };
    let one = |pointer: &str, code| vec![(pointer.to_owned(), code)];
    for (more, pointer, code) in [
        (json!({"seconds": 0.0049}), "/seconds", "out_of_range"),
        (json!({"seconds": 30.1}), "/seconds", "out_of_range"),
        (json!({"seconds": "1"}), "/seconds", "wrong_type"),
        (json!({"n": 9}), "/n", "out_of_range"),
        (json!({"width": 64}), "/width", "unknown_field"),
        (json!({"previews": 1}), "/previews", "unknown_field"),
        (json!({"output": {"format": "png"}}), "/output/format", "invalid_value"),
        (json!({"output": {"format": "ogg"}}), "/output/format", "invalid_value"),
        (json!({"output": {"sample_format": "s24"}}), "/output/sample_format", "invalid_value"),
        (json!({"output": {"format": "flac", "sample_format": "s16"}}), "/output/sample_format", "conflict"),
        (json!({"output": {"format": "opus", "sample_format": "f32"}}), "/output/sample_format", "conflict"),
        (json!({"output": {"metadata": "all"}}), "/output/metadata", "invalid_value"),
        (json!({"output": {"quality": 3}}), "/output/quality", "unknown_field"),
        (json!({"prompt": null}), "/prompt", "required"),
        (json!({"model": "emoji"}), "/model", "unsupported_for_model"),
        (json!({"model": "nothing"}), "/model", "unknown_model"),
        (json!({"model": null}), "/model", "required"),
    ] {
        assert_eq!(errors(more.clone()), one(pointer, code), "{more}");
    }
    let drawing = json!({"model": sounds::NAME, "prompt": "a"});
    let rules = CatalogueRules { catalogue: &fixture.catalogue, limits: &LIMITS };
    let invalid = resolve_work(WorkKind::Draw, Fields::new(fields(drawing)), &rules).unwrap_err();
    assert_eq!(invalid.errors[0].pointer, "/model");
    let detail = &invalid.errors[0].detail;
    assert!(detail.contains("makes sounds") && detail.contains("/v1/audio"), "{detail}");
}

#[test]
fn a_long_prompt_is_cut_with_a_warning() {
    let fixture = SoundFixture::random(16);
    let warnings = |more: Value| {
        let job = resolved(&fixture.catalogue, fields(with(&request(), &more))).unwrap();
        fixture.catalogue.warnings(&job).into_iter().map(|warning| (warning.pointer, warning.code)).collect::<Vec<_>>()
    };
    let cut = |pointer: &str| vec![(pointer.to_owned(), "prompt_cut".to_owned())];
    assert_eq!(warnings(json!({})), []);
    assert_eq!(warnings(json!({"prompt": "a".repeat(63)})), cut("/prompt"), "64 tokens with start and end");
    assert_eq!(warnings(json!({"negative_prompt": "a".repeat(15)})), cut("/negative_prompt"), "16 tokens");
    assert_eq!(warnings(json!({"negative_prompt": "a".repeat(15), "guidance_scale": 1.0})), []);
}

#[test]
fn the_plan_grows_with_the_sound() {
    let fixture = SoundFixture::random(16);
    let plan = |more: Value| {
        let job = resolved(&fixture.catalogue, fields(with(&request(), &more))).unwrap();
        fixture.catalogue.plan(&job).unwrap()
    };
    let one = plan(json!({}));
    let (twice, longer, unguided) =
        (plan(json!({"n": 2})), plan(json!({"seconds": 0.4})), plan(json!({"guidance_scale": 1.0})));
    assert!(one.cost > 0.0 && twice.cost > 1.8 * one.cost && unguided.cost < one.cost);
    assert!(longer.cost > 3.9 * one.cost && longer.bytes() > 3 * one.bytes() && twice.held > one.held);
}

// ---- the engine ----

impl SoundFixture {
    fn random(max_rows: usize) -> SoundFixture {
        let put = |models: &Path| {
            sounds::put_model(models);
            waveform_sounds::put_model(models);
        };
        SoundFixture::made(put, max_rows)
    }

    fn start(&self, fields: Map<String, Value>) -> (Cancel, mpsc::Receiver<Observed>) {
        let job = resolved(&self.catalogue, fields).unwrap();
        let model = self.catalogue.load(&job.model).unwrap();
        self.run(self.catalogue.prepare(job, Inputs::default(), model, None).unwrap())
    }

    fn make(&self, request: Value) -> Vec<Waveform> {
        sounds_of(outcome(&self.start(fields(request)).1).unwrap())
    }
}

fn sounds_of(frames: Vec<Frame>) -> Vec<Waveform> {
    let waveform = |frame| match frame {
        Frame::Sound(waveform) => waveform,
        Frame::Picture(_) | Frame::Clip(_) => panic!("a sound"),
    };
    frames.into_iter().map(waveform).collect()
}

fn samples(frames: &[Frame]) -> Vec<Vec<f32>> {
    sounds_of(frames.to_vec()).into_iter().map(|waveform| waveform.samples).collect()
}

fn resolved(catalogue: &Catalogue, fields: Map<String, Value>) -> Result<Job, Invalid> {
    resolve_work(WorkKind::Sound, Fields::new(fields), &CatalogueRules { catalogue, limits: &LIMITS })
}

fn fields(request: Value) -> Map<String, Value> {
    match request {
        Value::Object(fields) => fields,
        other => panic!("{other} is no request"),
    }
}
