//! A reader of content credentials that others wrote.

use crate::{scripts, server::Server};

#[tokio::test]
async fn c2pa_python() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]).await;
    scripts::python("provenance", "provenance.py", &[&server.public]).await;
}
