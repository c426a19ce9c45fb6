//! The id of a generation.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::named_id::named_id;

named_id! {
    /// `img_` and a version 7 UUID in 26 characters of Crockford's base 32. Ids are hard to guess and sort by age.
    GenerationId, "img_"
}

/// The text is not an id of the expected type.
#[derive(Debug, thiserror::Error)]
#[error("not an id of this kind: expected {prefix} and 26 characters of Crockford's base 32")]
pub struct InvalidId {
    pub prefix: &'static str,
}

impl GenerationId {
    /// When the id was made, or 1970 for an id without a timestamp. This program makes no such ids.
    pub fn made_at(&self) -> SystemTime {
        let unix = self.0.get_timestamp().map_or((0, 0), |timestamp| timestamp.to_unix());
        UNIX_EPOCH + Duration::new(unix.0, unix.1)
    }

    /// Whether the id has the form of [`GenerationId::new`]. A client can make such ids, too.
    pub fn is_version_7(&self) -> bool {
        self.0.get_version_num() == 7 && self.0.get_variant() == uuid::Variant::RFC4122
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_age_and_survive_their_text() {
        let ids: Vec<_> = (0..100).map(|_| GenerationId::new()).collect();
        for pair in ids.windows(2) {
            assert!(pair[0].to_string() < pair[1].to_string());
        }
        for id in ids {
            assert_eq!(id.to_string().parse::<GenerationId>().unwrap(), id);
            assert_eq!(id.to_string().len(), 30);
            assert!(id.is_version_7());
        }
    }

    #[test]
    fn uuids_of_other_versions_have_no_age() {
        for id in [GenerationId::from_bytes([0; 16]), GenerationId::from_bytes(*uuid::Uuid::new_v4().as_bytes())] {
            assert!(!id.is_version_7(), "{id}");
        }
    }

    #[test]
    fn texts_that_are_no_ids_are_refused() {
        for text in ["", "img_", "img_8zzzzzzzzzzzzzzzzzzzzzzzzz", "img_0000000000000000000000000u", "x"] {
            assert!(text.parse::<GenerationId>().is_err(), "{text}");
        }
    }
}
