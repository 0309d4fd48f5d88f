//! Which addresses the daemon may post to.
//!
//! Whoever can create a webhook can make the daemon send requests, so by default only addresses
//! of the public internet are allowed, and what an operator names. A literal address is refused
//! when the webhook is created; a name is checked by the sender, on every address that it resolves
//! to, at every connection.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net};
use url::Host;

/// Says where the daemon may post to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetPolicy {
    /// Allows every address; for development, and for receivers in one's own network.
    pub allow_private: bool,
    /// Allows these, whatever they are.
    pub allowed: Vec<AllowedTarget>,
}

/// A network whose addresses may be posted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllowedTarget(IpNet);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network such as 10.1.0.0/16 or fd00::/8, and no address")]
pub struct InvalidAllowedTarget(String);

/// A target that the policy refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{target} is {what}, which is refused unless the daemon runs with --allow-target and a \
     network that it is in, or with --allow-private-targets"
)]
pub struct RefusedTarget {
    pub target: String,
    /// What kind of address it is, in words.
    pub what: &'static str,
}

impl TargetPolicy {
    pub fn allows(&self, address: IpAddr) -> bool {
        self.check_address(address).is_ok()
    }

    pub fn check_address(&self, address: IpAddr) -> Result<(), RefusedTarget> {
        match special(address) {
            Some(what) if !self.allow_private && !self.names(address) => Err(RefusedTarget {
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
    pub fn check_host(&self, host: &Host<&str>) -> Result<(), RefusedTarget> {
        match host {
            Host::Ipv4(address) => self.check_address(IpAddr::V4(*address)),
            Host::Ipv6(address) => self.check_address(IpAddr::V6(*address)),
            Host::Domain(name) if is_localhost(name) && !self.allows_loopback() => {
                Err(RefusedTarget {
                    target: (*name).to_owned(),
                    what: "this machine",
                })
            }
            Host::Domain(_) => Ok(()),
        }
    }

    /// Whether an operator named a network that the address is in, as it is written or as it is
    /// reached.
    fn names(&self, address: IpAddr) -> bool {
        let inner = match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => embedded_v4(address).map(IpAddr::V4),
        };
        let networks = self.allowed.iter().map(|allowed| allowed.0);
        networks.into_iter().any(|network| {
            network.contains(&address) || inner.is_some_and(|v4| network.contains(&v4))
        })
    }

    /// Whether any address of this machine is allowed; the sender checks which.
    fn allows_loopback(&self) -> bool {
        const LOOPBACK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
        let is_loopback = |network: IpNet| match network {
            IpNet::V4(network) => network.contains(&LOOPBACK) || LOOPBACK.contains(&network),
            IpNet::V6(network) => network.contains(&Ipv6Addr::LOCALHOST),
        };
        self.allow_private || self.allowed.iter().any(|allowed| is_loopback(allowed.0))
    }
}

impl FromStr for AllowedTarget {
    type Err = InvalidAllowedTarget;

    fn from_str(text: &str) -> Result<Self, InvalidAllowedTarget> {
        let network = match text.split_once('/') {
            // The library takes 010.0.0.0 for 10.0.0.0, and others take it for 8.0.0.0.
            Some((address, _)) if address.parse::<IpAddr>().is_ok() => text.parse().ok(),
            Some(_) => None,
            None => text.parse().ok().map(|address: IpAddr| address.into()),
        };
        network
            .map(|network| Self(without_mapping(network)))
            .ok_or_else(|| InvalidAllowedTarget(text.to_owned()))
    }
}

/// An IPv4-mapped network is the IPv4 network that it means.
fn without_mapping(network: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    let mapped = match network {
        IpNet::V4(_) => None,
        IpNet::V6(network) => {
            let inner = network.addr().to_ipv4_mapped();
            inner.zip(network.prefix_len().checked_sub(MAPPED_BITS))
        }
    };
    let inner = mapped.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok());
    inner.map_or(network, IpNet::V4)
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
    // Azure's platform answers here, at an address that looks like any other.
    ([168, 63, 129, 16], 32, "a cloud's metadata address"),
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
        None if !global => Some("a reserved address"),
        None => isatap_v4(address).and_then(special_v4),
    }
}

/// The IPv4 address that is really reached: IPv4-mapped, or behind the well-known NAT64 prefix
/// (RFC 6052), through which a host without IPv4 reaches everything.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    const NAT64: Ipv6Addr = v6(0x64, 0xff9b, 0);
    let is_nat64 = address.segments()[..6] == NAT64.segments()[..6];
    let nat64 = || is_nat64.then(|| last_v4(address));
    address.to_ipv4_mapped().or_else(nat64)
}

/// The IPv4 address that an ISATAP interface is told by (RFC 5214, section 6.1): a router of that
/// site would take it there.
fn isatap_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., flags, marker, _, _] = address.segments();
    let is_isatap = flags & !0x0200 == 0 && marker == 0x5efe;
    is_isatap.then(|| last_v4(address))
}

fn last_v4(address: Ipv6Addr) -> Ipv4Addr {
    let [.., high, low] = address.segments();
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    const STRICT: TargetPolicy = TargetPolicy {
        allow_private: false,
        allowed: Vec::new(),
    };
    const OPEN: TargetPolicy = TargetPolicy {
        allow_private: true,
        allowed: Vec::new(),
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
            "168.63.129.16",
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
            // IPv4-compatible, -mapped and -translated.
            "::7f00:1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:0:10.0.0.1",
            // NAT64, well-known and local.
            "64:ff9b::10.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::8.8.8.8",
            "64:ff9b:1:ffff::10.0.0.1",
            "100::1",
            // Teredo.
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:808:808::1",
            // ISATAP, by a global prefix.
            "2606:4700::5efe:10.0.0.1",
            "2606:4700::200:5efe:169.254.169.254",
            "fd00:ec2::254",
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
            "168.63.129.17",
            "2606:4700:4700::1111",
            "2606:4700::5efe:8.8.8.8",
            "2606:4700::1:5efe:10.0.0.1",
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
            "http://[0:0:0:0:0:ffff:127.0.0.1]",
            "http://0",
            "http://0x7f.1",
            "http://017700000001",
            "http://127.0.0.1.",
            "http://%31%32%37.0.0.1",
            "http://１２７.0.0.1",
            "http://127。0。0。1",
            "http://2852039166/latest/meta-data",
            "https://[fe80::1]:8443",
            "https://[ff02::1]",
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
             --allow-target and a network that it is in, or with --allow-private-targets"
        );
    }

    fn allowing(networks: &[&str]) -> TargetPolicy {
        TargetPolicy {
            allow_private: false,
            allowed: networks.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn what_an_operator_names_is_allowed_and_nothing_beside() {
        let check = |network: &str, address: &str, allowed: bool| {
            let policy = allowing(&[network]);
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(policy.allows(address), allowed, "{network}: {address}");
        };
        for (network, address, allowed) in [
            ("10.1.0.0/16", "10.1.255.255", true),
            ("10.1.0.0/16", "10.2.0.0", false),
            // The network that the address is in, where it is not written as one.
            ("10.1.2.3/16", "10.1.255.255", true),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("10.1.0.0/16", "::ffff:10.1.2.3", true),
            ("10.1.0.0/16", "::ffff:10.2.2.3", false),
            ("10.1.0.0/16", "64:ff9b::10.1.2.3", true),
            ("::ffff:10.1.0.0/112", "10.1.2.3", true),
            ("::ffff:10.1.0.0/112", "::ffff:10.1.2.3", true),
            // Whoever tunnels says so.
            ("10.1.0.0/16", "2002:a01:203::1", false),
            ("10.1.0.0/16", "2606:4700::5efe:10.1.2.3", false),
            ("2002:a01::/32", "2002:a01:203::1", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fc00::1", false),
            ("::1", "::1", true),
            ("::1", "127.0.0.1", false),
            ("0.0.0.0/0", "169.254.169.254", true),
            ("0.0.0.0/0", "fd12::1", false),
            ("10.1.0.0/16", "8.8.8.8", true),
        ] {
            check(network, address, allowed);
        }
    }

    #[test]
    fn localhost_is_a_name_of_loopback_networks() {
        for (network, allowed) in [
            ("127.0.0.1", true),
            ("127.0.0.0/8", true),
            ("0.0.0.0/0", true),
            ("::1/128", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.0/8", false),
            ("fd00::/8", false),
        ] {
            let host = Host::Domain("localhost");
            let checked = allowing(&[network]).check_host(&host);
            assert_eq!(checked.is_ok(), allowed, "{network}");
        }
    }

    #[test]
    fn what_is_no_network() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "010.0.0.0/8",
            "10.0.0.00/8",
            "010.0.0.0",
            "localhost",
            "10.0.0.0/8 ",
            "::/129",
        ] {
            let parsed = text.parse::<AllowedTarget>();
            assert_eq!(parsed, Err(InvalidAllowedTarget(text.to_owned())));
        }
    }
}
