//! Which rows run next: a pure function.

use std::num::NonZeroUsize;

use super::Key;
use super::ask::Network;

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
pub fn choose(waiting: &[Waiting<'_>], limits: Limits) -> Vec<Pick> {
    let mut order: Vec<usize> = (0..waiting.len()).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (&waiting[a], &waiting[b]);
        a.service.total_cmp(&b.service).then(a.arrival.cmp(&b.arrival))
    });
    let Some(&head) = order.first() else { return Vec::new() };
    let key = waiting[head].key;
    let mut room = max_rows(&key.network, limits);
    let mut picks = Vec::new();
    for index in order.into_iter().filter(|&index| waiting[index].key == key) {
        let rows = waiting[index].rows.min(room);
        if rows == 0 {
            break;
        }
        room -= rows;
        picks.push(Pick { waiting: index, rows });
    }
    picks
}

/// A decoder's activations are as large as the picture, so its batches are bounded by latent pixels as well: one row of
/// a 512 × 512 picture at a time, or many small ones.
fn max_rows(network: &Network, limits: Limits) -> usize {
    const DECODED_LATENT_PIXELS: usize = 64 * 64;
    match network {
        Network::TextEncoder { .. } | Network::Denoiser { .. } => limits.max_rows.get(),
        Network::Decoder { shape: [_, h, w] } | Network::TinyDecoder { shape: [_, h, w] } => {
            (DECODED_LATENT_PIXELS / (h * w).max(1)).clamp(1, limits.max_rows.get())
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

    fn limits(max_rows: usize) -> Limits {
        Limits { max_rows: NonZeroUsize::new(max_rows).unwrap() }
    }

    #[test]
    fn the_least_served_run_leads_and_equals_join_it() {
        let (small, large) = (denoiser(8), denoiser(16));
        let run = |key, rows, service, arrival| Waiting { key, rows, service, arrival };
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
        let key = Key { model: Arc::from("m"), network: Network::Decoder { shape: [4, 64, 64] } };
        let waiting = [Waiting { key: &key, rows: 4, service: 0.0, arrival: 0 }];
        assert_eq!(choose(&waiting, limits(16)), [Pick { waiting: 0, rows: 1 }]);
    }

    proptest! {
        #[test]
        fn every_batch_has_one_key_and_keeps_its_bounds(
            runs in prop::collection::vec((0usize..3, 1usize..20, 0.0f64..100.0), 0..20),
            max in 1usize..20,
        ) {
            let keys = [denoiser(8), denoiser(16), denoiser(24)];
            let waiting: Vec<Waiting> = runs.iter().enumerate()
                .map(|(i, &(key, rows, service))| Waiting { key: &keys[key], rows, service, arrival: i as u64 })
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
    }
}
