//! Writes a statement as the definition of a C2PA manifest.

use serde_json::{Value, json};

use super::Statement;

/// The label of latentd's own assertion, in the notation of reversed domain names.
pub(super) const GENERATION: &str = "dev.latentd.generation";

/// IPTC's term for what a model made without other pictures.
const BY_MODEL: &str = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia";
/// IPTC's term for what a model made from other pictures.
const BY_MODEL_FROM_PICTURES: &str =
    "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia";

/// The manifest of a statement, without its ingredients.
pub(super) fn definition(statement: &Statement<'_>) -> Value {
    let source = if statement.is_composite() { BY_MODEL_FROM_PICTURES } else { BY_MODEL };
    let inputs: Vec<&str> = statement.inputs.iter().map(|input| input.title.as_str()).collect();
    let mut made = created(source);
    if !inputs.is_empty() {
        made["parameters"] = json!({"ingredientIds": inputs});
    }
    let generation = json!({"label": GENERATION, "created": true, "kind": "Json", "data": statement.generation()});
    manifest(&[actions(&made), generation])
}

/// A manifest that only says that a model made the picture.
pub(super) fn bare() -> Value {
    manifest(&[actions(&created(BY_MODEL))])
}

fn manifest(assertions: &[Value]) -> Value {
    json!({"claim_generator_info": [program()], "assertions": assertions})
}

fn actions(made: &Value) -> Value {
    json!({"label": "c2pa.actions.v2", "created": true, "data": {"actions": [made], "allActionsIncluded": true}})
}

fn created(source: &str) -> Value {
    json!({"action": "c2pa.created", "digitalSourceType": source, "softwareAgent": program()})
}

fn program() -> Value {
    json!({"name": "latentd", "version": env!("CARGO_PKG_VERSION")})
}
