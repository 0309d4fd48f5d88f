//! Looks names up, and lets only allowed addresses through.
//!
//! The address that was checked is the one that is connected to, so a name that changes its
//! address between a check and the connection gains nothing.

use std::{
    error::Error,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
    vec,
};

use hyper_util::client::legacy::connect::dns;
use pipelet_domain::webhooks::{RefusedTarget, TargetPolicy};
use tower_service::Service;

use super::{lookups::Lookups, phases};

#[derive(Debug, Clone)]
pub(super) struct PolicyResolver {
    targets: TargetPolicy,
    lookups: Lookups,
    /// What a lookup may take.
    limit: Duration,
}

type LookupError = Box<dyn Error + Send + Sync>;

impl PolicyResolver {
    pub(super) fn new(targets: TargetPolicy, lookups: Lookups, limit: Duration) -> Self {
        Self {
            targets,
            lookups,
            limit,
        }
    }

    async fn look_up(self, name: String) -> Result<Vec<SocketAddr>, LookupError> {
        // The port is the URL's; 0 stands for that.
        let found = phases::lookup(self.lookups.addresses(&name, self.limit)).await?;
        let found = found.iter().copied();
        Ok(keep_allowed(&self.targets, &name, found)?)
    }
}

impl Service<dns::Name> for PolicyResolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = LookupError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, LookupError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LookupError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: dns::Name) -> Self::Future {
        let looking = self.clone().look_up(name.as_str().to_owned());
        Box::pin(async move { Ok(looking.await?.into_iter()) })
    }
}

/// The allowed ones of a name's addresses; a refusal where there are only others.
fn keep_allowed(
    targets: &TargetPolicy,
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
        // Whoever may make a webhook shall not learn the addresses of the network that the daemon
        // is in; whoever reads its log may.
        Some(why) if allowed.is_empty() => {
            tracing::debug!(
                name,
                address = why.target,
                "a name leads to a refused address"
            );
            Err(RefusedTarget {
                target: format!("where {name} leads to"),
                what: why.what,
            })
        }
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
        let mixed = keep_allowed(&strict, "n", found(&["10.0.0.1:0", "1.1.1.1:0"]));
        assert_eq!(mixed, Ok(found(&["1.1.1.1:0"]).collect()));
        let refused = keep_allowed(&strict, "n", found(&["10.0.0.1:0"])).unwrap_err();
        assert_eq!(refused.target, "where n leads to");
        assert_eq!(keep_allowed(&strict, "n", found(&[])), Ok(vec![]));
    }
}
