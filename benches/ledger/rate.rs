//! Calls per second of many callers.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use latentd::ledger::Ledger;
use serde::Serialize;

/// The longest measurement of one operation.
const LONGEST: Duration = Duration::from_secs(5);

/// What was measured of one operation.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub operation: String,
    pub callers: usize,
    pub per_second: f64,
    /// Mean milliseconds of one call while nobody else calls.
    pub alone_ms: Option<f64>,
    /// Cores of the machine that were busy, and those of them that this program used.
    pub cores: f64,
    pub client_cores: f64,
}

/// Calls `call` with each of `callers` at the same time, until `most` calls have succeeded, `seconds` have passed, or
/// each caller got 0. `call` returns how often it succeeded.
pub async fn rate<F>(
    operation: &str,
    callers: &[Ledger],
    most: usize,
    longest: Option<Duration>,
    call: impl Fn(usize, Ledger) -> F + Clone + Send + 'static,
) -> Row
where
    F: Future<Output = usize> + Send + 'static,
{
    let done = Arc::new(AtomicUsize::new(0));
    let (start, cpu, own) = (Instant::now(), busy_s(), own_s());
    let deadline = start + longest.unwrap_or(LONGEST);
    let calling = callers.iter().cloned().enumerate().map(|(at, ledger)| {
        let (done, call) = (done.clone(), call.clone());
        tokio::spawn(async move {
            while done.load(Ordering::Relaxed) < most && Instant::now() < deadline {
                match call(at, ledger.clone()).await {
                    0 => break,
                    count => done.fetch_add(count, Ordering::Relaxed),
                };
            }
        })
    });
    for ended in join_all(calling).await {
        ended.expect("no caller panics");
    }
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("{operation}, {} callers: {} in {seconds:.1} s", callers.len(), done.load(Ordering::Relaxed));
    Row {
        operation: operation.to_owned(),
        callers: callers.len(),
        per_second: done.load(Ordering::Relaxed) as f64 / seconds,
        alone_ms: None,
        cores: (busy_s() - cpu) / seconds,
        client_cores: (own_s() - own) / seconds,
    }
}

/// Seconds that all cores together have computed. Linux counts them in steps of 10 ms.
fn busy_s() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq
    [0, 1, 2, 5, 6].iter().filter_map(|&at| fields.get(at)).sum::<f64>() / 100.0
}

/// Seconds that this process has computed.
fn own_s() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    [11, 12].iter().filter_map(|&at| fields.get(at)?.parse::<f64>().ok()).sum::<f64>() / 100.0
}
