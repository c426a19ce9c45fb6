//! Tests of sounds whose latents are decoded to stereo samples, with a model of random weights.

use latentd::{
    engine::Log,
    generation::{Fields, WorkKind, resolve_work},
    service::CatalogueRules,
};
use serde_json::{Value, json};

use crate::{LIMITS, Observed, SoundFixture, fields, outcome, resolved, sounds, sounds_of, waveform_sounds, with};

fn request() -> Value {
    json!({"model": waveform_sounds::NAME, "prompt": "rain on a roof", "seed": 5, "steps": 4, "seconds": 0.1})
}

fn guided() -> Value {
    with(&request(), &json!({"guidance_scale": 3.0, "negative_prompt": "music"}))
}

#[test]
fn a_stereo_sound_does_not_depend_on_other_runs() {
    let (alone, crowded, single) = (SoundFixture::random(16), SoundFixture::random(16), SoundFixture::random(1));
    let strangers = [
        json!({"prompt": "a dog", "seed": 9, "steps": 3}),
        json!({"prompt": "", "negative_prompt": "", "n": 3, "guidance_scale": 2.0}),
        json!({"logsnr_min": -4.0, "seconds": 0.13}),
        json!({"padding_seconds": 0.05, "scheduler": {"stochastic_sampling": false}, "steps": 7}),
        json!({"model": sounds::NAME}),
    ];
    let stranger = |more: &Value| with(&request(), more);
    let expected = alone.make(guided());
    assert_eq!((expected[0].channels, expected[0].sample_rate, expected[0].length()), (2, 8000, 800));
    let channel = |i: usize| expected[0].samples.iter().skip(i).step_by(2).copied().collect::<Vec<f32>>();
    assert!(channel(0) != channel(1) && channel(0).iter().any(|sample| sample.abs() > 1e-3), "two sounding channels");
    for fixture in [&crowded, &single] {
        let before: Vec<_> = strangers[..2].iter().map(|more| fixture.start(fields(stranger(more)))).collect();
        let own = fixture.start(fields(guided()));
        let after: Vec<_> = strangers[2..].iter().map(|more| fixture.start(fields(stranger(more)))).collect();
        assert!(sounds_of(outcome(&own.1).unwrap()) == expected);
        for (_, observed) in before.iter().chain(&after) {
            outcome(observed).unwrap();
        }
    }
}

/// The noise of each step is drawn again when a run resumes.
#[test]
fn a_stochastic_run_resumes_after_every_call() {
    let fixture = SoundFixture::random(16);
    for is_stochastic in [true, false] {
        let more = json!({"scheduler": {"stochastic_sampling": is_stochastic}, "n": 2});
        let request = with(&guided(), &more);
        let (_, observed) = fixture.start(fields(request.clone()));
        let mut log = Log::default();
        let expected = loop {
            match observed.recv().unwrap() {
                Observed::Portion(portion) => assert!(log.join(portion), "portions follow each other"),
                Observed::Ended(frames) => break sounds_of(frames.unwrap()),
            }
        };
        assert_eq!(log.calls.len(), 4);
        for kept in 1..=4 {
            *fixture.replay.borrow_mut() = Log { first: 0, calls: log.calls[..kept].to_vec() };
            let computed = fixture.metrics.steps.get();
            assert!(fixture.make(request.clone()) == expected, "after {kept} calls");
            assert_eq!(fixture.metrics.steps.get() - computed, 4 * (4 - kept as u64), "4 rows per call");
        }
    }
}

#[test]
fn stereo_sound_i_is_the_only_sound_of_seed_plus_i() {
    let fixture = SoundFixture::random(16);
    let three = fixture.make(with(&request(), &json!({"n": 3})));
    for (i, sound) in three.iter().enumerate() {
        assert!(fixture.make(with(&request(), &json!({"seed": 5 + i}))) == [sound.clone()], "sound {i}");
    }
    let batch = fixture.make(with(&request(), &json!({"n": 2, "seed_mode": "batch"})));
    assert!(batch[0] != batch[1]);
}

#[test]
fn each_field_changes_the_sound() {
    let fixture = SoundFixture::random(16);
    let plain = fixture.make(request());
    assert!(
        plain == fixture.make(with(&request(), &json!({"logsnr_min": -6.2, "logsnr_max": 2.0, "padding_seconds": 0})))
    );
    assert!(plain == fixture.make(with(&request(), &json!({"negative_prompt": "music"}))), "guidance is off");
    for more in [
        json!({"seconds": 0.0999}),
        json!({"logsnr_min": -3.0}),
        json!({"logsnr_max": 4.0}),
        json!({"padding_seconds": 0.2}),
        json!({"guidance_scale": 2.0}),
        json!({"scheduler": {"stochastic_sampling": false}}),
        json!({"prompt": "rain on a root"}),
    ] {
        let other = fixture.make(with(&request(), &more)).remove(0);
        assert!(other.samples[..100] != plain[0].samples[..100], "{more}");
    }
}

#[test]
fn the_length_of_a_stereo_sound_is_that_of_the_request() {
    let fixture = SoundFixture::random(16);
    let length = |more: Value| fixture.make(with(&request(), &more))[0].length();
    assert_eq!(length(json!({"seconds": 0.0601})), 480);
    assert_eq!(length(json!({"seconds": 0.005})), 40, "the shortest sound is one latent");
    assert_eq!(length(json!({"seconds": 0.0501, "padding_seconds": 0.3})), 400);
    let job = resolved(&fixture.catalogue, fields(json!({"model": waveform_sounds::NAME, "prompt": "a"}))).unwrap();
    let sound = job.work.sound().unwrap();
    assert_eq!((sound.seconds, sound.steps, sound.guidance_scale), (10.0, 8, 1.0), "diffusers' defaults");
    assert_eq!((sound.logsnr_min, sound.logsnr_max, sound.padding_seconds), (Some(-6.2), Some(2.0), Some(0.0)));
}

#[test]
fn fields_of_flow_matching_are_checked() {
    let fixture = SoundFixture::random(16);
    let errors = |more: Value| -> Vec<(String, &'static str)> {
        let invalid = resolved(&fixture.catalogue, fields(with(&request(), &more))).unwrap_err();
        invalid.errors.into_iter().map(|error| (error.pointer, error.code)).collect()
    };
    let one = |pointer: &str, code| vec![(pointer.to_owned(), code)];
    for (more, pointer, code) in [
        (json!({"logsnr_min": 0.5}), "/logsnr_min", "out_of_range"),
        (json!({"logsnr_max": -0.5}), "/logsnr_max", "out_of_range"),
        (json!({"padding_seconds": -1}), "/padding_seconds", "out_of_range"),
        (json!({"scheduler": "ddim"}), "/scheduler", "invalid_value"),
        (json!({"scheduler": {"use_dynamic_shifting": true}}), "/scheduler", "invalid_value"),
        (json!({"model": sounds::NAME, "logsnr_min": -1}), "/logsnr_min", "unsupported_for_model"),
        (json!({"model": sounds::NAME, "padding_seconds": 1}), "/padding_seconds", "unsupported_for_model"),
        (json!({"model": "nothing", "logsnr_max": 1}), "/model", "unknown_model"),
    ] {
        assert_eq!(errors(more.clone()), one(pointer, code), "{more}");
    }
    for more in [json!({"scheduler": "flow_euler"}), json!({"steps": 1}), json!({"steps": 1000, "logsnr_min": 0})] {
        let rules = CatalogueRules { catalogue: &fixture.catalogue, limits: &LIMITS };
        resolve_work(WorkKind::Sound, Fields::new(fields(with(&request(), &more))), &rules).unwrap();
    }
}

#[test]
fn a_long_prompt_of_gemma_is_cut_with_a_warning() {
    let fixture = SoundFixture::random(16);
    let warnings = |prompt: String| {
        let job = resolved(&fixture.catalogue, fields(with(&request(), &json!({"prompt": prompt})))).unwrap();
        fixture.catalogue.warnings(&job).into_iter().map(|warning| warning.pointer).collect::<Vec<_>>()
    };
    assert_eq!(warnings("a".repeat(31)), [""; 0], "32 tokens with the start");
    assert_eq!(warnings("a".repeat(32)), ["/prompt"]);
    assert!(
        fixture.make(with(&request(), &json!({"prompt": "a".repeat(31)})))
            == fixture.make(with(&request(), &json!({"prompt": "a".repeat(40)}),))
    );
}

#[test]
fn the_plan_of_a_stereo_sound_grows_with_it() {
    let fixture = SoundFixture::random(16);
    let plan = |more: Value| {
        let request = with(&with(&guided(), &json!({"seconds": 4.0})), &more);
        fixture.catalogue.plan(&resolved(&fixture.catalogue, fields(request)).unwrap()).unwrap()
    };
    let one = plan(json!({}));
    let (twice, longer, unguided) =
        (plan(json!({"n": 2})), plan(json!({"seconds": 16.0})), plan(json!({"guidance_scale": 1.0})));
    assert!(one.cost > 0.0 && twice.cost > 1.8 * one.cost && unguided.cost < one.cost);
    assert!(longer.cost > 3.9 * one.cost && longer.bytes() > 3 * one.bytes() && twice.held > one.held);
    assert_eq!(plan(json!({"padding_seconds": 12.0})).call, longer.call);
}
