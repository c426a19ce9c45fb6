//! Readers of content credentials that others wrote.

use std::process::Command;

use crate::{scripts, server::Server};

#[tokio::test]
async fn c2pa_python() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]).await;
    scripts::python("provenance", "provenance.py", &[&server.public]).await;
}

#[tokio::test]
async fn exiftool() {
    if Command::new("perl").arg("-v").output().is_err() {
        assert!(std::env::var_os("LATENTD_REQUIRE_CLIENTS").is_none(), "LATENTD_REQUIRE_CLIENTS is set, without Perl");
        println!("skipped: there is no Perl");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]).await;
    scripts::node("exiftool.mjs", &[&server.public]).await;
}
