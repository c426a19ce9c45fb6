//! The text of a `scheduler_config.json` as it is published.

use serde_json::{Map, Value};

use super::Class;

/// Reads the file of a model.  Python writes numbers which JSON does not have (`"lambda_min_clipped": -Infinity` in every
/// file that DPM-Solver has saved); they are read as null, which stands for the default of the class.
pub fn read_model_file(text: &str) -> Result<Map<String, Value>, serde_json::Error> {
    let mut json = String::with_capacity(text.len());
    // Every second piece between unescaped quotes is a string, where these words are not numbers.
    let (mut inside, mut escaped, mut outside) = (false, false, String::new());
    for c in text.chars() {
        if inside {
            json.push(c);
            inside = escaped || c != '"';
            escaped = c == '\\' && !escaped;
        } else if c == '"' {
            json.push_str(&with_nulls(&std::mem::take(&mut outside)));
            json.push(c);
            inside = true;
        } else {
            outside.push(c);
        }
    }
    json.push_str(&with_nulls(&outside));
    serde_json::from_str(&json)
}

fn with_nulls(outside_of_strings: &str) -> String {
    ["-Infinity", "Infinity", "NaN"]
        .iter()
        .fold(outside_of_strings.to_owned(), |json, word| {
            json.replace(word, "null")
        })
}

/// What the Stable Diffusion 1 and 2 pipelines of diffusers do to their model's own scheduler before anything is laid
/// over it: `steps_offset` becomes 1, and `clip_sample`, if it is true or would be by default, becomes false.
pub fn correct_for_stable_diffusion(model: &mut Map<String, Value>) {
    let class = Class::of(model).ok();
    if class.is_some() {
        model.insert("steps_offset".to_owned(), 1.into());
    }
    let clips = match model.get("clip_sample") {
        Some(value) => *value == Value::Bool(true),
        None => matches!(class, Some(Class::Ddpm | Class::Ddim)),
    };
    if clips {
        model.insert("clip_sample".to_owned(), false.into());
    }
}
