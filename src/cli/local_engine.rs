//! The engine of a command that draws in its own process, without a server.

use std::{sync::mpsc, thread::JoinHandle};

use anyhow::{Context, Result, anyhow, bail};
use latentd::{
    app::engine_settings,
    config::Config,
    device::Device,
    engine::{self, Cancel, Engine, Log, Observer, Run, RunError, RunTrace},
    generation::Phase,
    metrics::Metrics,
    pipelines::{Frame, Prepared},
};

/// An engine with its thread.
pub(super) struct LocalEngine {
    engine: Engine,
    thread: JoinHandle<()>,
}

impl LocalEngine {
    /// Starts the engine of `device`, one of the `devices` devices of the settings. It keeps no logs of its runs.
    pub fn start(config: &Config, device: Device, devices: usize, metrics: Metrics) -> Result<LocalEngine> {
        let settings = engine_settings(&config.engine, &device, devices);
        let settings = engine::Settings { checkpoint_interval: None, ..settings };
        let (engine, thread) = engine::engine(device, settings, metrics);
        let computing = std::thread::Builder::new().name("engine".to_owned()).stack_size(engine::ENGINE_STACK);
        Ok(LocalEngine { engine, thread: computing.spawn(move || thread.run())? })
    }

    /// Draws a generation, and calls `progress` with each new phase and with the number of steps that are done.
    ///
    /// # Errors
    /// The generation failed.
    pub fn draw(&self, prepared: Prepared, progress: impl FnMut(Phase, u32) + Send + 'static) -> Result<Vec<Frame>> {
        let (sender, ended) = mpsc::channel();
        let observer = Box::new(Watching { progress, ended: sender });
        let (cancel, trace) = (Cancel::default(), RunTrace::default());
        let run = Run { prepared, replay: Log::default(), observer, cancel, attempt: None, trace };
        if self.engine.submit(run).is_err() {
            bail!("the engine takes no run");
        }
        Ok(ended.recv().context("the engine ended without an answer")??)
    }

    /// Ends the engine.
    ///
    /// # Errors
    /// Its thread panicked.
    pub fn end(self) -> Result<()> {
        drop(self.engine);
        self.thread.join().map_err(|_| anyhow!("the engine's thread panicked"))
    }
}

struct Watching<P> {
    progress: P,
    ended: mpsc::Sender<Result<Vec<Frame>, RunError>>,
}

impl<P: FnMut(Phase, u32) + Send> Observer for Watching<P> {
    fn progress(&mut self, phase: Phase, step: u32, _steps: u32) {
        (self.progress)(phase, step);
    }

    fn preview(&mut self, _index: u32, _step: u32, _frame: Frame) {}

    fn ended(self: Box<Self>, outcome: Result<Vec<Frame>, RunError>) {
        // Sending fails only if the program is ending anyway.
        let _ = self.ended.send(outcome);
    }
}
