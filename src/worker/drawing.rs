//! The executor that draws pictures and makes sounds and films: loads models, passes runs to the engine, encodes frames
//! and stores the files.

mod encode;
mod inputs;
mod log;
mod mark;
mod models;
mod observer;
mod ready;
mod safety;
mod save;
mod sign;

use std::{pin::pin, sync::Arc};

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc, oneshot};

use super::{
    Leases, Slots,
    executor::{Claimed, Executor, RunReporter, failed},
};
use crate::{
    catalogue::Catalogue,
    crash::Attempt,
    device::Fault,
    engine::{Engine, Reason, Refused, Run, RunError, RunTrace},
    generation::{Artifact, Draw, Film, Phase, Preview, Progress, SchedulerChoice, Sound, Work, cut},
    ledger::{Blobs, Outcome},
    metrics::Metrics,
    pipelines::{Frame, PipelineError},
    provenance::Provenance,
    safety::Safety,
    service::{Devices, Memory},
    telemetry::{SpanKind, Tracer},
};
use encode::encode_preview;
use observer::{PreviewFrame, ReportingObserver};
use ready::Ready;

pub use encode::{Encoded, FrameError, encode};
pub use mark::Marking;
pub use models::Preload;
pub use sign::{Signing, sign};

/// Draws pictures and makes sounds and films with the models of the catalogue.
pub struct Drawing {
    pub blobs: Blobs,
    /// Signs the files of results.
    pub provenance: Provenance,
    /// Whether frames are marked with a watermark.
    pub marking: Marking,
    pub catalogue: Arc<Catalogue>,
    /// One engine per device of the catalogue, in the same order. When a device is lost, its engine first marks the
    /// device as failed in `devices` and then ends its runs.
    pub engines: Vec<Engine>,
    /// Chooses the device of each generation.
    pub devices: Devices,
    pub metrics: Metrics,
    pub tracer: Tracer,
    /// The worker's slots.
    pub slots: Slots,
    /// The memory that generations take while they compute.
    pub memory: Memory,
    /// The worker's leases.
    pub leases: Leases,
    /// Checks what pictures show.
    pub safety: Safety,
    /// Wakes the worker to claim more generations.
    pub wake: Arc<Notify>,
}

impl std::fmt::Debug for Drawing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drawing").finish_non_exhaustive()
    }
}

#[async_trait]
impl Executor for Drawing {
    fn takes(&self, work: &Work) -> bool {
        match work {
            Work::Draw(_) | Work::Sound(_) | Work::Film(_) => true,
        }
    }

    async fn execute(&self, claimed: &Claimed, tell: &RunReporter) -> Result<Vec<Artifact>, Outcome> {
        let work = &claimed.record.job.work;
        let frames = self.compute(claimed, work, tell).await?;
        let _store = self.tracer.open(Some(&claimed.trace), "store", SpanKind::Internal);
        let mut saved = pin!(self.save(claimed, work, tell, frames));
        tokio::select! {
            biased;
            saved = saved.as_mut() => saved,
            () = tell.until_canceled() => match claimed.cancel.reason() {
                // A worker that stops still stores the frames. Otherwise the next attempt would have to compute the
                // last steps again, because the log lacks them.
                Some(Reason::Lost) if self.leases.allows(&claimed.lease) => saved.await,
                reason => Err(ended_early(RunError::Canceled(reason.unwrap_or(Reason::Lost)), work)),
            },
        }
    }
}

impl Drawing {
    /// Computes the frames of the generation. The error is the outcome of a generation without frames.
    async fn compute(&self, claimed: &Claimed, work: &Work, tell: &RunReporter) -> Result<Vec<Frame>, Outcome> {
        tell.progress(Progress { phase: Phase::Loading, step: 0, steps: work.steps(), percent: 0.0, eta_s: None });
        let attempt = Some(Attempt { id: claimed.id(), fence: claimed.lease.fence() });
        // The models and the memory are held until this function returns; by then, the engine has dropped the run.
        let load = self.tracer.open(Some(&claimed.trace), "load", SpanKind::Internal);
        let Ready { prepared, placed, held: _held } = self.made_ready(claimed, work, tell, attempt).await?;
        drop(load);

        let (preview_frames, mut frames_to_show) = mpsc::channel(16);
        // If this channel is full, the engine offers the portion again later.
        let (portions, mut recorded) = mpsc::channel(4);
        let (ended, mut outcome) = oneshot::channel();
        let observer = Box::new(ReportingObserver::new(tell.clone(), preview_frames, portions, ended));
        let mut log = self.open_log(claimed, prepared.model.device.clone()).await?;
        let replay = log.load().await;
        let trace = RunTrace::new(self.tracer.clone(), &claimed.trace);
        let run = Run { prepared, replay, observer, cancel: claimed.cancel.clone(), attempt, trace };
        let engine = self
            .engines
            .get(placed.device)
            .ok_or_else(|| failed("internal", format!("the device {} has no engine", placed.device), false))?;
        engine.submit(run).map_err(|refused| match refused {
            // The worker never has more runs than the engine accepts, so the engine must be stuck.
            Refused::Full(_) => failed("overloaded", "the engine takes no more runs".to_owned(), true),
            Refused::Stopped(_) => Outcome::Released,
        })?;

        let early = |error: RunError| match error {
            RunError::DeviceLost(why) => claimed.device_lost(&why),
            error => ended_early(error, work),
        };
        let outcome = loop {
            tokio::select! {
                Some(portion) = recorded.recv() => {
                    // A slow store must not delay the end of the run, unless another attempt will continue the
                    // generation from the log.
                    let mut appended = pin!(log.append(portion));
                    tokio::select! {
                        () = &mut appended => {}
                        ended = &mut outcome => {
                            let ended = ended.unwrap_or(Err(RunError::Stopped)).map_err(early);
                            if let Err(Outcome::Released | Outcome::DeviceLost { .. }) = ended {
                                appended.await;
                            }
                            break ended;
                        }
                    }
                }
                Some(preview) = frames_to_show.recv() => publish(claimed, work, tell, preview).await,
                outcome = &mut outcome => break outcome.unwrap_or(Err(RunError::Stopped)).map_err(early),
            }
        };
        if let Err(Outcome::Released | Outcome::DeviceLost { .. }) = outcome {
            // The observer was dropped, and with it the sender, so this loop ends.
            while let Some(portion) = recorded.recv().await {
                log.append(portion).await;
            }
        }
        outcome
    }
}

/// Encodes a preview on a blocking thread and shows it to the watchers.
async fn publish(claimed: &Claimed, work: &Work, tell: &RunReporter, preview: PreviewFrame) {
    let PreviewFrame { index, step, preview_index, frame } = preview;
    let side = match work {
        Work::Draw(draw) => draw.width.max(draw.height),
        Work::Film(film) => film.width.max(film.height),
        Work::Sound(_) => 0,
    };
    match tokio::task::spawn_blocking(move || encode_preview(frame, side)).await {
        Ok(Ok((media_type, bytes))) => tell.preview(Preview { index, step, preview_index, media_type, bytes }),
        Ok(Err(error)) => tracing::warn!(id = %claimed.id(), %error, "a preview cannot be encoded"),
        Err(_) => tracing::warn!(id = %claimed.id(), "the encoding of a preview was interrupted"),
    }
}

/// The outcome of a run that ended without frames.
fn ended_early(error: RunError, work: &Work) -> Outcome {
    match error {
        RunError::Canceled(Reason::Canceled | Reason::Disconnected) => Outcome::Canceled,
        RunError::Canceled(Reason::Lost) | RunError::Stopped | RunError::DeviceLost(_) => Outcome::Released,
        RunError::Canceled(Reason::TimedOut) => {
            failed("run_timeout", "the generation took longer than run_timeout_s allows".to_owned(), false)
        }
        RunError::NotFinite { .. } => failed("not_finite", format!("{error}; {}", settings_of(work)), false),
        RunError::Pipeline(PipelineError::Network(error)) if error.fault == Fault::OutOfMemory => {
            let advice = match work {
                Work::Draw(Draw { width, height, .. }) => {
                    format!("the generation draws {width} × {height} pixels; a smaller size may fit")
                }
                Work::Sound(Sound { seconds, .. }) => {
                    format!("the generation makes a sound of {seconds} seconds; a shorter one may fit")
                }
                Work::Film(Film { width, height, frames, .. }) => {
                    let film = format!("a film of {frames} frames of {width} × {height} pixels");
                    format!("the generation makes {film}; fewer frames or a smaller size may fit")
                }
            };
            failed("out_of_memory", format!("{error}; {advice}"), false)
        }
        RunError::Pipeline(error) => failed("internal", error.to_string(), false),
        RunError::Panicked => failed("internal", error.to_string(), false),
    }
}

/// Lists the settings of a request that can make numbers grow without bound, for the error about a result with numbers
/// that are not finite.
fn settings_of(work: &Work) -> String {
    let scheduler = match work.scheduler() {
        SchedulerChoice::Name(name) => format!("scheduler {name}"),
        SchedulerChoice::Object(keys) if keys.is_empty() => "the model's own scheduler".to_owned(),
        SchedulerChoice::Object(keys) => format!("scheduler {}", cut(&serde_json::json!(keys).to_string(), 200)),
    };
    let mut settings = vec![scheduler, format!("steps {}", work.steps())];
    let what = match work {
        Work::Draw(draw) => {
            settings.extend(draw.levels.is_some().then(|| "noise levels of the request".to_owned()));
            settings.extend((draw.guidance_scale > 1.0).then(|| format!("guidance_scale {}", draw.guidance_scale)));
            settings.extend(draw.class_guidance_scale.map(|scale| format!("class_guidance_scale {scale}")));
            settings.extend(draw.loras.iter().map(|lora| format!("LoRA {:?} with scale {}", lora.name, lora.scale)));
            settings.extend(draw.controls.iter().map(|control| format!("ControlNet {:?}", control.model)));
            "the picture was drawn"
        }
        Work::Sound(sound) => {
            settings.extend(sound.is_guided().then(|| format!("guidance_scale {}", sound.guidance_scale)));
            "the sound was made"
        }
        Work::Film(film) => {
            settings.extend(film.is_guided().then(|| format!("guidance_scale {}", film.guidance_scale)));
            settings.extend(film.loras.iter().map(|lora| format!("LoRA {:?} with scale {}", lora.name, lora.scale)));
            "the film was made"
        }
    };
    format!("{what} with {}; smaller scales or another scheduler may help", settings.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_output_that_is_not_finite_fails_with_not_finite_and_lists_the_settings_that_can_cause_it() {
        let draw = json!({"prompt": "a", "width": 8, "height": 8, "n": 1, "steps": 4, "guidance_scale": 1.0,
            "guidance_rescale": 0.0, "scheduler": "ipndm", "eta": 0.0, "clip_skip": 0, "class_guidance_scale": 10.0,
            "loras": [{"name": "x", "scale": 4.0}], "seed": 1, "seed_mode": "per_image"});
        let draw = Work::Draw(serde_json::from_value(draw).unwrap());
        let lost = RunError::NotFinite { what: "the output of the network \"unet\"".to_owned(), step: 2, steps: 4 };
        let Outcome::Failed(problem) = ended_early(lost, &draw) else { panic!("it fails") };
        assert_eq!((problem.code.as_str(), problem.retryable), ("not_finite", false));
        let said = "the output of the network \"unet\" is not finite in step 2 of 4; the picture was drawn with \
                    scheduler ipndm, steps 4, class_guidance_scale 10, LoRA \"x\" with scale 4; smaller scales or \
                    another scheduler may help";
        assert_eq!(problem.message, said);
        let other = ended_early(RunError::Panicked, &draw);
        assert!(matches!(other, Outcome::Failed(problem) if problem.code == "internal"));
    }
}
