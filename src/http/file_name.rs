//! `Content-Disposition` of files: the names under which browsers and `curl -OJ` save them.

use axum::http::{HeaderName, HeaderValue, header};

use crate::generation::{Artifact, Job, MetadataLevel, Record};

/// Maximum number of characters of the prompt in a name.
const MOST_CHARS: usize = 60;

/// The header of a file: `inline`, so that browsers show or play it, with a name such as `a-red-fox-7.png`.
pub fn disposition(record: &Record, artifact: &Artifact) -> [(HeaderName, HeaderValue); 1] {
    let seed = artifact.facts.seed();
    let extension = artifact.extension().map(|extension| format!(".{extension}")).unwrap_or_default();
    let name = format!("{}-{seed}{extension}", stem(&record.job, || record.id.to_string()));
    let ascii: String = name.chars().map(|c| if c.is_ascii() { c } else { '_' }).collect();
    let mut value = format!("inline; filename=\"{ascii}\"");
    if ascii != name {
        // RFC 6266 and RFC 8187.
        value += &format!("; filename*=UTF-8''{}", super::url::encode(&name));
    }
    let value = HeaderValue::try_from(value).unwrap_or_else(|_| HeaderValue::from_static("inline"));
    [(header::CONTENT_DISPOSITION, value)]
}

/// The beginning of a file's name: the words of the prompt (`picture`, `sound` or `film` if it has none), or the id if
/// the file must not contain the prompt.
fn stem(job: &Job, id: impl FnOnce() -> String) -> String {
    match job.output.metadata_level {
        MetadataLevel::Full => {
            let words = words(job.work.prompt());
            if words.is_empty() { job.work.kind().noun().to_owned() } else { words }
        }
        MetadataLevel::Seed | MetadataLevel::None => id(),
    }
}

/// The letters and digits of a text. A hyphen replaces all other characters between two words.
fn words(text: &str) -> String {
    let mut words = String::new();
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let chars = words.chars().count();
        if chars > 0 && chars + 1 + word.chars().count() > MOST_CHARS {
            break;
        }
        if chars > 0 {
            words.push('-');
        }
        words.extend(word.chars().take(MOST_CHARS));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_only_letters_digits_and_hyphens_and_end_at_a_word() {
        for (text, expected) in [
            ("a red fox", "a-red-fox"),
            ("  a (red:1.3) fox, \"quoted\"; ../../etc/passwd\r\nX: y ", "a-red-1-3-fox-quoted-etc-passwd-X-y"),
            ("ein Bär 🦊 狐", "ein-Bär-狐"),
            ("…!?", ""),
            ("", ""),
        ] {
            assert_eq!(words(text), expected, "{text:?}");
        }
        assert_eq!(words(&"fox ".repeat(100)), vec!["fox"; 15].join("-"));
        assert_eq!(words(&"狐".repeat(100)).chars().count(), MOST_CHARS);
    }
}
