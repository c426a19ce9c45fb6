//! The header `Idempotency-Key`, by which the server recognizes a repeated request
//! (draft-ietf-httpapi-idempotency-key-header).

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};

use super::error::ApiError;
use crate::service::Repeatable;

/// The client's idempotency key, if the client sends one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(pub Option<String>);

const NAME: &str = "idempotency-key";
const MOST: usize = 255;

impl IdempotencyKey {
    /// Reads the header. A value that begins with a quote must be a string of RFC 8941, which contains the key. Any
    /// other value is the key itself, without the spaces around it.
    ///
    /// # Errors
    /// `idempotency_key_invalid` if the header is given twice, if its value begins with a quote but is no string of RFC
    /// 8941, or if the key does not have 1 to 255 printable ASCII characters.
    fn of(headers: &HeaderMap) -> Result<IdempotencyKey, ApiError> {
        let mut values = headers.get_all(NAME).iter();
        let value = match (values.next(), values.next()) {
            (None, _) => return Ok(IdempotencyKey(None)),
            (Some(_), Some(_)) => return Err(ApiError::IdempotencyKeyInvalid("is given twice")),
            (Some(value), None) => {
                value.to_str().map_err(|_| ApiError::IdempotencyKeyInvalid("is not printable ASCII"))?
            }
        };
        let key = match value.trim().strip_prefix('"') {
            Some(rest) => {
                unquoted(rest).ok_or(ApiError::IdempotencyKeyInvalid("begins with a quote but is no string"))?
            }
            None => value.trim().to_owned(),
        };
        if !key.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(ApiError::IdempotencyKeyInvalid("is not printable ASCII"));
        }
        if !(1..=MOST).contains(&key.len()) {
            return Err(ApiError::IdempotencyKeyInvalid("must have 1 to 255 characters"));
        }
        Ok(IdempotencyKey(Some(key)))
    }

    /// How the server recognizes a repetition of the request.
    pub fn repeatable(self) -> Repeatable {
        self.0.map_or(Repeatable::No, Repeatable::ByKey)
    }
}

/// Parses a string of RFC 8941 whose first quote has been removed.
fn unquoted(rest: &str) -> Option<String> {
    let mut text = String::new();
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => return characters.next().is_none().then_some(text),
            '\\' => text.push(characters.next().filter(|c| matches!(c, '"' | '\\'))?),
            character => text.push(character),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        IdempotencyKey::of(&parts.headers)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn a_key_is_given_with_or_without_quotes() {
        let (long, longer) = ("x".repeat(255), "x".repeat(256));
        let quoted = format!("\"{long}\"");
        let cases: [(&str, Option<&str>); 16] = [
            ("abc", Some("abc")),
            (" abc ", Some("abc")),
            ("\"abc\"", Some("abc")),
            ("\"a b\"", Some("a b")),
            ("\"a\\\"b\\\\\"", Some("a\"b\\")),
            ("8e03978e-40d5-43e8-bc93-6894a57f9324", Some("8e03978e-40d5-43e8-bc93-6894a57f9324")),
            (&long, Some(&long)),
            (&quoted, Some(&long)),
            (&longer, None),
            ("", None),
            ("\"\"", None),
            ("\"abc", None),
            ("\"abc\"x", None),
            ("\"a\\bc\"", None),
            ("\"abc\\\"", None),
            ("a\tb", None),
        ];
        for (value, expected) in cases {
            let headers = HeaderMap::from_iter([(HeaderName::from_static(NAME), value.parse().unwrap())]);
            assert_eq!(IdempotencyKey::of(&headers).ok().and_then(|key| key.0).as_deref(), expected, "{value}");
        }
        let foreign = HeaderValue::from_bytes(b"caf\xe9").unwrap();
        assert!(IdempotencyKey::of(&HeaderMap::from_iter([(HeaderName::from_static(NAME), foreign)])).is_err());
        assert_eq!(IdempotencyKey::of(&HeaderMap::new()).unwrap(), IdempotencyKey(None));
        let mut twice = HeaderMap::new();
        twice.append(NAME, "a".parse().unwrap());
        twice.append(NAME, "a".parse().unwrap());
        assert!(IdempotencyKey::of(&twice).is_err());
    }
}
