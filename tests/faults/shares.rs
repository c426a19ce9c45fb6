//! Tenants that want more than there is.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    figures::Figures,
    load::{Load, request},
    server::{Server, with},
    site::Site,
};

async fn tenant(site: &Site, server: &Server, terms: Value) -> Load {
    let answer = server.client.post(format!("{}/admin/keys", server.operator)).json(&terms).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    let key: Value = answer.json().await.unwrap();
    Load::of_tenant(site.door.url(), key["key"].as_str().unwrap())
}

/// The names of these tenants' generations, in the order in which they began.
async fn order(loads: &[(&'static str, &Load)]) -> Vec<&'static str> {
    let mut begun = Vec::new();
    for (name, load) in loads {
        for id in load.ids() {
            let generation = load.ended(&id).await.unwrap();
            assert_eq!(generation["status"], "succeeded", "{generation}");
            begun.push((generation["started_at"].as_str().unwrap().to_owned(), id, *name));
        }
    }
    begun.sort_unstable();
    begun.into_iter().map(|(_, _, name)| name).collect()
}

/// T13, small.
#[tokio::test(flavor = "multi_thread")]
async fn shares_of_one_two_and_four() {
    shares(Site::single("T13 shares of 1, 2 and 4, on SQLite").await).await;
    if let Some(site) = Site::shared("T13 shares of 1, 2 and 4, on PostgreSQL").await {
        shares(site).await;
    }
}

/// By what is begun, not by the clock.
async fn shares(site: Site) {
    let site = site.with("LATENTD_ENGINE__MAX_RUNS", 1);
    let server = site.start("all").await;
    site.open(&[&server]);
    let [one, two, four] = [("one", 1), ("two", 2), ("four", 4)]
        .map(|(name, weight)| tenant(&site, &server, json!({"tenant": name, "weight": weight, "max_queued": 100})));
    let (one, two, four) = tokio::join!(one, two, four);
    // Nothing is begun until all have asked.
    let anybody = Load::through(site.door.url());
    let plug = plug(&server, &anybody).await;
    let bodies: Vec<Value> = (0..40).map(|seed| request(seed, 10)).collect();
    let (..) =
        tokio::join!(one.submit_all("t13", &bodies), two.submit_all("t13", &bodies), four.submit_all("t13", &bodies));
    anybody.cancel(&plug).await;
    let order = order(&[("one", &one), ("two", &two), ("four", &four)]).await;
    // As long as all have some that wait.
    let first = &order[..63];
    let share = |name: &str| first.iter().filter(|other| **other == name).count();
    let shares = [share("one"), share("two"), share("four")];
    for (got, due) in shares.iter().zip([9.0, 18.0, 36.0]) {
        assert!((*got as f64 - due).abs() <= 0.1 * due + 1.0, "{shares:?} of 63");
    }
    let figures = Figures::default().note(format!("the first 63 were shared {shares:?}"));
    site.verdict_on(&[&anybody, &one, &two, &four], figures).await;
}

/// A generation that keeps all others waiting, begun: what is asked for before its claim would count from an earlier virtual time.
async fn plug(server: &Server, anybody: &Load) -> String {
    let plug = anybody
        .submit("plug", &with(request(1, 1000), &json!({"n": 8, "width": 128, "height": 128, "priority": "high"})))
        .await;
    let path = format!("/v1/images/{plug}");
    server.until("the plug is in", async |server: &Server| server.json(&path).await["status"] == "running").await;
    plug
}

/// T12, small.
#[tokio::test(flavor = "multi_thread")]
async fn a_greedy_tenant_beside_two_polite_ones() {
    greed(Site::single("T12 a greedy tenant beside two polite ones, on SQLite").await).await;
    if let Some(site) = Site::shared("T12 a greedy tenant beside two polite ones, on PostgreSQL").await {
        greed(site).await;
    }
}

/// What the others have waiting does not matter to who wants little.
async fn greed(site: Site) {
    let site = site.with("LATENTD_ENGINE__MAX_RUNS", 1);
    let server = site.start("all").await;
    site.open(&[&server]);
    let [greedy, ann, bob] =
        ["greedy", "ann", "bob"].map(|name| tenant(&site, &server, json!({"tenant": name, "max_queued": 60})));
    let (greedy, ann, bob) = tokio::join!(greedy, ann, bob);
    let anybody = Load::through(site.door.url());
    let plug = plug(&server, &anybody).await;
    let (mut taken, mut refused) = (0, 0);
    for seed in 0..100 {
        let answer = greedy.client.post(greedy.url("/v1/images")).json(&request(seed, 10)).send().await.unwrap();
        let (status, after) = (answer.status(), answer.headers().contains_key("retry-after"));
        let body: Value = answer.json().await.unwrap();
        if status == StatusCode::ACCEPTED {
            taken += 1;
            greedy.note(&format!("t12-{seed}"), body["id"].as_str().unwrap());
        } else {
            refused += 1;
            assert_eq!(
                (status, body["code"].as_str(), after),
                (StatusCode::TOO_MANY_REQUESTS, Some("tenant_queue_full"), true)
            );
        }
    }
    assert_eq!((taken, refused), (60, 40));
    let bodies: Vec<Value> = (0..3).map(|seed| request(seed, 10)).collect();
    ann.submit_all("t12", &bodies).await;
    bob.submit_all("t12", &bodies).await;
    anybody.cancel(&plug).await;
    let order = order(&[("greedy", &greedy), ("ann", &ann), ("bob", &bob)]).await;
    let last = order.iter().rposition(|name| *name != "greedy").unwrap();
    // In turns, one of each: whatever has asked last comes with the ninth.
    assert!(last < 3 * 3 + 2, "the polite ones have their turns: {order:?}");
    let figures = Figures::default()
        .note(format!("{refused} of the greedy refused with 429, the last polite one began as number {}", last + 1))
        .note("latencies beside those alone could not be shown on a machine that others use");
    site.verdict_on(&[&anybody, &greedy, &ann, &bob], figures).await;
}
