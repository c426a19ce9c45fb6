//! Notes about the fields of the web interface that a request has and the server did not read.

use serde_json::Value;

/// A field, and the values (as JSON) with which the field changes nothing in the web interface either. `*` stands for
/// every value: such a field concerns only how the web interface works, or matters only together with another field
/// that has no effect here.
type IdleField = (&'static str, &'static [&'static str]);

const FIELDS: [IdleField; 51] = [
    ("comments", &["*"]),
    ("disable_extra_networks", &["false"]),
    ("do_not_save_grid", &["*"]),
    ("do_not_save_samples", &["*"]),
    ("enable_hr", &["false"]),
    ("firstpass_image", &[]),
    ("firstphase_height", &["0"]),
    ("firstphase_width", &["0"]),
    ("hr_checkpoint_name", &["*"]),
    ("hr_cfg", &["*"]),
    ("hr_negative_prompt", &["*"]),
    ("hr_prompt", &["*"]),
    ("hr_resize_x", &["*"]),
    ("hr_resize_y", &["*"]),
    ("hr_sampler_name", &["*"]),
    ("hr_scale", &["*"]),
    ("hr_scheduler", &["*"]),
    ("hr_second_pass_steps", &["*"]),
    ("hr_upscaler", &["*"]),
    ("image_cfg_scale", &["*"]),
    ("include_init_images", &["false"]),
    ("infotext", &["\"\""]),
    ("initial_noise_multiplier", &["1"]),
    ("inpaint_full_res", &["*"]),
    ("inpaint_full_res_padding", &["*"]),
    ("inpainting_fill", &["*"]),
    ("inpainting_mask_invert", &["*"]),
    ("latent_mask", &[]),
    ("mask_blur", &["*"]),
    ("mask_blur_x", &["4"]),
    ("mask_blur_y", &["4"]),
    ("mask_round", &["true"]),
    ("override_settings_restore_afterwards", &["true"]),
    ("resize_mode", &["0"]),
    ("restore_faces", &["false"]),
    ("refiner_switch_at", &["*"]),
    ("s_churn", &["0"]),
    ("s_min_uncond", &["0"]),
    ("s_noise", &["1"]),
    ("s_tmax", &["*"]),
    ("s_tmin", &["0"]),
    ("save_images", &["false"]),
    ("script_args", &["*"]),
    ("script_name", &["\"\"", "\"None\""]),
    ("seed_resize_from_h", &["0", "-1"]),
    ("seed_resize_from_w", &["0", "-1"]),
    ("styles", &["[]"]),
    ("subseed", &["*"]),
    ("subseed_strength", &["0"]),
    ("tiling", &["false"]),
    ("denoising_strength", &["*"]),
];

/// The fields of a unit of ControlNet that have no effect here. [`control_net`](super::control_net) reads the others.
const UNIT_FIELDS: [IdleField; 30] = [
    ("advanced_weighting", &[]),
    ("animatediff_batch", &["false"]),
    ("batch_image_dir", &["\"\""]),
    ("batch_image_files", &["[]"]),
    ("batch_images", &["\"\"", "[]"]),
    ("batch_keyframe_idx", &["\"\"", "[]"]),
    ("batch_mask_dir", &["\"\""]),
    ("batch_modifiers", &["[]"]),
    ("effective_region_mask", &["\"\""]),
    ("enabled", &["*"]),
    ("generated_image", &["*"]),
    ("guess_mode", &["false"]),
    ("guessmode", &["false"]),
    // Concerns the second pass of the web interface, which does not exist here.
    ("hr_option", &["*"]),
    ("inpaint_crop_input_image", &["*"]),
    ("input_mode", &["\"simple\"", "\"SIMPLE\"", "0"]),
    ("ipadapter_input", &["[]"]),
    ("is_ui", &["*"]),
    ("loopback", &["false"]),
    ("low_vram", &["false"]),
    ("lowvram", &["false"]),
    ("mask_image", &["\"\""]),
    ("output_dir", &["\"\""]),
    // Asks to find the edges of the picture at the size of the generation, as this server always does.
    ("pixel_perfect", &["*"]),
    ("processor_res", &["512", "-1"]),
    ("pulid_mode", &["*"]),
    ("resize_mode", &["*"]),
    ("save_detected_map", &["false"]),
    ("union_control_type", &["\"Unknown\""]),
    ("use_preview_as_input", &["false"]),
];

/// Whether the field is one of the web interface's fields that have no effect here.
pub(super) fn is_known(name: &str) -> bool {
    FIELDS.iter().any(|(known, _)| *known == name)
}

/// The note about a field that was not read; `None` if the value would have no effect in the web interface either.
pub(super) fn note(name: &str, value: &Value) -> Option<String> {
    note_of(&FIELDS, name, value)
}

/// As [`note`], for a field of a unit of ControlNet.
pub(super) fn unit_note(name: &str, value: &Value) -> Option<String> {
    note_of(&UNIT_FIELDS, name, value)
}

fn note_of(fields: &[IdleField], name: &str, value: &Value) -> Option<String> {
    let shown: String = name.chars().take(64).collect();
    match fields.iter().find(|(known, _)| *known == name) {
        _ if value.is_null() => None,
        None => Some(format!("{shown} is ignored: this server does not know the field")),
        Some((_, idle)) if idle.iter().any(|idle| is(value, idle)) => None,
        Some(_) => Some(format!("{shown} is ignored: this server does not support it")),
    }
}

/// Whether the value equals the JSON in `text`; `*` equals every value. Numbers are equal whatever their form, and 0
/// counts as false.
fn is(value: &Value, text: &str) -> bool {
    let number = |value: &Value| value.as_f64().or(value.as_bool().map(f64::from));
    match serde_json::from_str::<Value>(text) {
        Ok(expected) => *value == expected || number(value).is_some_and(|got| number(&expected) == Some(got)),
        Err(_) => text == "*",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn notes_name_only_fields_that_would_have_an_effect() {
        for (name, value, has_note) in [
            ("tiling", json!(false), false),
            ("tiling", json!(0), false),
            ("tiling", json!(null), false),
            ("tiling", json!(true), true),
            ("s_noise", json!(1.0), false),
            ("s_noise", json!(1.1), true),
            ("styles", json!([]), false),
            ("styles", json!(["photo"]), true),
            ("hr_scale", json!(2), false),
            ("enable_hr", json!(true), true),
            ("frobnicate", json!(1), true),
        ] {
            assert_eq!(note(name, &value).is_some(), has_note, "{name} {value}");
        }
    }

    #[test]
    fn every_value_of_the_table_is_json() {
        for text in FIELDS.iter().chain(&UNIT_FIELDS).flat_map(|(_, idle)| *idle).filter(|text| **text != "*") {
            assert!(serde_json::from_str::<Value>(text).is_ok(), "{text}");
        }
    }
}
