//! Cleans prompts as diffusers' `prompt_clean` does: makes the repairs of the library ftfy, replaces HTML entities by
//! characters, and collapses white space to single spaces.

mod html;
mod repairs;

use html::unescaped;
use repairs::repaired;

/// A prompt after the repairs of ftfy, with HTML unescaped twice and white space collapsed to single spaces.
///
/// All of ftfy's repairs are made, except the repair of text that was decoded with the wrong encoding.
pub(super) fn cleaned(prompt: &str) -> String {
    let text = unescaped(&unescaped(&repaired(prompt)));
    let words = text.split(is_space).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// White space of Python.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected texts were made by diffusers 0.42.1 with ftfy 6.3.1 and Python 3.11.
    #[test]
    fn prompts_are_cleaned_as_in_diffusers() {
        for (prompt, expected) in CASES {
            assert_eq!(cleaned(prompt), *expected, "{prompt:?}");
        }
    }

    const CASES: &[(&str, &str)] = &[
        (
            "It’s an  “oil painting” &amp;amp; a lighthouse\n above a stormy sea",
            "It's an \"oil painting\" & a lighthouse above a stormy sea",
        ),
        (" a\u{3000}ＬＯＵＤ fox\r\nand\ta\u{2028}cat ", "a LOUD fox and a cat"),
        ("ﬁne ﬂuﬀy ﬅreet ŉ Ǆ Ĳ ǲ", "fine fluffy ſtreet 'n DŽ IJ Dz"),
        (
            "&EACUTE;t&eacute; &notit; &amp &lt;b&gt; &#x41;&#66 &#150; &#0; &#xfdd0;x &#12a;",
            "Été ¬it; & <b> AB – � x a;",
        ),
        ("1 < 2 &amp;amp; x\n&amp;amp;amp; &EACUTE;", "1 < 2 & x &amp; &EACUTE;"),
        ("\u{1b}[36;44mblue\u{1b}[0m \u{1b}[x \u{1b}[1", "blue [1"),
        ("a\u{0}b\u{b}c\u{1c}d\u{85}e\u{feff}f\u{206a}g\u{a0}h", "abcd…efg h"),
        ("e\u{301}t\u{302}e \u{200b} zero", "ét\u{302}e \u{200b} zero"),
        ("ﾊﾝｶｸ ｶﾞ ￦", "ハンカク ガ ₩"),
        ("“” ‘’ ‛ ‟ ″ «»", "\"\" '' ' \" ″ «»"),
        ("&&amp;&;&#;&#x;&#xZ; &Aacut &ampx &amp;lt;", "&&&;&#;&#x;&#xZ; &Aacut &x <"),
        ("Don&RSQUO;t &nbsp;&NBSP; &copy;&COPY;&STRAWBERRY;&HEARTS;", "Don't ©©&STRAWBERRY;♥"),
        ("", ""),
        ("\u{85} \u{1f} ", "…"),
        ("猫 & 🐱! naïve", "猫 & 🐱! naïve"),
        ("&#1114112; &#xD800; &#x10FFFE;", "� �"),
        ("&NotEqualTilde;&fjlig;", "≂̸fj"),
        ("x&#59;y &#38;#38;amp;", "x;y &"),
    ];
}
