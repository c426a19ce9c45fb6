//! The computing part of a process: an engine thread for each device, and the worker that submits generations to them.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::JoinHandle,
};

use anyhow::Result;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::watchdog::Watchdog;
use crate::{
    catalogue::Catalogue,
    engine::{ENGINE_STACK, EngineThread},
    service::Devices,
    worker::{Preload, Worker},
};

/// The computing part of a process, not yet started.
pub(super) struct Computation {
    pub preload: Preload,
    pub worker: Worker,
    /// One per device, in the order of the devices.
    pub engine_threads: Vec<EngineThread>,
    pub devices: Devices,
    pub catalogue: Arc<Catalogue>,
    /// Seconds after which a network call without progress ends the process; 0 means never.
    pub watchdog_s: u32,
}

/// The running worker and engine threads.
pub(super) struct RunningComputation {
    worker: tokio::task::JoinHandle<()>,
    engines: Vec<JoinHandle<()>>,
}

impl Computation {
    /// Starts the engine threads and the worker, and begins to load the models that must be in memory before the server
    /// is ready. The loading ends early if `draining` is canceled.
    pub fn spawn(
        self,
        stop: &CancellationToken,
        draining: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<RunningComputation> {
        let Computation { preload, worker, engine_threads, devices, catalogue, watchdog_s } = self;
        if watchdog_s > 0 {
            let names = devices.loads().into_iter().map(|load| load.name);
            let clocks = names.zip(engine_threads.iter().map(EngineThread::clock)).collect();
            let (watchdog, until_stopping) = (Watchdog { limit_s: watchdog_s, clocks }, draining.clone());
            tasks.spawn(async move { until_stopping.run_until_cancelled(watchdog.run()).await });
        }
        let start = |(i, engine): (usize, EngineThread)| {
            let thread = std::thread::Builder::new().name(format!("engine-{i}")).stack_size(ENGINE_STACK);
            let (devices, catalogue) = (devices.clone(), catalogue.clone());
            thread.spawn(move || {
                // Without its thread, an engine takes no runs. The panic has dropped the engine's runs, so the
                // generations of these runs are computed on other devices.
                if catch_unwind(AssertUnwindSafe(|| engine.run())).is_err() {
                    tracing::error!(device = i, "an engine's thread panicked, so its device gets no more work");
                    device_lost(&devices, &catalogue, i);
                }
            })
        };
        let engines = engine_threads.into_iter().enumerate().map(start).collect::<std::io::Result<_>>()?;
        let worker = tokio::spawn(worker.run(stop.clone()));
        let until_stopping = draining.clone();
        tasks.spawn(async move { until_stopping.run_until_cancelled(preload.run()).await });
        Ok(RunningComputation { worker, engines })
    }
}

impl RunningComputation {
    /// Waits for the worker until `deadline`, and joins the engine threads that have ended.
    pub async fn end(self, deadline: Instant) {
        // The worker owns the last handles of the engines, so their threads end after the worker.
        if tokio::time::timeout_at(deadline, self.worker).await.is_err() {
            tracing::warn!("generations that could not be given back in time are queued again later");
        }
        for engine in self.engines.into_iter().filter(JoinHandle::is_finished) {
            // `join` does not fail, because the thread catches panics.
            let _ = engine.join();
        }
    }
}

/// Gives a lost device no more generations, and unloads its models as soon as no run uses them.
pub(super) fn device_lost(devices: &Devices, catalogue: &Arc<Catalogue>, device: usize) {
    devices.fail(device);
    catalogue.unload_from(device);
}

/// A unique name of this process that contains the name of the host.
pub(super) fn worker_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String =
        host.trim().chars().filter(|c| c.is_ascii_alphanumeric() || "-.".contains(*c)).take(64).collect();
    let host = if host.is_empty() { "worker".to_owned() } else { host };
    format!("{host}-{}-{}", std::process::id(), &uuid::Uuid::new_v4().simple().to_string()[..8])
}
