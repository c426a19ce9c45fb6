//! Writes XMP. It holds the request or the seed, for which EXIF has no field.

use std::fmt::Write;

/// The XML namespace of this program's properties.
const NAMESPACE: &str = "https://latentd.dev/ns/1.0/";

/// A packet with one property of this program. The value of the property is a JSON text.
pub(crate) fn packet(property: &str, json: &str) -> String {
    wrapped(&document(property, json))
}

/// A packet that refers to a document in other segments, for a document that does not fit into one segment (XMP
/// specification part 3, 1.1.3.1). `digest` is the MD5 digest of the document in hexadecimal.
pub(super) fn packet_of(digest: &str) -> String {
    let note = format!(r#" xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="{digest}""#);
    wrapped(&description(&note, ""))
}

/// The XMP document inside a packet.
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

/// The JSON text, escaped for an XML element. JSON already escapes the control characters that XML cannot contain. This
/// function escapes the two other forbidden characters, in the form of JSON.
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
