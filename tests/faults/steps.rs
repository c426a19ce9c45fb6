//! How many steps each process has computed, also one that is killed: it is asked all the time.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use reqwest::Client;
use tokio::task::AbortHandle;

use crate::server::Server;

/// What one process has told of its counters, until it is gone.
pub struct Meter {
    told: Arc<Mutex<Vec<(Instant, String)>>>,
    asking: AbortHandle,
}

impl Meter {
    pub fn of(server: &Server) -> Meter {
        let told = Arc::new(Mutex::new(Vec::new()));
        let (url, noted) = (format!("{}/metrics", server.operator), told.clone());
        let client = Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
        let asking = tokio::spawn(async move {
            loop {
                let text = async { client.get(&url).send().await?.text().await };
                if let Ok(text) = text.await {
                    // Whatever is counted in the answer had happened by now.
                    noted.lock().unwrap().push((Instant::now(), text));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Meter { told, asking: asking.abort_handle() }
    }

    /// The last that it told.
    pub fn last(&self, name: &str) -> f64 {
        self.by(name, Instant::now())
    }

    /// What certainly had happened by then.
    pub fn by(&self, name: &str, time: Instant) -> f64 {
        let told = self.told.lock().unwrap();
        let before = told.iter().rev().find(|(at, _)| *at <= time);
        before.map_or(0.0, |(_, text)| sum(text, name))
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.asking.abort();
    }
}

/// The sum of a metric's samples over all labels.
pub fn sum(text: &str, name: &str) -> f64 {
    let is_sample = |line: &&str| line.split(['{', ' ']).next() == Some(name);
    text.lines().filter(is_sample).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

pub const COMPUTED: &str = "latentd_steps_total";
pub const REPLAYED: &str = "latentd_replayed_steps_total";
