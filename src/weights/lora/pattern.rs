//! Patterns of module names, as in PEFT's `rank_pattern` and `alpha_pattern`.

use std::fmt;

use regex::bytes::{RegexSet, RegexSetBuilder};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

/// The largest number of keys of one table.
const MOST_KEYS: usize = 10_000;

/// The largest total length of a table's regular expressions, in bytes.
const LONGEST: usize = 1 << 14;

/// The largest memory of a table's compiled expressions, in bytes. It bounds the time of a match, which is linear in
/// this memory and in the length of the name.
const MOST_COMPILED: usize = 1 << 20;

/// Patterns with a number each. The first pattern that matches counts.
///
/// PEFT treats each KEY as a regular expression, `re.match("(.*\.)?(KEY)$", name)` (`get_pattern_key` in PEFT 0.21).
/// Most keys are plain names of modules, in which a dot matches any character.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    entries: Vec<(Pattern, f64)>,
    expressions: Option<RegexSet>,
}

#[derive(Debug)]
enum Pattern {
    Name(String),
    /// The index among `expressions`.
    Expression(usize),
}

impl Patterns {
    /// Compiles the keys of a table.
    ///
    /// # Errors
    /// A key is not a regular expression that can be matched in linear time (look-around and back-references cannot),
    /// or the expressions are too many or too large.
    pub fn compile(table: Table) -> Result<Patterns, String> {
        if table.0.len() > MOST_KEYS {
            return Err(format!("{} keys are more than {MOST_KEYS}", table.0.len()));
        }
        let mut sources: Vec<String> = Vec::new();
        let mut entries = Vec::with_capacity(table.0.len());
        for (key, number) in table.0 {
            if is_name(&key) {
                entries.push((Pattern::Name(key), number));
                continue;
            }
            // The key is compiled alone first, so that none of its parentheses closes the group around it.
            compile(std::slice::from_ref(&key))?;
            entries.push((Pattern::Expression(sources.len()), number));
            sources.push(format!(r"^(?:.*\.)?(?:{key})$"));
        }
        let length: usize = sources.iter().map(String::len).sum();
        if length > LONGEST {
            return Err(format!("regular expressions of {length} bytes are more than {LONGEST}"));
        }
        let expressions = if sources.is_empty() { None } else { Some(compile(&sources)?) };
        Ok(Patterns { entries, expressions })
    }

    /// The number of the first pattern that matches one of a module's names.
    pub fn find(&self, names: &[&str]) -> Option<f64> {
        let matched: Vec<_> = match &self.expressions {
            Some(set) => names.iter().map(|name| set.matches(name.as_bytes())).collect(),
            None => Vec::new(),
        };
        let fits = |(pattern, _): &&(Pattern, f64)| match pattern {
            Pattern::Name(key) => names.iter().any(|name| ends_with(name, key)),
            Pattern::Expression(at) => matched.iter().any(|set| set.matched(*at)),
        };
        self.entries.iter().find(fits).map(|(_, number)| *number)
    }
}

/// Compiles expressions on bytes: names of modules are ASCII, in which a character is a byte.
fn compile(sources: &[String]) -> Result<RegexSet, String> {
    let set = RegexSetBuilder::new(sources).unicode(false).size_limit(MOST_COMPILED).build();
    set.map_err(|error| error.to_string())
}

/// Whether a key has only letters, digits, `_`, `-` and dots.
fn is_name(key: &str) -> bool {
    key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

/// Whether `name` is `key`, or ends with a dot and `key`. A dot in `key` matches any character.
fn ends_with(name: &str, key: &str) -> bool {
    let Some(before) = name.len().checked_sub(key.len()) else { return false };
    let (front, end) = name.as_bytes().split_at(before);
    (front.is_empty() || front.ends_with(b".")) && key.bytes().zip(end).all(|(key, end)| key == b'.' || key == *end)
}

/// A JSON object of numbers, in the order of the text. The order decides if several patterns match.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Table(pub Vec<(String, f64)>);

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Table;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Table, A::Error> {
                let mut table = Vec::new();
                while let Some(member) = members.next_entry()? {
                    table.push(member);
                }
                Ok(Table(table))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(keys: &[&str]) -> Result<Patterns, String> {
        let number = |(i, key): (usize, &&str)| ((*key).to_owned(), i as f64);
        Patterns::compile(Table(keys.iter().enumerate().map(number).collect()))
    }

    /// The expected values come from PEFT 0.21.2's `get_pattern_key`.
    #[test]
    fn keys_match_as_in_peft() {
        let name = "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q";
        let found = |keys: &[&str]| patterns(keys).unwrap().find(&[name]).map(|at| keys[at as usize].to_owned());
        for key in [
            "to_q",
            "attn1.to_q",
            r"attn[12]\.to_q",
            ".*down_blocks.*to_q",
            "^down_blocks.0.*to_q",
            name,
            "attn1_to_q|attn1.to_q",
            r"transformer_blocks\.\d\.attn1\.to_(q|k)",
            "transformer.blocks.0.attn1.to_q",
        ] {
            assert_eq!(found(&[key]), Some(key.to_owned()));
        }
        for key in ["o_q", "attn1", "blocks.0.attn1.to_q", "^to_q", "", "to_q.", r"to_k", "up_blocks.*"] {
            assert_eq!(found(&[key]), None, "{key}");
        }
        assert_eq!(found(&["to_k", "to_.", "to_q"]), Some("to_.".to_owned()), "the first counts");
    }

    #[test]
    fn hostile_keys_are_refused_by_name() {
        for (key, why) in [
            ("(?=to_q)to_q", "look-around"),
            (r"(a)\1", "backreferences"),
            ("to_q)|(.*", "unopened group"),
            ("((((a{1000}){1000}){1000}){1000})", "size limit"),
        ] {
            let error = patterns(&[key]).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let many: Vec<String> = (0..2000).map(|i| format!("(a*)*{i}")).collect();
        assert!(patterns(&many.iter().map(String::as_str).collect::<Vec<_>>()).unwrap_err().contains("more than"));
        // A matcher that backtracks would take exponential time.
        assert_eq!(patterns(&["(a*)*b"]).unwrap().find(&[&"a".repeat(1000)]), None);
    }
}
