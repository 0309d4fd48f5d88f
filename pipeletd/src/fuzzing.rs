//! What must hold of every input that comes from outside, as functions that a fuzzer calls.
//!
//! Each target takes any bytes and panics where a property does not hold: what parses renders again
//! to something that parses to the same, what is allowed is harmless, nothing is read back as other
//! than it was written. They stand beside what they look at, because that is not public, and are
//! part of the library, because the fuzzer (`tests/fuzz`) and the test that runs its kept inputs
//! again (`tests/tests/corpus.rs`) must run the same ones. Nothing else calls them, so the linker
//! leaves them out of the daemon.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Uri;
use pipelet_domain::{
    events::{EventId, EventSelection, EventType, IdTagKey, StationId, StationSelection},
    webhooks::{TargetPolicy, WebhookUrl},
};
use url::Host;

use crate::{api, config, delivery::http::Destination, ocpp, store};

/// Something that takes input from outside, and what must hold of it.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// So many bytes of memory may be taken at once for each byte of input.
    amplification: usize,
}

/// All of them, by name.
pub const TARGETS: &[Target] = &[
    Target::new("api", api::rest::fuzzing::api, 256),
    Target::new("backup", store::fuzzing::backup, 1024),
    Target::new("event", store::fuzzing::event, 2048),
    Target::new("filter", filter, 256),
    Target::new("frame", ocpp::fuzzing::frame, 64),
    Target::new("handshake", ocpp::fuzzing::handshake, 64),
    Target::new("payload", ocpp::fuzzing::payload, 256),
    Target::new("record", store::fuzzing::record, 256),
    Target::new("sealed", store::fuzzing::sealed, 64),
    Target::new("setting", config::fuzzing::setting, 256),
    Target::new("target", target, 64),
];

impl Target {
    const fn new(name: &'static str, run: fn(&[u8]), amplification: usize) -> Self {
        Self {
            name,
            run,
            amplification,
        }
    }

    pub fn find(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// How many bytes of memory a run may take at once. An input that claims to be large must not
    /// have room made for it before it is.
    pub const fn memory(&self, input: &[u8]) -> usize {
        256 * 1024 + self.amplification * input.len()
    }
}

/// Where the daemon posts to, and whether it may: an address, or a URL.
fn target(input: &[u8]) {
    if let Ok(bytes) = <[u8; 16]>::try_from(input) {
        check_address(Ipv6Addr::from(bytes));
    }
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    let Ok(url) = WebhookUrl::parse(text) else {
        return;
    };
    assert_eq!(url.as_str(), text);
    let parsed = url.url();
    // The limit is that of what a user writes; percent-encoded, it may be longer.
    if parsed.as_str().len() <= WebhookUrl::MAX_LEN {
        let again = WebhookUrl::parse(parsed.as_str());
        let again = again.expect("a URL that was read renders to one");
        assert_eq!(again.url(), parsed);
    }
    let uri: Uri = parsed.as_str().parse().expect("what HTTP carries");
    // What is checked is what is connected to: the two readers agree on the host and port.
    assert_eq!(uri.host(), parsed.host_str());
    assert_eq!(uri.port_u16(), parsed.port());
    let host = parsed.host().expect("every http URL has a host");
    if TargetPolicy::default().check_host(&host).is_ok() {
        match host {
            Host::Ipv4(address) => assert!(is_public_v4(address), "{address}"),
            Host::Ipv6(address) => assert!(is_public_v6(address), "{address}"),
            Host::Domain(name) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                assert!(name.parse::<IpAddr>().is_err(), "{name}");
                assert!(!name.eq_ignore_ascii_case("localhost"));
                // The C library would take such a name for an address of its own.
                let last = name.rsplit('.').next().unwrap_or_default();
                let (digits, radix) = match last.strip_prefix("0x") {
                    Some(digits) => (digits, 16),
                    None => (last, 10),
                };
                let is_number = digits.chars().all(|digit| digit.is_digit(radix));
                assert!(!is_number || last.is_empty(), "{name}");
            }
        }
    }
    let _ = Destination::new(url, None, None);
}

fn check_address(address: Ipv6Addr) {
    let policy = TargetPolicy::default();
    let allowed = policy.allows(IpAddr::V6(address));
    assert!(!allowed || is_public_v6(address), "{address}");
    let [.., high, low] = address.segments();
    let v4 = Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    let allowed = policy.allows(IpAddr::V4(v4));
    assert!(!allowed || is_public_v4(v4), "{v4}");
    assert_eq!(policy.allows(IpAddr::V6(v4.to_ipv6_mapped())), allowed);
}

/// By what the standard library knows, which is less than the policy does.
fn is_public_v4(address: Ipv4Addr) -> bool {
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_documentation())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.to_ipv4_mapped() {
        Some(v4) => is_public_v4(v4),
        None => {
            !(address.is_unspecified()
                || address.is_loopback()
                || address.is_multicast()
                || address.is_unique_local()
                || address.is_unicast_link_local())
        }
    }
}

/// What a webhook selects, and the names of things: one on each line.
fn filter(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    let lines: Vec<&str> = text.split('\n').collect();
    events_selected(&lines);
    stations_selected(&lines);
    for line in lines {
        if let Ok(id) = line.parse::<EventId>() {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        if let Ok(kind) = line.parse::<EventType>() {
            assert_eq!(kind.name(), line);
        }
        let tag = IdTagKey::of(line);
        assert_eq!(IdTagKey::of(tag.as_str()), tag);
    }
}

fn events_selected(names: &[&str]) {
    if names.len() > EventSelection::MAX_NAMES {
        assert!(EventSelection::parse(names).is_err());
        return;
    }
    let single = |name: &&str| EventSelection::parse(&[name]).ok();
    let singles: Option<Vec<EventSelection>> = names.iter().map(single).collect();
    let Ok(selection) = EventSelection::parse(names) else {
        assert!(singles.is_none());
        return;
    };
    let singles = singles.expect("what is right together is right alone");
    for kind in EventType::ALL {
        let contained = singles.iter().any(|single| single.contains(*kind));
        assert_eq!(selection.contains(*kind), contained, "{kind}");
    }
    assert!(selection.contains(selection.first()));
    assert_eq!(EventSelection::parse(selection.names()), Ok(selection));
}

fn stations_selected(patterns: &[&str]) {
    let Ok(selection) = StationSelection::parse(patterns) else {
        return;
    };
    for pattern in patterns {
        let stem = pattern.trim_end_matches('*');
        for id in [stem.to_owned(), format!("{stem}1"), format!("1{stem}")] {
            let Ok(id) = StationId::new(&id) else {
                continue;
            };
            let matches = |pattern: &&str| match pattern.strip_suffix('*') {
                Some(prefix) => id.as_str().starts_with(prefix),
                None => id.as_str() == *pattern,
            };
            assert_eq!(
                selection.contains(&id),
                patterns.iter().any(matches),
                "{id}"
            );
        }
    }
    assert_eq!(StationSelection::parse(selection.patterns()), Ok(selection));
}
