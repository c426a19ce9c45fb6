//! Paths of resources, and links between pages of lists.

use crate::generation::{EndpointId, GenerationId, Record, WorkKind};

/// The place of a generation in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    pub kind: WorkKind,
    pub id: GenerationId,
}

impl Location {
    pub fn of(record: &Record) -> Location {
        Location { kind: record.job.work.kind(), id: record.id }
    }

    /// The path of the generation.
    pub fn path(&self) -> String {
        format!("{}/{}", self.kind.root(), self.id)
    }

    /// The path of the file of an artifact.
    pub fn artifact(&self, index: u32) -> String {
        format!("{}/content/{index}", self.path())
    }

    /// The path of the events.
    pub fn events(&self) -> String {
        format!("{}/events", self.path())
    }

    /// The path of the newest preview.
    pub fn preview(&self) -> String {
        format!("{}/preview", self.path())
    }

    /// The path that cancels the generation.
    pub fn cancel(&self) -> String {
        format!("{}/cancel", self.path())
    }
}

/// The kind of the generations that a path is about: the kind whose root is this path or contains it. Every other path
/// is about pictures.
pub fn kind_of(path: &str) -> WorkKind {
    let is_below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    WorkKind::ALL.into_iter().find(|kind| is_below(kind.root())).unwrap_or_default()
}

/// The path of the events of all generations of the caller's tenant.
pub const TENANT_EVENTS: &str = "/v1/events";

/// The path of a webhook endpoint.
pub fn webhook_endpoint(id: EndpointId) -> String {
    format!("/v1/webhook_endpoints/{id}")
}

/// The value of a `Link` header (RFC 8288) that points to the next page of the list at `path`. Parameters without a
/// value are skipped.
pub fn next_page<'a>(path: &str, parameters: impl IntoIterator<Item = (&'a str, Option<String>)>) -> String {
    let present = parameters.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encode(&value?))));
    format!("<{path}?{}>; rel=\"next\"", present.collect::<Vec<String>>().join("&"))
}

/// Percent-encodes every byte that is not an unreserved character (RFC 3986, section 2.3).
pub fn encode(text: &str) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    encoded.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::urlencoded;

    #[test]
    fn absent_parameters_are_skipped() {
        let link = next_page("/v1/images", [("limit", Some("2".to_owned())), ("model", None)]);
        assert_eq!(link, "</v1/images?limit=2>; rel=\"next\"");
    }

    #[test]
    fn the_root_of_a_path_tells_the_kind() {
        for (path, kind) in [
            ("/v1/images", WorkKind::Draw),
            ("/v1/images.png", WorkKind::Draw),
            ("/v1/audio", WorkKind::Sound),
            ("/v1/audio/img_x/content/0", WorkKind::Sound),
            ("/v1/audios", WorkKind::Draw),
            ("/v1/videos/img_x", WorkKind::Film),
        ] {
            assert_eq!(kind_of(path), kind, "{path}");
        }
    }

    proptest! {
        /// The server reads every value of a link as it was.
        #[test]
        fn values_survive(model in ".*", tenant in ".*") {
            let link = next_page("/p", [("model", Some(model.clone())), ("tenant", Some(tenant.clone()))]);
            let query = link.strip_prefix("</p?").and_then(|rest| rest.strip_suffix(">; rel=\"next\"")).unwrap();
            let pairs = urlencoded::pairs(query.as_bytes()).unwrap();
            prop_assert_eq!(pairs, [("model".to_owned(), model), ("tenant".to_owned(), tenant)]);
        }
    }
}
