use crate::weights::{clip_vocabulary::PADS, header::Header};

/// Which family a file is of, by the text encoders that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Stable Diffusion 1: CLIP.
    V1,
    /// Stable Diffusion 2: OpenCLIP.
    V2,
    /// Stable Diffusion XL: both.
    Xl,
    /// The refiner of Stable Diffusion XL: OpenCLIP, as the second of the encoders.
    XlRefiner,
    /// A ControlNet in the first authors' names: these follow the prefix.
    ControlNet { prefix: &'static str },
    /// A ControlNet in diffusers' names.
    DiffusersControlNet,
}

/// A text encoder in a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct TextEncoder {
    /// The folder that diffusers has it in.
    pub component: &'static str,
    /// Whether it has OpenCLIP's names.
    pub is_open: bool,
    /// What its tensors' names begin with.
    pub prefix: &'static str,
}

impl Kind {
    /// What the names of a file's tensors tell, or why it is no checkpoint of ours.
    pub fn of(header: &Header) -> Result<Self, String> {
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
        [
            ("conditioner.embedders.1.model.", Self::Xl),
            ("conditioner.embedders.0.model.", Self::XlRefiner),
            ("cond_stage_model.model.", Self::V2),
            ("cond_stage_model.transformer.", Self::V1),
        ]
        .into_iter()
        .find_map(|(prefix, kind)| any(prefix).then_some(kind))
        .ok_or_else(|| "it has no text encoder (cond_stage_model.… or conditioner.embedders.…)".to_owned())
    }

    /// The text encoders of a checkpoint of this kind.
    pub fn text_encoders(self) -> &'static [TextEncoder] {
        const fn encoder(component: &'static str, is_open: bool, prefix: &'static str) -> TextEncoder {
            TextEncoder { component, is_open, prefix }
        }
        match self {
            Self::V1 => const { &[encoder("text_encoder", false, "cond_stage_model.transformer.")] },
            Self::V2 => const { &[encoder("text_encoder", true, "cond_stage_model.model.")] },
            Self::Xl => {
                const {
                    &[
                        encoder("text_encoder", false, "conditioner.embedders.0.transformer."),
                        encoder("text_encoder_2", true, "conditioner.embedders.1.model."),
                    ]
                }
            }
            Self::XlRefiner => const { &[encoder("text_encoder_2", true, "conditioner.embedders.0.model.")] },
            Self::ControlNet { .. } | Self::DiffusersControlNet => &[],
        }
    }

    /// The folders of tokenizers, and what each pads with.
    pub fn tokenizers(self) -> Vec<(&'static str, &'static str)> {
        let (clip, open_clip) = PADS;
        match self {
            Self::V1 => vec![("tokenizer", clip)],
            Self::V2 => vec![("tokenizer", open_clip)],
            Self::Xl => vec![("tokenizer", clip), ("tokenizer_2", open_clip)],
            Self::XlRefiner => vec![("tokenizer_2", open_clip)],
            Self::ControlNet { .. } | Self::DiffusersControlNet => vec![],
        }
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
