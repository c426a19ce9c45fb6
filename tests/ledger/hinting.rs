//! Tests of the payloads of PostgreSQL notifications, which carry hints between processes.

use std::collections::HashSet;

use futures::StreamExt;
use latentd::generation::GenerationId;
use latentd::ledger::{Fleet, Hint};
use sqlx::{Connection, PgConnection, postgres::PgListener};
use tokio::time::timeout;

use crate::place::{PATIENCE, PgPlace, Place};
use crate::shared::wait_until_listening;

const CHANNEL: &str = "latentd";

#[tokio::test]
async fn each_hint_is_sent_once() {
    let Some(place) = PgPlace::new().await else { return };
    let store = place.store().await;
    let mut listener = PgListener::connect(place.url()).await.unwrap();
    listener.listen(CHANNEL).await.unwrap();
    let ids: Vec<_> = (0..1000).map(|_| GenerationId::new()).collect();
    let hints: Vec<_> = ids.iter().flat_map(|id| [Hint::Changed(*id), Hint::Queued, Hint::Canceled(*id)]).collect();
    store.hint(&[hints.clone(), hints].concat()).await.unwrap();
    store.hint(&[]).await.unwrap();
    store.hint(&[Hint::DrainChanged]).await.unwrap();
    let mut words = Vec::new();
    while words.last().is_none_or(|last| last != "orders") {
        let notification = timeout(PATIENCE, listener.recv()).await.expect("no notification arrives").unwrap();
        words.push(notification.payload().to_owned());
    }
    words.pop();
    let sent = ids.iter().flat_map(|id| [format!("changed:{id}"), format!("canceled:{id}")]);
    let sent: HashSet<String> = sent.chain(["queued".to_owned()]).collect();
    assert_eq!(words.len(), sent.len(), "each hint is sent once");
    assert_eq!(words.into_iter().collect::<HashSet<_>>(), sent);
}

#[tokio::test]
async fn unknown_hints_are_ignored() {
    let Some(place) = PgPlace::new().await else { return };
    let store = place.open().await;
    let mut heard = store.hints();
    wait_until_listening(&*store, &mut heard).await;
    let mut other = PgConnection::connect(place.url()).await.unwrap();
    for payload in ["", "drained changed: changed:img_", "removed:x queued:x  orders"] {
        sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(payload).execute(&mut other).await.unwrap();
    }
    assert_eq!(timeout(PATIENCE, heard.next()).await.expect("a known hint arrives"), Some(Hint::DrainChanged));
}
