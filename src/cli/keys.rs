//! `latentd keys`: creates, lists, revokes and rotates API keys of tenants.

use anyhow::{Result, anyhow};
use clap::{Args, Subcommand, ValueEnum, builder::PossibleValue};
use latentd::{
    config::Config,
    generation::{Fields, Priority, Scope},
    http::keys::KeyObject,
    service::{AcceptPolicy, NewKey},
};
use serde_json::{Map, Value, json};

use super::{Settings, key_access::KeyAccess};

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Create an API key and print it. The key cannot be shown again.
    Create(Create),
    /// List the keys, also those that were revoked.
    List(List),
    /// Revoke a key for good.
    Revoke(Revoke),
    /// Give a key a new secret and print the new key. The id, the limits and the usage stay.
    Rotate(Rotate),
}

/// Options that select the store.
#[derive(Debug, Args)]
struct Store {
    #[command(flatten)]
    settings: Settings,
    /// Folder of the SQLite database. Overrides the setting data_dir, whose default is data.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<std::path::PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    #[command(flatten)]
    store: Store,
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
    /// A name for people, at most 100 characters.
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// What the key may do: generate (every method except GET and HEAD), read (GET and HEAD), admin (the operator's
    /// routes). Several are separated by commas [default: generate,read].
    #[arg(long, value_name = "SCOPE", value_delimiter = ',')]
    scopes: Vec<ScopeArg>,
    /// A model that the key may use; can be repeated [default: every model].
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,
    /// The highest priority of the key's generations: low, normal or high. Higher priorities are lowered to this one
    /// [default: high].
    #[arg(long, value_name = "PRIORITY")]
    max_priority: Option<String>,
    /// Maximum number of generations that the key creates within --rate-window-s, 1 to 1000000 [default: no limit].
    #[arg(long, value_name = "N")]
    rate_limit: Option<u32>,
    /// Seconds within which --rate-limit counts, 1 to 86400 [default: 60].
    #[arg(long, value_name = "S", requires = "rate_limit")]
    rate_window_s: Option<u32>,
    /// Maximum work of the key's generations per day (UTC), in 10⁹ multiplications, the unit of GET /v1/usage [default:
    /// no limit].
    #[arg(long, value_name = "N")]
    max_cost_per_day: Option<u64>,
    /// Seconds until the key expires, at most ten years [default: never].
    #[arg(long, value_name = "S")]
    expires_in_s: Option<u64>,
    /// What happens to pictures of the key that the safety checker flags: off (no check), flag or block [default: the
    /// setting safety.policy].
    #[arg(long, value_name = "POLICY")]
    safety: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    store: Store,
    /// Only keys of this tenant.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Print the keys as a JSON array.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Revoke {
    #[command(flatten)]
    store: Store,
    /// The key, or its id. In a key ltd_ID_SECRET, the part ID is the id.
    #[arg(value_name = "KEY")]
    id: String,
}

#[derive(Debug, Args)]
pub(super) struct Rotate {
    #[command(flatten)]
    store: Store,
    /// The key, or its id. In a key ltd_ID_SECRET, the part ID is the id.
    #[arg(value_name = "KEY")]
    id: String,
    /// Seconds for which the old secret stays valid too, at most 2592000 (30 days).
    #[arg(long, value_name = "S", default_value_t = 0)]
    grace_s: u64,
}

/// A scope on the command line.
#[derive(Clone, Copy, Debug)]
struct ScopeArg(Scope);

impl ValueEnum for ScopeArg {
    fn value_variants<'a>() -> &'a [Self] {
        &[ScopeArg(Scope::Generate), ScopeArg(Scope::Read), ScopeArg(Scope::Admin)]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.as_str()))
    }
}

impl Keys {
    pub(super) fn run(&self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            match self {
                Keys::Create(create) => create.run().await,
                Keys::List(list) => list.run().await,
                Keys::Revoke(Revoke { store, id }) => {
                    let key = KeyAccess::open(&store.load()?).await?.revoke(public_part(id)).await?;
                    eprintln!("the key {} of tenant {} is revoked", key.id, key.tenant);
                    Ok(())
                }
                Keys::Rotate(Rotate { store, id, grace_s }) => {
                    let fields = Map::from_iter([("grace_s".to_owned(), json!(grace_s))]);
                    let key = KeyAccess::open(&store.load()?).await?.rotate(public_part(id), fields).await?;
                    eprintln!("the old secret of {} is valid until {}", key.id, or_dash(&key.old_key_expires_at));
                    println!("{}", key.key.unwrap_or_default());
                    Ok(())
                }
            }
        })
    }
}

impl Store {
    fn load(&self) -> Result<Config> {
        let flags = self.data_dir.iter().map(|dir| ("data_dir".to_owned(), dir.display().to_string())).collect();
        self.settings.load(flags)
    }
}

impl Create {
    async fn run(&self) -> Result<()> {
        let config = self.store.load()?;
        // All errors in the arguments are reported before anything else is done.
        NewKey::read(Fields::new(self.fields()), AcceptPolicy::of(&config).tenant_caps).map_err(|invalid| {
            let details: Vec<&str> = invalid.errors.iter().map(|error| error.detail.as_str()).collect();
            anyhow!("{}", details.join("; "))
        })?;
        let made = KeyAccess::open(&config).await?.create(self.fields()).await?;
        // Standard output contains only the key, for scripts.
        eprintln!(
            "a key of tenant {}: weight {}, at most {} queued and {} running; it is not shown again",
            made.tenant,
            made.weight,
            made.max_queued.unwrap_or_default(),
            made.max_running.unwrap_or_default()
        );
        println!("{}", made.key.unwrap_or_default());
        Ok(())
    }

    /// The request of `POST /admin/keys`. Options that are absent are null.
    fn fields(&self) -> Map<String, Value> {
        let scopes: Vec<&str> = self.scopes.iter().map(|scope| scope.0.as_str()).collect();
        let fields = json!({
            "tenant": self.tenant,
            "weight": self.weight,
            "max_queued": self.max_queued,
            "max_running": self.max_running,
            "name": self.name,
            "scopes": (!scopes.is_empty()).then_some(scopes),
            "models": (!self.models.is_empty()).then_some(&self.models),
            "max_priority": self.max_priority,
            "rate_limit": self.rate_limit,
            "rate_window_s": self.rate_window_s,
            "max_cost_per_day": self.max_cost_per_day,
            "expires_in_s": self.expires_in_s,
            "safety": self.safety,
        });
        if let Value::Object(fields) = fields { fields } else { Map::new() }
    }
}

impl List {
    async fn run(&self) -> Result<()> {
        let mut keys = KeyAccess::open(&self.store.load()?).await?.list(self.tenant.as_deref()).await?;
        keys.sort_by(|a, b| a.created_at.cmp(&b.created_at));
        if self.json {
            println!("{}", serde_json::to_string_pretty(&keys)?);
            return Ok(());
        }
        let head = ["ID", "TENANT", "NAME", "SCOPES", "MODELS", "LIMITS", "CREATED", "LAST USED", "STATE"];
        let rows: Vec<[String; 9]> = std::iter::once(head.map(str::to_owned)).chain(keys.iter().map(row)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: [usize; 9] = std::array::from_fn(width);
        for row in &rows {
            let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            println!("{}", cells.join("  ").trim_end());
        }
        Ok(())
    }
}

fn row(key: &KeyObject) -> [String; 9] {
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
    let rate = key.rate_limit.zip(key.rate_window_s).map(|(limit, window_s)| format!("{limit} in {window_s} s"));
    let quota = key.max_cost_per_day.map(|cost| format!("cost {cost} a day"));
    let priority = (key.max_priority != Priority::High).then(|| match key.max_priority {
        Priority::Low => "low".to_owned(),
        _ => "normal".to_owned(),
    });
    let limits: Vec<String> = [rate, quota, priority].into_iter().flatten().collect();
    let state = match (&key.revoked_at, &key.expires_at) {
        (Some(at), _) => format!("revoked {at}"),
        (None, Some(at)) => format!("expires {at}"),
        (None, None) => "valid".to_owned(),
    };
    [
        key.id.clone(),
        key.tenant.clone(),
        filled(&key.name),
        scopes.join(","),
        filled(&key.models.join(",")),
        filled(&limits.join(", ")),
        key.created_at.clone(),
        or_dash(&key.last_used_at),
        state,
    ]
}

fn filled(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

fn or_dash(text: &Option<String>) -> String {
    filled(text.as_deref().unwrap_or_default())
}

/// The id of a whole key. Other texts are returned unchanged.
fn public_part(key: &str) -> &str {
    key.strip_prefix("ltd_").and_then(|rest| rest.split('_').next()).unwrap_or(key)
}
