//! Checks the rules of `src/lib.rs` about imports and layers, and bounds on the sizes of files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The rooms from the lowest layer to the highest. A room may use rooms of its own row and of the rows before it.
const LAYERS: [&[&str]; 9] = [
    &["generation", "config", "crash", "executable", "hex", "jitter", "metrics", "telemetry", "transient"],
    &["diffusion", "device", "models", "weights", "kernels", "imaging", "audio", "provenance", "watermark"],
    &["pipelines"],
    &["families"],
    &["catalogue"],
    &["ledger", "engine", "safety"],
    &["service", "worker", "webhooks"],
    &["http"],
    &["app", "cli", "main", "lib"],
];

/// The rooms that use no runtime, clock or environment.
const PURE: [&str; 11] = [
    "diffusion",
    "device",
    "models",
    "weights",
    "kernels",
    "imaging",
    "audio",
    "watermark",
    "pipelines",
    "families",
    "catalogue",
];

#[derive(Clone)]
struct Source {
    room: String,
    path: PathBuf,
    /// The code without comments and tests. Tests are everything after the first `#[cfg(test)]` module, and files that
    /// are named `tests.rs` or lie in a folder `tests`.
    code: String,
    lines: usize,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The crate `pixels` contains the room `watermark` and a part of `imaging`.
    let room = |module: &str| if module == "watermark" { "watermark" } else { "imaging" };
    let found = [
        sources_in(&root.join("src")),
        member(&root.join("kernels/src"), "kernels", |_| "kernels"),
        member(&root.join("pixels/src"), "pixels", room),
    ]
    .concat();
    assert!(found.len() > 50, "fewer than 51 source files are found");
    found
}

/// The files of another crate of the workspace, as if they were the module `name` of the main crate. `room` gives the
/// room of a module of that crate.
fn member(root: &Path, name: &str, room: fn(&str) -> &'static str) -> Vec<Source> {
    let mut found = sources_in(root);
    for source in &mut found {
        source.room = room(&source.room).to_owned();
        source.code = source.code.replace("crate::", &format!("crate::{name}::"));
        let is_root = source.path == Path::new("lib.rs");
        source.path = if is_root { format!("{name}.rs").into() } else { Path::new(name).join(&source.path) };
    }
    found
}

fn sources_in(root: &Path) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let inner = path.strip_prefix(root).unwrap();
            let first = inner.components().next().unwrap().as_os_str().to_str().unwrap();
            let room = first.trim_end_matches(".rs").to_owned();
            let is_test = inner.ends_with("tests.rs") || inner.components().any(|part| part.as_os_str() == "tests");
            let product = if is_test { "" } else { text.split("#[cfg(test)]\nmod ").next().unwrap() };
            let code =
                product.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
            found.push(Source { room, path: inner.to_owned(), code, lines: text.lines().count() });
        }
    }
    found
}

fn layer(room: &str) -> usize {
    LAYERS.iter().position(|rooms| rooms.contains(&room)).unwrap_or_else(|| panic!("{room} is in no layer"))
}

/// The rooms that the code names, as `crate::room` (`latentd::room` in the binary) or in `use crate::{room, …}`.
fn rooms_named(code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for root in ["crate::", "latentd::"] {
        for (at, _) in code.match_indices(root) {
            let rest = &code[at + root.len()..];
            match rest.strip_prefix('{') {
                Some(list) => rooms.extend(first_words(list)),
                None => rooms.push(word(rest)),
            }
        }
    }
    rooms.retain(|room| LAYERS.iter().any(|layer| layer.contains(&room.as_str())));
    rooms
}

/// The first word of each member of a list that ends with `}`.
fn first_words(list: &str) -> Vec<String> {
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
            assert!(layer(&room) <= layer(&source.room), "{} uses the higher room {room}", source.path.display());
        }
    }
}

#[test]
fn rooms_named_finds_every_room() {
    let code = "use crate::{\n engine::{Cancel, Reason},\n generation::Phase,\n};\nlet x = crate::http::serve();";
    assert_eq!(rooms_named(code), ["engine", "generation", "http"]);
}

#[test]
fn pure_rooms_use_no_runtime_clock_or_environment() {
    for source in sources().iter().filter(|source| PURE.contains(&source.room.as_str())) {
        for word in ["tokio", "axum", "sqlx", "std::env", "env::var", "SystemTime", "Instant", "OffsetDateTime"] {
            assert!(!source.code.contains(word), "{} uses {word}", source.path.display());
        }
    }
}

#[test]
fn http_does_not_use_candle() {
    for source in sources().iter().filter(|source| source.room == "http") {
        assert!(!source.code.contains("candle"), "{}", source.path.display());
    }
}

/// A server that a test starts inherits the variables of the test, and must not refuse them as misspelled settings.
#[test]
fn the_settings_know_the_variables_of_the_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let known = fs::read_to_string(root.join("src/config/environment.rs")).unwrap();
    let mut folders = vec![root.join("tests")];
    let mut read = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                for call in ["env::var(\"", "env::var_os(\""] {
                    let names = text.split(call).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
                    read.extend(names.filter(|name| name.starts_with("LATENTD_")));
                }
            }
        }
    }
    assert!(read.len() > 5, "fewer than 6 variables are found: {read:?}");
    for name in read {
        assert!(known.contains(&format!("\"{name}\"")), "src/config/environment.rs does not know {name}");
    }
}

#[test]
fn only_the_device_room_chooses_where_tensors_go() {
    // Only tests use the random tensors.
    let is_excepted = |source: &&Source| source.room == "device" || source.path == Path::new("kernels/random.rs");
    for source in sources().iter().filter(|source| !is_excepted(source)) {
        for word in ["Device::Cpu", "Device::new_cuda", "Device::new_metal"] {
            assert!(!source.code.contains(word), "{} chooses {word}", source.path.display());
        }
    }
}

/// `new_cuda` would create a stream for each thread, so that the GPU would not keep the order of the threads' work.
#[test]
fn a_gpu_has_one_stream() {
    for source in sources() {
        assert!(!source.code.contains("new_cuda("), "{} opens a GPU with many streams", source.path.display());
    }
}

#[test]
fn rooms_above_the_pipelines_do_not_use_pixels() {
    for source in sources().iter().filter(|source| layer(&source.room) > layer("pipelines")) {
        for word in ["RgbImage", "GreyImage", "Pixels<"] {
            assert!(!source.code.contains(word), "{} sees {word}", source.path.display());
        }
    }
}

/// Words that only name families of models. `refiner` is not among them, because a request has a field of this name,
/// and neither are names that a family shares with a scheduler.
const FAMILY_WORDS: [&str; 7] =
    ["StableDiffusion", "stable_diffusion", "Stable Diffusion", "LatentConsistency", "sdxl", "Sdxl", "SDXL"];

/// The rooms that may name families.
const FAMILY_ROOMS: [&str; 2] = ["families", "models"];

#[test]
fn only_the_families_and_their_networks_name_a_family() {
    let classes = latentd::families::classes();
    let words: Vec<&str> = FAMILY_WORDS.into_iter().chain(classes).collect();
    for source in sources().iter().filter(|source| !FAMILY_ROOMS.contains(&source.room.as_str())) {
        for word in &words {
            assert!(!source.code.contains(word), "{} names {word}", source.path.display());
        }
    }
}

/// Families with the same name as a scheduler.
const SCHEDULERS_TOO: [&str; 4] = ["Ddpm", "Consistency", "ScoreSdeVe", "ScoreSdeVp"];

/// ARCHITECTURE.md promises that a new family is named only in its own file (or a folder of its name), in the table of
/// families, and in `models`.
#[test]
fn a_family_is_named_by_its_own_file_and_by_the_table() {
    let sources = sources();
    for family in latentd::families::FAMILIES {
        let own = format!("families/{}", family.name());
        let kind: String = family.name().split('_').map(capitalized).collect();
        let is_word = |code: &str| code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == kind);
        let naming = sources.iter().filter(|source| is_word(&source.code));
        let naming: BTreeSet<String> = naming.map(|source| source.path.display().to_string()).collect();
        assert!(naming.contains("families.rs") && naming.contains(&format!("{own}.rs")), "{kind}: {naming:?}");
        // Files of `diffusion` name the scheduler of the same name.
        let is_scheduler = |path: &str| SCHEDULERS_TOO.contains(&kind.as_str()) && path.starts_with("diffusion/");
        let others = |path: &&String| {
            *path != "families.rs" && !path.starts_with(&own) && !path.starts_with("models") && !is_scheduler(path)
        };
        assert_eq!(naming.iter().filter(others).collect::<Vec<_>>(), Vec::<&String>::new(), "{kind}");
    }
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

/// Files that may name the class of a scheduler without being the file of its sampler.
const SCHEDULER_EXCEPTIONS: [&str; 2] = [
    // Single-file checkpoints have no scheduler configuration, so their family names the scheduler of the published
    // model. In other families, the scheduler that the model was trained with determines the meaning of the network's
    // outputs.
    "families/",
    // Some samplers of AUTOMATIC1111's web interface are a scheduler class with certain keys, and have no name of
    // latentd's own.
    "diffusion/labelled_sampler.rs",
];

/// ARCHITECTURE.md promises that a new sampler needs only its own file and a row in the table of samplers.
#[test]
fn a_sampler_is_named_by_its_own_file_and_by_the_table() {
    let sources = sources();
    let code = |path: &str| &sources.iter().find(|source| source.path == Path::new(path)).unwrap().code;
    let samplers = sources.iter().filter(|source| source.path.starts_with("diffusion/samplers"));
    let mut classes = BTreeSet::new();
    for sampler in samplers.filter(|sampler| sampler.code.contains("static CLASS: Class")) {
        let path = sampler.path.display().to_string();
        let class = sampler.code.split_once("Class::new(\"").and_then(|(_, rest)| rest.split('"').next()).unwrap();
        assert!(class.ends_with("Scheduler") && classes.insert(class.to_owned()), "{path}: {class}");
        let file = sampler.path.file_stem().unwrap().to_str().unwrap();
        let table = code("diffusion/samplers.rs").split_once("samplers![").unwrap().1;
        let row = table.split(['\n', ',']).find_map(|row| row.trim().strip_prefix(file)?.strip_prefix("::"));
        let options = row.unwrap_or_else(|| panic!("the table has no {file}"));
        let is_word = |code: &str, word: &str| code.split(|c: char| !c.is_alphanumeric()).any(|part| part == word);
        for other in sources.iter().filter(|other| other.path != sampler.path) {
            let at = other.path.display().to_string();
            let is_excepted = SCHEDULER_EXCEPTIONS.iter().any(|excepted| at.starts_with(excepted));
            assert!(is_excepted || !is_word(&other.code, class), "{at} names {class}");
            let is_table = at == "diffusion/samplers.rs" || !at.starts_with("diffusion");
            // String literals are left out, because names of other programs contain these words.
            let code: String = other.code.split('"').step_by(2).collect();
            assert!(is_table || !is_word(&code, options), "{at} names {options} of {path}");
        }
    }
    assert!(classes.len() >= 25, "only these classes are found: {classes:?}");
}

/// Fourteen of the files make or read pictures. One file (`src/imaging/clip.rs`) gives the frames of a film to its
/// encoders. The encoders in `pixels/src/clip` read only frames, so they do not count.
#[test]
fn at_most_fifteen_files_besides_the_encoders_of_clips_use_rgb_images() {
    let is_encoder = |source: &&Source| source.path.to_string_lossy().starts_with("pixels/clip");
    let sources = sources();
    let seeing: Vec<&Source> =
        sources.iter().filter(|source| source.code.contains("RgbImage") && !is_encoder(source)).collect();
    assert!(seeing.len() <= 15, "{:?} name RgbImage", seeing.iter().map(|source| &source.path).collect::<Vec<_>>());
}

#[test]
fn no_files_use_each_other_except_parents_and_children() {
    let sources = sources();
    let modules: BTreeMap<Vec<String>, &Source> = sources.iter().map(|source| (module(&source.path), source)).collect();
    let mut uses: BTreeMap<&Vec<String>, BTreeSet<&Vec<String>>> = BTreeMap::new();
    for (from, source) in &modules {
        for path in paths_of(&source.code) {
            let Some((to, _)) = target(from, &path).and_then(|to| modules.get_key_value(&to[..longest(&modules, &to)]))
            else {
                continue;
            };
            if !from.starts_with(to) && !to.starts_with(from) {
                uses.entry(from).or_default().insert(to);
            }
        }
    }
    assert!(uses.values().map(BTreeSet::len).sum::<usize>() > 500, "at most 500 uses are found");
    // Repeatedly removes files that use no remaining file. The files that remain are in a cycle or lead to one.
    let mut left = uses.clone();
    loop {
        let before = left.len();
        let ends: BTreeSet<&Vec<String>> = left.keys().copied().collect();
        left.values_mut().for_each(|to| to.retain(|to| ends.contains(to)));
        left.retain(|_, to| !to.is_empty());
        if left.len() == before {
            break;
        }
    }
    let circles: Vec<String> = left.iter().map(|(from, to)| format!("{} -> {to:?}", from.join("::"))).collect();
    assert!(circles.is_empty(), "files that use each other:\n{}", circles.join("\n"));
}

/// The module path of a file; empty for the root of the crate.
fn module(path: &Path) -> Vec<String> {
    let parts =
        path.with_extension("").components().map(|part| part.as_os_str().to_str().unwrap().to_owned()).collect();
    if path == Path::new("lib.rs") { Vec::new() } else { parts }
}

/// The number of leading words of `path` that name a module of the crate.
fn longest(modules: &BTreeMap<Vec<String>, &Source>, path: &[String]) -> usize {
    (0..=path.len()).rev().find(|length| modules.contains_key(&path[..*length])).unwrap_or(0)
}

/// The absolute path of a path in module `from` that begins with `crate`, `self` or `super`.
fn target(from: &[String], path: &str) -> Option<Vec<String>> {
    let mut words = path.split("::").map(str::to_owned).peekable();
    let mut at = match words.next()?.as_str() {
        "crate" => Vec::new(),
        "self" => from.to_vec(),
        _ => from[..from.len().checked_sub(1)?].to_vec(),
    };
    while words.next_if(|word| word == "super").is_some() {
        at.pop();
    }
    at.extend(words);
    Some(at)
}

/// All paths in the code that begin with `crate`, `self` or `super`. A list in `use` yields one path for each name.
fn paths_of(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(root) {
            let is_begun = code[..at].ends_with(|before: char| before.is_alphanumeric() || matches!(before, '_' | ':'));
            if !is_begun {
                names(&code[at..], "", &mut found);
            }
        }
    }
    found
}

/// Appends the paths of a tree such as `a::{b, c::{d, e}}`, each after `prefix`, and returns the code after the tree.
fn names<'a>(tree: &'a str, prefix: &str, found: &mut Vec<String>) -> &'a str {
    let tree = tree.trim_start();
    let end = tree.find(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | ':' | '*')).unwrap_or(tree.len());
    let path = format!("{prefix}{}", &tree[..end]);
    let Some(mut rest) = tree[end..].strip_prefix('{') else {
        found.push(path.trim_end_matches(':').to_owned());
        return &tree[end..];
    };
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('}') {
            return after;
        }
        if rest.is_empty() {
            return rest;
        }
        rest = names(rest, &path, found);
        let stop = rest.find([',', '}']).unwrap_or(rest.len());
        rest = rest[stop..].trim_start_matches(',');
    }
}

#[test]
fn paths_of_finds_every_path_of_a_use_tree() {
    let code = "use crate::{\n engine::{Cancel, self as e},\n generation::Phase,\n};\nlet x = super::super::a::b();";
    assert_eq!(
        paths_of(code),
        ["crate::engine::Cancel", "crate::engine::self", "crate::generation::Phase", "super::super::a::b"]
    );
    let from = ["pipelines", "calls"].map(str::to_owned);
    assert_eq!(target(&from, "super::super::a").unwrap(), ["a"]);
    assert_eq!(target(&from, "self::b").unwrap(), ["pipelines", "calls", "b"]);
}

#[test]
fn only_http_error_rs_chooses_error_statuses() {
    let errors =
        ["BAD_REQUEST", "NOT_FOUND", "UNPROCESSABLE", "CONFLICT", "INTERNAL_SERVER", "SERVICE_UNAVAILABLE", "TOO_MANY"];
    for source in sources().iter().filter(|source| source.path != Path::new("http/error.rs")) {
        for status in errors {
            let word = format!("StatusCode::{status}");
            assert!(!source.code.contains(&word), "{} chooses {word}", source.path.display());
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
fn only_the_app_and_the_command_line_spawn_threads_and_tasks() {
    for source in sources().iter().filter(|source| !["app", "cli"].contains(&source.room.as_str())) {
        for word in ["tokio::spawn", "thread::spawn", "thread::Builder"] {
            assert!(!source.code.contains(word), "{} spawns", source.path.display());
        }
    }
}

#[test]
fn no_code_unwraps_or_has_a_todo() {
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

/// The ledger includes both databases and the storage of files (blobs). The bound is close to the present size. So
/// whoever adds code to the ledger first looks for code that it no longer needs.
#[test]
fn the_ledger_is_small() {
    let lines: usize = sources().iter().filter(|source| source.room == "ledger").map(|source| source.lines).sum();
    assert!((1000..=4295).contains(&lines), "the ledger has {lines} lines");
}

/// The fuzzer compiles only the room `weights`, so its manifest must list that room's dependencies in the same
/// versions.
#[test]
fn the_fuzzer_has_the_dependencies_of_the_weights_room() {
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
    // Lists of modules of the standard library name no crates.
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
    assert!(used > 5, "only {used} dependencies are found");
    for name in fuzzer["dependencies"].as_table().unwrap().keys() {
        let is_locked = |of: &toml::Value| of.as_str().is_some_and(|of| of.split(' ').next() == Some(name));
        assert!(locked.iter().any(is_locked), "fuzz/Cargo.lock has no {name}; run cargo update --workspace in fuzz/");
    }
}

/// Every user downloads the fixtures together with the repository.
#[test]
fn the_fixtures_have_at_most_ten_megabytes() {
    let mut sizes = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            // `DirEntry::metadata` does not follow symbolic links.
            let metadata = entry.metadata().unwrap();
            match metadata.is_dir() {
                true => folders.push(entry.path()),
                false => sizes.push((metadata.len(), entry.path())),
            }
        }
    }
    sizes.sort_unstable();
    let bytes: u64 = sizes.iter().map(|(bytes, _)| bytes).sum();
    let largest: Vec<_> = sizes.iter().rev().take(5).collect();
    assert!(sizes.len() > 200, "fewer than 201 fixtures are found");
    assert!(bytes <= 10_000_000, "{bytes} bytes; the largest are {largest:?}");
}

#[test]
fn every_file_that_architecture_md_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let named: Vec<&str> =
        text.split('`').filter(|part| part.starts_with("src/") || part.starts_with("tests/")).collect();
    assert!(named.len() > 20, "only {} files are named", named.len());
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
