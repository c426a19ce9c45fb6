//! Tests of what deploy/ and the Dockerfile expect from the program: the environment of a container, and the settings
//! in the manifests. `make deploy-check` checks the manifests themselves.

#[path = "support/server.rs"]
mod server;

#[path = "deploy/container.rs"]
mod container;
#[path = "deploy/settings.rs"]
mod settings;
