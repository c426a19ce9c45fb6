//! Sends random valid requests to models of the fixtures with a U-Net and to small models with transformers
//! (`support/fixtures.rs`); each accepted request must succeed.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use futures::{StreamExt, stream};
use reqwest::StatusCode;
use serde_json::Value;

use crate::{
    fixtures::Fixtures,
    harness::{Launch, Server, decode},
};

/// The number of concurrent requests.
const CLIENTS: usize = 8;

/// The result of one request.
enum Outcome {
    Succeeded,
    /// The code and the pointers of its problem document.
    Refused(String),
    /// A description of the failure.
    Fault(String),
}

/// `make random-requests` sets the number of requests and the seed. Without these settings, the test draws 100 requests
/// from a fixed seed and 50 from the current time.
#[tokio::test(flavor = "multi_thread")]
async fn every_accepted_request_succeeds() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let draws = match number("RANDOM_REQUESTS") {
        Some(count) => vec![(number("RANDOM_SEED").unwrap_or(now), count)],
        None => vec![(1, 100), (now, 50)],
    };
    let (fixtures, data) = (Fixtures::all(), tempfile::tempdir().unwrap());
    let log = data.path().join("server.log");
    let launch =
        fixtures.settings().iter().fold(Launch::on(data.path()), |launch, (name, value)| launch.set(name, value));
    let server = Server::start_ready(&Launch { log: Some(log.clone()), ..launch }).await;
    let requests = fixtures.requests(async |path: &str| server.json(path).await).await;

    let (mut all, mut not_valid) = (0, 0);
    for (seed, count) in draws {
        println!("seed {seed}: {count} requests");
        let (mut succeeded, mut refused, mut faults) = (0, BTreeMap::<String, u64>::new(), Vec::new());
        let outcomes = stream::iter(0..count).map(|number| {
            let (server, body) = (&server, requests.draw(seed, number));
            async move { (number, judge(server, &body, (seed, number)).await, body) }
        });
        let mut outcomes = outcomes.buffer_unordered(CLIENTS);
        while let Some((number, outcome, body)) = outcomes.next().await {
            match outcome {
                Outcome::Succeeded => succeeded += 1,
                Outcome::Refused(why) => *refused.entry(why).or_default() += 1,
                Outcome::Fault(what) => {
                    println!("request {number} of seed {seed}: {what}\n  {}", shown(&body));
                    faults.push(what);
                }
            }
        }
        let refusals: u64 = refused.values().sum();
        println!("seed {seed}: {succeeded} succeeded, {refusals} refused, {} faults", faults.len());
        refused.iter().for_each(|(why, count)| println!("  refused {count} times: {why}"));
        assert!(faults.is_empty(), "seed {seed}: {} faults, the first: {}", faults.len(), faults[0]);
        (all, not_valid) = (all + count, not_valid + refusals);
    }
    // A random request does not follow all rules, such as the rules that combine a scheduler and its steps.
    assert!(10 * not_valid <= all, "{not_valid} of {all} draws were not valid");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(!log.contains("panicked"), "{log}");
}

/// Sends a request as JSON or as a form, waits for its end and checks its pictures.
async fn judge(server: &Server, body: &Value, (seed, number): (u64, u64)) -> Outcome {
    let post = server.client.post(server.url("/v1/images")).header("Idempotency-Key", format!("draw-{seed}-{number}"));
    let post = if number % 5 == 4 { post.form(&form(body)) } else { post.json(body) };
    let answer = post.send().await.unwrap();
    let (status, kind) = (answer.status(), answer.headers()["content-type"].to_str().unwrap().to_owned());
    let answer: Value = answer.json().await.unwrap();
    if status.is_client_error() && kind == "application/problem+json" {
        let errors = answer["errors"].as_array().into_iter().flatten();
        let pointers: Vec<String> = errors.map(|error| format!("{} {}", error["pointer"], error["detail"])).collect();
        return Outcome::Refused(format!("{status} {}: {}", answer["code"], pointers.join("; ")));
    }
    if status != StatusCode::ACCEPTED {
        return Outcome::Fault(format!("answered with {status}: {answer}"));
    }
    let ended = server.ended(answer["id"].as_str().unwrap()).await;
    let images = ended["images"].as_array().unwrap();
    if ended["status"] != "succeeded" || images.len() as u64 != ended["params"]["n"].as_u64().unwrap() {
        return Outcome::Fault(format!("ended as {}: {}", ended["status"], ended["error"]));
    }
    for (index, image) in images.iter().enumerate() {
        let (width, height, _) = decode(&server.picture(ended["id"].as_str().unwrap(), index).await);
        if (&image["width"], &image["height"]) != (&width.into(), &height.into()) {
            return Outcome::Fault(format!("image {index} has {width} × {height} pixels: {image}"));
        }
    }
    // The params of a generation make the same pictures when they are sent again.
    if number % 8 == 0 {
        let again = server.ended(&server.accept(&ended["params"]).await).await;
        let digests = |of: &Value| {
            of["images"].as_array().unwrap().iter().map(|image| image["unsigned_sha256"].clone()).collect::<Vec<_>>()
        };
        if digests(&again) != digests(&ended) {
            return Outcome::Fault(format!("its params make other pictures: {again}"));
        }
    }
    Outcome::Succeeded
}

/// The request as a form: strings unchanged, all other values as JSON.
fn form(body: &Value) -> Vec<(&str, String)> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    body.as_object().unwrap().iter().map(|(field, value)| (field.as_str(), text(value))).collect()
}

/// The request without the bytes of its pictures, for printing.
fn shown(body: &Value) -> Value {
    match body {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| match key.as_str() {
                "b64" => (key.clone(), "…".into()),
                _ => (key.clone(), shown(value)),
            })
            .collect(),
        Value::Array(list) => list.iter().map(shown).collect(),
        other => other.clone(),
    }
}
