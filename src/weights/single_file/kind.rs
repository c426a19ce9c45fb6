//! Recognizes the kind of a single file.

use super::{Checkpoint, TextEncoder};
use crate::weights::{clip_vocabulary::PADS, header::Header};

/// The kind of a file, which follows from the names of its tensors.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Checkpoint(&'static Checkpoint),
    /// A ControlNet with the tensor names of the original code, which follow the prefix.
    ControlNet {
        prefix: &'static str,
    },
    /// A ControlNet with diffusers' names.
    DiffusersControlNet,
}

impl Kind {
    /// The kind of a file by the names of its tensors, or the reason why the file is none of the `known` checkpoints.
    pub fn of(header: &Header, known: &[&'static Checkpoint]) -> Result<Self, String> {
        let any = |prefix: &str| {
            let from = header.tensors.range(prefix.to_owned()..).next();
            from.is_some_and(|(name, _)| name.starts_with(prefix))
        };
        let control_nets = [
            ("control_model.input_hint_block.", Self::ControlNet { prefix: "control_model." }),
            ("input_hint_block.", Self::ControlNet { prefix: "" }),
            ("controlnet_cond_embedding.", Self::DiffusersControlNet),
        ];
        if let Some((_, kind)) = control_nets.into_iter().find(|(prefix, _)| any(prefix)) {
            return Ok(kind);
        }
        if let Some(other) = other(header) {
            return Err(other.to_owned());
        }
        for (part, prefix) in [("U-Net", "model.diffusion_model."), ("autoencoder", "first_stage_model.")] {
            if !any(prefix) {
                return Err(format!("it has no {part} ({prefix}…)"));
            }
        }
        // Some programs that convert files leave a few tensors of another kind in them. So the file is of the kind for
        // whose text encoders it has the most tensors.
        let tensors = |checkpoint: &Checkpoint| {
            let of = |encoder: &TextEncoder| {
                let from = header.tensors.range(encoder.prefix.to_owned()..);
                from.take_while(|(name, _)| name.starts_with(encoder.prefix)).count()
            };
            checkpoint.text_encoders.iter().map(of).sum::<usize>()
        };
        known
            .iter()
            .filter(|checkpoint| any(checkpoint.mark))
            .max_by_key(|checkpoint| tensors(checkpoint))
            .map(|checkpoint| Self::Checkpoint(checkpoint))
            .ok_or_else(|| "it has no text encoder (cond_stage_model.… or conditioner.embedders.…)".to_owned())
    }

    /// The checkpoint; `None` for a ControlNet.
    pub fn checkpoint(self) -> Option<&'static Checkpoint> {
        match self {
            Self::Checkpoint(checkpoint) => Some(checkpoint),
            Self::ControlNet { .. } | Self::DiffusersControlNet => None,
        }
    }

    /// The text encoders of a checkpoint of this kind.
    pub fn text_encoders(self) -> &'static [TextEncoder] {
        self.checkpoint().map_or(&[], |checkpoint| checkpoint.text_encoders)
    }

    /// The folders of the tokenizers, and their padding tokens.
    pub fn tokenizers(self) -> Vec<(&'static str, &'static str)> {
        let (clip, open_clip) = PADS;
        let pad = |encoder: &TextEncoder| if encoder.is_open { open_clip } else { clip };
        self.text_encoders().iter().map(|encoder| (encoder.tokenizer, pad(encoder))).collect()
    }
}

/// The beginnings of tensor names in ControlNets for transformers.
pub(in crate::weights) const TRANSFORMER_CONTROL_NETS: [&str; 2] = ["controlnet_x_embedder.", "controlnet_blocks."];

/// The error for a motion adapter with the original names of tensors.
const MOTION_ADAPTER: &str = "it is a motion adapter in its original form: convert it in Python with diffusers, \
     MotionAdapter.from_single_file(FILE).save_pretrained(FOLDER), and put the folder into that of controlnets.dir";

/// The kind of a file that is no checkpoint, and where such files belong.
fn other(header: &Header) -> Option<&'static str> {
    let any = |is: &dyn Fn(&str) -> bool| header.tensors.keys().any(|name| is(name));
    if any(&|name| name.starts_with("model.diffusion_model.")) {
        return None;
    }
    if any(&|name| name.starts_with("lora_") || name.contains(".lora_") || name.contains(".lora.")) {
        return Some("it is a LoRA, which belongs into the folder of loras.dir");
    }
    if any(&|name| TRANSFORMER_CONTROL_NETS.iter().any(|start| name.starts_with(start))) {
        return Some("it is a ControlNet for a transformer such as FLUX.1; such ControlNets are not supported");
    }
    if any(&|name| name.contains("motion_modules.") && name.contains("temporal_transformer.")) {
        return Some(MOTION_ADAPTER);
    }
    let is_embedding = |name: &str| ["emb_params", "clip_l", "clip_g"].contains(&name) || name.starts_with('<');
    if any(&is_embedding) && header.tensors.len() <= 2 {
        return Some("it is a textual inversion, which belongs into the folder of embeddings.dir");
    }
    None
}
