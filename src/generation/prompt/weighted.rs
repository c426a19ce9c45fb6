//! Parses the weights in prompts, in the syntax of A1111's web UI.

/// A part of a prompt with one weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub text: String,
    /// 1 is neutral; -100 to 100.
    pub weight: f64,
}

/// Largest absolute value of a span's weight. The factors of nested brackets are multiplied, so a prompt can ask for
/// any weight, but larger weights only destroy the picture.
const MAX_WEIGHT: f64 = 100.0;

const ROUND: f64 = 1.1;
const SQUARE: f64 = 1.0 / 1.1;

/// Splits a prompt at its `BREAK`s into at least one segment, and each segment into spans of equal weight. A segment
/// without text has no spans.
///
/// `(word)` multiplies the weight by 1.1, `[word]` divides it by 1.1, `(word:1.3)` multiplies it by the number, and the
/// factors of nested brackets are multiplied. A bracket after a backslash is text. As in A1111, a closing bracket
/// without an opening one is text, an opening bracket without a closing one extends to the end of the prompt, and a
/// backslash before any other character is removed. Unlike A1111, `BREAK` also ends a segment inside brackets, and an
/// invalid number is text.
pub fn weighted(prompt: &str) -> Vec<Vec<Span>> {
    let mut pieces: Vec<Piece> = Vec::new();
    let (mut round, mut square) = (Brackets::default(), Brackets::default());
    let mut rest = prompt;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\\' => {
                let next = rest[1..].chars().next().filter(|next| matches!(next, '(' | ')' | '[' | ']' | '\\'));
                pieces.extend(next.map(|bracket| Piece::text(bracket.to_string())));
                1 + next.map_or(0, char::len_utf8)
            }
            '(' => {
                round.open.push(pieces.len());
                1
            }
            '[' => {
                square.open.push(pieces.len());
                1
            }
            ')' => {
                round.close(&mut pieces, ROUND, ")");
                1
            }
            ']' => {
                square.close(&mut pieces, SQUARE, "]");
                1
            }
            ':' => match number(rest) {
                Some((weight, length)) if !round.open.is_empty() => {
                    round.close(&mut pieces, weight, "");
                    length
                }
                _ => {
                    pieces.push(Piece::text(":".to_owned()));
                    1
                }
            },
            _ => {
                let length = rest.find(['\\', '(', ')', '[', ']', ':']).unwrap_or(rest.len());
                breaks(&rest[..length], &mut pieces);
                length
            }
        };
        rest = &rest[length..];
    }
    let weights = [round.weights(pieces.len(), ROUND), square.weights(pieces.len(), SQUARE)];
    for (i, piece) in pieces.iter_mut().enumerate() {
        if let Piece::Text(span) = piece {
            span.weight = (weights[0][i] * weights[1][i]).clamp(-MAX_WEIGHT, MAX_WEIGHT);
        }
    }
    segments(pieces)
}

#[derive(Debug)]
enum Piece {
    Text(Span),
    Break,
}

impl Piece {
    fn text(text: String) -> Piece {
        Piece::Text(Span { text, weight: 1.0 })
    }
}

/// The brackets of one kind, as ranges of pieces. Ranges are nested or disjoint.
#[derive(Default)]
struct Brackets {
    open: Vec<usize>,
    closed: Vec<(usize, usize, f64)>,
}

impl Brackets {
    /// Closes the innermost open bracket. If none is open, the closing bracket is text.
    fn close(&mut self, pieces: &mut Vec<Piece>, weight: f64, bracket: &str) {
        match self.open.pop() {
            Some(start) => self.closed.push((start, pieces.len(), weight)),
            None => pieces.push(Piece::text(bracket.to_owned())),
        }
    }

    /// The product of the weights of all brackets around each piece. Brackets that were never closed have the weight
    /// `unclosed`. The function makes one pass over pieces and brackets, however deep they are nested.
    fn weights(self, pieces: usize, unclosed: f64) -> Vec<f64> {
        /// Keeps the products finite, because infinity times 0 is not a number.
        const BOUND: f64 = 1e100;
        let unclosed = self.open.into_iter().map(|start| (start, pieces, unclosed));
        let mut all: Vec<_> = self.closed.into_iter().chain(unclosed).filter(|(start, end, _)| start < end).collect();
        all.sort_by_key(|(start, end, _)| (*start, pieces - end));
        let mut all = all.into_iter().peekable();
        let mut around: Vec<(usize, f64)> = Vec::new();
        let weight_at = |i: usize| {
            while around.pop_if(|(end, _)| *end <= i).is_some() {}
            while let Some((_, end, weight)) = all.next_if(|(start, ..)| *start <= i) {
                let outer = around.last().map_or(1.0, |(_, weight)| *weight);
                around.push((end, (outer * weight).clamp(-BOUND, BOUND)));
            }
            around.last().map_or(1.0, |(_, weight)| *weight)
        };
        (0..pieces).map(weight_at).collect()
    }
}

/// Parses `:1.3)` at the start of `text`; returns the number and the length up to and including the bracket.
fn number(text: &str) -> Option<(f64, usize)> {
    let digits = text[1..].trim_start();
    let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
    let length = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|length| *length > 0)?;
    let behind = unsigned[length..].trim_start().strip_prefix(')')?;
    let number = &digits[..digits.len() - unsigned.len() + length];
    Some((number.parse().ok()?, text.len() - behind.len()))
}

/// Splits a text at the word `BREAK`, and removes the spaces around the word.
fn breaks(text: &str, pieces: &mut Vec<Piece>) {
    const BREAK: &str = "BREAK";
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut rest, mut from) = (text, 0);
    while let Some(at) = rest[from..].find(BREAK).map(|at| from + at) {
        let (before, after) = (&rest[..at], &rest[at + BREAK.len()..]);
        if before.chars().next_back().is_some_and(is_word) || after.chars().next().is_some_and(is_word) {
            from = at + BREAK.len();
            continue;
        }
        pieces.push(Piece::text(before.trim_end().to_owned()));
        pieces.push(Piece::Break);
        (rest, from) = (after.trim_start(), 0);
    }
    pieces.push(Piece::text(rest.to_owned()));
}

/// Splits the pieces into segments at the breaks, joins neighboring pieces of equal weight to spans and drops empty
/// pieces.
fn segments(pieces: Vec<Piece>) -> Vec<Vec<Span>> {
    let (mut ended, mut open): (Vec<Vec<Span>>, Vec<Span>) = (Vec::new(), Vec::new());
    for piece in pieces {
        match piece {
            Piece::Break => ended.push(std::mem::take(&mut open)),
            Piece::Text(span) if span.text.is_empty() => {}
            Piece::Text(span) => match open.last_mut().filter(|last| last.weight == span.weight) {
                Some(last) => last.text.push_str(&span.text),
                None => open.push(span),
            },
        }
    }
    ended.push(open);
    ended
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The segments as lists of (text, weight), with weights rounded to three decimals.
    fn read(prompt: &str) -> Vec<Vec<(String, f64)>> {
        let rounded = |span: Span| (span.text, (span.weight * 1000.0).round() / 1000.0);
        weighted(prompt).into_iter().map(|spans| spans.into_iter().map(rounded).collect()).collect()
    }

    #[test]
    fn prompts_read_as_in_a1111() {
        let one = |spans: &[(&str, f64)]| -> Vec<Vec<(String, f64)>> {
            vec![spans.iter().map(|(text, weight)| ((*text).to_owned(), *weight)).collect()]
        };
        for (prompt, spans) in [
            ("", one(&[])),
            ("a red fox", one(&[("a red fox", 1.0)])),
            ("a (red) fox", one(&[("a ", 1.0), ("red", 1.1), (" fox", 1.0)])),
            ("((red))", one(&[("red", 1.21)])),
            ("[red]", one(&[("red", 0.909)])),
            ("(red:1.3)", one(&[("red", 1.3)])),
            ("(red: -0.5 )", one(&[("red", -0.5)])),
            ("(a (b:2) c:.5)", one(&[("a ", 0.5), ("b", 1.0), (" c", 0.5)])),
            (r"\(a\) \[b\] c\\d", one(&[(r"(a) [b] c\d", 1.0)])),
            (r"a\b", one(&[("ab", 1.0)])),
            ("(a)(b)", one(&[("ab", 1.1)])),
            // A closing bracket without an opening one is text. An unclosed bracket extends to the end.
            ("a) b]", one(&[("a) b]", 1.0)])),
            ("a (b [c", one(&[("a ", 1.0), ("b ", 1.1), ("c", 1.0)])),
            ("a:1.2) b", one(&[("a:1.2) b", 1.0)])),
            ("(a:b) c: d", one(&[("a:b", 1.1), (" c: d", 1.0)])),
            ("(a:1.2.3)", one(&[("a:1.2.3", 1.1)])),
            ("(a:1.2, b)", one(&[("a:1.2, b", 1.1)])),
        ] {
            assert_eq!(read(prompt), spans, "{prompt}");
        }
    }

    /// These prompts are nested deeper than any accepted prompt, and so long that a quadratic algorithm would take
    /// hours.
    #[test]
    fn long_prompts_are_read_in_one_pass() {
        const TIMES: usize = 1_000_000;
        let deep = format!("{}a{}", "(x".repeat(TIMES), ":0)".repeat(TIMES));
        assert_eq!(weighted(&deep)[0].last().map(|span| span.weight), Some(0.0));
        let read = |part: &str| weighted(&part.repeat(TIMES)).len();
        for part in ["(", "[", "(a", "[a", "([a", ")", ":", ":1", ": ", "(a:1", "(:1.5)", "\\", "BREAKBREAK", "a]"] {
            assert_eq!(read(part), 1, "{part}");
        }
        assert_eq!(read("BREAK "), TIMES + 1);
    }

    #[test]
    fn brackets_may_be_nested_as_deeply_as_the_prompt_is_long() {
        let n = 100_000;
        for (prompt, weight) in [
            (format!("{}a{}", "(".repeat(n), ")".repeat(n)), MAX_WEIGHT),
            (format!("{}a", "(".repeat(n)), MAX_WEIGHT),
            (format!("{}a{}", "(".repeat(n), ":1)".repeat(n)), 1.0),
        ] {
            assert_eq!(read(&prompt), [[("a".to_owned(), weight)]]);
        }
        assert_eq!(read(&format!("{}a{}", "[".repeat(n), "]".repeat(n))), [[("a".to_owned(), 0.0)]]);
        for unit in [":", "(:", ")", "\\", "[:1", "BREAK", ": 1 "] {
            assert!(!weighted(&unit.repeat(5_000)).is_empty(), "{unit}");
        }
    }

    #[test]
    fn breaks_cut_segments() {
        let texts = |prompt: &str| -> Vec<String> {
            weighted(prompt).iter().map(|spans| spans.iter().map(|span| span.text.as_str()).collect()).collect()
        };
        assert_eq!(texts("a BREAK b,BREAK\nc"), ["a", "b,", "c"]);
        assert_eq!(texts("BREAKFAST at BREAK_TIME, xBREAK"), ["BREAKFAST at BREAK_TIME, xBREAK"]);
        assert_eq!(texts("BREAK a BREAK BREAK"), ["", "a", "", ""]);
        assert_eq!(read("(a BREAK b:1.5)"), [[("a".to_owned(), 1.5)], [("b".to_owned(), 1.5)]]);
    }

    proptest! {
        #[test]
        fn any_prompt_is_read(prompt in r"([()\[\]\\:. +\-a1é]|BREAK|:1\.3\)){0,40}") {
            let segments = weighted(&prompt);
            prop_assert!(!segments.is_empty());
            for spans in &segments {
                for span in spans {
                    prop_assert!(!span.text.is_empty() && span.weight.abs() <= MAX_WEIGHT);
                }
                prop_assert!(spans.windows(2).all(|pair| pair[0].weight != pair[1].weight));
            }
        }

        #[test]
        fn any_text_at_all_is_read(prompt in any::<String>()) {
            weighted(&prompt);
        }

        #[test]
        fn plain_text_stays_as_it_is(prompt in r"[a-z0-9,. :;'é狐\n-]{1,40}") {
            prop_assert_eq!(weighted(&prompt), [[Span { text: prompt.clone(), weight: 1.0 }]]);
        }

        #[test]
        fn escaped_text_stays_as_it_is(prompt in r"[a-z()\[\]\\:1.,]{1,40}") {
            let escape = |c: char| if "()[]\\".contains(c) { format!("\\{c}") } else { c.to_string() };
            let escaped: String = prompt.chars().map(escape).collect();
            prop_assert_eq!(weighted(&escaped), [[Span { text: prompt.clone(), weight: 1.0 }]]);
        }

        #[test]
        fn brackets_that_cross_multiply_where_both_are(depth in 1usize..20) {
            let (round, square) = ("(".repeat(depth), "[".repeat(depth));
            let prompt = format!("{round}a {square}b {}c {}d", ")".repeat(depth), "]".repeat(depth));
            let (up, down) = (ROUND.powi(depth as i32), SQUARE.powi(depth as i32));
            let spans = weighted(&prompt).remove(0);
            prop_assert_eq!(spans.len(), 4);
            for (span, weight) in spans.iter().zip([up, up * down, down, 1.0]) {
                prop_assert!((span.weight - weight).abs() < 1e-9, "{:?}", span);
            }
        }

        #[test]
        fn nesting_multiplies(depth in 0usize..200, weight in 0.0f64..2.0) {
            let prompt = format!("{}a:{weight:.3}){}", "(".repeat(depth + 1), ")".repeat(depth));
            let expected = (0..depth).fold(format!("{weight:.3}").parse::<f64>().unwrap(), |weight, _| (weight * ROUND).min(MAX_WEIGHT));
            let segments = weighted(&prompt);
            prop_assert!((segments[0][0].weight - expected).abs() < 1e-6);
        }
    }
}
