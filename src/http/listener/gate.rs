//! Bounds the number of connections, in total and per client address.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::stream::Stream;
use crate::config::Http;

/// Pause after a connection could not be accepted, because the next attempt may fail for the same reason, such as a
/// lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);
/// Shortest time between two log lines about addresses with too many connections.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// A listener that keeps at most `http.max_connections` connections open; further connections wait in the system's
/// queue. If an address has `http.max_connections_per_address` connections, its further connections are closed at once.
pub struct Gate {
    listener: TcpListener,
    room: Arc<Semaphore>,
    addresses: Arc<Addresses>,
    write_timeout: Duration,
}

/// Counts one open connection against the bounds until this value is dropped.
pub struct ConnectionSlot {
    _room: OwnedSemaphorePermit,
    address: IpAddr,
    addresses: Arc<Addresses>,
}

struct Addresses {
    /// Number of open connections of each address that has any.
    open: Mutex<HashMap<IpAddr, usize>>,
    /// Maximum number of connections of one address; 0 means no bound.
    most: usize,
    warned_at: Mutex<Option<Instant>>,
}

impl Gate {
    pub fn new(listener: TcpListener, http: &Http) -> Gate {
        let room = Arc::new(Semaphore::new(http.max_connections.min(Semaphore::MAX_PERMITS)));
        let most = http.max_connections_per_address;
        let addresses = Arc::new(Addresses { open: Mutex::default(), most, warned_at: Mutex::default() });
        Gate { listener, room, addresses, write_timeout: http.write_timeout_s.into() }
    }

    /// Accepts the next connection that is within the bounds.
    pub async fn accept(&self) -> (Stream, ConnectionSlot) {
        loop {
            match self.next().await {
                Ok(Some((stream, place))) => return (Stream::new(stream, self.write_timeout), place),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Accepts the next connection; `None` if the client's address already has too many connections.
    async fn next(&self) -> io::Result<Option<(TcpStream, ConnectionSlot)>> {
        let room = self.room.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (stream, peer) = self.listener.accept().await?;
        // Without this option, the system would hold back a small event until more bytes follow.
        stream.set_nodelay(true)?;
        let address = network(peer.ip());
        let enters = self.addresses.enter(address);
        Ok(enters.then(|| (stream, ConnectionSlot { _room: room, address, addresses: self.addresses.clone() })))
    }
}

/// The network whose connections are counted together. A client with an IPv6 address usually owns a whole /64 network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address => address,
    }
}

impl Addresses {
    fn enter(&self, address: IpAddr) -> bool {
        let mut open = self.open.lock();
        let count = open.entry(address).or_default();
        if self.most > 0 && *count >= self.most {
            drop(open);
            self.warn(address);
            return false;
        }
        *count += 1;
        true
    }

    fn leave(&self, address: IpAddr) {
        let mut open = self.open.lock();
        if let Some(count) = open.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&address);
            }
        }
    }

    fn warn(&self, address: IpAddr) {
        let mut warned_at = self.warned_at.lock();
        if warned_at.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
            *warned_at = Some(Instant::now());
            let most = self.most;
            tracing::warn!(
                %address,
                most,
                "an address has the most connections that http.max_connections_per_address allows; further ones are \
                 closed. Behind a load balancer, set http.max_connections_per_address to 0"
            );
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.addresses.leave(self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_at_most_its_number_of_connections() {
        let addresses = Addresses { open: Mutex::default(), most: 2, warned_at: Mutex::default() };
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        assert_eq!([a, a, a, b].map(|address| addresses.enter(address)), [true, true, false, true]);
        addresses.leave(a);
        assert_eq!([a, a].map(|address| addresses.enter(address)), [true, false]);
        [a, a, b].into_iter().for_each(|address| addresses.leave(address));
        assert!(addresses.open.lock().is_empty(), "addresses without connections are removed");
    }

    #[test]
    fn ipv6_addresses_of_one_network_count_as_one() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), network("2001:db8:1:2::1"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:10.0.0.1"), "10.0.0.1");
    }
}
