//! Fault test of an upgrade: the previous version runs beside this one on one database and one bucket. Skipped unless
//! `LATENTD_PREVIOUS_BINARY` names the program of the previous version.

use std::ffi::OsString;

use crate::{
    figures::Figures,
    load::{Load, request},
    server::{Launch, Server},
    site::Site,
};

/// Runs the program `$0` in place of the program `$1`. The previous version does not know the variables of newer tests.
const INSTEAD: &str = "for name in $(env | sed -n 's/^\\(LATENTD_\\(PREVIOUS\\|REQUIRE\\)_[A-Z_]*\\)=.*/\\1/p'); do
    unset $name; done; shift; exec \"$0\" \"$@\"";

/// The processes of an upgrade, with the same settings for both versions.
struct Versions {
    site: Site,
    previous: String,
}

impl Versions {
    async fn previous(&self, role: &str) -> Server {
        let wrapper = ["sh", "-c", INSTEAD, &self.previous].map(str::to_owned).to_vec();
        Server::start_ready(&Launch { wrapper, ..self.site.launch(role) }).await
    }

    async fn current(&self, role: &str) -> Server {
        self.site.start(role).await
    }

    /// Sends a request to `accepting` alone; it succeeds, and both servers show it and its picture alike.
    async fn drawn(&self, load: &Load, key: u64, accepting: &Server, other: &Server) {
        self.site.open(&[accepting]);
        let id = load.submit(&key.to_string(), &request(key, 4)).await;
        // The other process learns of the end from the database's notifications.
        assert_eq!(other.ended(&id).await["status"], "succeeded");
        let pictures = [accepting.picture(&id, 0).await, other.picture(&id, 0).await];
        assert!(pictures[0] == pictures[1], "{id}");
        let path = format!("/v1/images/{id}");
        let [a, b] = [accepting.json(&path).await, other.json(&path).await];
        assert_eq!([&a["status"], &a["params"]["seed"]], [&b["status"], &b["params"]["seed"]]);
    }
}

/// T30.
#[tokio::test(flavor = "multi_thread")]
async fn the_previous_version_works_on_the_schema_of_this_one() {
    let Some(previous) = std::env::var_os("LATENTD_PREVIOUS_BINARY").map(OsString::into_string) else {
        println!("skipped: LATENTD_PREVIOUS_BINARY does not name the program of the previous version");
        return;
    };
    let Some(site) = Site::with_bucket("T30 the previous version beside this one").await else { return };
    let versions = Versions { site, previous: previous.unwrap() };
    let load = Load::through(versions.site.door.url());

    // The previous version alone.
    let (old_api, old_worker) = (versions.previous("api").await, versions.previous("worker").await);
    versions.drawn(&load, 1, &old_api, &old_api).await;
    // The start of this version updates the schema below the running processes of the previous version.
    let new_api = versions.current("api").await;
    versions.drawn(&load, 2, &old_api, &new_api).await;
    versions.drawn(&load, 3, &new_api, &old_api).await;
    // Only workers of this version.
    let new_worker = versions.current("worker").await;
    assert!(old_worker.stopped().await.success());
    versions.drawn(&load, 4, &old_api, &new_api).await;
    versions.drawn(&load, 5, &new_api, &old_api).await;
    // The way back: processes of the previous version start on the new schema.
    let (old_worker, returned_api) = (versions.previous("worker").await, versions.previous("api").await);
    assert!(new_worker.stopped().await.success());
    versions.drawn(&load, 6, &new_api, &returned_api).await;
    versions.drawn(&load, 7, &returned_api, &new_api).await;
    // Both versions share the queue. Processes that stop give back what they compute.
    let new_worker = versions.current("worker").await;
    versions.site.open(&[&old_api, &new_api, &returned_api]);
    let requests: Vec<_> = (10..16).map(|seed| request(seed, 20)).collect();
    let ids = load.submit_all("mixed", &requests).await;
    assert!(old_worker.stopped().await.success());
    for id in ids {
        assert_eq!(load.ended(&id).await.unwrap()["status"], "succeeded");
    }
    versions.site.open(&[&new_api]);
    versions.site.verdict(&load, Figures::default()).await;
    drop(new_worker);
}
