//! A simulation: the policy schedules runs whose calls take time and memory until all runs end.

use proptest::prelude::*;

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
    /// Answered rows of the current call.
    answered: usize,
    rounds: usize,
    in_batch: bool,
}

/// A batch in progress: its runs with their numbers of rows, and the seconds that it still has to compute.
struct Going {
    picks: Vec<Pick>,
    left: f64,
    bytes: u64,
}

/// Follows the decisions of [`choose`] until the run `watched` has ended, or all runs have. Returns the seconds during
/// which the watched run waited for others.
fn simulate(runs: &mut [Simulated], watched: Option<usize>, limits: BatchLimits) -> f64 {
    let (mut paused, mut waited): (Vec<Going>, f64) = (Vec::new(), 0.0);
    for _ in 0..10_000 {
        if watched.is_some_and(|watched| runs[watched].rounds == 0) {
            return waited;
        }
        let open: Vec<usize> = (0..runs.len()).filter(|&i| !runs[i].in_batch && runs[i].rounds > 0).collect();
        let kinds: Vec<Kind> = open.iter().map(|&i| runs[i].kind.clone()).collect();
        let waiting: Vec<WaitingCall> = open
            .iter()
            .zip(&kinds)
            .map(|(&i, kind)| {
                let Simulated { rows, answered, seconds, bytes, service, .. } = runs[i];
                let run = super::run(kind, rows - answered, service);
                WaitingCall { seconds, bytes, arrival: i as u64, ..run }
            })
            .collect();
        let seen: Vec<PausedBatch> = paused
            .iter()
            .map(|going| PausedBatch {
                service: going.picks.iter().map(|pick| runs[pick.waiting].service).fold(f64::INFINITY, f64::min),
                arrival: going.picks.iter().map(|pick| pick.waiting as u64).min().unwrap(),
                bytes: going.bytes,
                picture: 0,
                holds: 0,
            })
            .collect();
        let payer;
        let mut going = match choose(&waiting, &seen, limits) {
            Next::Nothing => return waited,
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
                (run.answered, run.rounds) = (0, run.rounds - 1);
            }
        }
    }
    panic!("the simulation does not end")
}

fn simulated(side: usize, rows: usize, seconds: f64, bytes: u64, rounds: usize) -> Simulated {
    let kind = denoiser(side);
    Simulated { kind, rows, seconds, bytes, service: 0.0, answered: 0, rounds, in_batch: false }
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
        let waited = simulate(&mut runs, Some(watched), limits(16));
        prop_assert!(waited <= 1.1 * others.len() as f64 + 1e-6, "{} s beside {} runs", waited, others.len());
    }

    /// Each run gets all of its answers exactly once. `simulate` also asserts the limits of time and memory of each
    /// batch.
    #[test]
    fn all_runs_end(runs in prop::collection::vec((0usize..3, 1usize..9, 0u64..2000), 1..6)) {
        let mut runs: Vec<Simulated> = runs.into_iter()
            .map(|(key, rows, bytes)| simulated(8 + key, rows, [0.02, 0.7, 4.5][key], bytes, 3)).collect();
        simulate(&mut runs, None, limits(16));
        prop_assert!(runs.iter().all(|run| run.rounds == 0 && !run.in_batch));
    }
}
