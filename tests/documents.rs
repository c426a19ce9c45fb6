//! Checks the documents: links have targets, named files exist, pages state their purpose, and the generated page is up
//! to date. `tests/server/documents.rs` and `tests/page/documents.rs` run the commands in the documents.

use std::{
    fs,
    path::{Path, PathBuf},
};

#[path = "../examples/configuration.rs"]
mod configuration;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The Markdown files of the repository outside hidden folders, build folders and `data`.
fn documents() -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![repository().to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !name.starts_with('.') && !name.starts_with("target") && name != "data" {
                folders.push(path);
            } else if name.ends_with(".md") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 15, "{found:?}");
    found
}

/// The lines of a document outside its code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// The targets of the links and pictures in a line.
fn targets(line: &str) -> Vec<&str> {
    let links = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let pictures = line.split("<img src=\"").skip(1).filter_map(|rest| rest.split('"').next());
    links.chain(pictures).collect()
}

/// The anchor that GitHub makes from a heading.
fn anchor(heading: &str) -> String {
    let kept = |letter: &char| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_');
    heading.trim().to_lowercase().chars().filter(kept).map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).collect()
}

#[test]
fn every_link_has_an_existing_file_and_heading() {
    let (mut broken, mut links) = (Vec::new(), 0);
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for target in prose(&text).flat_map(targets) {
            if target.contains("://") {
                continue;
            }
            links += 1;
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() { document.clone() } else { document.parent().unwrap().join(path) };
            let leads = file.exists()
                && (heading.is_empty() || anchors(&fs::read_to_string(&file).unwrap()).contains(&heading.to_owned()));
            if !leads {
                broken.push(format!("{}: {target}", document.strip_prefix(repository()).unwrap().display()));
            }
        }
    }
    assert!(links > 50, "only {links} links are found");
    assert_eq!(broken, [""; 0]);
}

#[test]
fn every_file_that_a_document_names_exists() {
    let (mut missing, mut named) = (Vec::new(), 0);
    // The changelog names files that no longer exist.
    for document in documents().into_iter().filter(|document| !document.ends_with("CHANGELOG.md")) {
        let text = fs::read_to_string(&document).unwrap();
        for span in prose(&text).flat_map(|line| line.split('`').skip(1).step_by(2)) {
            let folders = [
                "src/",
                "tests/",
                "kernels/",
                "pixels/",
                "migrations/",
                "config/",
                "benches/",
                "examples/",
                "docs/",
                "web/",
            ];
            if !folders.iter().any(|folder| span.starts_with(folder)) || span.contains([' ', '*', '{']) {
                continue;
            }
            named += 1;
            if !repository().join(span).exists() {
                missing.push(format!("{}: {span}", document.strip_prefix(repository()).unwrap().display()));
            }
        }
    }
    assert!(named > 80, "only {named} files are found");
    assert_eq!(missing, [""; 0]);
}

#[test]
fn every_page_of_docs_states_its_purpose_and_is_linked_in_the_readme() {
    let readme = read("README.md");
    for document in documents() {
        let Ok(page) = document.strip_prefix(repository().join("docs")) else { continue };
        let name = page.to_str().unwrap();
        let text = fs::read_to_string(&document).unwrap();
        let mut lines = text.lines();
        assert!(lines.next().unwrap().starts_with("# "), "{name} begins with its title");
        assert!(
            lines.nth(1).unwrap().starts_with("After reading this page you "),
            "{name} says what one can do after it"
        );
        assert!(readme.contains(&format!("(docs/{name})")), "README.md does not link {name}");
    }
}

#[test]
fn the_readme_has_at_most_120_lines() {
    assert!(read("README.md").lines().count() <= 120);
}

#[test]
fn the_reference_of_the_settings_matches_the_defaults() {
    let page = configuration::page();
    assert!(page.contains("| `engine.slice_ms` | `40` | Milliseconds"), "the table has every setting");
    assert!(page == read("docs/configuration.md"), "run `cargo run --example configuration`");
}
