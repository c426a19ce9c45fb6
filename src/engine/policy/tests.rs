//! Tests of single decisions of the policy. [`simulation`] follows runs to their end.

mod simulation;

use std::{ops::RangeInclusive, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::{
    generation::Precision,
    pipelines::{
        Depth,
        calls::{Decode, DenoiseCall},
    },
};

/// The key of a call, and the latent pixels that each row keeps in memory.
type Kind = (BatchKey, usize);

fn denoiser(side: usize) -> Kind {
    let call =
        DenoiseCall { shape: [4, side, side], context: [77, 32], depth: Depth::Full, channels: 4, references: 0 };
    (BatchKey::of(Arc::from("m"), &call, Precision::Exact), 0)
}

fn decoder(side: usize, stage: usize) -> Kind {
    (
        BatchKey::of(
            Arc::from("m"),
            &Decode { shape: [4, side, side], stage, is_last: false, share: 1.0 },
            Precision::Exact,
        ),
        side * side,
    )
}

fn limits(max_rows: usize) -> BatchLimits {
    BatchLimits { max_rows: NonZeroUsize::new(max_rows).unwrap(), slice_s: 1.0, max_bytes: 1000, free: u64::MAX }
}

/// A waiting call whose rows take almost no time and memory.
fn run((key, latent_pixels): &Kind, rows: usize, service: f64) -> WaitingCall {
    let most_rows = DECODING.checked_div(*latent_pixels).map_or(usize::MAX, |rows| rows.max(1));
    let (picture, begins, seconds) = (*latent_pixels, rows * latent_pixels, 0.001);
    let (key, turn, is_film) = (key.clone(), Turn::alone(service, 0), false);
    WaitingCall { key, rows, most_rows, seconds, bytes: 1, turn, is_film, picture, holds: 0, begins }
}

/// A paused batch of pictures of `picture` latent pixels, of which `holds` are in memory.
fn paused_batch((key, picture): &Kind, (service, arrival): (f64, u64), bytes: u64, holds: usize) -> PausedBatch {
    let (key, turn) = (key.clone(), Turn::alone(service, arrival));
    PausedBatch { key, turn, is_film: false, bytes, picture: *picture, holds }
}

/// Like [`run`], for a run that already holds `holds` latent pixels.
fn holding(kind: &Kind, rows: usize, service: f64, holds: usize) -> WaitingCall {
    let run = run(kind, rows, service);
    WaitingCall { holds, begins: if holds > 0 { 0 } else { run.begins }, ..run }
}

fn go_on(batch: usize, charged: impl Into<Option<usize>>) -> Next {
    Next::Continue { batch, charged: charged.into() }
}

fn begin(picks: &[(usize, usize)]) -> Next {
    begin_for(picks, None)
}

fn begin_for(picks: &[(usize, usize)], charged: impl Into<Option<usize>>) -> Next {
    let picks = picks.iter().map(|&(waiting, rows)| Pick { waiting, rows }).collect();
    Next::Begin { picks, charged: charged.into() }
}

/// The free memory that a device reports does not contain the activations of paused batches, so the policy does not
/// subtract them.
#[test]
fn a_batch_fits_what_is_free_now_and_its_own_limit() {
    let (key, limits) = (denoiser(8), limits(16));
    let waiting = |bytes| [WaitingCall { bytes, ..run(&key, 8, 0.0) }];
    let paused = [paused_batch(&key, (1.0, 9), 700, 0)];
    let with = |free, bytes| choose(&waiting(bytes), &paused, BatchLimits { free, ..limits });
    assert_eq!(with(u64::MAX, 200), begin(&[(0, 5)]), "1000 bytes are the limit of a batch");
    assert_eq!(with(700, 200), begin(&[(0, 3)]), "700 bytes are free while the batch is paused");
    assert_eq!(with(100, 200), go_on(0, 0), "not even one row fits, and the paused batch has memory to free");
    assert_eq!(choose(&waiting(200), &[], BatchLimits { free: 100, ..limits }), begin(&[(0, 1)]));
    let long = [WaitingCall { seconds: 2.0, ..waiting(200)[0].clone() }];
    assert_eq!(choose(&long, &paused, BatchLimits { free: 250, ..limits }), begin(&[(0, 1)]));
}

#[test]
fn the_least_served_run_leads_and_equals_join_it() {
    let (small, large) = (denoiser(8), denoiser(16));
    let run =
        |key, rows, service, arrival| WaitingCall { turn: Turn::alone(service, arrival), ..run(key, rows, service) };
    let waiting = [run(&small, 2, 9.0, 0), run(&large, 2, 5.0, 1), run(&small, 2, 3.0, 2), run(&small, 1, 3.0, 3)];
    // The last run with the key joins with the one row that fits.
    assert_eq!(choose(&waiting, &[], limits(4)), begin(&[(2, 2), (3, 1), (0, 1)]));
}

#[test]
fn a_batch_takes_as_many_rows_as_fit_a_slice_and_the_memory() {
    let key = denoiser(8);
    let slow = WaitingCall { seconds: 0.3, ..run(&key, 5, 1.0) };
    let quick = WaitingCall { seconds: 0.1, ..run(&key, 5, 2.0) };
    assert_eq!(choose(&[slow.clone(), quick.clone()], &[], limits(9)), begin(&[(0, 3), (1, 1)]));
    let longer = WaitingCall { seconds: 1.5, ..slow.clone() };
    assert_eq!(choose(&[longer, quick.clone()], &[], limits(9)), begin(&[(0, 1)]));
    let wide = WaitingCall { bytes: 400, ..quick };
    assert_eq!(choose(&[wide], &[], limits(9)), begin(&[(0, 2)]));
    let too_wide = WaitingCall { bytes: 4000, ..slow };
    assert_eq!(choose(std::slice::from_ref(&too_wide), &[], limits(9)), begin(&[(0, 1)]), "one alone may hold more");
    let weightless = WaitingCall { bytes: 0, ..run(&key, 1, 2.0) };
    assert_eq!(choose(&[too_wide, weightless], &[], limits(9)), begin(&[(0, 1)]), "and nothing joins it");
}

#[test]
fn a_paused_batch_has_its_turn_like_a_waiting_call() {
    let key = denoiser(8);
    let paused = |service, arrival| paused_batch(&key, (service, arrival), 1, 0);
    assert_eq!(choose(&[], &[paused(3.0, 0), paused(1.0, 1)], limits(9)), go_on(1, None));
    assert_eq!(choose(&[run(&key, 1, 2.0)], &[paused(3.0, 0), paused(1.0, 1)], limits(9)), go_on(1, None));
    assert_eq!(choose(&[run(&key, 1, 2.0)], &[paused(3.0, 0), paused(2.5, 1)], limits(9)), begin(&[(0, 1)]));
    assert_eq!(choose(&[], &[], limits(9)), Next::Nothing);
}

#[test]
fn a_long_call_that_finds_no_memory_gives_its_turn_away_and_a_short_one_needs_none() {
    let key = denoiser(64);
    let paused = [paused_batch(&key, (9.0, 0), 700, 0)];
    let long = WaitingCall { seconds: 5.0, bytes: 400, ..run(&key, 2, 1.0) };
    assert_eq!(choose(std::slice::from_ref(&long), &paused, limits(9)), go_on(0, 0));
    let narrower = WaitingCall { bytes: 300, ..long.clone() };
    assert_eq!(choose(&[narrower], &paused, limits(9)), begin(&[(0, 1)]));
    let short = WaitingCall { seconds: 0.5, ..long };
    assert_eq!(choose(&[short], &paused, limits(9)), begin(&[(0, 2)]));
}

/// A film with two rows of `seconds` each.
fn film(key: &Kind, seconds: f64, own: f64) -> WaitingCall {
    let turn = Turn { service: 3.0, account: 7, own, arrival: 7 };
    WaitingCall { seconds, bytes: 300, turn, is_film: true, ..run(key, 2, 0.0) }
}

#[test]
fn two_films_share_a_long_batch_with_one_row_each() {
    let (key, other) = (denoiser(64), denoiser(32));
    let films = |seconds| [2.0, 1.0, 1.5].map(|own| film(&key, seconds, own));
    assert_eq!(choose(&films(5.0), &[], limits(9)), begin(&[(1, 1), (2, 1)]), "the least charged films are first");
    assert_eq!(choose(&films(0.6), &[], limits(9)), begin(&[(1, 1), (2, 1)]), "two rows exceed the slice");
    assert_eq!(choose(&films(0.3), &[], limits(9)), begin(&[(1, 2), (2, 1)]), "short rows fill the slice");
    assert_eq!(choose(&films(5.0), &[], limits(1)), begin(&[(1, 1)]));
    let picture = WaitingCall { seconds: 5.0, ..run(&key, 1, 9.0) };
    assert_eq!(choose(&[film(&key, 5.0, 0.0), picture], &[], limits(9)), begin(&[(0, 1)]), "a picture does not join");
    let paused = [paused_batch(&other, (9.0, 0), 500, 0)];
    assert_eq!(choose(&films(5.0), &paused, limits(9)), begin(&[(1, 1)]), "500 bytes are left");
}

#[test]
fn a_film_waits_for_the_call_of_another_film_so_that_both_share_the_next_one() {
    let (key, other) = (denoiser(64), denoiser(32));
    let paused = |key, is_film| {
        let turn = Turn { service: 3.0, account: 7, own: 9.0, arrival: 8 };
        [PausedBatch { turn, is_film, ..paused_batch(key, (0.0, 0), 1, 0) }]
    };
    let waiting = [film(&key, 5.0, 0.0)];
    assert_eq!(choose(&waiting, &paused(&key, true), limits(9)), go_on(0, None));
    assert_eq!(choose(&waiting, &paused(&other, true), limits(9)), begin(&[(0, 1)]));
    assert_eq!(choose(&waiting, &paused(&key, false), limits(9)), begin(&[(0, 1)]));
    assert_eq!(choose(&[film(&key, 0.3, 0.0)], &paused(&key, true), limits(9)), begin(&[(0, 2)]));
}

#[test]
fn decoding_a_large_picture_goes_row_by_row() {
    let key = decoder(64, 0);
    assert_eq!(choose(&[run(&key, 4, 0.0)], &[], limits(16)), begin(&[(0, 1)]));
}

#[test]
fn a_decode_that_finds_no_room_gives_its_turn_to_the_one_in_progress() {
    let (begins, in_progress, small) = (decoder(64, 0), decoder(64, 3), denoiser(8));
    let run = |kind, service, holds| holding(kind, 1, service, holds);
    let waiting = [run(&begins, 1.0, 0), run(&small, 2.0, 0), run(&in_progress, 9.0, 64 * 64)];
    assert_eq!(choose(&waiting, &[], limits(16)), begin_for(&[(2, 1)], 0));
    assert_eq!(choose(&waiting[1..], &[], limits(16)), begin(&[(0, 1)]), "others go before as ever");
    assert_eq!(choose(&waiting[..2], &[], limits(16)), begin(&[(0, 1)]), "there is room again");
    let paused = [paused_batch(&in_progress, (8.0, 0), 1, 64 * 64)];
    assert_eq!(choose(&waiting[..2], &paused, limits(16)), go_on(0, 0), "it is in the middle of a stage");
}

#[test]
fn small_pictures_are_decoded_beside_a_large_one_and_large_ones_one_at_a_time() {
    let (large, small, in_progress, other) = (decoder(256, 0), decoder(16, 0), decoder(256, 7), decoder(64, 1));
    let run = |kind, service, holds| holding(kind, 1, service, holds);
    let waiting = [run(&small, 1.0, 0), run(&in_progress, 9.0, 256 * 256)];
    assert_eq!(choose(&waiting, &[], limits(16)), begin(&[(0, 1)]));
    let waiting = [run(&large, 1.0, 0), run(&in_progress, 9.0, 256 * 256)];
    assert_eq!(choose(&waiting, &[], limits(16)), begin_for(&[(1, 1)], 0));
    let waiting = [run(&large, 1.0, 0), run(&other, 9.0, 64 * 64)];
    assert_eq!(choose(&waiting, &[], limits(16)), begin(&[(0, 1)]));
}

#[test]
fn a_small_picture_is_decoded_beside_those_of_middle_size_and_small_ones_share_their_room() {
    let (small, medium, in_progress, paused) = (decoder(16, 0), decoder(48, 0), decoder(64, 2), decoder(32, 1));
    let run = |kind, rows, service, holds| holding(kind, rows, service, holds);
    let waiting = [run(&small, 4, 1.0, 0), run(&in_progress, 1, 9.0, 64 * 64)];
    assert_eq!(choose(&waiting, &[], limits(16)), begin(&[(0, 4)]));
    let batch = |side: usize, holds| paused_batch(&decoder(side, 1), (8.0, 0), 1, holds);
    assert_eq!(choose(&waiting[..1], &[batch(64, 64 * 64)], limits(16)), begin(&[(0, 4)]), "it is in mid-stage");
    assert_eq!(choose(&waiting[..1], &[batch(32, 3 * 32 * 32)], limits(16)), begin(&[(0, 4)]), "just enough room");
    assert_eq!(choose(&waiting[..1], &[batch(32, 4 * 32 * 32)], limits(16)), go_on(0, 0));
    let waiting = [run(&small, 1, 1.0, 0), run(&paused, 4, 7.0, 4 * 32 * 32), run(&in_progress, 1, 6.0, 64 * 64)];
    assert_eq!(choose(&waiting, &[], limits(16)), begin_for(&[(1, 4)], 0), "only those of its size are in the way");
    let waiting = [run(&medium, 1, 1.0, 0), run(&paused, 4, 6.0, 4 * 32 * 32)];
    assert_eq!(choose(&waiting, &[], limits(16)), begin(&[(0, 1)]));
}

#[test]
fn a_decode_begun_with_some_of_its_rows_is_sure_of_room_for_the_others() {
    let (first, same) = (decoder(32, 0), decoder(32, 0));
    let run = holding;
    // The second run has begun with 1 of its 3 rows. The first run would begin 2 rows, which do not fit next to 3.
    let waiting = [run(&first, 2, 1.0, 0), run(&same, 2, 2.0, 3 * 32 * 32)];
    assert_eq!(choose(&waiting, &[], limits(16)), begin_for(&[(1, 2)], 0));
    let waiting = [run(&first, 2, 1.0, 0), run(&same, 2, 2.0, 2 * 32 * 32)];
    assert_eq!(choose(&waiting, &[], limits(16)), begin(&[(0, 2), (1, 2)]));
}

proptest! {
    #[test]
    fn every_batch_has_one_key_and_keeps_its_bounds(
        runs in prop::collection::vec((0usize..3, 1usize..20, 0.0f64..100.0), 0..20),
        max in 1usize..20,
    ) {
        let keys = [denoiser(8), denoiser(16), denoiser(24)];
        let waiting: Vec<WaitingCall> = runs.iter().enumerate()
            .map(|(i, &(key, rows, service))| {
                WaitingCall { turn: Turn::alone(service, i as u64), ..run(&keys[key], rows, service) }
            })
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
        let least = waiting.iter().map(|w| w.turn.service).fold(f64::INFINITY, f64::min);
        prop_assert_eq!(waiting[first.waiting].turn.service, least);
        let total: usize = picks.iter().map(|p| p.rows).sum();
        prop_assert!(total <= max);
        let open: usize = waiting.iter().filter(|w| w.key == waiting[first.waiting].key).map(|w| w.rows).sum();
        prop_assert_eq!(total, open.min(max), "no room is left while rows of the key wait");
        for pick in &picks {
            prop_assert_eq!(&waiting[pick.waiting].key, &waiting[first.waiting].key);
            prop_assert!(pick.rows >= 1 && pick.rows <= waiting[pick.waiting].rows);
        }
    }

    /// Runs that decode in three stages. All of them end, and the decodes stay within the limits.
    #[test]
    fn decodes_end_and_never_hold_more_than_their_bound(
        runs in prop::collection::vec((0usize..6, 1usize..9, 0.0f64..9.0), 1..12),
        max in 1usize..20,
    ) {
        struct Decode { side: usize, rows: usize, stage: usize, answered: usize, service: f64 }
        let mut runs: Vec<Decode> = runs.into_iter().map(|(side, rows, service)| {
            let side = [8, 32, 40, 64, 96, 256][side];
            Decode { side, rows: rows.min((DECODING / (side * side)).max(1)), stage: 0, answered: 0, service }
        }).collect();
        for _ in 0..12 * 8 * 3 {
            runs.retain(|run| run.stage < 3);
            let holds = |run: &Decode| {
                if run.stage > 0 || run.answered > 0 { run.rows * run.side * run.side } else { 0 }
            };
            let held = |sides: RangeInclusive<usize>| -> Vec<usize> {
                let runs = runs.iter().filter(|run| sides.contains(&run.side));
                runs.map(holds).filter(|held| *held > 0).collect()
            };
            let (small, medium, large) = (held(0..=32), held(33..=64), held(65..=256));
            prop_assert!(large.len() <= 1, "{:?}", large);
            for shared in [small, medium] {
                prop_assert!(shared.iter().sum::<usize>() <= DECODING, "{:?}", shared);
            }
            let kinds: Vec<Kind> = runs.iter().map(|run| decoder(run.side, run.stage)).collect();
            let waiting: Vec<WaitingCall> = runs.iter().zip(&kinds).map(|(decode, kind)| {
                holding(kind, decode.rows - decode.answered, decode.service, holds(decode))
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
