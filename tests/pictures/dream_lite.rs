//! What the models of DreamLite accept and refuse, and what a generation costs.

use latentd::{
    catalogue::Catalogue,
    generation::{Fields, ImageInfluence, ImageSource, InputImage, Job, Work, resolve},
    kernels::Kernels,
    service::CatalogueRules,
};
use serde_json::{Value, json};

use super::{case, case::Case, cpu, fixtures, shared_batches::LIMITS};

/// The names of the models that the cases use: base is a copy of the mobile model with another class.
const MODELS: [&str; 2] = ["dreamlite", "dreamlite--base"];

/// The catalogue with both models; `None` if the fixtures lack them.
fn catalogue() -> Option<(tempfile::TempDir, Catalogue)> {
    let root = fixtures();
    if !root.join("pipelines/dreamlite").is_dir() {
        assert!(std::env::var_os("LATENTD_PARITY_DIR").is_none(), "the fixtures have no dreamlite");
        println!("no dreamlite: LATENTD_PARITY_DIR does not name the complete fixtures");
        return None;
    }
    let models = case::models(&root, &["dreamlite"]);
    let catalogue = Catalogue::open(models.path(), MODELS[0]).unwrap().on(vec![cpu(Kernels::default())]);
    Some((models, catalogue))
}

/// A picture in the form of a request.
fn picture() -> Value {
    let cases = Case::all(&fixtures(), &["dreamlite"]);
    let edit = cases.iter().find(|case| case.name == "dreamlite/mobile_edit").unwrap();
    edit.body()["image"].clone()
}

/// The job of a request, or the fields with errors.
fn job(catalogue: &Catalogue, model: &str, request: &Value) -> Result<Job, Vec<String>> {
    let mut fields = request.as_object().unwrap().clone();
    fields.extend([("model".to_owned(), model.into()), ("prompt".to_owned(), "a fox".into())]);
    let mut fields = Fields::new(fields);
    for (place, given) in fields.pictures() {
        assert!(matches!(given, ImageSource::File(..)), "{given:?}");
        fields.place(place, &InputImage { upload: "0".repeat(64), width: 96, height: 64 });
    }
    let rules = CatalogueRules { catalogue, limits: &LIMITS };
    resolve(fields, &rules).map_err(|invalid| invalid.errors.into_iter().map(|error| error.pointer).collect())
}

#[test]
fn the_fields_of_dream_lite_depend_on_the_model_and_on_the_picture() {
    let Some((_models, catalogue)) = catalogue() else { return };
    let picture = picture();
    for (request, refused_by) in [
        (json!({}), [None, None]),
        (json!({"image": picture}), [None, None]),
        (json!({"image": [picture]}), [None, None]),
        (json!({"guidance_scale": 5}), [Some("/guidance_scale"), None]),
        (json!({"image": picture, "image_guidance_scale": 2}), [Some("/image_guidance_scale"), None]),
        (json!({"image_guidance_scale": 2}), [Some("/image_guidance_scale"); 2]),
        (json!({"image": [picture, picture]}), [Some("/image"); 2]),
        (json!({"image": picture, "strength": 0.5}), [Some("/strength"); 2]),
        (json!({"image": picture, "mask": picture}), [Some("/mask"); 2]),
        (json!({"width": 72}), [Some("/width"); 2]),
        (json!({"max_sequence_length": 64}), [Some("/max_sequence_length"); 2]),
        (json!({"prompt_syntax": "weighted"}), [Some("/prompt_syntax"); 2]),
        (json!({"feature_cache": {"kind": "deepcache", "interval": 2}}), [Some("/feature_cache"); 2]),
        (json!({"decoder": "tiny"}), [Some("/decoder"); 2]),
    ] {
        for (model, refused) in MODELS.into_iter().zip(refused_by) {
            let pointers = job(&catalogue, model, &request).map(drop);
            let expected = refused.map_or(Ok(()), |pointer| Err(vec![pointer.to_owned()]));
            let names: Vec<&String> = request.as_object().unwrap().keys().collect();
            assert_eq!(pointers, expected, "{model}: {names:?}");
        }
    }
}

#[test]
fn defaults_of_dream_lite_are_those_of_its_pipelines() {
    let Some((_models, catalogue)) = catalogue() else { return };
    let edit = json!({"image": picture()});
    let drawn = MODELS.map(|model| {
        let Work::Draw(draw) = job(&catalogue, model, &edit).unwrap().work;
        (draw.steps, draw.guidance_scale, draw.source.unwrap().hold, (draw.width, draw.height))
    });
    let size = (96, 64); // that of the picture
    assert_eq!(drawn[0], (4, 1.0, ImageInfluence::Reference {}, size));
    assert_eq!(drawn[1], (30, 7.5, ImageInfluence::Guidance { image_guidance_scale: 1.0 }, size));
}

#[test]
fn a_plan_of_dream_lite_counts_the_predictions_and_the_picture() {
    let Some((_models, catalogue)) = catalogue() else { return };
    let cost = |model: &str, mut request: Value, steps: u32| {
        request.as_object_mut().unwrap().extend([("steps".to_owned(), steps.into())]);
        request.as_object_mut().unwrap().extend([("width".to_owned(), 96.into()), ("height".to_owned(), 64.into())]);
        catalogue.plan(&job(&catalogue, model, &request).unwrap()).unwrap().cost
    };
    // The cost of a step is that of its rows; everything else does not depend on the number of steps.
    let step = |model: &str, request: Value| cost(model, request.clone(), 9) - cost(model, request, 8);
    let (plain, edit) = (json!({}), json!({"image": picture()}));
    let ratio = |of: f64, to: f64| (of / to * 100.0).round() / 100.0;
    let row = step(MODELS[0], plain.clone());
    assert!(row > 0.0);
    assert_eq!(ratio(step(MODELS[1], plain.clone()), row), 2.0);
    assert_eq!(ratio(step(MODELS[1], json!({"guidance_scale": 0})), row), 2.0, "at every scale");
    let edited_row = step(MODELS[0], edit.clone());
    assert!(edited_row > row, "the tokens of the picture count");
    assert_eq!(ratio(step(MODELS[1], edit.clone()), edited_row), 3.0);
}
