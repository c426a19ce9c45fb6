//! What an experiment has found, in one line.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde_json::Value;

use crate::site::LEASE;

#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub accepted: usize,
    /// Accepted, and gone or without an end.
    pub lost: usize,
    /// More than one generation for one request, or one generation with more than one end.
    pub twice: usize,
    /// Rows of denoiser calls that were computed more than once, and those that were needed.
    pub repeated: Option<(f64, f64)>,
    /// From the fault until what it interrupted ran again.
    pub recovery: Option<Duration>,
    /// How many ended in which way: a status, or the code of an error.
    pub ends: BTreeMap<String, usize>,
    pub notes: Vec<String>,
}

impl Figures {
    pub fn ended_as(&mut self, generation: &Value) {
        let end = generation["error"]["code"].as_str().or(generation["status"].as_str()).unwrap();
        if end == "internal" {
            println!("internal: {} {}", generation["error"]["message"], generation["params"]);
        }
        *self.ends.entry(end.to_owned()).or_default() += 1;
    }

    /// Generations that failed by a fault of the server's own.
    pub fn internal(&self) -> usize {
        self.ends.get("internal").copied().unwrap_or_default()
    }

    pub fn note(mut self, note: impl Into<String>) -> Figures {
        self.notes.push(note.into());
        self
    }

    pub fn recovered_in(mut self, recovery: Duration) -> Figures {
        self.recovery = Some(recovery);
        self
    }

    pub fn repeated(mut self, repeated: f64, needed: f64) -> Figures {
        self.repeated = Some((repeated, needed));
        self
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "accepted {}, lost {}, visible twice {}", self.accepted, self.lost, self.twice)?;
        self.ends.iter().try_for_each(|(end, count)| write!(f, ", {count} {end}"))?;
        if let Some((repeated, needed)) = self.repeated {
            write!(f, ", steps repeated {repeated} of {needed}")?;
        }
        if let Some(recovery) = self.recovery {
            write!(f, ", recovery {:.2} leases", leases(recovery))?;
        }
        self.notes.iter().try_for_each(|note| write!(f, ", {note}"))
    }
}

/// A time in leases.
pub fn leases(time: Duration) -> f64 {
    time.as_secs_f64() / LEASE.as_secs_f64()
}
