//! Calls that are put aside between two layers: others have their turn, a cancel takes effect, and no bit changes.

use std::{path::Path, sync::mpsc, time::Duration};

use latentd::{
    catalogue::{Adapters, Catalogue, ControlNets},
    engine::Reason,
    generation::{Phase, Place, Work},
    imaging::RgbImage,
    pipelines::Inputs,
};
use serde_json::{Value, json};

use super::{Bench, RunError, Told, deepcache, outcome, with};

/// Every call is longer than this, so that it has one row and is put aside after each layer.
const NEXT_TO_NOTHING: Duration = Duration::from_nanos(1);

/// The embedded model and its add-ons.
fn embedded(slice: Duration) -> Bench {
    let none = Path::new("");
    let catalogue = Catalogue::open(none, "emoji").unwrap();
    let catalogue = catalogue.with_adapters(Adapters::open(none, none).unwrap());
    let mut bench = Bench::sliced(16, 2, slice);
    bench.catalogue = catalogue.with_control_nets(ControlNets::open(none).unwrap());
    bench
}

/// A picture with edges, and a picture to begin with.
fn picture(side: u32) -> RgbImage {
    let pixels = (0..side * side).flat_map(|at| [(at % side > side / 3) as u8 * 200, (at / side) as u8, 90]);
    RgbImage { width: side, height: side, pixels: pixels.collect() }
}

fn start(bench: &Bench, request: Value) -> mpsc::Receiver<Told> {
    let job = bench.job(request);
    let Work::Draw(draw) = &job.work;
    let model = bench.catalogue.load(&job.model).unwrap();
    let side = draw.width;
    let mut inputs = Inputs::default();
    let image = draw.source.iter().map(|_| Place::Image);
    for place in image.chain((0..draw.controls.len()).map(Place::Control)) {
        inputs.put(place, picture(side));
    }
    bench.start_prepared(bench.catalogue.prepare(job, inputs, model, None).unwrap()).1
}

#[test]
fn pictures_are_the_same_in_whole_calls_and_layer_by_layer_among_others() {
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
    let (whole, sliced) = (embedded(Duration::from_secs(1)), embedded(NEXT_TO_NOTHING));
    let expected: Vec<_> = requests.iter().map(|request| outcome(&start(&whole, request.clone())).unwrap()).collect();
    let together: Vec<_> = requests.iter().map(|request| start(&sliced, request.clone())).collect();
    for ((request, told), expected) in requests.iter().zip(&together).zip(expected) {
        assert!(outcome(told).unwrap() == expected, "{request}");
    }
    assert_eq!(sliced.metrics.batch_rows.get_sample_sum(), sliced.metrics.batch_rows.get_sample_count() as f64);
}

#[test]
fn the_models_of_the_fixtures_give_the_same_layer_by_layer() {
    let (whole, sliced) = (Bench::new(16, 2), Bench::sliced(16, 2, NEXT_TO_NOTHING));
    for model in ["sd1", "sd2", "sdxl", "lcm"].into_iter().filter(|model| whole.catalogue.card(model).is_some()) {
        let request = json!({"model": model, "prompt": "a fox", "steps": 2, "seed": 1, "n": 2});
        assert!(sliced.draw(request.clone()) == whole.draw(request), "{model}");
    }
}

#[test]
fn a_cancel_takes_effect_in_the_middle_of_a_call() {
    let bench = embedded(NEXT_TO_NOTHING);
    let large = json!({"model": "emoji", "prompt": "a", "width": 1024, "height": 1024, "steps": 900, "n": 8});
    let (cancel, told) = bench.start(large);
    // Its first call is under way once a small run, which came later, has ended.
    while !matches!(told.recv().unwrap(), Told::Progress(Phase::Denoising, 0, _)) {}
    bench.draw(json!({"model": "emoji", "prompt": "b", "steps": 1, "guidance_scale": 1.0}));
    cancel.cancel(Reason::Canceled);
    assert!(matches!(outcome(&told), Err(RunError::Canceled(Reason::Canceled))));
    assert_eq!(bench.metrics.steps.get(), 1, "none of the 16 rows of its first step was computed to the end");
}

/// Whoever waits for the room of a model looks again when a run has ended, and not later.
#[test]
fn the_end_of_a_run_is_told_when_the_engine_has_let_go_of_its_model() {
    let bench = embedded(NEXT_TO_NOTHING);
    let large = json!({"model": "emoji", "prompt": "a", "width": 1024, "height": 1024, "steps": 900, "n": 8});
    let model = bench.catalogue.load("emoji").unwrap();
    let before = std::sync::Arc::strong_count(&model);
    let (cancel, told) = bench.start(large);
    while !matches!(told.recv().unwrap(), Told::Progress(Phase::Denoising, 0, _)) {}
    bench.draw(json!({"model": "emoji", "prompt": "b", "steps": 1, "guidance_scale": 1.0}));
    cancel.cancel(Reason::Canceled);
    let handles = told.iter().find_map(|told| if let Told::Handles(handles) = told { Some(handles) } else { None });
    assert_eq!(handles, Some(before), "a call that was put aside still holds the model");
}
