//! A server whose device takes the same time for every batch of the same size, for
//! `benches/scale/calibrate.py --paced`. The server computes on the CPU and then waits, as a server with a GPU does, so
//! it hardly matters what else the machine does.
//!
//! `paced A B`: a batch of the denoiser takes A + B · rows seconds, a batch of another network B · rows. The settings
//! come from environment variables, as those of `latentd serve`.

use std::{
    env,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use latentd::{
    app::App,
    config::{Config, Sources},
    device::{Device, FaultError, Layer, Script},
    kernels::arena::Allocator,
};
use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// The time of a batch, and when the present one ends.
#[derive(Debug)]
struct Pace {
    batch_s: f64,
    row_s: f64,
    end: Mutex<Instant>,
}

impl Script for Pace {
    fn before(&self, layer: Layer) -> Result<(), FaultError> {
        if layer.index == 0 {
            let batch = if layer.network == "denoiser" { self.batch_s } else { 0.0 };
            let seconds = batch + self.row_s * layer.rows as f64;
            *self.end.lock() = Instant::now() + Duration::from_secs_f64(seconds);
        }
        Ok(())
    }

    fn waited(&self) -> Result<(), FaultError> {
        let end = *self.end.lock();
        sleep(end.saturating_duration_since(Instant::now()));
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let number = |index| env::args().nth(index).context("usage: paced A B")?.parse::<f64>().context("not a number");
    let pace = Pace { batch_s: number(1)?, row_s: number(2)?, end: Mutex::new(Instant::now()) };
    let config = Config::load(&Sources::of_process(None, Vec::new())?)?;
    let device = Device::cpu("cpu", None, 1)?.with_script(Arc::new(pace));
    let app = App::build_on(config, vec![device]).await?;
    let (stop, mut terminate) = (CancellationToken::new(), signal(SignalKind::terminate())?);
    let running = tokio::spawn(app.run(stop.clone()));
    terminate.recv().await;
    stop.cancel();
    running.await?
}
