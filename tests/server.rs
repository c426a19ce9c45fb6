//! Tests of the server binary over HTTP.

#[path = "support/server.rs"]
mod harness;

#[path = "support/fixtures.rs"]
mod fixtures;
#[path = "support/promql.rs"]
mod promql;
#[path = "support/random.rs"]
mod random;
#[path = "support/requests.rs"]
mod requests;
#[path = "support/s3.rs"]
mod s3;
#[path = "support/safety_checker.rs"]
mod safety_checker;
#[path = "support/transformers.rs"]
mod transformers;

#[path = "server/bad_input.rs"]
mod bad_input;
#[path = "server/batching.rs"]
mod batching;
#[path = "server/bodies.rs"]
mod bodies;
#[path = "server/bucket.rs"]
mod bucket;
#[path = "server/command_line.rs"]
mod command_line;
#[path = "server/devices.rs"]
mod devices;
#[path = "server/disconnects.rs"]
mod disconnects;
#[path = "server/documents.rs"]
mod documents;
#[path = "server/events.rs"]
mod events;
#[path = "server/faults.rs"]
mod faults;
#[path = "server/formats.rs"]
mod formats;
#[path = "server/inputs.rs"]
mod inputs;
#[path = "server/journeys.rs"]
mod journeys;
#[path = "server/keys.rs"]
mod keys;
#[path = "server/memory.rs"]
mod memory;
#[path = "server/model_defaults.rs"]
mod model_defaults;
#[path = "server/models.rs"]
mod models;
#[path = "server/monitoring.rs"]
mod monitoring;
#[path = "server/old_folders.rs"]
mod old_folders;
#[path = "server/open_files.rs"]
mod open_files;
#[path = "server/operator.rs"]
mod operator;
#[path = "server/parity_over_http.rs"]
mod parity_over_http;
#[path = "server/precision.rs"]
mod precision;
#[cfg(feature = "provenance")]
#[path = "server/provenance.rs"]
mod provenance;
#[path = "server/random_requests.rs"]
mod random_requests;
#[path = "server/repeated.rs"]
mod repeated;
#[path = "server/responsiveness.rs"]
mod responsiveness;
#[path = "server/resume.rs"]
mod resume;
#[path = "server/safety.rs"]
mod safety;
#[path = "server/steered.rs"]
mod steered;
#[path = "server/upgrade.rs"]
mod upgrade;
#[path = "server/watermark.rs"]
mod watermark;

use parity_over_http::case;
