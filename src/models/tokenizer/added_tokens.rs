//! Tokens beyond a tokenizer's vocabulary, as transformers saves them.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer};

use super::content;
use crate::weights::{LoadError, ModelFolder};

/// An entry of `added_tokens_decoder`. Absent keys have the defaults of transformers' `AddedToken`.
#[derive(Deserialize)]
struct Entry {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

/// Adds the tokens that `tokenizer_config.json` (`added_tokens_decoder`) and `added_tokens.json` list, in the order of
/// their ids. If both list an id, the entry of `added_tokens_decoder` counts. `config` and `special` are the contents
/// of `tokenizer_config.json` and `special_tokens_map.json`.
///
/// # Errors
/// A file is broken, or the id of a token is not the next free id.
pub(in crate::models) fn add(
    tokenizer: &mut Tokenizer,
    folder: &ModelFolder,
    part: &str,
    (config, special): (&Map<String, Value>, &Map<String, Value>),
) -> Result<(), LoadError> {
    let mut tokens: BTreeMap<u32, AddedToken> = BTreeMap::new();
    let path = format!("{part}/tokenizer_config.json");
    if let Some(listed) = config.get("added_tokens_decoder") {
        let bad = |reason: String| LoadError::BadKey { path: path.clone(), key: "added_tokens_decoder".into(), reason };
        let listed = HashMap::<u32, Entry>::deserialize(listed).map_err(|error| bad(error.to_string()))?;
        tokens.extend(listed.into_iter().map(|(id, entry)| (id, entry.into())));
    }
    let path = format!("{part}/added_tokens.json");
    if folder.has(&path) {
        let special = additional_special_tokens(config, special);
        for (token, id) in folder.json(&path)? {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let id = id.ok_or_else(|| LoadError::BadKey {
                path: path.clone(),
                key: token.clone(),
                reason: "must be the id of the token, an integer".into(),
            })?;
            let is_special = special.contains(token.as_str());
            tokens.entry(id).or_insert_with(|| AddedToken::from(token, is_special));
        }
    }
    let bad = |reason: String| LoadError::Tokenizer { path: part.to_owned(), reason };
    tokenizer.add_tokens(tokens.values().cloned()).map_err(|error| bad(error.to_string()))?;
    for (id, AddedToken { content, .. }) in tokens {
        // Depending on the version, transformers gives such a token the next free id or the id in the file. So these
        // two ids must be equal.
        match tokenizer.token_to_id(&content) {
            Some(given) if given == id => {}
            given => {
                let given = given.map_or_else(|| "none".to_owned(), |given| given.to_string());
                return Err(bad(format!(
                    "the added token {content:?} has the id {id}, but the next free id is {given}"
                )));
            }
        }
    }
    Ok(())
}

/// For each added token that stands for several tokens, the ids of the tokens after it. diffusers saves a word of
/// several vectors as `<cat>`, `<cat>_1`, `<cat>_2` …, and replaces `<cat>` in a prompt by all of them.
pub(super) fn further(tokenizer: &Tokenizer) -> HashMap<u32, Vec<u32>> {
    let added = tokenizer.get_added_tokens_decoder();
    let ids: HashMap<&str, u32> = added.iter().map(|(id, token)| (token.content.as_str(), *id)).collect();
    let further_of = |content: &str| -> Vec<u32> {
        (1..).map_while(|i| ids.get(format!("{content}_{i}").as_str()).copied()).collect()
    };
    let all = ids.iter().map(|(content, id)| (*id, further_of(content)));
    all.filter(|(_, further)| !further.is_empty()).collect()
}

impl From<Entry> for AddedToken {
    fn from(entry: Entry) -> AddedToken {
        let Entry { content, single_word, lstrip, rstrip, normalized, special } = entry;
        AddedToken { content, single_word, lstrip, rstrip, normalized: normalized.unwrap_or(!special), special }
    }
}

/// The tokens that versions of transformers without `added_tokens_decoder` mark as special.
fn additional_special_tokens<'a>(config: &'a Map<String, Value>, special: &'a Map<String, Value>) -> HashSet<&'a str> {
    let lists = [special, config].into_iter().filter_map(|map| map.get("additional_special_tokens")?.as_array());
    lists.flatten().filter_map(|token| content(Some(token))).collect()
}
