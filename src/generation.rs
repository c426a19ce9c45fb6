//! The domain: what a client asks for, what it gets, and every rule about it. No I/O, no clock, no candle.
//!
//! A request enters as a JSON object ([`Fields`]) and leaves as a [`Generation`], in which nothing is optional and
//! nothing is checked again. The ledger keeps a [`Record`] of it, whose [`Status`] and [`Event`]s are what clients see.

mod any_model;
mod approximations;
mod artifact;
mod card;
mod control;
mod event;
mod fields;
mod fingerprint;
mod id;
mod input;
mod json;
mod levels;
mod limits;
mod lora;
mod media_type;
mod named_id;
mod notice;
mod output;
mod phase;
mod priority;
mod progress;
pub mod prompt;
mod record;
mod refiner;
mod request;
mod resolve;
mod scheduler;
mod sdxl;
mod signing_secret;
mod size;
mod source;
mod webhook;
mod webhook_id;

pub use approximations::{Decoder, FeatureCache, FeatureCacheKind, GuidanceInterval};
pub use artifact::{Artifact, Facts};
pub use card::ModelCard;
pub use control::{Control, Preprocess};
pub use event::{Event, EventKind};
pub use fields::{FieldError, Fields, cut};
pub use id::{GenerationId, InvalidId};
pub use input::{Given, InputImage, Place, Role};
pub use json::{JsonError, ValueBudget};
pub use levels::Levels;
pub use limits::Limits;
pub use lora::LoraUse;
pub use media_type::{InvalidMediaType, MediaType};
pub use notice::{notice, rfc3339};
pub use output::{Encoding, Format};
pub use phase::Phase;
pub use priority::Priority;
pub use progress::{Preview, Progress};
pub use prompt::{PromptSyntax, Span, Token, chunks, weighted};
pub use record::{Problem, Record, Status};
pub use refiner::Refiner;
pub use request::{Generation, MetadataLevel, OnDisconnect, SeedMode};
pub use resolve::{Invalid, Rules, resolve};
pub use scheduler::SchedulerChoice;
pub use sdxl::Sdxl;
pub use signing_secret::{InvalidSecret, SigningSecret};
pub use source::{Hold, Mask, Source, Task};
pub use webhook::{Webhook, WebhookEvent};
pub use webhook_id::{DeliveryId, EndpointId};
