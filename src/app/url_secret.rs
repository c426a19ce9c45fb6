//! The secret that signs URLs: from the settings, otherwise from a file in the data folder.

use anyhow::{Result, bail};

use super::secret_file::{read, read_or_make};
use crate::config::{Config, Secret};

/// The name of the secret's file in the data folder.
const FILE: &str = "url.secret";

/// If API keys are required and the settings have no secret, sets the secret to the one in the file. If the file does
/// not exist, makes it with a random secret. The secret is needed because `<img>` and `EventSource` cannot send a key
/// and can use only signed URLs. Processes that share a database need the same secret, so no file is made for them.
///
/// # Errors
/// The file has fewer than 16 bytes.
pub(super) fn settle(config: &mut Config) -> Result<()> {
    if !config.auth.required || !config.http.url_secret.is_empty() {
        return Ok(());
    }
    if !config.database.url.is_empty() {
        tracing::warn!(
            "URLs of pictures and events are not signed, so a client must send its API key to read them; to sign the \
             URLs, set http.url_secret"
        );
        return Ok(());
    }
    let path = config.data_dir.join(FILE);
    match read_or_make(&path) {
        Ok(secret) if secret.expose().len() < 16 => {
            bail!("the secret {} has fewer than 16 bytes; delete the file", path.display())
        }
        Ok(secret) => config.http.url_secret = secret,
        Err(error) => {
            let path = path.display();
            tracing::warn!(%path, %error, "URLs are not signed: the file of the secret cannot be used; set http.url_secret");
        }
    }
    Ok(())
}

/// The secret that a server with these settings would read, from the settings or the file; empty if there is none.
pub fn url_secret(config: &Config) -> Secret {
    match config.http.url_secret.is_empty() {
        true => read(&config.data_dir.join(FILE)).unwrap_or_default(),
        false => config.http.url_secret.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::app::tests::config;

    #[test]
    fn a_server_with_keys_signs_with_the_secret_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let settled = |more: &[(&str, &str)]| {
            let mut config = config(folder.path(), more);
            settle(&mut config).map(|()| config.http.url_secret)
        };
        assert!(settled(&[]).unwrap().is_empty());
        let shared = [("auth.required", "true"), ("database.url", "postgres://localhost/latentd")];
        assert!(settled(&shared).unwrap().is_empty());
        let secret = settled(&[("auth.required", "true")]).unwrap();
        assert_eq!(secret.expose().len(), 64);
        assert_eq!(settled(&[("auth.required", "true")]).unwrap(), secret, "a later start uses the same secret");
        let own = [("auth.required", "true"), ("http.url_secret", "correct horse battery staple")];
        assert_eq!(settled(&own).unwrap().expose(), "correct horse battery staple");
        fs::write(folder.path().join(FILE), "short").unwrap();
        assert!(settled(&[("auth.required", "true")]).unwrap_err().to_string().contains("fewer than 16 bytes"));
    }
}
