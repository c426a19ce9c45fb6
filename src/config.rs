//! The settings, which only this module reads. Each source overrides the sources before it: `config/latentd.toml`
//! (defaults), the file of `--config` or `LATENTD_CONFIG`, the environment (`LATENTD_HTTP__BIND`), flags of the command
//! line.

mod blobs;
mod devices;
mod environment;
mod home;
mod hosts;
mod http;
mod kernels;
mod one_or_more;
mod operator;
mod origins;
mod provenance;
mod safety;
mod secret;
mod telemetry;
mod webhooks;
mod whole;
mod words;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::generation::Limits;

pub use blobs::Blobs;
pub use devices::{DeviceName, KernelSet, Precision};
pub use hosts::HostPattern;
pub use http::Http;
pub use kernels::{Fast, Kernels, MatrixUnit, Winograd};
pub use operator::Operator;
pub use origins::Origin;
pub use provenance::{Provenance, Watermark};
pub use safety::Safety;
pub use secret::Secret;
pub use telemetry::Telemetry;
pub use webhooks::{AllowedHost, Webhooks};

/// The settings file with all defaults. It documents every setting with unit, bounds and reason.
pub const DEFAULTS: &str = include_str!("../config/latentd.toml");

/// All settings: one field for each section of the settings file, and for each setting outside of the sections.
/// [`DEFAULTS`] documents each setting; each module receives its own section.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub role: ProcessRole,
    pub data_dir: PathBuf,
    pub database: Database,
    pub blobs: Blobs,
    pub http: Http,
    pub operator: Operator,
    pub models: Models,
    pub loras: Loras,
    pub embeddings: Folder,
    pub controlnets: ControlNets,
    pub engine: Engine,
    pub kernels: Kernels,
    pub queue: Queue,
    pub tenants: Tenants,
    pub auth: Auth,
    pub worker: Worker,
    pub limits: Limits,
    pub retention: Retention,
    pub provenance: Provenance,
    pub safety: Safety,
    pub webhooks: Webhooks,
    pub log: Log,
    pub telemetry: Telemetry,
    pub shutdown_timeout_s: Seconds,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Models {
    /// If empty, only the embedded model exists.
    pub dir: PathBuf,
    pub default: String,
    /// 0 means that the bound is computed from the memory at the start.
    pub max_bytes: u64,
    /// 0 means a part of the GPU's free memory.
    pub gpu_max_bytes: u64,
    /// Whether text encoders and autoencoders stay in the memory of the host.
    pub offload: bool,
    pub preload: Vec<String>,
    /// Seconds between two checks of the folders for changes; 0 means no such checks.
    pub poll_interval_s: u32,
    pub precision: Precision,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loras {
    /// If empty, there are no LoRAs.
    pub dir: PathBuf,
    /// 0 means no bound.
    pub max_bytes: u64,
    pub max_loaded: NonZeroUsize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Folder {
    /// If empty, the folder is not used.
    pub dir: PathBuf,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlNets {
    /// If empty, only the embedded ControlNets exist.
    pub dir: PathBuf,
    /// 0 means that the bound is computed from the memory at the start.
    pub max_bytes: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    pub devices: Vec<DeviceName>,
    pub kernels: KernelSet,
    pub batch_invariant: bool,
    pub threads: usize,
    pub max_rows: NonZeroUsize,
    pub slice_ms: u64,
    /// 0: the memory of the machine or container minus the weights and a reserve, but at least a quarter and at most
    /// half of this memory.
    pub max_bytes: u64,
    pub max_runs: NonZeroUsize,
    pub text_cache_entries: usize,
    /// 0 means that no log of running generations is written.
    pub checkpoint_interval_ms: u64,
    /// 0 means no watchdog.
    pub watchdog_s: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    pub max_queued: NonZeroUsize,
    pub max_wait_s: Seconds,
    /// 10⁹ multiplications per second.
    pub assumed_speed: NonZeroU32,
    /// 1..=86400 seconds.
    pub start_timeout_s: u32,
    pub idempotency_s: Seconds,
    pub max_attempts: u32,
    pub max_crashes: u32,
    pub backoff_s: Seconds,
    pub reap_interval_s: Seconds,
    pub ageing_s: Seconds,
}

/// The limits of a tenant, unless the newest key of the tenant sets other limits.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenants {
    pub max_queued: NonZeroU32,
    pub max_running: NonZeroU32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    pub required: bool,
    pub cache_s: Seconds,
    pub cache_entries: NonZeroUsize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    pub lease_s: Seconds,
    pub heartbeat_s: Seconds,
    pub self_fence_s: Seconds,
    pub run_timeout_s: Seconds,
}

/// What a process does: serve HTTP, compute, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessRole {
    All,
    Api,
    Worker,
}

impl<'de> Deserialize<'de> for ProcessRole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        words::one_of(deserializer, &[("all", Self::All), ("api", Self::Api), ("worker", Self::Worker)])
    }
}

impl ProcessRole {
    /// The word of the setting.
    pub fn as_str(self) -> &'static str {
        match self {
            ProcessRole::All => "all",
            ProcessRole::Api => "api",
            ProcessRole::Worker => "worker",
        }
    }

    /// Whether the process serves the public listener.
    pub fn serves(self) -> bool {
        self != ProcessRole::Worker
    }

    /// Whether the process computes.
    pub fn works(self) -> bool {
        self != ProcessRole::Api
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// If empty, the database is SQLite in the data folder.
    pub url: Secret,
    pub max_connections: u32,
    pub timeout_s: Seconds,
    pub migrate: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    pub finished_s: Seconds,
    pub sweep_interval_s: Seconds,
    pub max_starred: usize,
    pub orphan_age_s: Seconds,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub filter: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

impl<'de> Deserialize<'de> for LogFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        words::one_of(deserializer, &[("text", LogFormat::Text), ("json", LogFormat::Json)])
    }
}

/// A duration in seconds, fractions allowed, from 0.001 seconds to ten years.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seconds(Duration);

impl From<Seconds> for Duration {
    fn from(seconds: Seconds) -> Duration {
        seconds.0
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        if !(0.001..=315_360_000.0).contains(&seconds) {
            return Err(serde::de::Error::custom(format!(
                "must be between 0.001 and 315360000 seconds, not {seconds}"
            )));
        }
        Ok(Seconds(Duration::from_secs_f64(seconds)))
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_secs_f64())
    }
}

/// The sources of settings. The settings depend on nothing else.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Name (for error messages) and contents of the settings file.
    pub file: Option<(String, String)>,
    /// The environment of the process, or of a test.
    pub environment: BTreeMap<String, String>,
    /// `key.path` and value, from the command line.
    pub flags: Vec<(String, String)>,
    /// The home folder, for paths that begin with `~`.
    pub home: Option<PathBuf>,
}

/// An invalid setting. The text names the key and where it was set.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the settings file {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Invalid(#[from] config::ConfigError),
    #[error("the environment variable {name} is no setting; {hint}")]
    Variable { name: String, hint: String },
    #[error("{key}: {detail}")]
    Bound { key: String, detail: String },
    #[error("the environment variable {name} is not UTF-8: {value:?}")]
    NotUtf8 { name: String, value: OsString },
}

impl ConfigError {
    fn bound(key: &str, detail: &str) -> Result<(), ConfigError> {
        Err(ConfigError::Bound { key: key.to_owned(), detail: detail.to_owned() })
    }
}

impl Sources {
    /// The sources of this process: the settings file (`file`, otherwise the one that `LATENTD_CONFIG` names), the
    /// environment, and `flags`.
    ///
    /// # Errors
    /// The settings file cannot be read, or a variable is not UTF-8.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<(String, String)>) -> Result<Sources, ConfigError> {
        let own = |(name, _): &(OsString, OsString)| {
            name.as_encoded_bytes().starts_with(b"LATENTD_") || environment::is_foreign_setting(name)
        };
        let text = |(name, value): (OsString, OsString)| {
            let name = name.to_string_lossy().into_owned(); // Names in invalid UTF-8 are no settings.
            match value.into_string() {
                Ok(value) => Ok((name, value)),
                Err(value) => Err(ConfigError::NotUtf8 { name, value }),
            }
        };
        let environment: BTreeMap<String, String> =
            std::env::vars_os().filter(own).map(text).collect::<Result<_, ConfigError>>()?;
        let path = file.or_else(|| environment.get("LATENTD_CONFIG").map(PathBuf::from));
        let file = match path {
            None => None,
            Some(path) => match std::fs::read_to_string(&path) {
                Ok(text) => Some((path.display().to_string(), text)),
                Err(source) => return Err(ConfigError::File { path, source }),
            },
        };
        Ok(Sources { file, environment, flags, home: std::env::home_dir() })
    }
}

impl Config {
    /// Loads and checks the settings.
    ///
    /// # Errors
    /// An unknown key, or a value of a wrong type or out of its bounds, in any source.
    pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
        let toml = config::FileFormat::Toml;
        let mut builder = config::Config::builder().add_source(config::File::from_str(DEFAULTS, toml));
        if let Some((_, text)) = &sources.file {
            builder = builder.add_source(config::File::from_str(text, toml));
        }
        for (key, value) in environment::settings(&sources.environment)? {
            builder = builder.set_override(key, value)?;
        }
        for (key, value) in &sources.flags {
            builder = builder.set_override(key, value.as_str())?;
        }
        let given = builder.build()?;
        let mut config: Config = given.clone().try_deserialize()?;
        whole::check(&given, &config)?;
        let Config { data_dir, models, loras, embeddings, controlnets, safety, .. } = &mut config;
        let folders = [data_dir, &mut models.dir, &mut loras.dir, &mut embeddings.dir, &mut controlnets.dir];
        for folder in folders.into_iter().chain([&mut safety.checker, &mut safety.blocked_prompts]) {
            *folder = home::expanded(folder, sources.home.as_deref());
        }
        config.check()?;
        Ok(config)
    }

    /// Checks the bounds that types do not express.
    fn check(&self) -> Result<(), ConfigError> {
        let bound =
            |key: &str, detail: &str| Err(ConfigError::Bound { key: key.to_owned(), detail: detail.to_owned() });
        self.http.check()?;
        devices::check(&self.engine.devices)?;
        if self.engine.threads > 1024 {
            return bound("engine.threads", "must be at most 1024 (0: one for each core)");
        }
        if !(10..=1000).contains(&self.engine.slice_ms) {
            return bound("engine.slice_ms", "must be between 10 and 1000");
        }
        if self.queue.max_attempts == 0 {
            return bound("queue.max_attempts", "must be at least 1");
        }
        if !(1..=86_400).contains(&self.queue.start_timeout_s) {
            return bound("queue.start_timeout_s", "must be between 1 and 86400");
        }
        if self.queue.max_crashes == 0 {
            return bound("queue.max_crashes", "must be at least 1");
        }
        let url = self.database.url.expose();
        if !(url.is_empty() || url.starts_with("postgres://") || url.starts_with("postgresql://")) {
            return bound("database.url", "must begin with postgres:// or postgresql://, or be empty");
        }
        if self.database.max_connections < 2 {
            return bound("database.max_connections", "must be at least 2");
        }
        if self.database.url.is_empty() && self.role != ProcessRole::All {
            return bound("role", "must be all if database.url is empty: only one process can use a SQLite file");
        }
        let worker = &self.worker;
        if !(worker.heartbeat_s.0 * 2 <= worker.self_fence_s.0 && worker.self_fence_s.0 < worker.lease_s.0) {
            return bound(
                "worker",
                "heartbeat_s must be at most half of self_fence_s, and self_fence_s less than lease_s; otherwise a worker \
                 without a connection would still compute generations that another worker has claimed",
            );
        }
        if self.limits.max_side_pixels < 8 || self.limits.max_images == 0 || self.limits.max_steps == 0 {
            return bound("limits", "max_side_pixels must be at least 8, max_images and max_steps at least 1");
        }
        if !(0.1..=3600.0).contains(&self.limits.max_seconds) {
            return bound("limits.max_seconds", "must be between 0.1 and 3600");
        }
        if !(2..=1000).contains(&self.limits.max_frames) {
            return bound("limits.max_frames", "must be between 2 and 1000");
        }
        self.operator.check()?;
        self.provenance.check()?;
        self.webhooks.check()?;
        self.telemetry.check()?;
        self.safety.check()?;
        self.blobs.check()
    }

    /// The effective settings as a settings file.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).unwrap_or_else(|error| format!("# the settings cannot be printed: {error}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let environment = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Config::load(&Sources { environment, ..Sources::default() })
    }

    #[test]
    fn secrets_are_taken_as_they_stand_and_never_printed() {
        let config = load(&[
            ("LATENTD_BLOBS__URL", "s3://pictures/six/"),
            ("LATENTD_BLOBS__ACCESS_KEY_ID", "007"),
            ("LATENTD_BLOBS__SECRET_ACCESS_KEY", "000123450000"),
            ("LATENTD_HTTP__URL_SECRET", "1e10000000000000000"),
        ])
        .unwrap();
        assert_eq!(config.blobs.bucket(), Some(("pictures", "six")));
        assert_eq!((&*config.blobs.access_key_id, config.blobs.secret_access_key.expose()), ("007", "000123450000"));
        assert_eq!(config.http.url_secret.expose(), "1e10000000000000000");
        for shown in [config.to_toml(), format!("{config:?}")] {
            assert!(!shown.contains("12345") && !shown.contains("1e1000"), "{shown}");
        }
    }

    #[test]
    fn invalid_settings_of_blobs_are_refused_with_the_name_of_the_key() {
        for (more, key) in [
            (("LATENTD_BLOBS__URL", "gs://pictures"), "blobs.url"),
            (("LATENTD_BLOBS__URL", "s3:///six"), "blobs.url"),
            (("LATENTD_BLOBS__ENDPOINT", "localhost:9000"), "blobs.endpoint"),
            (("LATENTD_BLOBS__ENDPOINT", "http://localhost:9000"), "blobs.allow_http"),
            (("LATENTD_BLOBS__ACCESS_KEY_ID", "somebody"), "blobs.secret_access_key"),
            (("LATENTD_BLOBS__REGION", ""), "blobs.region"),
            (("LATENTD_HTTP__URL_SECRET", "short"), "http.url_secret"),
        ] {
            let error = load(&[("LATENTD_BLOBS__URL", "s3://pictures"), more]).unwrap_err().to_string();
            assert!(error.contains(key), "{more:?}: {error}");
        }
        load(&[("LATENTD_BLOBS__URL", "s3://pictures"), ("LATENTD_BLOBS__ENDPOINT", "https://localhost:9000")])
            .unwrap();
    }
    #[test]
    fn the_longest_sound_and_film_have_bounds() {
        let (seconds, frames) = ("LATENTD_LIMITS__MAX_SECONDS", "LATENTD_LIMITS__MAX_FRAMES");
        let wrong = ["nan", "inf", "-1", "0", "1e30"].map(|value| (seconds, value)).into_iter();
        for (name, value) in wrong.chain(["0", "1", "1001"].map(|value| (frames, value))) {
            let error = load(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(&name.to_lowercase()[16..]), "{name} = {value}: {error}");
        }
        load(&[(seconds, "3600"), (frames, "1000")]).unwrap();
    }
}
