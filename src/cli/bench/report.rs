//! What `latentd bench` prints: the JSON of `--json` and the tables for people.
//!
//! The JSON is one object, [`Report`]. All times are seconds. A reader must ignore keys that it does not know;
//! `version` grows if a key changes its meaning or disappears.
//!
//! ```json
//! {"version": 1, "latentd": "0.1.0",
//!  "device": {"name": "cpu", "hardware": "…", "threads": 2, "devices": 1},
//!  "max_rows": 16,
//!  "models": [
//!    {"model": "emoji", "width": 128, "height": 128, "steps": 20,
//!     "load_s": 0.31, "encode_s": 0.004, "decode_s": 0.02,
//!     "curve": [{"images": 1, "rows": 2.0, "batch_s": 0.021, "step_s": 0.021, "encode_s": 0.004, "decode_s": 0.02,
//!                "images_per_s": 2.2, "repeats": 5},
//!               {"images": 2, "…": "…"}],
//!     "cost": {"a_s": 0.006, "b_s": 0.0075, "max_error": 0.04},
//!     "latency": {"requests": 11, "p50_s": 0.45, "p95_s": 0.47}}]}
//! ```

use serde::Serialize;

/// The measurements of one machine.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The version of this format: 1.
    pub version: u32,
    /// The version of the program.
    pub latentd: &'static str,
    pub device: MeasuredDevice,
    /// `engine.max_rows`: the maximum number of rows that the engine puts into one batch.
    pub max_rows: usize,
    /// One entry for each model and size, in the order of the options.
    pub models: Vec<Measured>,
}

/// The device that computed: the first one of `engine.devices`.
#[derive(Debug, Serialize)]
pub struct MeasuredDevice {
    pub name: String,
    /// The kind of hardware.
    pub hardware: String,
    /// The compute threads of a CPU device; 0 for a GPU.
    pub threads: usize,
    /// The number of devices in the settings. A server uses all of them; the measurement used one.
    pub devices: usize,
}

/// One model at one size.
#[derive(Debug, Serialize)]
pub struct Measured {
    pub model: String,
    /// Pixels.
    pub width: u32,
    pub height: u32,
    /// Steps of the request that `latency` and `images_per_s` describe.
    pub steps: u32,
    /// Seconds to load the weights. The files may already be in the system's cache. The weights are loaded once for
    /// all sizes of a model, so all sizes have the same value.
    pub load_s: f64,
    /// Seconds before the first step of one picture: mostly the text encoder.
    pub encode_s: f64,
    /// Seconds to decode one picture alone.
    pub decode_s: f64,
    /// The batch curve, in the order of `images`: 1, 2, 4, 8, …
    pub curve: Vec<Point>,
    pub cost: Cost,
    pub latency: Latency,
}

/// The time of pictures that are computed together.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// Pictures that were computed together.
    pub images: u32,
    /// Mean rows of a batch of the denoiser. With guidance usually two for each picture, but fewer if a batch of all
    /// rows would last longer than `engine.slice_ms`, or have more than `max_rows` rows.
    pub rows: f64,
    /// Mean seconds of a batch of the denoiser, with the scheduler's work between two batches.
    pub batch_s: f64,
    /// Seconds of a step of all these pictures: one batch, or several if the scheduler calls the denoiser more than
    /// once in a step, or if the rows do not fit into one batch.
    pub step_s: f64,
    /// Seconds before the first step of all these pictures.
    pub encode_s: f64,
    /// Seconds to decode all these pictures.
    pub decode_s: f64,
    /// `images / (encode_s + steps · step_s + decode_s)`: the rate of a machine that always computes this many
    /// pictures together, without the time to write files.
    pub images_per_s: f64,
    /// How often this was measured; the times come from the fastest run.
    pub repeats: u32,
}

/// The cost model: `batch_s = a_s + b_s · rows`, by least squares of the relative errors over the curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// The part of the seconds of a batch that does not depend on the number of rows. At least 0.
    pub a_s: f64,
    /// The seconds that each row adds. At least 0.
    pub b_s: f64,
    /// The largest `|predicted / measured − 1|` over the curve.
    pub max_error: f64,
}

/// The latency of one request of one picture on an idle machine: text encoder, all steps, decoder, and PNG file.
/// Without HTTP, database and storage.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    pub requests: u32,
    pub p50_s: f64,
    pub p95_s: f64,
}

impl Report {
    /// Prints the tables.
    pub fn print(&self) {
        let MeasuredDevice { name, hardware, threads, devices } = &self.device;
        let threads = if *threads > 0 { format!(", {threads} threads") } else { String::new() };
        let others = if *devices > 1 { format!(" (the first of {devices} devices)") } else { String::new() };
        println!("device {name}: {hardware}{threads}{others}");
        self.models.iter().for_each(Measured::print);
    }
}

impl Measured {
    fn print(&self) {
        let Measured { model, width, height, steps, load_s, cost, latency, .. } = self;
        println!();
        println!("{model}, {width} × {height} pixels, {steps} steps");
        println!("  load {load_s:.3} s, encode {:.3} s, decode {:.3} s", self.encode_s, self.decode_s);
        println!(
            "  one request alone: p50 {:.3} s, p95 {:.3} s ({} requests)",
            latency.p50_s, latency.p95_s, latency.requests
        );
        println!("  {:>6}  {:>5}  {:>10}  {:>10}  {:>10}", "images", "rows", "s per step", "s to decode", "images/s");
        for Point { images, rows, step_s, decode_s, images_per_s, .. } in &self.curve {
            println!("  {images:>6}  {rows:>5.1}  {step_s:>10.4}  {decode_s:>11.4}  {images_per_s:>10.3}");
        }
        let Cost { a_s, b_s, max_error } = cost;
        println!("  seconds of a batch = {a_s:.5} + {b_s:.5} · rows, within {:.0} %", 100.0 * max_error);
    }
}
