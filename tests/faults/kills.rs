//! Processes that end without a word.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use sqlx::{ConnectOptions, sqlite::SqliteConnectOptions};

use crate::{
    figures::Figures,
    load::{Load, request},
    server::Server,
    site::Site,
};

/// T2.
#[tokio::test]
async fn the_single_process_is_killed_twenty_times_while_clients_try_again() {
    let site = Site::single("T2 kill -9 of the single process, 20 times").await;
    let mut server = site.start("all").await;
    site.open(&[&server]);
    let launch = server.launch();
    let load = Arc::new(Load::through(site.door.url()));
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..6)
        .map(|client| {
            let (load, over) = (load.clone(), over.clone());
            tokio::spawn(async move {
                let mut made = 0;
                while !over.load(Relaxed) {
                    let id = load.submit(&format!("{client}-{made}"), &request(client, 10 + 10 * (made % 4))).await;
                    made += 1;
                    // Some clients wait for their picture, others want the next at once.
                    if client % 2 == 0 {
                        load.ended(&id).await;
                    } else {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            })
        })
        .collect();
    let mut starts = Vec::new();
    for kill in 0..20 {
        tokio::time::sleep(Duration::from_millis(fastrand(kill, 600))).await;
        server.kill();
        let killed = Instant::now();
        server = Server::again(&launch).await;
        starts.push(killed.elapsed());
        site.open(&[&server]);
    }
    over.store(true, Relaxed);
    futures::future::join_all(clients).await.into_iter().for_each(|client| client.unwrap());
    for id in load.ids() {
        let status = load.ended(&id).await.map(|generation| generation["status"].clone());
        assert_eq!(status, Some("succeeded".into()), "{id}");
    }
    let slowest = starts.iter().max().unwrap();
    let figures = Figures::default()
        .note(format!("{} requests tried again", load.broken.load(Relaxed)))
        .note(format!("slowest start {:.2} s", slowest.as_secs_f64()));
    site.verdict(&load, figures).await;
    assert!(server.terminate().success());
    database_is_whole(&site.data_dir().join("latentd.db")).await;
}

pub async fn database_is_whole(path: &std::path::Path) {
    let mut database = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    let verdict: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut database).await.unwrap();
    assert_eq!(verdict, "ok");
}

/// Milliseconds below a bound that follow from a number and from nothing else, so that a run can be had again.
pub fn fastrand(seed: u64, below: u64) -> u64 {
    let mixed = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) % below
}
