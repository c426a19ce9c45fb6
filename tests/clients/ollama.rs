//! A client of Ollama.

use crate::{scripts, server::Server};

#[tokio::test]
async fn the_python_client() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &scripts::UNSIGNED).await;
    scripts::python("frameworks", "ollama_python.py", &[&server.public]).await;
}
