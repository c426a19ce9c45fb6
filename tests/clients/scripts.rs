//! Runs the scripts that use the clients.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{packages, server::PATIENCE};

/// Settings of a server for scripts that compare files: signatures contain random numbers, so only unsigned files of
/// equal requests are equal.
pub const UNSIGNED: [(&str, &str); 1] = [("LATENTD_PROVENANCE__CREDENTIALS", "false")];

/// Runs a script of `tests/clients` with a Python that has the packages of `list`. Without the
/// packages, the test is skipped.
pub async fn python(list: &'static str, script: &str, arguments: &[&str]) {
    let Some(python) = install(move || packages::python(list)).await else { return };
    let mut command = Command::new(python);
    // Isolated: a script must not import other scripts of its folder, nor leave compiled files there.
    command.args(["-I", "-B"]).arg(packages::sources().join(script));
    run(command, script, arguments, 5 * PATIENCE).await;
}

/// Runs a script of `tests/clients` with Node.js. Without Node.js or the packages, the test is skipped.
pub async fn node(script: &str, arguments: &[&str]) {
    let Some(folder) = install(packages::node).await else { return };
    // Node.js looks for packages in the folder of the script.
    let copy = folder.join(script);
    fs::copy(packages::sources().join(script), &copy).unwrap();
    let mut command = Command::new("node");
    command.arg(copy);
    run(command, script, arguments, 5 * PATIENCE).await;
}

/// Installs without blocking the runtime.
pub async fn install<T: Send + 'static>(install: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(install).await.unwrap()
}

/// Runs the command with these arguments. It must succeed, and must print nothing but what
/// the panic message shows if it does not.
pub async fn run(mut command: Command, name: &str, arguments: &[&str], patience: Duration) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let file = File::create(&log).unwrap();
    command
        .args(arguments)
        .current_dir(folder.path())
        // No proxy, and no network besides loopback.
        .envs([("NO_PROXY", "*"), ("no_proxy", "*"), ("LITELLM_LOCAL_MODEL_COST_MAP", "True")])
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file);
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + patience;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{name} does not end in {patience:?}:\n{}", text(&log));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(status.success(), "{name} ends with {status}:\n{}", text(&log));
}

fn text(log: &Path) -> String {
    String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned()
}
