//! Tests that the bytes of a picture depend only on its request.

use serde_json::Value;

use crate::{
    figures::Figures,
    load::{Load, request},
    server::Server,
    site::Site,
    steps::COMPUTED,
};

/// So many steps that a run is still under way when its process is killed, on a busy machine too.
const STEPS: u32 = 600;

/// T22.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_draws_the_same_bytes_alone_with_others_after_a_crash_and_on_either_store() {
    let alone = {
        let site = Site::single("T22 alone, on SQLite and a folder").await;
        let server = site.start("all").await;
        site.open(&[&server]);
        let load = Load::through(site.door.url());
        let id = load.submit("alone", &request(5, STEPS)).await;
        load.ended(&id).await;
        let picture = server.picture(&id, 0).await;
        site.verdict(&load, Figures::default()).await;
        picture
    };
    let Some(site) = Site::with_bucket("T22 in company and after a crash, on PostgreSQL and a bucket").await else {
        return;
    };
    let (api, mut worker) = (site.start("api").await, site.start("worker").await);
    site.open(&[&api]);
    let load = Load::through(site.door.url());
    for company in [2, 4, 8] {
        let strangers = (1..company).map(|i| request(1000 + i, 20 + 30 * i as u32));
        let bodies: Vec<Value> = strangers.chain([request(5, STEPS)]).collect();
        let ids = load.submit_all(&format!("company of {company}"), &bodies).await;
        let same = ids.last().unwrap();
        assert_eq!(load.ended(same).await.unwrap()["status"], "succeeded");
        assert!(api.picture(same, 0).await == alone, "in company of {company}");
    }
    let id = load.submit("crash", &request(5, STEPS)).await;
    let before = worker.metric(COMPUTED, "").await;
    worker.until("it runs", async |worker: &Server| worker.metric(COMPUTED, "").await > before + 30.0).await;
    worker = worker.kill_and_restart().await;
    let generation = load.ended(&id).await.unwrap();
    assert_eq!((&generation["status"], &generation["attempt"]), (&"succeeded".into(), &2.into()), "{generation}");
    assert!(api.picture(&id, 0).await == alone, "after a crash");
    drop(worker);
    site.verdict(
        &load,
        Figures::default().note("the same bytes alone, with 1, 3 and 7 strangers, after a kill, on either store"),
    )
    .await;
}
