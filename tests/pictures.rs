//! Compares pictures with diffusers' pictures: every case of [`FOLDERS`] and of `tests/fixtures/more` whose features
//! exist, within the tolerance of the fixtures. `LATENTD_PARITY_DIR` names the complete set of fixtures; without it,
//! the compact part in `tests/fixtures/parity` is used. `LATENTD_PARITY_SHARD=2/5` runs the second of five parts, and
//! `LATENTD_PARITY_ONLY=flux-dev,lora/two` only the cases whose names begin so. With `--nocapture`, each case is
//! printed when it ends.

#[path = "pictures/case.rs"]
mod case;
#[path = "pictures/dream_lite.rs"]
mod dream_lite;
#[path = "pictures/shared_batches.rs"]
mod shared_batches;
#[path = "pictures/swaps.rs"]
mod swaps;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    path::PathBuf,
    sync::mpsc,
};

use case::{Case, FOLDERS};
use latentd::{
    catalogue::{Adapters, Catalogue, ControlNets},
    device::{Device, Gpu, Precision},
    engine::{self, Cancel, Log, Observer, Run, RunError},
    generation::{Draw, Fields, ImageRole, ImageSource, InputImage, Limits, Phase, Work, resolve},
    imaging::{RgbImage, decode},
    kernels::{Kernels, Rows, winograd},
    metrics::Metrics,
    pipelines::{Frame, Inputs, Prepared},
    service::CatalogueRules,
};

/// The largest allowed difference of a pixel, in levels of 255. It comes from the README of the fixtures.
const MAX_LEVELS: u8 = 2;
/// As [`MAX_LEVELS`], on a GPU.
const MAX_LEVELS_OF_GPUS: u8 = 3;
/// The largest allowed mean difference, in levels of 255.
const MEAN_LEVELS: f64 = 0.1;
/// As [`MAX_LEVELS`] and [`MEAN_LEVELS`], of networks in float16. The random networks of the fixtures amplify rounding
/// errors over the steps (41 levels at most and 3.4 on average were seen). A wrong picture differs by far more on
/// average.
const LEVELS_OF_FLOAT16: Levels = (64, 5.0);

/// The largest allowed difference of a pixel, and the largest allowed mean difference.
type Levels = (u8, f64);

/// Cases whose pictures differ from diffusers' on purpose (docs/families/stable-diffusion-3.md), and why. They are
/// compared with pictures of latentd, in `tests/fixtures/more/own`.
const DIFFERENT: [(&str, &str); 2] = [
    ("sd3/inpaint", "diffusers decodes inpainted pictures without the autoencoder's shift_factor"),
    ("sd3/stochastic", "diffusers takes the noise of the steps from torch's global generator"),
];

#[test]
fn pictures_equal_diffusers() {
    let Compared { waiting, .. } = compare(Kernels::default(), 16);
    let mut features: BTreeMap<String, usize> = BTreeMap::new();
    for case in &waiting {
        let feature = case.waits_for().expect("the case waits");
        println!("waiting: {feature} ({})", case.name);
        *features.entry(feature).or_default() += 1;
    }
    println!("{} cases wait: {features:?}", waiting.len());
}

/// The maps of the fixtures are small, so the default kernels seldom use Winograd's algorithm.
#[test]
fn pictures_equal_diffusers_with_winograd_everywhere() {
    compare(Kernels::Packed(winograd::Use::Always(winograd::TileSize::Four)), 16);
}

#[test]
fn pictures_equal_diffusers_without_winograd() {
    compare(Kernels::Packed(winograd::Use::Off), 16);
}

/// The reference kernels run on any device and support gradients. A row does not depend on the size of its batch.
#[test]
fn pictures_equal_diffusers_with_reference_kernels_at_every_batch_size() {
    compare_at([1, 2, 5], Some(1));
}

#[test]
#[ignore = "draws every case three times with slow kernels; one case of each model runs above"]
fn all_pictures_equal_diffusers_with_reference_kernels_at_every_batch_size() {
    compare_at([1, 2, 5], None);
}

/// Half precision is meant for GPUs; the reference kernels compute with it on the CPU as well.
#[test]
fn pictures_in_float16_are_close_to_diffusers() {
    let device = cpu(Kernels::REFERENCE).with_precision(Some(Precision::F16)).unwrap();
    let Compared { failures, .. } = compare_some(&device, LEVELS_OF_FLOAT16, 5, Some(1));
    assert!(failures.is_empty(), "{} pictures differ:\n{}", failures.len(), failures.join("\n"));
}

#[test]
#[ignore = "needs a GPU and a build with a feature for it"]
fn all_pictures_equal_diffusers_on_the_first_gpu() {
    for (max_rows, rows) in [(16, Rows::Together), (1, Rows::Together), (16, Rows::Apart)] {
        let device = first_gpu().with_kernels(Kernels::Reference(rows));
        let Compared { failures, .. } = compare_some(&device, (MAX_LEVELS_OF_GPUS, MEAN_LEVELS), max_rows, None);
        assert!(failures.is_empty(), "{} pictures differ:\n{}", failures.len(), failures.join("\n"));
    }
}

#[test]
#[ignore = "needs a GPU and a build with a feature for it"]
fn pictures_in_float16_are_close_to_diffusers_on_the_first_gpu() {
    let device = first_gpu().with_kernels(Kernels::Reference(Rows::Together));
    let device = device.with_precision(Some(Precision::F16)).unwrap();
    let Compared { failures, .. } = compare_some(&device, LEVELS_OF_FLOAT16, 16, Some(1));
    assert!(failures.is_empty(), "{} pictures differ:\n{}", failures.len(), failures.join("\n"));
}

fn first_gpu() -> Device {
    let gpus = Gpu::all().unwrap();
    let gpu = gpus.first().expect("a GPU that the build supports");
    Device::gpu(gpu.kind, gpu.index).unwrap()
}

/// Runs cases with reference kernels at each of these batch sizes, and reports all failures together.
fn compare_at(rows: [usize; 3], of_each: Option<usize>) {
    let failures: Vec<String> = rows
        .into_iter()
        .flat_map(|max_rows| {
            let levels = (MAX_LEVELS, MEAN_LEVELS);
            let compared = compare_some(&cpu(Kernels::REFERENCE), levels, max_rows, of_each);
            compared.failures.into_iter().map(move |failure| format!("{max_rows} rows: {failure}"))
        })
        .collect();
    assert!(failures.is_empty(), "{} pictures differ:\n{}", failures.len(), failures.join("\n"));
}

/// The result of a comparison: cases whose features do not exist yet, and a line for each failed case.
struct Compared {
    waiting: Vec<Case>,
    failures: Vec<String>,
}

fn compare(kernels: Kernels, max_rows: usize) -> Compared {
    let compared = compare_some(&cpu(kernels), (MAX_LEVELS, MEAN_LEVELS), max_rows, None);
    let failures = &compared.failures;
    assert!(failures.is_empty(), "{} pictures differ:\n{}", failures.len(), failures.join("\n"));
    compared
}

fn cpu(kernels: Kernels) -> Device {
    Device::cpu("cpu", None, 0).unwrap().with_kernels(kernels)
}

/// The shard of `LATENTD_PARITY_SHARD`, from 0, and the number of shards. Without the variable there is one shard.
fn shard() -> (usize, usize) {
    let Ok(text) = std::env::var("LATENTD_PARITY_SHARD") else { return (0, 1) };
    let parts = text.split_once('/').and_then(|(shard, of)| Some((shard.parse().ok()?, of.parse().ok()?)));
    match parts {
        Some((shard, of)) if (1..=of).contains(&shard) => (shard - 1, of),
        _ => panic!("LATENTD_PARITY_SHARD must be such as 2/5, not {text:?}"),
    }
}

/// Runs the cases of the shard, or the first `of_each` cases of each model, with at most `max_rows` rows per call. A
/// pixel may differ by `most` levels.
fn compare_some(device: &Device, levels: Levels, max_rows: usize, of_each: Option<usize>) -> Compared {
    let root = fixtures();
    let more = case::more();
    let cases = Case::all(&root, &FOLDERS).into_iter().chain(Case::of_more());
    let (mut ready, waiting): (Vec<Case>, Vec<Case>) = cases.partition(|case| case.waits_for().is_none());
    if let Ok(only) = std::env::var("LATENTD_PARITY_ONLY") {
        ready.retain(|case| only.split(',').any(|start| case.name.starts_with(start)));
        assert!(!ready.is_empty(), "no case begins with {only}");
    }
    if let Some(of_each) = of_each {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        ready.retain(|case| {
            let seen = seen.entry(case.pipelines().join(" ")).or_default();
            *seen += 1;
            *seen <= of_each
        });
    }
    let (shard, of) = shard();
    let mut number = 0..;
    ready.retain(|_| number.next().is_some_and(|number| number % of == shard));
    if ready.is_empty() {
        println!("the shard has no cases");
        return Compared { waiting, failures: Vec::new() };
    }
    let pipelines: BTreeSet<&str> = ready.iter().flat_map(Case::pipelines).collect();
    let pipelines: Vec<&str> = pipelines.into_iter().collect();
    let models = case::models(&root, &pipelines);
    let control_nets = ControlNets::open(&root.join("controlnets")).unwrap();
    let catalogue = Catalogue::open(models.path(), pipelines[0]).unwrap();
    let embeddings = case::embeddings(&root);
    let loras = case::loras(&[&root, &more]);
    let adapters = Adapters::open(loras.path(), embeddings.path()).unwrap();
    let catalogue = catalogue.with_control_nets(control_nets).with_adapters(adapters).on(vec![device.clone()]);
    let limits = Limits {
        max_side_pixels: 2048,
        max_pixels: 1 << 22,
        max_images: 8,
        max_steps: 1000,
        max_seconds: 30.0,
        max_frames: 121,
        max_prompt_chars: 10_000,
    };
    let rules = CatalogueRules { catalogue: &catalogue, limits: &limits };

    // All cases run in the engine at the same time, so their steps share batches as in a server.
    let max_runs = NonZeroUsize::new(ready.len()).expect("there are cases to run");
    let (engine, thread) = engine::engine(
        device.clone(),
        engine::Settings { max_rows: NonZeroUsize::new(max_rows).unwrap(), ..settings(max_runs) },
        Metrics::new(),
    );
    let computing = std::thread::spawn(move || thread.run());
    let outcomes: Vec<_> = ready.iter().map(|case| (case, start(case, &rules, &catalogue, &engine))).collect();

    let mut failures = Vec::new();
    for (number, (case, started)) in (1..).zip(outcomes) {
        let different = DIFFERENT.iter().find(|(name, _)| *name == case.name);
        let goldens = different.map_or_else(|| case.goldens(), |_| vec![case.own_golden()]);
        let mut outcome = started.and_then(|(draw, outcome)| compare_case(case, &goldens, &draw, outcome, levels));
        if let Some((_, why)) = different {
            println!("{} differs from diffusers: {why}", case.name);
            if distance(&goldens[0], &case.goldens()[0]).0 <= MAX_LEVELS {
                outcome = Err(format!("does not differ any more, although {why}"));
            }
        }
        let word = outcome.as_ref().map_or_else(|_| "failed".to_owned(), |max| format!("passed, {max} levels"));
        println!("{number} of {}, {max_rows} rows: {} {word}", ready.len(), case.name);
        failures.extend(outcome.err().map(|why| format!("{}: {why}", case.name)));
    }
    drop(engine);
    computing.join().unwrap();

    let (count, name, kernels) = (ready.len(), device.name(), device.kernels());
    println!("pictures: {count} cases ran on {name} with {kernels:?}, {max_rows} rows per call at most");
    for folder in FOLDERS {
        let of = |cases: &[Case]| cases.iter().filter(|case| case.name.starts_with(&format!("{folder}/"))).count();
        let failed = failures.iter().filter(|failure| failure.starts_with(&format!("{folder}/"))).count();
        println!("{folder:16} {:4} cases {:4} passed", of(&ready) + of(&waiting), of(&ready) - failed);
    }
    Compared { waiting, failures }
}

/// Waits for the pictures of a case and compares them with diffusers' pictures. Returns the largest difference of a
/// pixel.
fn compare_case(
    case: &Case,
    goldens: &[RgbImage],
    draw: &Draw,
    outcome: Outcome,
    (most, mean_levels): Levels,
) -> Result<u8, String> {
    let ended = outcome.recv().map_err(|_| "the engine has stopped".to_owned())?;
    let pictures = case.wanted(ended.map_err(|error| error.to_string())?);
    if pictures.len() != goldens.len() {
        return Err(format!("{} pictures, not {}", pictures.len(), goldens.len()));
    }
    let (mut wrong, mut largest) = (Vec::new(), 0);
    for (index, (frame, golden)) in pictures.iter().zip(goldens).enumerate() {
        let Frame::Picture(picture) = frame else { return Err(format!("image {index} is no picture")) };
        let sizes = [(picture.width, picture.height), (draw.width, draw.height), (golden.width, golden.height)];
        if sizes.iter().any(|size| *size != sizes[0]) {
            return Err(format!("image {index}: the actual, requested and expected sizes are {sizes:?}"));
        }
        let (max, mean) = distance(picture, golden);
        largest = largest.max(max);
        if max > most || mean > mean_levels {
            wrong.push(format!("image {index}: {max} levels at most, {mean:.3} on average"));
        }
    }
    if wrong.is_empty() { Ok(largest) } else { Err(wrong.join("; ")) }
}

/// The fields of the case's request and its decoded pictures, as the service makes them.
fn request_of(case: &Case) -> (Fields, Inputs) {
    let mut fields = Fields::new(case.body());
    let mut inputs = Inputs::default();
    for (place, given) in fields.pictures() {
        let ImageSource::File(file, role) = given else { panic!("{}: {given:?}", case.name) };
        // Transparent parts of a mask are black, transparent parts of a picture white.
        let picture = decode(&file, if role == ImageRole::Mask { 0 } else { 255 }).unwrap();
        let (width, height) = (picture.width, picture.height);
        fields.place(place, &InputImage { upload: "0".repeat(64), width, height });
        inputs.put(place, picture);
    }
    (fields, inputs)
}

type Outcome = mpsc::Receiver<Result<Vec<Frame>, RunError>>;

/// Starts the case in the engine. Returns a refusal of the request as an error.
fn start(
    case: &Case,
    rules: &CatalogueRules<'_>,
    catalogue: &Catalogue,
    engine: &engine::Engine,
) -> Result<(Draw, Outcome), String> {
    let (fields, inputs) = request_of(case);
    let job = resolve(fields, rules).map_err(|invalid| format!("{invalid:?}"))?;
    let Work::Draw(draw) = job.work.clone() else { panic!("a drawing") };
    let model = catalogue.load(&job.model).map_err(|error| error.to_string())?;
    let refiner = draw.refiner.as_ref().map(|refiner| catalogue.load(&refiner.model)).transpose();
    let refiner = refiner.map_err(|error| error.to_string())?;
    let prepared = catalogue.prepare(job, inputs, model, refiner).map_err(|error| error.to_string())?;
    Ok((draw, submitted(prepared, engine)?))
}

/// Starts a prepared generation in the engine.
fn submitted(prepared: Prepared, engine: &engine::Engine) -> Result<Outcome, String> {
    let (sender, receiver) = mpsc::channel();
    let run = Run {
        prepared,
        replay: Log::default(),
        observer: Box::new(OutcomeSender(sender)),
        cancel: Cancel::default(),
        attempt: None,
        trace: engine::RunTrace::default(),
    };
    engine.submit(run).map_err(|_| "the engine accepts no run".to_owned())?;
    Ok(receiver)
}

/// Sends the outcome of a run.
struct OutcomeSender(mpsc::Sender<Result<Vec<Frame>, RunError>>);

impl Observer for OutcomeSender {
    fn progress(&mut self, _phase: Phase, _step: u32, _steps: u32) {}

    fn preview(&mut self, _index: u32, _step: u32, _frame: Frame) {}

    fn ended(self: Box<Self>, outcome: Result<Vec<Frame>, RunError>) {
        self.0.send(outcome).unwrap();
    }
}

/// The largest and the mean difference of two pictures, in levels of 255.
fn distance(picture: &RgbImage, golden: &RgbImage) -> (u8, f64) {
    assert_eq!((picture.width, picture.height), (golden.width, golden.height));
    let levels = || picture.pixels.iter().zip(&golden.pixels).map(|(a, b)| a.abs_diff(*b));
    let sum: f64 = levels().map(f64::from).sum();
    (levels().max().unwrap_or(0), sum / picture.pixels.len() as f64)
}

fn fixtures() -> PathBuf {
    match std::env::var_os("LATENTD_PARITY_DIR") {
        Some(dir) => dir.into(),
        None => case::repository().join("tests/fixtures/parity"),
    }
}

/// Settings for an engine with at most `max_runs` runs.
fn settings(max_runs: NonZeroUsize) -> engine::Settings {
    engine::Settings {
        max_rows: NonZeroUsize::new(16).unwrap(),
        slice: std::time::Duration::from_millis(100),
        max_bytes: 8 << 30,
        max_runs,
        text_cache_entries: 64,
        checkpoint_interval: None,
    }
}
