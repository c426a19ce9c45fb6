//! The check of the secrets that replicas must share: the operator's token, and the secret that signs URLs.

use std::path::Path;

use latentd::{app, config::Config};

use super::finding::Finding;

pub fn look(config: &Config) -> Vec<Finding> {
    let mut findings = vec![of_token(config)];
    if config.role.serves() {
        findings.push(of_url_secret(config));
    }
    findings
}

fn of_token(config: &Config) -> Finding {
    let operator = &config.operator;
    if !operator.token.is_empty() {
        return Finding::ok("operator.token is set");
    }
    if operator.bind.ip().is_loopback() {
        return Finding::ok("the operator listener is on a loopback address and needs no token");
    }
    let file = config.data_dir.join("operator.token");
    if is_empty(&file) {
        return Finding::error(
            format!("{} is empty", file.display()),
            "delete the file; the next start makes a new one",
        );
    }
    match config.database.url.is_empty() {
        true => Finding::ok("the operator's token is in the file operator.token of data_dir"),
        false => Finding::warning(
            "operator.token is empty, so each replica makes a token of its own in its data_dir",
            "set operator.token (LATENTD_OPERATOR__TOKEN) to the same random text of at least 16 bytes everywhere",
        ),
    }
}

fn of_url_secret(config: &Config) -> Finding {
    if !config.auth.required {
        return Finding::ok("auth.required is off, so URLs need no signature");
    }
    let secret = app::url_secret(config);
    if !config.http.url_secret.is_empty() {
        return Finding::ok("http.url_secret is set");
    }
    if !config.database.url.is_empty() {
        return Finding::warning(
            "auth.required is on and http.url_secret is empty, so URLs of pictures and events are not signed, and \
             browsers cannot show them",
            "set http.url_secret (LATENTD_HTTP__URL_SECRET) to the same random text of at least 16 bytes everywhere",
        );
    }
    let file = config.data_dir.join("url.secret");
    if file.exists() && secret.expose().len() < 16 {
        let text = format!("{} has fewer than 16 bytes, or cannot be read", file.display());
        return Finding::error(text, "delete the file; the next start makes a new one");
    }
    Finding::ok("the secret that signs URLs is in the file url.secret of data_dir")
}

/// Whether the file exists and has no text.
fn is_empty(file: &Path) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.trim().is_empty())
}
