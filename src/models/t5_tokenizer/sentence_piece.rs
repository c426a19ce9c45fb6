//! Reads `spiece.model`, a protocol buffer of the type `ModelProto` of sentencepiece.

/// The parts of a Unigram model that a tokenizer needs.
#[derive(Debug, PartialEq)]
pub(super) struct SentencePiece {
    /// Each piece with its score, the logarithm of its probability. A piece's index is its id.
    pub pieces: Vec<(String, f64)>,
    /// The id of the piece for unknown characters.
    pub unknown: usize,
    /// The table of the normalizer (nmt_nfkc); empty if texts are not normalized.
    pub charsmap: Vec<u8>,
}

/// The type of a piece that stands for unknown characters.
const UNKNOWN: u64 = 2;
/// The type of a model whose pieces have scores.
const UNIGRAM: u64 = 1;

impl SentencePiece {
    /// Reads the bytes of a file.
    ///
    /// # Errors
    /// Says what is wrong: the file is broken, or its model is not a Unigram model.
    pub fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let (mut pieces, mut unknown, mut charsmap) = (Vec::new(), None, Vec::new());
        for field in Fields(bytes) {
            match field? {
                (1, Value::Bytes(piece)) => {
                    let (mut text, mut score) = (None, 0.0);
                    for field in Fields(piece) {
                        match field? {
                            (1, Value::Bytes(bytes)) => text = Some(bytes.to_vec()),
                            (2, Value::Four(bytes)) => score = f64::from(f32::from_le_bytes(bytes)),
                            (3, Value::Number(UNKNOWN)) => unknown = Some(pieces.len()),
                            _ => {}
                        }
                    }
                    let text = String::from_utf8(text.unwrap_or_default()).map_err(|_| "a piece is not UTF-8")?;
                    pieces.push((text, score));
                }
                (2, Value::Bytes(trainer)) => {
                    let kinds = Fields(trainer).filter(|field| matches!(field, Ok((3, _)) | Err(_)));
                    for kind in kinds {
                        if kind? != (3, Value::Number(UNIGRAM)) {
                            return Err("the model is not a Unigram model");
                        }
                    }
                }
                (3, Value::Bytes(normalizer)) => {
                    for field in Fields(normalizer) {
                        if let (2, Value::Bytes(table)) = field? {
                            charsmap = table.to_vec();
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(Self { pieces, unknown: unknown.ok_or("no piece stands for unknown characters")?, charsmap })
    }
}

/// The value of a field in a message.
#[derive(Debug, PartialEq)]
enum Value<'a> {
    Number(u64),
    Four([u8; 4]),
    /// A text, some bytes, or a message.
    Bytes(&'a [u8]),
    Eight,
}

/// The fields of a message: their numbers and values. After an error, the iterator ends.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// A whole number in groups of 7 bits, the lowest group first.
    fn number(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, count: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(count).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.number()?;
        let value = match key & 7 {
            0 => Value::Number(self.number()?),
            1 => self.take(8).map(|_| Value::Eight)?,
            2 => {
                let length = self.number()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Four(self.take(4)?.try_into().ok()?),
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or("the file is broken or incomplete; download it again"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Two pieces, `<unk>` and `▁a`, a trainer's note of a Unigram model, and a normalizer with the table [7].
    const FILE: &[u8] = &[
        0x0a, 0x09, 0x0a, 0x05, b'<', b'u', b'n', b'k', b'>', 0x18, 0x02, // piece, type unknown
        0x0a, 0x0b, 0x0a, 0x04, 0xe2, 0x96, 0x81, b'a', 0x15, 0, 0, 0x20, 0xc0, // piece, score -2.5
        0x12, 0x02, 0x18, 0x01, // trainer
        0x1a, 0x03, 0x12, 0x01, 0x07, // normalizer
    ];

    #[test]
    fn a_small_file() {
        let pieces = vec![("<unk>".to_owned(), 0.0), ("▁a".to_owned(), -2.5)];
        assert_eq!(SentencePiece::parse(FILE), Ok(SentencePiece { pieces, unknown: 0, charsmap: vec![7] }));
        let mut of_pairs = FILE.to_vec();
        of_pairs[27] = 2;
        assert_eq!(SentencePiece::parse(&of_pairs), Err("the model is not a Unigram model"));
    }

    proptest! {
        #[test]
        fn a_broken_file_is_an_error_and_no_panic(
            cut in 0..FILE.len(), bytes in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            // A file that ends between two fields is complete for the format.
            let whole = [11, 24, 28].contains(&cut);
            prop_assert_eq!(SentencePiece::parse(&FILE[..cut]).is_ok(), whole);
            drop(SentencePiece::parse(&bytes));
            drop(SentencePiece::parse(&[FILE, &bytes[..]].concat()));
        }
    }
}
