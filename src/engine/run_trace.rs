//! The spans of a run: its phases, and the batches in which its rows were computed.

use super::running_batch::RunningBatch;
use crate::{
    device::Fault,
    generation::{Phase, TraceContext},
    telemetry::{OpenSpan, SpanKind, Tracer},
};

/// Records the spans of one run. Does nothing if the trace of the run is not recorded.
#[derive(Debug, Default)]
pub struct RunTrace {
    tracer: Tracer,
    /// The span of the attempt; `None` if nothing is recorded.
    attempt: Option<TraceContext>,
    /// The current phase of the run, with its span. The spans of batches are children of this span.
    phase: Option<(Phase, OpenSpan)>,
}

impl RunTrace {
    /// The spans of a run, below the span `attempt`.
    pub fn new(tracer: Tracer, attempt: &TraceContext) -> RunTrace {
        let attempt = tracer.records(attempt).then(|| attempt.clone());
        RunTrace { tracer, attempt, phase: None }
    }

    /// Ends the span of the previous phase and begins the span of `phase`. Does nothing if the run is in `phase`
    /// already.
    pub(super) fn enter(&mut self, phase: Phase) {
        let (Some(attempt), true) = (&self.attempt, self.phase.as_ref().is_none_or(|(last, _)| *last != phase)) else {
            return;
        };
        let name = match phase {
            Phase::Loading => "load",
            Phase::Encoding => "encode text",
            Phase::Denoising => "denoise",
            Phase::Decoding => "decode",
            Phase::Saving => "store",
        };
        self.phase = None;
        self.phase = Some((phase, self.tracer.open(Some(attempt), name, SpanKind::Internal)));
    }

    /// The span, in the trace of this run, of a batch that has just ended. `own_rows` of its rows belong to this run.
    fn batch(&self, batch: &RunningBatch, device: &str, own_rows: usize) -> Option<OpenSpan> {
        let parent = self.phase.as_ref().map(|(_, span)| span.context()).or(self.attempt.as_ref())?;
        let network = batch.key.network;
        let mut span = self.tracer.open_at(Some(parent), &format!("batch {network}"), SpanKind::Internal, batch.begun);
        span.set("latentd.network", network);
        span.set("latentd.device", device);
        span.set("latentd.batch.rows", batch.rows());
        span.set("latentd.batch.own_rows", own_rows);
        span.set("latentd.batch.runs", batch.shares.len());
        span.set("latentd.batch.computing_s", batch.spent);
        Some(span)
    }
}

/// Records a batch that has ended, with this fault if it has failed: one span in the trace of each of its runs. These
/// spans link to each other. `runs` are the runs that still exist, with their numbers of rows.
pub(super) fn record_batch<'a>(
    runs: impl Iterator<Item = (&'a RunTrace, usize)>,
    batch: &RunningBatch,
    device: &str,
    fault: Option<Fault>,
) {
    let mut spans: Vec<OpenSpan> = runs.filter_map(|(run, rows)| run.batch(batch, device, rows)).collect();
    OpenSpan::link_all(&mut spans);
    let code = fault.map(|fault| match fault {
        Fault::OutOfMemory => "out_of_memory",
        Fault::Lost => "device_lost",
        Fault::Call => "failed_call",
    });
    spans.iter_mut().for_each(|span| code.iter().for_each(|code| span.fail(code)));
}
