//! The texts for the text encoders after the first one.

use serde::{Deserialize, Serialize};

use super::{Fields, field::Bounds, table};

/// The texts for the second and the third text encoder. An encoder without a text of its own receives `prompt` or
/// `negative_prompt`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FurtherPrompts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_2: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_prompt_2: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_3: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_prompt_3: Option<String>,
}

impl FurtherPrompts {
    pub(super) fn read(fields: &mut Fields, on: &Bounds<'_>) -> FurtherPrompts {
        FurtherPrompts {
            prompt_2: fields.get(&table::PROMPT_2, on),
            negative_prompt_2: fields.get(&table::NEGATIVE_PROMPT_2, on),
            prompt_3: fields.get(&table::PROMPT_3, on),
            negative_prompt_3: fields.get(&table::NEGATIVE_PROMPT_3, on),
        }
    }

    /// `prompt` and the texts for the second and the third encoder.
    pub fn positive<'a>(&'a self, prompt: &'a str) -> [&'a str; 3] {
        [prompt, self.prompt_2.as_deref().unwrap_or(prompt), self.prompt_3.as_deref().unwrap_or(prompt)]
    }

    /// `negative_prompt` and the negative texts for the second and the third encoder.
    pub fn negative<'a>(&'a self, prompt: &'a str) -> [&'a str; 3] {
        [
            prompt,
            self.negative_prompt_2.as_deref().unwrap_or(prompt),
            self.negative_prompt_3.as_deref().unwrap_or(prompt),
        ]
    }

    /// Every text with the name of its field.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("prompt_2", &self.prompt_2),
            ("negative_prompt_2", &self.negative_prompt_2),
            ("prompt_3", &self.prompt_3),
            ("negative_prompt_3", &self.negative_prompt_3),
        ];
        all.into_iter().filter_map(|(name, text)| Some((name, text.as_deref()?)))
    }
}
