//! Tests of several devices: each computes on its own cores, all draw the same pictures, and unusable ones are refused.

use std::process::Command;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Server, request, with};

#[tokio::test]
async fn two_devices_share_the_work_and_draw_the_same_bytes_as_one() {
    let Some([first, second]) = two_cores() else {
        println!("devices: skipped, this process has one core");
        return;
    };
    let bodies: Vec<Value> = (0..6).map(|i| with(request("a red fox", 40 + i), &json!({"steps": 4}))).collect();
    let mut drawn = Vec::new();
    for devices in [vec!["cpu".to_owned()], vec![format!("cpu:{first}"), format!("cpu:{second}")]] {
        let data = tempfile::tempdir().unwrap();
        let server = Server::start(data.path(), &[("LATENTD_ENGINE__DEVICES", &devices.join(","))]).await;
        let ids = join_all(bodies.iter().map(|body| server.accept(body))).await;
        join_all(ids.iter().map(|id| server.ended(id))).await;
        drawn.push(join_all(ids.iter().map(|id| server.picture(id, 0))).await);

        let queue: Value = server.get("/v1/queue").await.json().await.unwrap();
        let named: Vec<&str> =
            queue["devices"].as_array().unwrap().iter().map(|of| of["id"].as_str().unwrap()).collect();
        assert_eq!(named, devices);
        for device in &devices {
            let label = format!("device=\"{device}\"");
            assert!(server.metric("latentd_device_steps_total", &label).await > 0.0, "{device} has computed nothing");
            assert!(server.metric("latentd_batch_seconds_count", &label).await > 0.0, "{device}");
            assert_eq!(server.metric("latentd_device_runs", &label).await, 0.0, "{device}");
        }
        let all = server.metric("latentd_device_steps_total", "").await;
        assert_eq!(all, server.metric("latentd_steps_total", "").await);
    }
    assert!(drawn[0] == drawn[1], "the devices draw other bytes");
}

#[test]
fn devices_that_cannot_be_used_are_refused_by_name() {
    let latentd = |settings: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
        command.args(["config", "check"]).env_clear().envs(settings.iter().copied()).output().unwrap()
    };
    let devices = "LATENTD_ENGINE__DEVICES";
    for (name, value, said) in [
        (devices, "cpu:0,cpu:0-1", "engine.devices: \"cpu:0\" and \"cpu:0-1\" have cores in common"),
        (devices, "gpu", "must be cpu, or cores of it such as cpu:0 or cpu:0-7, not \"gpu\""),
        (devices, "cuda:0", "this build computes on the processor alone"),
        (devices, "cpu:99999", "core 99999 of \"cpu:99999\" cannot be used; this process may use the cores"),
        ("LATENTD_ENGINE__KERNELS", "fast", "must be packed or reference, not \"fast\""),
    ] {
        let output = latentd(&[(name, value)]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(said), "{value}: {text}");
    }
    assert!(latentd(&[(devices, "cpu"), ("LATENTD_ENGINE__KERNELS", "reference")]).status.success());
}

/// The first two cores that this process may use; `None` if it has one.
fn two_cores() -> Option<[usize; 2]> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let ranges = list.map_or_else(
        || format!("0-{}", std::thread::available_parallelism().map_or(1, usize::from) - 1),
        |list| list.trim().to_owned(),
    );
    let cores = ranges.split(',').flat_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        first.parse::<usize>().unwrap()..=last.parse().unwrap()
    });
    cores.take(2).collect::<Vec<_>>().try_into().ok()
}
