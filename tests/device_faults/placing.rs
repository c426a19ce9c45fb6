//! The choice of devices in a process with four of them.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use serde_json::{Value, json};

use crate::{
    figures::Figures,
    process::Process,
    scripted_device::Scripted,
    site::{Site, expected},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_model_in_demand_is_copied_and_other_models_find_a_device() {
    let request = |model: &str, seed: u64| json!({"model": model, "prompt": "a fox", "seed": seed, "steps": 8});
    let hot = (0..24).map(|seed| request("sd1", seed));
    let other = (0..4).map(|seed| request("sd2", seed));
    let requests: Vec<Value> = hot.chain(other).collect();
    let expected = expected(&requests).await;
    let scripts: Vec<Arc<Scripted>> = (0..4).map(|_| Scripted::new()).collect();
    scripts.iter().for_each(|script| script.delay_us.store(500, SeqCst));
    let site = Site::sqlite();
    let process = Process::start(&site, &scripts).await;
    let ids = process.accept_all(&requests).await;
    let mut figures = Figures::default();
    figures.judge(&process, &ids, &expected).await;
    let loads = async |model: &str| process.metric("latentd_model_loads_total", &format!("model=\"{model}\"")).await;
    let (hot_loads, other_loads) = (loads("sd1").await, loads("sd2").await);
    assert!(hot_loads >= 2.0 && other_loads >= 1.0, "{hot_loads} loads of sd1, {other_loads} of sd2");
    let batches: Vec<usize> = scripts.iter().map(|script| script.batches.load(SeqCst)).collect();
    assert!(batches.iter().all(|batches| *batches > 0), "all devices compute: {batches:?}");

    // A failed device gets nothing, also if it is idle and has the models.
    scripts[3].lose();
    let again = process.accept_all(&requests).await;
    figures.judge(&process, &again, &expected).await;
    let before = scripts[3].layers.load(SeqCst);
    assert!(scripts[3].is_lost());
    let last = process.accept_all(&requests[..8]).await;
    figures.judge(&process, &last, &expected[..8]).await;
    assert_eq!(scripts[3].layers.load(SeqCst), before);
    figures.note(format!("batches of the devices {batches:?}, sd1 loaded {hot_loads} times"));
    figures.verdict("a hot model and another one on 4 devices, then 3, SQLite");
    process.stop().await.unwrap();
}
