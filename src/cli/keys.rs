//! `latentd keys`: creates API keys of tenants.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand};
use latentd::{
    app,
    generation::Fields,
    ledger::StoreError,
    service::{AcceptPolicy, NewKey},
};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Settings, operator::reachable};

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Create an API key and print it. The key cannot be shown again.
    Create(Create),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    #[command(flatten)]
    settings: Settings,
    /// Name of the tenant: 1 to 64 characters a-z, 0-9, ".", "_" and "-", the first one a letter or digit, and not
    /// "default". A tenant that does not exist is created.
    #[arg(long, value_name = "NAME")]
    tenant: String,
    /// Weight of the tenant when workers are shared with other tenants, 0.001 to 1000 [default: 1].
    #[arg(long, value_name = "W")]
    weight: Option<f64>,
    /// Maximum number of queued generations of the tenant, 1 to 1000000 [default: the setting tenants.max_queued].
    #[arg(long, value_name = "N")]
    max_queued: Option<u32>,
    /// Maximum number of generations of the tenant that run at the same time, 1 to 1000000 [default: the setting
    /// tenants.max_running].
    #[arg(long, value_name = "N")]
    max_running: Option<u32>,
    /// Folder of the SQLite database. Overrides the setting data_dir, whose default is data.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<std::path::PathBuf>,
}

impl Keys {
    pub(super) fn run(&self) -> Result<()> {
        let Keys::Create(create) = self;
        create.run()
    }
}

impl Create {
    fn run(&self) -> Result<()> {
        let flags = self.data_dir.iter().map(|dir| ("data_dir".to_owned(), dir.display().to_string())).collect();
        let config = self.settings.load(flags)?;
        // All errors in the arguments are reported before anything else is done.
        let new =
            NewKey::read(Fields::new(self.fields()), AcceptPolicy::of(&config).tenant_caps).map_err(|invalid| {
                let details: Vec<&str> = invalid.errors.iter().map(|error| error.detail.as_str()).collect();
                anyhow!("{}", details.join("; "))
            })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let made = runtime.block_on(async {
            match app::open_store(&config).await {
                Ok(store) => {
                    let (key, record) = new.make().context("the system has no random bytes")?;
                    store.create_key(&record).await.context("the key cannot be stored")?;
                    Ok(Made {
                        key: key.expose().to_owned(),
                        tenant: record.tenant,
                        weight: record.weight,
                        max_queued: record.max_queued.unwrap_or_default(),
                        max_running: record.max_running.unwrap_or_default(),
                    })
                }
                // Only one process can use a SQLite file. If a server uses the file, the server makes the key.
                Err(error @ StoreError::Locked { .. }) => {
                    let operator = reachable(app::operator_beside(&config));
                    self.request(operator).await.with_context(|| {
                        format!("{error}; its operator listener {operator} did not make the key either")
                    })
                }
                Err(error) => Err(anyhow::Error::from(error).context("the store cannot be opened")),
            }
        })?;
        // Standard output contains only the key, for scripts.
        eprintln!(
            "a key of tenant {}: weight {}, at most {} queued and {} running; it is not shown again",
            made.tenant, made.weight, made.max_queued, made.max_running
        );
        println!("{}", made.key);
        Ok(())
    }

    /// Asks the server to make the key.
    async fn request(&self, operator: SocketAddr) -> Result<Made> {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
        let url = format!("http://{operator}/admin/keys");
        let body = serde_json::to_vec(&self.fields())?;
        let request = client.post(url).header("content-type", "application/json").body(body);
        let answer = request.send().await.map_err(reqwest::Error::without_url)?;
        let (status, body) = (answer.status(), answer.bytes().await.map_err(reqwest::Error::without_url)?);
        if !status.is_success() {
            let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
            bail!("it answers {status}: {}", problem["detail"].as_str().unwrap_or("the answer is not from latentd"));
        }
        serde_json::from_slice(&body).context("its answer cannot be read")
    }

    fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("tenant".to_owned(), self.tenant.clone().into());
        fields.insert("weight".to_owned(), self.weight.into());
        fields.insert("max_queued".to_owned(), self.max_queued.into());
        fields.insert("max_running".to_owned(), self.max_running.into());
        fields
    }
}

/// A new key, as it is printed.
#[derive(Debug, Deserialize)]
struct Made {
    key: String,
    tenant: String,
    weight: f64,
    max_queued: u32,
    max_running: u32,
}
