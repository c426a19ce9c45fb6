//! Requests for one transformer share batches, whatever their steps, guidance and LoRAs, and keep their bytes.

use std::{collections::HashMap, num::NonZeroUsize, time::Duration};

use candle_core::Tensor;
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
    share(
        "flux-dev",
        &[],
        [
            json!({"steps": 4}),
            json!({"steps": 7, "guidance_scale": 7}),
            json!({"steps": 3, "guidance_scale": 0, "prompt": "a boat"}),
            json!({"steps": 5, "loras": [{"name": "flux_kohya", "scale": 0.7}]}),
            json!({"steps": 6, "loras": [{"name": "flux_peft", "scale": -0.4}, {"name": "flux_bfl"}], "n": 2}),
            json!({"steps": 4, "true_guidance_scale": 2.5, "negative_prompt": "blurry"}),
            json!({"sigmas": [1.0, 0.8, 0.55, 0.3], "guidance_scale": 2}),
        ],
    );
}

#[test]
fn requests_with_loras_for_the_transformers_with_qwen3_share_batches_and_keep_their_bytes() {
    let z_image = [
        ("diffusion_model.layers.0.attention.qkv", 32, 96),
        ("diffusion_model.noise_refiner.0.adaLN_modulation.0", 32, 128),
        ("diffusion_model.context_refiner.0.feed_forward.w1", 32, 85),
    ];
    let flux2 = [
        ("diffusion_model.single_blocks.0.linear1", 32, 288),
        ("diffusion_model.double_blocks.1.img_mlp.0", 32, 192),
        ("diffusion_model.txt_in", 72, 32),
    ];
    for (pipeline, sites) in [("z-image", z_image), ("flux2-klein", flux2)] {
        share(
            pipeline,
            &sites,
            [
                json!({"steps": 4}),
                json!({"steps": 4, "loras": [{"name": "made"}]}),
                json!({"steps": 3, "loras": [{"name": "made", "scale": -0.5}], "guidance_scale": 0}),
                json!({"steps": 5, "loras": [{"name": "made", "scale": 0.5}], "n": 2, "negative_prompt": "blurry"}),
            ],
        );
    }
}

/// The texts of a batch have different lengths, so that shorter ones are padded.
#[test]
fn requests_for_dream_lite_share_batches_and_keep_their_bytes() {
    let long = "a very long description of a red fox in the snow, ".repeat(8);
    share(
        "dreamlite",
        &[],
        [
            json!({"steps": 4}),
            json!({"steps": 4, "prompt": "a"}),
            json!({"steps": 3, "prompt": long, "n": 2}),
            json!({"steps": 6, "prompt": ""}),
        ],
    );
    share(
        "dreamlite--base",
        &[],
        [
            json!({"steps": 4}),
            json!({"steps": 4, "prompt": "a", "negative_prompt": long}),
            json!({"steps": 3, "prompt": long, "guidance_scale": 2, "n": 2}),
            json!({"steps": 6, "prompt": "", "guidance_interval": [0.2, 0.7]}),
        ],
    );
}

/// Compares requests for a pipeline in shared batches and alone. `made` lists the modules of a LoRA of that name, with
/// their inputs and outputs. Requests with and without it draw different pictures.
fn share<const N: usize>(pipeline: &str, made: &[(&str, usize, usize)], requests: [Value; N]) {
    let root = fixtures();
    // `dreamlite--base` is made of `dreamlite`.
    let family = pipeline.split("--").next().unwrap();
    if !root.join("pipelines").join(family).is_dir() {
        assert!(std::env::var_os("LATENTD_PARITY_DIR").is_none(), "the fixtures have no {family}");
        println!("no {family}: LATENTD_PARITY_DIR does not name the complete fixtures");
        return;
    }
    let models = case::models(&root, &[family]);
    let loras = case::loras(&[&root]);
    let wave = |rows: usize, columns: usize| {
        let values = (0..rows * columns).map(|i| (i as f32 * 0.7).sin() * 0.5).collect();
        Tensor::from_vec(values, (rows, columns), &candle_core::Device::Cpu).unwrap()
    };
    let tensors = made.iter().flat_map(|(module, inputs, outputs)| {
        let matrices = [("lora_A", wave(4, *inputs)), ("lora_B", wave(*outputs, 4))];
        matrices.map(|(half, matrix)| (format!("{module}.{half}.weight"), matrix))
    });
    let tensors: HashMap<String, Tensor> = tensors.collect();
    candle_core::safetensors::save(&tensors, loras.path().join("made.safetensors")).unwrap();
    let embeddings = case::embeddings(&root);
    let catalogue = Catalogue::open(models.path(), pipeline).unwrap();
    let device = cpu(Kernels::default());
    let adapters = Adapters::open(loras.path(), embeddings.path()).unwrap();
    let catalogue = catalogue.with_adapters(adapters).on(vec![device.clone()]);
    let requests: Vec<Value> = requests
        .into_iter()
        .map(|mut request| {
            let request_fields = request.as_object_mut().unwrap();
            let common = json!({"width": 64, "height": 48, "seed": 1});
            request_fields.extend(common.as_object().unwrap().clone());
            if family != "dreamlite" {
                request_fields.insert("max_sequence_length".to_owned(), 64.into());
            }
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
                let Work::Draw(_) = &job.work else { panic!("a drawing") };
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
    assert_ne!(together[0], together[1]);
}

pub const LIMITS: Limits = Limits {
    max_side_pixels: 2048,
    max_pixels: 1 << 22,
    max_images: 8,
    max_steps: 1000,
    max_seconds: 30.0,
    max_frames: 121,
    max_prompt_chars: 10_000,
};
