//! The types of fields that an operation or a model does not use. Such fields are ignored, but a wrong type is an
//! error.

use serde_json::Value;

/// The type that the field must have, if the value has another type; otherwise `None`.
pub(super) fn mistyped(name: &str, value: &Value) -> Option<&'static str> {
    let is_whole = |value: &Value| value.as_f64().is_some_and(|number| number.fract() == 0.0);
    let is_flag = |value: &Value| value.is_boolean() || matches!(value.as_u64(), Some(0 | 1));
    let is_list = |value: &Value| value.as_array().is_some_and(|items| items.iter().all(Value::is_string));
    let (expected, fits) = match name {
        "cfg_scale" | "denoising_strength" | "eta" | "image_cfg_scale" | "refiner_switch_at" => {
            ("a number", value.is_number())
        }
        "mask_blur" | "inpaint_full_res_padding" => ("an integer", is_whole(value)),
        "inpainting_fill" => ("0, 1, 2 or 3", value.as_u64().is_some_and(|fill| fill <= 3)),
        "inpaint_full_res" | "inpainting_mask_invert" => ("true or false", is_flag(value)),
        "mask" | "negative_prompt" | "prompt" => ("a string", value.is_string()),
        "init_images" => ("a list of strings", is_list(value)),
        _ => return None,
    };
    (!fits).then_some(expected)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_values_of_another_type_are_mistyped() {
        for (name, good, bad) in [
            ("eta", json!(0), json!("0")),
            ("image_cfg_scale", json!(1.5), json!({})),
            ("mask_blur", json!(4.0), json!(4.5)),
            ("inpainting_fill", json!(3), json!(4)),
            ("inpaint_full_res", json!(1), json!("true")),
            ("mask", json!("data:,"), json!(1)),
            ("init_images", json!([]), json!([1])),
        ] {
            assert_eq!(mistyped(name, &good), None, "{name}");
            assert!(mistyped(name, &bad).is_some(), "{name}");
        }
        assert_eq!(mistyped("tiling", &json!({})), None);
    }
}
