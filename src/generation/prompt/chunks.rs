//! Splits the tokens of a prompt into chunks that fit the text encoder, as A1111's web UI does.

use super::Span;

/// Maximum number of chunks of a prompt, because each chunk makes the context of every step longer. Further chunks are
/// dropped, just as a plain prompt is cut off after its first chunk.
pub const MAX_CHUNKS: usize = 8;

/// If one of the last 20 tokens of a full chunk is a comma, the chunk ends after that comma instead of in the middle of
/// a phrase.
const BACKTRACK: usize = 20;

/// A token of a prompt, or one vector of a textual inversion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token {
    pub id: u32,
    pub weight: f32,
    /// Whether this is the second or a later vector of a textual inversion. All its vectors go into the same chunk if
    /// they fit.
    pub joined: bool,
}

/// The chunks of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunks {
    pub kept: Vec<Vec<Token>>,
    /// The number of tokens after the last kept chunk, which are cut off.
    pub cut: usize,
}

/// The least number of chunks of a prompt: one for each segment, except an empty last segment. A segment with many
/// tokens takes several chunks.
pub fn least_chunks(segments: &[Vec<Span>]) -> usize {
    let is_last_empty = segments.last().is_some_and(Vec::is_empty);
    (segments.len() - usize::from(is_last_empty)).max(1)
}

/// Splits the segments of a prompt (see [`weighted`](super::weighted)) into 1 to `MAX_CHUNKS` chunks of at most
/// `content` tokens. Every segment starts a new chunk. An empty segment makes an empty chunk, unless it is the last of
/// several. Chunks are not padded, and start and end tokens are not added.
///
/// If a chunk is full and one of its last 20 tokens is a `comma`, the tokens after that comma move to the next chunk.
pub fn chunks(segments: &[Vec<Token>], content: usize, comma: Option<u32>) -> Chunks {
    let mut chunker = Chunker { content, ..Chunker::default() };
    for (at, segment) in segments.iter().enumerate() {
        if at > 0 {
            chunker.end();
        }
        for word in segment.chunk_by(|_, next| next.joined) {
            match word {
                [token] => chunker.push(*token, comma == Some(token.id)),
                vectors => chunker.push_whole(vectors),
            }
        }
    }
    if !chunker.open.is_empty() || chunker.ended.is_empty() {
        chunker.end();
    }
    let cut = chunker.ended.iter().skip(MAX_CHUNKS).map(Vec::len).sum();
    chunker.ended.truncate(MAX_CHUNKS);
    Chunks { kept: chunker.ended, cut }
}

#[derive(Default)]
struct Chunker {
    content: usize,
    ended: Vec<Vec<Token>>,
    open: Vec<Token>,
    /// Position of the last comma in the open chunk.
    comma: Option<usize>,
}

impl Chunker {
    fn end(&mut self) {
        self.ended.push(std::mem::take(&mut self.open));
        self.comma = None;
    }

    fn push(&mut self, token: Token, is_comma: bool) {
        if self.open.len() == self.content {
            let phrase = self.comma.map(|at| at + 1).filter(|start| !is_comma && self.content - start < BACKTRACK);
            let moved = self.open.split_off(phrase.unwrap_or(self.content));
            self.end();
            self.open = moved;
        }
        if is_comma {
            self.comma = Some(self.open.len());
        }
        self.open.push(token);
    }

    /// Adds the vectors of one word to the same chunk, unless they are more than a chunk can hold.
    fn push_whole(&mut self, vectors: &[Token]) {
        if self.open.len() + vectors.len() > self.content && !self.open.is_empty() {
            self.end();
        }
        vectors.iter().for_each(|vector| self.push(*vector, false));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COMMA: u32 = 267;
    const CONTENT: usize = 75;

    fn token(id: u32) -> Token {
        Token { id, weight: 1.0, joined: false }
    }

    /// A prompt of `count` tokens with commas at these positions.
    fn prompt(count: usize, commas: &[usize]) -> Vec<Token> {
        (0..count).map(|at| token(if commas.contains(&at) { COMMA } else { 1000 + at as u32 })).collect()
    }

    fn lengths(segments: &[Vec<Token>]) -> Vec<usize> {
        chunks(segments, CONTENT, Some(COMMA)).kept.iter().map(Vec::len).collect()
    }

    #[test]
    fn long_prompts_are_cut_at_a_late_comma() {
        assert_eq!(lengths(&[vec![]]), [0]);
        assert_eq!(lengths(&[prompt(75, &[])]), [75]);
        assert_eq!(lengths(&[prompt(76, &[])]), [75, 1]);
        assert_eq!(lengths(&[prompt(80, &[60, 70])]), [71, 9]);
        // The comma at 55 is one of the last 20 tokens; the comma at 54 is not.
        assert_eq!(lengths(&[prompt(80, &[55])]), [56, 24]);
        assert_eq!(lengths(&[prompt(80, &[54])]), [75, 5]);
        assert_eq!(lengths(&[prompt(80, &[74])]), [75, 5]);
        // A comma after a full chunk starts the next chunk.
        assert_eq!(lengths(&[prompt(80, &[60, 75])]), [75, 5]);
        assert_eq!(lengths(&[prompt(160, &[70, 140])]), [71, 70, 19]);
    }

    #[test]
    fn breaks_end_chunks() {
        assert_eq!(lengths(&[prompt(3, &[]), prompt(4, &[])]), [3, 4]);
        assert_eq!(lengths(&[vec![], prompt(4, &[]), vec![]]), [0, 4]);
        assert_eq!(lengths(&[prompt(3, &[]), vec![], prompt(4, &[])]), [3, 0, 4]);
    }

    #[test]
    fn vectors_of_a_word_stay_together() {
        let mut words = prompt(70, &[]);
        words.extend((0..10).map(|at| Token { id: at, weight: 1.2, joined: at > 0 }));
        assert_eq!(lengths(std::slice::from_ref(&words)), [70, 10]);
        words.truncate(75);
        assert_eq!(lengths(&[words]), [75]);
        let endless = (0..100).map(|at| Token { id: at, weight: 1.0, joined: true }).collect();
        assert_eq!(lengths(&[endless]), [75, 25]);
    }

    #[test]
    fn the_number_of_chunks_is_bounded() {
        assert_eq!(lengths(&[prompt(CONTENT * MAX_CHUNKS, &[])]).len(), MAX_CHUNKS);
        assert_eq!(lengths(&[prompt(CONTENT * MAX_CHUNKS + 1, &[])]).len(), MAX_CHUNKS);
        let long = chunks(&[prompt(CONTENT * MAX_CHUNKS, &[]), prompt(3, &[])], CONTENT, None);
        assert_eq!((long.kept.len(), long.cut), (MAX_CHUNKS, 3));
    }

    #[test]
    fn segments_need_a_chunk_each() {
        for (text, least) in [("", 1), ("a", 1), ("a BREAK", 1), ("a BREAK b", 2), ("BREAK b", 2), ("BREAK BREAK", 2)] {
            assert_eq!(least_chunks(&crate::generation::weighted(text)), least, "{text}");
        }
    }

    fn any_tokens() -> impl Strategy<Value = Vec<Token>> {
        let any_token = (prop_oneof![1 => Just(COMMA), 6 => 0u32..2000], -2.0f32..2.0, prop::bool::weighted(0.1));
        prop::collection::vec(any_token.prop_map(|(id, weight, joined)| Token { id, weight, joined }), 0..250)
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_is_moved(segments in prop::collection::vec(any_tokens(), 1..3)) {
            let Chunks { kept: chunks, cut } = chunks(&segments, CONTENT, Some(COMMA));
            prop_assert!(!chunks.is_empty() && chunks.len() <= MAX_CHUNKS);
            prop_assert!(chunks.iter().all(|chunk| chunk.len() <= CONTENT));
            let (kept, all) = (chunks.concat(), segments.concat());
            prop_assert_eq!(&kept[..], &all[..kept.len()]);
            prop_assert_eq!(kept.len() + cut, all.len());
            if chunks.len() < MAX_CHUNKS {
                prop_assert_eq!(cut, 0);
                // Every chunk except the last of a segment is full, unless a phrase or the vectors of a word have moved
                // to the next chunk.
                prop_assert!(chunks.len() <= segments.concat().len() / 30 + 2 * segments.len());
            }
        }
    }
}
