//! How many files and sockets the process may have open.
//!
//! Where none is left, neither a station nor the API nor a delivery gets one. So the soft limit,
//! often 1024, is raised as far as it may be, and what there is has shares: whatever the others
//! do, each has its own.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What stations leave for the rest, where the limit is large enough: half of a smaller one, and
/// a quarter of one that is much larger.
const REST: u64 = 2048;
/// What the store and the listeners have open.
const OWN: u64 = 48;
/// Threads for looking names up, each with a socket of its own.
const LOOKUPS: u64 = 256;

/// How many of each there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    pub stations: usize,
    /// Connections to REST, and as many to gRPC.
    pub api: usize,
    pub lookups: usize,
    /// Connections to receivers.
    pub receivers: usize,
}

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

/// What fits under a limit of the stations and API callers that are wanted.
pub fn shares(stations: usize, api: usize, limit: Option<u64>) -> Shares {
    let limit = limit.unwrap_or(u64::MAX);
    let rest = REST.min(limit / 2).max(limit / 4);
    let shares = Shares {
        stations: fitting(stations, limit - rest),
        api: fitting(api, rest / 8),
        lookups: fitting(usize::MAX, LOOKUPS.min(rest / 8)),
        receivers: 0,
    };
    let count = |share: usize| u64::try_from(share).unwrap_or(u64::MAX);
    let own = OWN.max(rest / 8).min(1024);
    let others = [own, count(shares.stations), count(shares.lookups)];
    let others = others.iter().sum::<u64>() + 2 * count(shares.api);
    // Whoever connects to a name with addresses of both families may try two at a time.
    let receivers = fitting(1 << 20, limit.saturating_sub(others) / 2);
    let shares = Shares {
        receivers,
        ..shares
    };
    // Nothing is wrong yet: who finds no place waits, or is refused in words and counted.
    if shares.stations < stations || shares.api < api {
        tracing::info!(
            limit,
            connections = shares.stations,
            wanted = stations,
            api = shares.api,
            receivers,
            "the limit of open files allows fewer connections: raise it (ulimit -n, LimitNOFILE)"
        );
    }
    shares
}

/// At least one.
fn fitting(wanted: usize, room: u64) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    room.clamp(1, wanted.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_share() {
        let check = |limit, expected: [usize; 4]| {
            let [stations, api, lookups, receivers] = expected;
            let expected = Shares {
                stations,
                api,
                lookups,
                receivers,
            };
            assert_eq!(shares(50_000, 256, limit), expected, "{limit:?}");
        };
        check(None, [50_000, 256, 256, 1 << 20]);
        check(Some(1_048_576), [50_000, 256, 256, 498_392]);
        check(Some(20_000), [15_000, 256, 256, 1803]);
        check(Some(4096), [2048, 256, 256, 512]);
        check(Some(1024), [512, 64, 64, 128]);
        check(Some(256), [128, 16, 16, 16]);
        check(Some(0), [1, 1, 1, 1]);
        let few = shares(100, 8, Some(1024));
        assert_eq!((few.stations, few.api, few.receivers), (100, 8, 390));
    }

    #[test]
    fn the_limit_is_raised_as_far_as_it_goes() {
        let hard = getrlimit(Resource::Nofile).maximum;
        assert_eq!(raise(), hard);
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
    }
}
