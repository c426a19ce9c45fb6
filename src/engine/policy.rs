//! The engine's policy: a pure function that chooses what to compute next.

use std::{cmp::Ordering, num::NonZeroUsize};

use super::BatchKey;
use crate::pipelines::calls::DECODING;

/// The limits of a batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Maximum number of rows.
    pub max_rows: NonZeroUsize,
    /// Maximum expected seconds of a batch of several rows. A single row that is expected to take longer is a *long*
    /// batch; it pauses after each slice of this length. Two films may share a long batch.
    pub slice_s: f64,
    /// Maximum bytes of activations. The limit holds for each batch, and for the sum of a new long batch and all paused
    /// batches. Exceptions: a single row that is not long may always exceed the limit, and a long one may exceed it if
    /// no batch is paused.
    pub max_bytes: u64,
    /// Bytes of the device's memory that are free now; `u64::MAX` if this is unknown. The memory of paused batches is
    /// in use, so it is not part of this number. The activations of a batch take at most this number of bytes, except
    /// that a single row may exceed it if no batch is paused.
    pub free: u64,
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
    pub turn: Turn,
    /// Whether the run makes films.
    pub is_film: bool,
    /// Latent pixels of each of the run's pictures; 0 if the call decodes none.
    pub picture: usize,
    /// Latent pixels of the run's pictures that are being decoded, whose activations the run holds.
    pub holds: usize,
    /// Latent pixels of the pictures whose decoding begins with this call; 0 if none begins.
    pub begins: usize,
}

/// The place of a run in the order in which runs have their turns: see [`Turn::order`].
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// The work that the run's account was charged for, in multiplications, plus the service with which the account
    /// started. A slice is charged to the accounts of the runs of its batch. If another run gave its turn to the batch,
    /// the slice is charged to the account of that run alone.
    pub service: f64,
    /// The number of the account: the arrival number of the first run that has the account. All runs that make films
    /// with one model share an account, so they have equal service. Each other run has its own account.
    pub account: u64,
    /// The part of the account's charges that were for this run, plus a start value. It orders the runs of one account.
    pub own: f64,
    /// The run's number in the order of arrival.
    pub arrival: u64,
}

impl Turn {
    /// The turn of a run that has its own account.
    pub fn alone(service: f64, arrival: u64) -> Turn {
        Turn { service, account: arrival, own: 0.0, arrival }
    }

    /// `Less` if `self` comes before `other`. The account with the least service is first; among accounts with equal
    /// service, the oldest. Within an account, the run that was charged least is first; among runs that were charged
    /// equally, the oldest.
    pub fn order(&self, other: &Turn) -> Ordering {
        let accounts = self.service.total_cmp(&other.service).then(self.account.cmp(&other.account));
        accounts.then(self.own.total_cmp(&other.own)).then(self.arrival.cmp(&other.arrival))
    }
}

/// A paused batch, in the form that the policy needs.
#[derive(Clone, Debug)]
pub struct PausedBatch {
    pub key: BatchKey,
    /// The first turn of its runs.
    pub turn: Turn,
    /// Whether all of its runs make films.
    pub is_film: bool,
    /// Maximum bytes of its activations.
    pub bytes: u64,
    /// Latent pixels of each picture that it decodes; 0 if it decodes none.
    pub picture: usize,
    /// The sum of [`WaitingCall::holds`] over its runs.
    pub holds: usize,
}

/// The policy's decision. `charged` is the index of the waiting call whose run gave its turn to this batch and is
/// charged for the slice. `None`: the runs of the batch are charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Begin a batch of these rows, which all have the same key.
    Begin { picks: Vec<Pick>, charged: Option<usize> },
    /// Compute a slice of the paused batch with this index.
    Continue { batch: usize, charged: Option<usize> },
    /// No call waits and no batch is paused.
    Nothing,
}

/// The rows of one waiting call that join the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Index into the waiting calls.
    pub waiting: usize,
    pub rows: usize,
}

/// A group of pictures of similar size. Each lane has its own limit of latent pixels that are decoded at the same time,
/// so that a picture never waits for the decoding of much larger pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    /// Pictures of at most a quarter of [`DECODING`] latent pixels.
    Small,
    /// Larger pictures of at most [`DECODING`] latent pixels.
    Medium,
    Large,
}

impl Lane {
    fn of(picture: usize) -> Lane {
        match picture {
            0..=SMALL => Lane::Small,
            _ if picture <= DECODING => Lane::Medium,
            _ => Lane::Large,
        }
    }
}

/// Maximum number of latent pixels of a picture in [`Lane::Small`].
const SMALL: usize = DECODING / 4;

/// Latent pixels of the pictures that are being decoded, for each lane.
#[derive(Clone, Copy, Debug, Default)]
struct Decoding([usize; 3]);

impl Decoding {
    fn add(mut self, picture: usize, latent_pixels: usize) -> Decoding {
        self.0[Lane::of(picture) as usize] += latent_pixels;
        self
    }

    /// Whether the run may continue. A decode that has begun may always continue. A decode that would begin needs room
    /// in its lane for all of its rows. A lane has room for [`DECODING`] latent pixels, or for one larger picture.
    fn admits(self, run: &WaitingCall) -> bool {
        let held = self.0[Lane::of(run.picture) as usize];
        run.begins == 0 || held == 0 || held + run.begins <= DECODING
    }
}

/// Maximum number of films that share a long batch. Such a batch has one row more than the long batch of a single film.
/// So on a device that does not pause, a picture that waits for the batch waits for at most one row more.
const FILMS: usize = 2;

/// Start-time fair queueing. The turn goes to the first run in the order of [`Turn::order`], and the call of this run
/// determines the key of the batch. Other runs with the same key join in the same order; the last one may join with
/// only some of its rows. No run waits for a batch to fill.
///
/// Films of one model have turns like a single run: they share an account. So a second film delays the end of a picture
/// by at most one step of a film. If a slice is too short for two rows of films, the batch takes one row from each of
/// at most `FILMS` films and is long. A film that arrives while another film is in the middle of such a call waits for
/// the end of this call, so that both films share the next call. Meanwhile the paused batch has the turns of the
/// account.
///
/// A batch takes at most one slice of time. A long batch pauses after each slice and waits for its next turn like the
/// waiting calls. So the run with the least service waits for at most one slice.
///
/// Memory has three limits:
///
/// 1. The activations of all paused batches and of a new long batch together take at most `max_bytes`.
/// 2. The activations of a new batch take at most the free memory of the device. If the first run's call would exceed
///    limit 1 or 2, the first paused batch gets the turn.
/// 3. In each `Lane`, the pictures that are being decoded have at most `DECODING` latent pixels together, except that a
///    single picture may be larger. If the first run's call begins to decode pictures for which their lane has no room,
///    the turn goes to the first paused batch or run that is decoding pictures of this lane.
///
/// The batch or run that receives the turn is not charged for the slice, so it keeps its place in the order. In later
/// decisions, other runs that do not fit give their turns to the same batch or run, so it ends soon.
///
/// The run that gives its turn away is charged for the slice. Otherwise it would stay first and give away all turns
/// until that batch or run ends, and the runs behind it would wait.
pub fn choose(waiting: &[WaitingCall], paused: &[PausedBatch], limits: BatchLimits) -> Next {
    let mut order: Vec<usize> = (0..waiting.len()).collect();
    order.sort_by(|&a, &b| waiting[a].turn.order(&waiting[b].turn));
    let first_paused = |of: &dyn Fn(&PausedBatch) -> bool| {
        let batches = paused.iter().enumerate().filter(|(_, batch)| of(batch));
        batches.min_by(|(_, a), (_, b)| a.turn.order(&b.turn)).map(|(index, batch)| (index, batch.turn))
    };
    let next_paused = first_paused(&|_| true);
    // The paused batch, if its turn is not after that of the waiting call `head`.
    let before = |paused: Option<(usize, Turn)>, head: usize| {
        paused.filter(|(_, turn)| turn.order(&waiting[head].turn).is_le()).map(|(index, _)| index)
    };
    let Some(&first) = order.first() else {
        return next_paused.map_or(Next::Nothing, |(batch, _)| Next::Continue { batch, charged: None });
    };
    if let Some(batch) = before(next_paused, first) {
        return Next::Continue { batch, charged: None };
    }

    let held = waiting.iter().map(|run| (run.picture, run.holds));
    let held = held.chain(paused.iter().map(|batch| (batch.picture, batch.holds)));
    let mut decoding = held.fold(Decoding::default(), |decoding, (picture, holds)| decoding.add(picture, holds));
    let mut head = first;
    if !decoding.admits(&waiting[first]) {
        let lane = Lane::of(waiting[first].picture);
        let is_in_the_way = |picture: usize, holds: usize| holds > 0 && Lane::of(picture) == lane;
        let open = order.iter().copied().find(|&index| is_in_the_way(waiting[index].picture, waiting[index].holds));
        let paused = first_paused(&|batch| is_in_the_way(batch.picture, batch.holds));
        match (open, paused) {
            (None, Some((batch, _))) => return Next::Continue { batch, charged: Some(first) },
            (Some(open), paused) => match before(paused, open) {
                Some(batch) => return Next::Continue { batch, charged: Some(first) },
                None => head = open,
            },
            (None, None) => {}
        }
    }
    let run = &waiting[head];
    let shares_long = run.is_film && run.seconds * FILMS as f64 > limits.slice_s;
    if shares_long && let Some((batch, _)) = first_paused(&|batch| batch.is_film && batch.key == run.key) {
        return Next::Continue { batch, charged: (head != first).then_some(first) };
    }
    let taken: u64 = paused.iter().map(|batch| batch.bytes).sum();
    let has_room = run.seconds <= limits.slice_s || taken.saturating_add(run.bytes) <= limits.max_bytes;
    let has_room = has_room && run.bytes <= limits.free;
    if let (false, Some((batch, _))) = (has_room, next_paused) {
        return Next::Continue { batch, charged: Some(first) };
    }

    let key = &run.key;
    let rows = limits.max_rows.get().min(run.most_rows);
    let (bytes, is_overdrawn) = (limits.max_bytes.min(limits.free), false);
    let mut left = BatchSpace { rows, seconds: limits.slice_s, bytes, is_overdrawn };
    if shares_long {
        let bytes = limits.max_bytes.saturating_sub(taken).min(limits.free);
        left = BatchSpace { rows: rows.min(FILMS), seconds: f64::INFINITY, bytes, is_overdrawn };
    }
    let mut picks = Vec::new();
    // The run that leads the batch is not always the first run with this key, because it may have received its turn
    // from another run.
    let others = order.into_iter().filter(|&index| index != head && waiting[index].key == *key);
    for index in std::iter::once(head).chain(others) {
        let run = &waiting[index];
        let most = if shares_long { 1 } else { usize::MAX };
        let rows = left.rows_of(run).min(most).max(usize::from(picks.is_empty()));
        if rows == 0 {
            break;
        }
        if index != head && (!decoding.admits(run) || shares_long && !run.is_film) {
            continue;
        }
        decoding = decoding.add(run.picture, run.begins);
        left.take(run, rows);
        picks.push(Pick { waiting: index, rows });
    }
    Next::Begin { picks, charged: (head != first).then_some(first) }
}

/// What is left of the limits of a batch.
struct BatchSpace {
    rows: usize,
    seconds: f64,
    bytes: u64,
    /// Whether the first row alone exceeds the time or the memory. Then no other row joins the batch.
    is_overdrawn: bool,
}

impl BatchSpace {
    /// How many rows of the run fit.
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
