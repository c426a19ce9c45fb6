//! What newer versions of diffusers write beside a file's tensors: the settings that PEFT trained the adapter with.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

/// The α of modules for which the file has no tensor, by component.
#[derive(Debug, Default)]
pub(super) struct Notes(BTreeMap<&'static str, Settings>);

/// The keys of PEFT's `LoraConfig` that the values of an adapter depend on.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    lora_alpha: Option<f64>,
    alpha_pattern: BTreeMap<String, f64>,
    use_rslora: bool,
    use_dora: bool,
}

/// The note that holds the settings.
const NOTE: &str = "lora_adapter_metadata";

impl Notes {
    /// Reads them where the file has them.
    ///
    /// # Errors
    /// They are no JSON object, or ask for what is no low-rank product: the note's name and what is wrong.
    pub fn read(metadata: &BTreeMap<String, String>) -> Result<Self, (String, String)> {
        let Some(text) = metadata.get(NOTE) else { return Ok(Self::default()) };
        let bad = |reason: String| (format!("the note {NOTE}"), reason);
        let all: Map<String, Value> = serde_json::from_str(text).map_err(|e| bad(e.to_string()))?;
        let mut notes = BTreeMap::new();
        for component in ["unet", "text_encoder", "text_encoder_2"] {
            let key = |key: &str| Some(key.strip_prefix(component)?.strip_prefix('.')?.to_owned());
            let own: Map<String, Value> =
                all.iter().filter_map(|(name, value)| Some((key(name)?, value.clone()))).collect();
            let settings: Settings =
                serde_json::from_value(own.into()).map_err(|e| bad(format!("{component}: {e}")))?;
            if settings.use_dora {
                return Err(bad(format!("{component}.use_dora is not supported")));
            }
            notes.insert(component, settings);
        }
        Ok(Self(notes))
    }

    /// What a product of this rank is multiplied by: α / r, with "rank-stabilised" adapters (Kalajdzievski 2023,
    /// arXiv:2312.03732) α / √r; 1 where nothing is said.
    pub fn scale(&self, site: &str, rank: usize) -> f64 {
        let Some((component, module)) = site.split_once('.') else { return 1.0 };
        let Some(settings) = self.0.get(component) else { return 1.0 };
        let of_pattern = |(name, alpha): (&String, &f64)| {
            let rest = module.strip_suffix(name.as_str())?;
            (rest.is_empty() || rest.ends_with('.')).then_some(*alpha)
        };
        let alpha = settings.alpha_pattern.iter().find_map(of_pattern).or(settings.lora_alpha);
        let rank = if settings.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
        alpha.map_or(1.0, |alpha| alpha / rank)
    }
}
