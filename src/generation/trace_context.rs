//! The trace that a request belongs to: the headers `traceparent` and `tracestate` of
//! [W3C Trace Context](https://www.w3.org/TR/trace-context/), level 1.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The number of a trace; never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// The number of a span, unique in its trace; never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

/// A place in a trace: the span that causes what follows. A generation stores the context of its request, so that every
/// process that works on the generation continues the same trace. The context has no effect on the result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct TraceContext {
    pub trace: TraceId,
    pub span: SpanId,
    /// Whether spans of the trace are recorded.
    pub is_sampled: bool,
    /// The valid entries of `tracestate`, at most [`MAX_STATE_CHARS`] characters of ASCII.
    state: String,
}

/// Longest `tracestate` that is passed on; the standard demands at least this length.
const MAX_STATE_CHARS: usize = 512;
/// The maximum number of entries of a `tracestate`. A header with more entries is ignored, as the standard says.
const MAX_STATE_ENTRIES: usize = 32;
/// Entries that are longer are dropped first if the `tracestate` is too long, as the standard says.
const LONG_ENTRY_CHARS: usize = 128;

impl TraceContext {
    /// The first span of a new trace.
    pub fn root(is_sampled: impl FnOnce(TraceId) -> bool) -> TraceContext {
        let trace = TraceId(*Uuid::new_v4().as_bytes());
        TraceContext { trace, span: SpanId::random(), is_sampled: is_sampled(trace), state: String::new() }
    }

    /// A new span in the same trace.
    pub fn child(&self) -> TraceContext {
        TraceContext { span: SpanId::random(), ..self.clone() }
    }

    /// Reads the headers of a message: all values of `traceparent` and of `tracestate`. `None` if there is not exactly
    /// one valid `traceparent`. An invalid `tracestate` is left out.
    pub fn read<'a>(
        mut parents: impl Iterator<Item = &'a [u8]>,
        states: impl Iterator<Item = &'a [u8]>,
    ) -> Option<TraceContext> {
        let (parent, None) = (parents.next()?, parents.next()) else { return None };
        let (trace, span, is_sampled) = parent_of(std::str::from_utf8(parent).ok()?)?;
        Some(TraceContext { trace, span, is_sampled, state: state_of(states).unwrap_or_default() })
    }

    /// The value of the header `traceparent`.
    pub fn traceparent(&self) -> String {
        format!("00-{:?}-{:?}-{:02x}", self.trace, self.span, u8::from(self.is_sampled))
    }

    /// The value of the header `tracestate`; empty if there is none.
    pub fn tracestate(&self) -> &str {
        &self.state
    }
}

impl TraceId {
    /// A number from 0 to 1 that is the same for all spans of the trace, evenly distributed over traces.
    pub fn fraction(self) -> f64 {
        let random = self.0[9..].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        random as f64 / (1_u64 << 56) as f64
    }
}

impl SpanId {
    fn random() -> SpanId {
        let bytes = *Uuid::new_v4().as_bytes();
        // Some bits of each half are constant, but they are different bits in the two halves.
        SpanId(std::array::from_fn(|at| bytes[at] ^ bytes[at + 8]))
    }
}

/// The parts of a valid `traceparent`. If the version is later than 00, only the parts that version 00 has are read.
fn parent_of(text: &str) -> Option<(TraceId, SpanId, bool)> {
    let (known, more) = text.split_at_checked(55)?;
    let parts: Vec<&str> = known.split('-').collect();
    let [version, trace, span, flags] = parts[..] else { return None };
    let [version] = hex(version)?;
    let is_complete = if version == 0 { more.is_empty() } else { more.is_empty() || more.starts_with('-') };
    let (trace, span, [flags]) = (hex(trace)?, hex(span)?, hex(flags)?);
    let is_valid = version != 0xff && is_complete && trace != [0; 16] && span != [0; 8];
    is_valid.then_some((TraceId(trace), SpanId(span), flags & 1 == 1))
}

/// Exactly `N` bytes in lower-case hexadecimal digits.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 2 * N || !text.bytes().all(is_digit) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// The entries of all `tracestate` headers, without empty ones. `None` if an entry is invalid.
fn state_of<'a>(headers: impl Iterator<Item = &'a [u8]>) -> Option<String> {
    let mut entries: Vec<&str> = Vec::new();
    for header in headers {
        for entry in std::str::from_utf8(header).ok()?.split(',').map(|entry| entry.trim_matches([' ', '\t'])) {
            if entry.is_empty() {
                continue;
            }
            let (key, value) = entry.split_once('=')?;
            let is_repeated = || entries.iter().any(|other| other.split_once('=').is_some_and(|(of, _)| of == key));
            if !is_key(key) || !is_value(value) || entries.len() == MAX_STATE_ENTRIES || is_repeated() {
                return None;
            }
            entries.push(entry);
        }
    }
    while entries.iter().map(|entry| entry.len() + 1).sum::<usize>() > MAX_STATE_CHARS + 1 {
        let long = entries.iter().rposition(|entry| entry.len() > LONG_ENTRY_CHARS);
        entries.remove(long.unwrap_or(entries.len() - 1));
    }
    Some(entries.join(","))
}

fn is_key(key: &str) -> bool {
    let is_one_of =
        |text: &str| text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/'));
    let begins_with_letter = |text: &str| text.starts_with(|first: char| first.is_ascii_lowercase());
    match key.split_once('@') {
        None => (1..=256).contains(&key.len()) && begins_with_letter(key) && is_one_of(key),
        Some((tenant, system)) => {
            let begins = tenant.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
            begins
                && tenant.len() <= 241
                && is_one_of(tenant)
                && system.len() <= 14
                && begins_with_letter(system)
                && is_one_of(system)
        }
    }
}

fn is_value(value: &str) -> bool {
    (1..=256).contains(&value.len()) && value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'=')
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// The form of a context in a stored job.
#[derive(Serialize, Deserialize)]
struct Stored {
    traceparent: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    tracestate: String,
}

impl From<TraceContext> for Stored {
    fn from(context: TraceContext) -> Stored {
        Stored { traceparent: context.traceparent(), tracestate: context.state }
    }
}

impl TryFrom<Stored> for TraceContext {
    type Error = &'static str;

    fn try_from(stored: Stored) -> Result<TraceContext, &'static str> {
        let (parent, state) = (stored.traceparent.as_bytes(), stored.tracestate.as_bytes());
        TraceContext::read([parent].into_iter(), [state].into_iter()).ok_or("the traceparent is invalid")
    }
}

#[cfg(test)]
mod tests;
