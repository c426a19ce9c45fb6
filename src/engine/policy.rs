//! Which rows run next: a pure function.

use std::num::NonZeroUsize;

use super::Key;
use super::ask::{DECODING, Network};

/// The bounds of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_rows: NonZeroUsize,
}

/// A run's open ask, as the policy sees it.
#[derive(Clone, Debug)]
pub struct Waiting<'a> {
    pub key: &'a Key,
    /// Rows that have no answer yet, 1 or more.
    pub rows: usize,
    /// What the run has received so far, in units of cost, counted from the level at which it came in.
    pub service: f64,
    /// The order of arrival.
    pub arrival: u64,
    /// Latent pixels of the pictures whose decoding is under way, that is of the activations that the run holds.
    pub holds: usize,
}

impl Waiting<'_> {
    /// Whether it may run while the runs together hold this much. What has begun may always go on; what would begin may
    /// do so where there is room for all of its rows, or nothing in it.
    fn fits(&self, held: usize) -> bool {
        let begins = if self.holds > 0 { 0 } else { self.key.network.decoding(self.rows) };
        begins == 0 || held == 0 || held + begins <= DECODING
    }
}

/// How many rows of which waiting run join the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Index into the slice of waiting runs.
    pub waiting: usize,
    pub rows: usize,
}

/// Start-time fair queueing: the run that has received least is first, then the oldest, and its key is the batch's.
/// Runs of the same key fill the batch in the same order; the last may join with some of its rows only. Nothing waits
/// for a batch to fill. Empty only if nothing waits.
///
/// The activations of pictures that are being decoded are bounded, by latent pixels. Where the first run wants to begin a
/// decode for which there is no room, its turn goes to the decode under way that is first in the order: so it is this
/// one's end that everybody helps to, and no run that comes in meanwhile can hold up both.
pub fn choose(waiting: &[Waiting<'_>], limits: Limits) -> Vec<Pick> {
    let mut order: Vec<usize> = (0..waiting.len()).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (&waiting[a], &waiting[b]);
        a.service.total_cmp(&b.service).then(a.arrival.cmp(&b.arrival))
    });
    let mut held: usize = waiting.iter().map(|run| run.holds).sum();
    let Some(&first) = order.first() else { return Vec::new() };
    let under_way = || order.iter().copied().find(|&index| waiting[index].holds > 0);
    let head = if waiting[first].fits(held) { first } else { under_way().unwrap_or(first) };

    let key = waiting[head].key;
    let mut room = max_rows(&key.network, limits);
    let mut picks = Vec::new();
    for index in order.into_iter().filter(|&index| waiting[index].key == key) {
        let run = &waiting[index];
        let rows = run.rows.min(room);
        if rows == 0 {
            break;
        }
        if !run.fits(held) {
            continue;
        }
        if run.holds == 0 {
            held += key.network.decoding(run.rows);
        }
        room -= rows;
        picks.push(Pick { waiting: index, rows });
    }
    picks
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
        Key { model: Arc::from("m"), network: Network::Decoder { shape: [4, side, side], stage, cost: 1 } }
    }

    fn limits(max_rows: usize) -> Limits {
        Limits { max_rows: NonZeroUsize::new(max_rows).unwrap() }
    }

    #[test]
    fn the_least_served_run_leads_and_equals_join_it() {
        let (small, large) = (denoiser(8), denoiser(16));
        let run = |key, rows, service, arrival| Waiting { key, rows, service, arrival, holds: 0 };
        let waiting = [run(&small, 2, 9.0, 0), run(&large, 2, 5.0, 1), run(&small, 2, 3.0, 2), run(&small, 1, 3.0, 3)];
        let picks = choose(&waiting, limits(4));
        assert_eq!(
            picks,
            [Pick { waiting: 2, rows: 2 }, Pick { waiting: 3, rows: 1 }, Pick { waiting: 0, rows: 1 }],
            "the last run of the key joins with the one row that fits"
        );
    }

    #[test]
    fn decoding_a_large_picture_goes_row_by_row() {
        let key = decoder(64, 0);
        let waiting = [Waiting { key: &key, rows: 4, service: 0.0, arrival: 0, holds: 0 }];
        assert_eq!(choose(&waiting, limits(16)), [Pick { waiting: 0, rows: 1 }]);
    }

    #[test]
    fn a_decode_that_finds_no_room_gives_its_turn_to_the_one_under_way() {
        let (begins, under_way, small) = (decoder(64, 0), decoder(64, 3), denoiser(8));
        let run = |key, service, holds| Waiting { key, rows: 1, service, arrival: 0, holds };
        let waiting = [run(&begins, 1.0, 0), run(&small, 2.0, 0), run(&under_way, 9.0, 64 * 64)];
        assert_eq!(choose(&waiting, limits(16)), [Pick { waiting: 2, rows: 1 }]);
        assert_eq!(choose(&waiting[1..], limits(16)), [Pick { waiting: 0, rows: 1 }], "others go before as ever");
        assert_eq!(choose(&waiting[..2], limits(16)), [Pick { waiting: 0, rows: 1 }], "there is room again");
    }

    #[test]
    fn a_decode_begun_with_some_of_its_rows_is_sure_of_room_for_the_others() {
        let (first, same) = (decoder(32, 0), decoder(32, 0));
        let run = |key, rows, service, holds| Waiting { key, rows, service, arrival: 0, holds };
        // The second run has begun 1 of 3 rows; the first would begin 2, for which there is no room beside 3.
        let waiting = [run(&first, 2, 1.0, 0), run(&same, 2, 2.0, 3 * 32 * 32)];
        assert_eq!(choose(&waiting, limits(16)), [Pick { waiting: 1, rows: 2 }]);
        let waiting = [run(&first, 2, 1.0, 0), run(&same, 2, 2.0, 2 * 32 * 32)];
        let both = [Pick { waiting: 0, rows: 2 }, Pick { waiting: 1, rows: 2 }];
        assert_eq!(choose(&waiting, limits(16)), both);
    }

    proptest! {
        #[test]
        fn every_batch_has_one_key_and_keeps_its_bounds(
            runs in prop::collection::vec((0usize..3, 1usize..20, 0.0f64..100.0), 0..20),
            max in 1usize..20,
        ) {
            let keys = [denoiser(8), denoiser(16), denoiser(24)];
            let waiting: Vec<Waiting> = runs.iter().enumerate()
                .map(|(i, &(key, rows, service))| {
                    Waiting { key: &keys[key], rows, service, arrival: i as u64, holds: 0 }
                })
                .collect();
            let picks = choose(&waiting, limits(max));
            prop_assert_eq!(picks.is_empty(), waiting.is_empty());
            if let Some(first) = picks.first() {
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
        }

        /// Runs that decode in three stages, chosen until all have ended: everybody gets there, within the bound.
        #[test]
        fn decodes_end_and_never_hold_more_than_their_bound(
            runs in prop::collection::vec((0usize..4, 1usize..9, 0.0f64..9.0), 1..12),
            max in 1usize..20,
        ) {
            struct Decode { side: usize, rows: usize, stage: usize, answered: usize, service: f64 }
            let mut runs: Vec<Decode> = runs.into_iter().map(|(side, rows, service)| {
                let side = [8, 32, 64, 96][side];
                Decode { side, rows: rows.min((DECODING / (side * side)).max(1)), stage: 0, answered: 0, service }
            }).collect();
            for _ in 0..12 * 8 * 3 {
                runs.retain(|run| run.stage < 3);
                let holds = |run: &Decode| {
                    if run.stage > 0 || run.answered > 0 { run.rows * run.side * run.side } else { 0 }
                };
                let held: usize = runs.iter().map(holds).sum();
                prop_assert!(held <= DECODING || runs.iter().filter(|run| holds(run) > 0).count() == 1, "{}", held);
                let keys: Vec<Key> = runs.iter().map(|run| decoder(run.side, run.stage)).collect();
                let waiting: Vec<Waiting> = runs.iter().zip(&keys).map(|(run, key)| {
                    let rows = run.rows - run.answered;
                    Waiting { key, rows, service: run.service, arrival: 0, holds: holds(run) }
                }).collect();
                let picks = choose(&waiting, limits(max));
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
