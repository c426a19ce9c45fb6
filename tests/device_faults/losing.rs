//! Devices that are lost: one of several devices, the last device of a process, and the device of one of several
//! replicas.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use serde_json::{Value, json};

use crate::{
    figures::Figures,
    process::Process,
    scripted_device::Scripted,
    site::{Site, expected, requests},
};

fn scripts(count: usize) -> Vec<Arc<Scripted>> {
    let slow = |_| {
        let script = Scripted::new();
        script.delay_us.store(300, SeqCst);
        script
    };
    (0..count).map(slow).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_of_a_lost_device_resume_on_the_others() {
    let requests = requests(24);
    let expected = expected(&requests).await;
    for (store, site) in Site::each().await {
        let scripts = scripts(4);
        scripts[1].lost_at.store(15, SeqCst);
        scripts[2].lost_at.store(60, SeqCst);
        let process = Process::start(&site, &scripts).await;
        let mut figures = Figures::default();
        let ids = process.accept_all(&requests).await;
        let generations = figures.judge(&process, &ids, &expected).await;
        assert!(generations.iter().all(|generation| generation["attempt"] == 1), "no attempt is counted");
        let lost: Vec<bool> = scripts.iter().map(|script| script.is_lost()).collect();
        assert!(lost[1] && !lost[0] && !lost[3], "{lost:?}");
        let queue = process.json("/v1/queue").await;
        for (i, is_lost) in lost.iter().enumerate() {
            let device = &queue["devices"][i];
            assert_eq!(
                (&device["id"], &device["failed"]),
                (&json!(format!("scripted:{i}")), &json!(is_lost)),
                "{queue}"
            );
            let label = format!("device=\"scripted:{i}\"");
            assert_eq!(process.metric("latentd_device_failed", &label).await, f64::from(u8::from(*is_lost)));
            assert_eq!(process.metric("latentd_device_runs", &label).await, 0.0);
            assert_eq!(scripts[i].after_loss.load(SeqCst), 0, "a lost device gets no more work");
        }
        let lost_count = lost.iter().filter(|lost| **lost).count();
        let unloads = process.metric("latentd_model_unloads_total", "model=\"sd1\"").await;
        assert_eq!(unloads, lost_count as f64, "the models of lost devices are unloaded");
        let again = process.accept_all(&requests[..8]).await;
        figures.judge(&process, &again, &expected[..8]).await;
        assert!(scripts.iter().all(|script| script.after_loss.load(SeqCst) == 0));
        figures.note(format!("{lost_count} devices lost"));
        figures.note(format!("{} rows replayed", process.metric("latentd_replayed_steps_total", "").await));
        figures.verdict(&format!("devices lost in mid-batch, 4 devices, {store}"));
        process.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_last_device_is_lost_ends_and_the_next_one_goes_on() {
    let requests = requests(10);
    let expected = expected(&requests).await;
    for (store, site) in Site::each().await {
        let lossy = scripts(2);
        let process = Process::start(&site, &lossy).await;
        let ids = process.accept_all(&requests).await;
        lossy[0].lost_at.store(20, SeqCst);
        lossy[1].lost_at.store(40, SeqCst);
        let error = process.exit().await.unwrap_err().to_string();
        assert!(error.contains("all devices have failed (scripted:0, scripted:1)"), "{error}");

        let next = Process::start(&site, &scripts(1)).await;
        let mut figures = Figures::default();
        let generations = figures.judge(&next, &ids, &expected).await;
        assert!(generations.iter().all(|generation| generation["attempt"] == 1), "no attempt is counted");
        figures.note(format!("{} rows replayed", next.metric("latentd_replayed_steps_total", "").await));
        figures.verdict(&format!("the last device lost, then a new process, {store}"));
        next.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_takes_over_from_one_whose_device_is_lost() {
    let Some(site) = Site::postgres().await else { return };
    let requests = requests(10);
    let expected = expected(&requests).await;
    let (lossy, healthy) = (scripts(1), scripts(1));
    let (first, second) = (Process::start(&site, &lossy).await, Process::start(&site, &healthy).await);
    let ids = first.accept_all(&requests).await;
    lossy[0].lost_at.store(25, SeqCst);
    let mut figures = Figures::default();
    figures.judge(&second, &ids, &expected).await;
    if lossy[0].is_lost() {
        let error = first.exit().await.unwrap_err().to_string();
        assert!(error.contains("all devices have failed (scripted:0)"), "{error}");
    } else {
        panic!("the first replica computed fewer than 25 layers");
    }
    figures.note(format!("{} rows replayed", second.metric("latentd_replayed_steps_total", "").await));
    figures.verdict("the device of one of two replicas lost, PostgreSQL");
    second.stop().await.unwrap();
}

/// A generation whose rows take more memory than the rows of [`requests`], so that scripts recognize it.
fn poison() -> Value {
    json!({"prompt": "a whale", "seed": 1, "steps": 3, "width": 192, "height": 192, "guidance_scale": 1.0})
}

/// Maximum bytes of one row of any batch of these requests.
async fn bytes_per_row(requests: &[Value]) -> u64 {
    let (site, script) = (Site::sqlite(), Scripted::new());
    let process = Process::start(&site, std::slice::from_ref(&script)).await;
    for id in process.accept_all(requests).await {
        assert_eq!(process.ended(&id).await["status"], "succeeded");
    }
    process.stop().await.unwrap();
    script.bytes_per_row.load(SeqCst)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_loses_every_device_is_given_up_before_the_last_one() {
    let requests = requests(12);
    let expected = expected(&requests).await;
    let harmless = bytes_per_row(&requests).await;
    assert!(bytes_per_row(&[poison()]).await > harmless);
    for (store, site) in Site::each().await {
        let scripts = scripts(4);
        scripts.iter().for_each(|script| script.lost_above.store(harmless, SeqCst));
        let process = Process::start(&site, &scripts).await;
        let mut figures = Figures::default();
        let before = process.accept_all(&requests[..6]).await;
        let guilty = process.accept(&poison()).await;
        let after = process.accept_all(&requests[6..]).await;
        let failed = process.ended(&guilty).await;
        let problem = &failed["error"];
        assert_eq!((&failed["status"], &problem["code"]), (&json!("failed"), &json!("device_lost")), "{failed}");
        assert_eq!((&problem["retryable"], &failed["attempt"]), (&json!(false), &json!(1)), "{failed}");
        let message = problem["message"].as_str().unwrap();
        assert!(message.contains("the device scripted:") && message.contains("is lost at layer"), "{message}");
        figures.judge(&process, &before, &expected[..6]).await;
        figures.judge(&process, &after, &expected[6..]).await;
        let dead = process.admin("/admin/generations?dead=true").await;
        assert_eq!(
            (&dead["data"][0]["id"], &dead["data"][0]["crash_count"], dead["data"].as_array().unwrap().len()),
            (&json!(guilty), &json!(3), 1),
            "{dead}"
        );
        let lost = scripts.iter().filter(|script| script.is_lost()).count();
        assert_eq!(lost, 3, "queue.max_crashes devices are lost");
        figures.note(format!("{lost} of 4 devices lost"));
        figures.verdict(&format!("a generation that loses every device, {store}"));
        process.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_ends_every_process_is_given_up() {
    let requests = requests(4);
    let expected = expected(&requests).await;
    let harmless = bytes_per_row(&requests).await;
    for (store, site) in Site::each().await {
        let site = site.with("LATENTD_QUEUE__MAX_CRASHES", 2);
        let start = async || {
            let script = Scripted::new();
            script.lost_above.store(harmless, SeqCst);
            Process::start(&site, &[script]).await
        };
        // All other generations are accepted before the generation that ends the process.
        let process = start().await;
        let ids = process.accept_all(&requests).await;
        let guilty = process.accept(&poison()).await;
        process.exit().await.unwrap_err();
        start().await.exit().await.unwrap_err();
        let process = start().await;
        let failed = process.ended(&guilty).await;
        assert_eq!(failed["error"]["code"], "device_lost", "{failed}");
        let mut figures = Figures::default();
        figures.judge(&process, &ids, &expected).await;
        figures.verdict(&format!("a generation that ends every process, {store}"));
        process.stop().await.unwrap();
    }
}
