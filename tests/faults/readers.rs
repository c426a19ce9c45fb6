//! Fault tests of readers of event streams whose connections are cut.

use std::time::{Duration, Instant};

use reqwest::StatusCode;

use crate::{
    figures::Figures,
    load::{Load, request},
    server::PATIENCE,
    site::Site,
    stream::{self, Event, is_history, is_terminal},
};

/// T7 on SQLite: the reader reconnects to a new process on the same ledger.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_gets_every_event_over_disconnects_and_restarts() {
    let site = Site::single("T7 readers cut off every 300 ms, with restarts").await;
    let mut server = site.start("all").await;
    site.open(&[&server]);
    let load = Load::through(site.door.url());
    let ids = load.submit_all("t7", &(0..4).map(|seed| request(seed, 500)).collect::<Vec<_>>()).await;
    let restarts = async {
        until_one_runs(&load, &ids).await;
        for _ in 0..3 {
            server = server.kill_and_restart().await;
            site.open(&[&server]);
            tokio::time::sleep(Duration::from_millis(1000)).await;
        }
        server
    };
    let follows = futures::future::join_all(ids.iter().map(|id| follow(&load, id)));
    let (histories, server) = tokio::join!(follows, restarts);
    conclude(site, &load, histories).await;
    drop(server);
}

/// T7.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_can_reconnect_to_any_replica() {
    let Some(site) = Site::shared("T7 readers cut off every 300 ms, on three replicas").await else { return };
    let apis = [site.start("api").await, site.start("api").await, site.start("api").await];
    let first = site.start("worker").await;
    site.open(&[&apis[0], &apis[1], &apis[2]]);
    let load = Load::through(site.door.url());
    let ids = load.submit_all("t7", &(0..6).map(|seed| request(seed, 500)).collect::<Vec<_>>()).await;
    // A worker is killed in the middle, so that the histories have more events than start and end.
    let kill = async {
        until_one_runs(&load, &ids).await;
        first.kill();
        site.start("worker").await
    };
    let follows = futures::future::join_all(ids.iter().map(|id| follow(&load, id)));
    let (histories, second, all) = tokio::join!(follows, kill, follow_all(&load, ids.len()));
    let numbers: Vec<i64> = all.iter().filter_map(|event| event.id).collect();
    let events: usize = histories.iter().map(|followed| followed.events.len()).sum();
    assert_eq!(numbers, (1..=events as i64).collect::<Vec<_>>(), "the tenant's stream has every event once, in order");
    conclude(site, &load, histories).await;
    drop(second);
}

/// Waits until a generation runs, or all have ended.
async fn until_one_runs(load: &Load, ids: &[String]) {
    loop {
        let mut ended = 0;
        for id in ids {
            let status = load.look(id).await.expect("an accepted generation exists")["status"].clone();
            match status.as_str() {
                Some("running") => return,
                Some("queued") => {}
                _ => ended += 1,
            }
        }
        if ended == ids.len() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The durable events that a reader has seen, and the number of its connections.
struct Followed {
    events: Vec<Event>,
    connections: u32,
}

/// Reads for 300 ms at a time, each time from the last event id, until the generation has ended.
async fn follow(load: &Load, id: &str) -> Followed {
    let url = load.url(&format!("/v1/images/{id}/events"));
    let (mut events, mut last, mut connections) = (Vec::<Event>::new(), 0, 0);
    let deadline = Instant::now() + PATIENCE;
    while !events.last().is_some_and(|event| is_terminal(&event.name)) {
        assert!(Instant::now() < deadline, "{id} does not end: {events:?}");
        connections += 1;
        let Some((status, read)) = stream::read(&load.client, &url, last, Duration::from_millis(300)).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        if status != StatusCode::OK {
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{id}");
            continue;
        }
        events.extend(read.into_iter().filter(|event| event.id.is_some()));
        last = events.last().and_then(|event| event.id).unwrap_or(0);
    }
    let over = stream::read(&load.client, &url, last, PATIENCE).await;
    assert_eq!(over.map(|(status, events)| (status, events.len())), Some((StatusCode::NO_CONTENT, 0)), "{id}");
    Followed { events, connections }
}

/// Reads the stream of the tenant in the same way, until this many generations have ended. Returns the durable events.
async fn follow_all(load: &Load, generations: usize) -> Vec<Event> {
    let (url, mut events, mut last) = (load.url("/v1/events"), Vec::<Event>::new(), 0);
    let deadline = Instant::now() + PATIENCE;
    while events.iter().filter(|event| is_terminal(&event.name)).count() < generations {
        assert!(Instant::now() < deadline, "not all generations end: {events:?}");
        let read = stream::read(&load.client, &url, last, Duration::from_millis(300)).await;
        events.extend(read.into_iter().flat_map(|(_, read)| read).filter(|event| event.id.is_some()));
        last = events.last().and_then(|event| event.id).unwrap_or(0);
    }
    events
}

async fn conclude(site: Site, load: &Load, histories: Vec<Followed>) {
    let mut longest = 0;
    for followed in &histories {
        assert!(is_history(&followed.events), "{:?}", followed.events);
        longest = longest.max(followed.events.len());
    }
    let connections: u32 = histories.iter().map(|followed| followed.connections).sum();
    assert!(longest > 3, "no history has more than three events");
    let figures = Figures::default()
        .note(format!("{connections} connections of {} readers", histories.len()))
        .note(format!("histories of up to {longest} events without a gap or a repetition"));
    site.verdict(load, figures).await;
}
