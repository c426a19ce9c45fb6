//! The keys that sign the files of results: from the settings, otherwise from a file in the data folder that the first
//! start makes.

#[cfg(all(test, feature = "provenance"))]
mod tests;

use anyhow::Result;

use crate::{config::Config, provenance::Provenance};

#[cfg(feature = "provenance")]
pub use with_keys::{keys_need_data_dir, provenance, provenance_beside};
#[cfg(not(feature = "provenance"))]
pub use without::{keys_need_data_dir, provenance, provenance_beside};

#[cfg(feature = "provenance")]
mod with_keys {
    use std::{fs, io, path::Path};

    use anyhow::Context;
    use time::OffsetDateTime;

    use super::{Config, Provenance, Result};
    use crate::{
        app::secret_file::{read, read_or_make_with},
        config::Secret,
        provenance::{Keys, make},
    };

    /// The file in the data folder with the private key and the certificates that the server has made.
    const FILE: &str = "provenance.pem";

    /// Opens the keys of a server, and signs and verifies a test picture. If the settings name no keys, makes them in
    /// the data folder, unless the process computes nothing.
    ///
    /// # Errors
    /// The keys or the trust anchors in the settings cannot be read or used, or the file in the data folder cannot be
    /// made or used.
    pub fn provenance(config: &Config) -> Result<Provenance> {
        let path = config.data_dir.join(FILE);
        let own = || match config.role.works() {
            true => {
                if !config.database.url.is_empty() && !path.exists() {
                    tracing::warn!(
                        "this process signs pictures with a certificate of its own; to sign with one certificate in all \
                         processes, set provenance.certificate and provenance.private_key"
                    );
                }
                read_or_make_with(&path, fresh).map(Some)
            }
            false => existing(&path),
        };
        opened(config, || own().with_context(|| path.display().to_string()))
    }

    /// The keys of the server with these settings, for a command. If the server has not made its keys yet, this
    /// function makes keys for this process only if `signs` is true, and returns no keys if `signs` is false.
    ///
    /// # Errors
    /// Those of [`provenance`].
    pub fn provenance_beside(config: &Config, signs: bool) -> Result<Provenance> {
        let path = config.data_dir.join(FILE);
        opened(config, || {
            let existing = existing(&path).with_context(|| path.display().to_string())?;
            Ok(match existing {
                None if signs => Some(fresh()?),
                existing => existing,
            })
        })
    }

    /// Whether a data folder that cannot be written keeps a server with these settings from starting, because of the
    /// keys: the server makes its keys in the folder and has not made them yet, or it cannot read them.
    pub fn keys_need_data_dir(config: &Config) -> bool {
        let settings = &config.provenance;
        if !settings.credentials || !settings.certificate.is_empty() {
            return false;
        }
        match existing(&config.data_dir.join(FILE)) {
            Ok(Some(_)) => false,
            Ok(None) => config.role.works(),
            Err(_) => true,
        }
    }

    fn existing(path: &Path) -> io::Result<Option<Secret>> {
        match read(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn fresh() -> io::Result<Secret> {
        make(OffsetDateTime::now_utc()).map_err(io::Error::other)
    }

    /// `own` has the keys for settings without keys.
    fn opened(config: &Config, own: impl FnOnce() -> Result<Option<Secret>>) -> Result<Provenance> {
        let settings = &config.provenance;
        let anchors = text(&settings.trust_anchors).context("provenance.trust_anchors")?;
        let keys = match (settings.credentials, settings.certificate.is_empty()) {
            (false, _) => None,
            (true, true) => own()?.map(|text| Keys::self_made(&text)),
            (true, false) => Some(Keys {
                certificates: text(&settings.certificate).context("provenance.certificate")?,
                private_key: Secret::new(text(settings.private_key.expose()).context("provenance.private_key")?),
            }),
        };
        let source = if settings.certificate.is_empty() { FILE } else { "provenance.certificate" };
        let provenance = Provenance::new(keys.as_ref(), &anchors).context(source)?;
        provenance.check().context(source)?;
        Ok(provenance)
    }

    /// The PEM text of a setting, which is the text or the name of a file. Errors do not quote the setting, because it
    /// may be a mistyped key.
    fn text(setting: &str) -> io::Result<String> {
        match setting.is_empty() || setting.contains("-----BEGIN ") {
            true => Ok(setting.to_owned()),
            false => fs::read_to_string(setting),
        }
    }
}

#[cfg(not(feature = "provenance"))]
mod without {
    use super::{Config, Provenance, Result};

    /// Logs that files are not signed, even if the settings ask for signatures.
    ///
    /// # Errors
    /// None.
    pub fn provenance(config: &Config) -> Result<Provenance> {
        if config.provenance.credentials && config.role.works() {
            tracing::info!(
                "pictures are not signed: this build has no code for content credentials (Cargo feature provenance)"
            );
        }
        Ok(Provenance)
    }

    /// Nothing is signed.
    ///
    /// # Errors
    /// None.
    pub fn provenance_beside(_config: &Config, _signs: bool) -> Result<Provenance> {
        Ok(Provenance)
    }
    /// There are no keys.
    pub fn keys_need_data_dir(_config: &Config) -> bool {
        false
    }
}
