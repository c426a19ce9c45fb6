//! What a run is given of its log, and what it adds to it.

use std::time::{Duration, Instant};

use prometheus::IntCounter;

use super::log::Log;

/// A portion is handed over early at this size: half a minute of a large model's steps, little beside its activations.
const PORTION_BYTES: usize = 16 << 20;
/// Nothing more is recorded while so much waits to be handed over.
const WAITING_BYTES: usize = 64 << 20;
/// The log of one run ends at this size, for whoever resumes it holds it in memory: 50 steps of eight guided pictures of
/// 1024 × 1024 pixels take 200 MiB. What comes later is computed again.
const LOG_BYTES: usize = 256 << 20;

/// The log of one run on its way: answers that are known come out of it, answers that are new go into it.
pub(super) struct Recording {
    known: std::vec::IntoIter<Vec<Vec<f32>>>,
    /// Counts the rows that were answered by it.
    replayed: IntCounter,
    /// New answers that nobody has been handed; it begins where the known ones end.
    fresh: Log,
    /// `None` records nothing.
    interval: Option<Duration>,
    handed_over: Instant,
    /// Bytes that the log may still grow by.
    room: usize,
}

impl Recording {
    /// `known` are the first asks of the run; portions are due at each `interval`.
    pub fn new(known: Log, interval: Option<Duration>, replayed: IntCounter) -> Recording {
        Recording {
            room: LOG_BYTES.saturating_sub(known.bytes()),
            known: known.asks.into_iter(),
            replayed,
            fresh: Log::default(),
            interval,
            handed_over: Instant::now(),
        }
    }

    /// The known answer to the next ask, of so many rows of so many values. An answer of other sizes is not this run's, and
    /// so are none behind it.
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

    /// Whether the next ask is one that is known.
    pub fn replays(&self) -> bool {
        self.known.len() > 0
    }

    /// Takes up a whole answer of the network, as the numbers of its rows. `None`, for one that is more than numbers, ends the
    /// log.
    pub fn record(&mut self, answers: Option<Vec<&[f32]>>) {
        let size = |rows: &[&[f32]]| rows.iter().map(|row| 4 * row.len()).sum::<usize>();
        match answers {
            _ if self.interval.is_none() => {}
            Some(rows) if size(&rows) <= self.room && self.fresh.bytes() <= WAITING_BYTES => {
                self.room -= size(&rows);
                self.fresh.asks.push(rows.into_iter().map(<[f32]>::to_vec).collect());
            }
            // A log with a gap would be none.
            _ => self.room = 0,
        }
    }

    /// The next portion, if it is time for it.
    pub fn due(&mut self) -> Option<Log> {
        let interval = self.interval?;
        let is_due = self.handed_over.elapsed() >= interval || self.fresh.bytes() >= PORTION_BYTES;
        if is_due { self.rest() } else { None }
    }

    /// All that was not handed over.
    pub fn rest(&mut self) -> Option<Log> {
        if self.fresh.asks.is_empty() {
            return None;
        }
        self.handed_over = Instant::now();
        let next = Log { first: self.fresh.first + self.fresh.asks.len(), asks: Vec::new() };
        Some(std::mem::replace(&mut self.fresh, next))
    }

    /// A portion that nobody took, to be handed over later.
    pub fn give_back(&mut self, portion: Log) {
        let later = std::mem::replace(&mut self.fresh, portion);
        self.fresh.join(later);
    }
}
