//! Tests of the requests that the models of DreamLite accept and refuse, and of the plan of a generation.

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
        (json!({"image": picture, "guidance_rescale": 0.5}), [None, Some("/guidance_rescale")]),
        (json!({"image": picture, "guidance_rescale": 0}), [None, None]),
        (json!({"guidance_rescale": 0.5}), [None, None]),
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

/// Base is guided at every scale, so an interval of guidance always changes its pictures.
#[test]
fn an_interval_of_guidance_is_an_approximation_of_base_at_every_scale() {
    let Some((_models, catalogue)) = catalogue() else { return };
    let of = |model: &str, request: Value| job(&catalogue, model, &request).unwrap().approximations();
    for scale in [0.0, 0.5, 1.0, 7.5] {
        let request = json!({"guidance_scale": scale, "guidance_interval": [0.2, 0.8]});
        assert_eq!(of(MODELS[1], request), ["guidance_interval"], "{scale}");
        assert_eq!(of(MODELS[1], json!({"guidance_scale": scale})), [""; 0], "{scale}");
    }
    assert_eq!(of(MODELS[0], json!({"guidance_interval": [0.2, 0.8]})), [""; 0], "mobile has no guidance");
}

/// The model reads 500 tokens of the chat around a prompt. The chat about a picture has more text around a prompt than
/// the other one, and around a negative prompt there is less.
#[test]
fn a_warning_counts_the_tokens_of_the_chat_that_the_model_reads() {
    let Some((_models, catalogue)) = catalogue() else { return };
    let cuts = |prompt: &str, mut request: Value| -> Vec<(String, usize)> {
        request.as_object_mut().unwrap().extend([("negative_prompt".to_owned(), prompt.into())]);
        let mut job = job(&catalogue, MODELS[1], &request).unwrap();
        let Work::Draw(draw) = &mut job.work else { panic!("a drawing") };
        draw.prompt = prompt.to_owned();
        let warnings = catalogue.warnings(&job).into_iter().filter(|warning| warning.code == "prompt_cut");
        let total = |detail: &str| detail.split(' ').nth(2).unwrap().parse().unwrap();
        warnings.map(|warning| (warning.pointer.to_string(), total(&warning.detail))).collect()
    };
    let (plain, edit) = (json!({}), json!({"image": picture()}));
    let long = "1".repeat(600);
    let of = |request: &Value| {
        let cuts = cuts(&long, request.clone());
        assert_eq!(
            cuts.iter().map(|(pointer, _)| pointer.as_str()).collect::<Vec<_>>(),
            ["/prompt", "/negative_prompt"]
        );
        [cuts[0].1, cuts[1].1]
    };
    let (generated, edited) = (of(&plain), of(&edit));
    assert!(generated[0] > generated[1] && edited[0] > edited[1], "{generated:?} {edited:?}");
    assert!(edited[0] > generated[0], "{generated:?} {edited:?}");
    // A digit is a token. The longest prompt that is not cut has as many digits fewer as the long one has too many.
    for (request, [total, _]) in [(plain, generated), (edit, edited)] {
        let fits = "1".repeat(600 - (total - 500));
        assert_eq!(cuts(&fits, request.clone()), []);
        assert_eq!(cuts(&format!("{fits}1"), request), [("/prompt".to_owned(), 501)]);
    }
}

#[test]
fn defaults_of_dream_lite_are_those_of_its_pipelines() {
    let Some((_models, catalogue)) = catalogue() else { return };
    let edit = json!({"image": picture()});
    let drawn = MODELS.map(|model| {
        let Work::Draw(draw) = job(&catalogue, model, &edit).unwrap().work else { panic!("a drawing") };
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
    // The cost of a step is the cost of its rows; everything else does not depend on the number of steps.
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
