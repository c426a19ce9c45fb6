//! The engine's policy: a pure function that chooses what to compute next.

use std::num::NonZeroUsize;

use super::BatchKey;
use crate::pipelines::calls::DECODING;

/// The limits of a batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Maximum number of rows.
    pub max_rows: NonZeroUsize,
    /// Maximum seconds of a call. Only a call of a single row may take longer; it pauses after each slice of this
    /// length.
    pub slice_s: f64,
    /// Maximum bytes of activations of all long calls together. A single long call may exceed it.
    pub max_bytes: u64,
}

/// A network call that a run awaits, in the form that the policy needs.
#[derive(Clone, Debug)]
pub struct WaitingCall {
    pub key: BatchKey,
    /// Number of open rows, at least 1.
    pub rows: usize,
    /// Maximum number of rows of one batch; `usize::MAX` if the call has no limit of its own.
    pub most_rows: usize,
    /// Expected seconds per row.
    pub seconds: f64,
    /// Maximum bytes of activations per row.
    pub bytes: u64,
    /// The work that the run has received, in multiplications, plus the service with which it started.
    pub service: f64,
    /// The run's number in the order of arrival.
    pub arrival: u64,
    /// Latent pixels of the run's pictures that are being decoded, whose activations the run holds.
    pub holds: usize,
    /// Latent pixels of the pictures whose decoding begins with this call; 0 if none begins.
    pub begins: usize,
}

/// A paused call.
#[derive(Clone, Copy, Debug)]
pub struct PausedCall {
    /// The least service of its runs.
    pub service: f64,
    /// The smallest arrival number of its runs.
    pub arrival: u64,
    /// Maximum bytes of its activations.
    pub bytes: u64,
    /// The sum of [`WaitingCall::holds`] over its runs.
    pub holds: usize,
}

/// The policy's decision. `for_run` is an index into the waiting calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Begin a call with these rows, which all have the same key.
    Begin { picks: Vec<Pick>, for_run: Option<usize> },
    /// Compute a slice of the paused call with this index.
    ///
    /// `for_run` is set if the turn belongs to a run that is not part of this call. That run cannot begin before other
    /// runs end, so it gives its turn to them and is charged for the slice.
    Continue { call: usize, for_run: Option<usize> },
    /// No call waits and no call is paused.
    Nothing,
}

/// The rows of one waiting call that join the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Index into the waiting calls.
    pub waiting: usize,
    pub rows: usize,
}

/// Latent pixels of the pictures that are being decoded.
#[derive(Clone, Copy, Debug, Default)]
struct Decoding {
    /// Latent pixels of pictures that are small enough to share the decoder, at most [`DECODING`] each.
    small: usize,
    /// Whether a larger picture is being decoded.
    large: bool,
}

impl Decoding {
    fn add(self, latent_pixels: usize) -> Decoding {
        if latent_pixels > DECODING {
            Decoding { large: true, ..self }
        } else {
            Decoding { small: self.small + latent_pixels, ..self }
        }
    }

    /// Whether the run may continue. A decode that has begun always may. A decode that would begin needs room for all
    /// of its rows: next to other small pictures, or as the only large one.
    fn admits(self, run: &WaitingCall) -> bool {
        if run.begins > DECODING {
            return !self.large;
        }
        run.begins == 0 || self.small == 0 || self.small + run.begins <= DECODING
    }
}

/// Start-time fair queueing. The turn goes to the run with the least service, then to the oldest, and its call
/// determines the key of the batch. Other runs with the same key join in the same order; the last one may join with
/// only some of its rows. No run waits for a batch to fill. The result is [`Next::Nothing`] only if no call waits or is
/// paused.
///
/// A call takes at most one slice of time. If a single row takes longer, the call pauses after each slice and waits for
/// its next turn like the waiting calls. So the run with the least service waits for at most one slice.
///
/// Memory has two limits. The activations of all long calls together fit `max_bytes`, unless there is only one such
/// call. The pictures that are being decoded are limited in latent pixels. If the first run wants to begin something
/// that finds no room, its turn goes to the first, in the same order, of the runs that occupy the room. So all waiting
/// runs help the same run to end, and runs that arrive later cannot delay both. The run that gives its turn away is
/// charged for the work, so the runs behind it wait for one slice, not for the end of the call.
pub fn choose(waiting: &[WaitingCall], paused: &[PausedCall], limits: BatchLimits) -> Next {
    let by_turn =
        |(a, a_arrival): (f64, u64), (b, b_arrival): (f64, u64)| a.total_cmp(&b).then(a_arrival.cmp(&b_arrival));
    let mut order: Vec<usize> = (0..waiting.len()).collect();
    let turn = |index: usize| (waiting[index].service, waiting[index].arrival);
    order.sort_by(|&a, &b| by_turn(turn(a), turn(b)));
    let first_aside = |of: &dyn Fn(&PausedCall) -> bool| {
        let calls = paused.iter().enumerate().filter(|(_, call)| of(call));
        let first = calls.min_by(|(_, a), (_, b)| by_turn((a.service, a.arrival), (b.service, b.arrival)));
        first.map(|(index, call)| (index, (call.service, call.arrival)))
    };
    let next_aside = first_aside(&|_| true);
    let before = |paused: Option<(usize, (f64, u64))>, head: usize| {
        paused.filter(|(_, of_call)| by_turn(*of_call, turn(head)).is_le()).map(|(index, _)| index)
    };
    let Some(&first) = order.first() else {
        return next_aside.map_or(Next::Nothing, |(call, _)| Next::Continue { call, for_run: None });
    };
    if let Some(call) = before(next_aside, first) {
        return Next::Continue { call, for_run: None };
    }

    let held = waiting.iter().map(|run| run.holds).chain(paused.iter().map(|call| call.holds));
    let mut decoding = held.filter(|holds| *holds > 0).fold(Decoding::default(), Decoding::add);
    let mut head = first;
    if !decoding.admits(&waiting[first]) {
        let is_large = waiting[first].begins > DECODING;
        let is_in_the_way = |holds: usize| holds > 0 && (holds > DECODING) == is_large;
        let open = order.iter().copied().find(|&index| is_in_the_way(waiting[index].holds));
        let under_way = first_aside(&|call| is_in_the_way(call.holds));
        match (open, under_way) {
            (None, Some((call, _))) => return Next::Continue { call, for_run: Some(first) },
            (Some(open), under_way) => match before(under_way, open) {
                Some(call) => return Next::Continue { call, for_run: Some(first) },
                None => head = open,
            },
            (None, None) => {}
        }
    }
    let run = &waiting[head];
    let taken: u64 = paused.iter().map(|call| call.bytes).sum();
    let has_room = run.seconds <= limits.slice_s || taken.saturating_add(run.bytes) <= limits.max_bytes;
    if let (false, Some((call, _))) = (has_room, next_aside) {
        return Next::Continue { call, for_run: Some(first) };
    }

    let key = &run.key;
    let mut room = Room {
        rows: limits.max_rows.get().min(run.most_rows),
        seconds: limits.slice_s,
        bytes: limits.max_bytes,
        is_overdrawn: false,
    };
    let mut picks = Vec::new();
    // If the first run gave its turn to a decode in progress, `head` need not be the first run with its key.
    let others = order.into_iter().filter(|&index| index != head && waiting[index].key == *key);
    for index in std::iter::once(head).chain(others) {
        let run = &waiting[index];
        let rows = room.rows_of(run).max(usize::from(picks.is_empty()));
        if rows == 0 {
            break;
        }
        if index != head && !decoding.admits(run) {
            continue;
        }
        decoding = decoding.add(run.begins);
        room.take(run, rows);
        picks.push(Pick { waiting: index, rows });
    }
    Next::Begin { picks, for_run: (head != first).then_some(first) }
}

/// What is left of the limits of a batch.
struct Room {
    rows: usize,
    seconds: f64,
    bytes: u64,
    /// A row takes more time or memory than was left, so it is computed alone.
    is_overdrawn: bool,
}

impl Room {
    /// How many rows of the run fit; 0 if the batch already exceeds its limits.
    fn rows_of(&self, run: &WaitingCall) -> usize {
        if self.is_overdrawn {
            return 0;
        }
        let by_time = if run.seconds > 0.0 { (self.seconds / run.seconds) as usize } else { usize::MAX };
        let by_bytes = self.bytes.checked_div(run.bytes).map_or(usize::MAX, |rows| rows as usize);
        run.rows.min(self.rows).min(by_time).min(by_bytes)
    }

    fn take(&mut self, run: &WaitingCall, rows: usize) {
        self.rows -= rows;
        self.seconds -= rows as f64 * run.seconds;
        let left = self.bytes.checked_sub(rows as u64 * run.bytes);
        self.is_overdrawn |= left.is_none() || self.seconds < 0.0;
        self.bytes = left.unwrap_or(0);
    }
}

#[cfg(test)]
mod tests;
