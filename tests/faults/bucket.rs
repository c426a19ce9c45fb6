//! Fault tests of the bucket: it is unavailable, slow, hangs or cuts its answers.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::Value;

use crate::{
    figures::{Figures, leases},
    load::{Load, request},
    s3::Mode,
    site::{LEASE, Site},
};

/// T16.
#[tokio::test(flavor = "multi_thread")]
async fn generations_survive_an_unavailable_slow_or_hanging_bucket() {
    let Some(site) = Site::with_bucket("T16 the object store away, slow and hanging").await else { return };
    let site = site
        .with("LATENTD_BLOBS__REQUEST_TIMEOUT_S", 1)
        .with("LATENTD_BLOBS__ANSWER_TIMEOUT_S", 1)
        .with("LATENTD_BLOBS__RETRY_PAUSE_MAX_S", 0.5);
    let (api, worker) = (site.start("api").await, site.start("worker").await);
    site.open(&[&api]);
    let load = Load::through(site.door.url());
    let bucket = site.bucket.as_ref().unwrap();
    let mut notes = Vec::new();
    for mode in [Mode::Unavailable, Mode::Hang, Mode::Slow(Duration::from_millis(300)), Mode::Cut] {
        bucket.set_mode(mode);
        let begun = Instant::now();
        let bodies: Vec<Value> = (0..3).map(|seed| request(seed, 20)).collect();
        let ids = load.submit_all(&format!("{mode:?}"), &bodies).await;
        let is_away = matches!(mode, Mode::Unavailable | Mode::Hang);
        let is_long = if is_away { LEASE * 5 / 4 } else { LEASE / 2 };
        while begun.elapsed() < is_long {
            for id in &ids {
                let generation = load.look(id).await.unwrap();
                assert!(!is_away || generation["status"] != "succeeded", "no success without a picture: {generation}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bucket.set_mode(Mode::Ok);
        let back = Instant::now();
        for id in &ids {
            let generation = load.ended(id).await.unwrap();
            // The worker kept renewing the lease, so there is only one attempt.
            assert_eq!(
                (&generation["status"], &generation["attempt"]),
                (&"succeeded".into(), &1.into()),
                "{generation}"
            );
        }
        notes.push(format!(
            "{mode:?} for {:.2} leases, over {:.2} later",
            leases(back - begun),
            leases(back.elapsed())
        ));
    }
    // A picture that cannot be read is answered with 502 and a problem document, never with half a picture.
    let id = &load.ids()[0];
    let url = load.url(&format!("/v1/images/{id}/content/0"));
    for mode in [Mode::Unavailable, Mode::Hang, Mode::Cut] {
        bucket.set_mode(mode);
        let answer = load.client.get(&url).send().await.unwrap();
        let (status, kind) = (answer.status(), answer.headers()["content-type"].clone());
        assert_eq!((status, kind.to_str().unwrap()), (StatusCode::BAD_GATEWAY, "application/problem+json"), "{mode:?}");
    }
    bucket.set_mode(Mode::Ok);
    // The file is missing in the bucket.
    let image = load.look(id).await.unwrap();
    let file = crate::site::files(&site.blobs.join("img").join(id)).remove(0);
    let path = site.blobs.join("img").join(id).join(file);
    let kept = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let answer = load.client.get(&url).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY, "{image}");
    std::fs::write(&path, kept).unwrap();
    assert_eq!(worker.metric("latentd_leases_lost_total", "").await, 0.0);
    let figures = notes.into_iter().fold(Figures::default(), Figures::note);
    site.verdict(&load, figures.note("reads: 502, never half a picture")).await;
}
