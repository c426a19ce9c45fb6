//! What happens to a picture that the safety checker flags.

use serde::{Deserialize, Serialize};

/// What happens to pictures that the safety checker flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SafetyPolicy {
    /// Pictures are not checked.
    #[default]
    Off,
    /// Flagged pictures are delivered, and the answer says that they are flagged.
    Flag,
    /// A generation with a flagged picture fails, and nothing of its pictures is stored.
    Block,
}

impl SafetyPolicy {
    /// The words of the setting and of the API.
    pub const WORDS: [(&'static str, SafetyPolicy); 3] =
        [("off", SafetyPolicy::Off), ("flag", SafetyPolicy::Flag), ("block", SafetyPolicy::Block)];

    pub fn as_str(self) -> &'static str {
        match self {
            SafetyPolicy::Off => "off",
            SafetyPolicy::Flag => "flag",
            SafetyPolicy::Block => "block",
        }
    }

    /// Whether pictures are not checked.
    pub fn is_off(&self) -> bool {
        *self == SafetyPolicy::Off
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_those_of_the_stored_form() {
        for (word, policy) in SafetyPolicy::WORDS {
            assert_eq!(policy.as_str(), word);
            assert_eq!(serde_json::to_value(policy).unwrap(), word);
            assert_eq!(serde_json::from_value::<SafetyPolicy>(word.into()).unwrap(), policy);
        }
        assert!(SafetyPolicy::default().is_off());
    }
}
