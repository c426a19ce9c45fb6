//! `latentd doctor`: checks the settings and everything that a server with these settings needs, and says how to mend
//! what it finds. Changes no data and starts no server.

mod clock;
mod data_dir;
mod database;
mod devices;
mod finding;
mod memory;
mod models;
mod open_files;
mod pictures;
mod ports;
mod redaction;
mod secrets;

use std::{path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use anyhow::{Result, bail};
use clap::Args;
use latentd::config::Config;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::Settings;
use finding::{Finding, Level};
use redaction::Redaction;

#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    settings: Settings,
    /// What the server will do: all, api or worker. Overrides the setting role.
    #[arg(long, value_name = "all|api|worker")]
    role: Option<String>,
    /// Folder of the SQLite database and of the pictures. Overrides the setting data_dir.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Also load the weights of the default model, in at most ten minutes. Without this option, only the names and
    /// shapes of its tensors are checked.
    #[arg(long)]
    load: bool,
    /// Maximum seconds of each check, 1 to 600. The checks run at the same time.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// One of the checks. All checks run at the same time.
struct Check {
    /// The name of what the check looks at. In the output, each finding names its check before its text.
    name: &'static str,
    within: Duration,
    /// What to do if the check does not end in time.
    when_slow: &'static str,
    running: tokio::task::JoinHandle<Vec<Finding>>,
}

/// A finding with the name of its check.
#[derive(Debug, Serialize)]
struct Entry {
    check: &'static str,
    #[serde(flatten)]
    finding: Finding,
}

/// The JSON of `--json`.
#[derive(Debug, Serialize)]
struct Report {
    /// The version of this format: 1.
    version: u32,
    errors: usize,
    warnings: usize,
    findings: Vec<Entry>,
}

impl Doctor {
    /// # Errors
    /// There is at least one finding with the level `error`.
    pub(super) fn run(&self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let entries = runtime.block_on(self.findings());
        // A check that hangs must not keep the program from ending.
        runtime.shutdown_background();
        let count = |level| entries.iter().filter(|entry| entry.finding.level == level).count();
        let (errors, warnings) = (count(Level::Error), count(Level::Warning));
        let report = Report { version: 1, errors, warnings, findings: entries };
        match self.json {
            true => println!("{}", serde_json::to_string_pretty(&report)?),
            false => report.findings.iter().for_each(|entry| entry.finding.print(entry.check)),
        }
        match errors {
            0 => Ok(()),
            errors => bail!("errors: {errors}, warnings: {warnings}"),
        }
    }

    async fn findings(&self) -> Vec<Entry> {
        let config = match self.config() {
            Ok(config) => Arc::new(config),
            Err(error) => return vec![Entry { check: "settings", finding: of_settings(&error) }],
        };
        let redaction = Redaction::of(&config);
        let start = Instant::now();
        let mut entries = vec![Entry { check: "settings", finding: Finding::ok("the settings are valid") }];
        for Check { name, within, when_slow, running } in self.checks(&config) {
            let findings = match timeout_at(start + within, running).await {
                Ok(Ok(findings)) => findings,
                Ok(Err(error)) => vec![Finding::error(format!("the check failed: {error}"), "report this as a bug")],
                Err(_) => {
                    let text = format!("no answer within {} s", within.as_secs());
                    vec![Finding::error(text, when_slow)]
                }
            };
            let entry = |finding: Finding| Entry { check: name, finding: finding.map(|text| redaction.apply(text)) };
            entries.extend(findings.into_iter().map(entry));
        }
        entries
    }

    fn config(&self) -> Result<Config> {
        let role = self.role.iter().map(|role| ("role".to_owned(), role.clone()));
        let dir = self.data_dir.iter().map(|dir| ("data_dir".to_owned(), dir.display().to_string()));
        self.settings.load(role.chain(dir).collect())
    }

    /// Starts all checks.
    fn checks(&self, config: &Arc<Config>) -> Vec<Check> {
        let within = Duration::from_secs(self.timeout);
        type Look = Pin<Box<dyn Future<Output = Vec<Finding>> + Send>>;
        let check = |name, when_slow, look: Look| {
            // A blocking call of an asynchronous check blocks only its own task.
            Check { name, within, when_slow, running: tokio::spawn(look) }
        };
        let blocking = |name, when_slow, look: fn(&Config) -> Vec<Finding>| {
            let config = config.clone();
            Check { name, within, when_slow, running: tokio::task::spawn_blocking(move || look(&config)) }
        };
        let slow_disk = "check the disk or the network file system, or give the check more time (--timeout)";
        let network = "check the network, the firewall and the name server between this machine and the address";
        let load = self.load;
        let mut models = blocking("models", slow_disk, if load { models::load } else { models::look });
        if load {
            models.within = Duration::from_secs(600);
        }
        vec![
            check("database", network, Box::pin(database::look(config.clone()))),
            check("clock", network, Box::pin(clock::look(config.clone()))),
            blocking("data_dir", slow_disk, data_dir::look),
            check("pictures", network, Box::pin(pictures::look(config.clone()))),
            models,
            blocking("devices", "check the driver of the GPU", devices::look),
            blocking("memory", slow_disk, memory::look),
            check("ports", "stop the program that holds the port", Box::pin(ports::look(config.clone()))),
            blocking("open files", slow_disk, open_files::look),
            blocking("secrets", slow_disk, secrets::look),
        ]
    }
}

/// The finding of settings that cannot be loaded; nothing else can be checked then.
fn of_settings(error: &anyhow::Error) -> Finding {
    use latentd::config::ConfigError;
    let text = crate::one_line(error);
    let mend = match error.downcast_ref::<ConfigError>() {
        Some(ConfigError::File { .. }) => "correct --config or LATENTD_CONFIG, or create the file",
        Some(ConfigError::Variable { .. }) => {
            "rename or remove the variable; `latentd config print` shows all settings"
        }
        Some(ConfigError::Bound { .. }) => "correct the setting; docs/configuration.md explains each setting",
        Some(ConfigError::NotUtf8 { .. }) => "set the variable to a text in UTF-8",
        _ => "correct or remove the setting; `latentd config print` shows all settings",
    };
    Finding::error(text, mend)
}
