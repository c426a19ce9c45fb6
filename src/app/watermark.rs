//! Reminds the operator, when the server starts, that no setting says whether pictures get a watermark.

use crate::config::{Config, Watermark};

/// Logs a line if other machines can reach the server and the setting is empty.
pub(super) fn remind(config: &Config) {
    if wants_choice(config) {
        tracing::warn!(
            "provenance.watermark is not set: other machines can reach this server, and its pictures have no invisible \
             watermark; set it to on or off (docs/watermark.md)"
        );
    }
}

fn wants_choice(config: &Config) -> bool {
    let is_public = config.role.serves() && !config.http.bind.ip().is_loopback();
    is_public && config.provenance.watermark == Watermark::Unset
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::app::tests::config;

    #[test]
    fn only_a_public_server_without_a_choice_is_reminded() {
        let wants = |bind: &str, watermark: &str| {
            wants_choice(&config(Path::new("data"), &[("http.bind", bind), ("provenance.watermark", watermark)]))
        };
        assert!(wants("0.0.0.0:8080", "") && wants("[::]:8080", ""));
        assert!(!wants("0.0.0.0:8080", "on") && !wants("0.0.0.0:8080", "off"));
        assert!(!wants("127.0.0.1:8080", "") && !wants("[::1]:8080", ""));
    }
}
