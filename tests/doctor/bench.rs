//! Tests of `latentd bench`: its table, and the JSON that other programs read.

use serde_json::{Value, json};

use crate::examination::Setup;

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/parity/pipelines");

fn setup() -> Setup {
    Setup::new().set("LATENTD_MODELS__DIR", MODELS).set("LATENTD_ENGINE__MAX_ROWS", "8")
}

fn measured(options: &[&str]) -> Value {
    let output = setup().run(&[], &[&["bench", "--json", "--seconds", "1", "--steps", "2"], options].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn number(of: &Value, key: &str) -> f64 {
    of[key].as_f64().unwrap_or_else(|| panic!("{key} of {of}"))
}

#[test]
fn the_figures_of_the_json_agree_with_each_other() {
    let report = measured(&["--model", "sd1", "--model", "ddpm"]);
    assert_eq!((&report["version"], &report["max_rows"]), (&json!(1), &json!(8)));
    assert_eq!((&report["device"]["name"], &report["device"]["devices"]), (&json!("cpu"), &json!(1)));
    assert!(number(&report["device"], "threads") >= 1.0);
    let models = report["models"].as_array().unwrap();
    assert_eq!(models.iter().map(|model| &model["model"]).collect::<Vec<_>>(), ["sd1", "ddpm"]);
    // Guidance makes two rows for each picture. A slow processor divides the batches, so they may have fewer.
    for (model, rows_of_image) in [(&models[0], 2.0), (&models[1], 1.0)] {
        let curve = model["curve"].as_array().unwrap();
        let images: Vec<u64> = curve.iter().map(|point| point["images"].as_u64().unwrap()).collect();
        let doubled: Vec<u64> = (0..images.len()).map(|i| 1 << i).collect();
        assert_eq!(images, doubled);
        for point in curve {
            let images = number(point, "images");
            let rows = number(point, "rows");
            assert!(1.0 <= rows && rows <= f64::min(rows_of_image * images, 8.0), "{point}");
            assert!(
                number(point, "step_s") >= 0.99 * number(point, "batch_s"),
                "a step has at least one batch: {point}"
            );
            let seconds = number(point, "encode_s") + 2.0 * number(point, "step_s") + number(point, "decode_s");
            let rate = number(point, "images_per_s") * seconds / images;
            assert!((rate - 1.0).abs() < 1e-6, "{point}");
            let (cost, batch_s) = (&model["cost"], number(point, "batch_s"));
            let predicted = number(cost, "a_s") + number(cost, "b_s") * rows;
            assert!(batch_s > 0.0 && (predicted / batch_s - 1.0).abs() <= number(cost, "max_error") + 1e-6, "{model}");
            assert!(number(point, "repeats") >= 1.0);
        }
        assert!(number(&model["cost"], "a_s") >= 0.0 && number(&model["cost"], "b_s") >= 0.0);
        let latency = &model["latency"];
        assert!(number(latency, "requests") >= 3.0);
        assert!(0.0 < number(latency, "p50_s") && number(latency, "p50_s") <= number(latency, "p95_s"), "{latency}");
        assert!(number(model, "load_s") > 0.0 && number(model, "steps") == 2.0);
    }
}

#[test]
fn each_size_has_its_own_measurement() {
    let report = measured(&["--model", "sd1", "--size", "64x64", "--size", "96x64"]);
    let size = |index: usize| [number(&report["models"][index], "width"), number(&report["models"][index], "height")];
    assert_eq!([size(0), size(1)], [[64.0, 64.0], [96.0, 64.0]]);
}

#[test]
fn the_table_is_for_people_and_errors_name_what_is_missing() {
    let bench = |options: &[&str]| {
        let output = setup().run(&[], &[&["bench", "--seconds", "1", "--steps", "1", "--model"], options].concat());
        (output.status.success(), [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat())
    };
    let (is_done, text) = bench(&["dit", "--set", "class_label=3"]);
    assert!(is_done, "{text}");
    for part in ["dit, ", "images/s", "one request alone: p50", "seconds of a batch"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (is_done, text) = bench(&["dit"]);
    assert!(!is_done && text.contains("class_label is required"), "{text}");
    let (is_done, text) = bench(&["nobody"]);
    assert!(!is_done && text.contains("nobody"), "{text}");
}
