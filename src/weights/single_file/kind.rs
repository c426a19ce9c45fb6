use super::{Checkpoint, TextEncoder};
use crate::weights::{clip_vocabulary::PADS, header::Header};

/// What a file is, by the names of its tensors.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Checkpoint(&'static Checkpoint),
    /// A ControlNet in the first authors' names: these follow the prefix.
    ControlNet {
        prefix: &'static str,
    },
    /// A ControlNet in diffusers' names.
    DiffusersControlNet,
}

impl Kind {
    /// What the names of a file's tensors tell, or why it is none of the `known` checkpoints.
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
        // Programs that convert files leave tensors of an earlier kind behind, so the kind counts whose text encoders are there,
        // and of several the latest.
        let encoders =
            |checkpoint: &Checkpoint| checkpoint.text_encoders.iter().filter(|encoder| any(encoder.prefix)).count();
        known
            .iter()
            .filter(|checkpoint| any(checkpoint.mark))
            .max_by_key(|checkpoint| encoders(checkpoint))
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

    /// The folders of tokenizers, and what each pads with.
    pub fn tokenizers(self) -> Vec<(&'static str, &'static str)> {
        let (clip, open_clip) = PADS;
        let pad = |encoder: &TextEncoder| if encoder.is_open { open_clip } else { clip };
        self.text_encoders().iter().map(|encoder| (encoder.tokenizer, pad(encoder))).collect()
    }
}

/// What a file is instead of a checkpoint, and where it belongs.
fn other(header: &Header) -> Option<&'static str> {
    let any = |is: &dyn Fn(&str) -> bool| header.tensors.keys().any(|name| is(name));
    if any(&|name| name.starts_with("model.diffusion_model.")) {
        return None;
    }
    if any(&|name| name.starts_with("lora_") || name.contains(".lora_") || name.contains(".lora.")) {
        return Some("it is a LoRA, which belongs into the folder of loras.dir");
    }
    let is_embedding = |name: &str| ["emb_params", "clip_l", "clip_g"].contains(&name) || name.starts_with('<');
    if any(&is_embedding) && header.tensors.len() <= 2 {
        return Some("it is a textual inversion, which belongs into the folder of embeddings.dir");
    }
    None
}
