//! Tests of the HTTP routes on a real ledger. The tests play the worker, and every answer is checked against
//! `openapi.yaml`.

#[path = "http_routes/api.rs"]
mod api;
#[path = "contract/conforms.rs"]
mod conforms;
#[path = "support/random.rs"]
mod random;
#[path = "support/transformers.rs"]
mod transformers;

#[path = "http_routes/admin.rs"]
mod admin;
#[path = "http_routes/browsers.rs"]
mod browsers;
#[path = "http_routes/counted.rs"]
mod counted;
#[path = "http_routes/create.rs"]
mod create;
#[path = "http_routes/draining.rs"]
mod draining;
#[path = "http_routes/faces.rs"]
mod faces;
#[path = "http_routes/faults.rs"]
mod faults;
#[path = "http_routes/formats.rs"]
mod formats;
#[path = "http_routes/forms.rs"]
mod forms;
#[path = "http_routes/idempotency.rs"]
mod idempotency;
#[path = "http_routes/inputs.rs"]
mod inputs;
#[path = "http_routes/keys.rs"]
mod keys;
#[path = "http_routes/links.rs"]
mod links;
#[path = "http_routes/loras.rs"]
mod loras;
#[path = "http_routes/models.rs"]
mod models;
#[path = "http_routes/ollama.rs"]
mod ollama;
#[path = "http_routes/openai.rs"]
mod openai;
#[path = "http_routes/other.rs"]
mod other;
#[path = "http_routes/read.rs"]
mod read;
#[path = "http_routes/refusals.rs"]
mod refusals;
#[path = "http_routes/refused_before_acceptance.rs"]
mod refused_before_acceptance;
#[path = "http_routes/schema.rs"]
mod schema;
#[path = "http_routes/sdapi.rs"]
mod sdapi;
#[path = "http_routes/silence.rs"]
mod silence;
#[path = "http_routes/stars.rs"]
mod stars;
#[path = "http_routes/tenant_events.rs"]
mod tenant_events;
#[path = "http_routes/tenants.rs"]
mod tenants;
#[path = "http_routes/warnings.rs"]
mod warnings;
#[path = "http_routes/web_interface.rs"]
mod web_interface;
#[path = "http_routes/without_prompt.rs"]
mod without_prompt;

/// Bytes that begin with the signature of a PNG file; the rest is arbitrary.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\nand so on";
