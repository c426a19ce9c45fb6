//! Which models can use a LoRA, textual inversion or ControlNet, and the reasons if none can.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{Catalogue, ControlKind, Entry, fault::Fault};
use crate::generation::{ModelCard, cut};

/// Maximum number of cached answers. The cache is emptied when it is full.
const MOST: usize = 50_000;

/// Maximum characters of a cached reason.
const REASON_CHARS: usize = 300;

/// If no model can use a file, the error gives the reasons of at most this many kinds of models.
const REASONS: usize = 3;

/// Cached answers by file and kind of model.
pub(super) type Known = HashMap<(String, String), Fit>;

type Fit = Result<(), Arc<str>>;

/// The names of the models that can use a file; if none can, `error` says why.
#[derive(Clone, Debug, Default)]
pub struct CompatibleModels {
    pub models: Vec<String>,
    pub error: Option<String>,
}

impl CompatibleModels {
    fn none(reason: String) -> CompatibleModels {
        CompatibleModels { models: Vec::new(), error: Some(reason) }
    }
}

impl Catalogue {
    /// The models that can use a LoRA. Blocks while file headers are read, once for each kind of model.
    pub fn users_of_lora(&self, name: &str) -> CompatibleModels {
        let adapters = self.adapters();
        let Some(file) = adapters.lora(name) else { return CompatibleModels::none(GONE.to_owned()) };
        if let Some(fault) = file.fault() {
            return CompatibleModels::none(fault.to_owned());
        }
        self.users(&format!("lora {name} {}", file.key()), |entry| {
            let checked = adapters.check_lora(name, file, entry.modules()?);
            checked.map_err(|(_, reason)| reason.into())
        })
    }

    /// The models that can use a textual inversion. Blocks while files are read, once for each kind of model.
    pub fn users_of_embedding(&self, name: &str) -> CompatibleModels {
        let adapters = self.adapters();
        let Some(file) = adapters.embedding(name) else { return CompatibleModels::none(GONE.to_owned()) };
        if let Some(fault) = adapters.embedding_fault(name, file) {
            return CompatibleModels::none(fault);
        }
        self.users(&format!("embedding {name} {}", file.key()), |entry| {
            let widths = entry.usable().map_err(str::to_owned)?.card.text_widths;
            adapters.check_word(name, file, widths).map_err(|(_, reason)| reason.into())
        })
    }

    /// The models that can use a ControlNet.
    pub fn users_of_control_net(&self, name: &str) -> CompatibleModels {
        let control_nets = self.control_nets();
        let Some(key) = control_nets.key(name) else { return CompatibleModels::none(GONE.to_owned()) };
        if let Some(fault) = control_nets.fault(name) {
            return CompatibleModels::none(fault.to_owned());
        }
        self.users(&format!("controlnet {name} {key}"), |entry| {
            let card = &entry.usable().map_err(str::to_owned)?.card;
            let checked = match control_nets.kind(name) {
                Some(ControlKind::MotionAdapter) => control_nets.check_motion(card, name),
                _ => control_nets.check(card, name),
            };
            checked.map_err(|(_, reason)| reason.into())
        })
    }

    fn users(&self, file: &str, check: impl Fn(&Entry) -> Result<(), Fault>) -> CompatibleModels {
        let mut of_kind: BTreeMap<String, Fit> = BTreeMap::new();
        let (mut models, mut reasons) = (Vec::new(), Vec::new());
        for (name, entry, card) in self.models_of_text() {
            let kind = kind(&card);
            let answer = of_kind.entry(kind.clone()).or_insert_with(|| {
                let answer = self.known((file.to_owned(), kind), || check(&entry));
                reasons.extend(answer.as_ref().err().map(|reason| format!("{name}: {reason}")));
                answer
            });
            if answer.is_ok() {
                models.push(name);
            }
        }
        let error = models.is_empty().then(|| {
            let listed = reasons[..reasons.len().min(REASONS)].join("; ");
            match reasons.len().saturating_sub(REASONS) {
                0 => format!("no model can use it: {listed}"),
                more => format!("no model can use it: {listed}; and {more} more kinds of models"),
            }
        });
        CompatibleModels { models, error }
    }

    /// The answer for a file and a kind of model, computed once. A transient fault is not remembered.
    fn known(&self, key: (String, String), check: impl FnOnce() -> Result<(), Fault>) -> Fit {
        let known = self.fits.lock().get(&key).cloned();
        known.unwrap_or_else(|| {
            let checked = check();
            let is_lasting = !checked.as_ref().is_err_and(|fault| fault.is_unread);
            let answer = checked.map_err(|fault| cut(&fault.reason, REASON_CHARS).into());
            if !is_lasting {
                return answer;
            }
            let mut known = self.fits.lock();
            if known.len() >= MOST {
                known.clear();
            }
            known.insert(key, Fit::clone(&answer));
            answer
        })
    }

    /// The usable models that take a prompt. Other models cannot use LoRAs, textual inversions or ControlNets.
    fn models_of_text(&self) -> Vec<(String, Arc<Entry>, Arc<ModelCard>)> {
        let listed = self.listed();
        let card = |(name, entry): (&String, &Arc<Entry>)| {
            Some((name.clone(), entry.clone(), entry.usable().ok()?.card.clone()))
        };
        listed.models.iter().filter_map(card).filter(|(.., card)| card.takes_prompt).collect()
    }
}

/// The error for a name that was removed when the folders were listed again.
const GONE: &str = "it is no longer listed";

/// A text that is the same for models of the same kind: the values of the card that follow from the shapes of the
/// model's layers.
fn kind(card: &ModelCard) -> String {
    let ModelCard {
        maps,
        context_width,
        text_widths,
        time_id_count,
        latents,
        tasks,
        max_clip_skip,
        guidance_embedding,
        transformer_blocks,
        motion_groups,
        ..
    } = card;
    format!(
        "{maps:?} {context_width} {text_widths:?} {time_id_count} {latents:?} {tasks:?} {max_clip_skip} {guidance_embedding} {transformer_blocks} {motion_groups:?}"
    )
}
