//! What holds after every experiment, whatever was done to the processes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use reqwest::StatusCode;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    figures::Figures,
    load::Load,
    server::PATIENCE,
    site::{SECRET, Site, files},
    stream,
};

pub async fn judge(site: &Site, load: &Load, mut figures: Figures) -> Figures {
    let ids = load.ids();
    let distinct: BTreeSet<&String> = ids.iter().collect();
    figures.accepted = ids.len();
    figures.twice += load.twice.load(Relaxed);
    let ended = futures::future::join_all(distinct.iter().map(|id| load.ended(id))).await;
    let mut winners = BTreeMap::new();
    for (id, generation) in distinct.iter().zip(ended) {
        let Some(generation) = generation else {
            figures.lost += 1;
            figures = figures.note(format!("{id} is lost"));
            continue;
        };
        let images = pictures(load, &generation).await;
        winners.insert((*id).clone(), images);
        figures.twice += usize::from(!has_one_history(load, id).await);
    }
    let listed: Vec<String> =
        load.list("").await.iter().map(|generation| generation["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), listed.len(), "a generation is listed twice");
    // A generation without a 202 is one that a client has asked for again and got another for.
    figures.twice += listed.iter().filter(|id| !distinct.contains(id)).count();
    nothing_is_left(site, &winners).await;
    logs_are_clean(site);
    figures
}

/// Each picture is there, is what the generation says that it is, and can be decoded; how many there are.
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
    let read = stream::read(&load.client, &load.url(&format!("/v1/images/{id}/events")), 0, PATIENCE).await;
    let (status, events) = read.expect("an answer");
    assert_eq!(status, StatusCode::OK, "the events of {id}");
    let is_one = stream::is_history(&events);
    if !is_one {
        println!("the history of {id}: {events:?}");
    }
    is_one
}

/// After the janitor there are, as objects, the winners' pictures and nothing else: no log, no picture under a fence that lost.
async fn nothing_is_left(site: &Site, winners: &BTreeMap<String, usize>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left: Vec<PathBuf> = files(&site.blobs)
            .into_iter()
            // Half-written by a process that was killed, and no object; it goes with its generation.
            .filter(|path| !path.to_string_lossy().contains('#'))
            // What the test's own bucket notes of its objects.
            .filter(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')))
            .filter(|path| !is_winners(path, winners))
            // What requests brought along stays with its generation.
            .filter(|path| !path.iter().any(|part| part == "input"))
            .collect();
        let is_picture = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "png");
        let count = |id: &String| {
            files(&site.blobs.join("img/default").join(id)).iter().filter(|path| is_picture(path)).count()
        };
        let whole = winners.iter().all(|(id, images)| count(id) == *images);
        if left.is_empty() && whole {
            return;
        }
        assert!(Instant::now() < deadline, "what should be erased: {left:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// `img/{tenant}/{id}/{fence}/{n}.png` of a generation that has so many pictures; under one fence, as the count says.
fn is_winners(path: &std::path::Path, winners: &BTreeMap<String, usize>) -> bool {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    let [kind, _, id, fence, name] = parts[..] else { return false };
    let index = name.strip_suffix(".png").and_then(|index| index.parse::<usize>().ok());
    kind == "img"
        && fence.parse::<i64>().is_ok()
        && winners.get(id).is_some_and(|images| index.is_some_and(|index| index < *images))
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
