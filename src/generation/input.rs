//! Pictures that a request brings along.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Fields;

/// A picture that a client sent, as the store keeps it: 8-bit RGB, upright, without transparency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputImage {
    /// SHA-256 of the stored file in hexadecimal digits, by which a later request may name it again.
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
    File(Vec<u8>),
    /// One that was stored before.
    Upload(String),
}

impl InputImage {
    /// Reads a field whose picture was stored; [`Fields::pictures`] has put it there.
    pub(super) fn read(fields: &mut Fields, name: &str) -> Option<InputImage> {
        let value = fields.take(name)?;
        match serde_json::from_value(value.clone()) {
            Ok(image) => Some(image),
            Err(_) => fields.wrong_type(name, "a picture", &value),
        }
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
    /// Every picture that the request brings and where, for the caller to store and to answer with [`Fields::place`] or
    /// [`Fields::refuse`]. What is no picture is refused here.
    pub fn pictures(&mut self) -> Vec<(Place, Given)> {
        let controls = match self.peek("controls") {
            Some(Value::Array(controls)) => controls.len(),
            _ => 0,
        };
        let places = [Place::Image, Place::Mask].into_iter().chain((0..controls).map(Place::Control));
        places.collect::<Vec<_>>().into_iter().filter_map(|place| Some((place, self.given(place)?))).collect()
    }

    /// Puts a stored picture where it was asked for.
    pub fn place(&mut self, place: Place, image: &InputImage) {
        match self.at(place) {
            Some(field) => *field = image.field(),
            None => self.put_back(place.name(), image.field()),
        }
    }

    /// Notes that a picture cannot be used.
    pub fn refuse(&mut self, place: Place, code: &'static str, detail: String) {
        match place {
            Place::Image | Place::Mask => {
                self.take(place.name());
                self.error(place.name(), code, detail);
            }
            Place::Control(i) => {
                if let Some(field) = self.at(place) {
                    *field = Value::Null;
                }
                self.error_at(&["controls", &i.to_string(), "image"], code, detail);
            }
        }
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
            Value::String(text) if text.starts_with("data:") => return data_url(&text).map(Given::File),
            Value::String(text) => return base64(&text).map(Given::File),
            Value::Object(map) => map,
            _ => return Err(wrong()),
        };
        // The size may stand beside an upload, as this server's own answers have it.
        let mut keys = map.iter().filter(|(key, _)| !matches!(key.as_str(), "width" | "height"));
        let (Some((key, Value::String(text))), None) = (keys.next(), keys.next()) else { return Err(wrong()) };
        match key.as_str() {
            "b64" => base64(text).map(Given::File),
            "data_url" => data_url(text).map(Given::File),
            "file" => match self.take_file(text) {
                Some(bytes) => Ok(Given::File(bytes)),
                None => Err(("invalid_value", format!("names the file {text:?}, which is not in the body"))),
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
    fn name(self) -> &'static str {
        match self {
            Place::Image => "image",
            Place::Mask => "mask",
            Place::Control(_) => "controls",
        }
    }
}

fn base64(text: &str) -> Result<Vec<u8>, (&'static str, String)> {
    // Encoders that break lines are common.
    let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(&text).map_err(|error| ("invalid_value", format!("is not base64: {error}")))
}

/// `data:image/png;base64,…`
fn data_url(text: &str) -> Result<Vec<u8>, (&'static str, String)> {
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
            (json!({"b64": "aGk="}), Given::File(b"hi".to_vec())),
            (json!({"b64": "aG\r\nk="}), Given::File(b"hi".to_vec())),
            (json!("aGk="), Given::File(b"hi".to_vec())),
            (json!({"data_url": "data:image/png;base64,aGk="}), Given::File(b"hi".to_vec())),
            (json!("data:image/jpeg;base64,aGk="), Given::File(b"hi".to_vec())),
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
