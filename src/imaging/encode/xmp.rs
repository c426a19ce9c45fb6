//! XMP, the place for what no EXIF field is meant for: the request itself, and the seed.

use std::fmt::Write;

/// The namespace of this program's properties.
const NAMESPACE: &str = "https://latentd.dev/ns/1.0/";

/// A packet with one property of this program, a JSON text.
pub(super) fn packet(property: &str, json: &str) -> String {
    wrapped(&document(property, json))
}

/// The same for a place that is too small for it (a segment of a JPEG): a packet that refers to the document, and the
/// document, by this digest of it in hexadecimal digits (XMP specification part 3, 1.1.3.1).
pub(super) fn packet_of(digest: &str) -> String {
    let note = format!(r#" xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="{digest}""#);
    wrapped(&description(&note, ""))
}

/// What a packet wraps.
pub(super) fn document(property: &str, json: &str) -> String {
    let element = format!("<latentd:{property}>{}</latentd:{property}>", escaped(json));
    description(&format!(r#" xmlns:latentd="{NAMESPACE}""#), &element)
}

fn wrapped(document: &str) -> String {
    format!("<?xpacket begin=\"\u{feff}\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>{document}<?xpacket end=\"r\"?>")
}

fn description(attributes: &str, content: &str) -> String {
    format!(
        r#"<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""{attributes}>{content}</rdf:Description></rdf:RDF></x:xmpmeta>"#
    )
}

/// The JSON text as the text of an element. The control characters that XML cannot hold are escaped in JSON already, and
/// its two other characters are escaped in JSON's way here.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len() + json.len() / 8);
    for character in json.chars() {
        match character {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '\u{fffe}' | '\u{ffff}' => {
                // Writing to a string cannot fail.
                let _ = write!(text, "\\u{:04x}", u32::from(character));
            }
            other => text.push(other),
        }
    }
    text
}
