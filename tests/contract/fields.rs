//! Compares the table of request fields with `openapi.yaml`.

use std::collections::BTreeSet;

use latentd::generation::{
    Bounds, FIELDS, FILM_FIELDS, Field, Fields, Rules, SOUND_FIELDS, WorkKind, request_schema, resolve,
};
use serde_json::{Map, Value, json};

use crate::{Open, conforms::contract, defaults, number};

/// The models that together accept all fields of a request for pictures.
const DRAWING: [&str; 5] = ["emoji", "editor", "xl", "classes", "joint"];

/// The schema of each field by the table, from these models.
fn table(models: &[&str]) -> Map<String, Value> {
    let open = Open { limits: defaults() };
    let schemas = models.iter().map(|model| {
        let card = open.card(model).unwrap();
        let kind = if card.film.is_some() { WorkKind::Film } else { card.work_kind() };
        request_schema(kind, &Bounds { card: &card, limits: &open.limits }, true)
    });
    schemas
        .into_iter()
        .flat_map(|mut schema| schema["properties"].as_object_mut().map(std::mem::take).unwrap())
        .collect()
}

/// Appends to `found` each bound of a field on which the contract and the table of fields disagree.
fn differences(path: &str, contract: &Value, table: &Value, found: &mut Vec<String>) {
    const BOUNDS: [&str; 16] = [
        "type",
        "enum",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minItems",
        "maxItems",
        "maxProperties",
        "propertyNames",
        "additionalProperties",
        "maxLength",
        "pattern",
        "required",
        "default",
    ];
    let contract = resolved_in(contract);
    // Pictures, schedulers and webhooks have several forms, which the contract and the table describe differently.
    if contract.get("oneOf").is_some() {
        return;
    }
    for bound in BOUNDS {
        // The contract has no defaults that depend on the model, and only the table bounds the text of `size`.
        let of_model = bound == "default" && contract.get(bound).is_none();
        let one = (contract.get(bound), table.get(bound));
        let is_word = bound == "type" && contract.get("const").is_some();
        let same = match one {
            (Some(one), Some(other)) => plain(one) == plain(other),
            (None, Some(_)) => {
                of_model
                    || is_word
                    || bound == "enum" && contract.get("const").is_some()
                    || path == "/size" && bound == "maxLength"
            }
            (Some(one), None) => one.is_null(),
            (None, None) => true,
        };
        if !same {
            found.push(format!("{path} {bound}: {:?} and {:?}", one.0, one.1));
        }
    }
    if let (Some(one), Some(other)) = (contract.get("items"), table.get("items")) {
        differences(&format!("{path}/items"), one, other, found);
    }
    let keys = |value: &Value| -> BTreeSet<String> {
        value.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::keys).cloned().collect()
    };
    if keys(contract) != keys(table) {
        found.push(format!("{path}: the keys {:?} and {:?}", keys(contract), keys(table)));
        return;
    }
    for key in keys(contract) {
        differences(&format!("{path}/{key}"), &contract["properties"][&key], &table["properties"][&key], found);
    }
}

fn resolved_in(value: &Value) -> &Value {
    match value.get("$ref").and_then(Value::as_str) {
        Some(target) => resolved_in(contract().pointer(target.strip_prefix('#').unwrap()).expect(target)),
        None => value,
    }
}

/// The value in one notation: numbers compare by value, and lists of strings are sorted because their order has no
/// meaning.
fn plain(value: &Value) -> Value {
    match value {
        Value::Number(it) => it.as_f64().map_or(value.clone(), number),
        Value::Array(items) if items.iter().all(|item| item.is_string() || item.is_null()) => {
            let mut items = items.clone();
            items.sort_by_key(Value::to_string);
            items.into()
        }
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), plain(value))).collect(),
        other => other.clone(),
    }
}

#[test]
fn the_contract_and_the_table_of_fields_know_the_same_fields_with_the_same_bounds() {
    compare("GenerateImage", FIELDS, &DRAWING);
    compare("GenerateAudio", SOUND_FIELDS, &["waves"]);
    compare("GenerateVideo", FILM_FIELDS, &["svd", "wan", "sd15"]);
}

/// Compares a schema of requests with the table of its fields. Together, `models` take all of these fields.
fn compare(schema: &str, fields: &[&Field], models: &[&str]) {
    let contract = contract()["components"]["schemas"][schema]["properties"].as_object().unwrap();
    let names: BTreeSet<&str> = fields.iter().map(|field| field.name).collect();
    assert_eq!(contract.keys().map(String::as_str).collect::<BTreeSet<_>>(), names);
    assert_eq!(names.len(), fields.len(), "a field stands twice in the table");
    let table = table(models);
    assert_eq!(table.keys().map(String::as_str).collect::<BTreeSet<_>>(), names, "no model takes one of them");
    let mut found = Vec::new();
    for (name, field) in contract.iter().filter(|(name, _)| *name != "model") {
        differences(&format!("/{name}"), field, &table[name], &mut found);
    }
    assert_eq!(found, [""; 0]);
}

#[test]
fn params_show_the_fields_that_the_table_shows() {
    for (schema, fields) in [("Params", FIELDS), ("AudioParams", SOUND_FIELDS), ("VideoParams", FILM_FIELDS)] {
        let params = contract()["components"]["schemas"][schema]["properties"].as_object().unwrap();
        let shown: BTreeSet<&str> = fields.iter().filter(|field| field.shown).map(|field| field.name).collect();
        assert_eq!(params.keys().map(String::as_str).collect::<BTreeSet<_>>(), shown);
    }
}

#[test]
fn the_error_of_an_unknown_field_suggests_a_similar_name() {
    let detail = |request: Value| {
        let Value::Object(map) = request else { unreachable!() };
        resolve(Fields::new(map), &Open { limits: defaults() }).unwrap_err().errors.remove(0).detail
    };
    for (request, near) in [
        (json!({"prompt": "", "negativ_prompt": ""}), "; did you mean negative_prompt?"),
        (json!({"prompt": "", "Steps": 3}), "; did you mean steps?"),
        (json!({"prompt": "", "loras": [{"name": "a", "scael": 1}]}), "; did you mean scale?"),
        (json!({"prompt": "", "output": {"fromat": "png"}}), "; did you mean format?"),
        (json!({"prompt": "", "color": "red"}), "is not a field of this request"),
        (json!({"prompt": "", "p".repeat(100_000): "red"}), "is not a field of this request"),
    ] {
        assert!(detail(request).ends_with(near), "{near}");
    }
}
