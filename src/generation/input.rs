//! Pictures that a request brings along.

use base64::{DecodeError, Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Control, Fields, fields::cut};

/// A picture that a client sent, as the store keeps it: 8-bit RGB, upright, without transparency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputImage {
    /// SHA-256 of the stored file in hexadecimal digits, by which a later request may name it again. Empty until the file is
    /// stored.
    pub upload: String,
    /// Pixels.
    pub width: u32,
    pub height: u32,
}

/// Where a request may bring a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What is transparent becomes white.
    Picture,
    /// What is transparent becomes black: it stays as it is.
    Mask,
}

impl Role {
    /// The level that shows where a picture is transparent.
    pub fn ground(self) -> u8 {
        match self {
            Role::Picture => 255,
            Role::Mask => 0,
        }
    }
}

/// How a request gives a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// The bytes of a file.
    File(Bytes),
    /// One that was stored before.
    Upload(String),
}

impl InputImage {
    /// Reads a field whose picture was looked at; [`Fields::place`] has put it there.
    pub(super) fn read(fields: &mut Fields, name: &str) -> Option<InputImage> {
        let value = fields.take(name)?;
        Some(InputImage::deserialize(&value).unwrap_or_else(|_| {
            fields.wrong_type::<()>(name, "a picture", &value);
            InputImage::stand_in()
        }))
    }

    /// Stands where a picture is faulty, so that nothing else complains of its absence.
    pub(super) fn stand_in() -> InputImage {
        InputImage { upload: String::new(), width: 512, height: 512 }
    }

    /// The request's field for it.
    pub fn field(&self) -> Value {
        Value::Object(Map::from_iter([
            ("upload".to_owned(), self.upload.clone().into()),
            ("width".to_owned(), self.width.into()),
            ("height".to_owned(), self.height.into()),
        ]))
    }
}

/// The fields that hold pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Image,
    Mask,
    /// `controls[i].image`
    Control(usize),
}

impl Place {
    pub fn role(self) -> Role {
        match self {
            Place::Image | Place::Control(_) => Role::Picture,
            Place::Mask => Role::Mask,
        }
    }
}

impl Fields {
    /// Every picture that the request brings and where, for the caller to look at and to answer with [`Fields::place`] or
    /// [`Fields::refuse`]. What is no picture is refused here. Of more `controls` than a request may have none is read.
    pub fn pictures(&mut self) -> Vec<(Place, Given)> {
        let controls = match self.peek("controls") {
            Some(Value::Array(controls)) if controls.len() <= Control::MOST => controls.len(),
            _ => 0,
        };
        let places = [Place::Image, Place::Mask].into_iter().chain((0..controls).map(Place::Control));
        places.collect::<Vec<_>>().into_iter().filter_map(|place| Some((place, self.given(place)?))).collect()
    }

    /// Puts a picture where it was asked for.
    pub fn place(&mut self, place: Place, image: &InputImage) {
        match self.at(place) {
            Some(field) => *field = image.field(),
            None => self.put_back(place.name(), image.field()),
        }
    }

    /// Notes that a picture cannot be used, and puts a stand-in in its place.
    pub fn refuse(&mut self, place: Place, code: &'static str, detail: String) {
        self.place(place, &InputImage::stand_in());
        let path = place.path();
        self.error_at(&path.iter().map(String::as_str).collect::<Vec<_>>(), code, detail);
    }

    fn given(&mut self, place: Place) -> Option<Given> {
        let value = match place {
            Place::Image | Place::Mask => self.take(place.name())?,
            Place::Control(_) => self.at(place).map(Value::take).filter(|value| !value.is_null())?,
        };
        match self.read_given(value) {
            Ok(given) => Some(given),
            Err((code, detail)) => {
                self.refuse(place, code, detail);
                None
            }
        }
    }

    fn read_given(&mut self, value: Value) -> Result<Given, (&'static str, String)> {
        const FORMS: &str =
            "must be one of {\"b64\": …}, {\"data_url\": …} and {\"upload\": …}, or a file of a multipart body";
        let wrong = || ("wrong_type", FORMS.to_owned());
        let map = match value {
            Value::String(text) if text.starts_with("data:") => return data_url(&text),
            Value::String(text) => return base64(&text),
            Value::Object(map) => map,
            _ => return Err(wrong()),
        };
        // The size may stand beside an upload, as this server's own answers have it.
        let mut keys = map.iter().filter(|(key, _)| !matches!(key.as_str(), "width" | "height"));
        let (Some((key, Value::String(text))), None) = (keys.next(), keys.next()) else { return Err(wrong()) };
        match key.as_str() {
            "b64" => base64(text),
            "data_url" => data_url(text),
            "file" => match self.take_file(text) {
                Some(bytes) => Ok(Given::File(bytes)),
                None => Err(("invalid_value", format!("names the file {:?}, which is not in the body", cut(text, 64)))),
            },
            "upload" if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) => {
                Ok(Given::Upload(text.clone()))
            }
            "upload" => Err(("invalid_value", "must name an upload by its 64 hexadecimal digits".to_owned())),
            "url" => {
                Err(("invalid_value", "cannot be a url: this server fetches nothing, send the picture".to_owned()))
            }
            _ => Err(wrong()),
        }
    }

    fn at(&mut self, place: Place) -> Option<&mut Value> {
        match place {
            Place::Image | Place::Mask => None,
            Place::Control(i) => {
                let control = self.peek_mut("controls")?.as_array_mut()?.get_mut(i)?;
                control.as_object_mut()?.get_mut("image")
            }
        }
    }
}

impl Place {
    /// The names and indices that lead to the field.
    pub fn path(self) -> Vec<String> {
        match self {
            Place::Image | Place::Mask => vec![self.name().to_owned()],
            Place::Control(i) => vec![self.name().to_owned(), i.to_string(), "image".to_owned()],
        }
    }

    /// The field of the request.
    pub fn name(self) -> &'static str {
        match self {
            Place::Image => "image",
            Place::Mask => "mask",
            Place::Control(_) => "controls",
        }
    }
}

fn base64(text: &str) -> Result<Given, (&'static str, String)> {
    let decoded = match STANDARD.decode(text) {
        // Encoders that break lines are common.
        Err(DecodeError::InvalidByte(_, byte)) if byte.is_ascii_whitespace() => {
            STANDARD.decode(text.chars().filter(|c| !c.is_ascii_whitespace()).collect::<String>())
        }
        decoded => decoded,
    };
    match decoded {
        Ok(bytes) => Ok(Given::File(bytes.into())),
        Err(error) => Err(("invalid_value", format!("is not base64: {error}"))),
    }
}

/// `data:image/png;base64,…`
fn data_url(text: &str) -> Result<Given, (&'static str, String)> {
    let data = text.strip_prefix("data:").and_then(|rest| rest.split_once(','));
    match data.filter(|(kind, _)| kind.ends_with(";base64")) {
        Some((_, data)) => base64(data),
        None => Err(("invalid_value", "must read data:image/png;base64,…".to_owned())),
    }
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
            (json!({"b64": "aGk="}), Given::File("hi".into())),
            (json!({"b64": "aG\r\nk="}), Given::File("hi".into())),
            (json!("aGk="), Given::File("hi".into())),
            (json!({"data_url": "data:image/png;base64,aGk="}), Given::File("hi".into())),
            (json!("data:image/jpeg;base64,aGk="), Given::File("hi".into())),
            (json!({"upload": upload}), Given::Upload(upload.clone())),
            (json!({"upload": upload, "width": 3, "height": 4}), Given::Upload(upload.clone())),
        ] {
            let mut request = fields(json!({"image": value, "controls": [{"model": "canny", "image": value}, {}]}));
            let pictures = request.pictures();
            assert_eq!(pictures, [(Place::Image, expected.clone()), (Place::Control(0), expected)], "{value}");
        }
    }

    #[test]
    fn what_is_no_picture_is_refused_where_it_stands() {
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
    fn a_stored_picture_stands_where_it_was_asked_for() {
        let image = InputImage { upload: "0".repeat(64), width: 3, height: 4 };
        let mut request = fields(json!({"image": "aGk=", "controls": [{"image": "aGk="}]}));
        for (place, _) in request.pictures() {
            request.place(place, &image);
        }
        assert_eq!(InputImage::read(&mut request, "image"), Some(image.clone()));
        assert_eq!(request.take("controls"), Some(json!([{"image": image.field()}])));
    }
}
