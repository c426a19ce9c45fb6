//! Tests of several devices: each computes on its own cores, all draw the same pictures, and unusable ones are refused.

use std::process::Command;

use futures::future::join_all;
use latentd::device::{Gpu, GpuKind};
use serde_json::{Value, json};

use crate::harness::{Server, decode, request, with};

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

#[tokio::test]
async fn the_matrix_unit_draws_the_same_pictures_in_every_batch() {
    let bodies: Vec<Value> = (0..4).map(|i| with(request("a red fox", 60 + i), &json!({"steps": 3 + i}))).collect();
    let drawn = async |unit: &str, is_together: bool| {
        let data = tempfile::tempdir().unwrap();
        let server = Server::start(data.path(), &[("LATENTD_KERNELS__MATRIX_UNIT", unit)]).await;
        let mut pictures = Vec::new();
        if is_together {
            let ids = join_all(bodies.iter().map(|body| server.accept(body))).await;
            for id in ids {
                server.ended(&id).await;
                pictures.push(server.picture(&id, 0).await);
            }
        } else {
            for body in &bodies {
                let id = server.accept(body).await;
                server.ended(&id).await;
                pictures.push(server.picture(&id, 0).await);
            }
        }
        pictures
    };
    let (off, alone, together) = (drawn("off", true).await, drawn("auto", false).await, drawn("auto", true).await);
    assert!(alone == together, "a picture depends on its batch");
    for (off, auto) in off.iter().zip(&alone) {
        let (one, other) = (decode(off), decode(auto));
        let largest = one.2.iter().zip(&other.2).map(|(a, b)| a.abs_diff(*b)).max();
        assert!((one.0, one.1) == (other.0, other.1) && largest <= Some(2), "color values differ by {largest:?}");
    }
    if off == alone {
        println!("devices: this processor has no matrix unit, so both settings drew the same bytes");
    }
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
        (devices, "gpu", "must be auto, cpu, cores such as cpu:0 or cpu:0-7, cuda:0 or metal, not \"gpu\""),
        (devices, "cuda:0,cuda:1,cuda:0", "engine.devices: \"cuda:0\" occurs twice"),
        (devices, "cpu,cuda:0", "engine.devices: \"cpu\" and \"cuda:0\" are of different kinds"),
        (devices, "cpu:99999", "core 99999 of \"cpu:99999\" cannot be used; this process may use the cores"),
        ("LATENTD_ENGINE__KERNELS", "fast", "must be packed or reference, not \"fast\""),
    ] {
        let output = latentd(&[(name, value)]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(said), "{value}: {text}");
    }
    assert!(latentd(&[(devices, "cpu"), ("LATENTD_ENGINE__KERNELS", "reference")]).status.success());
}

#[test]
fn a_gpu_that_cannot_be_used_is_refused_with_the_remedy() {
    for (feature, name) in [("cuda", "cuda:4711"), ("metal", "metal")] {
        let is_in_build = GpuKind::ALL.into_iter().any(|kind| kind.name() == feature && kind.is_in_build());
        if is_in_build && feature == "metal" {
            continue;
        }
        for command in [&["config", "check"][..], &["serve"], &["generate", "a fox", "-o", "-"]] {
            let data = tempfile::tempdir().unwrap();
            let output = Command::new(env!("CARGO_BIN_EXE_latentd"))
                .args(command)
                .env_clear()
                .env("LATENTD_ENGINE__DEVICES", name)
                .env("LATENTD_DATA_DIR", data.path())
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && text.contains("engine.devices: ") && text.contains(name), "{text}");
            let remedy = match is_in_build {
                true => "this machine has".to_owned(),
                false => format!("needs a build with the Cargo feature {feature}"),
            };
            assert!(text.contains(&remedy), "{command:?}: {text}");
            assert_eq!(text.trim_end().lines().count(), 1, "{command:?}: {text}");
        }
    }
}

#[tokio::test]
async fn auto_without_gpus_is_the_cpu() {
    if !Gpu::all().unwrap().is_empty() {
        println!("devices: skipped, this machine has a GPU");
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[("LATENTD_ENGINE__DEVICES", "auto")]).await;
    let id = server.accept(&with(request("a red fox", 7), &json!({"steps": 1}))).await;
    assert_eq!(server.ended(&id).await["status"], "succeeded");
    let queue: Value = server.get("/v1/queue").await.json().await.unwrap();
    assert_eq!(queue["devices"], json!([{"id": "cpu", "running": 0, "failed": false}]));
}

#[test]
fn devices_lists_the_cpu_its_memory_and_the_models_that_fit() {
    let pipelines = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/parity/pipelines");
    let latentd = |arguments: &[&str], devices: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
        let settings = [("LATENTD_ENGINE__DEVICES", devices), ("LATENTD_MODELS__DIR", pipelines)];
        let output = command.arg("devices").args(arguments).env_clear().envs(settings).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let core = cores()[0];
    let listed: Value = serde_json::from_str(&latentd(&["--json"], &format!("cpu:{core}"))).unwrap();
    assert_eq!((&listed["build"][0], &listed["errors"]), (&json!("cpu"), &json!([])));
    let cpu = &listed["devices"][0];
    assert_eq!((&cpu["name"], &cpu["kind"], &cpu["model"]), (&json!("cpu"), &json!("cpu"), &Value::Null));
    assert_eq!(cpu["computes"], json!([format!("cpu:{core}")]));
    assert!(cpu["cores"].as_u64().unwrap() >= 1);
    assert!(cpu["memory_bytes"].as_u64().unwrap() >= cpu["free_bytes"].as_u64().unwrap());
    let models = cpu["models"].as_array().unwrap();
    let find = |name: &str| models.iter().find(|model| model["name"] == name).unwrap();
    for (name, at_start) in [("emoji", true), ("sd1", false), ("sdxl", false)] {
        let model = find(name);
        assert!(model["bytes"].as_u64().unwrap() > 0 && model["fits"] == true, "{model}");
        assert_eq!(model["at_start"], at_start, "{model}");
    }

    let text = latentd(&[], "cpu");
    let cpu = text.lines().find(|line| line.starts_with("cpu: ")).unwrap();
    assert!(cpu.contains(" of memory, ") && cpu.ends_with(" free, used by engine.devices"), "{cpu}");
    assert!(text.lines().any(|line| line.starts_with("    sd1: ") && line.ends_with(" MB, fits")), "{text}");

    // A device that cannot be used is a line of the list, so that the others are still shown.
    let text = latentd(&[], "cuda:4711");
    assert!(
        text.lines().any(|line| line.starts_with("error: engine.devices: ") && line.contains("cuda:4711")),
        "{text}"
    );
    assert!(text.contains("\ncpu: ") && text.contains("not used by engine.devices"), "{text}");
}

/// The first two cores that this process may use; `None` if it has one.
fn two_cores() -> Option<[usize; 2]> {
    cores().into_iter().take(2).collect::<Vec<_>>().try_into().ok()
}

/// The cores that this process may use.
fn cores() -> Vec<usize> {
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
    cores.collect()
}
