//! The pictures that a picture was made from, with the credentials that they had.

use std::{io::Cursor, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use c2pa::{Builder, Context, Ingredient};
use serde_json::{Map, Value, json};

use super::{Input, report::format_of};
use crate::generation::Format;

/// Maximum bytes of credentials of an uploaded picture that are kept. Larger credentials would make every picture that
/// is made from it large.
const MOST_BYTES: usize = 1 << 20;

/// Returns what is kept of the credentials of an uploaded picture: the credentials, and the result of their
/// verification. They are verified now, because the stored copy of the picture is another file. Returns `None` if the
/// file has no credentials, or more than [`MOST_BYTES`].
pub(super) fn keep(context: &Arc<Context>, file: &[u8]) -> Option<Bytes> {
    // Credentials are boxes of JUMBF, so a file without this word has none.
    memchr::memmem::find(file, b"jumb")?;
    let format = format_of(file).filter(|format| Format::PICTURES.contains(format))?;
    let mut builder = Builder::from_shared_context(context);
    let ingredient = builder.add_ingredient_from_stream("{}", format.media_type(), &mut Cursor::new(file)).ok()?;
    ingredient.active_manifest()?;
    let manifest = ingredient.manifest_data()?;
    if manifest.len() > MOST_BYTES {
        return None;
    }
    let manifest = BASE64_STANDARD.encode(&*manifest);
    let Value::Object(mut ingredient) = serde_json::to_value(&*ingredient).ok()? else { return None };
    // These two fields refer to other files of the credentials, which the server does not keep.
    ingredient.remove("thumbnail");
    ingredient.remove("manifest_data");
    Some(json!({"ingredient": ingredient, "manifest": manifest}).to_string().into())
}

/// The ingredient for a picture of a request. Its label is the title, by which the action refers to it.
pub(super) fn of(input: &Input) -> Ingredient {
    input
        .credentials
        .as_ref()
        .and_then(|kept| with_credentials(input, kept))
        .unwrap_or_else(|| described(input, Map::new()))
}

/// The ingredient with the kept credentials; `None` if they cannot be read.
fn with_credentials(input: &Input, kept: &[u8]) -> Option<Ingredient> {
    let Value::Object(mut kept) = serde_json::from_slice(kept).ok()? else { return None };
    let Some(Value::Object(ingredient)) = kept.remove("ingredient") else { return None };
    let manifest = BASE64_STANDARD.decode(kept.get("manifest")?.as_str()?).ok()?;
    let mut ingredient = described(input, ingredient);
    ingredient.set_manifest_data(manifest).ok()?;
    Some(ingredient)
}

fn described(input: &Input, mut ingredient: Map<String, Value>) -> Ingredient {
    ingredient.insert("title".to_owned(), input.title.as_str().into());
    ingredient.insert("label".to_owned(), input.title.as_str().into());
    ingredient.insert("relationship".to_owned(), "inputTo".into());
    let digest = format!("SHA-256 of the decoded picture as the server stored it: {}", input.sha256);
    ingredient.insert("description".to_owned(), digest.into());
    ingredient.entry("format").or_insert_with(|| "image/png".into());
    let read = serde_json::from_value(Value::Object(ingredient));
    read.unwrap_or_else(|_| Ingredient::new_v2(input.title.as_str(), "image/png"))
}
