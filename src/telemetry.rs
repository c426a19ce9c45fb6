//! Log output, and traces: the format and filter of the log lines on standard error; spans and their export.

mod exporter;
mod otlp;
mod panics;
mod span;
mod tracer;

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{Log, LogFormat};

pub use exporter::Exporter;
pub use span::{Attribute, Moment, OpenSpan, Span, SpanKind};
pub use tracer::Tracer;

/// Checks the log settings without applying them.
///
/// # Errors
/// The filter cannot be parsed; the text says where.
pub fn check(log: &Log) -> Result<(), String> {
    filter(log).map(drop)
}

/// Starts logging to standard error with the given settings, also of panics. The first call in a process decides.
///
/// # Errors
/// The filter cannot be parsed; the text says where.
pub fn init(log: &Log) -> Result<(), String> {
    let registry = tracing_subscriber::registry().with(filter(log)?);
    let started = match log.format {
        // Only terminals get colors; files and log collectors get plain text.
        LogFormat::Text => {
            let colors = std::io::stderr().is_terminal();
            registry.with(fmt::layer().with_ansi(colors).with_writer(std::io::stderr)).try_init()
        }
        LogFormat::Json => registry
            .with(fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(std::io::stderr))
            .try_init(),
    };
    panics::log_panics();
    // A second call keeps the first subscriber, because tests build several apps in one process.
    drop(started);
    Ok(())
}

fn filter(log: &Log) -> Result<EnvFilter, String> {
    // The library of content credentials logs what is wrong with the files of clients, in their words.
    EnvFilter::try_new(format!("c2pa=off,{}", log.filter)).map_err(|error| {
        format!("log.filter: {error}; expected a level such as info, or latentd=debug,info for more of latentd")
    })
}
