//! Decides whether an IP address belongs to the public internet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether packets to this address go to a host on the public internet, and not to this host, to a private or reserved
/// network, or to a multicast group. The lists below follow IANA's registries of special-purpose addresses. For an IPv6
/// address that contains an IPv4 address, such as a 6to4 address, the answer is `false`. Only an IPv4-mapped address is
/// judged as its IPv4 address.
pub fn is_global(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => !V4.iter().any(|(network, prefix)| is_in_v4(address, *network, *prefix)),
        IpAddr::V6(address) => {
            is_in_v6(address, GLOBAL_UNICAST.0, GLOBAL_UNICAST.1)
                && !V6.iter().any(|(network, prefix)| is_in_v6(address, *network, *prefix))
        }
    }
}

/// The special networks of IPv4.
const V4: [(Ipv4Addr, u32); 15] = [
    // This network (RFC 791).
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    // Private (RFC 1918).
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    // Shared address space of carriers (RFC 6598).
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    // Loopback (RFC 1122).
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    // Link-local (RFC 3927), where clouds serve their metadata.
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    // Protocol assignments (RFC 6890), 6to4 relays (RFC 7526).
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    // Documentation (RFC 5737).
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    // Benchmarks (RFC 2544).
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    // Multicast (RFC 5771); reserved and broadcast (RFC 1112, RFC 919).
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// The range of IPv6 that IANA has allocated for global unicast. Loopback, link-local, unique local and multicast
/// addresses are outside of this range, and so is 64:ff9b::/96, behind which a NAT64 reaches all of IPv4 (RFC 6052).
const GLOBAL_UNICAST: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// The special networks within [`GLOBAL_UNICAST`].
const V6: [(Ipv6Addr, u32); 4] = [
    // Protocol assignments (RFC 2928), including Teredo (RFC 4380) and ORCHID (RFC 7343).
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    // Documentation (RFC 3849, RFC 9637).
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
    // 6to4 (RFC 3056).
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
];

fn is_in_v4(address: Ipv4Addr, network: Ipv4Addr, prefix: u32) -> bool {
    (address.to_bits() ^ network.to_bits()).leading_zeros() >= prefix
}

fn is_in_v6(address: Ipv6Addr, network: Ipv6Addr, prefix: u32) -> bool {
    (address.to_bits() ^ network.to_bits()).leading_zeros() >= prefix
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_and_last_address_of_every_special_network_are_refused_and_their_neighbors_are_not() {
        let refused = [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.0.0",
            "169.254.169.254",
            "169.254.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.0",
            "192.0.0.255",
            "192.0.2.0",
            "192.0.2.255",
            "192.88.99.1",
            "192.168.0.0",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.0",
            "239.255.255.255",
            "240.0.0.0",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::1",
            "64:ff9b::7f00:1",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:0:4136::1",
            "2001:10::1",
            "2001:20::1",
            "2001:1ff:ffff::",
            "2001:db8::1",
            "2001:db8:ffff::1",
            "2002:7f00:1::",
            "2002:808:808::1",
            "3fff::1",
            "3fff:fff::1",
            "5f00::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff00::",
            "ff02::1",
            "ffff::1",
        ];
        for address in refused {
            assert!(!is_global(address.parse().unwrap()), "{address} passes");
        }
        let allowed = [
            "1.0.0.0",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "191.255.255.255",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.99.255",
            "198.51.101.0",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2001:db7:ffff::1",
            "2001:db9::1",
            "2003::1",
            "2606:4700::1111",
            "3ffe::1",
            "3fff:1000::1",
        ];
        for address in allowed {
            assert!(is_global(address.parse().unwrap()), "{address} is refused");
        }
    }

    proptest! {
        #[test]
        fn an_ipv4_mapped_address_is_checked_as_its_ipv4_address(bits: u32) {
            let inner = Ipv4Addr::from_bits(bits);
            prop_assert_eq!(is_global(inner.into()), is_global(inner.to_ipv6_mapped().into()));
        }

        #[test]
        fn what_the_standard_library_knows_as_special_is_refused(bits: u32) {
            let v4 = Ipv4Addr::from_bits(bits);
            let special = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_broadcast()
                || v4.is_documentation() || v4.is_multicast() || v4.is_unspecified();
            prop_assert!(!special || !is_global(v4.into()));
        }

        #[test]
        fn no_address_that_carries_another_passes(bits: u32, tail: u64) {
            let [a, b] = [(bits >> 16) as u16, bits as u16];
            let nat64 = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a, b);
            let to4 = Ipv6Addr::new(0x2002, a, b, 0, 0, 0, (tail >> 16) as u16, tail as u16);
            let compatible = Ipv6Addr::new(0, 0, 0, 0, 0, 0, a, b);
            for address in [nat64, to4, compatible] {
                prop_assert!(!is_global(address.into()), "{}", address);
            }
        }
    }
}
