//! The measurements of `latentd bench`.

use std::{
    cell::Cell,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use latentd::{
    catalogue::Catalogue,
    config::Config,
    device::Device,
    diffusion::SamplerLabel,
    generation::{Job, Limits, Phase, resolve},
    metrics::Metrics,
    pipelines::{Frame, Inputs, Model},
    service::CatalogueRules,
    worker::{Marking, encode},
};
use parking_lot::Mutex;

use super::{
    cost,
    report::{Latency, Measured, MeasuredDevice, Point},
};
use crate::cli::{
    local_engine::LocalEngine,
    set::{self, Set},
};

/// Maximum number of steps of the runs of the batch curve: each step takes the same time, so a few are enough.
const STEPS_OF_CURVE: u32 = 6;

/// Maximum number of pictures that are computed together.
const MOST_IMAGES: u32 = 64;

/// Minimum and maximum number of requests whose latency is measured.
const LEAST_REQUESTS: usize = 3;
const MOST_REQUESTS: usize = 100;

/// What is measured: a model, and the fields of its requests.
pub struct Request<'a> {
    pub model: &'a str,
    /// Such as `512x512`.
    pub size: Option<&'a str>,
    pub steps: Option<u32>,
    pub set: &'a [Set],
}

/// An engine and everything that its measurements share.
pub struct Bench<'a> {
    config: &'a Config,
    catalogue: &'a Catalogue,
    devices: Vec<Device>,
    limits: Limits,
    engine: LocalEngine,
    metrics: Metrics,
    /// The time after which nothing is repeated.
    within: Duration,
    /// Counts the prompts, so that each prompt is different, because the engine keeps the embeddings of prompts.
    prompts: Cell<u32>,
}

/// The times of one run, in seconds, and its batches of the denoiser.
struct Timing {
    encode_s: f64,
    denoise_s: f64,
    decode_s: f64,
    /// Rows of all batches, and the number of batches.
    rows: f64,
    batches: f64,
}

impl<'a> Bench<'a> {
    /// Starts the engine of the first device.
    pub fn start(config: &'a Config, catalogue: &'a Catalogue, devices: Vec<Device>, seconds: u32) -> Result<Self> {
        let metrics = Metrics::new();
        let device = devices.first().cloned().unwrap_or_default();
        let engine = LocalEngine::start(config, device, devices.len(), metrics.clone())?;
        // The limits protect a server from its clients.
        let limits = Limits { max_images: MOST_IMAGES, ..config.limits.clone() };
        let within = Duration::from_secs(u64::from(seconds));
        Ok(Bench { config, catalogue, devices, limits, engine, metrics, within, prompts: Cell::new(0) })
    }

    pub fn device(&self) -> MeasuredDevice {
        let device = self.devices.first().cloned().unwrap_or_default();
        MeasuredDevice {
            name: device.name().to_owned(),
            hardware: device.hardware(),
            threads: if device.is_gpu() { 0 } else { device.install(rayon::current_num_threads) },
            devices: self.devices.len(),
        }
    }

    /// Loads a model; returns the seconds that this took.
    pub fn load(&self, name: &str) -> Result<(Arc<Model>, f64)> {
        let start = Instant::now();
        let model = self.catalogue.load(name)?;
        Ok((model, start.elapsed().as_secs_f64()))
    }

    pub fn measure(&self, request: &Request<'_>, model: &Arc<Model>, load_s: f64) -> Result<Measured> {
        let job = self.job(request, 1, request.steps)?;
        let draw = job.work.draw().context("only models that draw are measured")?;
        let (width, height, steps) = (draw.width, draw.height, draw.steps);
        let curve = self.curve(request, model, steps)?;
        let cost = cost::fit(&curve).context("the denoiser computed nothing")?;
        let latency = self.latency(request, model)?;
        let (encode_s, decode_s) = curve.first().map_or((0.0, 0.0), |one| (one.encode_s, one.decode_s));
        let model = request.model.to_owned();
        Ok(Measured { model, width, height, steps, load_s, encode_s, decode_s, curve, cost, latency })
    }

    pub fn end(self) -> Result<()> {
        self.engine.end()
    }

    /// The batch curve: the number of pictures doubles each time, until the engine makes no larger batches of them or
    /// the time is over. A batch has at most `engine.max_rows` rows, and lasts at most `engine.slice_ms` unless it has
    /// one row.
    fn curve(&self, request: &Request<'_>, model: &Arc<Model>, steps: u32) -> Result<Vec<Point>> {
        let few = steps.min(STEPS_OF_CURVE);
        // The first run touches the memory of the weights, and the engine learns the speed of the networks.
        self.timed(request, model, 1, Some(few))?;
        let (begun, mut curve) = (Instant::now(), Vec::new());
        let mut images = 1;
        while images <= MOST_IMAGES {
            let started = Instant::now();
            let mut best = self.timed(request, model, images, Some(few))?;
            let mut repeats = 1;
            // A tenth of the time for each point: a curve has at most seven.
            while started.elapsed() < self.within / 10 {
                let again = self.timed(request, model, images, Some(few))?;
                repeats += 1;
                if again.denoise_s < best.denoise_s {
                    best = again;
                }
            }
            let point = best.point(images, few, steps, repeats);
            let before = curve.last().map_or(0.0, |last: &Point| last.rows);
            let is_full = point.rows < 1.1 * before || 2.0 * point.rows > self.config.engine.max_rows.get() as f64;
            curve.push(point);
            if is_full || begun.elapsed() > self.within {
                break;
            }
            images *= 2;
        }
        Ok(curve)
    }

    fn latency(&self, request: &Request<'_>, model: &Arc<Model>) -> Result<Latency> {
        let (begun, mut seconds) = (Instant::now(), Vec::new());
        let marking = Marking::of(&self.config.provenance);
        while seconds.len() < LEAST_REQUESTS || (begun.elapsed() < self.within / 2 && seconds.len() < MOST_REQUESTS) {
            let job = self.job(request, 1, request.steps)?;
            let start = Instant::now();
            let (frames, label) = self.draw(job.clone(), model, |_| ())?;
            for (index, frame) in (0..).zip(frames) {
                encode(frame, &job, &label, index, &marking)?;
            }
            seconds.push(start.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        let (p50_s, p95_s) = (percentile(&seconds, 0.5), percentile(&seconds, 0.95));
        Ok(Latency { requests: u32::try_from(seconds.len()).unwrap_or(u32::MAX), p50_s, p95_s })
    }

    /// Draws `images` pictures together and takes the times.
    fn timed(&self, request: &Request<'_>, model: &Arc<Model>, images: u32, steps: Option<u32>) -> Result<Timing> {
        let job = self.job(request, images, steps)?;
        let batches = || {
            let rows = &self.metrics.batch_rows;
            (rows.get_sample_sum(), rows.get_sample_count() as f64)
        };
        let (rows_before, batches_before) = batches();
        let phases = Arc::new(Mutex::new(Vec::new()));
        let noted = phases.clone();
        let start = Instant::now();
        self.draw(job, model, move |phase| noted.lock().push((phase, Instant::now())))?;
        let end = Instant::now();
        let phases = phases.lock();
        let first = |wanted: Phase| phases.iter().find(|(phase, _)| *phase == wanted).map(|(_, at)| *at);
        let denoising = first(Phase::Denoising).unwrap_or(start);
        // Pictures may be decoded before the last step, for an approximation.
        let decoding = phases.iter().rev().take_while(|(phase, _)| *phase != Phase::Denoising).last();
        let decoding = decoding.map_or(end, |(_, at)| *at);
        let (rows, batches) = batches();
        Ok(Timing {
            encode_s: (denoising - start).as_secs_f64(),
            denoise_s: decoding.duration_since(denoising).as_secs_f64(),
            decode_s: (end - decoding).as_secs_f64(),
            rows: rows - rows_before,
            batches: (batches - batches_before).max(1.0),
        })
    }

    fn draw(
        &self,
        job: Job,
        model: &Arc<Model>,
        mut progress: impl FnMut(Phase) + Send + 'static,
    ) -> Result<(Vec<Frame>, SamplerLabel)> {
        let prepared = self.catalogue.prepare(job, Inputs::default(), model.clone(), None)?;
        let label = prepared.scheduler.label();
        Ok((self.engine.draw(prepared, move |phase, _| progress(phase))?, label))
    }

    /// A valid request for `images` pictures, with a prompt of its own.
    fn job(&self, request: &Request<'_>, images: u32, steps: Option<u32>) -> Result<Job> {
        let number = self.prompts.replace(self.prompts.get() + 1);
        let takes_prompt = self.catalogue.card(request.model).is_none_or(|card| card.takes_prompt);
        let flags = [
            ("model", Some(request.model.to_owned())),
            ("prompt", takes_prompt.then(|| format!("a red fox, number {number}"))),
            ("n", Some(images.to_string())),
            ("seed", Some(number.to_string())),
            ("size", request.size.map(str::to_owned)),
            ("steps", steps.map(|steps| steps.to_string())),
        ];
        let flags = flags.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?)));
        let rules = CatalogueRules { catalogue: self.catalogue, limits: &self.limits };
        resolve(set::fields(flags, request.set)?, &rules).map_err(|invalid| {
            let details: Vec<&str> = invalid.errors.iter().map(|error| error.detail.as_str()).collect();
            anyhow!("{}", details.join("; "))
        })
    }
}

impl Timing {
    /// The point of the curve for a run of `steps` steps; `all_steps` is the number of steps of a request.
    fn point(&self, images: u32, steps: u32, all_steps: u32, repeats: u32) -> Point {
        let Timing { encode_s, denoise_s, decode_s, rows, batches } = *self;
        let step_s = denoise_s / f64::from(steps.max(1));
        let images_per_s = f64::from(images) / (encode_s + f64::from(all_steps) * step_s + decode_s);
        let (rows, batch_s) = (rows / batches, denoise_s / batches);
        Point { images, rows, batch_s, step_s, encode_s, decode_s, images_per_s, repeats }
    }
}

/// The nearest rank of a sorted list that is not empty: the least value that at least the part `part` of all values
/// does not exceed.
fn percentile(sorted: &[f64], part: f64) -> f64 {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_of_the_list() {
        let ten: Vec<f64> = (1..=10).map(f64::from).collect();
        assert_eq!([0.05, 0.5, 0.95, 1.0].map(|part| percentile(&ten, part)), [1.0, 5.0, 10.0, 10.0]);
        assert_eq!(percentile(&[3.0], 0.95), 3.0);
    }

    #[test]
    fn a_point_has_the_rate_of_a_whole_request() {
        let timing = Timing { encode_s: 0.5, denoise_s: 6.0, decode_s: 1.5, rows: 24.0, batches: 6.0 };
        let point = timing.point(2, 6, 20, 1);
        assert_eq!((point.rows, point.batch_s, point.step_s), (4.0, 1.0, 1.0));
        assert_eq!(point.images_per_s, 2.0 / 22.0);
    }
}
