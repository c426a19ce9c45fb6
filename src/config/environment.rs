//! Reads settings from environment variables, with hints about misspelled names.

use std::{collections::BTreeMap, ffi::OsStr};

use config::{Value, ValueKind};

use super::{ConfigError, DEFAULTS};

/// Variables that are not settings: the name of the settings file, and options of the tests.
const OTHERS: [&str; 15] = [
    "LATENTD_CONFIG",
    "LATENTD_FFMPEG",
    "LATENTD_PARITY_DIR",
    "LATENTD_PARITY_ONLY",
    "LATENTD_PARITY_SHARD",
    "LATENTD_PREVIOUS_BINARY",
    "LATENTD_REQUIRE_CHROMIUM",
    "LATENTD_REQUIRE_CLIENTS",
    "LATENTD_REQUIRE_DEPLOY",
    "LATENTD_REQUIRE_FFMPEG",
    "LATENTD_REQUIRE_POSTGRES",
    "LATENTD_REQUIRE_PROMTOOL",
    "LATENTD_REQUIRE_SIMULATION",
    "LATENTD_REQUIRE_WALK",
    "LATENTD_SWAPS_DIR",
];

/// Variables of OpenTelemetry that are read as settings, unless the setting's own variable exists.
const FOREIGN: [(&str, &str); 2] = [
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry.otlp_endpoint"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "telemetry.otlp_headers"),
];

/// Whether a variable that does not begin with `LATENTD_` is a setting.
pub fn is_foreign_setting(name: &OsStr) -> bool {
    FOREIGN.iter().any(|(foreign, _)| name == *foreign)
}

/// The settings in the environment, as keys and values. The values of text settings and the comma-separated entries of
/// lists stay texts even if they look like numbers, because a folder may be called 007, and a secret of digits may
/// begin with zeros. Variables that Kubernetes or Docker makes for a service whose name begins with latentd are
/// skipped.
///
/// # Errors
/// A variable begins with `LATENTD_` and is not a setting. If a setting has a similar name, the error contains that
/// name.
pub fn settings(environment: &BTreeMap<String, String>) -> Result<Vec<(String, Value)>, ConfigError> {
    let defaults = defaults();
    let known: Vec<String> = defaults.iter().map(|(key, _)| variable_of(key)).collect();
    let mut settings = Vec::new();
    for (name, value) in environment {
        if OTHERS.contains(&name.as_str()) || is_service_link(name, value) {
            continue;
        }
        if let Some((_, key)) = FOREIGN.iter().find(|(foreign, _)| name == foreign) {
            if !environment.contains_key(&variable_of(key)) {
                settings.push(((*key).to_owned(), Value::new(Some(name), value.as_str())));
            }
            continue;
        }
        let Some(at) = known.iter().position(|known| *known == name.to_ascii_uppercase()) else {
            let hint = match nearest(name, &known) {
                Some(meant) => format!("did you mean {meant}?"),
                None => "`latentd config print` shows all settings".to_owned(),
            };
            return Err(ConfigError::Variable { name: name.clone(), hint });
        };
        let (key, default) = &defaults[at];
        settings.push((key.clone(), Value::new(Some(name), read(value, default))));
    }
    Ok(settings)
}

/// The environment variable of a key: `LATENTD_HTTP__BIND` for `http.bind`.
pub fn variable_of(key: &str) -> String {
    format!("LATENTD_{}", key.replace('.', "__").to_ascii_uppercase())
}

/// All keys, such as `http.bind`.
pub fn keys() -> Vec<String> {
    defaults().into_iter().map(|(key, _)| key).collect()
}

/// All keys with their defaults.
fn defaults() -> Vec<(String, toml::Value)> {
    fn walk(prefix: &str, table: toml::Table, defaults: &mut Vec<(String, toml::Value)>) {
        for (name, value) in table {
            match value {
                toml::Value::Table(table) => walk(&format!("{prefix}{name}."), table, defaults),
                _ => defaults.push((format!("{prefix}{name}"), value)),
            }
        }
    }
    let mut defaults = Vec::new();
    walk("", DEFAULTS.parse().expect("the defaults are read by every test"), &mut defaults);
    defaults
}

/// Parses the value of a variable according to the type of the default.
fn read(text: &str, default: &toml::Value) -> ValueKind {
    let as_it_stands = |text: &str| ValueKind::String(text.to_owned());
    match default {
        toml::Value::String(_) => as_it_stands(text),
        toml::Value::Array(_) => {
            ValueKind::Array(text.split(',').map(|entry| Value::new(None, as_it_stands(entry))).collect())
        }
        _ => None
            .or_else(|| text.to_ascii_lowercase().parse().ok().map(ValueKind::Boolean))
            .or_else(|| text.parse().ok().map(ValueKind::I64))
            .or_else(|| text.parse().ok().map(ValueKind::U64))
            .or_else(|| text.parse().ok().map(ValueKind::Float))
            .unwrap_or_else(|| as_it_stands(text)),
    }
}

/// The setting whose name differs from `name` in at most two characters, not counting underscores and case.
fn nearest<'k>(name: &str, known: &'k [String]) -> Option<&'k str> {
    let plain = |name: &str| name.to_ascii_uppercase().split('_').filter(|word| !word.is_empty()).collect::<String>();
    let name = plain(name);
    let distances = known.iter().map(|known| (strsim::osa_distance(&name, &plain(known)), known.as_str()));
    distances.filter(|(distance, _)| *distance <= 2).min().map(|(_, known)| known)
}

/// Whether Kubernetes or Docker made the variable. For each Service of a namespace, Kubernetes makes variables in all
/// containers of the namespace, unless the pod has `enableServiceLinks: false`. Docker makes the same variables for
/// links between containers. If the name of the Service is latentd, the variables are `LATENTD_SERVICE_HOST`,
/// `LATENTD_SERVICE_PORT`, `LATENTD_SERVICE_PORT_<name>`, `LATENTD_PORT=tcp://…`, and `LATENTD_PORT_<port>_<protocol>`
/// with or without one of the suffixes `_PROTO`, `_PORT` and `_ADDR`.
fn is_service_link(name: &str, value: &str) -> bool {
    if name.contains("__") {
        return false;
    }
    let is_port = || {
        let Some((_, rest)) = name.split_once("_PORT_") else { return false };
        let mut words = rest.split('_');
        let number = words.next().is_some_and(|port| port.parse::<u16>().is_ok());
        let protocol = words.next().is_some_and(|word| ["TCP", "UDP", "SCTP"].contains(&word));
        let part = words.next().is_none_or(|word| ["PROTO", "PORT", "ADDR"].contains(&word));
        number && protocol && part && words.next().is_none()
    };
    let is_address = || ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && is_address())
        || is_port()
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Sources};

    fn load(pairs: &[(&str, &str)]) -> Result<Config, String> {
        let environment = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::load(&Sources { environment, ..Sources::default() }).map_err(|error| error.to_string())
    }

    #[test]
    fn variables_of_a_kubernetes_service_are_no_settings() {
        let config = load(&[
            ("LATENTD_SERVICE_HOST", "10.96.0.7"),
            ("LATENTD_SERVICE_PORT", "80"),
            ("LATENTD_SERVICE_PORT_HTTP", "80"),
            ("LATENTD_SERVICE_PORT_HTTP_METRICS", "9090"),
            ("LATENTD_PORT", "tcp://10.96.0.7:80"),
            ("LATENTD_PORT_80_TCP", "tcp://10.96.0.7:80"),
            ("LATENTD_PORT_80_TCP_PROTO", "tcp"),
            ("LATENTD_PORT_80_TCP_PORT", "80"),
            ("LATENTD_PORT_80_TCP_ADDR", "10.96.0.7"),
            ("LATENTD_PORT_53_UDP_ADDR", "10.96.0.7"),
            ("LATENTD_OPERATOR_SERVICE_HOST", "10.96.0.8"),
            ("LATENTD_OPERATOR_PORT", "tcp://10.96.0.8:9090"),
            ("LATENTD_OPERATOR_PORT_9090_TCP_ADDR", "10.96.0.8"),
            ("LATENTD_HTTP__BIND", "0.0.0.0:80"),
        ]);
        assert_eq!(config.unwrap().http.bind.port(), 80);
    }

    #[test]
    fn variables_that_only_resemble_those_of_kubernetes_are_refused() {
        for (name, value) in [("LATENTD_PORT", "8080"), ("LATENTD_PORT_X_TCP", "80"), ("LATENTD_PORT_80_TCP_NAME", "x")]
        {
            let error = load(&[(name, value)]).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_mistyped_variable_names_the_one_that_is_meant() {
        for (name, meant) in [
            ("LATENTD_HTTP_BIND", "LATENTD_HTTP__BIND"),
            ("LATENTD_HTTP_MAX_CONNECTIONS", "LATENTD_HTTP__MAX_CONNECTIONS"),
            ("LATENTD_DATA__DIR", "LATENTD_DATA_DIR"),
            ("LATENTD_HTTP__BNID", "LATENTD_HTTP__BIND"),
            ("LATENTD_MODEL__DIR", "LATENTD_MODELS__DIR"),
            ("LATENTD_http_bind", "LATENTD_HTTP__BIND"),
        ] {
            let error = load(&[(name, "x")]).unwrap_err();
            assert!(error.contains(&format!("{name} is no setting")), "{error}");
            assert!(error.contains(&format!("did you mean {meant}?")), "{error}");
        }
        let error = load(&[("LATENTD_COLOUR", "red")]).unwrap_err();
        assert!(error.contains("LATENTD_COLOUR") && error.contains("config print"), "{error}");
    }
}
