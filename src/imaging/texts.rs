//! Reads the texts in picture files that say how the pictures were made.

use std::io::Cursor;

use png::{Decoder, Limits};

/// The most bytes that the texts of a file may take in memory.
const MOST_BYTES: usize = 4 << 20;

/// The text `parameters` of a PNG file, from its chunks before the pixels. `None` if there is none, or if the file is
/// no PNG.
pub fn infotext_of(file: &[u8]) -> Option<String> {
    const KEYWORD: &str = "parameters";
    let reader = Decoder::new_with_limits(Cursor::new(file), Limits { bytes: MOST_BYTES }).read_info().ok()?;
    let info = reader.info();
    let utf8 = info.utf8_text.iter().filter(|text| text.keyword == KEYWORD).find_map(|text| text.get_text().ok());
    let latin1 = || info.uncompressed_latin1_text.iter().find(|text| text.keyword == KEYWORD);
    let packed = || info.compressed_latin1_text.iter().filter(|text| text.keyword == KEYWORD);
    utf8.or_else(|| Some(latin1()?.text.clone())).or_else(|| packed().find_map(|text| text.get_text().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(add: impl FnOnce(&mut png::Encoder<'_, &mut Vec<u8>>)) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 1, 1);
        encoder.set_color(png::ColorType::Rgb);
        add(&mut encoder);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&[0; 3]).unwrap();
        writer.finish().unwrap();
        file
    }

    #[test]
    fn every_kind_of_text_chunk_is_read() {
        let text = || "a fox\nSteps: 4".to_owned();
        let key = || "parameters".to_owned();
        for file in [
            file(|encoder| encoder.add_itxt_chunk(key(), text()).unwrap()),
            file(|encoder| encoder.add_text_chunk(key(), text()).unwrap()),
            file(|encoder| encoder.add_ztxt_chunk(key(), text()).unwrap()),
        ] {
            assert_eq!(infotext_of(&file).as_deref(), Some("a fox\nSteps: 4"));
        }
        assert_eq!(infotext_of(&file(|encoder| encoder.add_text_chunk("Comment".to_owned(), text()).unwrap())), None);
        assert_eq!(infotext_of(b"GIF89a"), None);
        assert_eq!(infotext_of(b""), None);
    }
}
