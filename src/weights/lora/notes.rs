//! What newer versions of diffusers write beside a file's tensors: the settings that PEFT trained the adapter with.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::pattern::Patterns;
use crate::weights::json;

/// The α of modules for which the file has no tensor, by component.
#[derive(Debug, Default)]
pub(super) struct Notes(BTreeMap<&'static str, Settings>);

/// The keys of PEFT's `LoraConfig` that the values of an adapter depend on.
#[derive(Debug)]
struct Settings {
    lora_alpha: Option<f64>,
    alpha_pattern: Patterns,
    use_rslora: bool,
}

/// The note that holds the settings.
const NOTE: &str = "lora_adapter_metadata";

/// The note's members, `unet.lora_alpha` and so on.
type Members = BTreeMap<String, Box<RawValue>>;

impl Notes {
    /// Reads them where the file has them.
    ///
    /// # Errors
    /// They are no JSON object, have patterns that cannot be matched, or ask for what is no low-rank product: the note's name
    /// and what is wrong.
    pub fn read(metadata: &BTreeMap<String, String>) -> Result<Self, (String, String)> {
        let Some(text) = metadata.get(NOTE) else { return Ok(Self::default()) };
        let bad = |reason: String| (format!("the note {NOTE}"), reason);
        let members: Members = json::read(text).map_err(|e| bad(e.to_string()))?;
        let of = |component| Settings::read(component, &members).map_err(bad).map(|settings| (component, settings));
        ["unet", "text_encoder", "text_encoder_2"].map(of).into_iter().collect::<Result<_, _>>().map(Self)
    }

    /// What a product of this rank is multiplied by: α / r, with "rank-stabilised" adapters (Kalajdzievski 2023,
    /// arXiv:2312.03732) α / √r; 1 where nothing is said.
    pub fn scale(&self, site: &str, rank: usize) -> f64 {
        let Some((component, module)) = site.split_once('.') else { return 1.0 };
        let Some(settings) = self.0.get(component) else { return 1.0 };
        // Text encoders of newer versions of transformers have no `text_model`.
        let names = [module, module.strip_prefix("text_model.").unwrap_or(module)];
        let alpha = settings.alpha_pattern.find(&names).or(settings.lora_alpha);
        let rank = if settings.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
        alpha.map_or(1.0, |alpha| alpha / rank)
    }
}

impl Settings {
    fn read(component: &str, members: &Members) -> Result<Settings, String> {
        if member(members, component, "use_dora")?.unwrap_or(false) {
            return Err(format!("{component}.use_dora is not supported"));
        }
        let table = member(members, component, "alpha_pattern")?.unwrap_or_default();
        let alpha_pattern = Patterns::compile(table).map_err(|why| format!("{component}.alpha_pattern: {why}"))?;
        let lora_alpha = member(members, component, "lora_alpha")?;
        Ok(Settings {
            lora_alpha,
            alpha_pattern,
            use_rslora: member(members, component, "use_rslora")?.unwrap_or(false),
        })
    }
}

/// A setting of a component; null is the same as absent.
fn member<T: DeserializeOwned>(members: &Members, component: &str, key: &str) -> Result<Option<T>, String> {
    let name = format!("{component}.{key}");
    let Some(value) = members.get(&name) else { return Ok(None) };
    serde_json::from_str(value.get()).map_err(|e| format!("{name}: {e}"))
}
