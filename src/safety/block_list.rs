//! The words and phrases that prompts must not contain.

use std::{collections::HashMap, fs, io, path::Path};

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// The largest file in bytes, and the maximum number of entries. A prompt is compared in one pass, whatever the number
/// of entries.
const LARGEST: u64 = 1 << 20;
const MOST_ENTRIES: usize = 50_000;

/// A list of words and phrases. A prompt contains an entry if the words of the entry follow one another in the prompt.
/// Case, compatible forms of characters (Unicode NFKC), spaces and punctuation make no difference.
#[derive(Debug, Default)]
pub(super) struct BlockList {
    /// For each first word, the further words of each entry that begins with it.
    entries: HashMap<String, Vec<Vec<String>>>,
    /// The lines of the file.
    lines: Vec<String>,
}

/// Why a list cannot be used. The text never quotes the list.
#[derive(Debug, thiserror::Error)]
pub enum BlockListError {
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error("the file has {0} bytes; at most {LARGEST} are allowed")]
    TooLarge(u64),
    #[error("the file is not UTF-8")]
    NotUtf8,
    #[error("the file has more than {MOST_ENTRIES} entries")]
    TooMany,
    #[error("line {0} has no letter and no digit; each line is a word or a phrase, and comments begin with #")]
    NoWord(usize),
}

impl BlockList {
    /// Reads a file with one entry per line. Empty lines, and lines that begin with `#`, are skipped.
    ///
    /// # Errors
    /// The file cannot be read, is too large, or has a line without a word.
    pub fn read(path: &Path) -> Result<BlockList, BlockListError> {
        let bytes = fs::metadata(path)?.len();
        if bytes > LARGEST {
            return Err(BlockListError::TooLarge(bytes));
        }
        BlockList::parse(&String::from_utf8(fs::read(path)?).map_err(|_| BlockListError::NotUtf8)?)
    }

    fn parse(text: &str) -> Result<BlockList, BlockListError> {
        let mut list = BlockList::default();
        let lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines().map(str::trim);
        let given = (1..).zip(lines).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        for (count, (number, line)) in given.enumerate() {
            if count >= MOST_ENTRIES {
                return Err(BlockListError::TooMany);
            }
            let mut words = words(line).into_iter();
            let first = words.next().ok_or(BlockListError::NoWord(number))?;
            list.entries.entry(first).or_default().push(words.collect());
            list.lines.push(line.to_owned());
        }
        Ok(list)
    }

    /// The words and phrases as the file has them.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Whether the text contains an entry.
    pub fn has_entry_in(&self, text: &str) -> bool {
        if self.entries.is_empty() {
            return false;
        }
        let words = words(text);
        let begins = |at: usize| {
            let mut entries = self.entries.get(&words[at]).into_iter().flatten();
            entries.any(|further| words[at + 1..].starts_with(further))
        };
        (0..words.len()).any(begins)
    }
}

/// The words of a text in the form in which they are compared.
pub(super) fn words(text: &str) -> Vec<String> {
    let plain = text.nfkc().filter(|c| !is_invisible(*c));
    // Folds the case of each letter on its own, so that the Greek ς at the end of a word equals σ. Folding can undo the
    // normal form, so the text is normalized again.
    let folded = plain.flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfkc();
    let (mut words, mut word) = (Vec::new(), String::new());
    for c in folded {
        let is_alone = is_unspaced(c);
        if is_alone || !(c.is_alphanumeric() || is_combining_mark(c)) {
            words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
        }
        if is_alone {
            words.push(c.to_string());
        } else if c.is_alphanumeric() || is_combining_mark(c) {
            word.push(c);
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

/// Characters that are not seen, which could divide a word in secret.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' |
        '\u{2060}'..='\u{2064}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}')
}

/// Letters of scripts that write words without spaces. Each of them counts as a word, so an entry is found anywhere.
fn is_unspaced(c: char) -> bool {
    matches!(c,
        '\u{e00}'..='\u{eff}' // Thai and Lao
        | '\u{1000}'..='\u{109f}' // Burmese
        | '\u{1780}'..='\u{17ff}' // Khmer
        | '\u{3005}'..='\u{3007}' | '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' // Japanese
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(text: &str) -> BlockList {
        BlockList::parse(text).unwrap()
    }

    #[test]
    fn a_word_is_found_whatever_its_case_and_form() {
        let list = list("# words\n\nFoul\ntwo Words\nstraße\n猫\n");
        for prompt in [
            "a foul picture",
            "FOUL",
            "(foul:1.3), best",
            "a fo\u{200b}ul one",
            "ｆｏｕｌ",
            "𝐟𝐨𝐮𝐥",
            "two\n words",
            "TWO, words!",
            "two_words",
            "eine STRASSE",
            "黒い猫です",
        ] {
            assert!(list.has_entry_in(prompt), "{prompt}");
        }
        for prompt in ["", "a fowl", "foulard", "befoul", "two big words", "words two", "two", "strasbourg", "犬"] {
            assert!(!list.has_entry_in(prompt), "{prompt}");
        }
    }

    #[test]
    fn a_list_that_cannot_be_used_is_refused_without_a_quotation() {
        let refused = |text: &str| BlockList::parse(text).unwrap_err().to_string();
        assert!(refused("ok\n\n***").starts_with("line 3 "));
        assert!(refused(&"x\n".repeat(MOST_ENTRIES + 1)).contains("more than 50000"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        fs::write(&path, b"caf\xe9").unwrap();
        assert!(BlockList::read(&path).unwrap_err().to_string().contains("UTF-8"));
        fs::write(&path, vec![b'x'; LARGEST as usize + 1]).unwrap();
        assert!(matches!(BlockList::read(&path), Err(BlockListError::TooLarge(_))));
        assert!(BlockList::read(&folder.path().join("none")).is_err());
        assert!(!BlockList::default().has_entry_in("anything"));
    }

    proptest! {
        /// A phrase is found between other words, and not inside of a longer word.
        #[test]
        fn phrases_are_found_at_word_boundaries(phrase in "[a-z]{2,6}( [a-z]{2,6}){0,2}", before in "[0-9 ,.]{0,9}") {
            let list = list(&phrase);
            let shouted = phrase.to_uppercase();
            let (apart, inside) = (format!("{before} {shouted} 7"), format!("{before}7{phrase}7"));
            prop_assert!(list.has_entry_in(&apart), "{}", apart);
            prop_assert!(!list.has_entry_in(&inside), "{}", inside);
        }

        #[test]
        fn no_text_panics(entry in "\\PC{0,20}", text in "\\PC{0,60}") {
            if let Ok(list) = BlockList::parse(&entry) {
                list.has_entry_in(&text);
                // An entry is found in itself.
                let is_comment = entry.trim().starts_with('#') || entry.trim().is_empty();
                prop_assert!(is_comment || list.has_entry_in(&entry));
            }
        }
    }
}
