//! The checks after every experiment, whatever the faults were.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use reqwest::StatusCode;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    figures::Figures,
    load::Load,
    server::PATIENCE,
    site::{SECRET, Site, files},
    stream as events_of,
};

/// The number of concurrent requests.
const CONNECTIONS: usize = 32;

/// Waits for the ends of all accepted generations, checks them, and adds the counts to the figures.
pub async fn judge(site: &Site, loads: &[&Load], mut figures: Figures) -> Figures {
    let mut winners = BTreeMap::new();
    for load in loads {
        let ids = load.ids();
        let distinct: BTreeSet<&String> = ids.iter().collect();
        figures.accepted += ids.len();
        figures.twice += load.twice.load(Relaxed);
        let mut ended = stream::iter(&distinct).map(async |id| (*id, load.ended(id).await)).buffered(CONNECTIONS);
        while let Some((id, generation)) = ended.next().await {
            let Some(generation) = generation else {
                figures.lost += 1;
                figures = figures.note(format!("{id} is lost"));
                continue;
            };
            figures.ended_as(&generation);
            winners.insert(id.clone(), pictures(load, &generation).await);
            figures.twice += usize::from(!has_one_history(load, id).await);
        }
        let listed = load.list("").await;
        let listed: Vec<&str> = listed.iter().map(|generation| generation["id"].as_str().unwrap()).collect();
        assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), listed.len(), "a generation is listed twice");
        // A listed generation without a 202 is a duplicate: its request was repeated and created another generation.
        figures.twice += listed.iter().filter(|id| !distinct.iter().any(|known| known == *id)).count();
    }
    nothing_is_left(site, &winners).await;
    logs_are_clean(site);
    figures
}

/// Checks that each picture exists, matches its entry in the generation and can be decoded; returns the number of
/// pictures.
async fn pictures(load: &Load, generation: &Value) -> usize {
    let images = generation["images"].as_array().unwrap();
    if generation["status"] != "succeeded" {
        assert!(images.is_empty(), "{generation}");
        return 0;
    }
    assert_eq!(images.len() as u64, generation["params"]["n"].as_u64().unwrap(), "{generation}");
    for image in images {
        let url = load.url(image["url"].as_str().unwrap());
        let response = load.client.get(&url).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{url}");
        let etag = response.headers()["etag"].to_str().unwrap().to_owned();
        let file = response.bytes().await.unwrap();
        let sha256: String = Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((etag, &image["sha256"]), (format!("\"{sha256}\""), &Value::from(sha256.as_str())), "{url}");
        let (width, height, _) = crate::server::decode(&file);
        assert_eq!((&image["width"], &image["height"]), (&width.into(), &height.into()), "{url}");
    }
    images.len()
}

async fn has_one_history(load: &Load, id: &str) -> bool {
    let read = events_of::read(&load.client, &load.url(&format!("/v1/images/{id}/events")), 0, PATIENCE).await;
    let (status, events) = read.expect("an answer");
    assert_eq!(status, StatusCode::OK, "the events of {id}");
    let is_one = events_of::is_history(&events);
    if !is_one {
        println!("the history of {id}: {events:?}");
    }
    is_one
}

/// Waits until the store has exactly the pictures of succeeded generations: no logs, and no pictures of earlier fences.
async fn nothing_is_left(site: &Site, winners: &BTreeMap<String, usize>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut missing: BTreeMap<&str, usize> = winners.iter().map(|(id, images)| (id.as_str(), *images)).collect();
        let mut left = Vec::new();
        for path in files(&site.blobs).into_iter().filter(|path| is_object(path)) {
            match picture_of(&path).and_then(|id| missing.get_mut(id)) {
                Some(images) if *images > 0 => *images -= 1,
                _ => left.push(path),
            }
        }
        missing.retain(|_, images| *images > 0);
        if left.is_empty() && missing.is_empty() {
            return;
        }
        let (some, of) = (left.first(), left.len());
        let lacks = missing.first_key_value();
        assert!(
            Instant::now() < deadline,
            "{of} files are to be erased, as {some:?}; {} generations lack pictures, as {lacks:?}",
            missing.len()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether the path is a stored object that the check counts. Unfinished files (`#`) and inputs are deleted with their
/// generation and do not count, and neither do the internal files of the test's bucket (`.`).
fn is_object(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    !name.contains('#') && !name.starts_with('.') && !path.iter().any(|part| part == "input")
}

/// The id of the generation in a path `img/{generation}/{fence}/{n}.{extension}`; `None` for other paths.
fn picture_of(path: &Path) -> Option<&str> {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    let ["img", id, fence, name] = parts[..] else { return None };
    let is_picture = [".png", ".jpg", ".webp"].iter().any(|extension| name.ends_with(extension));
    (fence.parse::<i64>().is_ok() && is_picture).then_some(id)
}

fn logs_are_clean(site: &Site) {
    for path in site.logs() {
        let log = std::fs::read_to_string(&path).unwrap_or_default();
        for word in ["panicked", SECRET] {
            let line = log.lines().find(|line| line.contains(word));
            assert_eq!(line, None, "{}: no log says {word}", path.display());
        }
    }
}
