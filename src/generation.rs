//! The domain: requests, generations and their results, and the rules for them. No I/O and no candle; only a new id
//! reads the clock.
//!
//! A request enters as a JSON object ([`Fields`]) and becomes a [`Job`], in which every default is filled in; `None`
//! has a fixed meaning, such as no refiner. Later code repeats only the checks that depend on the files of models,
//! because these files may have changed. The ledger keeps a [`Record`] of each generation; clients see its [`Status`]
//! and [`Event`]s.

mod allowance;
mod any_model;
mod approximations;
mod artifact;
mod card;
mod class_label;
mod control;
mod delivery;
mod draw;
mod endpoint;
mod event;
mod field;
mod fields;
mod fingerprint;
mod id;
mod input;
mod job;
mod json;
mod key_terms;
mod levels;
mod limits;
mod lora;
mod media_type;
mod micro_conditioning;
mod named_id;
mod notice;
mod output;
mod owner_change;
mod phase;
mod priority;
mod progress;
pub mod prompt;
mod record;
mod refiner;
mod resolve;
mod scheduler;
mod schema;
mod shown;
mod signing_secret;
mod size;
mod source;
mod table;
mod task;
mod warning;
mod webhook;
mod webhook_id;

pub use allowance::{Allowance, Exceeded, RateLimit, Spent, Window, day_of};
pub use approximations::{Decoder, FeatureCache, FeatureCacheKind, GuidanceInterval};
pub use artifact::{Artifact, Facts};
pub use card::{ModelCard, SequenceLength};
pub use control::{ControlUse, Preprocess};
pub use delivery::{Delivery, DeliveryState};
pub use draw::{Draw, SeedMode};
pub use endpoint::{Endpoint, EndpointSettings};
pub use event::{Event, EventKind, TenantEvent};
pub use field::{Bounds, Field, Integers, Kind, Numbers, Takers};
pub use fields::{FieldError, Fields, cut};
pub use id::{GenerationId, InvalidId};
pub use input::{ImageField, ImageRole, ImageSource, InputImage};
pub use job::{Job, OnDisconnect, Work};
pub use json::{JsonError, ValueBudget};
pub use key_terms::{KeyTerms, Scope};
pub use levels::Levels;
pub use limits::Limits;
pub use lora::LoraUse;
pub use media_type::{InvalidMediaType, MediaType};
pub use micro_conditioning::MicroConditioning;
pub use notice::{linked, notice, rfc3339};
pub use output::{Encoding, Format, MetadataLevel, Output};
pub use owner_change::OwnerChange;
pub use phase::Phase;
pub use priority::Priority;
pub use progress::{Preview, Progress};
pub use prompt::{Chunks, MAX_CHUNKS, PromptSyntax, Span, Token, chunks, least_chunks, weighted};
pub use record::{Problem, Record, Status};
pub use refiner::Refiner;
pub use resolve::{Invalid, Rules, resolve};
pub use scheduler::SchedulerChoice;
pub use schema::request_schema;
pub use shown::Shown;
pub use signing_secret::{InvalidSecret, SigningSecret};
pub use source::{ImageInfluence, Mask, Source};
pub use table::FIELDS;
pub use task::Task;
pub use warning::Warning;
pub use webhook::{Webhook, WebhookEvent};
pub use webhook_id::{DeliveryId, EndpointId};
