//! Reloads the folders of models on SIGHUP and when files change.

use std::{sync::Arc, time::Duration};

use tokio::signal::unix::{SignalKind, signal};

use crate::catalogue::{Catalogue, CatalogueError, Reloaded};

/// Reads the folders again on SIGHUP. If there is an interval, also checks for changed files at this interval.
pub(super) async fn reloading(catalogue: Arc<Catalogue>, interval: Option<Duration>) {
    let mut hangups = signal(SignalKind::hangup()).inspect_err(|error| {
        tracing::error!(%error, "SIGHUP cannot be listened for");
    });
    // The last logged error: an unreadable folder is logged once, not at every check.
    let mut logged = None;
    loop {
        let hangup = async {
            match &mut hangups {
                Ok(hangups) => drop(hangups.recv().await),
                Err(_) => std::future::pending().await,
            }
        };
        let pause = async {
            match interval {
                Some(interval) => tokio::time::sleep(interval).await,
                None => std::future::pending().await,
            }
        };
        let asked = tokio::select! {
            () = hangup => true,
            () = pause => false,
        };
        let catalogue = catalogue.clone();
        let read = tokio::task::spawn_blocking(move || match asked {
            true => catalogue.reload().map(Some),
            false => catalogue.poll(),
        });
        let Ok(read) = read.await else { continue };
        logged = log(read, logged, asked);
    }
}

fn log(read: Result<Option<Reloaded>, CatalogueError>, logged: Option<String>, asked: bool) -> Option<String> {
    match read {
        Ok(Some(reloaded)) if asked || !reloaded.is_empty() => {
            let Reloaded { models, loras, embeddings, controlnets } = reloaded;
            tracing::info!(?models, ?loras, ?embeddings, ?controlnets, "the folders of models were read again");
            None
        }
        Ok(_) => None,
        Err(error) => {
            let error = error.to_string();
            if asked || logged.as_ref() != Some(&error) {
                tracing::error!("the folders of models are not read again: {error}");
            }
            Some(error)
        }
    }
}
