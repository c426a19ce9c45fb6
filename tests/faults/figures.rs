//! The figures of an experiment, printed in one line.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde_json::Value;

use crate::site::LEASE;

/// Counts and times of one experiment.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// The number of accepted generations.
    pub accepted: usize,
    /// The number of accepted generations that are missing or do not end.
    pub lost: usize,
    /// The number of duplicates: requests with several generations, and generations with several ends.
    pub twice: usize,
    /// The number of steps that were computed more than once, and the number that was needed.
    pub repeated: Option<(f64, f64)>,
    /// The time from the fault until the interrupted work ran again.
    pub recovery: Option<Duration>,
    /// The number of generations by their end: a status, or the code of an error.
    pub ends: BTreeMap<String, usize>,
    pub notes: Vec<String>,
}

impl Figures {
    /// Counts the end of a generation by its status or error code.
    pub fn ended_as(&mut self, generation: &Value) {
        let end = generation["error"]["code"].as_str().or(generation["status"].as_str()).unwrap();
        if end == "internal" {
            println!("internal: {} {}", generation["error"]["message"], generation["params"]);
        }
        *self.ends.entry(end.to_owned()).or_default() += 1;
    }

    /// The number of generations that failed with an internal error.
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

/// A time as a multiple of the lease.
pub fn leases(time: Duration) -> f64 {
    time.as_secs_f64() / LEASE.as_secs_f64()
}
