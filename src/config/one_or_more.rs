//! Reads lists of numbers. A single number instead of a list counts as a list with one entry.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IntoDeserializer, SeqAccess, Visitor},
};

pub(super) fn one_or_more<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_any(OneOrMore(PhantomData))
}

struct OneOrMore<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMore<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list, or its only entry")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vec<T>, A::Error> {
        let mut all = Vec::new();
        while let Some(entry) = entries.next_element()? {
            all.push(entry);
        }
        Ok(all)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Vec<T>, E> {
        Ok(vec![T::deserialize(number.into_deserializer())?])
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Vec<T>, E> {
        Ok(vec![T::deserialize(number.into_deserializer())?])
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Vec<T>, E> {
        Ok(vec![T::deserialize(number.into_deserializer())?])
    }
}
