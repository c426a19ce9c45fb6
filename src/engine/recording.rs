//! The log of a run that is being computed: replays known network outputs and records new ones.

use std::time::{Duration, Instant};

use prometheus::IntCounter;

use super::log::Log;

/// A portion that reaches this size, in bytes, is due before its interval ends. Such a portion holds 32 guided steps of
/// one picture of 1024 × 1024 pixels, and takes little memory compared to the activations.
const PORTION_BYTES: usize = 16 << 20;
/// The maximum number of bytes that wait for the run's [`Observer`](super::Observer), which stores portions. If more
/// bytes wait, recording stops.
const WAITING_BYTES: usize = 64 << 20;
/// Maximum bytes of one run's log, because the process that resumes the run holds the log in memory: 50 steps of eight
/// guided pictures of 1024 × 1024 pixels take 200 MiB. Later outputs are not recorded, and a resumed run computes them
/// again.
const LOG_BYTES: usize = 256 << 20;

/// The log of one run. Known answers are taken from it, new answers are added to it.
pub(super) struct Recording {
    /// Answers from the log of an earlier run, one item per logged call.
    known: std::vec::IntoIter<Vec<Vec<f32>>>,
    /// Counts the rows that were answered from the log.
    replayed: IntCounter,
    /// New answers that the observer has not received yet. They follow the known answers.
    fresh: Log,
    /// Time between two portions; `None` disables recording.
    interval: Option<Duration>,
    handed_over: Instant,
    /// Bytes by which the log may still grow.
    room: usize,
}

impl Recording {
    /// `known` holds the answers to the first logged calls of the run. A portion is due every `interval`.
    pub fn new(known: Log, interval: Option<Duration>, replayed: IntCounter) -> Recording {
        Recording {
            room: LOG_BYTES.saturating_sub(known.bytes()),
            known: known.calls.into_iter(),
            replayed,
            fresh: Log::default(),
            interval,
            handed_over: Instant::now(),
        }
    }

    /// The known answer to the next call, which has `rows` rows of `values` numbers each. An answer of other sizes does
    /// not belong to this run; it and all later answers of the log are dropped.
    pub fn next(&mut self, rows: usize, values: usize) -> Option<Vec<Vec<f32>>> {
        let known = self.known.next()?;
        if known.len() != rows || known.iter().any(|row| row.len() != values) {
            tracing::warn!("a log does not fit its generation, which goes on without it");
            self.known = Vec::new().into_iter();
            return None;
        }
        self.replayed.inc_by(rows as u64);
        self.fresh.first += 1;
        Some(known)
    }

    /// Whether the log has an answer to the next call.
    pub fn replays(&self) -> bool {
        self.known.len() > 0
    }

    /// Records the answers of one call, with one slice of numbers per row. `answers` is `None` if numbers alone cannot
    /// represent them; then the log ends here.
    pub fn record(&mut self, answers: Option<Vec<&[f32]>>) {
        let size = |rows: &[&[f32]]| rows.iter().map(|row| 4 * row.len()).sum::<usize>();
        match answers {
            _ if self.interval.is_none() => {}
            Some(rows) if size(&rows) <= self.room && self.fresh.bytes() <= WAITING_BYTES => {
                self.room -= size(&rows);
                self.fresh.calls.push(rows.into_iter().map(<[f32]>::to_vec).collect());
            }
            // A log must not have a gap, so nothing is recorded after this answer.
            _ => self.room = 0,
        }
    }

    /// The next portion, if it is due.
    pub fn due(&mut self) -> Option<Log> {
        let interval = self.interval?;
        let is_due = self.handed_over.elapsed() >= interval || self.fresh.bytes() >= PORTION_BYTES;
        if is_due { self.rest() } else { None }
    }

    /// Everything that was not handed over yet.
    pub fn rest(&mut self) -> Option<Log> {
        if self.fresh.calls.is_empty() {
            return None;
        }
        self.handed_over = Instant::now();
        let next = Log { first: self.fresh.first + self.fresh.calls.len(), calls: Vec::new() };
        Some(std::mem::replace(&mut self.fresh, next))
    }

    /// Takes back a portion that the observer did not store; the next portion begins with it.
    pub fn give_back(&mut self, portion: Log) {
        let later = std::mem::replace(&mut self.fresh, portion);
        self.fresh.join(later);
    }
}
