//! Negotiates the form of an answer (`Accept`, RFC 9110) and how long a client waits for it (`Prefer`, RFC 7240).

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{FromRef, FromRequestParts},
    http::{HeaderMap, HeaderName, header, request::Parts},
};

use super::{error::ApiError, url::kind_of};
use crate::{
    config::Http,
    generation::{Format, WorkKind},
    service::Waited,
};

/// The forms of the answer to a request that creates a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseType {
    /// The generation object.
    Json,
    /// The bytes of artifact 0 in this format.
    File(Format),
    /// The events of the generation, as they happen.
    Events,
}

impl ResponseType {
    /// All forms for generations of this kind, in the server's order of preference.
    fn all(kind: WorkKind) -> Vec<ResponseType> {
        let files = kind.formats().iter().copied().map(ResponseType::File);
        [ResponseType::Json].into_iter().chain(files).chain([ResponseType::Events]).collect()
    }

    fn media_type(self) -> &'static str {
        match self {
            ResponseType::Json => "application/json",
            ResponseType::File(format) => format.media_type(),
            ResponseType::Events => "text/event-stream",
        }
    }
}

/// The media types that a client accepts.
#[derive(Debug)]
pub struct Accept {
    /// The kind of the generation.
    kind: WorkKind,
    /// Empty if the client accepts everything.
    ranges: Vec<MediaRange>,
}

impl Accept {
    /// Reads the header `Accept` of a request for a generation of this kind.
    ///
    /// # Errors
    /// `not_acceptable` if the client accepts no form of the answer, `bad_header` if an item is not a media type or its
    /// quality is not a number in 0..=1.
    pub fn of(headers: &HeaderMap, kind: WorkKind) -> Result<Accept, ApiError> {
        let accept = Accept { kind, ranges: media_ranges(headers)? };
        accept.answer(None).map(|_| accept)
    }

    /// Accepts only pictures of this format.
    pub fn only(format: Format) -> Accept {
        let range = MediaRange { kind: "image".to_owned(), subtype: format.name().to_owned(), quality: 1000 };
        Accept { kind: WorkKind::Draw, ranges: vec![range] }
    }

    /// The answer whose media range has the highest quality. Among equal qualities, the answer with the more specific
    /// range wins, then the answer whose range comes first. If the request names a format, files of other formats are
    /// excluded.
    ///
    /// # Errors
    /// `not_acceptable` if no answer is left.
    pub fn answer(&self, named: Option<Format>) -> Result<ResponseType, ApiError> {
        let is_offered = |answer: &ResponseType| match answer {
            ResponseType::File(format) => named.is_none_or(|named| named == *format),
            ResponseType::Json | ResponseType::Events => true,
        };
        let offers = ResponseType::all(self.kind).into_iter().filter(is_offered);
        // `max_by_key` returns the last of equal ranks, so the offers are reversed to prefer the first.
        let best =
            offers.clone().rev().filter_map(|answer| Some((answer, self.rank(answer)?))).max_by_key(|(_, rank)| *rank);
        best.map(|(answer, _)| answer).ok_or_else(|| {
            let types: Vec<&str> = offers.map(ResponseType::media_type).collect();
            ApiError::NotAcceptable(types.join(", "))
        })
    }

    /// Checks that the client accepts files of this format.
    ///
    /// # Errors
    /// `not_acceptable` if the client does not.
    pub fn check(&self, format: Format) -> Result<(), ApiError> {
        let rank = self.rank(ResponseType::File(format));
        rank.map(|_| ()).ok_or_else(|| ApiError::NotAcceptable(format.media_type().to_owned()))
    }

    /// Quality, exactness and position of the range that covers this answer; `None` if the client does not accept this
    /// answer.
    fn rank(&self, answer: ResponseType) -> Option<(u16, u8, usize)> {
        if self.ranges.is_empty() {
            return Some((1000, 0, 0));
        }
        let ranges = self.ranges.iter().enumerate().map(|(position, range)| (range, usize::MAX - position));
        let matching = ranges.filter(|(range, _)| range.covers(answer.media_type()));
        let (range, place) = matching.max_by_key(|(range, place)| (range.exactness(), *place))?;
        (range.quality > 0).then(|| (range.quality, range.exactness(), place))
    }
}

#[derive(Debug)]
struct MediaRange {
    kind: String,
    subtype: String,
    /// In thousandths, 0..=1000.
    quality: u16,
}

impl MediaRange {
    fn covers(&self, media_type: &str) -> bool {
        let is = |pattern: &str, name: &str| pattern == "*" || pattern == name;
        media_type.split_once('/').is_some_and(|(kind, subtype)| is(&self.kind, kind) && is(&self.subtype, subtype))
    }

    fn exactness(&self) -> u8 {
        u8::from(self.kind != "*") + u8::from(self.subtype != "*")
    }
}

fn media_ranges(headers: &HeaderMap) -> Result<Vec<MediaRange>, ApiError> {
    let mut ranges = Vec::new();
    for item in items(headers, header::ACCEPT, "Accept")? {
        let mut parts = item.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
        // Old Java clients send a single star instead of */*.
        let (kind, subtype) = match essence.split_once('/') {
            Some((kind, subtype)) => (kind, subtype),
            None if essence == "*" => ("*", "*"),
            None => {
                return Err(bad("Accept", format!("holds {item:?}, which is no media type")));
            }
        };
        let quality = parts.find_map(|parameter| parameter.strip_prefix("q=").or(parameter.strip_prefix("Q=")));
        let quality = match quality.map(|text| text.trim().parse::<f32>()) {
            None => 1000,
            Some(Ok(quality)) if (0.0..=1.0).contains(&quality) => (quality * 1000.0).round() as u16,
            Some(_) => {
                return Err(bad("Accept", format!("holds {item:?}, whose q is not in 0..1")));
            }
        };
        // Older media types of WAV and FLAC files, and the media type of Opus without a container file.
        let subtype = match (kind, subtype) {
            ("audio", "x-wav" | "wave" | "vnd.wave") => "wav",
            ("audio", "x-flac") => "flac",
            ("audio", "opus") => "ogg",
            _ => subtype,
        };
        ranges.push(MediaRange { kind: kind.to_owned(), subtype: subtype.to_owned(), quality });
    }
    Ok(ranges)
}

/// How long a client wants to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefer {
    /// The time that the client asks for, at most the operator's bound.
    pub wait: Option<Duration>,
    pub respond_async: bool,
    /// How long an answer with a picture waits if the client does not say how long.
    pub default_wait: Duration,
}

impl Prefer {
    /// Reads `Prefer`. Ignores other preferences and a `wait` that is not a number of seconds, as RFC 7240 requires. A
    /// `wait` without a value means `default_wait`.
    pub fn of(headers: &HeaderMap, default_wait: Duration, max_wait: Duration) -> Prefer {
        let mut prefer = Prefer { wait: None, respond_async: false, default_wait };
        let mut waits = false;
        let lines = headers.get_all("prefer").iter().filter_map(|line| line.to_str().ok());
        for item in lines.flat_map(|line| unquoted_split(line, ',')) {
            let preference = unquoted_split(item, ';').next().unwrap_or_default();
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "respond-async" => prefer.respond_async = true,
                // Only the first `wait` counts.
                "wait" if !waits => {
                    waits = true;
                    prefer.wait = match value.trim().trim_matches('"') {
                        "" => Some(default_wait.min(max_wait)),
                        // A number that does not fit into 64 bits means a very long time.
                        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                            Some(digits.parse().map_or(max_wait, Duration::from_secs).min(max_wait))
                        }
                        _ => None,
                    };
                }
                _ => {}
            }
        }
        prefer
    }

    /// The preferences that were applied: without `wait` if the wait was cut short.
    pub fn after(self, waited: &Waited) -> Prefer {
        Prefer { wait: self.wait.filter(|_| !waited.is_cut_short), ..self }
    }

    /// The value of `Preference-Applied`.
    pub fn applied(&self) -> Option<String> {
        match self.wait {
            Some(wait) => Some(format!("wait={}", wait.as_secs())),
            None if self.respond_async => Some("respond-async".to_owned()),
            None => None,
        }
    }
}

/// The comma-separated items of all header lines of this name.
fn items(headers: &HeaderMap, name: HeaderName, shown: &'static str) -> Result<Vec<String>, ApiError> {
    let mut items = Vec::new();
    for value in headers.get_all(name) {
        let text = value.to_str().map_err(|_| bad(shown, "is not ASCII".to_owned()))?;
        items.extend(unquoted_split(text, ',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()));
    }
    Ok(items)
}

/// Splits a header's value at the separators that are outside of quoted strings (RFC 9110, section 5.6.4).
fn unquoted_split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |character| {
        let separates = character == separator && !quoted;
        (quoted, escaped) = match character {
            _ if escaped => (quoted, false),
            '"' => (!quoted, false),
            '\\' => (quoted, quoted),
            _ => (quoted, false),
        };
        separates
    })
}

fn bad(name: &'static str, detail: String) -> ApiError {
    ApiError::BadHeader { name, detail: detail.chars().take(200).collect() }
}

impl<S: Send + Sync> FromRequestParts<S> for Accept {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Accept::of(&parts.headers, kind_of(parts.uri.path()))
    }
}

impl<S> FromRequestParts<S> for Prefer
where
    Arc<Http>: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let http = Arc::<Http>::from_ref(state);
        Ok(Prefer::of(&parts.headers, http.wait_default_s.into(), http.wait_max_s.into()))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const PNG: ResponseType = ResponseType::File(Format::Png);
    const JPEG: ResponseType = ResponseType::File(Format::Jpeg);
    const WEBP: ResponseType = ResponseType::File(Format::Webp);

    /// The answer if the request names this format.
    fn answer(value: &str, named: Option<Format>) -> Result<ResponseType, u16> {
        let headers = HeaderMap::from_iter([(header::ACCEPT, value.parse().unwrap())]);
        Accept::of(&headers, WorkKind::Draw).and_then(|accept| accept.answer(named)).map_err(|error| match error {
            ApiError::NotAcceptable(_) => 406,
            ApiError::BadHeader { .. } => 400,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn the_answer_follows_accept() {
        let cases = [
            ("*/*", Ok(ResponseType::Json)),
            ("*", Ok(ResponseType::Json)),
            ("", Ok(ResponseType::Json)),
            (" , ", Ok(ResponseType::Json)),
            ("application/json", Ok(ResponseType::Json)),
            ("application/*", Ok(ResponseType::Json)),
            ("APPLICATION/JSON", Ok(ResponseType::Json)),
            ("application/json; charset=utf-8", Ok(ResponseType::Json)),
            ("image/png", Ok(PNG)),
            ("image/*", Ok(PNG)),
            ("image/png, */*;q=0.1", Ok(PNG)),
            ("image/png, */*", Ok(PNG)),
            ("image/avif,image/webp,image/apng,image/*,*/*;q=0.8", Ok(WEBP)),
            ("image/webp;q=1, image/png;q=0.5, application/json;q=0.4", Ok(WEBP)),
            ("image/webp;q=0.5, image/jpeg;q=0.6, image/png;q=0.4", Ok(JPEG)),
            ("image/jpeg, image/png;q=0.9, */*;q=0.1", Ok(JPEG)),
            ("image/jpeg, image/webp", Ok(JPEG)),
            ("image/webp, image/jpeg", Ok(WEBP)),
            ("image/jpeg;q=0.5, image/*;q=0.5", Ok(JPEG)),
            ("image/png;q=0, image/*", Ok(JPEG)),
            ("image/png;q=0, image/jpeg;q=0, image/*", Ok(WEBP)),
            ("image/png;q=0.5, application/json", Ok(ResponseType::Json)),
            ("image/png, application/json", Ok(PNG)),
            ("application/json, image/png", Ok(ResponseType::Json)),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Ok(ResponseType::Json)),
            ("text/event-stream", Ok(ResponseType::Events)),
            ("text/event-stream, application/json;q=0.9", Ok(ResponseType::Events)),
            ("application/json, text/event-stream", Ok(ResponseType::Json)),
            ("application/json;q=0, */*", Ok(PNG)),
            ("application/json;q=0, image/*;q=0, */*", Ok(ResponseType::Events)),
            ("image/jpeg", Ok(JPEG)),
            ("IMAGE/WEBP", Ok(WEBP)),
            ("image/jpg", Err(406)),
            ("image/avif", Err(406)),
            ("image/jpeg;q=0", Err(406)),
            ("image/webp;q=1.5", Err(400)),
            ("text/html", Err(406)),
            ("image/png;q=0", Err(406)),
            ("*/*;q=0", Err(406)),
            ("image/png;q=2", Err(400)),
            ("image/png;q=NaN", Err(400)),
            ("image/png;q=high", Err(400)),
            ("png", Err(400)),
        ];
        for (value, expected) in cases {
            assert_eq!(answer(value, None), expected, "{value:?}");
        }
        assert_eq!(Accept::of(&HeaderMap::new(), WorkKind::Draw).unwrap().answer(None).unwrap(), ResponseType::Json);
    }

    #[test]
    fn a_request_that_names_a_format_has_pictures_of_that_alone() {
        let cases = [
            ("image/jpeg", Ok(JPEG)),
            ("image/*", Ok(JPEG)),
            ("image/png, image/*;q=0.1", Ok(JPEG)),
            ("*/*", Ok(ResponseType::Json)),
            ("image/png, */*;q=0.1", Ok(ResponseType::Json)),
            ("image/webp, text/event-stream;q=0.1", Ok(ResponseType::Events)),
            ("image/png", Err(406)),
            ("image/jpeg;q=0, image/*", Err(406)),
        ];
        for (value, expected) in cases {
            assert_eq!(answer(value, Some(Format::Jpeg)), expected, "{value:?}");
        }
        let headers = HeaderMap::from_iter([(header::ACCEPT, "image/png".parse().unwrap())]);
        let refusal = Accept::of(&headers, WorkKind::Draw).unwrap().answer(Some(Format::Webp)).unwrap_err().to_string();
        assert!(refusal.ends_with("application/json, image/webp, text/event-stream"), "{refusal}");
    }

    #[test]
    fn a_sound_is_offered_in_its_own_format() {
        let answer = |value: &str| {
            let headers = HeaderMap::from_iter([(header::ACCEPT, value.parse().unwrap())]);
            Accept::of(&headers, WorkKind::Sound).and_then(|accept| accept.answer(None)).ok()
        };
        let wav = ResponseType::File(Format::Wav);
        for value in ["audio/wav", "audio/*", "audio/wav, */*;q=0.1"] {
            assert_eq!(answer(value), Some(wav), "{value}");
        }
        assert_eq!(answer("*/*"), Some(ResponseType::Json));
        assert_eq!(answer("image/png"), None);
    }

    #[test]
    fn a_path_takes_its_own_format_alone() {
        for format in Format::PICTURES {
            let accept = Accept::only(format);
            assert_eq!(accept.answer(None).unwrap(), ResponseType::File(format));
            assert!(Format::PICTURES.into_iter().all(|other| accept.check(other).is_ok() == (other == format)));
        }
    }

    #[test]
    fn lines_of_accept_count_together() {
        let line = |value: &str| (header::ACCEPT, value.parse().unwrap());
        let headers = HeaderMap::from_iter([line("application/json;q=0.1"), line("image/png")]);
        assert_eq!(Accept::of(&headers, WorkKind::Draw).unwrap().answer(None).unwrap(), PNG);
    }

    #[test]
    fn the_wait_follows_prefer() {
        let second = Duration::from_secs;
        let cases = [
            ("", None, None),
            ("respond-async", None, Some("respond-async")),
            ("wait=10", Some(10), Some("wait=10")),
            ("Wait = \"10\"", Some(10), Some("wait=10")),
            ("respond-async, wait=10", Some(10), Some("wait=10")),
            ("wait=10; x=1, wait=20", Some(10), Some("wait=10")),
            ("wait=0", Some(0), Some("wait=0")),
            ("wait=301", Some(300), Some("wait=300")),
            ("wait=99999999999999999999999999", Some(300), Some("wait=300")),
            ("return=minimal, handling=lenient", None, None),
            // Replicate's client sends `wait` without a value.
            ("wait", Some(60), Some("wait=60")),
            ("wait=", Some(60), Some("wait=60")),
            ("wait=\"\"; x", Some(60), Some("wait=60")),
            ("WAIT, respond-async", Some(60), Some("wait=60")),
            // A value that is not understood is not an error.
            ("wait=-1", None, None),
            ("wait=1.5", None, None),
            ("wait=soon", None, None),
            ("wait=soon, respond-async", None, Some("respond-async")),
            ("wait=soon, wait=10", None, None),
            ("x=\"a, wait=10; \\\", wait=11\", wait=12", Some(12), Some("wait=12")),
            ("x=\"a, wait=10", None, None),
        ];
        for (value, wait, applied) in cases {
            let headers = HeaderMap::from_iter([(HeaderName::from_static("prefer"), value.parse().unwrap())]);
            let read = Prefer::of(&headers, second(60), second(300));
            let expected = (wait.map(second), applied.map(str::to_owned));
            assert_eq!((read.wait, read.applied()), expected, "{value:?}");
        }
        let foreign = [(HeaderName::from_static("prefer"), HeaderValue::from_bytes(b"wait=\xff").unwrap())];
        assert_eq!(Prefer::of(&HeaderMap::from_iter(foreign), second(60), second(300)).wait, None);
        // A default above the bound is cut to the bound.
        let bare = HeaderMap::from_iter([(HeaderName::from_static("prefer"), HeaderValue::from_static("wait"))]);
        assert_eq!(Prefer::of(&bare, second(60), second(30)).wait, Some(second(30)));
    }
}
