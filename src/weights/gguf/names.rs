//! The names of T5's tensors in GGUF files, translated to transformers' names. (Transformers have their original names
//! in GGUF files, see `bfl`.)

/// Whether the tensors belong to T5's encoder and have llama.cpp's names.
pub(in crate::weights) fn are_of_t5<'a>(mut names: impl Iterator<Item = &'a String>) -> bool {
    names.any(|name| name.starts_with("enc.blk."))
}

/// The name in transformers' `T5EncoderModel` of a tensor with llama.cpp's name; `None` for other names.
pub(in crate::weights) fn t5_name(name: &str) -> Option<String> {
    let whole = match name {
        "token_embd.weight" => "shared.weight",
        "enc.output_norm.weight" => "encoder.final_layer_norm.weight",
        _ => "",
    };
    if !whole.is_empty() {
        return Some(whole.to_owned());
    }
    let (block, tensor) = name.strip_prefix("enc.blk.")?.split_once('.')?;
    let layer = match tensor {
        "attn_q.weight" => "0.SelfAttention.q",
        "attn_k.weight" => "0.SelfAttention.k",
        "attn_v.weight" => "0.SelfAttention.v",
        "attn_o.weight" => "0.SelfAttention.o",
        "attn_rel_b.weight" => "0.SelfAttention.relative_attention_bias",
        "attn_norm.weight" => "0.layer_norm",
        "ffn_gate.weight" => "1.DenseReluDense.wi_0",
        "ffn_up.weight" => "1.DenseReluDense.wi_1",
        "ffn_down.weight" => "1.DenseReluDense.wo",
        "ffn_norm.weight" => "1.layer_norm",
        _ => return None,
    };
    block.parse::<usize>().ok()?;
    Some(format!("encoder.block.{block}.layer.{layer}.weight"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama_names_become_those_of_transformers() {
        for (name, expected) in [
            ("token_embd.weight", Some("shared.weight")),
            ("enc.blk.23.attn_o.weight", Some("encoder.block.23.layer.0.SelfAttention.o.weight")),
            ("enc.blk.0.ffn_gate.weight", Some("encoder.block.0.layer.1.DenseReluDense.wi_0.weight")),
            ("enc.blk.0.ffn_gate.bias", None),
            ("enc.blk.x.attn_q.weight", None),
            ("dec.blk.0.attn_q.weight", None),
        ] {
            assert_eq!(t5_name(name).as_deref(), expected, "{name}");
        }
    }
}
