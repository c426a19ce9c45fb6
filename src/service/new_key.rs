//! Reads the properties of a new API key.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{ANONYMOUS, ApiKey};
use crate::{
    generation::{Fields, Invalid, KeyTerms, Priority, RateLimit, SafetyPolicy},
    ledger::KeyRecord,
};

/// The properties of a new key.
#[derive(Clone, Debug)]
pub struct NewKey {
    pub tenant: String,
    pub weight: f64,
    pub max_queued: u32,
    pub max_running: u32,
    pub terms: KeyTerms,
}

/// Maximum numbers of names in the list of allowed models, of characters of such a name, and of characters of the key's
/// name.
const MODELS: usize = 100;
const MODEL_CHARS: usize = 128;
const NAME_CHARS: usize = 100;
/// The longest validity of a key in seconds: ten years.
const LONGEST_S: u64 = 315_360_000;
const DEFAULT_WINDOW_S: u32 = 60;

impl NewKey {
    /// Reads the fields of a tenant and of [`KeyTerms`]; `caps` are the defaults of `max_queued` and `max_running`.
    ///
    /// # Errors
    /// All invalid fields at once.
    pub fn read(mut fields: Fields, caps: (u32, u32)) -> Result<NewKey, Invalid> {
        let tenant = tenant(&mut fields);
        let weight = fields.number("weight", 0.001, 1000.0).unwrap_or(1.0);
        let max_queued = small(&mut fields, "max_queued", 1_000_000).unwrap_or(caps.0);
        let max_running = small(&mut fields, "max_running", 1_000_000).unwrap_or(caps.1);
        let terms = terms(&mut fields);
        match fields.finish() {
            errors if errors.is_empty() => Ok(NewKey { tenant, weight, max_queued, max_running, terms }),
            errors => Err(Invalid { errors }),
        }
    }

    /// Makes the key and the record that the store keeps. The text of the key is not stored.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn make(self) -> Result<(ApiKey, KeyRecord), getrandom::Error> {
        let key = ApiKey::new()?;
        let record = KeyRecord {
            id: key.id.clone(),
            sha256: key.sha256(),
            tenant: self.tenant,
            weight: self.weight,
            max_queued: Some(self.max_queued),
            max_running: Some(self.max_running),
            terms: self.terms,
        };
        Ok((key, record))
    }
}

fn tenant(fields: &mut Fields) -> String {
    let given = fields.text("tenant", 64);
    let tenant = given.clone().unwrap_or_default();
    let of_name = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    if given.is_none() && !fields.has_errors() {
        fields.error("tenant", "required", "is required");
    } else if given.is_some()
        && !(tenant.bytes().all(of_name) && tenant.starts_with(|c: char| c.is_ascii_alphanumeric()))
    {
        fields.error("tenant", "invalid_value", "must match [a-z0-9][a-z0-9._-]{0,63}");
    } else if tenant == ANONYMOUS {
        fields.error("tenant", "invalid_value", format!("cannot be {ANONYMOUS}, the tenant of requests without a key"));
    }
    tenant
}

fn terms(fields: &mut Fields) -> KeyTerms {
    let default = KeyTerms::default();
    let name = fields.text("name", NAME_CHARS).unwrap_or_default();
    if name.chars().any(char::is_control) {
        fields.error("name", "invalid_value", "must not contain control characters");
    }
    let scopes = list(fields, "scopes", 3, "generate, read or admin", word);
    let named = |model: &str| (1..=MODEL_CHARS).contains(&model.chars().count()).then(|| model.to_owned());
    let models = list(fields, "models", MODELS, &format!("a name of 1 to {MODEL_CHARS} characters"), named);
    let max_priority = fields.choice::<Priority>("max_priority", &["low", "normal", "high"]);
    let requests = small(fields, "rate_limit", 1_000_000);
    let has_limit = requests.is_some() || fields.is_faulty("rate_limit");
    let window_s = small(fields, "rate_window_s", 86_400);
    if window_s.is_some() && !has_limit {
        fields.error("rate_window_s", "conflict", "needs rate_limit");
    }
    let window_s = window_s.unwrap_or(DEFAULT_WINDOW_S);
    KeyTerms {
        name,
        scopes: scopes.unwrap_or(default.scopes),
        models: models.unwrap_or_default(),
        max_priority: max_priority.unwrap_or(default.max_priority),
        rate_limit: requests.map(|requests| RateLimit { requests, window_s }),
        max_cost_per_day: fields.integer("max_cost_per_day", 1, 1_000_000_000_000_000),
        expires_in_s: fields.integer("expires_in_s", 1, LONGEST_S),
        safety: fields.choice::<SafetyPolicy>("safety", &SafetyPolicy::WORDS.map(|(word, _)| word)),
    }
}

fn small(fields: &mut Fields, name: &str, most: u32) -> Option<u32> {
    fields.integer(name, 1, most.into()).and_then(|number| u32::try_from(number).ok())
}

fn word<T: DeserializeOwned>(text: &str) -> Option<T> {
    T::deserialize(&Value::from(text)).ok()
}

/// Reads a list of 1 to `most` texts, each of which `read` accepts; `what` describes such a text in error messages.
fn list<T>(
    fields: &mut Fields,
    name: &str,
    most: usize,
    what: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Option<Vec<T>> {
    let entries = match fields.take(name)? {
        Value::Array(entries) if (1..=most).contains(&entries.len()) => entries,
        _ => {
            fields.error(name, "invalid_value", format!("must be a list of 1 to {most} entries"));
            return None;
        }
    };
    let read = |(at, entry): (usize, &Value)| {
        let read = entry.as_str().and_then(&read);
        if read.is_none() {
            fields.error_at(&[name, &at.to_string()], "invalid_value", format!("must be {what}"));
        }
        read
    };
    // Every entry is read, so that all errors are reported.
    let read: Vec<Option<T>> = entries.iter().enumerate().map(read).collect();
    read.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::generation::Scope;

    fn read(value: Value) -> Result<NewKey, Vec<String>> {
        let Value::Object(map) = value else { panic!("{value} is no request") };
        let read = NewKey::read(Fields::new(map), (100, 8));
        read.map_err(|invalid| invalid.errors.into_iter().map(|error| error.pointer).collect())
    }

    #[test]
    fn a_key_is_for_a_tenant_with_a_plain_name() {
        let key = read(json!({"tenant": "studio-7"})).unwrap();
        assert_eq!((&*key.tenant, key.weight, key.max_queued, key.max_running), ("studio-7", 1.0, 100, 8));
        let key = read(json!({"tenant": "a", "weight": 2.5, "max_queued": 3, "max_running": 1})).unwrap();
        assert_eq!((key.weight, key.max_queued, key.max_running), (2.5, 3, 1));
        for tenant in [json!(null), json!(""), json!("default"), json!("Studio"), json!("../a"), json!("-a"), json!(7)]
        {
            assert_eq!(read(json!({"tenant": tenant})).unwrap_err(), ["/tenant"], "{tenant}");
        }
        assert_eq!(
            read(json!({"tenant": "a", "weight": 0, "max_queued": 0, "max_running": 0.5, "color": 1})).unwrap_err(),
            ["/weight", "/max_queued", "/max_running", "/color"]
        );
    }

    #[test]
    fn a_key_has_the_terms_of_its_request() {
        assert_eq!(read(json!({"tenant": "a"})).unwrap().terms, KeyTerms::default());
        let key = read(json!({
            "tenant": "a", "name": "build server", "scopes": ["generate"], "models": ["emoji", "org/large"],
            "max_priority": "low", "rate_limit": 5, "rate_window_s": 2, "max_cost_per_day": 900, "expires_in_s": 60,
            "safety": "block"
        }));
        let expected = KeyTerms {
            name: "build server".to_owned(),
            scopes: vec![Scope::Generate],
            models: vec!["emoji".to_owned(), "org/large".to_owned()],
            max_priority: Priority::Low,
            rate_limit: Some(RateLimit { requests: 5, window_s: 2 }),
            max_cost_per_day: Some(900),
            expires_in_s: Some(60),
            safety: Some(SafetyPolicy::Block),
        };
        assert_eq!(key.unwrap().terms, expected);
        let limit = read(json!({"tenant": "a", "rate_limit": 1})).unwrap().terms.rate_limit;
        assert_eq!(limit, Some(RateLimit { requests: 1, window_s: 60 }));
        for (terms, pointers) in [
            (json!({"name": "a\nb"}), &["/name"][..]),
            (json!({"scopes": []}), &["/scopes"]),
            (json!({"scopes": "read"}), &["/scopes"]),
            (json!({"scopes": ["read", "write", 1]}), &["/scopes/1", "/scopes/2"]),
            (json!({"models": ["", "emoji"]}), &["/models/0"]),
            (json!({"max_priority": "urgent"}), &["/max_priority"]),
            (json!({"safety": "strict"}), &["/safety"]),
            (json!({"rate_window_s": 5}), &["/rate_window_s"]),
            (json!({"rate_limit": 0, "rate_window_s": 5}), &["/rate_limit"]),
            (json!({"max_cost_per_day": 0.5, "expires_in_s": 0}), &["/max_cost_per_day", "/expires_in_s"]),
        ] {
            let mut request = terms.clone();
            request["tenant"] = "a".into();
            assert_eq!(read(request).unwrap_err(), pointers, "{terms}");
        }
    }
}
