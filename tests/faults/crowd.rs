//! Clients that send random requests, one after another, until they are told to stop.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use serde_json::Value;
use tokio::task::JoinHandle;

use crate::{
    dice::Dice,
    load::{Load, is_active},
    requests::Requests,
    site::SECRET,
};

pub struct Crowd {
    over: Arc<AtomicBool>,
    canceled: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// So many clients; what they send follows from the seed.
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

    /// Waits until each has done with its last request; what they did beside what was accepted.
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

/// Submits it and waits for its end, or cancels it on the way.
async fn send(load: &Load, body: &Value, number: u64, seed: u64) -> Sent {
    let Ok(id) = load.offer(&format!("draw-{number}"), body).await else { return Sent::Refused };
    if Dice::of(seed ^ 1, number).chance(15) {
        load.cancel(&id).await;
        return Sent::Canceled;
    }
    if load.look(&id).await.is_some_and(|generation| is_active(&generation)) {
        load.ended(&id).await;
    }
    Sent::Ended
}
