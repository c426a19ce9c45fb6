//! From the engine's thread to the watchers.

use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use crate::{
    engine::{Observer, RunError},
    generation::{GenerationId, Phase},
    imaging::RgbImage,
    service::{Live, Progress},
};

/// A preview that is still pixels.
#[derive(Debug)]
pub(super) struct Sketch {
    pub index: u32,
    pub step: u32,
    pub preview_index: u32,
    pub picture: RgbImage,
}

/// Passes on what the engine tells, without ever waiting.
pub(super) struct LiveObserver {
    live: Live,
    id: GenerationId,
    sketches: mpsc::Sender<Sketch>,
    ended: oneshot::Sender<Result<Vec<RgbImage>, RunError>>,
    /// When the first step began.
    denoising_since: Option<Instant>,
    /// Previews so far of each image.
    previews: Vec<u32>,
}

impl LiveObserver {
    pub fn new(
        live: Live,
        id: GenerationId,
        sketches: mpsc::Sender<Sketch>,
        ended: oneshot::Sender<Result<Vec<RgbImage>, RunError>>,
    ) -> LiveObserver {
        LiveObserver { live, id, sketches, ended, denoising_since: None, previews: Vec::new() }
    }
}

impl Observer for LiveObserver {
    fn progress(&mut self, phase: Phase, step: u32, steps: u32) {
        let since = match phase {
            Phase::Denoising => Some(*self.denoising_since.get_or_insert_with(Instant::now)),
            Phase::Loading | Phase::Encoding | Phase::Decoding | Phase::Saving => None,
        };
        let left =
            since.filter(|_| step > 0).map(|since| since.elapsed().as_secs_f32() / step as f32 * (steps - step) as f32);
        let percent = if steps == 0 { 0.0 } else { 100.0 * step as f32 / steps as f32 };
        self.live.progress(self.id, Progress { phase, step, steps, percent, eta_s: left });
    }

    fn preview(&mut self, index: u32, step: u32, picture: RgbImage) {
        let image = index as usize;
        if self.previews.len() <= image {
            self.previews.resize(image + 1, 0);
        }
        let preview_index = self.previews[image];
        self.previews[image] += 1;
        // A watcher that cannot keep up misses a preview rather than holding up the engine.
        let _ = self.sketches.try_send(Sketch { index, step, preview_index, picture });
    }

    fn ended(self: Box<Self>, outcome: Result<Vec<RgbImage>, RunError>) {
        // The receiver is gone only where the process is going too.
        let _ = self.ended.send(outcome);
    }
}
