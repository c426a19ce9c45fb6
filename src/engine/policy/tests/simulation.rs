//! A simulation: the policy schedules runs whose calls take time and memory until all runs end.

use proptest::{prelude::*, test_runner::TestCaseResult};

use super::super::*;
use super::{Kind, denoiser, limits};

/// A simulated run. It still awaits `rounds` calls, one after the other. Each call has `rows` rows, and each row takes
/// `seconds`.
#[derive(Clone, Debug)]
struct Simulated {
    kind: Kind,
    rows: usize,
    seconds: f64,
    bytes: u64,
    service: f64,
    /// All films share an account.
    is_film: bool,
    own: f64,
    /// Answered rows of the current call.
    answered: usize,
    rounds: usize,
    in_batch: bool,
    /// When the run has ended.
    ended: f64,
}

/// A batch in progress: its runs with their numbers of rows, and the seconds that it still has to compute.
struct Going {
    picks: Vec<Pick>,
    left: f64,
    bytes: u64,
}

/// The place of run `index` in the order of turns.
fn turn(runs: &[Simulated], index: usize) -> Turn {
    let films = || runs.iter().position(|run| run.is_film && run.rounds > 0);
    let account = if runs[index].is_film { films().unwrap_or(index) } else { index };
    Turn { service: runs[index].service, account: account as u64, own: runs[index].own, arrival: index as u64 }
}

/// Charges the account of run `index`.
fn charge(runs: &mut [Simulated], index: usize, price: f64) {
    runs[index].own += price;
    let is_film = runs[index].is_film;
    let shares = |other: usize, run: &Simulated| other == index || is_film && run.is_film;
    runs.iter_mut().enumerate().filter(|(other, run)| shares(*other, run)).for_each(|(_, run)| run.service += price);
}

/// What happens in a simulation.
#[derive(Default)]
struct Seen {
    /// The seconds during which the watched run waited for others.
    waited: f64,
    /// Batches with the rows of several films.
    shared: usize,
    /// All batches with the rows of films.
    of_films: usize,
}

/// Follows the decisions of [`choose`] until the run `watched` has ended, or all runs have. `pauses`: whether a long
/// batch pauses after each slice.
fn simulate(runs: &mut [Simulated], watched: Option<usize>, limits: BatchLimits, pauses: bool) -> Seen {
    let (mut paused, mut seen, mut now): (Vec<Going>, Seen, f64) = (Vec::new(), Seen::default(), 0.0);
    for _ in 0..100_000 {
        if watched.is_some_and(|watched| runs[watched].rounds == 0) {
            return seen;
        }
        let open: Vec<usize> = (0..runs.len()).filter(|&i| !runs[i].in_batch && runs[i].rounds > 0).collect();
        let kinds: Vec<Kind> = open.iter().map(|&i| runs[i].kind.clone()).collect();
        let waiting: Vec<WaitingCall> = open
            .iter()
            .zip(&kinds)
            .map(|(&i, kind)| {
                let Simulated { rows, answered, seconds, bytes, is_film, .. } = runs[i];
                let run = super::run(kind, rows - answered, 0.0);
                WaitingCall { seconds, bytes, turn: turn(runs, i), is_film, ..run }
            })
            .collect();
        let batches: Vec<PausedBatch> = paused
            .iter()
            .map(|going| PausedBatch {
                key: runs[going.picks[0].waiting].kind.0.clone(),
                turn: going.picks.iter().map(|pick| turn(runs, pick.waiting)).min_by(Turn::order).unwrap(),
                is_film: going.picks.iter().all(|pick| runs[pick.waiting].is_film),
                bytes: going.bytes,
                picture: 0,
                holds: 0,
            })
            .collect();
        let payer;
        let mut going = match choose(&waiting, &batches, limits) {
            Next::Nothing => return seen,
            Next::Continue { batch, charged } => {
                payer = charged.map(|run| open[run]);
                paused.remove(batch)
            }
            Next::Begin { picks, charged } => {
                payer = charged.map(|run| open[run]);
                let picks: Vec<Pick> =
                    picks.into_iter().map(|pick| Pick { waiting: open[pick.waiting], ..pick }).collect();
                for pick in &picks {
                    let run = &mut runs[pick.waiting];
                    assert!(!run.in_batch && run.answered + pick.rows <= run.rows, "a row is in one batch");
                    run.in_batch = true;
                }
                let sum = |of: fn(&Simulated, f64) -> f64| -> f64 {
                    picks.iter().map(|pick| of(&runs[pick.waiting], pick.rows as f64)).sum()
                };
                let left = sum(|run, rows| rows * run.seconds);
                let bytes = sum(|run, rows| rows * run.bytes as f64) as u64;
                let total: usize = picks.iter().map(|pick| pick.rows).sum();
                let films = picks.iter().filter(|pick| runs[pick.waiting].is_film).count();
                let two_films = (films, picks.len(), total) == (2, 2, 2);
                let is_short = total == 1 || left <= limits.slice_s + 1e-9;
                assert!(is_short || two_films, "only a row, or a row of each of two films, takes longer than a slice");
                assert!(total == 1 || bytes <= limits.max_bytes);
                (seen.shared, seen.of_films) =
                    (seen.shared + usize::from(films > 1), seen.of_films + usize::from(films > 0));
                Going { picks, left, bytes }
            }
        };
        let slice = if pauses { going.left.min(limits.slice_s) } else { going.left };
        (going.left, now) = (going.left - slice, now + slice);
        let rows: usize = going.picks.iter().map(|pick| pick.rows).sum();
        match payer {
            Some(payer) => charge(runs, payer, slice),
            None => going.picks.iter().for_each(|pick| {
                charge(runs, pick.waiting, slice * pick.rows as f64 / rows as f64);
            }),
        }
        if going.picks.iter().all(|pick| Some(pick.waiting) != watched) {
            seen.waited += slice;
        }
        if going.left > 1e-12 {
            paused.push(going);
            let held: u64 = paused.iter().map(|going| going.bytes).sum();
            assert!(held <= limits.max_bytes || paused.len() == 1, "{held} bytes paused");
            continue;
        }
        for pick in &going.picks {
            let run = &mut runs[pick.waiting];
            run.in_batch = false;
            run.answered += pick.rows;
            if run.answered == run.rows {
                (run.answered, run.rounds, run.ended) = (0, run.rounds - 1, now);
            }
        }
    }
    panic!("the simulation does not end")
}

fn simulated(side: usize, rows: usize, seconds: f64, bytes: u64, rounds: usize) -> Simulated {
    let kind = denoiser(side);
    let (service, own, ended) = (0.0, 0.0, 0.0);
    Simulated { kind, rows, seconds, bytes, service, is_film: false, own, answered: 0, rounds, in_batch: false, ended }
}

/// A film that lasts longer than everything else. Each of its steps has `rows` rows that take `seconds` together.
fn film(rows: usize, seconds: f64, steps: usize) -> Simulated {
    Simulated { is_film: true, ..simulated(99, rows, seconds / rows as f64, 10, steps) }
}

/// When each picture ends beside `films`. Some of the films arrive before the pictures, the others after them.
fn ends(pictures: &[Simulated], films: &[Simulated], before: usize, pauses: bool) -> Vec<f64> {
    let (earlier, later) = films.split_at(before.min(films.len()));
    let mut runs = [earlier, pictures, later].concat();
    simulate(&mut runs, None, limits(16), pauses);
    runs.iter().filter(|run| !run.is_film).map(|run| run.ended).collect()
}

/// Each picture beside two films ends at most one step of a film later than beside one film.
fn two_films_are_as_one(pictures: &[Simulated], film: &Simulated, before: usize, pauses: bool) -> TestCaseResult {
    let one = ends(pictures, std::slice::from_ref(film), before, pauses);
    let two = ends(pictures, &[film.clone(), film.clone()], before, pauses);
    let step = film.rows as f64 * film.seconds;
    for (picture, (one, two)) in one.iter().zip(&two).enumerate() {
        prop_assert!(*two <= one + step + 1e-9, "picture {}: {} and {} s, step {}", picture, one, two, step);
    }
    Ok(())
}

proptest! {
    /// For each earlier run, a new run waits for at most one slice plus as much time as the new run itself computes.
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
        let waited = simulate(&mut runs, Some(watched), limits(16), true).waited;
        prop_assert!(waited <= 1.1 * others.len() as f64 + 1e-6, "{} s beside {} runs", waited, others.len());
    }

    /// Each run gets all of its answers exactly once. `simulate` also asserts the limits of time and memory of each
    /// batch.
    #[test]
    fn all_runs_end(runs in prop::collection::vec((0usize..3, 1usize..9, 0u64..2000, any::<bool>()), 1..6)) {
        let mut runs: Vec<Simulated> = runs.into_iter().map(|(key, rows, bytes, is_film)| {
            let kind = if is_film { 16 } else { 8 } + key;
            Simulated { is_film, ..simulated(kind, rows, [0.02, 0.7, 4.5][key], bytes, 3) }
        }).collect();
        simulate(&mut runs, None, limits(16), true);
        prop_assert!(runs.iter().all(|run| run.rounds == 0 && !run.in_batch));
    }

    /// A step of a film is short or long, and so is the work of a picture. A device that does not pause computes each
    /// batch to its end.
    #[test]
    fn a_second_film_makes_pictures_wait_for_at_most_one_of_its_steps(
        (rows, step, before) in (1usize..3, 0.1f64..50.0, 0usize..3),
        pictures in prop::collection::vec((1usize..5, 1usize..12, 0.001f64..0.2), 1..11),
        pauses in any::<bool>(),
    ) {
        let pictures: Vec<Simulated> = pictures.iter()
            .map(|&(rows, rounds, seconds)| simulated(8, rows, seconds, 1, rounds)).collect();
        two_films_are_as_one(&pictures, &film(rows, step, 100), before, pauses)?;
    }

    /// Beside pictures that never end, two films have the turns of one run, and all of their batches are shared.
    #[test]
    fn two_films_share_their_batches_and_their_turns(
        (rows, step, steps) in (1usize..3, 2.1f64..50.0, 1usize..10),
        pictures in prop::collection::vec(0.01f64..0.2, 1..11),
    ) {
        let mut runs = vec![film(rows, step, steps), film(rows, step, steps)];
        runs.extend(pictures.iter().map(|&seconds| simulated(8, 1, seconds, 1, usize::MAX)));
        let seen = simulate(&mut runs, Some(1), limits(16), true);
        prop_assert_eq!((seen.shared, seen.of_films), (steps * rows, steps * rows));
        let turns = 2.0 * step * steps as f64 + 1.0;
        prop_assert!(seen.waited <= turns * pictures.len() as f64, "{} s for {} s", seen.waited, turns);
    }
}
