//! Whose address it is.

use std::net::{IpAddr, Ipv6Addr};

/// Whoever has an IPv6 address has the rest of its /64 too.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let prefix = address.to_bits() >> 64 << 64;
            Ipv6Addr::from_bits(prefix).into()
        }
    }
}
