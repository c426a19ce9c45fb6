//! Keys for tenants.

use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow};
use clap::{Args, Subcommand};
use latentd::{
    app,
    config::Config,
    generation::Fields,
    ledger::StoreError,
    service::{NewKey, Terms},
};
use serde_json::Map;

use super::Settings;

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Make a key and print it; it cannot be shown again.
    Create(Create),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    #[command(flatten)]
    settings: Settings,
    /// Whose key it is; a tenant that there is not yet is made.
    #[arg(long, value_name = "NAME")]
    tenant: String,
    /// The tenant's share of the workers beside others' [default: 1].
    #[arg(long, value_name = "W")]
    weight: Option<f64>,
    /// Most generations of the tenant that may wait [default: tenants.max_queued].
    #[arg(long, value_name = "N")]
    max_queued: Option<u32>,
    /// Most generations of the tenant that may run at the same time [default: tenants.max_running].
    #[arg(long, value_name = "N")]
    max_running: Option<u32>,
    /// Where the database lives (data_dir).
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
        let new = NewKey::read(self.fields(), Terms::of(&config).tenant_caps).map_err(|invalid| {
            let details: Vec<&str> = invalid.errors.iter().map(|error| error.detail.as_str()).collect();
            anyhow!("{}", details.join("; "))
        })?;
        let (key, record) = new.make().context("the system has no random bytes")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let store = app::open_store(&config).await.map_err(|error| explained(error, &config))?;
            store.create_key(&record).await.context("the key cannot be kept")
        })?;
        // Standard output carries the key alone, for scripts.
        eprintln!(
            "a key of tenant {}: weight {}, at most {} queued and {} running; it is not shown again",
            record.tenant,
            record.weight,
            record.max_queued.unwrap_or_default(),
            record.max_running.unwrap_or_default()
        );
        println!("{}", key.expose());
        Ok(())
    }

    fn fields(&self) -> Fields {
        let mut fields = Map::new();
        fields.insert("tenant".to_owned(), self.tenant.clone().into());
        fields.insert("weight".to_owned(), self.weight.into());
        fields.insert("max_queued".to_owned(), self.max_queued.into());
        fields.insert("max_running".to_owned(), self.max_running.into());
        Fields::new(fields)
    }
}

/// A SQLite file is for one process; beside a server the key is made by the server.
fn explained(error: StoreError, config: &Config) -> anyhow::Error {
    let operator: SocketAddr = config.operator.bind;
    match error {
        StoreError::Locked { .. } => anyhow!(
            "{error}: stop the server first, or let it make the key: curl -d tenant=NAME http://{operator}/admin/keys"
        ),
        error => anyhow::Error::from(error).context("the store cannot be opened"),
    }
}
