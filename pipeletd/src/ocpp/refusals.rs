//! Handshakes that failed: counted by reason, told in the log, and the latest kept for who asks.
//!
//! A station that is refused comes again and again, so the same failure is logged once a minute,
//! with the number of those that were not. What is the same is said by the reason and the station;
//! where no station is named, by the path; without a path, by the address. Only so many are told
//! apart: whoever comes under ever new names can fill neither the memory nor the disk.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use pipelet_domain::events::StationId;
use pipelet_printable::printable;
use tokio::time::Instant;

use super::{
    connection_stats::ReasonCounts,
    handshake::{self, Asked, HandshakeError},
};

/// Between two lines of the log for the same failure.
const LOG_INTERVAL: Duration = Duration::from_mins(1);
/// So many failures are told apart.
const MAX_KEPT: usize = 256;
/// So many of the latest are shown.
const MAX_SHOWN: usize = 20;
/// Of a path, or of a subprotocol, in characters.
const MAX_TEXT: usize = 300;
const MAX_OFFERED: usize = 8;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Refusals(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    counts: ReasonCounts,
    kept: Mutex<HashMap<Key, Kept>>,
}

/// What makes two failures the same: how they ended, and whose they are.
type Key = (Option<&'static str>, String);

#[derive(Debug)]
struct Kept {
    shown: RefusedHandshake,
    logged: Instant,
    suppressed: u64,
}

/// A handshake that failed.
#[derive(Debug)]
pub(super) struct Failure<'a> {
    /// None where we did not refuse it.
    pub(super) reason: Option<&'static str>,
    pub(super) detail: String,
    pub(super) station: Option<&'a StationId>,
    pub(super) asked: Option<&'a Asked>,
    pub(super) peer: SocketAddr,
}

/// One or more handshakes that were refused, told as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedHandshake {
    /// A word that never changes.
    pub reason: &'static str,
    /// For people.
    pub detail: String,
    pub station: Option<StationId>,
    /// As in the latest request, printable; empty where there was none.
    pub path: String,
    pub subprotocols: Vec<String>,
    /// Where the latest came from.
    pub from: IpAddr,
    pub count: u64,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
}

impl<'a> Failure<'a> {
    pub(super) fn of(error: &'a HandshakeError, peer: SocketAddr) -> Self {
        let (station, asked) = match error {
            HandshakeError::Refused { station, asked, .. } => (station.as_ref(), asked.as_deref()),
            HandshakeError::Io(_)
            | HandshakeError::Tls(_)
            | HandshakeError::Ended
            | HandshakeError::TooLate
            | HandshakeError::CrowdedOut => (None, None),
        };
        Self {
            reason: error.reason(),
            detail: error.to_string(),
            station,
            asked,
            peer,
        }
    }

    fn key(&self) -> Key {
        let subject = match (self.station, self.asked) {
            (Some(station), _) => station.to_string(),
            (None, Some(asked)) => beginning(&asked.path),
            (None, None) => self.peer.ip().to_string(),
        };
        (self.reason, subject)
    }

    fn shown(&self, now: Timestamp) -> RefusedHandshake {
        let path = self.asked.map(|asked| beginning(&asked.path));
        let offered = self.asked.into_iter().flat_map(|asked| &asked.subprotocols);
        RefusedHandshake {
            reason: self.reason.unwrap_or_default(),
            detail: beginning(&self.detail),
            station: self.station.cloned(),
            path: path.unwrap_or_default(),
            subprotocols: offered
                .take(MAX_OFFERED)
                .map(|one| beginning(one))
                .collect(),
            from: self.peer.ip().to_canonical(),
            count: 0,
            first_at: now,
            last_at: now,
        }
    }
}

impl Default for Refusals {
    fn default() -> Self {
        Self(Arc::new(Inner {
            counts: ReasonCounts::new(handshake::REASONS),
            kept: Mutex::default(),
        }))
    }
}

impl Refusals {
    pub(super) fn record(&self, failure: &Failure<'_>, at: Timestamp) {
        if let Some(reason) = failure.reason {
            self.0.counts.count(reason);
        }
        let suppressed = self.keep(failure, at, Instant::now());
        if let Some(suppressed) = suppressed {
            log(failure, suppressed);
        }
    }

    /// How many were not logged before this one is; none where it is not, either.
    fn keep(&self, failure: &Failure<'_>, at: Timestamp, now: Instant) -> Option<u64> {
        let mut kept = self.kept();
        let mut key = failure.key();
        if kept.len() >= MAX_KEPT && !kept.contains_key(&key) {
            let oldest = kept.iter().min_by_key(|(_, kept)| kept.logged);
            let oldest = oldest.map(|(key, kept)| (key.clone(), kept.logged));
            match oldest {
                Some((oldest, logged)) if now.duration_since(logged) >= LOG_INTERVAL => {
                    kept.remove(&oldest);
                }
                // All that come too often to be told apart are told as one.
                Some(_) | None => key = (failure.reason, String::new()),
            }
        }
        let shown = failure.shown(at);
        let Some(same) = kept.get_mut(&key) else {
            let (logged, suppressed) = (now, 0);
            let shown = RefusedHandshake { count: 1, ..shown };
            kept.insert(
                key,
                Kept {
                    shown,
                    logged,
                    suppressed,
                },
            );
            return Some(0);
        };
        same.shown = RefusedHandshake {
            count: same.shown.count + 1,
            first_at: same.shown.first_at,
            ..shown
        };
        if now.duration_since(same.logged) < LOG_INTERVAL {
            same.suppressed += 1;
            return None;
        }
        same.logged = now;
        Some(std::mem::take(&mut same.suppressed))
    }

    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.0.counts.snapshot()
    }

    /// The latest of those that were refused, the last one first.
    pub(super) fn latest(&self) -> Vec<RefusedHandshake> {
        let kept = self.kept();
        let refused = kept.iter().filter(|((reason, _), _)| reason.is_some());
        let mut latest: Vec<_> = refused.map(|(_, kept)| kept.shown.clone()).collect();
        latest.sort_by_key(|refused| std::cmp::Reverse(refused.last_at));
        latest.truncate(MAX_SHOWN);
        latest
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Key, Kept>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log(failure: &Failure<'_>, suppressed: u64) {
    let station = failure.station.map(tracing::field::display);
    let path = failure.asked.map(|asked| beginning(&asked.path));
    let offers = failure.asked.filter(|asked| !asked.subprotocols.is_empty());
    let offered = offers.map(|asked| beginning(&asked.subprotocols.join(", ")));
    let (peer, reason) = (failure.peer, failure.reason.unwrap_or("gone"));
    let suppressed = (suppressed > 0).then_some(suppressed);
    tracing::info!(
        %peer, station, reason, detail = failure.detail, path, offered, suppressed,
        "handshake failed"
    );
}

/// The beginning of a text, with nothing in it that a terminal obeys or hides.
fn beginning(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", printable(&text[..end])),
        None => printable(text).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<'a>(asked: &'a Asked, station: Option<&'a StationId>) -> Failure<'a> {
        Failure {
            reason: Some("not_found"),
            detail: "it is not there".to_owned(),
            station,
            asked: Some(asked),
            peer: SocketAddr::from(([10, 0, 0, 1], 1)),
        }
    }

    fn asked(path: &str) -> Asked {
        Asked {
            path: path.to_owned(),
            subprotocols: vec!["ocpp2.0.1".to_owned(), "a\u{1b}[31m".to_owned()],
        }
    }

    #[test]
    fn the_same_is_logged_once_a_minute() {
        let refusals = Refusals::default();
        let (start, station) = (Instant::now(), StationId::new("CP1").unwrap());
        let after = |secs, path: &str, station| {
            let now = start + Duration::from_secs(secs);
            let at = Timestamp::from_second(i64::try_from(secs).unwrap()).unwrap();
            refusals.keep(&refusal(&asked(path), station), at, now)
        };
        assert_eq!(after(0, "/a", None), Some(0));
        assert_eq!(after(1, "/a", None), None);
        assert_eq!(after(2, "/b", None), Some(0));
        assert_eq!(after(3, "/a", None), None);
        assert_eq!(after(4, "/a", Some(&station)), Some(0));
        assert_eq!(after(5, "/c", Some(&station)), None);
        assert_eq!(after(60, "/a", None), Some(2));
        assert_eq!(after(61, "/a", None), None);
        let latest = refusals.latest();
        let told: Vec<_> = latest
            .iter()
            .map(|of| (of.path.as_str(), of.count))
            .collect();
        assert_eq!(told, [("/a", 5), ("/c", 2), ("/b", 1)]);
        assert_eq!(latest[1].station, Some(station));
        assert_eq!(latest[0].subprotocols, ["ocpp2.0.1", "a\\u{1b}[31m"]);
    }

    #[test]
    fn ever_new_names_are_told_as_one() {
        let refusals = Refusals::default();
        let now = Instant::now();
        let at = Timestamp::UNIX_EPOCH;
        let logged = (0..10_000).filter(|number| {
            let asked = asked(&format!("/{number}"));
            refusals.keep(&refusal(&asked, None), at, now).is_some()
        });
        assert_eq!(logged.count(), MAX_KEPT + 1);
        assert_eq!(refusals.kept().len(), MAX_KEPT + 1);
        let later = now + LOG_INTERVAL;
        let asked = asked("/later");
        assert_eq!(refusals.keep(&refusal(&asked, None), at, later), Some(0));
        assert_eq!(refusals.kept().len(), MAX_KEPT + 1);
    }

    #[test]
    fn what_is_told_is_short_and_harmless() {
        assert_eq!(beginning("/a\u{7}b\u{9b}"), "/a\\u{7}b\\u{9b}");
        assert_eq!(beginning(&"x".repeat(20_000)).chars().count(), MAX_TEXT + 1);
    }
}
