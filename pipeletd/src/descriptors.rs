//! How many files and sockets the process may have open.
//!
//! A station holds a descriptor for as long as it is connected, and where none is left neither
//! the API nor a delivery gets one. So the soft limit, often 1024, is raised as far as it may be,
//! and stations get what the rest of the daemon does not need.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is kept for the API, the deliveries and the store, where the limit is large.
const KEPT: u64 = 1024;

/// Raises the soft limit to the hard one, and returns what holds; none where nothing does.
pub fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, limit = limit.current, "the limit of open files stays");
            limit.current
        }
    }
}

/// How many of the connections that are wanted fit under a limit.
pub fn connections(wanted: usize, limit: Option<u64>) -> usize {
    let Some(limit) = limit else {
        return wanted;
    };
    let room = limit - KEPT.min(limit / 2);
    let fit = usize::try_from(room).unwrap_or(usize::MAX).max(1);
    // Nothing is wrong yet: a handshake that finds no place is refused in words, and counted.
    if fit < wanted {
        tracing::info!(
            limit,
            connections = fit,
            wanted,
            "the limit of open files allows fewer connections: raise it (ulimit -n, LimitNOFILE)"
        );
    }
    fit.min(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stations_leave_something_for_the_rest() {
        let check = |wanted, limit, expected| assert_eq!(connections(wanted, limit), expected);
        check(50_000, None, 50_000);
        check(50_000, Some(1_048_576), 50_000);
        check(50_000, Some(20_000), 18_976);
        check(50_000, Some(1_024), 512);
        check(100, Some(1_024), 100);
        check(50_000, Some(0), 1);
        check(50_000, Some(u64::MAX), 50_000);
    }

    #[test]
    fn the_limit_is_raised_as_far_as_it_goes() {
        let hard = getrlimit(Resource::Nofile).maximum;
        assert_eq!(raise(), hard);
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
    }
}
