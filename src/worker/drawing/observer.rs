//! Passes progress from the engine's thread to the watchers, and previews, log portions and results to the executor.

use std::time::Instant;

use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use crate::{
    engine::{Log, Observer, RunError},
    generation::{Phase, Progress},
    pipelines::Frame,
    worker::executor::RunReporter,
};

/// A preview that is not encoded yet.
#[derive(Debug)]
pub(super) struct PreviewFrame {
    pub index: u32,
    pub step: u32,
    pub preview_index: u32,
    pub frame: Frame,
}

/// Passes on what the engine reports, without blocking.
pub(super) struct ReportingObserver {
    tell: RunReporter,
    preview_frames: mpsc::Sender<PreviewFrame>,
    portions: mpsc::Sender<Log>,
    /// `None` once the run has ended.
    ended: Option<oneshot::Sender<Result<Vec<Frame>, RunError>>>,
    /// When denoising began in this run, and how many steps were done by then.
    denoising_since: Option<(Instant, u32)>,
    /// For each picture, the number of previews so far.
    previews: Vec<u32>,
}

impl ReportingObserver {
    pub fn new(
        tell: RunReporter,
        preview_frames: mpsc::Sender<PreviewFrame>,
        portions: mpsc::Sender<Log>,
        ended: oneshot::Sender<Result<Vec<Frame>, RunError>>,
    ) -> ReportingObserver {
        let ended = Some(ended);
        ReportingObserver { tell, preview_frames, portions, ended, denoising_since: None, previews: Vec::new() }
    }
}

impl Observer for ReportingObserver {
    fn progress(&mut self, phase: Phase, step: u32, steps: u32) {
        let since = match phase {
            Phase::Denoising => Some(*self.denoising_since.get_or_insert_with(|| (Instant::now(), step))),
            Phase::Loading | Phase::Encoding | Phase::Decoding | Phase::Saving => None,
        };
        let left = since.filter(|(_, done)| step > *done).map(|(since, done)| {
            since.elapsed().as_secs_f32() / (step - done) as f32 * steps.saturating_sub(step) as f32
        });
        let percent = if steps == 0 { 0.0 } else { 100.0 * step as f32 / steps as f32 };
        self.tell.progress(Progress { phase, step, steps, percent, eta_s: left });
    }

    fn preview(&mut self, index: u32, step: u32, frame: Frame) {
        let image = index as usize;
        if self.previews.len() <= image {
            self.previews.resize(image + 1, 0);
        }
        let preview_index = self.previews[image];
        self.previews[image] += 1;
        // If the channel is full, the preview is dropped, so that a slow watcher does not block the engine.
        let _ = self.preview_frames.try_send(PreviewFrame { index, step, preview_index, frame });
    }

    fn checkpoint(&mut self, portion: Log) -> Option<Log> {
        self.portions.try_send(portion).err().map(|refused| match refused {
            TrySendError::Full(portion) | TrySendError::Closed(portion) => portion,
        })
    }

    fn ended(mut self: Box<Self>, outcome: Result<Vec<Frame>, RunError>) {
        self.end(outcome);
    }
}

impl ReportingObserver {
    fn end(&mut self, outcome: Result<Vec<Frame>, RunError>) {
        // The receiver is gone only if the process ends.
        let _ = self.ended.take().map(|ended| ended.send(outcome));
    }
}

impl Drop for ReportingObserver {
    /// A panic of the engine's thread drops the observers of all its runs. Any of the runs may be the cause.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.end(Err(RunError::DeviceLost("the thread of a device panicked".to_owned())));
        }
    }
}
