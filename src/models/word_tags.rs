//! Finds tags in prompts: `<name>`, the form of the words of textual inversions.

use std::{ops::Range, sync::LazyLock};

use tokenizers::{
    NormalizedString, Result,
    normalizers::{Lowercase, NFC, Replace, Sequence, replace::ReplacePattern},
    tokenizer::{Normalizer, normalizer},
};

/// A `<name>` in a prompt. The name has neither `<` nor `>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WordTag<'a> {
    /// The range of bytes of the prompt that the tag takes.
    pub place: Range<usize>,
    /// The tag as the prompt spells it, with its brackets.
    pub spelled: &'a str,
    /// The tag in the form in which CLIP's tokenizer compares tags: see [`folded`].
    pub folded: String,
}

/// All tags of a prompt, in order. The time is linear in the length of the prompt.
pub fn word_tags(prompt: &str) -> Vec<WordTag<'_>> {
    let mut text = NormalizedString::from(prompt);
    // A prompt that cannot be normalized has no tags, but its text is still encoded.
    if !prompt.contains('<') || normalize(&mut text).is_err() {
        return Vec::new();
    }
    let mut tags = Vec::new();
    let mut from = 0;
    while let Some(start) = text.get()[from..].find('<').map(|at| from + at) {
        let inside = start + 1;
        from = inside;
        let Some(length) = text.get()[inside..].find(['<', '>']) else { break };
        let end = inside + length;
        if !text.get()[end..].starts_with('>') {
            continue;
        }
        from = end + 1;
        let place = text.convert_offsets(normalizer::Range::Normalized(start..from));
        let spelled = place.and_then(|place| Some((place.clone(), prompt.get(place)?)));
        if let Some((place, spelled)) = spelled {
            tags.push(WordTag { place, spelled, folded: text.get()[start..from].to_owned() });
        }
    }
    tags
}

/// A text in the form in which CLIP's tokenizer compares added tokens: composed (NFC), one space for each sequence of
/// white space, in lower case.
pub fn folded(text: &str) -> String {
    let mut normalized = NormalizedString::from(text);
    match normalize(&mut normalized) {
        Ok(()) => normalized.get().to_owned(),
        Err(_) => text.to_lowercase(),
    }
}

/// How CLIP's tokenizer changes a text before it looks for tokens.
pub(super) fn normalizer() -> Result<Sequence> {
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ")?;
    Ok(Sequence::new(vec![NFC.into(), spaces.into(), Lowercase.into()]))
}

fn normalize(text: &mut NormalizedString) -> Result<()> {
    static NORMALIZER: LazyLock<Option<Sequence>> = LazyLock::new(|| normalizer().ok());
    NORMALIZER.as_ref().map_or(Ok(()), |normalizer| normalizer.normalize(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(prompt: &str) -> Vec<(&str, String)> {
        word_tags(prompt).into_iter().map(|tag| (tag.spelled, tag.folded)).collect()
    }

    #[test]
    fn tags_are_found_as_they_are_spelled_and_compared_in_lower_case() {
        let pair = |spelled: &'static str, folded: &str| (spelled, folded.to_owned());
        assert_eq!(found("a <My-Cat>, <b><c>"), [pair("<My-Cat>", "<my-cat>"), pair("<b>", "<b>"), pair("<c>", "<c>")]);
        assert_eq!(found("1 < 2 > 0"), [pair("< 2 >", "< 2 >")]);
        assert_eq!(found("<a <b>>"), [pair("<b>", "<b>")]);
        assert_eq!(found("a\n\n<pixel \t Art>"), [pair("<pixel \t Art>", "<pixel art>")]);
        // An é of two code points, as in file names of some systems, equals an é of one code point.
        assert_eq!(found("É <caf\u{65}\u{301}>"), [pair("<caf\u{65}\u{301}>", "<caf\u{e9}>")]);
        assert_eq!(folded("<CAF\u{c9}>"), "<caf\u{e9}>");
        assert_eq!(found("no tag, <none"), []);
    }

    proptest! {
        #[test]
        fn a_tag_is_where_it_says(prompt in "([<>aB \n\u{301}\u{130}ßé狐]){0,24}") {
            let mut end = 0;
            for tag in word_tags(&prompt) {
                prop_assert!(end <= tag.place.start);
                end = tag.place.end;
                prop_assert_eq!(&prompt[tag.place.clone()], tag.spelled);
                prop_assert_eq!(folded(tag.spelled), tag.folded);
            }
        }
    }
}
