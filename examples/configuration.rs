//! Generates the reference of all settings from `config/latentd.toml`: `cargo run --example configuration` writes
//! `docs/configuration.md`.

#[allow(dead_code, reason = "a test makes the page without writing it")]
fn main() -> std::io::Result<()> {
    std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md"), page())
}

const HEAD: &str = "\
# Configuration

After reading this page you can set everything that latentd lets you set. This page is generated from
[config/latentd.toml](../config/latentd.toml), the file of the defaults.

## Where settings come from

Later sources override earlier ones:

1. the defaults below;
2. a TOML file: `latentd serve --config FILE`, or the environment variable `LATENTD_CONFIG`;
3. environment variables: `LATENTD_`, then the setting in capitals, with `__` between its parts. `http.bind` is
   `LATENTD_HTTP__BIND`. List items are separated by commas;
4. command-line flags.

Unknown settings are errors. `latentd config check` reports errors, and `latentd config print` prints the effective
settings without secrets.
";

/// One comment of the file and the settings that it describes.
#[derive(Default)]
struct Entry {
    /// Lines of the comment.
    meaning: Vec<String>,
    /// Names and defaults.
    settings: Vec<(String, String)>,
}

/// The whole page as Markdown.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for (section, entries) in sections(include_str!("../config/latentd.toml")) {
        let title = if section.is_empty() { "General" } else { section.as_str() };
        page.push_str(&format!("\n## {title}\n\n| setting | default | meaning |\n|---|---|---|\n"));
        for Entry { meaning, settings } in entries {
            let name = |key: &str| if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
            let names: Vec<String> = settings.iter().map(|(key, _)| format!("`{}`", name(key))).collect();
            let defaults: Vec<String> = settings.iter().map(|(_, default)| format!("`{default}`")).collect();
            let meaning = meaning.join(" ").replace("*.", "\\*.").replace(" * ", " \\* ");
            let row = [names.join(", "), defaults.join(", "), meaning];
            page.push_str(&format!("| {} |\n", row.map(|cell| cell.replace('|', "\\|")).join(" | ")));
        }
    }
    page
}

/// The sections of the file in order: (name, entries). Lines before the first empty line describe the file and are
/// skipped.
fn sections(file: &str) -> Vec<(String, Vec<Entry>)> {
    let mut sections = vec![(String::new(), Vec::new())];
    let (_, settings) = file.split_once("\n\n").expect("the file begins with a paragraph about itself");
    let mut entry = Entry::default();
    let close = |entry: &mut Entry, sections: &mut Vec<(String, Vec<Entry>)>| {
        let entry = std::mem::take(entry);
        if let (false, Some((_, entries))) = (entry.settings.is_empty(), sections.last_mut()) {
            entries.push(entry);
        }
    };
    for line in settings.lines() {
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            close(&mut entry, &mut sections);
            sections.push((section.to_owned(), Vec::new()));
        } else if let Some(text) = line.strip_prefix("# ") {
            if !entry.settings.is_empty() {
                close(&mut entry, &mut sections);
            }
            entry.meaning.push(if text.starts_with("printf") { format!("`{text}`") } else { text.to_owned() });
        } else if let Some((key, default)) = line.split_once(" = ") {
            entry.settings.push((key.to_owned(), default.to_owned()));
        }
    }
    close(&mut entry, &mut sections);
    sections
}
