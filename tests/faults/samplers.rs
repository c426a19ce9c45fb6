//! Fault tests of resuming with every sampler: a generation whose process was killed draws the same picture, and no
//! step is computed again whose output was old enough to be in the log.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    figures::Figures,
    load::{Load, request},
    server::{PATIENCE, Server, with},
    site::Site,
    steps::{COMPUTED, Parts, REPLAYED, sum},
};

const STEPS: u32 = 200;

/// Every sampler resumes from its log in another process.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_generation_draws_the_same_picture_with_every_sampler() {
    let Some(site) = Site::shared("Resume elsewhere, 200 steps, every sampler").await else { return };
    let site = site.with("LATENTD_ENGINE__MAX_RUNS", 64).with("LATENTD_LOG__FORMAT", "json");
    // The role `all` also serves the API, because the computing process has the most recent progress.
    let first = site.start("all").await;
    site.open(&[&first]);
    let load = Load::through(site.door.url());
    let listed = first.json("/v1/schedulers").await;
    let names: Vec<String> = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|scheduler| scheduler["name"].as_str().unwrap().to_owned())
        .filter(|name| !["_karras", "_exponential", "_beta"].iter().any(|suffix| name.ends_with(suffix)))
        .collect();
    assert!(names.len() >= 20, "{names:?}");
    let body = |name: &str| with(request(7, STEPS), &json!({"scheduler": scheduler(name)}));

    // The number of calls per step, from two runs of different lengths: some samplers make two, and some make more in
    // the first steps or fewer in the last.
    let mut calls = BTreeMap::new();
    for name in &names {
        let mut of = Vec::new();
        for steps in [8, 12] {
            let before = first.metric(COMPUTED, "").await;
            let id = load.submit(&format!("short {name} {steps}"), &with(body(name), &json!({"steps": steps}))).await;
            assert_eq!(load.ended(&id).await.unwrap()["status"], "succeeded", "{name}");
            of.push(first.metric(COMPUTED, "").await - before);
        }
        calls.insert(name.clone(), (of[1] - of[0]) / 4.0);
    }

    let parts = Parts::in_folder(&site.blobs);
    let mut ids = BTreeMap::new();
    for name in &names {
        ids.insert(load.submit(&format!("killed {name}"), &body(name)).await, name.clone());
    }
    let mut seen = Vec::<(Instant, BTreeMap<String, u64>)>::new();
    let at = 40 + RandomState::new().hash_one(()) % 60;
    loop {
        let looks = ids.iter().map(async |(id, name)| {
            let generation = load.look(id).await?;
            Some((name.clone(), generation["progress"]["step"].as_u64()?))
        });
        let steps: BTreeMap<String, u64> = futures::future::join_all(looks).await.into_iter().flatten().collect();
        let is_there = steps.len() == names.len() && steps.values().max() >= Some(&at);
        seen.push((Instant::now(), steps));
        if is_there {
            break;
        }
        assert!(seen[0].0.elapsed() < PATIENCE, "they do not come to step {at}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let killed = Instant::now();
    first.kill();
    let (gap, upload) = parts.lag();
    let at_kill = &seen.last().unwrap().1;
    let in_time = seen.iter().rev().find(|(at, _)| *at + gap + upload <= killed).map(|(_, steps)| steps);

    let second = site.start("all").await;
    site.open(&[&second]);
    let mut pictures = BTreeMap::new();
    for (id, name) in &ids {
        let generation = load.ended(id).await.unwrap();
        assert_eq!(
            (&generation["status"], &generation["attempt"]),
            (&"succeeded".into(), &2.into()),
            "{name}: {generation}"
        );
        pictures.insert(name.clone(), second.picture(id, 0).await);
    }
    let replayed = replayed(&second);
    let of_all: f64 = replayed.values().map(|calls| *calls as f64).sum();
    assert_eq!(of_all, second.metric(REPLAYED, "").await, "the log of the process and its counter differ");
    let mut repeated = 0.0;
    for (id, name) in &ids {
        let of_step = calls[name];
        let replayed = replayed.get(id).copied().unwrap_or(0) as f64;
        // The second call of the current step may be missing.
        let must =
            in_time.and_then(|steps| steps.get(name)).map_or(0.0, |step| *step as f64 * of_step - (of_step - 1.0));
        let answered = at_kill[name] as f64 * of_step;
        println!(
            "resume {name}: killed after step {} of {STEPS}, {replayed} calls replayed, {} repeated, at least {} had to be replayed",
            at_kill[name],
            (answered - replayed).max(0.0),
            must.max(0.0)
        );
        assert!(replayed >= must, "{name}: of {must} calls that were answered in time {replayed} were replayed");
        repeated += (answered - replayed).max(0.0);
    }
    // An uninterrupted run draws the same pictures.
    let undisturbed =
        load.submit_all("undisturbed", &names.iter().map(|name| body(name)).collect::<Vec<Value>>()).await;
    for (id, name) in undisturbed.iter().zip(&names) {
        let generation = load.ended(id).await.unwrap();
        assert_eq!(
            (&generation["status"], &generation["attempt"]),
            (&"succeeded".into(), &1.into()),
            "{name}: {generation}"
        );
        assert!(second.picture(id, 0).await == pictures[name], "{name} draws the same picture");
    }
    let needed: f64 = names.iter().map(|name| f64::from(STEPS) * calls[name]).sum();
    let figures = Figures::default()
        .repeated(repeated, needed)
        .note(format!("{} samplers, equal bytes", names.len()))
        .note(format!("parts {} ms apart at most, uploads {} ms", gap.as_millis(), upload.as_millis()));
    site.verdict(&load, figures).await;
}

/// The field `scheduler` for a name. With the model's own configuration, `sa_solver` would lack its algorithm, and
/// `lcm` and `tcd` would allow fewer steps.
fn scheduler(name: &str) -> Value {
    match name {
        "sa_solver" => json!({"_class_name": "SASolverScheduler", "algorithm_type": "data_prediction"}),
        "lcm" => json!({"_class_name": "LCMScheduler", "original_inference_steps": 1000}),
        "tcd" => json!({"_class_name": "TCDScheduler", "original_inference_steps": 1000}),
        name => name.into(),
    }
}

/// The number of calls that a process has replayed from a log, by generation.
fn replayed(server: &Server) -> BTreeMap<String, u64> {
    let log = std::fs::read_to_string(server.launch().log.unwrap()).unwrap();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_line = |line: Value| {
        let id = line["id"].as_str()?.to_owned();
        (line["message"] == "generation continues from its log").then_some((id, line["calls"].as_u64()?))
    };
    lines.filter_map(of_line).collect()
}

#[test]
fn the_sum_of_a_metric_is_over_all_labels_and_excludes_other_metrics() {
    let text = "# HELP a_total x\na_total{b=\"c\"} 2\na_total{b=\"d\"} 3\na_total_more 7\nb_total 1\n";
    assert_eq!(sum(text, "a_total"), 5.0);
}
