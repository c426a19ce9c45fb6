//! Tests of devices that run out of memory or are lost, with a scripted device.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use latentd::{
    engine::{Log, Refused, RunError},
    pipelines::{Frame, NetworkError, PipelineError},
};

use super::*;
use crate::scripted_device::Scripted as Script;

/// A slice that is so long that the number of rows of a batch depends on memory alone.
const SLICE: Duration = Duration::from_secs(60);

/// Figures of an experiment.
#[derive(Debug, Default)]
struct Figures {
    runs: usize,
    lost: usize,
    neighbors_failed: usize,
    splits: u64,
}

/// An engine on a scripted device, and the figures of the runs that it computes.
struct Experiment {
    name: &'static str,
    script: Arc<Script>,
    fixture: EngineFixture,
    figures: RefCell<Figures>,
}

impl Experiment {
    fn new(name: &'static str) -> Experiment {
        let script = Script::new();
        // Without the cache of text embeddings, so that a repeated request makes the same calls.
        let settings = engine::Settings { text_cache_entries: 0, ..settings(16, SLICE) };
        let fixture = EngineFixture::on(script.device("scripted"), settings);
        Experiment { name, script, fixture, figures: RefCell::default() }
    }

    /// Runs all requests together, and compares the frames of each with the expected ones.
    fn all_draw(&self, requests: &[(Value, Vec<Frame>)]) {
        let runs: Vec<_> = requests.iter().map(|(request, _)| self.fixture.start(request.clone())).collect();
        for ((_, observed), (request, expected)) in runs.iter().zip(requests) {
            self.figures.borrow_mut().runs += 1;
            match observed.recv_timeout(Duration::from_secs(300)).map(|first| ended(first, observed)) {
                Ok(Ok(frames)) => assert!(frames == *expected, "{}: other bytes of {request}", self.name),
                Ok(Err(error)) => {
                    self.figures.borrow_mut().neighbors_failed += 1;
                    println!("{}: {error}: {request}", self.name);
                }
                Err(_) => self.figures.borrow_mut().lost += 1,
            }
        }
    }

    fn splits(&self) -> u64 {
        self.fixture.metrics.out_of_memory_splits.with_label_values(&["scripted"]).get()
    }

    /// Prints the figures; none may be lost and no neighbor may have failed.
    fn verdict(&self) {
        let mut figures = self.figures.borrow_mut();
        figures.splits = self.splits();
        let Figures { runs, lost, neighbors_failed, splits } = &*figures;
        println!(
            "{}: {runs} runs, {lost} lost, {neighbors_failed} neighbors failed, {splits} batches split",
            self.name
        );
        assert_eq!((*lost, *neighbors_failed), (0, 0), "{}", self.name);
    }
}

/// The outcome of a run whose first report is `first`.
fn ended(first: Observed, observed: &mpsc::Receiver<Observed>) -> Result<Vec<Frame>, RunError> {
    match first {
        Observed::Ended(outcome) => outcome,
        _ => outcome(observed),
    }
}

/// Requests with their frames, drawn one by one on a device without faults.
fn drawn(requests: &[Value]) -> Vec<(Value, Vec<Frame>)> {
    let fixture = EngineFixture::new(16, 1);
    requests.iter().map(|request| (request.clone(), fixture.draw(request.clone()))).collect()
}

fn company() -> Vec<Value> {
    vec![
        json!({"prompt": "a fox", "steps": 2, "seed": 1, "n": 2}),
        json!({"prompt": "an owl", "steps": 2, "seed": 2, "scheduler": "heun"}),
        json!({"prompt": "a wolf", "steps": 1, "seed": 4, "width": 72, "height": 64, "guidance_scale": 1.0}),
    ]
}

#[test]
fn a_lack_of_memory_at_any_batch_fails_no_run_and_changes_no_picture() {
    let experiment = Experiment::new("out of memory at every batch");
    let script = &experiment.script;
    for requests in [&company()[..1], &company()] {
        let expected = drawn(requests);
        script.restart();
        experiment.all_draw(&expected);
        let batches = script.batches.load(SeqCst);
        assert!(batches > 3, "{batches} batches");
        // The batches of runs in company depend on the order of arrival, so their number varies a little.
        for at in 0..batches + 1 {
            script.restart();
            script.out_of_memory_at.lock().push(at);
            experiment.all_draw(&expected);
        }
    }
    experiment.verdict();
    assert!(experiment.splits() > 3, "most batches have several rows");
}

#[test]
fn repeated_lacks_of_memory_fail_no_run_and_change_no_picture() {
    let experiment = Experiment::new("out of memory at random batches");
    // Two lacks in a row can fail a call of one row, whose last try is the second. So some batch lies between them.
    let lacks = prop::collection::vec(2usize..9, 1..8).prop_map(|gaps| {
        let sums = gaps.into_iter().scan(0, |at, gap| {
            *at += gap;
            Some(*at)
        });
        sums.collect::<Vec<_>>()
    });
    let mut runner = TestRunner::new(Config { cases: 6, failure_persistence: None, ..Config::default() });
    runner
        .run(&(prop::collection::vec(any_request(), 1..4), lacks), |(requests, lacks)| {
            let expected = drawn(&requests);
            experiment.script.restart();
            *experiment.script.out_of_memory_at.lock() = lacks;
            experiment.all_draw(&expected);
            Ok(())
        })
        .unwrap();
    experiment.verdict();
}

#[test]
fn batches_are_halved_until_they_fit_and_later_ones_fit_at_once() {
    let experiment = Experiment::new("room for three rows");
    let script = &experiment.script;
    let expected = drawn(&[json!({"prompt": "a fox", "steps": 4, "seed": 1, "n": 8})]);
    script.rows.store(3, SeqCst);
    experiment.all_draw(&expected);
    experiment.verdict();
    let refused = script.refused.load(SeqCst) as u64;
    assert_eq!(experiment.splits(), refused, "no batch of one row was refused");
    // 16 rows of 4 steps: 16, 8 and 4 rows did not fit once; then all batches have at most two rows. Stages of the
    // decoder learn for themselves.
    assert!((3..=40).contains(&refused), "{refused} batches were computed in vain");
    let batches = script.batches.load(SeqCst) as u64;
    assert!(batches >= 4 * 8 && refused < batches / 2, "{refused} of {batches} batches");
}

/// A device that reports its memory gets batches that fit, so no batch is computed in vain.
#[test]
fn a_batch_has_as_many_rows_as_the_memory_of_the_device_holds() {
    let experiment = Experiment::new("a device that tells its memory");
    let script = &experiment.script;
    let expected = drawn(&[json!({"prompt": "a fox", "steps": 4, "seed": 1, "n": 8}), company()[1].clone()]);
    experiment.all_draw(&expected);
    let (whole, row) = (script.batches.load(SeqCst), script.bytes_per_row.load(SeqCst));
    script.restart();
    let memory = 3 * row + row / 2;
    script.memory.store(memory, SeqCst);
    script.bytes.store(memory, SeqCst);
    experiment.all_draw(&expected);
    experiment.verdict();
    assert_eq!((script.refused.load(SeqCst), experiment.splits()), (0, 0), "a batch did not fit");
    let batches = script.batches.load(SeqCst);
    assert!(batches > whole, "{batches} batches are more than the {whole} of a device with much memory");
}

#[test]
fn a_run_that_never_fits_fails_alone_with_the_figures() {
    let experiment = Experiment::new("too large beside others");
    let script = &experiment.script;
    let expected = drawn(&company());
    experiment.all_draw(&expected);
    let small = script.bytes_per_row.load(SeqCst);
    let large = json!({"prompt": "a whale", "steps": 2, "seed": 9, "width": 256, "height": 256, "n": 2});
    experiment.fixture.draw(large.clone());
    let bytes = script.bytes_per_row.load(SeqCst);
    assert!(bytes > 2 * small, "{small} and {bytes} bytes");

    script.bytes.store((small + bytes) / 2, SeqCst);
    let (_, failing) = experiment.fixture.start(large.clone());
    experiment.all_draw(&expected);
    let Err(RunError::Pipeline(PipelineError::Network(error))) = outcome(&failing) else { panic!("it does not fit") };
    let NetworkError { fault, detail, .. } = &error;
    assert_eq!(*fault, latentd::device::Fault::OutOfMemory);
    assert!(detail.contains("one row") && detail.contains("scripted") && detail.contains("bytes"), "{error}");
    experiment.all_draw(&expected);
    script.bytes.store(u64::MAX, SeqCst);
    experiment.fixture.draw(large);
    experiment.verdict();
}

/// Long batches are paused when another batch runs out of memory, and their rows are computed again.
#[test]
fn paused_batches_give_their_memory_to_a_row_that_does_not_fit() {
    let script = Script::new();
    let settings = engine::Settings { text_cache_entries: 0, ..settings(16, Duration::from_nanos(1)) };
    let fixture = EngineFixture::on(script.device("scripted"), settings);
    let expected = drawn(&company());
    let count = || {
        script.restart();
        let runs: Vec<_> = expected.iter().map(|(request, _)| fixture.start(request.clone())).collect();
        runs.iter().map(|(_, observed)| outcome(observed).unwrap()).collect::<Vec<_>>()
    };
    assert!(count().iter().zip(&expected).all(|(frames, (_, expected))| frames == expected));
    let batches = script.batches.load(SeqCst);
    for at in 0..batches {
        script.restart();
        script.out_of_memory_at.lock().push(at);
        let runs: Vec<_> = expected.iter().map(|(request, _)| fixture.start(request.clone())).collect();
        for ((_, observed), (request, expected)) in runs.iter().zip(&expected) {
            assert!(outcome(observed).unwrap() == *expected, "batch {at}: {request}");
        }
    }
    println!("out of memory at every batch among paused ones: {} runs, 0 lost", (batches + 1) * expected.len());
}

/// Two runs whose rows share no batch: only the run for which the device computed can be the cause of the loss.
#[test]
fn the_runs_of_the_last_batch_are_suspects() {
    let script = Script::new();
    let fixture = EngineFixture::on_when_lost(script.device("scripted"), settings(16, SLICE), |_| ());
    let sizes =
        [json!({"prompt": "a fox", "steps": 4, "seed": 1}), json!({"prompt": "a wolf", "steps": 4, "width": 256})];
    fixture.draw(sizes[0].clone());
    script.lost_above.store(script.bytes_per_row.load(SeqCst), SeqCst);
    let runs: Vec<_> = sizes.iter().map(|request| fixture.start(request.clone()).1).collect();
    let [small, large] = [0, 1].map(|run| outcome(&runs[run]).err());
    assert!(matches!(small, None | Some(RunError::Stopped)), "{small:?}");
    let Some(RunError::DeviceLost(why)) = large else { panic!("{large:?}") };
    assert!(why.contains("the device scripted was lost"), "{why}");
}

/// CUDA calls errors sticky after which every call fails. A library may report such an error as an error of its own.
/// The next call that waits for the device then reports the sticky error.
#[test]
fn a_loss_that_a_call_reports_as_another_error_is_found_by_waiting() {
    let script = Script::new();
    script.secretly_lost_at.store(2, SeqCst);
    let mut fixture = EngineFixture::on_when_lost(script.device("scripted"), settings(16, SLICE), |reason| {
        assert!(reason.contains("the scripted device is lost"), "{reason}");
    });
    let (_, observed) = fixture.start(json!({"prompt": "a fox", "steps": 4, "seed": 1}));
    let ended = outcome(&observed);
    assert!(matches!(ended, Err(RunError::DeviceLost(_))), "the loss is known: {:?}", ended.err());
    fixture.join();
    assert_eq!(script.after_loss.load(SeqCst), 0, "the lost device computes nothing more");
}

#[test]
fn a_lost_device_releases_all_runs_with_their_logs_and_takes_no_more() {
    let requests: Vec<Value> =
        (0..3).map(|seed| json!({"prompt": "a fox", "steps": 8, "seed": seed, "scheduler": "dpmpp_2m"})).collect();
    let expected = drawn(&requests);
    let layers = {
        let script = Script::new();
        let fixture = EngineFixture::on(script.device("scripted"), settings(16, SLICE));
        fixture.draw(requests[0].clone());
        script.layers.load(SeqCst)
    };
    let (mut runs, mut replayed) = (0, 0);
    let mut resumed_at = BTreeSet::new();
    for at in (1..layers).step_by((layers / 4).max(1)) {
        let (script, is_told) = (Script::new(), Arc::new(AtomicBool::new(false)));
        script.lost_at.store(at, SeqCst);
        let (told, settings) = (is_told.clone(), settings(16, SLICE));
        let mut fixture = EngineFixture::on_when_lost(script.device("scripted"), settings, move |reason| {
            assert!(reason.contains("lost at layer"), "{reason}");
            told.store(true, SeqCst);
        });
        let mut submitted = Vec::new();
        for request in &requests {
            match fixture.try_start(request.clone()) {
                Ok((_, observed)) => submitted.push((request, observed)),
                // The device was lost before.
                Err(Refused::Stopped(_)) => {}
                Err(Refused::Full(_)) => panic!("the engine is full"),
            }
        }
        let healthy = EngineFixture::new(16, 1);
        let (mut suspects, started) = (0, submitted.len());
        for (request, observed) in submitted {
            let mut log = Log::default();
            // An engine that ends drops a run that arrives too late; the worker treats it like a stopped run.
            let ended = observed.iter().find_map(|observed| match observed {
                Observed::Portion(portion) => {
                    assert!(log.join(portion), "portions follow each other");
                    None
                }
                Observed::Ended(outcome) => Some(outcome),
                Observed::Progress(..) | Observed::Preview(..) | Observed::Handles(_) => None,
            });
            let by_loss = matches!(ended, None | Some(Err(RunError::Stopped | RunError::DeviceLost(_))));
            assert!(by_loss, "layer {at}: {ended:?}");
            suspects += usize::from(matches!(ended, Some(Err(RunError::DeviceLost(_)))));
            assert!(is_told.load(SeqCst), "placement learns of the loss before the runs end");
            (runs, replayed) = (runs + 1, replayed + log.rows());
            resumed_at.insert(log.rows());
            *healthy.replay.borrow_mut() = log;
            let (_, expected) = expected.iter().find(|(of, _)| of == request).unwrap();
            assert!(healthy.draw(request.clone()) == *expected, "lost at layer {at}: {request}");
        }
        assert!((1..=started).contains(&suspects), "layer {at}: {suspects} of {started} runs are suspects");
        fixture.join();
        assert!(matches!(fixture.try_start(requests[0].clone()), Err(Refused::Stopped(_))));
        assert_eq!(script.after_loss.load(SeqCst), 0, "the lost device computes nothing more");
        assert_eq!(fixture.metrics.wasted_steps.with_label_values(&["lost"]).get(), 0, "every step is in a log");
    }
    println!("a lost device: {runs} runs, 0 lost, 0 neighbors failed, {replayed} rows replayed elsewhere");
    assert!(resumed_at.len() > 2, "the device was lost at different steps: {resumed_at:?}");
}
