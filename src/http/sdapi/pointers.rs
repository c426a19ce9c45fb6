//! Translates errors about the fields of a generation into errors about the fields that the client of this protocol has
//! sent.

use crate::generation::{FieldError, Invalid};

use super::{super::error::ApiError, control_net::UNITS};

/// Fields of a generation, each with its name in this protocol.
const NAMES: [(&str, &str); 12] = [
    ("guidance_scale", "cfg_scale"),
    ("strength", "denoising_strength"),
    ("image_guidance_scale", "image_cfg_scale"),
    ("scheduler", "sampler_name"),
    ("n", "batch_size"),
    ("image", "init_images.0"),
    ("mask_invert", "inpainting_mask_invert"),
    ("padding_mask_crop", "inpaint_full_res_padding"),
    ("model", "override_settings.sd_model_checkpoint"),
    ("clip_skip", "override_settings.CLIP_stop_at_last_layers"),
    ("output", "override_settings.samples_format"),
    ("refiner", "refiner_checkpoint"),
];

/// Keys of an entry of `controls`, each with its name in a unit of ControlNet.
const KEYS: [(&str, &str); 5] = [
    ("scale", "weight"),
    ("start", "guidance_start"),
    ("end", "guidance_end"),
    ("guess_mode", "control_mode"),
    ("preprocess", "module"),
];

/// Replaces the names in an error about invalid fields. `units` has the index of the unit from which each entry of
/// `controls` comes.
pub(super) fn renamed(error: ApiError, units: &[usize]) -> ApiError {
    match error {
        ApiError::Invalid(Invalid { errors }) => {
            ApiError::Invalid(Invalid { errors: errors.into_iter().map(|error| renamed_field(error, units)).collect() })
        }
        other => other,
    }
}

fn renamed_field(error: FieldError, units: &[usize]) -> FieldError {
    let FieldError { pointer, code, detail } = error;
    let path: Vec<&str> = pointer.split('/').skip(1).collect();
    let named = |table: &[(&str, &'static str)], name: &str| {
        table.iter().find(|(ours, _)| *ours == name).map(|(_, theirs)| *theirs)
    };
    let (old, new) = match path[..] {
        ["controls", place, ref keys @ ..] => {
            let unit =
                place.parse().ok().and_then(|place: usize| units.get(place)).map_or(place.to_owned(), usize::to_string);
            let key = keys.first().map(|key| named(&KEYS, key).unwrap_or(*key));
            let names: Vec<&str> = UNITS.into_iter().chain([unit.as_str()]).chain(key).collect();
            (keys.join("."), names.join("."))
        }
        ["controls"] => ("controls".to_owned(), UNITS.join(".")),
        [name, ..] => match named(&NAMES, name) {
            Some(theirs) => (path.join("."), theirs.to_owned()),
            None => return FieldError { pointer, code, detail },
        },
        [] => return FieldError { pointer, code, detail },
    };
    let detail = match detail.strip_prefix(&old).filter(|rest| rest.starts_with(' ')) {
        Some(rest) => format!("{new}{rest}"),
        None => detail,
    };
    FieldError { pointer: format!("/{}", new.replace('.', "/")), code, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_fields_of_the_request() {
        for (pointer, detail, expected, expected_detail) in [
            ("/steps", "steps must be less", "/steps", "steps must be less"),
            ("/guidance_scale", "guidance_scale must be less", "/cfg_scale", "cfg_scale must be less"),
            ("/n", "n must be less", "/batch_size", "batch_size must be less"),
            ("/image", "image is no picture", "/init_images/0", "init_images.0 is no picture"),
            (
                "/controls/0/scale",
                "scale must be less",
                "/alwayson_scripts/ControlNet/args/2/weight",
                "alwayson_scripts.ControlNet.args.2.weight must be less",
            ),
            ("", "the body", "", "the body"),
        ] {
            let error = FieldError { pointer: pointer.to_owned(), code: "out_of_range", detail: detail.to_owned() };
            let error = renamed_field(error, &[2]);
            assert_eq!((error.pointer.as_str(), error.detail.as_str()), (expected, expected_detail), "{pointer}");
        }
    }
}
