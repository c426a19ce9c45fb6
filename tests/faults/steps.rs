//! Polls the metrics of processes and the stored parts of run logs, so that tests know how many steps a process
//! computed and stored before it was killed.

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use reqwest::Client;
use tokio::task::AbortHandle;

use crate::{
    server::{Launch, Server},
    site::files,
};

/// The metrics of one process over time, polled until the process has ended.
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
                    // The process had reached these values before the answer arrived.
                    noted.lock().unwrap().push((Instant::now(), text));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Meter { told, asking: asking.abort_handle() }
    }

    /// The latest known value of a metric.
    pub fn last(&self, name: &str) -> f64 {
        self.by(name, Instant::now())
    }

    /// The value of a metric that the process had certainly reached at this time.
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

/// Polls the folder of blobs for the parts of run logs, and notes when each upload began and ended. Stops when dropped.
pub struct Parts {
    seen: Arc<Mutex<BTreeMap<PathBuf, (SystemTime, SystemTime)>>>,
    looking: AbortHandle,
}

impl Parts {
    pub fn in_folder(blobs: &Path) -> Parts {
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let (folder, noted) = (blobs.join("run"), seen.clone());
        let looking = tokio::spawn(async move {
            loop {
                for path in files(&folder).into_iter().filter(|path| !path.to_string_lossy().contains('#')) {
                    let Ok(about) = folder.join(&path).metadata() else { continue };
                    // The file is created when its upload begins, and last changed when it gets its final name.
                    let named = SystemTime::UNIX_EPOCH + Duration::new(about.ctime() as u64, about.ctime_nsec() as u32);
                    if let Ok(made) = about.created() {
                        noted.lock().unwrap().insert(path, (made, named));
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Parts { seen, looking: looking.abort_handle() }
    }

    /// The longest time between two parts of one attempt, and the longest time of an upload. Outputs that are older
    /// than the sum of both times are in a stored part.
    pub fn lag(&self) -> (Duration, Duration) {
        let seen = self.seen.lock().unwrap();
        let mut attempts = BTreeMap::<&Path, Vec<SystemTime>>::new();
        let mut upload = Duration::ZERO;
        for (path, (made, named)) in seen.iter() {
            upload = upload.max(named.duration_since(*made).unwrap_or_default());
            attempts.entry(path.parent().unwrap()).or_default().push(*named);
        }
        let mut gap = Duration::ZERO;
        for mut named in attempts.into_values() {
            named.sort_unstable();
            let gaps = named.windows(2).map(|pair| pair[1].duration_since(pair[0]).unwrap_or_default());
            gap = gaps.fold(gap, Duration::max);
        }
        (gap, upload)
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

/// The ids of the generations in those lines of the process's log file that contain `message`, one id per line.
pub fn logged(launch: &Launch, message: &str) -> Vec<String> {
    let log = std::fs::read_to_string(launch.log.as_ref().unwrap()).unwrap();
    let lines = log.lines().filter(|line| line.contains(message));
    lines.filter_map(|line| Some(line[line.find("img_")?..].chars().take(30).collect())).collect()
}
