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
async fn a_hint_is_said_once() {
    let Some(place) = PgPlace::new().await else { return };
    let store = place.store().await;
    let mut listener = PgListener::connect(place.url()).await.unwrap();
    listener.listen(CHANNEL).await.unwrap();
    let ids: Vec<_> = (0..1000).map(|_| GenerationId::new()).collect();
    let hints: Vec<_> = ids.iter().flat_map(|id| [Hint::Changed(*id), Hint::Queued, Hint::Canceled(*id)]).collect();
    store.hint(&[hints.clone(), hints].concat()).await.unwrap();
    store.hint(&[]).await.unwrap();
    store.hint(&[Hint::Orders]).await.unwrap();
    let mut words = Vec::new();
    while words.last().is_none_or(|last| last != "orders") {
        let told = timeout(PATIENCE, listener.recv()).await.expect("nothing is said any more").unwrap();
        words.push(told.payload().to_owned());
    }
    words.pop();
    let said = ids.iter().flat_map(|id| [format!("changed:{id}"), format!("canceled:{id}")]);
    let said: HashSet<String> = said.chain(["queued".to_owned()]).collect();
    assert_eq!(words.len(), said.len(), "each is said once");
    assert_eq!(words.into_iter().collect::<HashSet<_>>(), said);
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
