//! Removes secrets from what the command prints. No check prints a secret on purpose, but errors of other programs may
//! repeat what was sent to these programs.

use latentd::{app, config::Config};

pub struct Redaction(Vec<String>);

/// Shorter texts would be found in ordinary words.
const LEAST: usize = 6;

impl Redaction {
    pub fn of(config: &Config) -> Redaction {
        let url = config.database.url.expose();
        // The password in postgres://USER:PASSWORD@HOST/DATABASE.
        let user = url.split_once("://").and_then(|(_, rest)| Some(rest.rsplit_once('@')?.0));
        let password = user.and_then(|user| Some(user.split_once(':')?.1)).unwrap_or_default();
        let parameter = url.split(['?', '&']).find_map(|part| part.strip_prefix("password=")).unwrap_or_default();
        let (token, secret) = (app::operator_token(config), app::url_secret(config));
        let key = config.blobs.secret_access_key.expose();
        let mut secrets: Vec<String> =
            [url, password, parameter, key, token.expose(), secret.expose()].map(str::to_owned).to_vec();
        secrets.retain(|secret| secret.len() >= LEAST);
        Redaction(secrets)
    }

    pub fn apply(&self, text: String) -> String {
        self.0.iter().fold(text, |text, secret| text.replace(secret.as_str(), "(hidden)"))
    }
}

#[cfg(test)]
mod tests {
    use latentd::config::Sources;

    use super::*;

    #[test]
    fn secrets_are_hidden_and_words_are_not() {
        let environment = [
            ("LATENTD_DATABASE__URL", "postgres://latentd:correct-horse@db/latentd"),
            ("LATENTD_OPERATOR__TOKEN", "0123456789abcdef"),
        ];
        let environment = environment.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let config = Config::load(&Sources { environment, ..Sources::default() }).unwrap();
        let hidden = Redaction::of(&config).apply("latentd at db: correct-horse, 0123456789abcdef".to_owned());
        assert_eq!(hidden, "latentd at db: (hidden), (hidden)");
    }
}
