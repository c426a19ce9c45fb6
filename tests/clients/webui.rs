//! A client of AUTOMATIC1111's web interface.

use crate::{scripts, server::Server};

#[tokio::test]
async fn webuiapi() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &scripts::UNSIGNED).await;
    scripts::python("clients", "webui.py", &[&server.public]).await;
}
