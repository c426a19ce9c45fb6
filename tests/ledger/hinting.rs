//! What processes say to each other through PostgreSQL, word by word.

use std::collections::HashSet;

use futures::StreamExt;
use latentd::generation::GenerationId;
use latentd::ledger::{Fleet, Hint};
use sqlx::{Connection, PgConnection, postgres::PgListener};
use tokio::time::timeout;

use crate::place::{PATIENCE, PgPlace, Place};
use crate::shared::is_listening;

const CHANNEL: &str = "latentd";

#[tokio::test]
async fn a_hint_is_said_once_in_payloads_that_postgresql_takes() {
    let Some(place) = PgPlace::new().await else { return };
    let store = place.store().await;
    let mut listener = PgListener::connect(place.url()).await.unwrap();
    listener.listen(CHANNEL).await.unwrap();
    let ids: Vec<_> = (0..1000).map(|_| GenerationId::new()).collect();
    let hints: Vec<_> = ids.iter().flat_map(|id| [Hint::Changed(*id), Hint::Queued, Hint::Canceled(*id)]).collect();
    store.hint(&[hints.clone(), hints].concat()).await.unwrap();
    store.hint(&[]).await.unwrap();
    store.hint(&[Hint::Orders]).await.unwrap();
    let mut payloads = Vec::new();
    while payloads.last().is_none_or(|last| last != "orders") {
        let told = timeout(PATIENCE, listener.recv()).await.expect("nothing is said any more").unwrap();
        payloads.push(told.payload().to_owned());
    }
    payloads.pop();
    assert!(payloads.iter().all(|payload| payload.len() < 8000));
    assert_eq!(payloads.len(), 1000 * (39 + 40) / 7900 + 1);
    let words: Vec<&str> = payloads.iter().flat_map(|payload| payload.split(' ')).collect();
    let mut said: HashSet<String> =
        ids.iter().flat_map(|id| [format!("changed:{id}"), format!("canceled:{id}")]).collect();
    said.insert("queued".to_owned());
    assert_eq!(words.len(), 2001, "each is said once");
    assert_eq!(words.into_iter().map(str::to_owned).collect::<HashSet<_>>(), said);
}

#[tokio::test]
async fn words_of_another_version_are_passed_over() {
    let Some(place) = PgPlace::new().await else { return };
    let store = place.open().await;
    let mut heard = store.hints();
    is_listening(&*store, &mut heard).await;
    let mut other = PgConnection::connect(place.url()).await.unwrap();
    for payload in ["", "drained changed: changed:img_", "removed:x queued:x  orders"] {
        sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(payload).execute(&mut other).await.unwrap();
    }
    assert_eq!(timeout(PATIENCE, heard.next()).await.expect("what is known is heard"), Some(Hint::Orders));
}
