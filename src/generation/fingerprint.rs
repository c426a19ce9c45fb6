//! The fingerprint of a request, which tells whether two requests are the same.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Fields, WorkKind};

impl Fields {
    /// SHA-256 of the request as the client wrote it. The order of the fields and the encoding (JSON, form or
    /// multipart) make no difference; of a file, only the digest is hashed. The same fields have a different
    /// fingerprint for each kind of work. Call this before reading fields or setting defaults.
    pub fn fingerprint(&self, kind: WorkKind) -> [u8; 32] {
        let Fields { map, files, faults, mask_is_transparency, .. } = self;
        let mut hash = Sha256::new();
        // A field that is null counts as absent.
        let mut fields: Vec<_> = map.iter().filter(|(_, value)| !value.is_null()).collect();
        fields.sort_unstable_by_key(|(name, _)| *name);
        count(&mut hash, b'{', fields.len());
        for (name, value) in fields {
            text(&mut hash, b'"', name);
            feed(&mut hash, value);
        }
        count(&mut hash, b'f', files.len());
        for (name, bytes) in files {
            text(&mut hash, b'"', name);
            hash.update(Sha256::digest(bytes));
        }
        if *mask_is_transparency {
            hash.update(b"a");
        }
        // The kind of drawings is not hashed, so that their fingerprints are the same as in versions that could only
        // draw.
        if kind != WorkKind::Draw {
            text(&mut hash, b'k', kind.as_str());
        }
        // A request with errors never has the fingerprint of an accepted request.
        for error in faults.iter() {
            text(&mut hash, b'!', &error.pointer);
        }
        hash.finalize().into()
    }
}

/// Hashes every value with its kind and length, so that different values give different bytes.
fn feed(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Null => hash.update(b"0"),
        Value::Bool(flag) => hash.update(if *flag { b"t" } else { b"n" }),
        Value::Number(number) => {
            // Some languages print all numbers with a fraction, so 20.0 has the same hash as 20.
            let whole = number.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 9e15);
            match whole.filter(|_| number.is_f64()) {
                Some(whole) => text(hash, b'#', &(whole as i64).to_string()),
                None => text(hash, b'#', &number.to_string()),
            }
        }
        Value::String(string) => text(hash, b'"', string),
        Value::Array(items) => {
            count(hash, b'[', items.len());
            items.iter().for_each(|item| feed(hash, item));
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(name, _)| *name);
            count(hash, b'{', entries.len());
            for (name, value) in entries {
                text(hash, b'"', name);
                feed(hash, value);
            }
        }
    }
}

fn text(hash: &mut Sha256, kind: u8, text: &str) {
    count(hash, kind, text.len());
    hash.update(text);
}

fn count(hash: &mut Sha256, kind: u8, length: usize) {
    hash.update([kind]);
    hash.update((length as u64).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    fn of(value: Value) -> [u8; 32] {
        match value {
            Value::Object(map) => Fields::new(map).fingerprint(WorkKind::Draw),
            other => panic!("{other} is no request"),
        }
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_same_request_is_the_same_however_it_is_written() {
        let whole = of(json!({"prompt": "a red fox", "n": 2, "eta": 0.5, "metadata": {"a": "1", "b": "2"}}));
        assert_eq!(whole, of(json!({"metadata": {"b": "2", "a": "1"}, "eta": 0.5, "n": 2.0, "prompt": "a red fox"})));
        assert_eq!(
            whole,
            of(json!({"prompt": "a red fox", "n": 2, "eta": 0.5, "seed": null, "metadata": {"a": "1", "b": "2"}}))
        );
        let form =
            pairs(&[("n", "2"), ("metadata[b]", "2"), ("metadata[a]", "1"), ("eta", "0.5"), ("prompt", "a red fox")]);
        assert_eq!(whole, Fields::from_form(form.clone()).fingerprint(WorkKind::Draw));
        assert_eq!(whole, Fields::from_multipart(form, Vec::new()).fingerprint(WorkKind::Draw));
    }

    #[test]
    fn different_requests_have_different_fingerprints() {
        let file = |bytes: &[u8]| {
            Fields::from_multipart(pairs(&[("prompt", "a")]), vec![("image".to_owned(), bytes.to_vec().into())])
                .fingerprint(WorkKind::Draw)
        };
        let twice = Fields::from_form(pairs(&[("prompt", "a"), ("prompt", "a")])).fingerprint(WorkKind::Draw);
        let all = [
            of(json!({})),
            of(json!({"prompt": "a"})),
            of(json!({"prompt": "b"})),
            of(json!({"prompt": "a", "n": 1})),
            of(json!({"prompt": "a", "n": "1"})),
            of(json!({"prompt": "a", "n": true})),
            of(json!({"prompt": "a", "n": false})),
            of(json!({"prompt": "a", "eta": 0.25})),
            of(json!({"prompt": "a", "seed": 9_007_199_254_740_993_u64})),
            of(json!({"prompt": "a", "seed": 9_007_199_254_740_992_u64})),
            of(json!({"prompt": "a", "loras": []})),
            of(json!({"prompt": "a", "loras": [{"name": "x"}]})),
            of(json!({"prompt": "a", "loras": [{"name": "x"}, {"name": "y"}]})),
            of(json!({"prompt": "a", "scheduler": {"a": 1}})),
            of(json!({"prompt": "a", "scheduler": {"a": null}})),
            file(b"one"),
            file(b"two"),
            twice,
        ];
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }
}
