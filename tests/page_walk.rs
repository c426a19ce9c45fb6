//! The walk through the web page (`tests/page_walk`): each feature at desktop and phone width, with a check of
//! accessibility in each state. It needs Node.js, the packages that `make walk` installs, and Chromium; without one of
//! them it prints that it is skipped.

use std::{
    path::Path,
    process::{Command, Stdio},
};

#[path = "support/films.rs"]
mod films;
#[path = "support/random.rs"]
mod random;
#[path = "support/sounds.rs"]
mod sounds;
#[path = "support/transformers.rs"]
mod transformers;

#[test]
fn every_feature_of_the_page_works_and_is_accessible() {
    if let Some(missing) = missing() {
        assert!(
            std::env::var_os("LATENTD_REQUIRE_WALK").is_none(),
            "LATENTD_REQUIRE_WALK is set, but there is no {missing}"
        );
        println!("skipped: the walk through the page needs {missing}");
        return;
    }
    let walk = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page_walk/walk.mjs");
    let models = tempfile::tempdir().unwrap();
    transformers::put_models(&["flux2-klein"], models.path());
    films::put_model(models.path());
    sounds::put_model(models.path());
    let mut walked = Command::new("node");
    walked.arg(walk).arg(env!("CARGO_BIN_EXE_latentd")).env("PAGE_WALK_MODELS", models.path());
    let walked = walked.output().unwrap();
    let said = String::from_utf8_lossy(&walked.stdout);
    println!("{said}");
    assert!(walked.status.success(), "{said}\n{}", String::from_utf8_lossy(&walked.stderr));
}

/// The name of a program that the walk needs and that is missing on this machine.
fn missing() -> Option<&'static str> {
    let runs = |program: &str| {
        Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/page_walk/node_modules/playwright-core");
    if !runs("node") {
        return Some("Node.js");
    }
    if !modules.exists() {
        return Some("the packages of tests/page_walk (make walk)");
    }
    (!["chromium", "chromium-browser", "google-chrome", "chrome"].iter().any(|name| runs(name))).then_some("Chromium")
}
