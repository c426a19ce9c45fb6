//! Runs the curl commands and programs of the documents unchanged, and compares their pictures with the published ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    harness::{Server, decode},
    transformers,
};

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn between_backquotes(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// The curl commands of a document that write a picture, in backquotes or on their own lines.
fn commands(document: &str) -> Vec<String> {
    let text = fs::read_to_string(repository().join(document)).unwrap();
    let spans =
        text.lines().flat_map(|line| if line.starts_with("curl ") { vec![line] } else { between_backquotes(line) });
    spans.filter(|span| span.starts_with("curl -f -o ")).map(str::to_owned).collect()
}

/// The first code block of a document in this language.
fn block(document: &str, language: &str) -> String {
    let text = fs::read_to_string(repository().join(document)).unwrap();
    let (_, rest) = text.split_once(&format!("```{language}\n")).expect("the document has such a block");
    rest.split("```").next().unwrap().to_owned()
}

/// Runs a command in `folder`; returns the name and content of the file that it writes.
fn run(command: &str, server: &Server, folder: &Path) -> (String, Vec<u8>) {
    let address = server.url("");
    let here = command.replace("localhost:8080", address.trim_start_matches("http://"));
    let output = Command::new("sh").args(["-c", &here]).current_dir(folder).output().expect("a shell");
    assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
    let name = command.split(' ').nth(3).unwrap().to_owned();
    let file = fs::read(folder.join(&name)).unwrap();
    (name, file)
}

/// The model that a command names, in JSON or in a form.
fn model(command: &str) -> &str {
    let named = command.split_once("\"model\": \"").or_else(|| command.split_once("-F model="));
    named.expect("a command names a model").1.split(['"', ' ']).next().unwrap()
}

/// A folder with the files that the commands read.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("docs")).unwrap();
    for name in ["fox.png", "mask.png"] {
        fs::copy(repository().join("docs").join(name), folder.path().join("docs").join(name)).unwrap();
    }
    folder
}

#[tokio::test]
async fn the_commands_of_the_quick_start_draw_its_pictures() {
    let (data, folder) = (tempfile::tempdir().unwrap(), folder());
    let server = Server::start(data.path(), &[]).await;
    let commands = commands("docs/quick-start.md");
    assert!(commands.len() >= 9, "{commands:?}");
    for command in &commands {
        let (name, file) = run(command, &server, folder.path());
        let shown = fs::read(repository().join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (ours, theirs) = (decode(&file), decode(&shown));
        assert_eq!((ours.0, ours.1), (theirs.0, theirs.1), "{command}");
        // Processors without fused multiply-add round slightly differently.
        let worst = ours.2.iter().zip(&theirs.2).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst <= Some(2), "{command}: {worst:?} levels");
    }
}

#[tokio::test]
async fn every_request_of_the_documents_is_answered() {
    let (data, folder) = (tempfile::tempdir().unwrap(), folder());
    let fixtures = repository().join("tests/fixtures/parity");
    let dirs = ["pipelines", "controlnets", "adapters"].map(|part| fixtures.join(part));
    let names = ["LATENTD_MODELS__DIR", "LATENTD_CONTROLNETS__DIR", "LATENTD_LORAS__DIR"];
    let settings: Vec<(&str, &str)> = names.into_iter().zip(dirs.iter().map(|dir| dir.to_str().unwrap())).collect();
    let server = Server::start(data.path(), &settings).await;
    let commands = commands("docs/requests.md");
    assert!(commands.len() >= 15, "{commands:?}");
    for command in &commands {
        let (_, file) = run(command, &server, folder.path());
        let (width, height, pixels) = decode(&file);
        assert!(width >= 64 && height >= 64 && pixels.iter().any(|level| *level != pixels[0]), "{command}");
    }
}

#[tokio::test]
async fn the_page_of_every_family_has_requests_that_draw() {
    let (data, folder, models) = (tempfile::tempdir().unwrap(), folder(), tempfile::tempdir().unwrap());
    let pages = fs::read_dir(repository().join("docs/families")).unwrap();
    let pages: BTreeMap<String, Vec<String>> = pages
        .map(|page| format!("docs/families/{}", page.unwrap().file_name().to_str().unwrap()))
        // `tests/sounds/http.rs` and `tests/films` run the commands that make sounds and films.
        .filter(|page| {
            !["animate-diff.md", "audio-ldm.md", "stable-audio-3.md", "stable-video-diffusion.md", "wan.md"]
                .iter()
                .any(|other| page.ends_with(other))
        })
        .map(|page| (page.clone(), commands(&page)))
        .collect();
    assert!(pages.len() >= 5, "{pages:?}");
    let names: BTreeSet<&str> = pages.values().flatten().map(|command| model(command)).collect();
    transformers::put_models(&names.into_iter().collect::<Vec<_>>(), models.path());
    let settings = [("LATENTD_MODELS__DIR", models.path().to_str().unwrap())];
    let server = Server::start(data.path(), &settings).await;
    for (page, commands) in &pages {
        assert!(!commands.is_empty(), "{page} has no command that draws");
        for command in commands {
            let (_, file) = run(command, &server, folder.path());
            let (width, height, pixels) = decode(&file);
            assert!(width >= 64 && height >= 64 && pixels.iter().any(|level| *level != pixels[0]), "{command}");
        }
    }
}

#[tokio::test]
async fn the_commands_and_the_python_of_the_readme_draw_the_fox() {
    let (data, folder) = (tempfile::tempdir().unwrap(), folder());
    let server = Server::start(data.path(), &[]).await;
    let shown = decode(&fs::read(repository().join("docs/fox.png")).unwrap());
    let commands = commands("README.md");
    assert!(!commands.is_empty());
    // Only the first block of commands draws with the embedded model.
    let (_, drawn) = run(&commands[0], &server, folder.path());
    let program = block("README.md", "python").replace("http://localhost:8080", &server.url(""));
    let output = Command::new("python3").args(["-c", &program]).current_dir(folder.path()).output().expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for file in [drawn, fs::read(folder.path().join("fox.png")).unwrap()] {
        let picture = decode(&file);
        assert_eq!((picture.0, picture.1), (shown.0, shown.1));
        assert!(picture.2.iter().zip(&shown.2).all(|(a, b)| a.abs_diff(*b) <= 2));
    }
}
