//! Tests of signatures: the library of Standard Webhooks verifies them.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use latentd::{
    generation::{DeliveryId, SigningSecret},
    webhooks::{headers, signature},
};
use proptest::prelude::*;
use standardwebhooks::Webhook;
use time::OffsetDateTime;

fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

fn map(headers: Vec<(&'static str, String)>) -> HeaderMap {
    let parsed = |(name, value): (&str, String)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    headers.into_iter().map(parsed).collect()
}

fn verifies(secret: &SigningSecret, headers: &HeaderMap, body: &str) -> bool {
    Webhook::new(&secret.reveal()).unwrap().verify(body.as_bytes(), headers).is_ok()
}

#[test]
fn the_example_of_the_standard_has_its_signature() {
    // The example comes from the tests of the reference implementations.
    let secret = SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let signed = signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}");
    assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

proptest! {
    #[test]
    fn every_signature_verifies_and_no_other_body_does(
        key in prop::collection::vec(any::<u8>(), 24..=64), body in ".*", other in ".*",
    ) {
        let secret = SigningSecret::from_key(key).unwrap();
        let headers = map(headers(std::slice::from_ref(&secret), DeliveryId::new(), now(), &body));
        prop_assert!(verifies(&secret, &headers, &body));
        prop_assert_eq!(verifies(&secret, &headers, &other), body == other);
    }
}

#[test]
fn during_a_rotation_both_secrets_verify_and_a_third_does_not() {
    let secrets = [1, 2, 3].map(|byte| SigningSecret::from_key(vec![byte; 32]).unwrap());
    let headers = map(headers(&secrets[..2], DeliveryId::new(), now(), "{}"));
    assert_eq!(headers["webhook-signature"].to_str().unwrap().split(' ').count(), 2);
    assert_eq!([0, 1, 2].map(|at: usize| verifies(&secrets[at], &headers, "{}")), [true, true, false]);
}

#[test]
fn an_old_message_and_another_id_do_not_verify() {
    let secret = SigningSecret::from_key(vec![9; 24]).unwrap();
    let secrets = std::slice::from_ref(&secret);
    let old = map(headers(secrets, DeliveryId::new(), now() - 3600, "{}"));
    assert!(!verifies(&secret, &old, "{}"));
    let mut changed = map(headers(secrets, DeliveryId::new(), now(), "{}"));
    assert!(verifies(&secret, &changed, "{}"));
    changed.insert("webhook-id", HeaderValue::from_str(&DeliveryId::new().to_string()).unwrap());
    assert!(!verifies(&secret, &changed, "{}"));
}
