//! Spans: parts of a trace, each with a time, a cause and attributes. No attribute contains what a client has written,
//! such as a prompt, except names of models.

use std::time::{Instant, SystemTime};

use super::Tracer;
use crate::generation::{SpanId, TraceContext};

/// A span that has ended.
#[derive(Clone, Debug)]
pub struct Span {
    pub context: TraceContext,
    /// `None` for the first span of a trace.
    pub parent: Option<SpanId>,
    pub name: String,
    pub kind: SpanKind,
    pub begun: SystemTime,
    pub ended: SystemTime,
    pub attributes: Vec<(&'static str, Attribute)>,
    /// Spans of other traces that have to do with this span.
    pub links: Vec<TraceContext>,
    /// A code of what went wrong.
    pub error: Option<String>,
}

/// The role of a span, with the numbers of OpenTelemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    Internal = 1,
    Server = 2,
    Client = 3,
    Consumer = 5,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    Text(String),
    Int(i64),
    Seconds(f64),
}

/// When something began, by the clock of the system and by a clock that only goes forward.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    wall: SystemTime,
    at: Instant,
}

/// A span that has begun. It ends when it is dropped. If the trace is not recorded, nothing happens then.
#[derive(Debug)]
pub struct OpenSpan {
    context: TraceContext,
    recorded: Option<Box<(Span, Moment, Tracer)>>,
}

/// The maximum number of links of a span, which bounds the size of the span.
const MAX_LINKS: usize = 64;

impl Moment {
    pub fn now() -> Moment {
        Moment { wall: SystemTime::now(), at: Instant::now() }
    }

    pub fn begun(self) -> SystemTime {
        self.wall
    }

    /// The present time, never before this moment.
    pub fn until_now(self) -> SystemTime {
        self.wall + self.at.elapsed()
    }
}

impl OpenSpan {
    /// A span that is not recorded. What it causes belongs to `context`.
    pub(super) fn unrecorded(context: TraceContext) -> OpenSpan {
        OpenSpan { context, recorded: None }
    }

    /// A span that began at `begun`.
    pub(super) fn recorded(span: Span, begun: Moment, tracer: Tracer) -> OpenSpan {
        OpenSpan { context: span.context.clone(), recorded: Some(Box::new((span, begun, tracer))) }
    }

    /// The context of what this span causes.
    pub fn context(&self) -> &TraceContext {
        &self.context
    }

    pub fn is_recorded(&self) -> bool {
        self.recorded.is_some()
    }

    /// Changes the span if it is recorded.
    pub fn note(&mut self, change: impl FnOnce(&mut Span)) {
        if let Some(recorded) = &mut self.recorded {
            change(&mut recorded.0);
        }
    }

    /// Adds an attribute.
    pub fn set(&mut self, name: &'static str, value: impl Into<Attribute>) {
        self.note(|span| span.attributes.push((name, value.into())));
    }

    /// Says that the work of the span has failed. `code` is a constant or an error code of the API.
    pub fn fail(&mut self, code: &str) {
        self.note(|span| span.error = Some(code.to_owned()));
    }

    /// Links the spans to each other, because they are the same work, done for several traces at once.
    pub fn link_all(spans: &mut [OpenSpan]) {
        let contexts: Vec<TraceContext> = spans.iter().map(|span| span.context.clone()).collect();
        for span in spans {
            let own = span.context.span;
            let others = contexts.iter().filter(|context| context.span != own).take(MAX_LINKS).cloned();
            span.note(|span| span.links = others.collect());
        }
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        if let Some(recorded) = self.recorded.take() {
            let (span, begun, tracer) = *recorded;
            tracer.record(Span { ended: begun.until_now(), ..span });
        }
    }
}

impl From<&str> for Attribute {
    fn from(text: &str) -> Attribute {
        Attribute::Text(text.to_owned())
    }
}

impl From<String> for Attribute {
    fn from(text: String) -> Attribute {
        Attribute::Text(text)
    }
}

impl From<usize> for Attribute {
    fn from(number: usize) -> Attribute {
        Attribute::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Attribute {
    fn from(number: u32) -> Attribute {
        Attribute::Int(number.into())
    }
}

impl From<std::time::Duration> for Attribute {
    fn from(duration: std::time::Duration) -> Attribute {
        Attribute::Seconds(duration.as_secs_f64())
    }
}
