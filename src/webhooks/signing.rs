//! Signs messages, so that a receiver can verify their sender, that they are unchanged, and that they are recent.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::generation::{DeliveryId, SigningSecret};

/// The headers of one attempt. While an endpoint's secret is being replaced, both secrets sign, so that the receiver
/// can switch at any time.
pub fn headers(
    secrets: &[SigningSecret],
    id: DeliveryId,
    unix_seconds: i64,
    body: &str,
) -> Vec<(&'static str, String)> {
    let id = id.to_string();
    let signatures: Vec<String> = secrets.iter().map(|secret| signature(secret, &id, unix_seconds, body)).collect();
    vec![
        ("webhook-id", id),
        ("webhook-timestamp", unix_seconds.to_string()),
        ("webhook-signature", signatures.join(" ")),
    ]
}

/// The symmetric signature of version 1 (Standard Webhooks): HMAC-SHA256 of id, time and body.
pub fn signature(secret: &SigningSecret, id: &str, unix_seconds: i64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.key()).expect("HMAC takes keys of every length");
    mac.update(format!("{id}.{unix_seconds}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}
