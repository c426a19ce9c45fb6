//! Replaces the entities of HTML by the characters that they stand for (the HTML standard, section 13.2.5.72 and
//! following).

use std::{collections::HashMap, sync::LazyLock};

/// The longest name that is compared with the names of entities, as in Python.
const LONGEST: usize = 32;

/// Replaces all entities, also those without a semicolon, as Python's `html.unescape`.
pub fn unescaped(text: &str) -> String {
    replaced(text, |rest| {
        if let Some(number) = rest.strip_prefix('#') {
            let (c, digits) = of_number(number)?;
            let end = digits + usize::from(number[digits..].starts_with(';'));
            return Some((c, 1 + end));
        }
        let is_end = |c: char| "\t\n\u{c} <&#;".contains(c);
        let length = rest.chars().take(LONGEST).take_while(|c| !is_end(*c)).map(char::len_utf8).sum::<usize>();
        let whole = length + usize::from(length > 0 && rest[length..].starts_with(';'));
        let ends = (2..=whole).rev().filter(|end| rest.is_char_boundary(*end));
        ends.map(|end| (named(&rest[..end]), end)).find_map(|(named, end)| Some((named?.to_owned(), end)))
    })
}

/// Replaces the entities that end in a semicolon, as ftfy does. Also replaces a name in capital letters that is the
/// name of a small letter's entity otherwise (see [`of_capitals`]). If an entity stands for `&`, this `&` can begin the
/// next entity, which is replaced in the same pass: one pass for each entity of a long chain, such as `&amp;amp;amp;`,
/// would take quadratic time.
pub fn unescaped_with_semicolons(text: &str) -> String {
    replaced(text, |rest| {
        let (mut c, mut end) = with_semicolon(rest)?;
        while let Some((next, length)) = with_semicolon(&rest[end..]).filter(|_| c == "&") {
            (c, end) = (next, end + length);
        }
        Some((c, end))
    })
}

/// If `rest` begins with the name of an entity and a semicolon: the characters of this entity, and the length of the
/// name with the semicolon.
fn with_semicolon(rest: &str) -> Option<(String, usize)> {
    let hash = usize::from(rest.starts_with('#'));
    let name = rest[hash..].find(|c: char| !c.is_ascii_alphanumeric())?;
    if !(1..=24).contains(&name) || !rest[hash + name..].starts_with(';') {
        return None;
    }
    let end = hash + name + 1;
    if hash == 1 {
        let (c, digits) = of_number(&rest[1..])?;
        return (digits == name && c != ";").then_some((c, end));
    }
    let known = named(&rest[..end]).map(str::to_owned);
    known.or_else(|| of_capitals(&rest[..end])).map(|c| (c, end))
}

/// The capital letter for a name such as `EACUTE`, which is the name of a small letter's entity, written in capitals.
fn of_capitals(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let is_upper = lower != name && name == name.to_ascii_uppercase();
    let c = named(&lower).filter(|_| is_upper)?;
    let whole = format!("&{name}");
    (unescaped(&whole) == whole).then(|| c.to_uppercase())
}

/// The text with replacements. `of` gets the text after each `&` and returns a replacement and the number of bytes
/// after the `&` that it replaces.
fn replaced(text: &str, of: impl Fn(&str) -> Option<(String, usize)>) -> String {
    let (mut made, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once('&') {
        made.push_str(before);
        match of(after) {
            Some((c, length)) => {
                made.push_str(&c);
                rest = &after[length..];
            }
            None => {
                made.push('&');
                rest = after;
            }
        }
    }
    made.push_str(rest);
    made
}

/// If the text after `&#` begins with a number: the character with this number, and the length of the number.
fn of_number(text: &str) -> Option<(String, usize)> {
    let (start, radix) = if text.starts_with(['x', 'X']) { (1, 16) } else { (0, 10) };
    let digits = text[start..].chars().map_while(|c| c.to_digit(radix).filter(|_| c.is_ascii()));
    let (length, number) = digits
        .fold((0, 0u32), |(length, number), digit| (length + 1, number.saturating_mul(radix).saturating_add(digit)));
    (length > 0).then(|| (of_code(number), start + length))
}

/// The character of a number. Numbers that are no characters of texts are replaced as the standard says.
fn of_code(code: u32) -> String {
    match code {
        0 => "\u{fffd}".to_owned(),
        0x80..=0x9f => windows_1252(code).to_string(),
        0x01..=0x08 | 0x0b | 0x0e..=0x1f | 0x7f | 0xfdd0..=0xfdef => String::new(),
        _ if code & 0xfffe == 0xfffe && code < 0x11_0000 => String::new(),
        _ => char::from_u32(code).unwrap_or('\u{fffd}').to_string(),
    }
}

/// The character that Windows uses for a number from 0x80 to 0x9f, where Unicode has a control character. For a number
/// that Windows does not use, the control character.
pub fn windows_1252(code: u32) -> char {
    const TABLE: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘',
        '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
    ];
    TABLE[(code as usize - 0x80) % TABLE.len()]
}

/// The characters of an entity, by its name with the semicolon, if it has one.
fn named(name: &str) -> Option<&'static str> {
    ENTITIES.get(name).map(String::as_str)
}

/// The entities of the HTML standard, by their names.
static ENTITIES: LazyLock<HashMap<&'static str, String>> = LazyLock::new(|| {
    let entity = |entity: &'static str| {
        let (name, codes) = entity.split_once(' ')?;
        let codes = codes.split(' ').map(|code| u32::from_str_radix(code, 16).ok().and_then(char::from_u32));
        Some((name, codes.collect::<Option<String>>()?))
    };
    entities().filter_map(entity).collect()
});

/// The names and code points of the table.
fn entities() -> impl Iterator<Item = &'static str> {
    include_str!("entities.txt").lines().flat_map(|line| line.split('|'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_pass_over_chains_ends_where_single_replacements_end(
            parts in prop::collection::vec(prop::sample::select(vec![
                "&", "amp;", "#38;", "#x26;", "AMP;", "lt;", "EACUTE;", "#59;", "#97;", "mp;", "x", " ",
            ]), 0..16),
        ) {
            let to_end = |pass: &dyn Fn(&str) -> String| {
                let mut text = parts.concat();
                loop {
                    let next = pass(&text);
                    if next == text {
                        return text;
                    }
                    text = next;
                }
            };
            prop_assert_eq!(to_end(&unescaped_with_semicolons), to_end(&|text| replaced(text, with_semicolon)));
        }
    }

    #[test]
    fn every_entry_of_the_table_is_an_entity() {
        assert_eq!((ENTITIES.len(), entities().count()), (2231, 2231));
        assert_eq!((named("amp;"), named("amp"), named("NotEqualTilde;")), (Some("&"), Some("&"), Some("≂\u{338}")));
    }
}
