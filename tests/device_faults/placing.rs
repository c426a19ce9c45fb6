//! The choice of devices in a process with four of them.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use latentd::{app, device::Device};
use serde_json::{Value, json};

use crate::{
    figures::Figures,
    process::Process,
    scripted_device::Scripted,
    site::{Site, expected},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_model_in_demand_is_copied_and_other_models_find_a_device() {
    let request = |model: &str, seed: usize| json!({"model": model, "prompt": "a fox", "seed": seed, "steps": 8});
    let hot = 24;
    let requests: Vec<Value> =
        (0..28).map(|i| if i < hot { request("sd1", i) } else { request("sd2", i - hot) }).collect();
    let expected = expected(&requests).await;
    let scripts: Vec<Arc<Scripted>> = (0..4).map(|_| Scripted::new()).collect();
    scripts.iter().for_each(|script| script.delay_us.store(500, SeqCst));
    let site = Site::sqlite();
    let process = Process::start(&site, &scripts).await;
    let ids = accept_in_turn(&process, &requests, hot).await;
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

/// Four GPUs with room for one model each. The bound of the host's memory does not apply to them.
#[tokio::test(flavor = "multi_thread")]
async fn a_hot_spot_spreads_within_the_bound_of_each_gpu() {
    let request = |model: &str, seed: usize| json!({"model": model, "prompt": "a fox", "seed": seed, "steps": 8});
    let hot = 32;
    let requests: Vec<Value> =
        (0..34).map(|i| if i < hot { request("sd1", i) } else { request("sd2", i - hot) }).collect();
    let expected = expected(&requests).await;
    let bytes = {
        let catalogue = app::catalogue(&Site::sqlite().config(), vec![Device::host()]).unwrap();
        ["sd1", "sd2"].map(|model| catalogue.bytes(model).unwrap())
    };
    let bound = bytes[0].max(bytes[1]);
    for (store, site) in Site::each().await {
        let site = site.with("LATENTD_MODELS__GPU_MAX_BYTES", bound).with("LATENTD_MODELS__MAX_BYTES", 1);
        let scripts: Vec<Arc<Scripted>> = (0..4).map(|_| Scripted::gpu(1 << 40)).collect();
        scripts.iter().for_each(|script| script.delay_us.store(500, SeqCst));
        let process = Process::start(&site, &scripts).await;
        let ids = accept_in_turn(&process, &requests, hot).await;
        let mut figures = Figures::default();
        let mut most = [0.0f64; 4];
        let watch = async {
            loop {
                for (i, most) in most.iter_mut().enumerate() {
                    let label = format!("device=\"scripted:{i}\"");
                    *most = most.max(process.metric("latentd_device_model_bytes", &label).await);
                }
            }
        };
        tokio::select! {
            _ = figures.judge(&process, &ids, &expected) => {}
            () = watch => {}
        }
        assert!(most.iter().all(|most| 0.0 < *most && *most <= bound as f64), "{most:?} bytes, the bound is {bound}");
        let loads = process.metric("latentd_model_loads_total", "model=\"sd1\"").await;
        assert!(loads >= 3.0, "the hot model is on at least three GPUs: {loads}");
        let batches: Vec<usize> = scripts.iter().map(|script| script.batches.load(SeqCst)).collect();
        assert!(batches.iter().all(|batches| *batches > 0), "all GPUs compute: {batches:?}");
        figures.note(format!("sd1 loaded {loads} times, batches of the GPUs {batches:?}"));
        figures.verdict(&format!("a hot spot on 4 GPUs with room for one model each, {store}"));
        process.stop().await.unwrap();
    }
}

/// Accepts the first `hot` requests before the others, so that the model in demand has the first choice of a device: if
/// the few requests of the other model came first, each could take an idle device of its own.
async fn accept_in_turn(process: &Process, requests: &[Value], hot: usize) -> Vec<String> {
    let (hot, others) = requests.split_at(hot);
    [process.accept_all(hot).await, process.accept_all(others).await].concat()
}
