//! Measures how long an attempt spends in each stage.

use std::time::Instant;

use parking_lot::Mutex;

use crate::{generation::Phase, metrics::Metrics};

/// The stage of an attempt, and since when. Dropping this value ends the last stage.
#[derive(Debug)]
pub struct Stages {
    metrics: Metrics,
    since: Mutex<Option<(Phase, Instant)>>,
}

impl Stages {
    pub fn new(metrics: Metrics) -> Stages {
        Stages { metrics, since: Mutex::new(None) }
    }

    /// The attempt is in this stage now.
    pub fn enter(&self, phase: Phase) {
        let mut since = self.since.lock();
        if since.is_none_or(|(present, _)| present != phase) {
            self.end(since.replace((phase, Instant::now())));
        }
    }

    fn end(&self, ended: Option<(Phase, Instant)>) {
        let Some((phase, since)) = ended else { return };
        let stage = match phase {
            Phase::Loading => "load",
            Phase::Encoding => "encode",
            Phase::Denoising => "denoise",
            Phase::Decoding => "decode",
            Phase::Saving => "save",
        };
        self.metrics.stage_seconds.with_label_values(&[stage]).observe(since.elapsed().as_secs_f64());
    }
}

impl Drop for Stages {
    fn drop(&mut self) {
        let last = self.since.get_mut().take();
        self.end(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_is_measured_once_however_often_it_is_reported() {
        let metrics = Metrics::new();
        let count = |stage| metrics.stage_seconds.with_label_values(&[stage]).get_sample_count();
        let stages = Stages::new(metrics.clone());
        for phase in [Phase::Loading, Phase::Denoising, Phase::Denoising, Phase::Denoising, Phase::Decoding] {
            stages.enter(phase);
        }
        assert_eq!((count("load"), count("denoise"), count("decode")), (1, 1, 0));
        drop(stages);
        assert_eq!((count("denoise"), count("decode"), count("save")), (1, 1, 0));
    }
}
