//! Resolves the names of hosts to addresses that webhooks may reach.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::guard::Guard;

/// Looks up the addresses of host names.
#[async_trait]
pub trait Resolver: Send + Sync + 'static {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The resolver of the operating system.
#[derive(Clone, Copy, Debug)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// The resolver of the sending HTTP client. It looks a name up once and returns only addresses that the guard allows;
/// the client connects to these addresses without a second lookup, which could give forbidden addresses.
#[derive(Clone)]
pub(super) struct Guarded {
    pub guard: Arc<Guard>,
    pub resolver: Arc<dyn Resolver>,
}

impl Guarded {
    /// The addresses of `host`, if all of them are allowed.
    ///
    /// # Errors
    /// The name does not resolve, or it resolves to an address that is forbidden.
    pub async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, Box<dyn std::error::Error + Send + Sync>> {
        let addresses = self.resolver.resolve(host).await?;
        self.guard.check_addresses(host, &addresses)?;
        Ok(addresses)
    }
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let guarded = self.clone();
        Box::pin(async move {
            let addresses = guarded.resolve(name.as_str()).await?;
            // Port 0 makes the client use the port of the URL.
            let addresses: Addrs = Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}
