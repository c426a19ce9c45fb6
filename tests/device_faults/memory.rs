//! A device with too little memory for some batches, and for one generation.

use std::sync::atomic::Ordering::SeqCst;

use serde_json::json;

use crate::{
    figures::Figures,
    process::Process,
    scripted_device::Scripted,
    site::{Site, expected, requests},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_never_fits_fails_alone() {
    let small = requests(12);
    let large = json!({"prompt": "a whale", "seed": 1, "steps": 3, "width": 192, "height": 192, "guidance_scale": 1.0});
    let expected = expected(&small).await;
    for (store, site) in Site::each().await {
        let script = Scripted::new();
        script.rows.store(3, SeqCst);
        let process = Process::start(&site, std::slice::from_ref(&script)).await;
        let mut figures = Figures::default();
        let first = process.accept_all(&small[..2]).await;
        figures.judge(&process, &first, &expected[..2]).await;
        let bytes_of_small = script.bytes_per_row.load(SeqCst);
        let fits = process.ended(&process.accept(&large).await).await;
        assert_eq!(fits["status"], "succeeded", "{fits}");
        let bytes_of_large = script.bytes_per_row.load(SeqCst);
        assert!(bytes_of_large > 2 * bytes_of_small, "{bytes_of_small} and {bytes_of_large} bytes");

        script.bytes.store((bytes_of_small + bytes_of_large) / 2, SeqCst);
        let ids = process.accept_all(&small[..6]).await;
        let failing = process.accept(&large).await;
        let more = process.accept_all(&small[6..]).await;
        figures.judge(&process, &ids, &expected[..6]).await;
        figures.judge(&process, &more, &expected[6..]).await;
        let failed = process.ended(&failing).await;
        let problem = &failed["error"];
        assert_eq!((&failed["status"], &problem["code"]), (&json!("failed"), &json!("out_of_memory")), "{failed}");
        assert_eq!((&problem["retryable"], &failed["attempt"]), (&json!(false), &json!(1)), "{failed}");
        let text = failed.to_string();
        for said in ["192 × 192 pixels", "bytes of activations", "scripted:0"] {
            assert!(text.contains(said), "{said:?} is not in {text}");
        }
        let splits = process.metric("latentd_out_of_memory_splits_total", "device=\"scripted:0\"").await;
        assert!(splits > 0.0, "batches of more than three rows were divided");
        figures.verdict(&format!("too little memory for a large generation beside small ones, {store}"));
        process.stop().await.unwrap();
    }
}

/// A generation that exceeds the memory that the devices report is refused before any work, with the figures.
#[tokio::test(flavor = "multi_thread")]
async fn a_generation_larger_than_every_device_is_refused() {
    let (site, small, large) = (Site::sqlite(), Scripted::new(), Scripted::new());
    let process = Process::start(&site, &[small.clone(), large.clone()]).await;
    let request = json!({"prompt": "a whale", "seed": 1, "steps": 1, "width": 192, "height": 192});
    small.memory.store(1 << 10, SeqCst);
    large.memory.store(1 << 11, SeqCst);
    let refused = process.refusal(&request).await;
    let error = &refused["errors"][0];
    assert_eq!((&error["pointer"], &error["code"]), (&json!("/model"), &json!("out_of_range")), "{refused}");
    let detail = error["detail"].as_str().unwrap();
    assert!(detail.contains("its weights take") && detail.contains("the largest GPU has 1 MiB"), "{detail}");
    let model = process.json("/v1/models/sd1").await;
    large.memory.store(model["bytes"].as_u64().unwrap() + (1 << 20), SeqCst);
    let refused = process.refusal(&request).await;
    let error = &refused["errors"][0];
    assert_eq!((&error["pointer"], &error["code"]), (&json!("/width"), &json!("out_of_range")), "{refused}");
    let detail = error["detail"].as_str().unwrap();
    for said in ["one row of its largest network call takes", "MiB of weights", "the largest GPU has"] {
        assert!(detail.contains(said), "{said:?} is not in {detail}");
    }
    large.memory.store(1 << 30, SeqCst);
    let fits = process.ended(&process.accept(&request).await).await;
    assert_eq!(fits["status"], "succeeded", "{fits}");
    process.stop().await.unwrap();
}

/// Text encoders and autoencoders in the memory of the host: the same pictures, with less memory of the GPU.
#[tokio::test(flavor = "multi_thread")]
async fn offloaded_networks_draw_the_same_pictures() {
    let small = requests(8);
    let expected = expected(&small).await;
    let site = Site::sqlite();
    let plain = Process::start(&site, &[Scripted::gpu(1 << 40)]).await;
    let bytes = async |process: &Process| process.json("/v1/models/sd1").await["bytes"].as_u64().unwrap();
    let whole = bytes(&plain).await;
    plain.stop().await.unwrap();
    for (store, site) in Site::each().await {
        let site = site.with("LATENTD_MODELS__OFFLOAD", true);
        let script = Scripted::gpu(1 << 40);
        let process = Process::start(&site, std::slice::from_ref(&script)).await;
        let resident = bytes(&process).await;
        assert!(0 < resident && resident < whole, "{resident} of {whole} bytes");
        let mut figures = Figures::default();
        let ids = process.accept_all(&small).await;
        figures.judge(&process, &ids, &expected).await;
        assert_eq!(process.metric("latentd_model_bytes", "").await, resident as f64);
        let copied = process.metric("latentd_offload_copied_bytes_total", "device=\"scripted:0\"").await;
        assert!(copied > 0.0);
        let plan = process.metric("latentd_memory_plan_bytes", "").await;
        assert!(plan > (whole - resident) as f64);
        figures.note(format!("{resident} of {whole} bytes on the GPU, {copied} bytes copied"));
        figures.verdict(&format!("offloaded text encoders and autoencoders, {store}"));
        process.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offloading_changes_nothing_on_the_cpu() {
    let small = requests(2);
    let expected = expected(&small).await;
    let site = Site::sqlite().with("LATENTD_MODELS__OFFLOAD", true);
    let process = Process::start(&site, &[Scripted::new()]).await;
    let mut figures = Figures::default();
    let ids = process.accept_all(&small).await;
    figures.judge(&process, &ids, &expected).await;
    assert_eq!(process.metric("latentd_offload_copied_bytes_total", "").await, 0.0);
    figures.verdict("offload on the CPU, SQLite");
    process.stop().await.unwrap();
}
