//! What computes: the engines, each on its thread, and the worker that feeds it.

use std::thread::JoinHandle;

use anyhow::Result;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    engine::{ENGINE_STACK, EngineThread},
    worker::{Preload, Worker},
};

/// What computes.
pub(super) struct Works {
    pub preload: Preload,
    pub worker: Worker,
    pub engine_threads: Vec<EngineThread>,
}

/// What computes, at work.
pub(super) struct Working {
    worker: tokio::task::JoinHandle<()>,
    engines: Vec<JoinHandle<()>>,
}

impl Works {
    pub fn spawn(self, stop: &CancellationToken, draining: &CancellationToken, tasks: &TaskTracker) -> Result<Working> {
        let Works { preload, worker, engine_threads } = self;
        let start = |(i, engine): (usize, EngineThread)| {
            let thread = std::thread::Builder::new().name(format!("engine-{i}")).stack_size(ENGINE_STACK);
            thread.spawn(move || engine.run())
        };
        let engines = engine_threads.into_iter().enumerate().map(start).collect::<std::io::Result<_>>()?;
        let worker = tokio::spawn(worker.run(stop.clone()));
        let undisturbed = draining.clone();
        tasks.spawn(async move { undisturbed.run_until_cancelled(preload.run()).await });
        Ok(Working { worker, engines })
    }
}

impl Working {
    pub async fn end(self, deadline: Instant) {
        // The worker holds the last handles of the engines, whose threads therefore end after it.
        if tokio::time::timeout_at(deadline, self.worker).await.is_err() {
            tracing::warn!("generations that could not be given back in time are queued again later");
        }
        for engine in self.engines {
            if engine.is_finished() && engine.join().is_err() {
                tracing::error!("an engine's thread panicked");
            }
        }
    }
}

/// A name that no other process has or had, by which people still find the machine.
pub(super) fn worker_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String =
        host.trim().chars().filter(|c| c.is_ascii_alphanumeric() || "-.".contains(*c)).take(64).collect();
    let host = if host.is_empty() { "worker".to_owned() } else { host };
    format!("{host}-{}-{}", std::process::id(), &uuid::Uuid::new_v4().simple().to_string()[..8])
}
