//! What the facts about a daemon mean: findings, each with the next step where there is one.
//!
//! Invariant: pure, `now` included; a level is a word and a mark, never a colour alone. How a
//! delivery failed is told in the daemon's own words, as only an answer's status is a code.

mod cluster;
mod finding;
mod stations;
mod webhooks;

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use pipelet_proto::v1;

pub(crate) use self::{finding::Finding, stations::troubled_stations, webhooks::Hook};
use self::{
    finding::{Level, moment},
    stations::{handshakes, refused_handshake, unstable},
    webhooks::webhooks,
};
use super::time::Time;
use crate::error::{ExitStatus, Report};

/// Clocks that differ by more are worth a look.
const SKEW_WARNING: SignedDuration = SignedDuration::from_secs(5);
/// Receivers refuse signatures that are older (Standard Webhooks).
const SKEW_PROBLEM: SignedDuration = SignedDuration::from_mins(5);
/// Keys and certificates that end sooner want a new one.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

/// What was found out.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) server: String,
    pub(crate) status: v1::GetStatusResponse,
    /// By our clock, before and after the daemon told of its own.
    pub(crate) asked: Timestamp,
    pub(crate) answered: Timestamp,
    pub(crate) webhooks: Vec<Hook>,
    /// Whether there are webhooks that were not looked at.
    pub(crate) more_webhooks: bool,
    /// What an audit finds wrong.
    pub(crate) gaps: Vec<String>,
    /// None where the daemon is no node of one.
    pub(crate) cluster: Option<v1::GetClusterResponse>,
}

/// Everything about a daemon that answered.
pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let status = &facts.status;
    let answers = format!("pipeletd at {} answers", facts.server);
    let mut findings = vec![
        Finding::ok("daemon", answers),
        version(env!("CARGO_PKG_VERSION"), &status.version),
        key(status, facts.answered),
        clock(status.now, facts.asked, facts.answered),
        ready(status),
        disk(status),
    ];
    findings.extend(facts.cluster.iter().flat_map(cluster::cluster));
    findings.extend(certificates(&status.certificates, facts.answered));
    findings.extend(webhooks(
        &facts.webhooks,
        facts.more_webhooks,
        facts.answered,
    ));
    findings.push(books(&facts.gaps));
    findings.push(handshakes(status.handshakes_refused));
    let refused = status.refused_handshakes.iter();
    findings.extend(refused.map(|refused| refused_handshake(refused, facts.answered)));
    let loops = status.unstable_stations.iter();
    findings.extend(loops.map(|station| unstable(station, facts.answered)));
    findings
}

/// What can be said where the daemon told nothing, but for its cluster.
pub(crate) fn unanswered(
    report: &Report,
    reached: bool,
    has_key: bool,
    cluster: Option<&v1::GetClusterResponse>,
) -> Vec<Finding> {
    let refused = |check, code| Finding {
        hint: report.hints.first().cloned(),
        ..Finding::problem(check, code, report.message.clone())
    };
    if report.status == ExitStatus::NotAuthorised {
        return vec![refused("key", "not_authorised")];
    }
    let key = if has_key {
        Finding::ok("key", "there is an API key to show")
    } else {
        Finding::problem("key", "no_key", "there is no API key")
            .hint("set PIPELET_API_KEY, or name a file with --api-key-file")
    };
    let refused = if reached {
        refused("call", "call_failed")
    } else {
        refused("daemon", "unreachable")
    };
    let mut findings = vec![refused, key];
    findings.extend(cluster.into_iter().flat_map(cluster::cluster));
    findings
}

fn version(ours: &str, theirs: &str) -> Finding {
    if ours == theirs {
        return Finding::ok("version", format!("both are {ours}"));
    }
    let message = format!("pipeletctl is {ours}, pipeletd is {theirs}");
    Finding::warning("version", "version_mismatch", message)
        .hint("install the same version of both")
}

fn key(status: &v1::GetStatusResponse, now: Timestamp) -> Finding {
    let may = match status.caller_role.as_str() {
        "" => {
            let message = "the daemon does not tell what the key allows";
            return Finding::warning("key", "role_unknown", message)
                .hint("update pipeletd: an older one can't tell");
        }
        "read-only" => "read-only: it sees everything and changes nothing",
        "operator" => "operator: it changes everything but keys, and takes no backups",
        role => role,
    };
    let Some(end) = moment(status.caller_expires_at) else {
        return Finding::ok("key", format!("{may}; never expires"));
    };
    let left = end.duration_since(now);
    let message = format!("{may}; expires in {}", days(left));
    if left < SOON {
        return Finding::warning("key", "key_expires_soon", message)
            .hint("an admin makes another: `pipeletctl keys create --name NAME --role ROLE`");
    }
    Finding::ok("key", message)
}

/// The daemon looked at its clock somewhere between our two looks at ours.
fn clock(theirs: Option<prost_types::Timestamp>, asked: Timestamp, answered: Timestamp) -> Finding {
    let Some(theirs) = moment(theirs) else {
        return Finding::warning(
            "clock",
            "clock_unknown",
            "the daemon does not tell its time",
        )
        .hint("update pipeletd: an older one can't tell");
    };
    let behind = asked.duration_since(theirs);
    let ahead = theirs.duration_since(answered);
    let (skew, way) = if ahead > behind {
        (ahead, "ahead of")
    } else {
        (behind, "behind")
    };
    if skew < SKEW_WARNING {
        return Finding::ok("clock", "the daemon's clock agrees with ours");
    }
    let level = if skew < SKEW_PROBLEM {
        Level::Warning
    } else {
        Level::Problem
    };
    let message = format!("the daemon's clock is {} s {way} ours", skew.as_secs());
    Finding::new("clock", level, "clock_skew", message)
        .hint("see that both machines set their clocks by NTP (`timedatectl`)")
}

fn ready(status: &v1::GetStatusResponse) -> Finding {
    if status.ready {
        return Finding::ok("ready", "events are taken");
    }
    let message = format!("not ready: {}", status.reasons.join("; "));
    Finding::problem("ready", "not_ready", message)
        .hint("chargers keep what they can't tell meanwhile; the daemon's log says more")
}

/// The daemon judges it, as its metrics and the alerts do.
fn disk(status: &v1::GetStatusResponse) -> Finding {
    let (Some(free), Some(size)) = (status.disk_free_bytes, status.disk_size_bytes) else {
        let message = "the daemon does not tell how much room its disk has";
        return Finding::warning("disk", "disk_unknown", message)
            .hint("look with `df` where the daemon runs");
    };
    let message = format!(
        "{} of {} are free ({} %) for {}, which takes {}",
        bytes(free),
        bytes(size),
        u128::from(free) * 100 / u128::from(size.max(1)),
        status.data_directory,
        bytes(status.data_bytes),
    );
    let finding = match status.disk_state.as_str() {
        "critical" => Finding::problem("disk", "disk_critical", message),
        "low" => Finding::warning("disk", "disk_low", message),
        _ => return Finding::ok("disk", message),
    };
    // Who takes more is the one to look at.
    let others = size.saturating_sub(free).saturating_sub(status.data_bytes);
    finding.hint(if others > status.data_bytes {
        format!(
            "most is taken by something else: `du -xah $(df --output=target {} | tail -n 1) | sort -h | \
             tail` finds it. On a full disk events are refused, though none is lost",
            status.data_directory
        )
    } else {
        "keep less (--retention, --retention-size, `pipeletctl dlq purge`), then `pipeletd compact` \
         while the daemon is stopped. On a full disk events are refused, though none is lost"
            .to_owned()
    })
}

fn certificates(shown: &[v1::CertificateStatus], now: Timestamp) -> Vec<Finding> {
    if shown.is_empty() {
        let message = "none is shown: the daemon speaks no TLS itself";
        return vec![Finding::ok("certificate", message)];
    }
    let one = |shown: &v1::CertificateStatus| {
        let to = &shown.shown_to;
        let Some(end) = moment(shown.expires_at) else {
            let message = format!("the one for {to} does not say when it expires");
            return Finding::warning("certificate", "certificate_unreadable", message)
                .hint("look at it with `openssl x509 -enddate`");
        };
        let left = end.duration_since(now);
        let finding = if left <= SignedDuration::ZERO {
            let message = format!("the one for {to} expired on {}", Time::at(end));
            Finding::problem("certificate", "certificate_expired", message)
        } else {
            let message = format!("the one for {to} expires in {}", days(left));
            if left >= SOON {
                return Finding::ok("certificate", message);
            }
            Finding::warning("certificate", "certificate_expires_soon", message)
        };
        finding.hint("renew the files, then send pipeletd a SIGHUP: it reads them again")
    };
    shown.iter().map(one).collect()
}

fn books(gaps: &[String]) -> Finding {
    let Some(first) = gaps.first() else {
        return Finding::ok("books", "every delivery is accounted for");
    };
    let mut message = first.clone();
    if gaps.len() > 1 {
        let _ = write!(message, "; and {} more", gaps.len() - 1);
    }
    Finding::problem("books", "books_unbalanced", message).hint(
        "`pipeletctl audit` shows all books; this should never be: keep the data directory and the \
         daemon's log, and report it",
    )
}

/// Rounded down.
fn days(left: SignedDuration) -> String {
    match left.as_hours() {
        hours @ 48.. => format!("{} days", hours / 24),
        hours => format!("{hours} h"),
    }
}

fn bytes(count: u64) -> String {
    match count {
        _ if count >= 10 << 30 => format!("{} GiB", count >> 30),
        _ => format!("{} MiB", count >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        finding::tests::{NOW, at, check, wire},
        *,
    };

    #[test]
    fn versions() {
        check(&version("1.0.0", "1.0.0"), Level::Ok, "1.0.0");
        check(
            &version("1.0.0", "1.1.0"),
            Level::Warning,
            "pipeletd is 1.1.0",
        );
    }

    #[test]
    fn keys() {
        for (role, ends, level, words) in [
            ("admin", None, Level::Ok, "admin; never expires"),
            ("read-only", None, Level::Ok, "changes nothing"),
            ("operator", Some(90 * 86400), Level::Ok, "in 90 days"),
            ("admin", Some(13 * 86400), Level::Warning, "in 13 days"),
            ("admin", Some(3 * 3600), Level::Warning, "in 3 h"),
            ("", None, Level::Warning, "does not tell"),
        ] {
            let status = v1::GetStatusResponse {
                caller_role: role.to_owned(),
                caller_expires_at: ends.map(|ends| wire(NOW + ends)),
                ..Default::default()
            };
            check(&key(&status, at(NOW)), level, words);
        }
    }

    #[test]
    fn clocks() {
        for (theirs, level, words) in [
            (Some(0), Level::Ok, "agrees"),
            // The answer took twenty seconds, and its time lies within them.
            (Some(19), Level::Ok, "agrees"),
            (Some(24), Level::Ok, "agrees"),
            (Some(26), Level::Warning, "6 s ahead of ours"),
            (Some(-6), Level::Warning, "6 s behind ours"),
            (Some(-300), Level::Problem, "300 s behind ours"),
            (None, Level::Warning, "does not tell"),
        ] {
            let theirs = theirs.map(|theirs| wire(NOW + theirs));
            check(&clock(theirs, at(NOW), at(NOW + 20)), level, words);
        }
    }

    #[test]
    fn disks() {
        for (free, state, level, words) in [
            (
                Some(50 << 30),
                "ok",
                Level::Ok,
                "50 GiB of 100 GiB are free (50 %)",
            ),
            (Some(1 << 30), "low", Level::Warning, "something else"),
            (
                Some(64 << 20),
                "critical",
                Level::Problem,
                "64 MiB of 100 GiB",
            ),
            (None, "ok", Level::Warning, "does not tell"),
        ] {
            let status = v1::GetStatusResponse {
                disk_free_bytes: free,
                disk_size_bytes: Some(100 << 30),
                disk_state: state.to_owned(),
                data_directory: "/var/lib/pipelet".to_owned(),
                data_bytes: 3 << 30,
                ..Default::default()
            };
            check(&disk(&status), level, words);
        }
    }

    #[test]
    fn certificates_end() {
        for (ends, level, words) in [
            (
                Some(90 * 86400),
                Level::Ok,
                "for stations expires in 90 days",
            ),
            (Some(86400), Level::Warning, "in 24 h"),
            (Some(-1), Level::Problem, "expired on 2026-04-14T12:34:55Z"),
            (None, Level::Warning, "does not say"),
        ] {
            let shown = v1::CertificateStatus {
                shown_to: "stations".to_owned(),
                expires_at: ends.map(|ends| wire(NOW + ends)),
            };
            check(&certificates(&[shown], at(NOW))[0], level, words);
        }
        check(&certificates(&[], at(NOW))[0], Level::Ok, "no TLS");
    }

    #[test]
    fn gaps_in_the_books_are_a_problem() {
        let gaps = ["webhook 7 (W): 3 retries are booked, and 2 kept", "another"];
        let gaps = gaps.map(str::to_owned);
        check(&books(&[]), Level::Ok, "accounted for");
        check(&books(&gaps[..1]), Level::Problem, "and 2 kept\n");
        check(&books(&gaps), Level::Problem, "and 2 kept; and 1 more");
        let facts = Facts {
            gaps: gaps.into(),
            ..Facts::default()
        };
        assert!(judge(&facts).contains(&books(&facts.gaps)));
    }

    #[test]
    fn readiness() {
        let mut status = v1::GetStatusResponse {
            reasons: vec!["the disk is full".to_owned()],
            ..Default::default()
        };
        check(&ready(&status), Level::Problem, "the disk is full");
        status.ready = true;
        check(&ready(&status), Level::Ok, "taken");
    }
}
