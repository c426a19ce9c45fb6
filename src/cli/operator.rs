//! The operator's listener of a server on this machine, as the command line reaches it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A listener on every address is asked on loopback.
pub(super) fn reachable(bind: SocketAddr) -> SocketAddr {
    let ip = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, bind.port())
}
