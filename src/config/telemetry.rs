//! The section `[telemetry]`.

use reqwest::{
    Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde::{Deserialize, Serialize};

use super::{ConfigError, Secret};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// If empty, no spans are recorded.
    pub otlp_endpoint: String,
    pub otlp_headers: Secret,
    /// 0 to 1.
    pub sample_ratio: f64,
}

impl Telemetry {
    /// Where spans are sent; `None` if they are not recorded.
    pub fn traces_url(&self) -> Option<Url> {
        let mut url = Url::parse(&self.otlp_endpoint).ok().filter(|url| url.has_host())?;
        url.path_segments_mut().ok()?.pop_if_empty().extend(["v1", "traces"]);
        Some(url)
    }

    /// The headers of each request to the collector.
    pub fn headers(&self) -> HeaderMap {
        self.header_pairs().flatten().collect()
    }

    /// The headers; `None` for an invalid one.
    fn header_pairs(&self) -> impl Iterator<Item = Option<(HeaderName, HeaderValue)>> {
        let pairs = self.otlp_headers.expose().split(',').map(str::trim).filter(|pair| !pair.is_empty());
        pairs.map(|pair| {
            let (name, value) = pair.split_once('=')?;
            // In the variable OTEL_EXPORTER_OTLP_HEADERS, values are percent-encoded.
            let mut value = HeaderValue::from_str(&decoded(value.trim())?).ok()?;
            value.set_sensitive(true);
            Some((name.trim().parse().ok()?, value))
        })
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let bound = ConfigError::bound;
        let url = Url::parse(&self.otlp_endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        match url {
            None if self.otlp_endpoint.is_empty() => {}
            Some(url) if url.has_host() && url.username().is_empty() && url.password().is_none() => {}
            Some(_) => {
                return bound("telemetry.otlp_endpoint", "must contain no password: use telemetry.otlp_headers");
            }
            None => return bound("telemetry.otlp_endpoint", "must begin with http:// or https://, or be empty"),
        }
        if self.header_pairs().any(|pair| pair.is_none()) {
            return bound("telemetry.otlp_headers", "must be NAME=VALUE, or several such pairs with commas in between");
        }
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            return bound("telemetry.sample_ratio", "must be between 0 and 1");
        }
        Ok(())
    }
}

/// Decodes percent-encoded characters.
fn decoded(value: &str) -> Option<String> {
    let query = value.replace('+', "%2B").replace('&', "%26").replace('#', "%23");
    let url = Url::parse(&format!("http://host/?value={query}")).ok()?;
    url.query_pairs().next().map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Sources};

    fn load(pairs: &[(&str, &str)]) -> Result<Config, String> {
        let environment = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::load(&Sources { environment, ..Sources::default() }).map_err(|error| error.to_string())
    }

    #[test]
    fn the_path_of_traces_is_appended_to_the_endpoint() {
        for (endpoint, expected) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("http://collector:4318/", "http://collector:4318/v1/traces"),
            ("https://example.org/otlp/", "https://example.org/otlp/v1/traces"),
        ] {
            let config = load(&[("LATENTD_TELEMETRY__OTLP_ENDPOINT", endpoint)]).unwrap();
            assert_eq!(config.telemetry.traces_url().unwrap().as_str(), expected);
        }
        assert_eq!(load(&[]).unwrap().telemetry.traces_url(), None);
    }

    #[test]
    fn the_variables_of_open_telemetry_are_read_unless_there_are_our_own() {
        let config = load(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://theirs:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, x-scope = c+/=="),
        ])
        .unwrap();
        assert_eq!(config.telemetry.otlp_endpoint, "http://theirs:4318");
        let headers = config.telemetry.headers();
        assert_eq!((&headers["api-key"], &headers["x-scope"]), (&"a b".parse().unwrap(), &"c+/==".parse().unwrap()));
        assert!(!format!("{config:?}{}", config.to_toml()).contains("api-key"));
        let both = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a"), ("LATENTD_TELEMETRY__OTLP_ENDPOINT", "http://b")];
        assert_eq!(load(&both).unwrap().telemetry.otlp_endpoint, "http://b");
    }

    #[test]
    fn invalid_settings_are_refused_with_the_name_of_the_key() {
        for (variable, value, key) in [
            ("LATENTD_TELEMETRY__OTLP_ENDPOINT", "collector:4318", "telemetry.otlp_endpoint"),
            ("LATENTD_TELEMETRY__OTLP_ENDPOINT", "http://user:swordfish@collector", "telemetry.otlp_endpoint"),
            ("LATENTD_TELEMETRY__OTLP_HEADERS", "no pair", "telemetry.otlp_headers"),
            ("LATENTD_TELEMETRY__OTLP_HEADERS", "a b=c", "telemetry.otlp_headers"),
            ("LATENTD_TELEMETRY__SAMPLE_RATIO", "1.5", "telemetry.sample_ratio"),
        ] {
            let error = load(&[(variable, value)]).unwrap_err();
            assert!(error.contains(key) && !error.contains("swordfish"), "{value}: {error}");
        }
    }
}
