//! The repairs of the library ftfy 6.3 that need no guess about the encoding of a text.

use unicode_normalization::UnicodeNormalization;

use super::html::{unescaped_with_semicolons, windows_1252};

/// Repairs each line until nothing changes. Entities of HTML are replaced only up to the first line with a `<`.
pub fn repaired(text: &str) -> String {
    let mut is_html = false;
    let line = |line: &str| {
        is_html |= line.contains('<');
        let mut line = line.to_owned();
        loop {
            let next = repaired_once(&line, is_html);
            if next == line {
                return line;
            }
            line = next;
        }
    };
    text.split_inclusive('\n').map(line).collect()
}

fn repaired_once(line: &str, is_html: bool) -> String {
    let text = if is_html { line.to_owned() } else { unescaped_with_semicolons(line) };
    let mut plain = String::with_capacity(text.len());
    text.chars().for_each(|c| push_plain(&mut plain, c));
    let broken = plain.replace("\r\n", "\n").replace(['\r', '\u{2028}', '\u{2029}', '\u{85}'], "\n");
    without_escapes(&broken).chars().filter(|c| !is_control(*c)).nfc().collect()
}

/// Appends a character after its repair: control characters become Windows's characters, ligatures and forms of other
/// widths become ordinary letters, and quotes become straight.
fn push_plain(text: &mut String, c: char) {
    let straight = |c: char| match c {
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => '\'',
        '\u{201c}'..='\u{201f}' => '"',
        c => c,
    };
    match c {
        '\u{80}'..='\u{9f}' => text.push(straight(windows_1252(c.into()))),
        // The long s stays.
        '\u{fb05}' => text.push_str("ſt"),
        'Ĳ' | 'ĳ' | 'ŉ' | 'Ǆ'..='ǌ' | 'Ǳ'..='ǳ' | '\u{fb00}'..='\u{fb06}' | '\u{ff01}'..='\u{ffef}' => {
            text.extend(std::iter::once(c).nfkc().map(straight));
        }
        '\u{3000}' => text.push(' '),
        c => text.push(straight(c)),
    }
}

/// The text without the codes for colors of terminals: `ESC [`, digits and semicolons, and a letter.
fn without_escapes(text: &str) -> String {
    let (mut made, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        made.push_str(before);
        // In Python's regular expressions, the digits of all scripts are digits.
        let code = after.trim_start_matches(|c: char| c == ';' || c.is_numeric());
        match code.strip_prefix(|c: char| c.is_ascii_alphabetic()) {
            Some(after) => rest = after,
            None => {
                made.push_str("\u{1b}[");
                rest = after;
            }
        }
    }
    made.push_str(rest);
    made
}

/// Control characters that no text needs.
fn is_control(c: char) -> bool {
    matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
        || ('\u{fff9}'..='\u{fffc}').contains(&c)
}
