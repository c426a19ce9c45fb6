//! Reads from a picture file the text that says how the picture was made.

use std::io::Cursor;

use image_webp::WebPDecoder;
use png::{Decoder, Limits};

use super::{exif, jpeg};

/// Maximum bytes that the texts of a file may take in memory.
const MOST_BYTES: usize = 4 << 20;

/// The settings in a picture file: the text `parameters` of a PNG, the user comment in the EXIF of a JPEG or WebP.
/// `None` if the file has no such text, or is of another format.
pub fn infotext_of(file: &[u8]) -> Option<String> {
    match file {
        [0xff, 0xd8, ..] => exif::user_comment(jpeg::exif(file)?),
        [b'R', b'I', b'F', b'F', ..] => of_webp(file),
        _ => of_png(file),
    }
}

fn of_webp(file: &[u8]) -> Option<String> {
    let mut decoder = WebPDecoder::new(Cursor::new(file)).ok()?;
    decoder.set_memory_limit(MOST_BYTES);
    exif::user_comment(&decoder.exif_metadata().ok()??)
}

/// The text `parameters` in the chunks before the pixels.
fn of_png(file: &[u8]) -> Option<String> {
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
    use crate::{Metadata, RgbImage, encode_jpeg, encode_png, encode_webp};

    #[test]
    fn the_settings_are_read_from_every_format_that_this_program_writes() {
        let image = RgbImage { width: 2, height: 1, pixels: vec![90; 6] };
        let parameters = "a fox, 狐 🦊\nNegative prompt: rain\nSteps: 4".to_owned();
        let full = Metadata::Full { parameters: parameters.clone(), request: "{}".to_owned() };
        let encoders: [fn(&RgbImage, &Metadata) -> _; 3] =
            [encode_png, |image, metadata| encode_jpeg(image, 90, metadata), encode_webp];
        for (format, encode) in ["PNG", "JPEG", "WebP"].into_iter().zip(encoders) {
            let read = |metadata: &Metadata| infotext_of(&encode(&image, metadata).unwrap());
            assert_eq!(read(&full).as_ref(), Some(&parameters), "{format}");
            assert_eq!(read(&Metadata::None), None, "{format}");
            assert_eq!(read(&Metadata::Seed("7".to_owned())), None, "{format}");
            let file = encode(&image, &full).unwrap();
            (0..file.len()).for_each(|length| drop(infotext_of(&file[..length])));
        }
    }

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
