//! Compares `openapi.yaml` with the router, with the resolver of requests, and with its own examples.

use std::{collections::BTreeSet, sync::Arc};

use latentd::{
    generation::{
        Decoder, Draw, FieldError, Fields, FilmCard, Levels, Limits, LogSnr, ModelCard, Motion, MotionAdapterCard,
        PromptSyntax, Rules, SchedulerChoice, SoundCard, Task, WorkKind, resolve, resolve_work,
    },
    http::{Route, operator_routes, public_routes},
};
use serde_json::{Map, Value, json};

#[path = "contract/conforms.rs"]
mod conforms;
#[path = "contract/fields.rs"]
mod fields;

use conforms::{assert_conforms, complaints, contract, events, operation, resolved};

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// Method, path and description of each operation in the contract.
fn operations() -> impl Iterator<Item = (&'static str, &'static str, &'static Value)> {
    let paths = contract()["paths"].as_object().unwrap();
    paths.iter().flat_map(|(path, item)| {
        METHODS.iter().filter_map(move |method| Some((*method, path.as_str(), item.get(*method)?)))
    })
}

/// The routes of both listeners.
fn endpoints() -> Vec<Route> {
    public_routes().into_iter().chain(operator_routes()).collect()
}

#[test]
fn every_route_is_in_the_contract_and_every_operation_is_routed() {
    let routed: BTreeSet<_> =
        endpoints().iter().map(|end| (end.method.as_str().to_ascii_lowercase(), end.path.to_owned())).collect();
    let written: BTreeSet<_> = operations().map(|(method, path, _)| (method.to_owned(), path.to_owned())).collect();
    assert_eq!(routed, written);
    assert_eq!(routed.len(), endpoints().len(), "a route stands twice in the table");
}

#[test]
fn the_contract_and_the_operator_listener_have_the_same_operator_routes() {
    let routed: BTreeSet<_> = operator_routes().iter().map(|end| end.path.to_owned()).collect();
    let written: BTreeSet<_> = operations()
        .filter(|(_, path, _)| contract()["paths"][path].get("servers").is_some())
        .inspect(|(_, path, operation)| assert_eq!(operation["tags"], json!(["operator"]), "{path}"))
        .map(|(_, path, _)| path.to_owned())
        .collect();
    assert_eq!(routed, written);
}

/// The beginnings of the paths that clients of AUTOMATIC1111's web interface and of Ollama use.
const FACES: [&str; 3] = ["/sdapi/", "/controlnet/", "/api/"];

fn is_face(path: &str) -> bool {
    FACES.iter().any(|start| path.starts_with(start))
}

#[test]
fn only_operations_of_clients_and_administration_require_a_key() {
    for (method, path, operation) in operations() {
        let open = operation.get("security") == Some(&json!([{}]));
        let is_operated = path.starts_with("/admin/");
        assert_eq!(open, !path.starts_with("/v1") && !is_face(path) && !is_operated, "{method} {path}");
        assert_eq!(operation["responses"].get("401").is_some(), !open, "{method} {path}");
    }
}

/// A key that stands twice in a mapping would silently replace the first one.
#[test]
fn no_mapping_of_the_contract_has_a_key_twice() {
    let parsed = serde_yaml_ng::from_str::<serde_yaml_ng::Value>(latentd::http::OPENAPI_YAML);
    assert!(parsed.is_ok(), "{}", parsed.unwrap_err());
}

#[test]
fn operation_ids_are_unique_and_links_name_existing_operations() {
    let names: Vec<_> =
        operations().map(|(_, path, operation)| operation["operationId"].as_str().expect(path)).collect();
    let unique: BTreeSet<_> = names.iter().copied().collect();
    assert_eq!(names.len(), unique.len());
    let mut links = 0;
    for (_, path, operation) in operations() {
        for response in operation["responses"].as_object().unwrap().values() {
            for link in resolved(response).get("links").and_then(Value::as_object).into_iter().flat_map(Map::values) {
                let target = link["operationId"].as_str().unwrap();
                assert!(unique.contains(target), "{path} links to {target}");
                links += 1;
            }
        }
    }
    assert!(links >= 100, "generations, models, keys and workers are linked, not only {links} times");
}

#[test]
fn every_error_has_the_form_of_its_protocol() {
    for (method, path, operation) in operations() {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let types = resolved(response).get("content").and_then(Value::as_object);
            let types: Vec<_> = types.into_iter().flat_map(Map::keys).collect();
            if status.starts_with(['4', '5']) {
                let is_other = ["openai", "sdapi", "ollama"].iter().any(|tag| operation["tags"] == json!([tag]));
                // OpenAI's clients use these operations, too.
                let both = ["createVideo", "listVideos", "getVideo", "deleteVideo"].map(|id| json!(id));
                let forms = match (is_other, both.contains(&operation["operationId"])) {
                    (true, _) => vec!["application/json"],
                    (_, true) => vec!["application/problem+json", "application/json"],
                    _ => vec!["application/problem+json"],
                };
                assert_eq!(types, forms, "{method} {path} {status}");
            }
        }
    }
}

#[test]
fn every_parameter_of_a_path_is_declared() {
    for (method, path, operation) in operations() {
        let shared = contract()["paths"][path].get("parameters");
        let own = operation.get("parameters");
        let declared: BTreeSet<_> = [shared, own]
            .into_iter()
            .flatten()
            .flat_map(|list| list.as_array().unwrap())
            .map(resolved)
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        let named: BTreeSet<_> = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        assert_eq!(declared, named, "{method} {path}");
    }
}

#[test]
fn every_example_is_valid_for_its_schema() {
    let mut seen = 0;
    walk(contract(), &mut |node| {
        let Some(schema) = node.get("schema") else {
            return;
        };
        let named = node.get("examples").and_then(Value::as_object).into_iter().flat_map(Map::values);
        let examples = named.map(|example| &resolved(example)["value"]).chain(node.get("example"));
        for example in examples {
            let complaints = complaints(schema, example);
            assert!(complaints.is_empty(), "{example:#}\n{}", complaints.join("\n"));
            seen += 1;
        }
    });
    assert!(seen >= 20, "only {seen} examples were found");
}

#[test]
fn every_reference_resolves() {
    walk(contract(), &mut |node| {
        resolved(node);
    });
}

fn walk(node: &'static Value, visit: &mut impl FnMut(&'static Value)) {
    visit(node);
    match node {
        Value::Object(map) => map.values().for_each(|child| walk(child, visit)),
        Value::Array(items) => items.iter().for_each(|child| walk(child, visit)),
        _ => {}
    }
}

/// Rules with the default limits and models that add no bounds.
struct Open {
    limits: Limits,
}

impl Rules for Open {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn default_model(&self) -> &str {
        "emoji"
    }

    fn card(&self, model: &str) -> Option<Arc<ModelCard>> {
        let card = json!({"_class_name": "EulerDiscreteScheduler"});
        let (edits, xl, classes) = (model == "editor", model == "xl", model == "classes");
        let is_joint = model == "joint";
        let sounds = matches!(model, "waves" | "audioldm");
        let (animates, films, moves) = (model == "svd", model == "wan", model == "sd15");
        (model == "emoji" || edits || xl || classes || is_joint || sounds || animates || films || moves).then(|| {
            Arc::new(ModelCard {
                name: "emoji".into(),
                description: String::new(),
                default_width: 64,
                default_height: 64,
                min_side_pixels: 8,
                size_multiple: 8,
                default_steps: 20,
                default_guidance_scale: 5.0,
                max_clip_skip: 4,
                takes_prompt: !classes && !animates,
                weighted_prompts: !classes,
                limits_guidance: !classes,
                maps: if classes { Vec::new() } else { vec![64] },
                classifier_guidance: classes,
                classes: if classes { ["tench".to_owned(), String::new()].into() } else { Default::default() },
                default_scheduler: SchedulerChoice::Name("euler".into()),
                scheduler_config: card.as_object().unwrap().clone(),
                image_guidance_scale: edits.then_some(1.5),
                tasks: match model {
                    "editor" => vec![Task::InstructPix2Pix],
                    "svd" => vec![Task::ImageToVideo],
                    "wan" => vec![Task::TextToVideo],
                    _ => vec![Task::TextToImage, Task::ImageToImage, Task::Inpaint],
                },
                decoders: vec![Decoder::Full, Decoder::Tiny],
                prompts: Vec::new(),
                time_id_count: if xl { 6 } else { 0 },
                text_encoders: if is_joint { 3 } else { 1 },
                skippable_layers: if is_joint { 256 } else { 0 },
                sequence_lengths: (is_joint || animates || films).then_some((if is_joint { 256 } else { 512 }, 512)),
                true_guidance: is_joint,
                sound: sounds.then_some(SoundCard {
                    sample_rate: 16000,
                    channels: 1,
                    default_seconds: 5.12,
                    least_seconds: 0.01,
                    log_snr: (model == "waves").then_some(LogSnr { min: -6.2, max: 2.0 }),
                }),
                film: (animates || films || moves).then_some(FilmCard {
                    default_frames: 14,
                    frames_multiple: 1,
                    default_fps: 7,
                    motion: animates.then_some(Motion {
                        min_guidance_scale: 1.0,
                        motion_bucket_id: 127,
                        noise_aug_strength: 0.02,
                    }),
                    decodes_in_chunks: animates,
                    has_second_guidance: true,
                }),
                default_motion_adapter: moves.then(|| "mm-v15".to_owned()),
                motion_adapters: if moves {
                    vec![MotionAdapterCard { name: "mm-v15".to_owned(), max_frames: 121 }]
                } else {
                    Vec::new()
                },
                ..ModelCard::default()
            })
        })
    }

    fn check_scheduler(
        &self,
        _: &ModelCard,
        _: &SchedulerChoice,
        steps: u32,
        levels: Option<&Levels>,
    ) -> Result<u32, (String, String)> {
        Ok(match levels {
            None => steps,
            Some(Levels::Sigmas(sigmas)) => sigmas.len() as u32,
            Some(Levels::Timesteps(timesteps)) => timesteps.len() as u32,
        })
    }

    fn check_control(&self, _: &ModelCard, name: &str) -> Result<(), (&'static str, String)> {
        match name {
            "canny" => Ok(()),
            other => Err(("unknown_controlnet", format!("{other:?} is not in the catalogue"))),
        }
    }

    fn check_motion_adapter(&self, _: &ModelCard, name: &str) -> Result<(), (&'static str, String)> {
        match name {
            "mm-v15" => Ok(()),
            other => Err(("unknown_motion_adapter", format!("{other:?} is not in the catalogue"))),
        }
    }

    fn check_lora(&self, _: &ModelCard, _: &str) -> Result<(), (&'static str, String)> {
        Ok(())
    }

    fn check_words(&self, _: &ModelCard, _: PromptSyntax, _: &str) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn check_stages(&self, _: &ModelCard, _: &Draw) -> Result<(), (Vec<&'static str>, String)> {
        Ok(())
    }

    fn random_seed(&self) -> u64 {
        4
    }
}

/// The pointer of errors of a field. Errors of an alias have the pointer of the field that it stands for.
fn pointer_of(name: &str) -> String {
    format!("/{}", if name == "num_inference_steps" { "steps" } else { name })
}

/// The pointers of all errors of a request; empty if the request is valid.
fn refused(request: Value) -> Vec<String> {
    let Value::Object(map) = request else { panic!("a request is an object") };
    let config = latentd::config::Config::load(&Default::default()).unwrap();
    match resolve(Fields::new(map), &Open { limits: config.limits }) {
        Ok(_) => Vec::new(),
        Err(invalid) => invalid.errors.into_iter().map(|error| error.pointer).collect(),
    }
}

/// The errors of a request for work of this kind; empty if the request is valid.
fn errors_of(kind: WorkKind, request: Value) -> Vec<FieldError> {
    let Value::Object(map) = request else { panic!("a request is an object") };
    match resolve_work(kind, Fields::new(map), &Open { limits: defaults() }) {
        Ok(_) => Vec::new(),
        Err(invalid) => invalid.errors,
    }
}

#[test]
fn the_resolver_knows_every_field_of_the_contract_and_accepts_its_examples() {
    let schema = &contract()["components"]["schemas"]["GenerateImage"];
    for name in schema["properties"].as_object().unwrap().keys() {
        // No field has this type: a known field gets an error about its value, an unknown field one about its name.
        let Value::Object(request) = json!({"prompt": "", name: [[1]]}) else { unreachable!() };
        let invalid = resolve(Fields::new(request), &Open { limits: defaults() }).expect_err(name);
        let mut own = invalid.errors.iter().filter(|error| error.pointer.starts_with(&pointer_of(name)));
        assert!(own.any(|error| error.code != "unknown_field"), "{name}: {:?}", invalid.errors);
    }
    let body = &contract()["components"]["requestBodies"]["GenerateImage"]["content"]["application/json"];
    for (name, example) in body["examples"].as_object().unwrap() {
        assert_eq!(refused(example["value"].clone()), [""; 0], "{name}");
    }
}

fn defaults() -> Limits {
    latentd::config::Config::load(&Default::default()).unwrap().limits
}

#[test]
fn the_resolver_enforces_the_bounds_of_the_contract() {
    let schema = &contract()["components"]["schemas"]["GenerateImage"];
    let mut bounds = 0;
    for (name, field) in schema["properties"].as_object().unwrap() {
        let with = |value: Value| {
            // The other side is short, so that the greatest width or height stays within the greatest area.
            let mut request = json!({"prompt": "", "width": 64, "height": 64});
            // Some fields are valid only together with others.
            let picture = json!({"upload": "0".repeat(64), "width": 64, "height": 64});
            if name.contains("mask") {
                request["mask"] = picture.clone();
            }
            if name.contains("mask") || name == "strength" || name == "image_guidance_scale" {
                request["image"] = picture;
            }
            if name == "image_guidance_scale" {
                request["model"] = "editor".into();
            }
            if name == "max_sequence_length" || name == "true_guidance_scale" {
                request["model"] = "joint".into();
            }
            if name.starts_with("skip_layer_guidance") {
                request["model"] = "joint".into();
                request["skip_guidance_layers"] = json!([0]);
                request["guidance_scale"] = 5.0.into();
            }
            if name.contains("aesthetic_score") {
                request["model"] = "xl".into();
            }
            if name == "class_guidance_scale" {
                request = json!({"model": "classes", "class_label": 1, "width": 64, "height": 64});
            }
            request[name] = value;
            request
        };
        let pointer = pointer_of(name);
        let step = if field["type"][0] == "integer" {
            field.get("multipleOf").map_or(1.0, |m| m.as_f64().unwrap())
        } else {
            0.5
        };
        for (bound, outward) in [("minimum", -step), ("maximum", step)] {
            let Some(limit) = field.get(bound) else {
                continue;
            };
            assert_eq!(refused(with(limit.clone())), [""; 0], "{name} at its {bound}");
            let beyond = match limit.as_u64() {
                // Above 2^53, an f64 cannot represent the limit plus one.
                Some(limit) if limit > 1 << 53 => json!(limit + 1),
                _ => number(limit.as_f64().unwrap() + outward),
            };
            assert!(refused(with(beyond.clone())).contains(&pointer), "{name} = {beyond} is beyond its {bound}");
            assert!(!complaints(schema, &with(beyond)).is_empty());
            bounds += 1;
        }
        for word in field.get("enum").and_then(Value::as_array).into_iter().flatten() {
            assert_eq!(refused(with(word.clone())), [""; 0], "{name}");
        }
    }
    assert!(bounds >= 20, "only {bounds} bounds were found");
}

#[test]
fn the_resolvers_of_sounds_and_films_know_the_fields_the_examples_and_the_bounds_of_the_contract() {
    let picture = json!({"upload": "0".repeat(64), "width": 64, "height": 64});
    // A zip archive allows all sizes.
    let film = json!({"model": "svd", "image": picture, "output": {"format": "zip"}});
    let sound = json!({"model": "waves", "prompt": ""});
    for (kind, name, request, least) in
        [(WorkKind::Sound, "GenerateAudio", sound, 12), (WorkKind::Film, "GenerateVideo", film, 24)]
    {
        compare_resolver(kind, name, &request, least);
    }
}

/// Compares the resolver of requests of this kind, such as `request`, with the schema `name`.
fn compare_resolver(kind: WorkKind, name: &str, request: &Value, least: usize) {
    let schema = &contract()["components"]["schemas"][name];
    let mut bounds = 0;
    for (name, field) in schema["properties"].as_object().unwrap() {
        let pointers = |value: &Value| {
            let mut request = request.clone();
            request[name] = value.clone();
            // A model of flow matching takes the other fields of sounds, and no η.
            if kind == WorkKind::Sound && name == "eta" {
                request["model"] = "audioldm".into();
            }
            errors_of(kind, request).into_iter().map(|error| error.pointer).collect::<Vec<_>>()
        };
        let mut strange = request.clone();
        strange[name] = json!([[1]]);
        let errors = errors_of(kind, strange);
        let mut own = errors.iter().filter(|error| error.pointer.starts_with(&pointer_of(name)));
        assert!(own.any(|error| error.code != "unknown_field"), "{name}: {errors:?}");
        let step = if field["type"][0] == "integer" { 1.0 } else { 0.5 };
        for (bound, outward) in [("minimum", -step), ("maximum", step)] {
            let Some(limit) = field.get(bound) else { continue };
            assert_eq!(pointers(limit), [""; 0], "{name} at its {bound}");
            let beyond = match limit.as_u64() {
                Some(limit) if limit > 1 << 53 => json!(limit + 1),
                _ => number(limit.as_f64().unwrap() + outward),
            };
            assert!(pointers(&beyond).contains(&pointer_of(name)), "{name} = {beyond}");
            bounds += 1;
        }
        for word in field.get("enum").and_then(Value::as_array).into_iter().flatten() {
            assert_eq!(pointers(word), [""; 0], "{name}");
        }
    }
    assert!(bounds >= least, "only {bounds} bounds were found");
    let body = &contract()["components"]["requestBodies"][name]["content"]["application/json"];
    for (name, example) in body["examples"].as_object().unwrap() {
        let mut example = example["value"].clone();
        // The service reads the pictures before it resolves the other fields.
        if example.get("image").is_some() {
            example["image"] = request["image"].clone();
        }
        let errors = errors_of(kind, example);
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
}

fn number(number: f64) -> Value {
    if number.fract() == 0.0 { json!(number as i64) } else { json!(number) }
}

#[test]
fn defaults_of_the_contract_are_those_of_the_resolver() {
    for (kind, model, request, params_schema, least) in [
        (WorkKind::Draw, "emoji", "GenerateImage", "Params", 8),
        (WorkKind::Sound, "waves", "GenerateAudio", "AudioParams", 5),
        (WorkKind::Film, "wan", "GenerateVideo", "VideoParams", 4),
    ] {
        let schema = contract()["components"]["schemas"][request]["properties"].as_object().unwrap();
        let Value::Object(request) = json!({"prompt": "", "model": model}) else { unreachable!() };
        let params = resolve_work(kind, Fields::new(request), &Open { limits: defaults() }).unwrap().params();
        let mut compared = 0;
        for (name, field) in schema {
            if let (Some(default), Some(used)) = (field.get("default"), params.get(name)) {
                assert_eq!(
                    default.as_f64().map_or(default.clone(), number),
                    used.as_f64().map_or(used.clone(), number),
                    "{name}"
                );
                compared += 1;
            }
        }
        assert!(compared >= least, "only {compared} defaults were found");
        let schema = json!({"$ref": format!("#/components/schemas/{params_schema}")});
        assert_eq!(complaints(&schema, &Value::Object(params)), [""; 0]);
    }
}

#[test]
fn assert_conforms_rejects_answers_outside_the_contract() {
    let example = |name: &str| contract()["components"]["examples"][name]["value"].clone();
    let id = example("Queued")["id"].as_str().unwrap().to_owned();
    let bytes = |value: &Value| value.to_string().into_bytes();
    assert_conforms("POST", "/v1/images", 202, &bytes(&example("Queued")));
    assert_conforms("GET", &format!("/v1/images/{id}?x=1"), 200, &bytes(&example("Running")));
    assert_conforms("DELETE", &format!("/v1/images/{id}"), 204, b"");
    assert_conforms(
        "GET",
        &format!("/v1/images/{id}/events"),
        200,
        b"retry: 2000\nid: 0\ndata: \n\nevent: ping\ndata: {}\n\nevent: cut o",
    );
    assert_eq!(operation("POST", "/v1/images.png").unwrap()["operationId"], "createImagePng");

    let wrong = |status, body: &[u8]| {
        let body = body.to_vec();
        std::panic::catch_unwind(move || assert_conforms("POST", "/v1/images", status, &body)).is_err()
    };
    let mut changed = example("Queued");
    changed["color"] = json!("red");
    assert!(wrong(202, &bytes(&changed)), "an unknown field passed");
    assert!(wrong(201, &bytes(&example("Queued"))), "an unlisted status passed");
    assert!(wrong(202, b""), "an empty body passed");
    assert!(wrong(200, b"event: generation.done\ndata: {}\n\n"), "an unknown event passed");
}

#[test]
fn a_stream_is_read_event_by_event() {
    let read =
        events("retry: 2000\nid: 0\ndata: \n\nid: 1\nevent: generation.started\ndata: {\"attempt\":1}\n\nevent: pi");
    assert_eq!(
        read,
        [
            json!({"retry": 2000, "id": 0, "data": ""}),
            json!({"id": 1, "event": "generation.started", "data": {"attempt": 1}}),
        ]
    );
}
