//! The pictures in a request.

use std::borrow::Cow;

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ControlUse, Fields, Source, field::Field, fields::cut, table};

/// A picture of a request, as it is stored: 8-bit RGB, upright, without transparency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputImage {
    /// SHA-256 of the stored file in hexadecimal. Later requests can refer to the picture by this digest. Empty until
    /// the file is stored.
    pub upload: String,
    /// Width and height in pixels.
    pub width: u32,
    pub height: u32,
}

/// How a picture is used, which decides what its transparent parts become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageRole {
    /// Transparent parts become white.
    Picture,
    /// Transparent parts become black. Inpainting keeps the picture where the mask is black.
    Mask,
    /// A mask in which only the transparency counts: transparent parts become white, opaque parts black.
    Transparency,
}

/// The form in which a request contains a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// The bytes of an image file.
    File(Bytes, ImageRole),
    /// The SHA-256 of a picture that was stored before.
    Upload(String),
}

impl InputImage {
    /// Reads a picture field into which [`Fields::place`] has put an inspected picture.
    pub(super) fn read(fields: &mut Fields, field: &Field) -> Option<InputImage> {
        let value = fields.take(field.name)?;
        Some(InputImage::deserialize(&value).unwrap_or_else(|_| {
            fields.wrong_type::<()>(field.name, "a picture", &value);
            InputImage::stand_in()
        }))
    }

    /// Reads the field `image`, one picture or a list of at most `most` pictures: the first picture, and the others.
    pub(super) fn read_all(fields: &mut Fields, most: usize) -> Option<(InputImage, Vec<InputImage>)> {
        let name = table::IMAGE.name;
        let Some(Value::Array(images)) = fields.peek(name) else {
            return Some((InputImage::read(fields, &table::IMAGE)?, Vec::new()));
        };
        let count = images.len();
        if !(1..=most).contains(&count) {
            fields.take(name);
            let detail = match most {
                1 => "must be one picture, or a list with one".to_owned(),
                most => format!("must have between 1 and {most} pictures, not {count}"),
            };
            fields.error(name, "out_of_range", detail);
            return Some((InputImage::stand_in(), Vec::new()));
        }
        let images = fields.take(name).and_then(|images| Vec::<InputImage>::deserialize(images).ok());
        let mut images = images.unwrap_or_else(|| {
            fields.error(name, "wrong_type", "must be pictures");
            vec![InputImage::stand_in()]
        });
        let further = images.split_off(1);
        images.pop().map(|first| (first, further))
    }

    /// A placeholder for an invalid picture, so that no second error says that the picture is missing.
    pub(super) fn stand_in() -> InputImage {
        InputImage { upload: String::new(), width: 512, height: 512 }
    }

    /// The JSON value of a request's field that contains this picture.
    pub fn field(&self) -> Value {
        Value::Object(Map::from_iter([
            ("upload".to_owned(), self.upload.clone().into()),
            ("width".to_owned(), self.width.into()),
            ("height".to_owned(), self.height.into()),
        ]))
    }
}

/// A field of a request that contains a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageField {
    Image,
    Mask,
    /// `image[i]`, if `image` is a list.
    Reference(usize),
    /// `controls[i].image`
    Control(usize),
}

impl Fields {
    /// Takes every picture out of the request, and returns it with the field that contained it. The caller inspects
    /// each picture and calls [`Fields::place`] or [`Fields::refuse`]. Invalid values are refused here. If `controls`
    /// has too many entries, their pictures are skipped.
    pub fn pictures(&mut self) -> Vec<(ImageField, ImageSource)> {
        let controls = match self.peek("controls") {
            Some(Value::Array(controls)) if controls.len() <= ControlUse::MOST => controls.len(),
            _ => 0,
        };
        let images: Vec<ImageField> = match self.peek("image") {
            Some(Value::Array(images)) if images.len() <= Source::MOST_REFERENCES => {
                (0..images.len()).map(ImageField::Reference).collect()
            }
            // `Source::read` refuses a longer list.
            Some(Value::Array(_)) => Vec::new(),
            _ => vec![ImageField::Image],
        };
        let places = images.into_iter().chain([ImageField::Mask]).chain((0..controls).map(ImageField::Control));
        places.collect::<Vec<_>>().into_iter().filter_map(|place| Some((place, self.given(place)?))).collect()
    }

    /// Uses the transparency of the file in the field `mask` as the mask: transparent parts are redrawn, whatever their
    /// color. A mask that the request names by its digest is used as it was stored.
    pub fn read_mask_by_transparency(&mut self) {
        self.mask_is_transparency = true;
    }

    /// Returns the file of the field `image`, and leaves it in the field. `None` if the field has no file or an invalid
    /// one.
    pub fn image_file(&mut self) -> Option<Bytes> {
        let name = table::IMAGE.name;
        let file = match self.peek(name)? {
            Value::String(text) if self.files.contains_key(text) => self.files.get(text).cloned(),
            Value::String(text) => file_of(picture(text)),
            Value::Object(map) if map.len() == 1 => match map.iter().next()? {
                (key, Value::String(text)) if key == "file" => self.files.get(text).cloned(),
                (key, Value::String(text)) if key == "b64" => file_of(picture(text)),
                (key, Value::String(text)) if key == "data_url" => file_of(data_url(text)),
                _ => None,
            },
            _ => None,
        }?;
        self.put_file(name, file.clone());
        Some(file)
    }

    /// Makes a file the picture of the field `name`.
    pub fn put_file(&mut self, name: &str, file: Bytes) {
        self.put_back(name, Value::Object(Map::from_iter([("file".to_owned(), name.into())])));
        self.files.insert(name.to_owned(), file);
    }

    /// Puts an inspected picture into its field.
    pub fn place(&mut self, place: ImageField, image: &InputImage) {
        match self.at(place) {
            Some(field) => *field = image.field(),
            None => self.put_back(place.name(), image.field()),
        }
    }

    /// Adds an error for a picture and puts a placeholder into its field.
    pub fn refuse(&mut self, place: ImageField, code: &'static str, detail: String) {
        self.place(place, &InputImage::stand_in());
        let path = place.path();
        self.error_at(&path.iter().map(String::as_str).collect::<Vec<_>>(), code, detail);
    }

    fn given(&mut self, place: ImageField) -> Option<ImageSource> {
        let value = match place {
            ImageField::Image | ImageField::Mask => self.take(place.name())?,
            ImageField::Control(_) => self.at(place).map(Value::take).filter(|value| !value.is_null())?,
            // A null in a list is of a wrong type.
            ImageField::Reference(_) => self.at(place).map(Value::take)?,
        };
        match self.read_given(value) {
            Ok(ImageSource::File(bytes, _)) => Some(ImageSource::File(bytes, self.role(place))),
            Ok(given) => Some(given),
            Err((code, detail)) => {
                self.refuse(place, code, detail);
                None
            }
        }
    }

    fn role(&self, place: ImageField) -> ImageRole {
        match place {
            ImageField::Image | ImageField::Reference(_) | ImageField::Control(_) => ImageRole::Picture,
            ImageField::Mask if self.mask_is_transparency => ImageRole::Transparency,
            ImageField::Mask => ImageRole::Mask,
        }
    }

    fn read_given(&mut self, value: Value) -> Result<ImageSource, (&'static str, String)> {
        let wrong = || {
            let forms =
                "must be one of {\"b64\": …}, {\"data_url\": …} and {\"upload\": …}, or a file of a multipart body";
            ("wrong_type", forms.to_owned())
        };
        let map = match value {
            Value::String(name) if self.files.contains_key(&name) => return self.file(&name),
            Value::String(text) => return picture(&text),
            Value::Object(map) => map,
            _ => return Err(wrong()),
        };
        // This server's own answers contain the size next to the upload, and a client may send both back.
        let mut keys = map.iter().filter(|(key, _)| !matches!(key.as_str(), "width" | "height"));
        let (Some((key, Value::String(text))), None) = (keys.next(), keys.next()) else { return Err(wrong()) };
        match key.as_str() {
            "b64" => picture(text),
            "data_url" => data_url(text),
            "file" => self.file(text),
            "upload" if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) => {
                Ok(ImageSource::Upload(text.clone()))
            }
            "upload" => {
                Err(("invalid_value", "must name an upload by its 64 lower-case hexadecimal digits".to_owned()))
            }
            "url" => Err(("invalid_value", format!("cannot be a url: this server fetches nothing; {SEND}"))),
            _ => Err(wrong()),
        }
    }

    /// Takes a file of the multipart body.
    fn file(&mut self, name: &str) -> Result<ImageSource, (&'static str, String)> {
        let missing = || format!("names the file {:?}, which is not in the body", cut(name, 64));
        self.take_file(name).map(from_file).ok_or_else(|| ("invalid_value", missing()))
    }

    fn at(&mut self, place: ImageField) -> Option<&mut Value> {
        match place {
            ImageField::Image | ImageField::Mask => None,
            ImageField::Reference(i) => self.peek_mut("image")?.as_array_mut()?.get_mut(i),
            ImageField::Control(i) => {
                let control = self.peek_mut("controls")?.as_array_mut()?.get_mut(i)?;
                control.as_object_mut()?.get_mut("image")
            }
        }
    }
}

impl ImageField {
    /// The path of names and indices of the field.
    pub fn path(self) -> Vec<String> {
        match self {
            ImageField::Image | ImageField::Mask => vec![self.name().to_owned()],
            ImageField::Reference(i) => vec![self.name().to_owned(), i.to_string()],
            ImageField::Control(i) => vec![self.name().to_owned(), i.to_string(), "image".to_owned()],
        }
    }

    /// The name of the top-level field.
    pub fn name(self) -> &'static str {
        match self {
            ImageField::Image | ImageField::Reference(_) => "image",
            ImageField::Mask => "mask",
            ImageField::Control(_) => "controls",
        }
    }
}

/// Makes a source of the bytes of a file. `Fields::given` replaces the role by the role of the field.
fn from_file(bytes: Bytes) -> ImageSource {
    ImageSource::File(bytes, ImageRole::Picture)
}

fn file_of(read: Result<ImageSource, (&'static str, String)>) -> Option<Bytes> {
    match read {
        Ok(ImageSource::File(bytes, _)) => Some(bytes),
        Ok(ImageSource::Upload(_)) | Err(_) => None,
    }
}

/// The advice in errors about texts that are not pictures.
const SEND: &str = "send the picture itself, as base64, as a data URL or as a file of a multipart body";

/// Decodes a data URL or base64.
fn picture(text: &str) -> Result<ImageSource, (&'static str, String)> {
    if has_scheme(text, "data:") { data_url(text) } else { base64(text) }
}

/// Decodes `data:image/png;base64,…` (RFC 2397).
fn data_url(text: &str) -> Result<ImageSource, (&'static str, String)> {
    const MARK: &str = ";base64";
    let data = has_scheme(text, "data:").then(|| text.split_once(',')).flatten();
    let is_base64 = |kind: &str| {
        let mark = kind.len().checked_sub(MARK.len()).and_then(|at| kind.get(at..));
        mark.is_some_and(|mark| mark.eq_ignore_ascii_case(MARK))
    };
    match data.filter(|(kind, _)| is_base64(kind)) {
        Some((_, data)) => base64(data),
        None => Err(("invalid_value", "must have the form data:image/png;base64,…".to_owned())),
    }
}

/// Decodes standard or URL-safe base64 (RFC 4648, 4 and 5), with or without padding and line breaks.
fn base64(text: &str) -> Result<ImageSource, (&'static str, String)> {
    let refused = |detail: String| Err(("invalid_value", detail));
    let shown = cut(text, 64);
    if text.get(..64.min(text.len())).unwrap_or(text).contains("://") {
        return refused(format!("is the address {shown:?}, and this server fetches nothing; {SEND}"));
    }
    // If spaces have replaced line breaks, every line except the last has a multiple of four characters. Otherwise, the
    // spaces were probably `+` characters, which decoding of a form turns into spaces.
    let mut lines = text.split_ascii_whitespace().rev().skip(1);
    if text.contains(' ') && lines.any(|line| line.len() % 4 != 0) {
        return refused("is not base64: it has spaces; in a URL-encoded form each + must be sent as %2B".to_owned());
    }
    let joined = match text.bytes().any(|byte| byte.is_ascii_whitespace()) {
        true => Cow::Owned(text.split_ascii_whitespace().collect::<String>()),
        false => Cow::Borrowed(text),
    };
    let engine = if joined.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    if let Ok(bytes) = engine.decode(joined.as_bytes()) {
        return Ok(from_file(bytes.into()));
    }
    let stranger = joined.chars().find(|c| !c.is_ascii_alphanumeric() && !"+/-_=".contains(*c));
    refused(match stranger {
        // A text this short is probably a path, because the base64 of even a small picture is longer.
        Some('.' | '\\' | ':' | '~') if text.len() <= 256 => {
            format!("is {shown:?}, and this server reads no files by name; {SEND}")
        }
        Some(c) => format!("is not base64: it has the character {c:?}"),
        None if text.len() <= 64 => format!("is neither base64 nor the name of a file of the body: {shown:?}"),
        None => "is not base64: it is cut short or damaged".to_owned(),
    })
}

const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// Whether a URL has this scheme. Schemes are case-insensitive (RFC 3986, 3.1).
fn has_scheme(text: &str, scheme: &str) -> bool {
    text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        match value {
            Value::Object(map) => Fields::new(map),
            other => panic!("{other} is no request"),
        }
    }

    #[test]
    fn every_form_of_a_picture_is_read() {
        let upload = "0123456789abcdef".repeat(4);
        for (value, expected) in [
            (json!({"b64": "aGk="}), from_file("hi".into())),
            (json!({"b64": "aG\r\nk="}), from_file("hi".into())),
            (json!("aGk="), from_file("hi".into())),
            (json!({"data_url": "data:image/png;base64,aGk="}), from_file("hi".into())),
            (json!("data:image/jpeg;base64,aGk="), from_file("hi".into())),
            (json!("DATA:image/jpeg;Base64,aGk="), from_file("hi".into())),
            (json!({"b64": "data:image/png;base64,aGk"}), from_file("hi".into())),
            (json!("aGk"), from_file("hi".into())),
            (json!("_-__"), from_file(Bytes::from_static(&[0xff, 0xef, 0xff]))),
            (json!("aGlo aQ=="), from_file("hihi".into())),
            (json!({"upload": upload}), ImageSource::Upload(upload.clone())),
            (json!({"upload": upload, "width": 3, "height": 4}), ImageSource::Upload(upload.clone())),
        ] {
            let mut request = fields(json!({"image": value, "controls": [{"model": "canny", "image": value}, {}]}));
            let pictures = request.pictures();
            assert_eq!(
                pictures,
                [(ImageField::Image, expected.clone()), (ImageField::Control(0), expected)],
                "{value}"
            );
        }
    }

    #[test]
    fn values_that_are_no_pictures_are_refused_with_their_pointers() {
        for value in [
            json!(7),
            json!([]),
            json!({}),
            json!({"b64": "aGk=", "upload": "x"}),
            json!({"b64": 7}),
            json!({"b64": "a*"}),
            json!({"data_url": "data:text/plain,hi"}),
            json!({"upload": "../../etc/passwd"}),
            json!({"url": "http://127.0.0.1/"}),
            json!({"file": "photo"}),
        ] {
            let mut request = fields(json!({"mask": value, "controls": [{"image": value}]}));
            assert!(request.pictures().is_empty(), "{value}");
            let pointers: Vec<String> = request.finish().into_iter().map(|error| error.pointer).take(2).collect();
            assert_eq!(pointers, ["/mask", "/controls/0/image"], "{value}");
        }
    }

    #[test]
    fn a_text_that_is_no_picture_says_what_it_is() {
        for (text, said) in [
            (
                "http://example.com/a.png",
                "image is the address \"http://example.com/a.png\", and this server fetches nothing; send",
            ),
            ("/tmp/a.png", "image is \"/tmp/a.png\", and this server reads no files by name; send the picture itself"),
            ("C:\\a", "reads no files by name"),
            ("aG*k", "image is not base64: it has the character '*'"),
            ("aGk=é", "image is not base64: it has the character 'é'"),
            ("edges", "image is neither base64 nor the name of a file of the body: \"edges\""),
            ("aG lo aGlo", "each + must be sent as %2B"),
            ("data:image/png,aGk=", "image must have the form data:image/png;base64,…"),
        ] {
            let mut request = fields(json!({"image": text}));
            assert!(request.pictures().is_empty(), "{text}");
            let errors = request.finish();
            assert!(errors[0].detail.contains(said), "{text}: {errors:?}");
        }
    }

    #[test]
    fn a_text_may_name_a_file_of_the_body() {
        let texts = [("controls".to_owned(), r#"[{"model": "canny", "image": "edges"}]"#.to_owned())];
        let mut request = Fields::from_multipart(texts, [("edges".to_owned(), Bytes::from_static(b"hi"))]);
        assert_eq!(request.pictures(), [(ImageField::Control(0), from_file("hi".into()))]);
    }

    #[test]
    fn a_stored_picture_stands_where_it_was_asked_for() {
        let image = InputImage { upload: "0".repeat(64), width: 3, height: 4 };
        let mut request = fields(json!({"image": "aGk=", "controls": [{"image": "aGk="}]}));
        for (place, _) in request.pictures() {
            request.place(place, &image);
        }
        assert_eq!(InputImage::read(&mut request, &table::IMAGE), Some(image.clone()));
        assert_eq!(request.take("controls"), Some(json!([{"image": image.field()}])));
    }
}
