//! The metadata entry of a LoRA file with the settings of PEFT's training, which newer versions of diffusers write.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Value, value::RawValue};

use super::pattern::Patterns;
use crate::{generation::Shown, weights::json};

/// The settings of each component. They contain α for modules without an α tensor.
#[derive(Debug, Default)]
pub(super) struct Notes(BTreeMap<&'static str, Settings>);

/// The keys of PEFT's `LoraConfig` that affect the values of an adapter.
#[derive(Debug)]
struct Settings {
    r: Option<f64>,
    rank_pattern: Patterns,
    lora_alpha: Option<f64>,
    alpha_pattern: Patterns,
    use_rslora: bool,
}

/// The name of the metadata entry that holds the settings.
const NOTE: &str = "lora_adapter_metadata";

/// The entry's members, such as `unet.lora_alpha`.
type Members = BTreeMap<String, Box<RawValue>>;

impl Notes {
    /// Reads the settings, if the file has them.
    ///
    /// # Errors
    /// The entry is not a JSON object, has patterns that cannot be matched, or requires something other than a low-rank
    /// product. The error is the entry's name, and what is wrong.
    pub fn read(metadata: &BTreeMap<String, String>) -> Result<Self, (String, String)> {
        let Some(text) = metadata.get(NOTE) else { return Ok(Self::default()) };
        let bad = |reason: String| (format!("the metadata entry {NOTE}"), reason);
        let members: Members = json::read(text).map_err(|e| bad(e.to_string()))?;
        let of = |component| Settings::read(component, &members).map_err(bad).map(|settings| (component, settings));
        ["unet", "transformer", "text_encoder", "text_encoder_2"]
            .map(of)
            .into_iter()
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The factor of the product up · down of rank r: α / r; α / √r for "rank-stabilized" adapters (Kalajdzievski 2023,
    /// arXiv:2312.03732); 1 if the file has no settings, or its settings have no α for the site.
    pub fn scale(&self, site: &str, rank: usize) -> f64 {
        let Some((settings, names)) = self.of(site) else { return 1.0 };
        let alpha = settings.alpha_pattern.find(&names).or(settings.lora_alpha);
        let rank = if settings.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
        alpha.map_or(1.0, |alpha| alpha / rank)
    }

    /// Checks the rank of a product against the settings.
    ///
    /// # Errors
    /// The settings name another rank. PEFT, and therefore diffusers, refuses such a file too.
    pub fn check_rank(&self, site: &str, rank: usize) -> Result<(), String> {
        let Some((settings, names)) = self.of(site) else { return Ok(()) };
        match settings.rank_pattern.find(&names).or(settings.r) {
            Some(noted) if noted != rank as f64 => {
                Err(format!("the matrices are of rank {rank}, but the metadata entry {NOTE} says {}", Shown(noted)))
            }
            _ => Ok(()),
        }
    }

    /// The settings of the site's component, and the names of the site's module.
    fn of<'a>(&self, site: &'a str) -> Option<(&Settings, [&'a str; 2])> {
        let (component, module) = site.split_once('.')?;
        // Text encoders of newer versions of transformers have no `text_model`.
        let names = [module, module.strip_prefix("text_model.").unwrap_or(module)];
        Some((self.0.get(component)?, names))
    }
}

impl Settings {
    fn read(component: &str, members: &Members) -> Result<Settings, String> {
        if member(members, component, "use_dora")?.unwrap_or(false) {
            return Err(format!("{component}.use_dora is not supported"));
        }
        if member::<Value>(members, component, "layer_replication")?.is_some() {
            return Err(format!("{component}.layer_replication is not supported"));
        }
        let patterns = |key: &str| {
            let table = member(members, component, key)?.unwrap_or_default();
            Patterns::compile(table).map_err(|why| format!("{component}.{key}: {why}"))
        };
        Ok(Settings {
            r: member(members, component, "r")?,
            rank_pattern: patterns("rank_pattern")?,
            lora_alpha: member(members, component, "lora_alpha")?,
            alpha_pattern: patterns("alpha_pattern")?,
            use_rslora: member(members, component, "use_rslora")?.unwrap_or(false),
        })
    }
}

/// A setting of a component; `null` is the same as absent.
fn member<T: DeserializeOwned>(members: &Members, component: &str, key: &str) -> Result<Option<T>, String> {
    let name = format!("{component}.{key}");
    let Some(value) = members.get(&name) else { return Ok(None) };
    serde_json::from_str(value.get()).map_err(|e| format!("{name}: {e}"))
}
