//! Concurrent clients that send random requests one after another until they are stopped.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use serde_json::Value;
use tokio::task::JoinHandle;

use crate::{
    load::{Load, is_active},
    random::Random,
    requests::Requests,
    site::SECRET,
};

/// The running clients and their counts.
pub struct Crowd {
    over: Arc<AtomicBool>,
    canceled: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Starts this many clients. The seed determines their requests.
    pub fn of(clients: u64, seed: u64, requests: Requests, load: &Arc<Load>) -> Crowd {
        let (over, canceled) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (refused, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(requests));
        let clients = (0..clients).map(|client| {
            let (load, requests) = (load.clone(), requests.clone());
            let (over, canceled, refused) = (over.clone(), canceled.clone(), refused.clone());
            tokio::spawn(async move {
                for made in 0.. {
                    if over.load(Relaxed) {
                        return;
                    }
                    let number = client << 32 | made;
                    let mut body = requests.draw(seed, number);
                    body["prompt"] = format!("{} {SECRET}", body["prompt"].as_str().unwrap()).into();
                    match send(&load, &body, number, seed).await {
                        Sent::Canceled => drop(canceled.fetch_add(1, Relaxed)),
                        Sent::Refused => drop(refused.fetch_add(1, Relaxed)),
                        Sent::Ended => {}
                    }
                }
            })
        });
        let clients = clients.collect();
        Crowd { over, canceled, refused, clients }
    }

    /// Waits until each client has finished its last request; returns the numbers of canceled and refused requests as
    /// text.
    pub async fn stopped(self) -> String {
        self.over.store(true, Relaxed);
        futures::future::join_all(self.clients).await.into_iter().for_each(|client| client.unwrap());
        format!("{} canceled, {} refused", self.canceled.load(Relaxed), self.refused.load(Relaxed))
    }
}

enum Sent {
    Ended,
    Canceled,
    Refused,
}

/// Sends a request and waits for its end, or cancels it in 15 % of cases.
async fn send(load: &Load, body: &Value, number: u64, seed: u64) -> Sent {
    let Ok(id) = load.offer(&format!("draw-{number}"), body).await else { return Sent::Refused };
    if Random::of(seed ^ 1, number).chance(15) {
        load.cancel(&id).await;
        return Sent::Canceled;
    }
    if load.look(&id).await.is_some_and(|generation| is_active(&generation)) {
        load.ended(&id).await;
    }
    Sent::Ended
}
