//! Logging.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{Log, LogFormat};

/// Whether the settings can be used.
///
/// # Errors
/// The filter cannot be parsed; the text says where.
pub fn check(log: &Log) -> Result<(), String> {
    filter(log).map(drop)
}

/// Sends log lines to standard error, as the settings say.
///
/// # Errors
/// The filter cannot be parsed; the text says where.
pub fn init(log: &Log) -> Result<(), String> {
    let registry = tracing_subscriber::registry().with(filter(log)?);
    let started = match log.format {
        // Colours are for eyes: a file or a collector gets plain text.
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal();
            registry.with(fmt::layer().with_ansi(colours).with_writer(std::io::stderr)).try_init()
        }
        LogFormat::Json => {
            registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init()
        }
    };
    // A second call keeps the first subscriber, as tests that build several apps in one process need.
    drop(started);
    Ok(())
}

fn filter(log: &Log) -> Result<EnvFilter, String> {
    EnvFilter::try_new(&log.filter)
        .map_err(|error| format!("log.filter: {error}; expected info, or latentd=debug,info for one target more"))
}
