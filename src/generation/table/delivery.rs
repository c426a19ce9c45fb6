//! The fields about the files and the delivery of a generation.

use serde_json::json;

use super::upto;
use crate::generation::{
    Encoding, Format, Webhook, WebhookEvent,
    field::{Field, Kind},
};

pub static PRECISION: Field = Field::new(
    "precision",
    Kind::Word(|_| vec!["exact", "fast"]),
    "fast: the networks compute with rounded numbers where this is faster: an approximation.",
)
.default(|on| Some(on.card.default_precision.as_str().into()));
pub static PREVIEWS: Field =
    Field::new("previews", Kind::Integer(|_| upto(0, 10)), "The number of previews, evenly spaced over the steps.")
        .default(|_| Some(0.into()))
        .beside_picture();
pub static OUTPUT: Field = Field::new(
    "output",
    Kind::Object(&[&OUTPUT_FORMAT, &OUTPUT_QUALITY, &OUTPUT_METADATA, &OUTPUT_PROVENANCE]),
    "The format of the files.",
);
pub static OUTPUT_FORMAT: Field =
    Field::new("format", Kind::Word(|_| Format::PICTURES.map(Format::name).to_vec()), "The file format.")
        .default(|_| Some("png".into()));
pub static OUTPUT_QUALITY: Field =
    Field::new("quality", Kind::Integer(|_| upto(1, 100)), "The quality of a JPEG, on libjpeg's scale.")
        .default(|_| Some(Encoding::DEFAULT_QUALITY.into()));
pub static OUTPUT_METADATA: Field = Field::new(
    "metadata",
    Kind::Word(|_| vec!["full", "seed", "none"]),
    "Which parameters of the request the file contains.",
)
.default(|_| Some("full".into()));
pub static OUTPUT_PROVENANCE: Field = Field::new(
    "provenance",
    Kind::Flag,
    "Whether the file is signed with content credentials, and the picture marked with a watermark, if the server does so. \
     Both say that a model made the picture.",
)
.default(|_| Some(true.into()));
pub static ON_DISCONNECT: Field = Field::new(
    "on_disconnect",
    Kind::Word(|_| vec!["auto", "keep", "cancel"]),
    "What happens to the generation when a waiting client disconnects.",
)
.default(|_| Some("auto".into()))
.beside_picture();
pub static PRIORITY: Field =
    Field::new("priority", Kind::Word(|_| vec!["low", "normal", "high"]), "The priority in the queue.")
        .default(|_| Some("normal".into()))
        .hidden()
        .beside_picture();
pub static START_TIMEOUT_S: Field = Field::new(
    "start_timeout_s",
    Kind::Integer(|_| upto(1, 86_400)),
    "Seconds that the generation may wait in the queue before it expires.",
)
.default(|_| Some(600.into()))
.beside_picture();
pub static RUN_TIMEOUT_S: Field =
    Field::new("run_timeout_s", Kind::Integer(|_| upto(1, 3600)), "Seconds that one attempt may take.")
        .hidden()
        .beside_picture();
pub static WEBHOOK: Field = Field::new(
    "webhook",
    Kind::Object(&[&WEBHOOK_ENDPOINT, &WEBHOOK_URL, &WEBHOOK_EVENTS]),
    "A receiver of the generation's events over HTTP.",
)
.hidden()
.beside_picture();
pub static WEBHOOK_ENDPOINT: Field =
    Field::new("endpoint", Kind::Text(|_| 64), "The id of a registered endpoint.").excludes(&["url"]);
pub static WEBHOOK_URL: Field =
    Field::new("url", Kind::Text(|_| Webhook::MAX_URL_CHARS), "The URL of a receiver for this request only.");
pub static WEBHOOK_EVENTS: Field = Field::new(
    "events",
    Kind::Words { words: &WebhookEvent::WORDS, most: WebhookEvent::MOST },
    "The events that the receiver gets.",
)
.needs(|_| Some("url"))
.default(|_| Some(json!(["completed"])));
pub static METADATA: Field = Field::new("metadata", Kind::Labels, "Labels of the client: pairs of strings.")
    .default(|_| Some(json!({})))
    .hidden()
    .beside_picture();
