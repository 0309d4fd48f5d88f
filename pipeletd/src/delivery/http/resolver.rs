//! Looks names up, and lets only allowed addresses through.
//!
//! The address that was checked is the one that is connected to, so a name that changes its
//! address between a check and the connection gains nothing.

use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::webhooks::{RefusedTarget, TargetPolicy};

pub(super) struct PolicyResolver {
    targets: TargetPolicy,
}

impl PolicyResolver {
    pub(super) const fn new(targets: TargetPolicy) -> Self {
        Self { targets }
    }
}

impl Resolve for PolicyResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let targets = self.targets;
        Box::pin(async move {
            // The port is the URL's; 0 stands for that.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed = keep_allowed(targets, name.as_str(), found)?;
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// The allowed ones of a name's addresses; a refusal where there are only others.
fn keep_allowed(
    targets: TargetPolicy,
    name: &str,
    found: impl Iterator<Item = SocketAddr>,
) -> Result<Vec<SocketAddr>, RefusedTarget> {
    let mut allowed = Vec::new();
    let mut refused = None;
    for address in found {
        match targets.check_address(address.ip()) {
            Ok(()) => allowed.push(address),
            Err(why) => refused = Some(why),
        }
    }
    match refused {
        Some(why) if allowed.is_empty() => Err(RefusedTarget {
            target: format!("{name} ({})", why.target),
            what: why.what,
        }),
        Some(_) | None => Ok(allowed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_allowed_addresses_pass() {
        let found = |texts: &[&str]| {
            let addresses = texts.iter().map(|text| text.parse().unwrap());
            addresses.collect::<Vec<SocketAddr>>().into_iter()
        };
        let strict = TargetPolicy::default();
        let mixed = keep_allowed(strict, "n", found(&["10.0.0.1:0", "1.1.1.1:0"]));
        assert_eq!(mixed, Ok(found(&["1.1.1.1:0"]).collect()));
        let refused = keep_allowed(strict, "n", found(&["10.0.0.1:0"])).unwrap_err();
        assert_eq!(refused.target, "n (10.0.0.1)");
        assert_eq!(keep_allowed(strict, "n", found(&[])), Ok(vec![]));
    }
}
