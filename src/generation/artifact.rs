//! An artifact: a finished file of a generation with its media type.

use serde::{Deserialize, Serialize};

use super::MediaType;

/// One stored file of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// The artifact's number within its generation, from 0.
    pub index: u32,
    pub media_type: MediaType,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Lower-case hexadecimal SHA-256 of the file.
    pub sha256: String,
    /// SHA-256 of the file without its content credentials, in the same form. Credentials contain random numbers, so
    /// two files that differ only in their credentials have the same `unsigned_sha256` but a different `sha256`. `None`
    /// if the file has no credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsigned_sha256: Option<String>,
    /// The payload of the watermark as 16 lower-case hexadecimal digits; `None` without a watermark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<String>,
    /// Path of the file in the blob store.
    pub blob: String,
    /// Whether the safety checker flagged the picture; `None` if the picture was not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flagged: Option<bool>,
    #[serde(flatten)]
    pub facts: Facts,
}

impl Artifact {
    /// The extension of the file's name, without the dot.
    pub fn extension(&self) -> Option<&str> {
        let name = self.blob.rsplit('/').next()?;
        name.rsplit_once('.').map(|(_, extension)| extension)
    }
}

/// The kind of an artifact, with the properties of this kind that are known without reading the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Facts {
    Picture {
        /// Width and height in pixels.
        width: u32,
        height: u32,
        /// The seed of this picture, see [`Draw::seed_of`](super::Draw::seed_of).
        seed: u64,
    },
    Sound {
        /// Samples per second and channel.
        sample_rate: u32,
        channels: u32,
        /// Samples of each channel.
        samples: u64,
        /// The seed of this sound, see [`Sound::seed_of`](super::Sound::seed_of).
        seed: u64,
    },
    Clip {
        /// Width and height in pixels.
        width: u32,
        height: u32,
        /// Number of frames.
        frames: u32,
        /// Frames per second.
        fps: u32,
        /// The seed of this film, see [`Film::seed_of`](super::Film::seed_of).
        seed: u64,
    },
}

impl Facts {
    /// The seed of the artifact.
    pub fn seed(&self) -> u64 {
        match *self {
            Facts::Picture { seed, .. } | Facts::Sound { seed, .. } | Facts::Clip { seed, .. } => seed,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::generation::Format;

    #[test]
    fn the_stored_form_is_flat_and_exact() {
        let artifact = Artifact {
            index: 1,
            media_type: Format::Png.into(),
            bytes: 1234,
            sha256: "00ff".to_owned(),
            unsigned_sha256: None,
            watermark: None,
            blob: "img/x/2/1.png".to_owned(),
            flagged: None,
            facts: Facts::Picture { width: 64, height: 128, seed: u64::MAX },
        };
        let stored = json!({
            "index": 1, "media_type": "image/png", "bytes": 1234, "sha256": "00ff", "blob": "img/x/2/1.png",
            "kind": "picture", "width": 64, "height": 128, "seed": u64::MAX,
        });
        assert_eq!(serde_json::to_value(&artifact).unwrap(), stored);
        let flagged = Artifact { flagged: Some(true), ..artifact.clone() };
        let stored_flag = serde_json::to_value(&flagged).unwrap();
        assert_eq!(stored_flag["flagged"], true);
        assert_eq!(serde_json::from_value::<Artifact>(stored_flag).unwrap(), flagged);
        let text = stored.to_string();
        assert_eq!(serde_json::from_str::<Artifact>(&text).unwrap(), artifact);
        assert!(serde_json::from_str::<Artifact>(&text.replace("picture", "smell")).is_err(), "an unknown kind");
        let (unsigned_sha256, watermark) = (Some("11ff".to_owned()), Some("0123456789abcdef".to_owned()));
        let signed = Artifact { unsigned_sha256, watermark, ..artifact };
        let stored = serde_json::to_string(&signed).unwrap();
        assert_eq!(serde_json::from_str::<Artifact>(&stored).unwrap(), signed);
    }

    #[test]
    fn the_extension_is_that_of_the_file() {
        let of = |blob: &str| {
            let facts = Facts::Picture { width: 1, height: 1, seed: 0 };
            let (media_type, sha256, blob) = (Format::Png.into(), String::new(), blob.to_owned());
            let (unsigned_sha256, watermark) = (None, None);
            let artifact = Artifact {
                index: 0,
                media_type,
                bytes: 0,
                sha256,
                unsigned_sha256,
                watermark,
                blob,
                flagged: None,
                facts,
            };
            artifact.extension().map(str::to_owned)
        };
        assert_eq!(of("img/x/1/0.png").as_deref(), Some("png"));
        assert_eq!(of("img/x.y/1/0"), None);
    }
}
