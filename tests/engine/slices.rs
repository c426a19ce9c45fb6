//! Tests of calls that pause between layers: other calls run, cancels take effect, and no bit changes.

use std::{path::Path, sync::mpsc, time::Duration};

use latentd::{
    catalogue::{Adapters, Catalogue, ControlNets},
    engine::Reason,
    generation::{ImageField, Phase, Work},
    imaging::RgbImage,
    pipelines::Inputs,
};
use serde_json::{Value, json};

use super::{EngineFixture, Observed, RunError, deepcache, outcome, with};

/// A slice that is shorter than every call, so each call has one row and pauses after each layer.
const SHORTEST_SLICE: Duration = Duration::from_nanos(1);

/// An engine with the embedded model and its add-ons.
fn embedded(slice: Duration) -> EngineFixture {
    let none = Path::new("");
    let catalogue = Catalogue::open(none, "emoji").unwrap();
    let catalogue = catalogue.with_adapters(Adapters::open(none, none).unwrap());
    let mut fixture = EngineFixture::sliced(16, 2, slice);
    fixture.catalogue = catalogue.with_control_nets(ControlNets::open(none).unwrap());
    fixture
}

/// A picture with edges, for ControlNets and as a start image.
fn picture(side: u32) -> RgbImage {
    let pixels = (0..side * side).flat_map(|at| [(at % side > side / 3) as u8 * 200, (at / side) as u8, 90]);
    RgbImage { width: side, height: side, pixels: pixels.collect() }
}

fn start(fixture: &EngineFixture, request: Value) -> mpsc::Receiver<Observed> {
    let job = fixture.job(request);
    let Work::Draw(draw) = &job.work else { panic!("a drawing") };
    let model = fixture.catalogue.load(&job.model).unwrap();
    let side = draw.width;
    let mut inputs = Inputs::default();
    let image = draw.source.iter().map(|_| ImageField::Image);
    for place in image.chain((0..draw.controls.len()).map(ImageField::Control)) {
        inputs.put(place, picture(side));
    }
    fixture.start_prepared(fixture.catalogue.prepare(job, inputs, model, None).unwrap()).1
}

#[test]
fn pictures_do_not_depend_on_pauses_between_layers() {
    let base = json!({"model": "emoji", "prompt": "a fox", "steps": 3, "seed": 5, "scheduler": "euler_a"});
    let image = json!({"upload": "a", "width": 128, "height": 128});
    let requests = [
        base.clone(),
        with(&base, json!({"n": 3, "decoder": "tiny", "previews": 2})),
        with(&base, json!({"loras": [{"name": "emoji-pixel", "scale": 0.8}]})),
        with(&base, json!({"controls": [{"model": "emoji-canny", "image": image, "preprocess": "canny"}]})),
        with(&base, json!({"image": image, "strength": 0.7})),
        with(&with(&base, deepcache(2)), json!({"steps": 4})),
        with(&base, json!({"width": 256, "height": 192, "prompt_syntax": "weighted", "prompt": "(fox:1.4) BREAK red"})),
    ];
    let (whole, sliced) = (embedded(Duration::from_secs(1)), embedded(SHORTEST_SLICE));
    let expected: Vec<_> = requests.iter().map(|request| outcome(&start(&whole, request.clone())).unwrap()).collect();
    let together: Vec<_> = requests.iter().map(|request| start(&sliced, request.clone())).collect();
    for ((request, observed), expected) in requests.iter().zip(&together).zip(expected) {
        assert!(outcome(observed).unwrap() == expected, "{request}");
    }
    assert_eq!(sliced.metrics.batch_rows.get_sample_sum(), sliced.metrics.batch_rows.get_sample_count() as f64);
}

#[test]
fn pictures_of_fixtures_do_not_depend_on_pauses_between_layers() {
    let (whole, sliced) = (EngineFixture::new(16, 2), EngineFixture::sliced(16, 2, SHORTEST_SLICE));
    for model in ["sd1", "sd2", "sdxl", "lcm"].into_iter().filter(|model| whole.catalogue.card(model).is_some()) {
        let request = json!({"model": model, "prompt": "a fox", "steps": 2, "seed": 1, "n": 2});
        assert!(sliced.draw(request.clone()) == whole.draw(request), "{model}");
    }
}

#[test]
fn a_cancel_takes_effect_in_the_middle_of_a_call() {
    let fixture = embedded(SHORTEST_SLICE);
    let large = json!({"model": "emoji", "prompt": "a", "width": 1024, "height": 1024, "steps": 900, "n": 8});
    let (cancel, observed) = fixture.start(large);
    // When a small run that came later has ended, the first call of the large run is in progress.
    while !matches!(observed.recv().unwrap(), Observed::Progress(Phase::Denoising, 0, _)) {}
    fixture.draw(json!({"model": "emoji", "prompt": "b", "steps": 1, "guidance_scale": 1.0}));
    cancel.cancel(Reason::Canceled);
    assert!(matches!(outcome(&observed), Err(RunError::Canceled(Reason::Canceled))));
    assert_eq!(fixture.metrics.steps.get(), 1, "no row of the first step of the large run was completed");
}

/// A request that waits for the memory of a model is only polled again when a run has ended.
#[test]
fn the_end_of_a_run_is_reported_after_its_model_is_released() {
    let fixture = embedded(SHORTEST_SLICE);
    let large = json!({"model": "emoji", "prompt": "a", "width": 1024, "height": 1024, "steps": 900, "n": 8});
    let model = fixture.catalogue.load("emoji").unwrap();
    let before = std::sync::Arc::strong_count(&model);
    let (cancel, observed) = fixture.start(large);
    while !matches!(observed.recv().unwrap(), Observed::Progress(Phase::Denoising, 0, _)) {}
    fixture.draw(json!({"model": "emoji", "prompt": "b", "steps": 1, "guidance_scale": 1.0}));
    cancel.cancel(Reason::Canceled);
    let handles =
        observed.iter().find_map(|call| if let Observed::Handles(handles) = call { Some(handles) } else { None });
    assert_eq!(handles, Some(before), "a paused call still holds the model");
}
