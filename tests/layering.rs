//! The house rules of `src/lib.rs`, sentence by sentence.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The rooms by floor. A room may use the rooms of its own floor and of those below.
const FLOORS: [&[&str]; 9] = [
    &["generation", "config", "crash", "metrics", "telemetry"],
    &["diffusion", "device", "models", "weights", "kernels", "imaging"],
    &["pipelines"],
    &["families"],
    &["catalogue"],
    &["ledger", "engine"],
    &["service", "worker", "webhooks"],
    &["http"],
    &["app", "cli", "main", "lib"],
];

const PURE: [&str; 9] =
    ["diffusion", "device", "models", "weights", "kernels", "imaging", "pipelines", "families", "catalogue"];

struct Source {
    room: String,
    path: PathBuf,
    /// Without comments and tests: what stands behind `#[cfg(test)]`, and files that are named `tests.rs` or are below `tests`.
    code: String,
    lines: usize,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let inner = path.strip_prefix(&root).unwrap();
            let first = inner.components().next().unwrap().as_os_str().to_str().unwrap();
            let room = first.trim_end_matches(".rs").to_owned();
            let is_test = inner.ends_with("tests.rs") || inner.components().any(|part| part.as_os_str() == "tests");
            let product = if is_test { "" } else { text.split("#[cfg(test)]\nmod ").next().unwrap() };
            let code =
                product.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
            found.push(Source { room, path: inner.to_owned(), code, lines: text.lines().count() });
        }
    }
    assert!(found.len() > 50, "the sources are where they are looked for");
    found
}

fn floor(room: &str) -> usize {
    FLOORS.iter().position(|rooms| rooms.contains(&room)).unwrap_or_else(|| panic!("{room} stands on no floor"))
}

/// The rooms that a piece of code names, in `crate::room` (`latentd::room` in the binary) and in `use crate::{room, …}`.
fn rooms_named(code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for root in ["crate::", "latentd::"] {
        for (at, _) in code.match_indices(root) {
            let rest = &code[at + root.len()..];
            match rest.strip_prefix('{') {
                Some(list) => rooms.extend(heads(list)),
                None => rooms.push(word(rest)),
            }
        }
    }
    rooms.retain(|room| FLOORS.iter().any(|floor| floor.contains(&room.as_str())));
    rooms
}

/// The first words of a braced list's members.
fn heads(list: &str) -> Vec<String> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => {
                found.push(word(list[start..at].trim_start()));
                return found;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(word(list[start..at].trim_start()));
                start = at + 1;
            }
            _ => {}
        }
    }
    found
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn imports_point_down() {
    for source in sources() {
        for room in rooms_named(&source.code) {
            assert!(floor(&room) <= floor(&source.room), "{} reaches up to {room}", source.path.display());
        }
    }
}

#[test]
fn every_room_named_is_found() {
    let code = "use crate::{\n engine::{Cancel, Reason},\n generation::Phase,\n};\nlet x = crate::http::serve();";
    assert_eq!(rooms_named(code), ["engine", "generation", "http"]);
}

#[test]
fn pure_rooms_see_no_runtime_no_clock_and_no_environment() {
    for source in sources().iter().filter(|source| PURE.contains(&source.room.as_str())) {
        for word in ["tokio", "axum", "sqlx", "std::env", "env::var", "SystemTime", "Instant", "OffsetDateTime"] {
            assert!(!source.code.contains(word), "{} sees {word}", source.path.display());
        }
    }
}

#[test]
fn the_door_sees_no_tensors() {
    for source in sources().iter().filter(|source| source.room == "http") {
        assert!(!source.code.contains("candle"), "{}", source.path.display());
    }
}

#[test]
fn only_the_device_room_chooses_where_tensors_go() {
    for source in sources().iter().filter(|source| source.room != "device") {
        for word in ["Device::Cpu", "Device::new_cuda", "Device::new_metal"] {
            assert!(!source.code.contains(word), "{} chooses {word}", source.path.display());
        }
    }
}

#[test]
fn above_the_pipelines_nothing_sees_pixels() {
    for source in sources().iter().filter(|source| floor(&source.room) > floor("pipelines")) {
        for word in ["RgbImage", "GreyImage", "Pixels<"] {
            assert!(!source.code.contains(word), "{} sees {word}", source.path.display());
        }
    }
}

#[test]
fn only_the_error_table_picks_the_statuses_of_errors() {
    let errors =
        ["BAD_REQUEST", "NOT_FOUND", "UNPROCESSABLE", "CONFLICT", "INTERNAL_SERVER", "SERVICE_UNAVAILABLE", "TOO_MANY"];
    for source in sources().iter().filter(|source| source.path != Path::new("http/error.rs")) {
        for status in errors {
            let word = format!("StatusCode::{status}");
            assert!(!source.code.contains(&word), "{} picks {word}", source.path.display());
        }
    }
}

#[test]
fn only_the_settings_read_the_environment() {
    for source in sources().iter().filter(|source| source.room != "config") {
        for word in ["env::var", "env::vars", "env::set_var"] {
            assert!(!source.code.contains(word), "{} reads the environment", source.path.display());
        }
    }
}

#[test]
fn only_the_app_and_the_command_line_spawn() {
    for source in sources().iter().filter(|source| !["app", "cli"].contains(&source.room.as_str())) {
        for word in ["tokio::spawn", "thread::spawn", "thread::Builder"] {
            assert!(!source.code.contains(word), "{} spawns", source.path.display());
        }
    }
}

#[test]
fn nothing_unwraps() {
    for source in sources() {
        assert!(!source.code.contains(".unwrap()"), "{} unwraps", source.path.display());
        assert!(!source.code.contains("todo!("), "{} is not done", source.path.display());
        assert!(!source.code.contains("unimplemented!("), "{} is not done", source.path.display());
    }
}

#[test]
fn files_are_small() {
    let mut sizes: Vec<(usize, PathBuf)> = sources().into_iter().map(|source| (source.lines, source.path)).collect();
    sizes.sort_unstable();
    let (largest, path) = &sizes[sizes.len() - 1];
    assert!(*largest <= 500, "{} has {largest} lines", path.display());
    assert!(sizes[sizes.len() / 2].0 <= 150, "the median is {} lines", sizes[sizes.len() / 2].0);
    assert!(
        sizes[sizes.len() * 9 / 10].0 <= 350,
        "one file in ten has more than {} lines",
        sizes[sizes.len() * 9 / 10].0
    );
}

/// The fuzzer compiles the room of weights alone, so that its own manifest has to have what that room uses, in the same
/// versions.
#[test]
fn the_fuzzer_has_the_dependencies_of_the_room_of_weights() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| -> toml::Table { fs::read_to_string(root.join(path)).unwrap().parse().unwrap() };
    let version = |requirement: &toml::Value| {
        requirement
            .as_str()
            .or_else(|| requirement.get("version")?.as_str())
            .expect("a dependency has a version")
            .to_owned()
    };
    let (ours, fuzzer, lock) = (read("Cargo.toml"), read("fuzz/Cargo.toml"), read("fuzz/Cargo.lock"));
    let locked =
        lock["package"].as_array().unwrap().iter().find(|of| of["name"].as_str() == Some("latentd-fuzz")).unwrap();
    let locked = locked["dependencies"].as_array().unwrap();
    let code: String =
        sources().into_iter().filter(|source| source.room == "weights").map(|source| source.code + "\n").collect();
    // A list of the standard library's modules names no crate.
    let standard = |code: &str| code.split_once("};").map_or_else(String::new, |(_, rest)| rest.to_owned());
    let mut parts = code.split("use std::{");
    let first = parts.next().unwrap_or_default().to_owned();
    let code = parts.map(standard).fold(first, |code, rest| code + &rest);
    let mut used = 0;
    for (name, requirement) in ours["dependencies"].as_table().unwrap() {
        let path = format!("{}::", name.replace('-', "_"));
        let is_used = code.match_indices(&path).any(|(at, _)| {
            !code[..at].ends_with(|before: char| before.is_alphanumeric() || matches!(before, '_' | ':'))
        });
        if is_used {
            used += 1;
            let fuzzers = fuzzer["dependencies"].get(name).unwrap_or_else(|| panic!("fuzz/Cargo.toml has no {name}"));
            assert_eq!(version(fuzzers), version(requirement), "{name}");
        }
    }
    assert!(used > 5, "the room's dependencies are found: {used}");
    for name in fuzzer["dependencies"].as_table().unwrap().keys() {
        let is_locked = |of: &toml::Value| of.as_str().is_some_and(|of| of.split(' ').next() == Some(name));
        assert!(locked.iter().any(is_locked), "fuzz/Cargo.lock has no {name}; run cargo update --workspace in fuzz/");
    }
}

#[test]
fn the_walk_of_the_architecture_names_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let named: Vec<&str> =
        text.split('`').filter(|part| part.starts_with("src/") || part.starts_with("tests/")).collect();
    assert!(named.len() > 20, "the walk names its files");
    for path in named {
        assert!(root.join(path).exists(), "ARCHITECTURE.md names {path}");
    }
}

#[test]
fn the_settings_file_names_every_key_and_no_other() {
    let sources = latentd::config::Sources::default();
    let config = latentd::config::Config::load(&sources).expect("the defaults are valid");
    let printed: toml::Table = config.to_toml().parse().unwrap();
    let written: toml::Table = latentd::config::DEFAULTS.parse().unwrap();
    assert_eq!(keys(&printed, ""), keys(&written, ""));
}

fn keys(table: &toml::Table, prefix: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (key, value) in table {
        match value.as_table() {
            Some(inner) => found.extend(keys(inner, &format!("{prefix}{key}."))),
            None => found.push(format!("{prefix}{key}")),
        }
    }
    found.sort();
    found
}
