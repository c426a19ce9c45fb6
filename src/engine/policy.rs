//! What runs next: a pure function.

use std::num::NonZeroUsize;

use super::Key;
use crate::pipelines::calls::DECODING;

/// The bounds of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_rows: NonZeroUsize,
    /// Seconds that a call may take, unless it is a single row that takes longer. Such a long call is put aside after each
    /// slice of so many seconds.
    pub slice_s: f64,
    /// Bytes of activations that the long calls may hold together; one alone may hold more.
    pub max_bytes: u64,
}

/// A run's open ask, as the policy sees it.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub key: Key,
    /// Rows that have no answer yet, 1 or more.
    pub rows: usize,
    /// Most rows of one batch, where the network has a bound of its own.
    pub most_rows: usize,
    /// What each row is expected to take.
    pub seconds: f64,
    /// Bytes of activations of each row, at most.
    pub bytes: u64,
    /// What the run has received so far, in multiplications, counted from the level at which it came in.
    pub service: f64,
    /// The order of arrival.
    pub arrival: u64,
    /// Latent pixels of the pictures whose decoding is under way, that is of the activations that the run holds.
    pub holds: usize,
    /// Latent pixels of the pictures whose decoding begins with its first row; 0 where none begins.
    pub begins: usize,
}

/// A call that was put aside.
#[derive(Clone, Copy, Debug)]
pub struct Aside {
    /// The least of its runs.
    pub service: f64,
    pub arrival: u64,
    /// Bytes of activations, at most.
    pub bytes: u64,
    /// As in [`Waiting`], of all its runs.
    pub holds: usize,
}

/// What runs next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A new call of these rows, which all have one key.
    Begin { picks: Vec<Pick>, for_run: Option<usize> },
    /// A slice of a call that was put aside, by its index.
    ///
    /// `for_run` is the waiting run whose turn it is, if it is none of the call's: that run cannot begin before others have
    /// ended, so it gives its turn to them and pays.
    Continue { call: usize, for_run: Option<usize> },
    /// Nothing waits.
    Nothing,
}

/// How many rows of which waiting run join the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Index into the slice of waiting runs.
    pub waiting: usize,
    pub rows: usize,
}

/// The latent pixels that are being decoded.
#[derive(Clone, Copy, Debug, Default)]
struct Decoding {
    /// Of pictures that are small enough to be decoded beside others.
    small: usize,
    /// Whether a larger picture is among them.
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

    /// Whether the run may go on. What has begun always may. What would begin needs room for all of its rows: beside other
    /// small pictures, or as the only large one.
    fn admits(self, run: &Waiting) -> bool {
        if run.begins > DECODING {
            return !self.large;
        }
        run.begins == 0 || self.small == 0 || self.small + run.begins <= DECODING
    }
}

/// Start-time fair queueing: the run that has received least is first, then the oldest, and its key is the batch's.
/// Runs of the same key fill the batch in the same order; the last may join with some of its rows only. Nothing waits
/// for a batch to fill. [`Next::Nothing`] only if nothing waits.
///
/// A call takes a slice of time at most. Where a single row takes longer, its call is put aside after each slice and waits for
/// its turn as the open asks do. So a run that has received least waits for one slice, whatever is beside it.
///
/// Memory is bounded twice. The activations of long calls fit `max_bytes` together, or there is one such call. The
/// activations of pictures that are being decoded are bounded by latent pixels. Where the first run wants to begin something
/// for which there is no room, its turn goes to the first in the order of those that take the room: so it is this one's end
/// that everybody helps to, and no run that comes in meanwhile can hold up both. Whoever gives a turn away has had it: it
/// is charged for what is done, so that those behind it in the order wait for one slice and not for the end of the call.
pub fn choose(waiting: &[Waiting], aside: &[Aside], limits: Limits) -> Next {
    let by_turn =
        |(a, a_arrival): (f64, u64), (b, b_arrival): (f64, u64)| a.total_cmp(&b).then(a_arrival.cmp(&b_arrival));
    let mut order: Vec<usize> = (0..waiting.len()).collect();
    let turn = |index: usize| (waiting[index].service, waiting[index].arrival);
    order.sort_by(|&a, &b| by_turn(turn(a), turn(b)));
    let first_aside = |of: &dyn Fn(&Aside) -> bool| {
        let calls = aside.iter().enumerate().filter(|(_, call)| of(call));
        let first = calls.min_by(|(_, a), (_, b)| by_turn((a.service, a.arrival), (b.service, b.arrival)));
        first.map(|(index, call)| (index, (call.service, call.arrival)))
    };
    let next_aside = first_aside(&|_| true);
    let before = |aside: Option<(usize, (f64, u64))>, head: usize| {
        aside.filter(|(_, of_call)| by_turn(*of_call, turn(head)).is_le()).map(|(index, _)| index)
    };
    let Some(&first) = order.first() else {
        return next_aside.map_or(Next::Nothing, |(call, _)| Next::Continue { call, for_run: None });
    };
    if let Some(call) = before(next_aside, first) {
        return Next::Continue { call, for_run: None };
    }

    let held = waiting.iter().map(|run| run.holds).chain(aside.iter().map(|call| call.holds));
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
    let taken: u64 = aside.iter().map(|call| call.bytes).sum();
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
    // Where a decode gave its turn away, the head is not the first of its key in the order, and is picked all the same.
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

/// What is left of a batch's bounds.
struct Room {
    rows: usize,
    seconds: f64,
    bytes: u64,
    /// A row takes more time or memory than there was: it goes alone.
    is_overdrawn: bool,
}

impl Room {
    /// How many rows of the run fit. None fits beside a row that alone takes more than there is.
    fn rows_of(&self, run: &Waiting) -> usize {
        if self.is_overdrawn {
            return 0;
        }
        let by_time = if run.seconds > 0.0 { (self.seconds / run.seconds) as usize } else { usize::MAX };
        let by_bytes = self.bytes.checked_div(run.bytes).map_or(usize::MAX, |rows| rows as usize);
        run.rows.min(self.rows).min(by_time).min(by_bytes)
    }

    fn take(&mut self, run: &Waiting, rows: usize) {
        self.rows -= rows;
        self.seconds -= rows as f64 * run.seconds;
        let left = self.bytes.checked_sub(rows as u64 * run.bytes);
        self.is_overdrawn |= left.is_none() || self.seconds < 0.0;
        self.bytes = left.unwrap_or(0);
    }
}

#[cfg(test)]
mod tests;
