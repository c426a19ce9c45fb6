//! The names that tensors of transformers have in their original code.

#![allow(dead_code, reason = "each test target uses its part")]

/// The place of a tensor of diffusers in a file with original names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub name: String,
    /// The number of the tensor among the tensors that the original joins.
    pub part: usize,
    /// Whether the original has the two halves of the rows in the opposite order.
    pub is_swapped: bool,
}

fn place(name: String, parts: &[(&str, &str)]) -> Place {
    for (part, (ours, theirs)) in parts.iter().enumerate() {
        if name.contains(ours) {
            return Place { name: name.replace(ours, theirs), part: part % 3, is_swapped: false };
        }
    }
    Place { name, part: 0, is_swapped: false }
}

fn replaced(name: &str, pairs: &[(&str, &str)]) -> String {
    pairs.iter().fold(name.to_owned(), |name, (ours, theirs)| name.replace(ours, theirs))
}

pub fn z_image(name: &str) -> Place {
    let name = replaced(
        name,
        &[
            ("all_x_embedder.2-1", "x_embedder"),
            ("all_final_layer.2-1", "final_layer"),
            ("attention.to_out.0", "attention.out"),
            ("attention.norm_q", "attention.q_norm"),
            ("attention.norm_k", "attention.k_norm"),
        ],
    );
    let qkv = ["attention.to_q", "attention.to_k", "attention.to_v"];
    place(name, &qkv.map(|part| (part, "attention.qkv")))
}

pub fn flux2(name: &str) -> Place {
    if let Some(kind) = name.strip_prefix("norm_out.linear.") {
        return Place { name: format!("final_layer.adaLN_modulation.1.{kind}"), part: 0, is_swapped: true };
    }
    let is_single = name.starts_with("single_transformer_blocks.");
    let mut name = replaced(
        name,
        &[
            ("single_transformer_blocks.", "single_blocks."),
            ("transformer_blocks.", "double_blocks."),
            ("x_embedder", "img_in"),
            ("context_embedder", "txt_in"),
            ("time_guidance_embed.timestep_embedder.linear_1", "time_in.in_layer"),
            ("time_guidance_embed.timestep_embedder.linear_2", "time_in.out_layer"),
            ("modulation_img.linear", "modulation_img.lin"),
            ("modulation_txt.linear", "modulation_txt.lin"),
            ("single_stream_modulation.linear", "single_stream_modulation.lin"),
            ("proj_out", "final_layer.linear"),
            ("attn.to_qkv_mlp_proj", "linear1"),
            ("ff.linear_in", "img_mlp.0"),
            ("ff.linear_out", "img_mlp.2"),
            ("ff_context.linear_in", "txt_mlp.0"),
            ("ff_context.linear_out", "txt_mlp.2"),
            ("attn.to_add_out", "txt_attn.proj"),
            ("attn.to_out.0", "img_attn.proj"),
            ("attn.norm_added_q.weight", "txt_attn.norm.query_norm.scale"),
            ("attn.norm_added_k.weight", "txt_attn.norm.key_norm.scale"),
        ],
    );
    let norm = if is_single { "norm" } else { "img_attn.norm" };
    name = name.replace("attn.norm_q.weight", &format!("{norm}.query_norm.scale"));
    name = name.replace("attn.norm_k.weight", &format!("{norm}.key_norm.scale"));
    if is_single {
        name = name.replace("attn.to_out", "linear2");
    }
    let picture = ["attn.to_q", "attn.to_k", "attn.to_v"].map(|part| (part, "img_attn.qkv"));
    let text = ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"].map(|part| (part, "txt_attn.qkv"));
    place(name, &[picture, text].concat())
}

/// For a transformer with two blocks.
pub fn sd3(name: &str) -> Place {
    let is_swapped = name.starts_with("norm_out.") || name.starts_with("transformer_blocks.1.norm1_context.");
    let name = replaced(
        name,
        &[
            ("norm_out.linear", "final_layer.adaLN_modulation.1"),
            ("proj_out", "final_layer.linear"),
            ("transformer_blocks.", "joint_blocks."),
            ("norm1_context.linear", "context_block.adaLN_modulation.1"),
            ("norm1.linear", "x_block.adaLN_modulation.1"),
            ("attn.to_out.0", "x_block.attn.proj"),
            ("attn.to_add_out", "context_block.attn.proj"),
        ],
    );
    let picture = ["attn.to_q", "attn.to_k", "attn.to_v"].map(|part| (part, "x_block.attn.qkv"));
    let text = ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"].map(|part| (part, "context_block.attn.qkv"));
    Place { is_swapped, ..place(name, &[picture, text].concat()) }
}
