//! What runs next: a pure function.

use std::num::NonZeroUsize;

use super::Key;
use super::ask::{DECODING, Network};

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
pub struct Waiting<'a> {
    pub key: &'a Key,
    /// Rows that have no answer yet, 1 or more.
    pub rows: usize,
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
    fn admits(self, run: &Waiting<'_>) -> bool {
        let begins = if run.holds > 0 { 0 } else { run.key.network.decoding(run.rows) };
        if begins > DECODING {
            return !self.large;
        }
        begins == 0 || self.small == 0 || self.small + begins <= DECODING
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
pub fn choose(waiting: &[Waiting<'_>], aside: &[Aside], limits: Limits) -> Next {
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
        let is_large = waiting[first].key.network.decoding(waiting[first].rows) > DECODING;
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

    let key = run.key;
    let mut room = Room { rows: max_rows(&key.network, limits), seconds: limits.slice_s, bytes: limits.max_bytes };
    let mut picks = Vec::new();
    // Where a decode gave its turn away, the head is not the first of its key in the order, and is picked all the same.
    let others = order.into_iter().filter(|&index| index != head && waiting[index].key == key);
    for index in std::iter::once(head).chain(others) {
        let run = &waiting[index];
        let rows = room.rows_of(run).max(usize::from(picks.is_empty()));
        if rows == 0 {
            break;
        }
        if index != head && !decoding.admits(run) {
            continue;
        }
        if run.holds == 0 {
            decoding = decoding.add(key.network.decoding(run.rows));
        }
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
}

impl Room {
    /// How many rows of the run fit.
    fn rows_of(&self, run: &Waiting<'_>) -> usize {
        let by_time = if run.seconds > 0.0 { (self.seconds / run.seconds) as usize } else { usize::MAX };
        let by_bytes = self.bytes.checked_div(run.bytes).map_or(usize::MAX, |rows| rows as usize);
        run.rows.min(self.rows).min(by_time).min(by_bytes)
    }

    fn take(&mut self, run: &Waiting<'_>, rows: usize) {
        self.rows -= rows;
        self.seconds -= rows as f64 * run.seconds;
        self.bytes = self.bytes.saturating_sub(rows as u64 * run.bytes);
    }
}

/// A batch of a decoder is bounded by latent pixels as well.
fn max_rows(network: &Network, limits: Limits) -> usize {
    match network {
        Network::TextEncoder { .. } | Network::Denoiser { .. } => limits.max_rows.get(),
        // Beside its neighbours a picture of usual size would not be encoded any sooner.
        Network::Encoder { .. } => 1,
        Network::Decoder { shape: [_, h, w], .. } | Network::TinyDecoder { shape: [_, h, w] } => {
            (DECODING / (h * w).max(1)).clamp(1, limits.max_rows.get())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::pipelines::Depth;

    fn denoiser(side: usize) -> Key {
        Key {
            model: Arc::from("m"),
            network: Network::Denoiser { shape: [4, side, side], context: [77, 32], depth: Depth::Full },
        }
    }

    fn decoder(side: usize, stage: usize) -> Key {
        Key { model: Arc::from("m"), network: Network::Decoder { shape: [4, side, side], stage } }
    }

    fn limits(max_rows: usize) -> Limits {
        Limits { max_rows: NonZeroUsize::new(max_rows).unwrap(), slice_s: 1.0, max_bytes: 1000 }
    }

    /// Rows that take next to nothing.
    fn run(key: &Key, rows: usize, service: f64) -> Waiting<'_> {
        Waiting { key, rows, seconds: 0.001, bytes: 1, service, arrival: 0, holds: 0 }
    }

    fn go_on(call: usize, for_run: impl Into<Option<usize>>) -> Next {
        Next::Continue { call, for_run: for_run.into() }
    }

    fn begin(picks: &[(usize, usize)]) -> Next {
        begin_for(picks, None)
    }

    fn begin_for(picks: &[(usize, usize)], for_run: impl Into<Option<usize>>) -> Next {
        let picks = picks.iter().map(|&(waiting, rows)| Pick { waiting, rows }).collect();
        Next::Begin { picks, for_run: for_run.into() }
    }

    #[test]
    fn the_least_served_run_leads_and_equals_join_it() {
        let (small, large) = (denoiser(8), denoiser(16));
        let run = |key, rows, service, arrival| Waiting { arrival, ..run(key, rows, service) };
        let waiting = [run(&small, 2, 9.0, 0), run(&large, 2, 5.0, 1), run(&small, 2, 3.0, 2), run(&small, 1, 3.0, 3)];
        // The last run of the key joins with the one row that fits.
        assert_eq!(choose(&waiting, &[], limits(4)), begin(&[(2, 2), (3, 1), (0, 1)]));
    }

    #[test]
    fn a_batch_takes_as_many_rows_as_fit_a_slice_and_the_memory() {
        let key = denoiser(8);
        let slow = Waiting { seconds: 0.3, ..run(&key, 5, 1.0) };
        let quick = Waiting { seconds: 0.1, ..run(&key, 5, 2.0) };
        assert_eq!(choose(&[slow.clone(), quick.clone()], &[], limits(9)), begin(&[(0, 3), (1, 1)]));
        let longer = Waiting { seconds: 1.5, ..slow.clone() };
        assert_eq!(choose(&[longer, quick.clone()], &[], limits(9)), begin(&[(0, 1)]));
        let wide = Waiting { bytes: 400, ..quick };
        assert_eq!(choose(&[wide], &[], limits(9)), begin(&[(0, 2)]));
        let too_wide = Waiting { bytes: 4000, ..slow };
        assert_eq!(choose(&[too_wide], &[], limits(9)), begin(&[(0, 1)]), "one alone may hold more");
    }

    #[test]
    fn a_call_put_aside_has_its_turn_as_an_ask_has() {
        let key = denoiser(8);
        let aside = |service, arrival| Aside { service, arrival, bytes: 1, holds: 0 };
        assert_eq!(choose(&[], &[aside(3.0, 0), aside(1.0, 1)], limits(9)), go_on(1, None));
        assert_eq!(choose(&[run(&key, 1, 2.0)], &[aside(3.0, 0), aside(1.0, 1)], limits(9)), go_on(1, None));
        assert_eq!(choose(&[run(&key, 1, 2.0)], &[aside(3.0, 0), aside(2.5, 1)], limits(9)), begin(&[(0, 1)]));
        assert_eq!(choose(&[], &[], limits(9)), Next::Nothing);
    }

    #[test]
    fn a_long_call_that_finds_no_memory_gives_its_turn_away_and_a_short_one_needs_none() {
        let key = denoiser(64);
        let aside = [Aside { service: 9.0, arrival: 0, bytes: 700, holds: 0 }];
        let long = Waiting { seconds: 5.0, bytes: 400, ..run(&key, 2, 1.0) };
        assert_eq!(choose(std::slice::from_ref(&long), &aside, limits(9)), go_on(0, 0));
        let narrower = Waiting { bytes: 300, ..long.clone() };
        assert_eq!(choose(&[narrower], &aside, limits(9)), begin(&[(0, 1)]));
        let short = Waiting { seconds: 0.5, ..long };
        assert_eq!(choose(&[short], &aside, limits(9)), begin(&[(0, 2)]));
    }

    #[test]
    fn decoding_a_large_picture_goes_row_by_row() {
        let key = decoder(64, 0);
        assert_eq!(choose(&[run(&key, 4, 0.0)], &[], limits(16)), begin(&[(0, 1)]));
    }

    #[test]
    fn a_decode_that_finds_no_room_gives_its_turn_to_the_one_under_way() {
        let (begins, under_way, small) = (decoder(64, 0), decoder(64, 3), denoiser(8));
        let run = |key, service, holds| Waiting { holds, ..run(key, 1, service) };
        let waiting = [run(&begins, 1.0, 0), run(&small, 2.0, 0), run(&under_way, 9.0, 64 * 64)];
        assert_eq!(choose(&waiting, &[], limits(16)), begin_for(&[(2, 1)], 0));
        assert_eq!(choose(&waiting[1..], &[], limits(16)), begin(&[(0, 1)]), "others go before as ever");
        assert_eq!(choose(&waiting[..2], &[], limits(16)), begin(&[(0, 1)]), "there is room again");
        let aside = [Aside { service: 8.0, arrival: 0, bytes: 1, holds: 64 * 64 }];
        assert_eq!(choose(&waiting[..2], &aside, limits(16)), go_on(0, 0), "it is in the middle of a stage");
    }

    #[test]
    fn small_pictures_are_decoded_beside_a_large_one_and_large_ones_one_at_a_time() {
        let (large, small, under_way, other) = (decoder(256, 0), decoder(16, 0), decoder(256, 7), decoder(64, 1));
        let run = |key, service, holds| Waiting { holds, ..run(key, 1, service) };
        let waiting = [run(&small, 1.0, 0), run(&under_way, 9.0, 256 * 256)];
        assert_eq!(choose(&waiting, &[], limits(16)), begin(&[(0, 1)]));
        let waiting = [run(&large, 1.0, 0), run(&under_way, 9.0, 256 * 256)];
        assert_eq!(choose(&waiting, &[], limits(16)), begin_for(&[(1, 1)], 0));
        let waiting = [run(&large, 1.0, 0), run(&other, 9.0, 64 * 64)];
        assert_eq!(choose(&waiting, &[], limits(16)), begin(&[(0, 1)]));
    }

    #[test]
    fn a_decode_begun_with_some_of_its_rows_is_sure_of_room_for_the_others() {
        let (first, same) = (decoder(32, 0), decoder(32, 0));
        let run = |key, rows, service, holds| Waiting { holds, ..run(key, rows, service) };
        // The second run has begun 1 of 3 rows; the first would begin 2, for which there is no room beside 3.
        let waiting = [run(&first, 2, 1.0, 0), run(&same, 2, 2.0, 3 * 32 * 32)];
        assert_eq!(choose(&waiting, &[], limits(16)), begin_for(&[(1, 2)], 0));
        let waiting = [run(&first, 2, 1.0, 0), run(&same, 2, 2.0, 2 * 32 * 32)];
        assert_eq!(choose(&waiting, &[], limits(16)), begin(&[(0, 2), (1, 2)]));
    }

    /// What a run of the simulation asks for: `rows` calls of `seconds` each, over and over.
    #[derive(Clone, Debug)]
    struct Simulated {
        key: Key,
        rows: usize,
        seconds: f64,
        bytes: u64,
        service: f64,
        /// Rows of the present ask that are answered.
        answered: usize,
        rounds: usize,
        in_call: bool,
    }

    /// A call under way in the simulation: its runs and their rows, and the seconds that are left of it.
    struct Going {
        picks: Vec<Pick>,
        left: f64,
        bytes: u64,
    }

    /// Runs by [`choose`] until the run at `watched` has ended, or all have. Returns the seconds for which it waited for others.
    fn simulate(runs: &mut [Simulated], watched: Option<usize>, limits: Limits) -> f64 {
        let (mut aside, mut waited): (Vec<Going>, f64) = (Vec::new(), 0.0);
        for _ in 0..10_000 {
            if watched.is_some_and(|watched| runs[watched].rounds == 0) {
                return waited;
            }
            let open: Vec<usize> = (0..runs.len()).filter(|&i| !runs[i].in_call && runs[i].rounds > 0).collect();
            let keys: Vec<Key> = open.iter().map(|&i| runs[i].key.clone()).collect();
            let waiting: Vec<Waiting<'_>> = open
                .iter()
                .zip(&keys)
                .map(|(&i, key)| {
                    let Simulated { rows, answered, seconds, bytes, service, .. } = runs[i];
                    Waiting { key, rows: rows - answered, seconds, bytes, service, arrival: i as u64, holds: 0 }
                })
                .collect();
            let seen: Vec<Aside> = aside
                .iter()
                .map(|going| Aside {
                    service: going.picks.iter().map(|pick| runs[pick.waiting].service).fold(f64::INFINITY, f64::min),
                    arrival: going.picks.iter().map(|pick| pick.waiting as u64).min().unwrap(),
                    bytes: going.bytes,
                    holds: 0,
                })
                .collect();
            let payer;
            let mut going = match choose(&waiting, &seen, limits) {
                Next::Nothing => return waited,
                Next::Continue { call, for_run } => {
                    payer = for_run.map(|run| open[run]);
                    aside.remove(call)
                }
                Next::Begin { picks, for_run } => {
                    payer = for_run.map(|run| open[run]);
                    let picks: Vec<Pick> =
                        picks.into_iter().map(|pick| Pick { waiting: open[pick.waiting], ..pick }).collect();
                    for pick in &picks {
                        let run = &mut runs[pick.waiting];
                        assert!(!run.in_call && run.answered + pick.rows <= run.rows, "a row is in one call");
                        run.in_call = true;
                    }
                    let sum = |of: fn(&Simulated, f64) -> f64| -> f64 {
                        picks.iter().map(|pick| of(&runs[pick.waiting], pick.rows as f64)).sum()
                    };
                    let left = sum(|run, rows| rows * run.seconds);
                    let bytes = sum(|run, rows| rows * run.bytes as f64) as u64;
                    let total: usize = picks.iter().map(|pick| pick.rows).sum();
                    assert!(total == 1 || left <= limits.slice_s + 1e-9, "only a single row takes longer than a slice");
                    assert!(total == 1 || bytes <= limits.max_bytes);
                    Going { picks, left, bytes }
                }
            };
            let slice = going.left.min(limits.slice_s);
            going.left -= slice;
            let rows: usize = going.picks.iter().map(|pick| pick.rows).sum();
            match payer {
                Some(payer) => runs[payer].service += slice,
                None => going.picks.iter().for_each(|pick| {
                    runs[pick.waiting].service += slice * pick.rows as f64 / rows as f64;
                }),
            }
            if going.picks.iter().all(|pick| Some(pick.waiting) != watched) {
                waited += slice;
            }
            if going.left > 1e-12 {
                aside.push(going);
                let held: u64 = aside.iter().map(|going| going.bytes).sum();
                assert!(held <= limits.max_bytes || aside.len() == 1, "{held} bytes aside");
                continue;
            }
            for pick in &going.picks {
                let run = &mut runs[pick.waiting];
                run.in_call = false;
                run.answered += pick.rows;
                if run.answered == run.rows {
                    (run.answered, run.rounds) = (0, run.rounds - 1);
                }
            }
        }
        panic!("the simulation does not end")
    }

    fn simulated(side: usize, rows: usize, seconds: f64, bytes: u64, rounds: usize) -> Simulated {
        let key = denoiser(side);
        Simulated { key, rows, seconds, bytes, service: 0.0, answered: 0, rounds, in_call: false }
    }

    proptest! {
        /// Whatever stands beside it: of each run that came before it, a run waits for one slice and for as much as it gets itself.
        #[test]
        fn a_small_run_waits_for_little_more_than_a_slice_of_each_run_before_it(
            others in prop::collection::vec((1usize..9, 0.01f64..50.0, 0u64..2000), 0..5),
            small in (1usize..3, 1usize..4),
        ) {
            let mut runs: Vec<Simulated> = others.iter().enumerate()
                .map(|(i, &(rows, seconds, bytes))| simulated(8 + i, rows, seconds, bytes, 1000)).collect();
            let (rows, rounds) = small;
            runs.push(simulated(4, rows, 0.1 / (rows * rounds) as f64, 1, rounds));
            let watched = runs.len() - 1;
            let waited = simulate(&mut runs, Some(watched), limits(16));
            prop_assert!(waited <= 1.1 * others.len() as f64 + 1e-6, "{} s beside {} runs", waited, others.len());
        }

        /// Every run gets all of its answers once, in calls of bounded time and memory (the simulation asserts it).
        #[test]
        fn all_runs_end(runs in prop::collection::vec((0usize..3, 1usize..9, 0u64..2000), 1..6)) {
            let mut runs: Vec<Simulated> = runs.into_iter()
                .map(|(key, rows, bytes)| simulated(8 + key, rows, [0.02, 0.7, 4.5][key], bytes, 3)).collect();
            simulate(&mut runs, None, limits(16));
            prop_assert!(runs.iter().all(|run| run.rounds == 0 && !run.in_call));
        }

        #[test]
        fn every_batch_has_one_key_and_keeps_its_bounds(
            runs in prop::collection::vec((0usize..3, 1usize..20, 0.0f64..100.0), 0..20),
            max in 1usize..20,
        ) {
            let keys = [denoiser(8), denoiser(16), denoiser(24)];
            let waiting: Vec<Waiting> = runs.iter().enumerate()
                .map(|(i, &(key, rows, service))| Waiting { arrival: i as u64, ..run(&keys[key], rows, service) })
                .collect();
            let picks = match choose(&waiting, &[], limits(max)) {
                Next::Begin { picks, .. } => picks,
                next => {
                    prop_assert_eq!(next, Next::Nothing);
                    prop_assert!(waiting.is_empty());
                    return Ok(());
                }
            };
            let first = picks[0];
            let least = waiting.iter().map(|w| w.service).fold(f64::INFINITY, f64::min);
            prop_assert_eq!(waiting[first.waiting].service, least);
            let total: usize = picks.iter().map(|p| p.rows).sum();
            prop_assert!(total <= max);
            let open: usize = waiting.iter().filter(|w| w.key == waiting[first.waiting].key).map(|w| w.rows).sum();
            prop_assert_eq!(total, open.min(max), "no room is left while rows of the key wait");
            for pick in &picks {
                prop_assert_eq!(waiting[pick.waiting].key, waiting[first.waiting].key);
                prop_assert!(pick.rows >= 1 && pick.rows <= waiting[pick.waiting].rows);
            }
        }

        /// Runs that decode in three stages, chosen until all have ended: everybody gets there, within the bounds.
        #[test]
        fn decodes_end_and_never_hold_more_than_their_bound(
            runs in prop::collection::vec((0usize..5, 1usize..9, 0.0f64..9.0), 1..12),
            max in 1usize..20,
        ) {
            struct Decode { side: usize, rows: usize, stage: usize, answered: usize, service: f64 }
            let mut runs: Vec<Decode> = runs.into_iter().map(|(side, rows, service)| {
                let side = [8, 32, 64, 96, 256][side];
                Decode { side, rows: rows.min((DECODING / (side * side)).max(1)), stage: 0, answered: 0, service }
            }).collect();
            for _ in 0..12 * 8 * 3 {
                runs.retain(|run| run.stage < 3);
                let holds = |run: &Decode| {
                    if run.stage > 0 || run.answered > 0 { run.rows * run.side * run.side } else { 0 }
                };
                let (large, small): (Vec<usize>, Vec<usize>) =
                    runs.iter().map(holds).filter(|held| *held > 0).partition(|held| *held > DECODING);
                prop_assert!(large.len() <= 1 && small.iter().sum::<usize>() <= DECODING, "{:?} {:?}", large, small);
                let keys: Vec<Key> = runs.iter().map(|run| decoder(run.side, run.stage)).collect();
                let waiting: Vec<Waiting> = runs.iter().zip(&keys).map(|(decode, key)| {
                    Waiting { holds: holds(decode), ..run(key, decode.rows - decode.answered, decode.service) }
                }).collect();
                let picks = match choose(&waiting, &[], limits(max)) {
                    Next::Begin { picks, .. } => picks,
                    _ => Vec::new(),
                };
                prop_assert_eq!(picks.is_empty(), runs.is_empty());
                for Pick { waiting, rows } in picks {
                    let run = &mut runs[waiting];
                    run.answered += rows;
                    run.service += rows as f64;
                    if run.answered == run.rows {
                        (run.stage, run.answered) = (run.stage + 1, 0);
                    }
                }
            }
            prop_assert!(runs.is_empty());
        }
    }
}
