//! The scales of 8-bit floats, as ComfyUI and the programs for it write them: a layer's weight consists of the stored
//! numbers, multiplied by the single number of another tensor.

use std::collections::BTreeMap;

use safetensors::Dtype;

use super::{header::Info, number_type::NumberType};

/// The last parts of the names of tensors with the scale of a layer's weight. The path of the layer comes before them.
const SCALES: [&str; 2] = ["scale_weight", "weight_scale"];

/// The last parts of the names of scales with which other programs convert a layer's inputs to 8-bit floats. Inputs
/// stay in float32 here.
const OF_INPUTS: [&str; 2] = ["scale_input", "input_scale"];

/// The last part of the name of an empty tensor that marks a file with scales.
const MARK: &str = "scaled_fp8";

/// Attaches scales to the tensors that they belong to, and removes the tensors of scales and marks.
pub(super) fn attach(tensors: &mut BTreeMap<String, Info>) {
    tensors.retain(|name, _| name.rsplit('.').next() != Some(MARK));
    let layers: Vec<String> = tensors
        .iter()
        .filter(|(_, info)| info.dtype.is_f8())
        .filter_map(|(name, _)| name.strip_suffix("weight").map(str::to_owned))
        .collect();
    for layer in layers {
        let scale = SCALES.iter().find_map(|scale| {
            let name = format!("{layer}{scale}");
            let info = tensors.get(&name).filter(|info| is_one_float(info))?;
            Some((name, info.bytes.clone()))
        });
        let Some((name, bytes)) = scale else { continue };
        tensors.remove(&name);
        if let Some(weight) = tensors.get_mut(&format!("{layer}weight")) {
            weight.scale = Some(bytes);
        }
        for of_inputs in OF_INPUTS {
            let name = format!("{layer}{of_inputs}");
            if tensors.get(&name).is_some_and(is_one_float) {
                tensors.remove(&name);
            }
        }
    }
}

fn is_one_float(info: &Info) -> bool {
    info.dtype == NumberType::Plain(Dtype::F32) && info.shape.iter().product::<usize>() == 1
}
