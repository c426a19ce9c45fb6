//! `--set FIELD=VALUE`: the fields of a request that have no flag of their own, as in a form.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use latentd::generation::Fields;
use serde_json::Value;

/// A field with its value: a text, a number, or JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Set {
    name: String,
    value: String,
}

impl Set {
    /// The value, if this is the field of that name.
    pub fn value_of(&self, name: &str) -> Option<&str> {
        (self.name == name).then_some(self.value.as_str())
    }
}

/// Fields that cannot be set with `--set`, each with the end of the error's sentence.
const OTHERS: [(&str, &str); 13] = [
    ("prompt", "; write the prompt before the flags"),
    ("n", "; use -n"),
    ("image", "; use --image FILE"),
    ("mask", "; use --mask FILE"),
    ("output.format", "; use --format, or the extension of --output"),
    ("output.quality", "; use --quality"),
    ("previews", ", because only a server sends previews"),
    ("on_disconnect", ", because only a server has clients that disconnect"),
    ("priority", ", because only a server has a queue"),
    ("start_timeout_s", ", because only a server has a queue"),
    ("run_timeout_s", ", because only a server limits the time of a generation"),
    ("webhook", ", because only a server sends webhook messages"),
    ("metadata", ", because only a server stores it"),
];

/// Parses the text of a flag.
pub(super) fn parsed(text: &str) -> Result<Set, String> {
    let (name, value) = text.split_once('=').ok_or("it must be FIELD=VALUE, such as steps=4")?;
    let name = name.trim();
    let is_of =
        |other: &str| name == other || name.strip_prefix(other).is_some_and(|rest| rest.starts_with(['.', '[']));
    match OTHERS.iter().find(|(other, _)| is_of(other)) {
        Some((_, rest)) => Err(format!("{name} cannot be set with --set{rest}")),
        None if name == "output" => Err("output needs one of its keys, such as output.metadata=none".to_owned()),
        None if name.is_empty() => Err("the name of the field is missing before =".to_owned()),
        None => Ok(Set { name: name.to_owned(), value: value.to_owned() }),
    }
}

/// All fields of a request. `flags` contains the prompt and the values of all flags except `--set`; `set` contains the
/// values of `--set`. In the field `controls`, a picture is given as the name of a file, such as
/// `{"file": "edges.png"}`. This function reads these files.
///
/// # Errors
/// A file cannot be read.
pub(super) fn fields(flags: impl Iterator<Item = (String, String)>, set: &[Set]) -> Result<Fields> {
    let mut files = Vec::new();
    for path in set.iter().filter(|set| set.name == "controls").flat_map(|set| files_in(&set.value)) {
        if Path::new(&path).is_dir() {
            bail!("controls: cannot read {path}: it is a folder");
        }
        let file = fs::read(&path).with_context(|| format!("controls: cannot read {path}"))?;
        files.push((path, Bytes::from(file)));
    }
    let set = set.iter().map(|Set { name, value }| (name.clone(), value.clone()));
    Ok(Fields::from_multipart(flags.chain(set), files))
}

/// The names of files in `controls`, each once.
fn files_in(controls: &str) -> Vec<String> {
    let Ok(Value::Array(controls)) = serde_json::from_str(controls) else { return Vec::new() };
    let mut files: Vec<String> = Vec::new();
    for file in controls.iter().filter_map(|control| control.pointer("/image/file")?.as_str()) {
        if files.iter().all(|known| known != file) {
            files.push(file.to_owned());
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_and_its_value_are_parted_at_the_first_sign() {
        let set = |name: &str, value: &str| Ok(Set { name: name.to_owned(), value: value.to_owned() });
        assert_eq!(parsed("steps=4"), set("steps", "4"));
        assert_eq!(parsed(r#"scheduler={"_class_name": "a=b"}"#), set("scheduler", r#"{"_class_name": "a=b"}"#));
        assert_eq!(parsed("output.metadata=none"), set("output.metadata", "none"));
        for (text, part) in [
            ("steps", "FIELD=VALUE"),
            ("=4", "missing"),
            ("n=2", "-n"),
            ("image=a.png", "--image"),
            ("webhook.url=https://a.example", "server"),
            ("metadata[a]=b", "server"),
            ("output={}", "output.metadata"),
            ("output.format=png", "extension"),
        ] {
            assert!(parsed(text).unwrap_err().contains(part), "{text}");
        }
    }

    #[test]
    fn files_of_controls_are_named_once() {
        let controls = r#"[{"image": {"file": "a.png"}}, {"image": {"file": "a.png"}}, {"image": {"b64": ""}}, 1]"#;
        assert_eq!(files_in(controls), ["a.png"]);
        assert_eq!(files_in("canny"), [""; 0]);
    }
}
