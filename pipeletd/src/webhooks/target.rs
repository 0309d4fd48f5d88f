//! Which addresses the daemon may post to.
//!
//! Whoever can create a webhook can make the daemon send requests, so by default only addresses
//! of the public internet are allowed. A literal address is refused when the webhook is created;
//! a name is checked by the sender, on every address that it resolves to, at every connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::Host;

/// Says where the daemon may post to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TargetPolicy {
    /// Allows every address; for development, and for receivers in one's own network.
    pub allow_private: bool,
}

/// A target that the policy refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{target} is {what}, which is refused unless the daemon runs with --allow-private-targets")]
pub struct RefusedTarget {
    pub target: String,
    /// What kind of address it is, in words.
    pub what: &'static str,
}

impl TargetPolicy {
    pub fn allows(self, address: IpAddr) -> bool {
        self.check_address(address).is_ok()
    }

    pub fn check_address(self, address: IpAddr) -> Result<(), RefusedTarget> {
        match special(address) {
            Some(what) if !self.allow_private => Err(RefusedTarget {
                target: address.to_string(),
                what,
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Checks what can be told of a host without resolving it.
    ///
    /// `url` has already turned the decimal, octal, hexadecimal and short forms of an IPv4
    /// address into an address.
    pub fn check_host(self, host: &Host<&str>) -> Result<(), RefusedTarget> {
        match host {
            Host::Ipv4(address) => self.check_address(IpAddr::V4(*address)),
            Host::Ipv6(address) => self.check_address(IpAddr::V6(*address)),
            Host::Domain(name) if !self.allow_private && is_localhost(name) => Err(RefusedTarget {
                target: (*name).to_owned(),
                what: "this machine",
            }),
            Host::Domain(_) => Ok(()),
        }
    }
}

/// `localhost` and all below it (RFC 6761, section 6.3). `url` has lower-cased the name.
fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name == "localhost" || name.ends_with(".localhost")
}

/// What an address is, where it is not an ordinary one of the public internet.
fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    }
}

/// The IANA registry of special-purpose IPv4 addresses, and multicast.
const SPECIAL_V4: &[([u8; 4], u32, &str)] = &[
    ([0, 0, 0, 0], 8, "an address of this machine"),
    ([10, 0, 0, 0], 8, "a private address"),
    ([100, 64, 0, 0], 10, "a carrier's private address"),
    ([127, 0, 0, 0], 8, "a loopback address"),
    // The metadata service of the large clouds is here.
    ([169, 254, 0, 0], 16, "a link-local address"),
    ([172, 16, 0, 0], 12, "a private address"),
    ([192, 0, 0, 0], 24, "a reserved address"),
    ([192, 0, 2, 0], 24, "a documentation address"),
    ([192, 88, 99, 0], 24, "a reserved address"),
    ([192, 168, 0, 0], 16, "a private address"),
    ([198, 18, 0, 0], 15, "a benchmarking address"),
    ([198, 51, 100, 0], 24, "a documentation address"),
    ([203, 0, 113, 0], 24, "a documentation address"),
    ([224, 0, 0, 0], 4, "a multicast address"),
    ([240, 0, 0, 0], 4, "a reserved address"),
];

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    SPECIAL_V4
        .iter()
        .find(|(network, prefix, _)| {
            let mask = u32::MAX << (32 - prefix);
            address.to_bits() & mask == u32::from_be_bytes(*network)
        })
        .map(|(_, _, what)| *what)
}

/// Where the public internet (`2000::/3`) has special parts, and the well-known other networks.
const SPECIAL_V6: &[(Ipv6Addr, u32, &str)] = &[
    // Teredo, benchmarking and ORCHID among them.
    (v6(0x2001, 0, 0), 23, "a reserved address"),
    (v6(0x2001, 0xdb8, 0), 32, "a documentation address"),
    // 6to4 can hold any IPv4 address, and its relays are gone.
    (v6(0x2002, 0, 0), 16, "a 6to4 address"),
    (v6(0x3fff, 0, 0), 20, "a documentation address"),
    (Ipv6Addr::UNSPECIFIED, 128, "an address of this machine"),
    (Ipv6Addr::LOCALHOST, 128, "a loopback address"),
    (v6(0xfc00, 0, 0), 7, "a private address"),
    (v6(0xfe80, 0, 0), 10, "a link-local address"),
    (v6(0xfec0, 0, 0), 10, "a private address"),
    (v6(0xff00, 0, 0), 8, "a multicast address"),
];

const fn v6(a: u16, b: u16, c: u16) -> Ipv6Addr {
    Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    if let Some(inner) = embedded_v4(address) {
        return special_v4(inner);
    }
    let known = SPECIAL_V6.iter().find(|(network, prefix, _)| {
        let mask = u128::MAX << (128 - prefix);
        address.to_bits() & mask == network.to_bits()
    });
    // Whatever is not global unicast, as far as that has been given out, is not the internet.
    let global = address.segments()[0] & 0xe000 == 0x2000;
    match known {
        Some((_, _, what)) => Some(what),
        None => (!global).then_some("a reserved address"),
    }
}

/// The IPv4 address that is really reached: IPv4-mapped, or behind the well-known NAT64 prefix
/// (RFC 6052), through which a host without IPv4 reaches everything.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    const NAT64: Ipv6Addr = v6(0x64, 0xff9b, 0);
    let is_nat64 = address.segments()[..6] == NAT64.segments()[..6];
    let [.., high, low] = address.segments();
    let nat64 = || is_nat64.then(|| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    address.to_ipv4_mapped().or_else(nat64)
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    const STRICT: TargetPolicy = TargetPolicy {
        allow_private: false,
    };
    const OPEN: TargetPolicy = TargetPolicy {
        allow_private: true,
    };

    #[test]
    fn addresses() {
        let check = |text: &str, allowed: bool| {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(STRICT.allows(address), allowed, "{text}");
            assert!(OPEN.allows(address), "{text}");
        };
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::8.8.8.8",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            check(text, false);
        }
        for text in [
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2606:4700:4700::1111",
            "2a00:1450::1",
        ] {
            check(text, true);
        }
    }

    #[test]
    fn hosts() {
        let check = |text: &str, allowed: bool| {
            let url = Url::parse(text).unwrap();
            let host = url.host().unwrap();
            assert_eq!(STRICT.check_host(&host).is_ok(), allowed, "{text}");
            assert_eq!(OPEN.check_host(&host), Ok(()), "{text}");
        };
        for text in [
            "http://localhost",
            "http://LOCALHOST.:80",
            "http://a.localhost",
            "http://127.1",
            "http://2130706433",
            "http://0x7f000001",
            "http://0177.0.0.1",
            "http://[::1]",
            "http://[::ffff:7f00:1]",
            "http://0",
        ] {
            check(text, false);
        }
        for text in [
            "http://example.com",
            "http://localhost.example",
            "http://8.8.8.8",
        ] {
            check(text, true);
        }
    }

    #[test]
    fn a_refusal_says_what_and_how_to_allow_it() {
        let refused = STRICT.check_address(IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert_eq!(
            refused.unwrap_err().to_string(),
            "127.0.0.1 is a loopback address, which is refused unless the daemon runs with \
             --allow-private-targets"
        );
    }
}
