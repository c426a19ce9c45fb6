//! Parses `<lora:name:0.7>` in prompts, as in A1111's web UI.

use crate::generation::LoraUse;

/// A tag, or the reason why it is invalid.
pub type LoraTag = Result<LoraUse, String>;

/// Removes every `<lora:name>` and `<lora:name:scale>` from a prompt. Returns the remaining text, spaces included, and
/// the tags in their order. A name may contain every character except `<`, `>` and `:`; an unclosed tag stays in the
/// text. A tag with two scales is refused, because text encoder and denoiser use the same scale.
pub fn lora_tags(prompt: &str) -> (String, Vec<LoraTag>) {
    const OPEN: &str = "<lora:";
    let (mut text, mut tags, mut rest) = (String::with_capacity(prompt.len()), Vec::new(), prompt);
    while let Some(at) = rest.find(OPEN) {
        let inside = &rest[at + OPEN.len()..];
        match inside.find(['<', '>']) {
            Some(end) if end > 0 && inside[end..].starts_with('>') => {
                text.push_str(&rest[..at]);
                tags.push(tag(&inside[..end]));
                rest = &inside[end + 1..];
            }
            _ => {
                text.push_str(&rest[..at + OPEN.len()]);
                rest = inside;
            }
        }
    }
    text.push_str(rest);
    (text, tags)
}

/// Parses `name` or `name:scale`.
fn tag(inside: &str) -> LoraTag {
    let refused = |detail: &str| Err(format!("must not contain <lora:{}>: {detail}", shortened(inside)));
    let (name, scale) = match inside.split_once(':') {
        None => (inside, 1.0),
        Some((_, scale)) if scale.contains(':') => return refused("a tag has one scale for all networks"),
        Some((name, scale)) => match scale.trim().parse::<f64>() {
            Ok(number) if (-LoraUse::MAX_SCALE..=LoraUse::MAX_SCALE).contains(&number) => (name, number),
            _ => return refused("the scale must be a number between -4 and 4"),
        },
    };
    match name.chars().count() {
        1..=LoraUse::MAX_NAME_CHARS => Ok(LoraUse { name: name.to_owned(), scale }),
        _ => refused("the name must have 1 to 128 characters"),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(prompt: &str) -> (String, Vec<(String, f64)>) {
        let (text, tags) = lora_tags(prompt);
        (text, tags.into_iter().map(|tag| tag.map(|tag| (tag.name, tag.scale)).unwrap()).collect())
    }

    #[test]
    fn only_tags_are_removed_from_the_text() {
        for (prompt, text, tags) in [
            ("a fox <lora:pixel art v1.5:0.7>, red", "a fox , red", vec![("pixel art v1.5", 0.7)]),
            ("<lora:a><lora:b:-4>", "", vec![("a", 1.0), ("b", -4.0)]),
            ("<lora:a:1><lora:a:.5>", "", vec![("a", 1.0), ("a", 0.5)]),
            ("<lora:a <lora:b:2>", "<lora:a ", vec![("b", 2.0)]),
            ("<lora:>, <lora:a", "<lora:>, <lora:a", vec![]),
            ("<hypernet:a:1> 1 < 2 > 0", "<hypernet:a:1> 1 < 2 > 0", vec![]),
            ("(<lora:狐:1.2>:1.3)", "(:1.3)", vec![("狐", 1.2)]),
        ] {
            let tags = tags.into_iter().map(|(name, scale)| (name.to_owned(), scale)).collect();
            assert_eq!(found(prompt), (text.to_owned(), tags), "{prompt}");
        }
    }

    #[test]
    fn malformed_tags_are_refused() {
        for inside in ["a:", "a:x", "a:5", "a:NaN", "a:inf", "a:1:1", ":1", &"x".repeat(129)] {
            let (_, tags) = lora_tags(&format!("<lora:{inside}>"));
            assert!(matches!(&tags[..], [Err(_)]), "{inside}");
        }
    }

    proptest! {
        #[test]
        fn any_prompt_is_read(prompt in "([<>:a1.\\-é]|lora|<lora:){0,24}") {
            let (text, tags) = lora_tags(&prompt);
            prop_assert!(text.len() <= prompt.len());
            prop_assert!(!tags.is_empty() || text == prompt);
        }
    }
}
