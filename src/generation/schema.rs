//! Makes the JSON Schema (2020-12) of a model's requests from the table of fields.

use serde_json::{Map, Value, json};

use super::{
    ModelCard, WorkKind,
    field::{Bounds, Field, Integers, Kind, Numbers},
    levels::{MAX_SIGMA, MAX_TIMESTEP},
    table,
};

/// The schema of a request for work of this kind by the model of this card. A request that does not match the schema is
/// refused, with three exceptions: null counts as a missing field; a model that does not take `guidance_scale` accepts
/// its default; and a model without prompts accepts the default values of all fields that it does not take. A matching
/// request can still be refused for reasons that a schema cannot express: names in the catalogue, limits of a
/// scheduler, the number of pixels.
pub fn request_schema(kind: WorkKind, on: &Bounds<'_>, is_default_model: bool) -> Value {
    let mut schema = object(kind.fields(), on);
    schema.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("title".to_owned(), format!("A request for the model {}", on.card.name).into());
    let (name, description) = (&on.card.name, table::MODEL.doc);
    let mut schema = Value::Object(schema);
    // A request without a model uses the server's default model.
    if is_default_model {
        let model =
            json!({"type": ["string", "null"], "enum": [name, null], "default": name, "description": description});
        schema["properties"]["model"] = model;
    } else {
        schema["properties"]["model"] = json!({"type": "string", "const": name, "description": description});
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        schema["required"] = required.into_iter().chain(["model".into()]).collect();
    }
    schema
}

/// The schema of an object. Its properties are the `fields` that the model takes.
fn object(fields: &[&Field], on: &Bounds<'_>) -> Map<String, Value> {
    let taken: Vec<&Field> = fields.iter().copied().filter(|field| field.is_taken_by(on.card)).collect();
    let required = taken.iter().filter(|field| (field.required)(on.card)).map(|field| field.name);
    let properties = taken.iter().map(|field| (field.name.to_owned(), property(field, on)));
    let mut schema = Map::new();
    schema.insert("type".to_owned(), "object".into());
    let required: Vec<Value> = required.map(Value::from).collect();
    if !required.is_empty() {
        schema.insert("required".to_owned(), required.into());
    }
    schema.insert("additionalProperties".to_owned(), false.into());
    schema.insert("properties".to_owned(), Value::Object(properties.collect()));
    let rules: Vec<Value> = taken.iter().flat_map(|field| rules(field, &taken, on.card)).collect();
    if !rules.is_empty() {
        schema.insert("allOf".to_owned(), rules.into());
    }
    schema
}

/// The schema of one field. A null counts as absent, so only required fields cannot be null.
fn property(field: &Field, on: &Bounds<'_>) -> Value {
    let mut schema = values(field, on);
    if !(field.required)(on.card) {
        accept_null(&mut schema);
    }
    schema.insert("description".to_owned(), field.doc.into());
    if let Some(default) = (field.default)(on) {
        schema.insert("default".to_owned(), default);
    }
    if let Some(needed) = (field.needs)(on.card) {
        schema.insert("x-needs".to_owned(), needed.into());
    }
    let classes = &on.card.classes;
    if matches!(field.kind, Kind::Classes) && classes.iter().any(|name| !name.is_empty()) {
        schema.insert("x-classes".to_owned(), classes.iter().map(String::as_str).collect());
    }
    Value::Object(schema)
}

fn values(field: &Field, on: &Bounds<'_>) -> Map<String, Value> {
    let steps = on.limits.max_steps;
    let list = |items: Value, min: usize, max: usize| json!({"type": "array", "items": items, "minItems": min, "maxItems": max});
    let schema = match field.kind {
        Kind::Text(max_chars) => json!({"type": "string", "maxLength": max_chars(on)}),
        Kind::Integer(_) => {
            let bounds = field.integers(on);
            let mut schema = json!({"type": "integer", "minimum": bounds.min, "maximum": bounds.max});
            if bounds.multiple_of > 1 {
                schema["multipleOf"] = bounds.multiple_of.into();
            }
            schema
        }
        Kind::Number(bounds) => numbers(bounds),
        Kind::Seconds(bounds) => numbers(bounds(on)),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Word(words) => json!({"type": "string", "enum": words(on)}),
        Kind::Pair { min } => list(json!({"type": "integer", "minimum": min, "maximum": Kind::MAX_PAIR}), 2, 2),
        Kind::Integers { most, each } => {
            let Integers { min, max, .. } = each(on);
            list(json!({"type": "integer", "minimum": min, "maximum": max}), 1, most)
        }
        Kind::Interval => list(json!({"type": "number", "minimum": 0, "maximum": 1}), 2, 2),
        Kind::Sigmas => list(json!({"type": "number", "minimum": 0, "maximum": MAX_SIGMA}), 1, steps as usize),
        Kind::Timesteps => list(json!({"type": "integer", "minimum": 0, "maximum": MAX_TIMESTEP}), 1, steps as usize),
        Kind::Picture => picture(),
        Kind::Pictures(most) => match most(on) {
            0 | 1 => picture(),
            most => json!({"anyOf": [picture(), list(picture(), 1, most)]}),
        },
        Kind::Size => json!({"type": "string", "pattern": "^[0-9]+x[0-9]+$", "maxLength": 20}),
        Kind::Scheduler => json!({"type": ["string", "object"], "maxLength": 128}),
        Kind::Classes => {
            let most = on.card.classes.len().saturating_sub(1);
            let one = json!([{"type": "integer", "minimum": 0, "maximum": most}, {"type": "string"}]);
            let each =
                json!({"type": "array", "items": {"anyOf": one}, "minItems": 1, "maxItems": on.limits.max_images});
            json!({"anyOf": [one[0], one[1], each]})
        }
        Kind::Labels => json!({
            "type": "object",
            "maxProperties": Kind::MAX_LABELS,
            "propertyNames": {"minLength": 1, "maxLength": Kind::MAX_LABEL_CHARS},
            "additionalProperties": {"type": "string", "maxLength": Kind::MAX_LABEL_VALUE_CHARS},
        }),
        Kind::Words { words, most } => list(json!({"enum": words}), 1, most),
        Kind::Object(keys) => Value::Object(object(keys, on)),
        Kind::List { most, of } => json!({"type": "array", "items": object(of, on), "maxItems": most}),
    };
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

fn numbers(bounds: Numbers) -> Value {
    let min = if bounds.min_is_open { "exclusiveMinimum" } else { "minimum" };
    let max = if bounds.max_is_open { "exclusiveMaximum" } else { "maximum" };
    json!({"type": "number", min: bounds.min, max: bounds.max})
}

/// The schema of a picture. Each form has one key; an upload may also have its size, as in the server's answers.
fn picture() -> Value {
    json!({
        "type": ["string", "object"],
        "minProperties": 1,
        "additionalProperties": false,
        "properties": {
            "b64": {"type": "string", "contentEncoding": "base64"},
            "data_url": {"type": "string", "pattern": "^[dD][aA][tT][aA]:[^,]*;[bB][aA][sS][eE]64,"},
            "upload": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            "file": {"type": "string", "description": "The name of a part of the multipart body."},
            "width": {"type": "integer"},
            "height": {"type": "integer"},
        },
        "oneOf": [
            {"type": "string"},
            {"required": ["b64"], "type": "object"},
            {"required": ["data_url"], "type": "object"},
            {"required": ["upload"], "type": "object"},
            {"required": ["file"], "type": "object"},
        ],
    })
}

fn accept_null(schema: &mut Map<String, Value>) {
    if let Some(Value::Array(kinds)) = schema.get_mut("anyOf") {
        return kinds.push(json!({"type": "null"}));
    }
    let types = match schema.get("type") {
        Some(Value::Array(types)) => types.clone(),
        Some(one) => vec![one.clone()],
        None => Vec::new(),
    };
    schema.insert("type".to_owned(), types.into_iter().chain(["null".into()]).collect());
    for key in ["enum", "oneOf"] {
        if let Some(Value::Array(values)) = schema.get_mut(key) {
            values.push(if key == "enum" { Value::Null } else { json!({"type": "null"}) });
        }
    }
}

/// The schemas that say which other fields must be present together with this field, and which must not.
fn rules(field: &Field, taken: &[&Field], card: &ModelCard) -> Vec<Value> {
    let mut rules = Vec::new();
    if let Some(needed) = (field.needs)(card).and_then(|name| Field::find(taken, name)) {
        rules.push(json!({"anyOf": [{"not": given(field)}, given(needed)]}));
    }
    for excluded in field.excludes.iter().filter_map(|name| Field::find(taken, name)) {
        rules.push(json!({"not": {"allOf": [given(field), given(excluded)]}}));
    }
    rules
}

/// A schema that matches requests with this field. An empty list and null count as absent.
fn given(field: &Field) -> Value {
    let said = match field.kind {
        Kind::List { .. } => json!({"type": "array", "minItems": 1}),
        _ => json!({"not": {"type": "null"}}),
    };
    // Without the type, null in the place of the object would match.
    json!({"type": "object", "required": [field.name], "properties": {field.name: said}})
}
