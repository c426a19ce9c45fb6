//! Tensor names of text encoders: CLIP with transformers' names, and OpenCLIP.

use super::number;

/// The name, in published files, of a tensor of transformers' `CLIPTextModel`, given the tensor's name with or without
/// `text_model.`, which some files omit. `None` for names of other tensors.
pub fn clip_name(name: &str) -> Option<String> {
    let name = name.strip_prefix("text_model.").unwrap_or(name);
    let known = ["embeddings.", "encoder.layers.", "final_layer_norm."].iter().any(|part| name.starts_with(part));
    known.then(|| format!("text_model.{name}"))
}

/// A diffusers tensor that is all or a part of a tensor of OpenCLIP.
pub struct Part {
    pub name: String,
    /// The index of the part, and the number of parts, which have equal length along the first axis.
    pub of: (usize, usize),
    /// Whether the matrix is stored transposed, as (in, out).
    pub transposed: bool,
}

/// The parts that a tensor of OpenCLIP's text encoder contains; empty for other names. OpenCLIP stores queries, keys
/// and values as one matrix.
pub fn open_clip_parts(name: &str) -> Vec<Part> {
    let whole = |name: &str| vec![Part { name: name.into(), of: (0, 1), transposed: false }];
    match name {
        "token_embedding.weight" => return whole("text_model.embeddings.token_embedding.weight"),
        "positional_embedding" => return whole("text_model.embeddings.position_embedding.weight"),
        "ln_final.weight" => return whole("text_model.final_layer_norm.weight"),
        "ln_final.bias" => return whole("text_model.final_layer_norm.bias"),
        "text_projection" => return vec![Part { transposed: true, ..whole("text_projection.weight").remove(0) }],
        "text_projection.weight" => return whole("text_projection.weight"),
        _ => {}
    }
    let rest = name.strip_prefix("transformer.resblocks.").and_then(|rest| number(rest, '.'));
    let Some((layer, rest)) = rest else { return Vec::new() };
    let layer = format!("text_model.encoder.layers.{layer}");
    if let Some(kind) = rest.strip_prefix("attn.in_proj_").filter(|kind| matches!(*kind, "weight" | "bias")) {
        let part = |(i, letter)| {
            let name = format!("{layer}.self_attn.{letter}_proj.{kind}");
            Part { name, of: (i, 3), transposed: false }
        };
        return ["q", "k", "v"].into_iter().enumerate().map(part).collect();
    }
    const LAYERS: [(&str, &str); 5] = [
        ("ln_1.", "layer_norm1."),
        ("ln_2.", "layer_norm2."),
        ("attn.out_proj.", "self_attn.out_proj."),
        ("mlp.c_fc.", "mlp.fc1."),
        ("mlp.c_proj.", "mlp.fc2."),
    ];
    let known = LAYERS.iter().find_map(|(from, to)| Some(format!("{layer}.{to}{}", rest.strip_prefix(from)?)));
    known.map_or(Vec::new(), |name| whole(&name))
}
