//! Requests for one transformer share batches, whatever their steps, guidance and LoRAs, and keep their bytes.

use std::{num::NonZeroUsize, time::Duration};

use latentd::{
    catalogue::{Adapters, Catalogue},
    engine,
    generation::{Fields, Limits, Work, resolve},
    kernels::Kernels,
    metrics::Metrics,
    pipelines::{Frame, Inputs},
    service::CatalogueRules,
};
use serde_json::{Value, json};

use super::{Outcome, case, cpu, fixtures, settings, submitted};

#[test]
fn requests_for_a_transformer_share_batches_and_keep_their_bytes() {
    let root = fixtures();
    if !root.join("pipelines/flux-dev").is_dir() {
        assert!(std::env::var_os("LATENTD_PARITY_DIR").is_none(), "the fixtures have no flux-dev");
        println!("no flux-dev: LATENTD_PARITY_DIR does not name the complete fixtures");
        return;
    }
    let models = case::models(&root, &["flux-dev"]);
    let loras = case::loras(&[&root]);
    let embeddings = case::embeddings(&root);
    let catalogue = Catalogue::open(models.path(), "flux-dev").unwrap();
    let device = cpu(Kernels::default());
    let adapters = Adapters::open(loras.path(), embeddings.path()).unwrap();
    let catalogue = catalogue.with_adapters(adapters).on(vec![device.clone()]);
    let requests: Vec<Value> = [
        json!({"steps": 4}),
        json!({"steps": 7, "guidance_scale": 7}),
        json!({"steps": 3, "guidance_scale": 0, "prompt": "a boat"}),
        json!({"steps": 5, "loras": [{"name": "flux_kohya", "scale": 0.7}]}),
        json!({"steps": 6, "loras": [{"name": "flux_peft", "scale": -0.4}, {"name": "flux_bfl"}], "n": 2}),
        json!({"steps": 4, "true_guidance_scale": 2.5, "negative_prompt": "blurry"}),
        json!({"sigmas": [1.0, 0.8, 0.55, 0.3], "guidance_scale": 2}),
    ]
    .into_iter()
    .zip(1..)
    .map(|(mut request, seed)| {
        let size = json!({"width": 64, "height": 48, "max_sequence_length": 64, "seed": seed});
        request.as_object_mut().unwrap().extend(size.as_object().unwrap().clone());
        request.as_object_mut().unwrap().entry("prompt").or_insert("a red fox in the snow".into());
        request
    })
    .collect();

    let drawn = |requests: &[Value]| -> (Vec<Vec<Frame>>, f64) {
        let metrics = Metrics::new();
        // A slice in which every batch ends, however slow the machine is.
        let slice = Duration::from_secs(3600);
        let settings = engine::Settings { slice, ..settings(NonZeroUsize::new(16).unwrap()) };
        let (engine, thread) = engine::engine(device.clone(), settings, metrics.clone());
        let limits = LIMITS;
        let rules = CatalogueRules { catalogue: &catalogue, limits: &limits };
        let started: Vec<Outcome> = requests
            .iter()
            .map(|request| {
                let Value::Object(fields) = request.clone() else { panic!("a request is an object") };
                let job = resolve(Fields::new(fields), &rules).unwrap();
                let Work::Draw(_) = &job.work;
                let model = catalogue.load(&job.model).unwrap();
                submitted(catalogue.prepare(job, Inputs::default(), model, None).unwrap(), &engine).unwrap()
            })
            .collect();
        // The engine starts when all runs wait, so that their first calls can share a batch.
        let computing = std::thread::spawn(move || thread.run());
        let frames = started.into_iter().map(|outcome| outcome.recv().unwrap().unwrap()).collect();
        drop(engine);
        computing.join().unwrap();
        let batches = &metrics.batch_runs;
        (frames, batches.get_sample_sum() / batches.get_sample_count() as f64)
    };
    let (together, runs_per_batch) = drawn(&requests);
    println!("{runs_per_batch:.2} runs per batch");
    assert!(runs_per_batch > 1.5, "{runs_per_batch} runs per batch");
    for (request, frames) in requests.iter().zip(&together) {
        let (alone, _) = drawn(std::slice::from_ref(request));
        assert_eq!(&alone[0], frames, "{request}");
    }
}

pub const LIMITS: Limits =
    Limits { max_side_pixels: 2048, max_pixels: 1 << 22, max_images: 8, max_steps: 1000, max_prompt_chars: 10_000 };
