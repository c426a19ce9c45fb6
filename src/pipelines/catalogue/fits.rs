//! Which models can use what stands beside them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError},
};

use super::{Catalogue, Entry};
use crate::generation::ModelCard;

/// Answers kept of files and kinds of models; more are found out anew.
const MOST: usize = 100_000;

/// By file and kind of model: whether they fit.
pub(super) type Known = HashMap<(String, String), bool>;

impl Catalogue {
    /// The models that can use a LoRA, by name. Blocks while heads of files are read, once for each kind of model.
    pub fn models_of_lora(&self, name: &str) -> Vec<String> {
        let adapters = self.adapters();
        let Some(file) = adapters.lora(name).filter(|file| file.fault().is_none()) else { return Vec::new() };
        self.models_that(&format!("lora {name} {}", file.key()), |entry| {
            entry.modules().is_ok_and(|modules| adapters.check(name, modules).is_ok())
        })
    }

    /// The same of a textual inversion.
    pub fn models_of_embedding(&self, name: &str) -> Vec<String> {
        let adapters = self.adapters();
        let Some(file) = adapters.embedding(name).filter(|file| file.fault().is_none()) else { return Vec::new() };
        self.models_that(&format!("embedding {name} {}", file.key()), |entry| {
            entry.usable().is_ok_and(|usable| adapters.check_word(name, file, usable.card.text_widths).is_ok())
        })
    }

    /// The same of a ControlNet.
    pub fn models_of_control_net(&self, name: &str) -> Vec<String> {
        let control_nets = self.control_nets();
        let usable = self.usable_models();
        let fits = |(_, _, card): &(String, Arc<Entry>, Arc<ModelCard>)| control_nets.check(card, name).is_ok();
        usable.into_iter().filter(fits).map(|(name, ..)| name).collect()
    }

    fn models_that(&self, file: &str, fits: impl Fn(&Entry) -> bool) -> Vec<String> {
        let mut of_kind: BTreeMap<String, bool> = BTreeMap::new();
        let mut found = Vec::new();
        for (name, entry, card) in self.usable_models() {
            let kind = kind(&card);
            let fits = *of_kind.entry(kind.clone()).or_insert_with(|| {
                let key = (file.to_owned(), kind);
                let known = self.fits.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
                known.unwrap_or_else(|| {
                    let fits = fits(&entry);
                    let mut known = self.fits.lock().unwrap_or_else(PoisonError::into_inner);
                    if known.len() >= MOST {
                        known.clear();
                    }
                    known.insert(key, fits);
                    fits
                })
            });
            if fits {
                found.push(name);
            }
        }
        found
    }

    fn usable_models(&self) -> Vec<(String, Arc<Entry>, Arc<ModelCard>)> {
        let listed = self.listed();
        let card = |(name, entry): (&String, &Arc<Entry>)| {
            Some((name.clone(), entry.clone(), entry.usable().ok()?.card.clone()))
        };
        listed.models.iter().filter_map(card).collect()
    }
}

/// Models of one kind have layers of the same names and shapes.
fn kind(card: &ModelCard) -> String {
    let ModelCard {
        maps, context_width, text_widths, time_ids, latents, tasks, max_clip_skip, guidance_embedding, ..
    } = card;
    format!(
        "{maps:?} {context_width} {text_widths:?} {time_ids} {latents:?} {tasks:?} {max_clip_skip} {guidance_embedding}"
    )
}
