//! Paths of resources, and links between pages of lists.

use crate::generation::{EndpointId, GenerationId};

/// The path of a generation.
pub fn generation(id: &GenerationId) -> String {
    format!("/v1/images/{id}")
}

/// The path of the file of an artifact.
pub fn artifact(id: &GenerationId, index: u32) -> String {
    format!("/v1/images/{id}/content/{index}")
}

/// The path of the events of a generation.
pub fn events(id: &GenerationId) -> String {
    format!("/v1/images/{id}/events")
}

/// The path of the newest preview of a generation.
pub fn preview(id: &GenerationId) -> String {
    format!("/v1/images/{id}/preview")
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
