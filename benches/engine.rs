//! Measures the overhead of the engine: `cargo bench --profile dev --bench engine`.
//!
//! Times a step of N runs with networks that answer at once, which leaves only the engine's own work: polling,
//! sampling, choosing, batching and distributing answers. Also times the network calls of the same step with the
//! embedded model. Finally prints the engine's share of the sum, which should be below 1%.

use std::{
    hint::black_box,
    num::NonZeroUsize,
    path::Path,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use candle_core::{DType, Device, Tensor};
use criterion::{BenchmarkId, Criterion};
use latentd::{
    app::{devices, engine_settings},
    catalogue::Catalogue,
    config::{Config, Sources},
    engine::{self, Cancel, Engine, Log, Observer, Run, RunError},
    families::stable_diffusion::StableDiffusion,
    generation::{Fields, Limits, Phase, resolve},
    kernels::arena::Allocator,
    metrics::Metrics,
    models::{
        Spec,
        adapters::AdapterSet,
        autoencoder_kl::Tiles,
        pause::ToEnd,
        text_encoders::{LearnedTokens, Tokens},
    },
    pipelines::{
        Activation, DenoiseRow, Denoised, Depth, Frame, Inputs, LatentDiffusion, LatentRgb, Model, NetworkError,
        Networks, Posterior, Prepared, TextEmbedding,
    },
    service::CatalogueRules,
};
use serde_json::{Value, json};

/// The allocator of the server.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Numbers of runs that are active at the same time.
const RUNS: [usize; 3] = [1, 8, 32];
/// Rows of one step of a run with guidance.
const ROWS: usize = 2;
/// Steps of a measured run: enough to make the cost of its start and end negligible.
const STEPS: u32 = 50;

fn main() {
    let bench = Bench::new();
    let mut criterion = Criterion::default().configure_from_args().sample_size(10);
    engine(&mut criterion, &bench);
    model(&mut criterion, &bench);
    criterion.final_summary();
    // `cargo test` runs the benches without this flag.
    if std::env::args().any(|arg| arg == "--bench") {
        share(&bench);
    }
}

/// Times a step of N runs without networks.
fn engine(criterion: &mut Criterion, bench: &Bench) {
    let mut group = criterion.benchmark_group("engine");
    for runs in RUNS {
        group.bench_function(BenchmarkId::new("step", runs), |b| {
            b.iter_custom(|times| (0..times).map(|_| bench.step_of_the_engine(runs)).sum());
        });
    }
    group.finish();
}

/// Times the network calls of a step of N runs.
fn model(criterion: &mut Criterion, bench: &Bench) {
    let mut group = criterion.benchmark_group("embedded model");
    for runs in RUNS {
        group.bench_function(BenchmarkId::new("step", runs), |b| b.iter(|| bench.step_of_the_model(runs)));
    }
    group.finish();
}

/// Measures engine and model in alternation and prints the engine's share.
fn share(bench: &Bench) {
    println!("\n{:>5} {:>16} {:>16} {:>8}", "runs", "engine, µs/step", "model, ms/step", "share");
    for runs in RUNS {
        let (mut own, mut model) = (Vec::new(), Vec::new());
        for _ in 0..9 {
            own.push(bench.step_of_the_engine(runs).as_secs_f64());
            let begun = Instant::now();
            bench.step_of_the_model(runs);
            model.push(begun.elapsed().as_secs_f64());
        }
        let median = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let (own, model) = (median(own), median(model));
        println!("{runs:>5} {:>16.1} {:>16.2} {:>7.2}%", own * 1e6, model * 1e3, 100.0 * own / (own + model));
    }
}

struct Bench {
    engine: Engine,
    _thread: JoinHandle<()>,
    max_rows: usize,
    pool: rayon::ThreadPool,
    embedded: Arc<Model>,
    /// A request for the model whose networks answer at once.
    prepared: Prepared,
    rows: Vec<DenoiseRow>,
    shape: [usize; 3],
}

impl Bench {
    /// Uses the default settings of the server, except `max_runs`.
    fn new() -> Bench {
        let config = Config::load(&Sources::default()).unwrap();
        let settings = engine_settings(&config.engine, &latentd::device::Device::host(), 1);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(config.engine.threads).build().unwrap();
        let max_rows = settings.max_rows.get();
        let settings = engine::Settings { max_runs: NonZeroUsize::new(64).unwrap(), ..settings };
        let (engine, thread) = engine::engine(devices(&config).unwrap().remove(0), settings, Metrics::new());

        let catalogue = Catalogue::open(Path::new(""), "emoji").unwrap();
        let embedded = catalogue.load("emoji").unwrap();
        let networks = LatentDiffusion::of(&embedded).unwrap();
        let spec = networks.spec();
        let (h, w) = spec.sample_size;
        let shape = [spec.latent_channels, h, w];
        let context = networks
            .encode_text(&[networks.tokenize(&["a red fox"], None, &LearnedTokens::default())], 0)
            .to_end()
            .unwrap()
            .remove(0);
        let row = |i: usize| {
            let sample = (0..shape.iter().product::<usize>()).map(|j| ((i * 31 + j) as f32).sin()).collect();
            DenoiseRow {
                sample,
                t: 999.0 - 7.0 * i as f32,
                context: context.clone(),
                time_ids: [].into(),
                class: None,
                guidance: None,
                controls: Vec::new(),
                adapters: AdapterSet::default(),
                skipped: std::sync::Arc::from([]),
                references: std::sync::Arc::from([]),
                features: None,
            }
        };
        let latent_rgb = Some(LatentRgb { weight: vec![[0.1; 3]; spec.latent_channels], bias: [0.0; 3] });
        let instant = Model {
            name: "instant".to_owned(),
            key: "instant".into(),
            family: StableDiffusion::NAME,
            device: latentd::device::Device::host(),
            networks: Box::new(LatentDiffusion { networks: Box::new(Immediate(spec)), latent_rgb }),
        };

        let limits = Limits { ..config.limits };
        let rules = CatalogueRules { catalogue: &catalogue, limits: &limits };
        let Value::Object(fields) = json!({"prompt": "a red fox", "steps": STEPS, "scheduler": "dpmpp_2m"}) else {
            unreachable!("an object was written")
        };
        let job = resolve(Fields::new(fields), &rules).unwrap();
        let prepared = catalogue.prepare(job, Inputs::default(), Arc::new(instant), None).unwrap();
        Bench {
            engine,
            _thread: std::thread::spawn(move || thread.run()),
            max_rows,
            pool,
            rows: (0..ROWS * RUNS[RUNS.len() - 1]).map(row).collect(),
            embedded,
            prepared,
            shape,
        }
    }

    /// The mean time of a step of runs that begin at the same time.
    fn step_of_the_engine(&self, runs: usize) -> Duration {
        let begun = Instant::now();
        let (sender, ended) = mpsc::channel();
        for _ in 0..runs {
            let run = Run {
                prepared: self.prepared.clone(),
                replay: Log::default(),
                observer: Box::new(Ended(sender.clone())),
                cancel: Cancel::default(),
                attempt: None,
                trace: engine::RunTrace::default(),
            };
            assert!(self.engine.submit(run).is_ok());
        }
        assert!(ended.iter().take(runs).all(|outcome| outcome.is_ok()));
        begun.elapsed() / STEPS
    }

    /// Computes the denoiser calls of one step, with at most as many rows per call as the engine takes.
    fn step_of_the_model(&self, runs: usize) {
        let networks = LatentDiffusion::of(&self.embedded).unwrap();
        for rows in self.rows[..ROWS * runs].chunks(self.max_rows) {
            black_box(self.pool.install(|| networks.denoise(self.shape, Depth::Full, rows).to_end()).unwrap());
        }
    }
}

struct Ended(mpsc::Sender<Result<Vec<Frame>, RunError>>);

impl Observer for Ended {
    fn progress(&mut self, _phase: Phase, _step: u32, _steps: u32) {}

    fn preview(&mut self, _index: u32, _step: u32, _frame: Frame) {}

    fn ended(self: Box<Self>, outcome: Result<Vec<Frame>, RunError>) {
        let _ = self.0.send(outcome);
    }
}

/// Networks with the sizes of the embedded model that answer at once with constants.
struct Immediate(Spec);

#[async_trait::async_trait]
impl Networks for Immediate {
    fn spec(&self) -> Spec {
        self.0.clone()
    }

    fn tokenize(&self, _prompts: &[&str], _: Option<u32>, _learned: &LearnedTokens) -> Tokens {
        Tokens { ids: vec![vec![0; self.0.context_length]], ..Tokens::default() }
    }

    async fn encode_text(&self, prompts: &[Tokens], _clip_skip: u32) -> Result<Vec<TextEmbedding>, NetworkError> {
        let state = Tensor::zeros((self.0.context_length, self.0.context_width), DType::F32, &Device::Cpu).unwrap();
        Ok(prompts.iter().map(|_| TextEmbedding { hidden: state.clone(), pooled: None }).collect())
    }

    async fn denoise(
        &self,
        _shape: [usize; 3],
        _depth: Depth,
        rows: &[DenoiseRow],
    ) -> Result<Vec<Denoised>, NetworkError> {
        let answer = |row: &DenoiseRow| Denoised { prediction: vec![0.25; row.sample.len()], features: None };
        Ok(rows.iter().map(answer).collect())
    }

    async fn encode(&self, _shape: [usize; 2], _rows: &[Vec<f32>]) -> Result<Vec<Posterior>, NetworkError> {
        Ok(Vec::new())
    }

    async fn decode_tiny(&self, _shape: [usize; 3], _rows: &[Vec<f32>]) -> Result<Vec<Frame>, NetworkError> {
        Ok(Vec::new())
    }

    fn tiles(&self, [h, w]: [usize; 2]) -> Tiles {
        Tiles::whole(h, w)
    }

    fn decode_stages(&self, _shape: [usize; 3]) -> Vec<f64> {
        vec![1.0]
    }

    async fn decode(
        &self,
        [_, h, w]: [usize; 3],
        _stage: usize,
        rows: &[Activation],
    ) -> Result<Vec<Activation>, NetworkError> {
        let scale = self.0.vae_scale_factor;
        let picture = Tensor::zeros((1, h * scale, w * scale, 3), DType::F32, &Device::Cpu).unwrap();
        Ok(rows.iter().map(|_| Activation(picture.clone())).collect())
    }
}
