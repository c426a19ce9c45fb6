//! Splits the keys of a LoRA file into the name of a module and the role of the tensor in the module.

use std::borrow::Cow;

use super::modules::{Modules, Target};

/// The role of a tensor in its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Half {
    Down,
    Up,
    Alpha,
}

/// The meaning of a key.
pub(super) enum LoraKey<'a> {
    /// A tensor of a module that the model has, or of several: the tensor's role, and the modules.
    Of(Half, Vec<Target<'a>>),
    /// A tensor of a module that the model does not have.
    Elsewhere,
    /// A tensor of another kind of adapter, with the name of that kind.
    Unsupported(&'static str),
    /// A key that is not known.
    Unknown,
}

impl LoraKey<'_> {
    pub fn read<'a>(key: &str, modules: &'a Modules) -> LoraKey<'a> {
        let Some((module, half)) = split(key) else {
            return other_kind(key).map_or(LoraKey::Unknown, LoraKey::Unsupported);
        };
        let alone = |site| vec![Target { site, slice: None }];
        let is_flat = ["lora_", "lycoris_"].iter().any(|start| module.starts_with(start));
        let targets = if is_flat {
            let Some((component, module)) =
                KOHYA.iter().find_map(|(prefix, component)| Some((*component, module.strip_prefix(prefix)?)))
            else {
                return LoraKey::Unknown;
            };
            let component = component.unwrap_or(modules.denoiser());
            let found = modules.flattened(component, module).map(alone);
            found.or_else(|| if component == "transformer" { modules.fused(module) } else { None })
        } else {
            let (component, module) = component(module);
            let component = component.unwrap_or(modules.denoiser());
            let found = modules.dotted(component, &current(component, module)).map(alone);
            found.or_else(|| if component == "transformer" { modules.fused(module) } else { None })
        };
        targets.map_or(LoraKey::Elsewhere, |targets| LoraKey::Of(half, targets))
    }
}

/// The prefixes of kohya's trainer, of OneTrainer and of LyCORIS, and the components that they name; `None` is the
/// denoiser. If two prefixes fit, the first counts.
const KOHYA: [(&str, Option<&str>); 7] = [
    ("lora_unet__", None),
    ("lora_unet_", None),
    ("lycoris_", None),
    ("lora_transformer_", Some("transformer")),
    ("lora_te_", Some("text_encoder")),
    ("lora_te1_", Some("text_encoder")),
    ("lora_te2_", Some("text_encoder_2")),
];

/// The ends of keys, which follow the module's name, and the roles that they name.
const ENDS: [(&str, Half); 11] = [
    (".lora_down.weight", Half::Down),
    (".lora_up.weight", Half::Up),
    (".alpha", Half::Alpha),
    (".lora_A.weight", Half::Down),
    (".lora_B.weight", Half::Up),
    (".lora_linear_layer.down.weight", Half::Down),
    (".lora_linear_layer.up.weight", Half::Up),
    (".lora.down.weight", Half::Down),
    (".lora.up.weight", Half::Up),
    ("_lora.down.weight", Half::Down),
    ("_lora.up.weight", Half::Up),
];

/// Marks in the keys of other kinds of adapters, which LyCORIS and PEFT write, and the names of these kinds. A mark is
/// at the end of a key; a mark that ends with `.` or `_` may be anywhere in a key.
const OTHER_KINDS: [(&str, &str); 15] = [
    (".dora_scale", "DoRA"),
    (".lora_magnitude_vector", "DoRA"),
    (".lora_magnitude_vector.", "DoRA"),
    (".hada_", "LoHa"),
    (".lokr_", "LoKr"),
    (".lora_mid.", "LoRA with a core, lora_mid"),
    (".oft_", "OFT"),
    (".boft_", "OFT"),
    (".diff", "full weights"),
    (".diff_b", "full weights"),
    (".w_norm", "weights of norms"),
    (".b_norm", "weights of norms"),
    (".on_input", "IA3"),
    (".lora_embedding_", "LoRA of embeddings"),
    ("bundle_emb.", "textual inversions within a LoRA"),
];

fn other_kind(key: &str) -> Option<&'static str> {
    let is_of = |part: &str| key.ends_with(part) || (part.ends_with(['.', '_']) && key.contains(part));
    OTHER_KINDS.iter().find(|(part, _)| is_of(part)).map(|(_, kind)| *kind)
}

fn split(key: &str) -> Option<(&str, Half)> {
    ENDS.iter().find_map(|(end, half)| Some((key.strip_suffix(end)?, *half))).or_else(|| named(key))
}

/// Splits `….lora_A.NAME.weight`, which PEFT writes if it keeps the names of adapters.
fn named(key: &str) -> Option<(&str, Half)> {
    let (rest, name) = key.strip_suffix(".weight")?.rsplit_once('.')?;
    if name.is_empty() {
        return None;
    }
    [(".lora_A", Half::Down), (".lora_B", Half::Up)]
        .iter()
        .find_map(|(end, half)| Some((rest.strip_suffix(end)?, *half)))
}

/// The component at the start of a dotted name; `None` means the denoiser, as in the first files of diffusers, which
/// name no component, and in files with the names of the original code after `diffusion_model`.
fn component(module: &str) -> (Option<&'static str>, &str) {
    let module = module.strip_prefix("base_model.model.").unwrap_or(module);
    [
        ("unet", Some("unet")),
        ("transformer", Some("transformer")),
        ("text_encoder", Some("text_encoder")),
        ("text_encoder_2", Some("text_encoder_2")),
        ("diffusion_model", None),
    ]
    .into_iter()
    .find_map(|(prefix, component)| Some((component, module.strip_prefix(prefix)?.strip_prefix('.')?)))
    .unwrap_or((None, module))
}

/// Translates module names of diffusers' first versions. There, processors held the matrices of an attention: the part
/// `processor` is removed. In text encoders, the attention's layers had the U-Net's names: these are replaced.
fn current<'a>(component: &str, module: &'a str) -> Cow<'a, str> {
    if matches!(component, "unet" | "transformer") {
        return match module.contains(".processor.") {
            true => module.replace(".processor.", ".").into(),
            false => module.into(),
        };
    }
    [(".to_q", ".q_proj"), (".to_k", ".k_proj"), (".to_v", ".v_proj"), (".to_out", ".out_proj")]
        .iter()
        .find_map(|(old, new)| Some(format!("{}{new}", module.strip_suffix(old)?).into()))
        .unwrap_or(module.into())
}
