//! The token that the operator's routes require: from the settings, otherwise from a file in the data folder.

use anyhow::{Result, bail};

use super::secret_file::{random, read, read_or_make};
use crate::config::{Config, Secret};

/// The name of the token's file in the data folder.
const FILE: &str = "operator.token";

/// If the settings have no token and other machines may reach the operator listener, sets the token to the one in the
/// file. If the file does not exist, makes it with a random token. If the file cannot be read, or is missing and cannot
/// be made, as in a read-only container, sets the token to a random one that nobody knows. Then only API keys with the
/// scope `admin` open the routes.
///
/// # Errors
/// The file is empty, or the system has no random bytes.
pub(super) fn settle(config: &mut Config) -> Result<()> {
    if !config.operator.token.is_empty() || config.operator.bind.ip().is_loopback() {
        return Ok(());
    }
    let path = config.data_dir.join(FILE);
    config.operator.token = match read_or_make(&path) {
        Ok(token) if token.is_empty() => bail!("the operator's token {} is empty; delete the file", path.display()),
        Ok(token) => token,
        Err(error) => {
            let path = path.display();
            let told =
                "the file of the operator's token cannot be used, so /admin accepts only keys with the scope admin";
            tracing::warn!(%path, %error, "{told}; set operator.token");
            random()?
        }
    };
    Ok(())
}

/// The token with which a command uses the operator's routes of a server with these settings; empty if there is none.
pub fn operator_token(config: &Config) -> Secret {
    match config.operator.token.is_empty() {
        true => read(&config.data_dir.join(FILE)).unwrap_or_default(),
        false => config.operator.token.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::app::tests::config;

    #[test]
    fn a_listener_that_others_reach_has_a_token_that_only_its_owner_reads() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");
        let mut config = config(&data_dir, &[("operator.bind", "0.0.0.0:0")]);
        assert!(operator_token(&config).is_empty());
        settle(&mut config.clone()).unwrap();
        let token = operator_token(&config);
        assert_eq!(token.expose().len(), 64);
        assert_eq!(fs::metadata(data_dir.join(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
        settle(&mut config).unwrap();
        assert_eq!(config.operator.token, token, "a later start uses the same token");
        assert_eq!(fs::read_dir(&data_dir).unwrap().count(), 1, "no draft is left");
        fs::write(data_dir.join(FILE), "\n").unwrap();
        config.operator.token = Secret::default();
        assert!(settle(&mut config).unwrap_err().to_string().contains("is empty"));
    }

    #[test]
    fn processes_that_start_together_use_one_token() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), &[("operator.bind", "0.0.0.0:0")]);
        let start = || {
            let mut config = config.clone();
            settle(&mut config).unwrap();
            config.operator.token
        };
        let tokens: Vec<Secret> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert!(tokens.iter().all(|token| *token == tokens[0] && token.expose().len() == 64));
    }

    #[test]
    fn a_server_without_a_place_for_the_file_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        // A file is where the folder would be.
        let data_dir = folder.path().join("data");
        fs::write(&data_dir, "").unwrap();
        let mut config = config(&data_dir, &[("operator.bind", "0.0.0.0:0")]);
        settle(&mut config).unwrap();
        let token = std::mem::take(&mut config.operator.token);
        assert_eq!((token.expose().len(), operator_token(&config).expose()), (64, ""));
    }

    #[test]
    fn a_listener_on_loopback_or_with_a_token_makes_no_file() {
        let folder = tempfile::tempdir().unwrap();
        for (more, expected) in [
            (&[][..], ""),
            (&[("operator.bind", "0.0.0.0:0"), ("operator.token", "correct horse battery")], "correct horse battery"),
        ] {
            let mut config = config(folder.path(), more);
            settle(&mut config).unwrap();
            assert_eq!((config.operator.token.expose(), operator_token(&config).expose()), (expected, expected));
            assert!(!folder.path().join(FILE).exists());
        }
    }
}
