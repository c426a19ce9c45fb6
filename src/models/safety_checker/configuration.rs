//! The configuration of a safety checker.

use serde_json::{Map, Value};

use crate::{
    models::{
        clip_vision::ClipVisionConfig,
        configuration::{WIDEST, one_of, within},
    },
    weights::LoadError,
};

/// The sizes of a safety checker.
#[derive(Clone, Debug)]
pub(super) struct SafetyCheckerConfig {
    pub vision: ClipVisionConfig,
    /// Length of the vectors of concepts.
    pub projection_dim: usize,
}

const DEFAULT_PROJECTION: usize = 512;

impl SafetyCheckerConfig {
    /// Reads the keys of the file at `path`. The keys of the text encoder are ignored, because a safety checker has no
    /// text encoder.
    ///
    /// # Errors
    /// A value is out of bounds, or the file describes another network.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        if let Some(architectures) = keys.get("architectures").filter(|value| !value.is_null()) {
            one_of(path, "architectures", architectures, &[r#"["StableDiffusionSafetyChecker"]"#])?;
        }
        // transformers lets the settings of `vision_config_dict` replace all of those in `vision_config`.
        let object = |key: &str| keys.get(key).and_then(Value::as_object).filter(|keys| !keys.is_empty());
        let vision = object("vision_config_dict").or_else(|| object("vision_config")).cloned().unwrap_or_default();
        let vision = ClipVisionConfig::read(path, &vision)?;
        let projection_dim = match keys.get("projection_dim") {
            None => DEFAULT_PROJECTION,
            Some(value) => {
                let whole = value.as_u64().and_then(|value| usize::try_from(value).ok());
                whole.ok_or_else(|| {
                    let reason = "must be a whole number".to_owned();
                    LoadError::BadKey { path: path.into(), key: "projection_dim".into(), reason }
                })?
            }
        };
        within(path, "projection_dim", projection_dim, WIDEST)?;
        Ok(Self { vision, projection_dim })
    }
}
