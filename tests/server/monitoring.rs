//! Compares the alerts, the dashboard and the documents with the metrics that a server exports.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    harness::{Server, request, with},
    promql::{Exported, Query, exported},
};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_yaml_ng::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// The alerts of deploy/monitoring/alerts.yaml.
fn alerts() -> Vec<Value> {
    let file = yaml("deploy/monitoring/alerts.yaml");
    let alerts: Vec<Value> = list(&file["groups"]).iter().flat_map(|group| list(&group["rules"]).to_vec()).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    alerts
}

/// Metrics that a server on CPUs does not export, with their labels.
const GPU_METRICS: [(&str, &str); 1] = [("latentd_device_model_bytes", "device")];

/// A request that takes moments, also without optimizations.
fn short() -> Value {
    with(request("a red fox", 7), &json!({"steps": 2, "width": 64, "height": 64}))
}

/// A request that takes longer than any test.
fn endless() -> Value {
    with(request("a panda", 1), &json!({"steps": 1000, "n": 8}))
}

/// The text of `/metrics` of a server that has done some of everything that metrics count.
async fn metrics_of_a_busy_server() -> String {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let id = server.accept(&short()).await;
    assert_eq!(server.ended(&id).await["status"], "succeeded");
    assert_eq!(server.post(&json!({"steps": -1})).await.status(), 422);
    // A running generation appears in the estimated work of its model.
    let id = server.accept(&endless()).await;
    server
        .until("it is counted", async |server: &Server| {
            server.metric("latentd_queue_estimated_seconds", "model=").await > 0.0
        })
        .await;
    let canceled = server.client.post(server.url(&format!("/v1/images/{id}/cancel"))).send().await.unwrap();
    assert!(canceled.status().is_success());
    server.ended(&id).await;
    server.get_operator("/metrics").await.text().await.unwrap()
}

#[tokio::test]
async fn alerts_dashboard_and_documents_name_only_metrics_that_a_server_exports() {
    let page = metrics_of_a_busy_server().await;
    lint(&page);
    let mut known: Exported = exported(&page);
    known.extend(GPU_METRICS.map(|(name, label)| (name.to_owned(), BTreeSet::from([label.to_owned()]))));
    assert!(known.len() > 60, "{known:?}");

    let mut unknown = Vec::new();
    for alert in alerts() {
        let found = Query::read(text(&alert["expr"])).unknown(&known);
        unknown.extend(found.into_iter().map(|what| format!("{}: {what}", text(&alert["alert"]))));
    }
    let board: Value = serde_json::from_str(&read("deploy/monitoring/dashboard.json")).unwrap();
    let (mut queries, mut shown) = (0, BTreeSet::new());
    for panel in list(&board["panels"]) {
        for target in list(&panel["targets"]) {
            let query = Query::read(text(&target["expr"]));
            let labels = legend(text(&target["legendFormat"]));
            let labels = Query { metrics: query.metrics.clone(), grouped: labels };
            let found = [query.unknown(&known), labels.unknown(&known)].concat();
            unknown.extend(found.into_iter().map(|what| format!("{}: {what}", text(&panel["title"]))));
            shown.extend(query.metrics.into_iter().map(|(name, _)| family(&name)));
            queries += 1;
        }
    }
    assert!(queries > 40, "only {queries} queries are found");
    for document in ["docs/operate.md", "docs/runbook.md", "docs/scale-out.md", "docs/gpu.md"] {
        for word in read(document).split(|c: char| !(c.is_alphanumeric() || c == '_')) {
            if word.starts_with("latentd_") && !is_exported(word, &known) {
                unknown.push(format!("{document}: {word}"));
            }
        }
    }
    assert_eq!(unknown, [""; 0]);
    let exported: BTreeSet<String> = known.keys().map(|name| family(name)).collect();
    let hidden: Vec<&String> = exported.difference(&shown).collect();
    assert_eq!(hidden, [""; 0], "the dashboard shows every metric");
}

#[tokio::test]
async fn a_generation_is_counted_from_its_acceptance_to_its_end() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let id = server.accept(&short()).await;
    assert_eq!(server.ended(&id).await["status"], "succeeded");
    let one = [
        ("latentd_generations_accepted_total", "model="),
        ("latentd_generations_claimed_total", ""),
        ("latentd_generations_finished_total", "status=\"succeeded\""),
        ("latentd_queue_wait_seconds_count", "priority=\"normal\""),
        ("latentd_images_total", "model="),
        ("latentd_run_seconds_count", ""),
        ("latentd_build_info", "role=\"all\",version="),
    ];
    for (name, label) in one {
        server.until(name, async |server: &Server| server.metric(name, label).await == 1.0).await;
    }
    for (name, label) in [
        ("latentd_generation_attempts_total", "outcome=\"succeeded\""),
        ("latentd_stage_seconds_count", "stage=\"load\""),
        ("latentd_stage_seconds_count", "stage=\"encode\""),
        ("latentd_stage_seconds_count", "stage=\"denoise\""),
        ("latentd_stage_seconds_count", "stage=\"decode\""),
        ("latentd_stage_seconds_count", "stage=\"save\""),
        ("latentd_object_store_seconds_count", "operation=\"put\""),
    ] {
        server.until(label, async |server: &Server| server.metric(name, label).await >= 1.0).await;
    }
    assert_eq!(server.metric("latentd_generation_attempts_total", "").await, 1.0);
    assert_eq!(server.metric("latentd_object_store_failures_total", "").await, 0.0);
    // The request for the metrics is itself in flight.
    assert_eq!(server.metric("latentd_http_requests_in_flight", "").await, 1.0);
    let started = server.metric("process_start_time_seconds", "").await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - 3600.0..=now).contains(&started), "{started}");
}

#[tokio::test]
async fn open_and_resumed_event_streams_and_queued_cancellations_are_counted() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[("LATENTD_ENGINE__MAX_RUNS", "1")]).await;
    let running = server.accept(&endless()).await;
    let streams = async |server: &Server, count: f64| server.metric("latentd_event_streams", "").await == count;
    let url = server.url(&format!("/v1/images/{running}/events"));
    let first = server.client.get(&url).send().await.unwrap();
    server.until("one stream", async |server: &Server| streams(server, 1.0).await).await;
    let resumed = server.client.get(&url).header("Last-Event-ID", "1").send().await.unwrap();
    let of_tenant = server.client.get(server.url("/v1/events")).send().await.unwrap();
    server.until("three streams", async |server: &Server| streams(server, 3.0).await).await;
    assert_eq!(server.metric("latentd_event_streams_resumed_total", "").await, 1.0);
    drop((first, resumed, of_tenant));
    server.until("no streams", async |server: &Server| streams(server, 0.0).await).await;

    server.until("it runs", async |server: &Server| server.metric("latentd_steps_total", "").await > 0.0).await;
    let queued = server.accept(&endless()).await;
    for id in [&queued, &queued, &running] {
        let url = server.url(&format!("/v1/images/{id}/cancel"));
        assert!(server.client.post(url).send().await.unwrap().status().is_success());
    }
    server.ended(&running).await;
    server
        .until("two are canceled", async |server: &Server| {
            server.metric("latentd_generations_finished_total", "status=\"canceled\"").await == 2.0
        })
        .await;
}

#[tokio::test]
async fn estimates_follow_the_measured_speed() {
    let data = tempfile::tempdir().unwrap();
    let settings = [("LATENTD_QUEUE__ASSUMED_SPEED", "4294967295"), ("LATENTD_WORKER__HEARTBEAT_S", "1")];
    let server = Server::start(data.path(), &settings).await;
    let estimate = async || {
        let seconds = async |server: &Server| server.metric("latentd_queue_estimated_seconds", "model=").await;
        server.until("nothing is left", async |server: &Server| seconds(server).await == 0.0).await;
        let id = server.accept(&endless()).await;
        server.until("it is counted", async |server: &Server| seconds(server).await > 0.0).await;
        let estimated = seconds(&server).await;
        let url = server.url(&format!("/v1/images/{id}/cancel"));
        assert!(server.client.post(url).send().await.unwrap().status().is_success());
        server.ended(&id).await;
        estimated
    };
    let assumed = estimate().await;
    let id = server.accept(&short()).await;
    assert_eq!(server.ended(&id).await["status"], "succeeded");
    // The store learns the speed with one of the next heartbeats, before the last of these estimates.
    let mut measured = assumed;
    for _ in 0..5 {
        measured = estimate().await;
        if measured != assumed {
            break;
        }
    }
    assert!(measured > 1000.0 * assumed, "{measured} s, and {assumed} s by a speed that no machine has");
}

fn is_exported(word: &str, known: &Exported) -> bool {
    known.keys().any(|name| name == word || family(name) == word)
}

/// The name of the metric to which a sample belongs.
fn family(name: &str) -> String {
    let suffixes = ["_bucket", "_sum", "_count"];
    suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name).to_owned()
}

/// The labels in the legend of a graph, such as `{{model}}`.
fn legend(text: &str) -> BTreeSet<String> {
    text.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()).map(str::to_owned).collect()
}

#[test]
fn every_graph_has_a_unit_a_description_and_a_place() {
    let board: Value = serde_json::from_str(&read("deploy/monitoring/dashboard.json")).unwrap();
    let (mut rows, mut ids, mut taken) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for panel in list(&board["panels"]) {
        let title = text(&panel["title"]);
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let place = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{title}");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{title} covers another graph");
            }
        }
        if panel["type"] == "row" {
            rows.push(title);
            continue;
        }
        assert!(!text(&panel["fieldConfig"]["defaults"]["unit"]).is_empty(), "{title}");
        assert!(!text(&panel["description"]).is_empty(), "{title}");
        assert!(!list(&panel["targets"]).is_empty(), "{title}");
    }
    assert_eq!(rows, ["Requests", "Queue", "Engine", "Devices", "Storage", "Webhooks"]);
}

#[test]
fn every_alert_has_a_section_of_the_runbook_and_tests() {
    let runbook = read("docs/runbook.md");
    let tests = yaml("deploy/monitoring/alerts.test.yaml");
    let (mut names, cases) = (Vec::new(), list(&tests["tests"]));
    for alert in alerts() {
        let name = text(&alert["alert"]).to_owned();
        let annotations = &alert["annotations"];
        assert!(text(&annotations["summary"]).ends_with('.'), "{name}");
        assert_eq!(annotations["runbook_url"], format!("docs/runbook.md#{}", name.to_lowercase()));
        assert!(["page", "warning", "info"].contains(&text(&alert["labels"]["severity"])), "{name}");
        let expected: Vec<bool> = cases
            .iter()
            .flat_map(|case| list(&case["alert_rule_test"]))
            .filter(|test| test["alertname"] == name)
            .map(|test| list(&test["exp_alerts"]).is_empty())
            .collect();
        assert!(expected.contains(&true) && expected.contains(&false), "{name} is tested firing and silent");
        let section = runbook.split(&format!("\n## {name}\n")).nth(1).unwrap_or_else(|| panic!("no section {name}"));
        let section = section.split("\n## ").next().unwrap();
        for part in ["**Meaning.**", "**Users.**", "**Look at.**", "**Mend.**"] {
            assert!(section.contains(part), "the section {name} has no {part}");
        }
        names.push(name);
    }
    let sections: Vec<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## Latentd")).collect();
    let sections: Vec<String> = sections.iter().map(|name| format!("Latentd{name}")).collect();
    assert_eq!(sections, names, "the runbook has the sections in the order of the alerts");
}

#[test]
fn promtool_accepts_the_alerts_and_their_tests() {
    let folder = repository().join("deploy/monitoring");
    for arguments in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]] {
        let Some(promtool) = promtool() else { return };
        let done = Command::new(promtool).args(arguments).current_dir(&folder).output().unwrap();
        let said = [done.stdout, done.stderr].concat();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&said));
    }
}

/// Checks a text of `/metrics` with promtool, which also knows Prometheus' conventions of names and help texts.
fn lint(page: &str) {
    let Some(promtool) = promtool() else { return };
    let mut command = Command::new(promtool);
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    running.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let done = running.wait_with_output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    assert!(done.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

/// The program; `None`, with a message, if there is none. `make promtool` installs it.
fn promtool() -> Option<PathBuf> {
    let installed = repository().join("target/promtool/usr/bin/promtool");
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|folder| folder.join("promtool")).chain([installed]);
    let found = found.into_iter().find(|path| path.is_file());
    if found.is_none() {
        let required = std::env::var_os("LATENTD_REQUIRE_PROMTOOL").is_some();
        assert!(!required, "LATENTD_REQUIRE_PROMTOOL is set, but there is no promtool");
        println!("skipped: there is no promtool");
    }
    found
}
