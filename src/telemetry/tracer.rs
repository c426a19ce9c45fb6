//! The tracer: opens spans and hands ended spans to the exporter, without ever waiting.

use std::time::SystemTime;

use prometheus::IntCounterVec;
use tokio::sync::mpsc;

use super::span::{Moment, OpenSpan, Span, SpanKind};
use crate::{generation::TraceContext, metrics::Metrics};

/// Opens spans. A clone is another handle to the same exporter.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Recorder>);

#[derive(Clone, Debug)]
struct Recorder {
    spans: mpsc::Sender<Span>,
    /// The part of the new traces that is recorded, 0 to 1.
    ratio: f64,
    counted: IntCounterVec,
}

/// The maximum number of ended spans that wait for the exporter; they take about 4 MB. A generation with 50 steps has
/// about 70 spans. Further spans are dropped and counted.
const MAX_WAITING: usize = 8192;

impl Tracer {
    /// A tracer that records nothing. Requests still have a trace id, and a `traceparent` is passed on unchanged.
    pub fn off() -> Tracer {
        Tracer::default()
    }

    /// A tracer that records this part of the new traces, and the traces that a `traceparent` marks as sampled. Also
    /// returns the ended spans.
    pub(super) fn recording(ratio: f64, metrics: &Metrics) -> (Tracer, mpsc::Receiver<Span>) {
        let (spans, ended) = mpsc::channel(MAX_WAITING);
        (Tracer(Some(Recorder { spans, ratio, counted: metrics.trace_spans.clone() })), ended)
    }

    /// Whether spans below `parent` are recorded.
    pub fn records(&self, parent: &TraceContext) -> bool {
        self.0.is_some() && parent.is_sampled
    }

    /// Begins a span below `parent`; without a parent, the first span of a new trace. If the span is not recorded, what
    /// it causes belongs to `parent`.
    pub fn open(&self, parent: Option<&TraceContext>, name: &str, kind: SpanKind) -> OpenSpan {
        self.open_at(parent, name, kind, Moment::now())
    }

    /// As [`Tracer::open`], for a span that began at `begun`.
    pub fn open_at(&self, parent: Option<&TraceContext>, name: &str, kind: SpanKind, begun: Moment) -> OpenSpan {
        let (context, parent) = match parent {
            Some(parent) if !self.records(parent) => return OpenSpan::unrecorded(parent.clone()),
            Some(parent) => (parent.child(), Some(parent.span)),
            None => (self.new_trace(), None),
        };
        if !context.is_sampled {
            return OpenSpan::unrecorded(context);
        }
        let (name, wall) = (name.to_owned(), begun.begun());
        let (attributes, links, error) = (Vec::new(), Vec::new(), None);
        let span = Span { context, parent, name, kind, begun: wall, ended: wall, attributes, links, error };
        OpenSpan::recorded(span, begun, self.clone())
    }

    /// Records a span below `parent` whose times are known, such as the times of a database's clock.
    pub fn record_between(&self, parent: &TraceContext, name: &str, begun: SystemTime, ended: SystemTime) {
        if !self.records(parent) {
            return;
        }
        self.record(Span {
            context: parent.child(),
            parent: Some(parent.span),
            name: name.to_owned(),
            kind: SpanKind::Internal,
            begun,
            ended: ended.max(begun),
            attributes: Vec::new(),
            links: Vec::new(),
            error: None,
        });
    }

    fn new_trace(&self) -> TraceContext {
        let ratio = self.0.as_ref().map_or(0.0, |recorder| recorder.ratio);
        TraceContext::root(|trace| trace.fraction() < ratio)
    }

    pub(super) fn record(&self, span: Span) {
        if let Some(Recorder { spans, counted, .. }) = &self.0
            && spans.try_send(span).is_err()
        {
            counted.with_label_values(&["dropped"]).inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled() -> TraceContext {
        TraceContext::root(|_| true)
    }

    #[test]
    fn a_span_is_recorded_when_it_is_dropped_and_causes_what_its_context_says() {
        let (tracer, mut ended) = Tracer::recording(0.0, &Metrics::new());
        let parent = sampled();
        let mut open = tracer.open(Some(&parent), "work", SpanKind::Internal);
        open.set("rows", 3_usize);
        open.fail("internal");
        let context = open.context().clone();
        assert!(ended.try_recv().is_err(), "the span has not ended");
        drop(open);
        let span = ended.try_recv().unwrap();
        assert_eq!((span.context.trace, span.parent), (parent.trace, Some(parent.span)));
        assert_eq!((&span.context, span.error.as_deref()), (&context, Some("internal")));
        assert!(span.ended >= span.begun);
    }

    #[test]
    fn what_is_not_sampled_is_not_recorded_and_passed_on_unchanged() {
        let (tracer, mut ended) = Tracer::recording(0.0, &Metrics::new());
        let unsampled = TraceContext::root(|_| false);
        assert_eq!(tracer.open(Some(&unsampled), "work", SpanKind::Internal).context(), &unsampled);
        assert!(!tracer.open(None, "work", SpanKind::Server).is_recorded(), "the ratio is 0");
        tracer.record_between(&unsampled, "wait", SystemTime::now(), SystemTime::now());
        let incoming = sampled();
        assert_eq!(Tracer::off().open(Some(&incoming), "work", SpanKind::Server).context(), &incoming);
        assert!(ended.try_recv().is_err());
        let (all, mut ended) = Tracer::recording(1.0, &Metrics::new());
        drop(all.open(None, "work", SpanKind::Server));
        assert_eq!(ended.try_recv().unwrap().parent, None);
    }

    #[test]
    fn spans_beyond_the_bound_are_dropped_and_counted() {
        let metrics = Metrics::new();
        let (tracer, mut ended) = Tracer::recording(1.0, &metrics);
        for _ in 0..MAX_WAITING + 5 {
            drop(tracer.open(None, "work", SpanKind::Server));
        }
        assert_eq!(metrics.trace_spans.with_label_values(&["dropped"]).get(), 5);
        assert_eq!(std::iter::from_fn(|| ended.try_recv().ok()).count(), MAX_WAITING);
    }

    #[test]
    fn spans_of_a_shared_batch_link_to_each_other() {
        let (tracer, mut ended) = Tracer::recording(1.0, &Metrics::new());
        let parents = [sampled(), sampled(), sampled()];
        let mut spans: Vec<OpenSpan> =
            parents.iter().map(|parent| tracer.open(Some(parent), "batch", SpanKind::Internal)).collect();
        OpenSpan::link_all(&mut spans);
        let contexts: Vec<TraceContext> = spans.iter().map(|span| span.context().clone()).collect();
        drop(spans);
        for own in &contexts {
            let span = ended.try_recv().unwrap();
            let others: Vec<TraceContext> = contexts.iter().filter(|context| *context != own).cloned().collect();
            assert_eq!((&span.context, span.links), (own, others));
        }
    }
}
