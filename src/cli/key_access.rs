//! The access of commands to API keys: in the store, or through the server that has the store open.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use latentd::{
    app,
    config::{Config, Secret},
    generation::Fields,
    http::keys::KeyObject,
    ledger::{KeyQuery, StoreError},
    service::{AcceptPolicy, KeyRing, ServiceError},
};
use reqwest::Method;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::operator::reachable;

/// How a command reaches the keys.
pub(super) enum KeyAccess {
    Store(KeyRing),
    /// Only one process can use a SQLite file. If a server uses the file, the server answers.
    Server(Server),
}

/// The operator listener of a server that uses the store.
pub(super) struct Server {
    address: SocketAddr,
    token: Secret,
    client: reqwest::Client,
    /// Why the store cannot be opened.
    locked: StoreError,
}

/// One page of the server's list.
#[derive(Deserialize)]
struct Page {
    data: Vec<KeyObject>,
    last_id: Option<String>,
    has_more: bool,
}

/// Maximum number of keys of one page.
const PAGE: usize = 1000;

impl KeyAccess {
    pub(super) async fn open(config: &Config) -> Result<KeyAccess> {
        match app::open_store(config).await {
            Ok(store) => Ok(KeyAccess::Store(KeyRing { store, caps: AcceptPolicy::of(config).tenant_caps })),
            Err(locked @ StoreError::Locked { .. }) => Ok(KeyAccess::Server(Server {
                address: reachable(app::operator_beside(config)),
                token: app::operator_token(config),
                client: reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?,
                locked,
            })),
            Err(error) => Err(anyhow::Error::from(error).context("the store cannot be opened")),
        }
    }

    pub(super) async fn create(&self, fields: Map<String, Value>) -> Result<KeyObject> {
        match self {
            KeyAccess::Store(ring) => with_details(ring.create(Fields::new(fields)).await).map(KeyObject::with_secret),
            KeyAccess::Server(server) => server.ask(Method::POST, "/admin/keys", fields).await,
        }
    }

    /// All keys, of all tenants or of one.
    pub(super) async fn list(&self, tenant: Option<&str>) -> Result<Vec<KeyObject>> {
        let (mut keys, mut after) = (Vec::new(), None);
        loop {
            let query = KeyQuery { tenant: tenant.map(str::to_owned), after, limit: PAGE };
            let page = match self {
                KeyAccess::Store(ring) => {
                    let page = with_details(ring.list(&query).await)?;
                    let last_id = page.records.last().map(|key| key.record.id.clone());
                    Page {
                        data: page.records.into_iter().map(KeyObject::from).collect(),
                        last_id,
                        has_more: page.has_more,
                    }
                }
                KeyAccess::Server(server) => server.page(&query).await?,
            };
            keys.extend(page.data);
            after = page.last_id.filter(|_| page.has_more);
            if after.is_none() {
                return Ok(keys);
            }
        }
    }

    pub(super) async fn revoke(&self, id: &str) -> Result<KeyObject> {
        match self {
            KeyAccess::Store(ring) => with_details(ring.revoke(id).await).map(KeyObject::from),
            KeyAccess::Server(server) => server.act(id, "revoke", Map::new()).await,
        }
    }

    pub(super) async fn rotate(&self, id: &str, fields: Map<String, Value>) -> Result<KeyObject> {
        match self {
            KeyAccess::Store(ring) => {
                with_details(ring.rotate(id, Fields::new(fields)).await).map(KeyObject::with_secret)
            }
            KeyAccess::Server(server) => server.act(id, "rotate", fields).await,
        }
    }
}

/// Turns the error of an invalid request into the texts about its fields.
fn with_details<T>(done: Result<T, ServiceError>) -> Result<T> {
    done.map_err(|error| match error {
        ServiceError::Invalid(invalid) => {
            let details: Vec<&str> = invalid.errors.iter().map(|error| error.detail.as_str()).collect();
            anyhow!("{}", details.join("; "))
        }
        error => error.into(),
    })
}

impl Server {
    /// Requests the operation `what` on one key.
    async fn act(&self, id: &str, what: &str, fields: Map<String, Value>) -> Result<KeyObject> {
        if !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) || id.is_empty() {
            bail!("{id:?} is not the id of a key; the id is the second part of the key's text");
        }
        self.ask(Method::POST, &format!("/admin/keys/{id}/{what}"), fields).await
    }

    async fn page(&self, query: &KeyQuery) -> Result<Page> {
        let pairs =
            [("limit", Some(PAGE.to_string())), ("tenant", query.tenant.clone()), ("after", query.after.clone())];
        let pairs: Vec<_> = pairs.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let url = reqwest::Url::parse_with_params("http://server/admin/keys", &pairs)?;
        let path = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        self.ask(Method::GET, &path, Map::new()).await
    }

    /// Sends a request to the server.
    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, fields: Map<String, Value>) -> Result<T> {
        let asked = self.send(method, path, fields).await;
        asked.with_context(|| {
            let Server { locked, address, .. } = self;
            format!("{locked}, and the server at its operator listener {address} did not carry out the command")
        })
    }

    async fn send<T: DeserializeOwned>(&self, method: Method, path: &str, fields: Map<String, Value>) -> Result<T> {
        let mut request = self.client.request(method.clone(), format!("http://{}{path}", self.address));
        if method != Method::GET {
            request = request.header("content-type", "application/json").body(serde_json::to_vec(&fields)?);
        }
        if !self.token.is_empty() {
            request = request.bearer_auth(self.token.expose());
        }
        let answer = request.send().await.map_err(reqwest::Error::without_url)?;
        let (status, body) = (answer.status(), answer.bytes().await.map_err(reqwest::Error::without_url)?);
        if !status.is_success() {
            let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
            let detail = problem["detail"].as_str().unwrap_or("the answer is not from latentd");
            bail!("the server answers {status}: {detail}");
        }
        serde_json::from_slice(&body).context("the server's answer cannot be read")
    }
}
