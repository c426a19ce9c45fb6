//! Fault tests of fairness between tenants under overload.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    figures::Figures,
    load::{Load, request},
    server::{Server, with},
    site::Site,
};

/// Creates a key with these terms; returns clients that use it.
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

/// T13 at a small scale.
#[tokio::test(flavor = "multi_thread")]
async fn tenants_get_shares_in_proportion_to_their_weights() {
    shares(Site::single("T13 shares of 1, 2 and 4, on SQLite").await).await;
    if let Some(site) = Site::shared("T13 shares of 1, 2 and 4, on PostgreSQL").await {
        shares(site).await;
    }
}

/// Measures shares by the order in which generations begin, not by time.
async fn shares(site: Site) {
    let site = site.with("LATENTD_ENGINE__MAX_RUNS", 1);
    let server = site.start("all").await;
    site.open(&[&server]);
    let [one, two, four] = [("one", 1), ("two", 2), ("four", 4)]
        .map(|(name, weight)| tenant(&site, &server, json!({"tenant": name, "weight": weight, "max_queued": 100})));
    let (one, two, four) = tokio::join!(one, two, four);
    // No generation begins until all tenants have sent their requests.
    let anybody = Load::through(site.door.url());
    let blocking_generation = blocking_generation(&server, &anybody).await;
    let bodies: Vec<Value> = (0..40).map(|seed| request(seed, 10)).collect();
    let (..) =
        tokio::join!(one.submit_all("t13", &bodies), two.submit_all("t13", &bodies), four.submit_all("t13", &bodies));
    anybody.cancel(&blocking_generation).await;
    let order = order(&[("one", &one), ("two", &two), ("four", &four)]).await;
    // While every tenant still has queued generations.
    let first = &order[..63];
    let share = |name: &str| first.iter().filter(|other| **other == name).count();
    let shares = [share("one"), share("two"), share("four")];
    for (got, due) in shares.iter().zip([9.0, 18.0, 36.0]) {
        assert!((*got as f64 - due).abs() <= 0.1 * due + 1.0, "{shares:?} of 63");
    }
    let figures = Figures::default().note(format!("the first 63 were shared {shares:?}"));
    site.verdict_on(&[&anybody, &one, &two, &four], figures).await;
}

/// Starts a generation that blocks all others and waits until it runs. Requests before its claim would get an earlier
/// virtual time.
async fn blocking_generation(server: &Server, anybody: &Load) -> String {
    let blocking_generation = anybody
        .submit(
            "blocking_generation",
            &with(request(1, 1000), &json!({"n": 8, "width": 128, "height": 128, "priority": "high"})),
        )
        .await;
    let path = format!("/v1/images/{blocking_generation}");
    server
        .until("the blocking_generation is in", async |server: &Server| server.json(&path).await["status"] == "running")
        .await;
    blocking_generation
}

/// T12 at a small scale.
#[tokio::test(flavor = "multi_thread")]
async fn a_greedy_tenant_does_not_delay_polite_ones() {
    greed(Site::single("T12 a greedy tenant beside two polite ones, on SQLite").await).await;
    if let Some(site) = Site::shared("T12 a greedy tenant beside two polite ones, on PostgreSQL").await {
        greed(site).await;
    }
}

/// The queue of a greedy tenant does not delay tenants with few requests.
async fn greed(site: Site) {
    let site = site.with("LATENTD_ENGINE__MAX_RUNS", 1);
    let server = site.start("all").await;
    site.open(&[&server]);
    let [greedy, ann, bob] =
        ["greedy", "ann", "bob"].map(|name| tenant(&site, &server, json!({"tenant": name, "max_queued": 60})));
    let (greedy, ann, bob) = tokio::join!(greedy, ann, bob);
    let anybody = Load::through(site.door.url());
    let blocking_generation = blocking_generation(&server, &anybody).await;
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
    anybody.cancel(&blocking_generation).await;
    let order = order(&[("greedy", &greedy), ("ann", &ann), ("bob", &bob)]).await;
    let last = order.iter().rposition(|name| *name != "greedy").unwrap();
    // Tenants take turns, so the last of three requests of each polite tenant begins as about the ninth.
    assert!(last < 3 * 3 + 2, "the polite tenants wait too long: {order:?}");
    let figures = Figures::default()
        .note(format!("{refused} of the greedy refused with 429, the last polite one began as number {}", last + 1))
        .note("latencies beside those alone could not be shown on a machine that others use");
    site.verdict_on(&[&anybody, &greedy, &ann, &bob], figures).await;
}

/// Rate limits and quotas of keys hold for two replicas together, and both hear of a revoked key.
#[tokio::test(flavor = "multi_thread")]
async fn limits_of_keys_hold_across_replicas() {
    let Some(site) = Site::shared("limits of keys on two replicas, on PostgreSQL").await else { return };
    // No worker runs, so nothing but the limits decides. A key stays in the caches for longer than the test.
    let site = site.with("LATENTD_AUTH__CACHE_S", 3600);
    let replicas = [site.start("api").await, site.start("api").await];
    site.open(&replicas.each_ref());
    let create = async |terms: Value| -> Value {
        let made = replicas[0].client.post(format!("{}/admin/keys", replicas[0].operator)).json(&terms);
        made.send().await.unwrap().json().await.unwrap()
    };
    let text = |key: &Value| key["key"].as_str().unwrap().to_owned();
    // Sends the same 30 requests to each replica in turn; returns the answers by status and code.
    let send = async |key: &str| {
        let load = Load::of_tenant(site.door.url(), key);
        let bodies: Vec<Value> = (0..30).map(|seed| request(seed, 10)).collect();
        let asking = bodies.iter().enumerate().map(|(at, body)| {
            let request = load.client.post(replicas[at % 2].url("/v1/images")).json(body);
            async {
                let answer = request.send().await.unwrap();
                let (status, after) = (answer.status().as_u16(), answer.headers().contains_key("retry-after"));
                let body: Value = answer.json().await.unwrap();
                assert!(after || status != 429, "{body}");
                (status, body["code"].as_str().unwrap_or_default().to_owned())
            }
        });
        let answers = futures::future::join_all(asking).await;
        let count =
            |status: u16, code: &str| answers.iter().filter(|answer| **answer == (status, code.to_owned())).count();
        (count(202, ""), count(429, "rate_limited"), count(429, "quota_exceeded"))
    };
    let free = create(json!({"tenant": "studio"})).await;
    assert_eq!(send(&text(&free)).await, (30, 0, 0));
    let usage = async |replica: &Server, key: &str| -> Value {
        let asked = replica.client.get(replica.url("/v1/usage")).bearer_auth(key);
        asked.send().await.unwrap().json().await.unwrap()
    };
    let cost = usage(&replicas[1], &text(&free)).await["data"][0]["key"]["cost"].as_f64().unwrap() / 30.0;

    let rated = create(json!({"tenant": "studio", "rate_limit": 11, "rate_window_s": 3600})).await;
    assert_eq!(send(&text(&rated)).await, (11, 19, 0));
    assert!(cost > 1.0, "{cost}: a bound in whole units could not separate 7 generations from 8");
    let bounded = create(json!({"tenant": "studio", "max_cost_per_day": (7.0 * cost).ceil() as u64})).await;
    assert_eq!(send(&text(&bounded)).await, (7, 0, 23));
    for replica in &replicas {
        let day = usage(replica, &text(&bounded)).await["data"][0].clone();
        assert_eq!((&day["key"]["generations"], &day["tenant"]["generations"]), (&json!(7), &json!(48)));
    }

    let revoke = format!("{}/admin/keys/{}/revoke", replicas[0].operator, rated["id"].as_str().unwrap());
    let revoked = replicas[0].client.post(revoke).header("content-type", "application/json").send().await.unwrap();
    assert_eq!(revoked.status(), StatusCode::OK);
    for replica in &replicas {
        let reads = async |replica: &Server| {
            let asked = replica.client.get(replica.url("/v1/images")).bearer_auth(text(&rated));
            asked.send().await.unwrap().status() == StatusCode::UNAUTHORIZED
        };
        replica.until("the replica has heard that the key is revoked", reads).await;
    }
}
