//! What the facts about a daemon mean: findings, each with the next step where there is one.
//!
//! Invariant: pure, `now` included; a level is a word and a mark, never a colour alone. How a
//! delivery failed is told in the daemon's own words, as only an answer's status is a code.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use pipelet_proto::v1;
use serde::Serialize;

use super::time::Time;
use crate::{
    error::{ExitStatus, Report},
    overview::dead_letters,
    table::printable,
    words::counted,
};

/// Clocks that differ by more are worth a look.
const SKEW_WARNING: SignedDuration = SignedDuration::from_secs(5);
/// Receivers refuse signatures that are older (Standard Webhooks).
const SKEW_PROBLEM: SignedDuration = SignedDuration::from_mins(5);
/// Keys and certificates that end sooner want a new one.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);
/// Free bytes of the disk. The daemon keeps up to 64 MiB back, and refuses events then.
const DISK_PROBLEM: u64 = 128 << 20;
const DISK_WARNING: u64 = 2 << 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warning,
    Problem,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    check: &'static str,
    level: Level,
    message: String,
    hint: Option<String>,
}

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
}

#[derive(Debug, Default)]
pub(crate) struct Hook {
    pub(crate) webhook: v1::Webhook,
    /// The last attempt of a delivery that failed.
    pub(crate) last_failure: Option<v1::Attempt>,
    pub(crate) last_delivery: Option<v1::Attempt>,
    /// Whether these were asked for.
    pub(crate) looked: bool,
}

impl Hook {
    pub(crate) fn new(webhook: v1::Webhook) -> Self {
        Self {
            webhook,
            ..Self::default()
        }
    }

    /// The status of the deliveries that show why it fails, where it does.
    pub(crate) fn status_of_failures(&self) -> Option<&'static str> {
        let stats = self.webhook.stats.unwrap_or_default();
        match (stats.retrying, dead_letters(&stats)) {
            (0, 0) => None,
            (0, _) => Some("dead"),
            (_, _) => Some("pending"),
        }
    }

    /// Whether the latest that is known of it is a failure.
    fn fails(&self) -> bool {
        let stats = self.webhook.stats.unwrap_or_default();
        if !self.webhook.enabled || stats.retrying == 0 && dead_letters(&stats) == 0 {
            return false;
        }
        // What a backfill sends again waits for its first attempt, and has not failed.
        let Some(last) = &self.last_failure else {
            return stats.retrying > 0 && !self.looked;
        };
        let at = |attempt: &v1::Attempt| moment(attempt.at);
        self.last_delivery
            .as_ref()
            .is_none_or(|delivery| at(last) > at(delivery))
    }
}

impl Finding {
    pub(crate) const fn is_problem(&self) -> bool {
        matches!(self.level, Level::Problem)
    }

    fn new(check: &'static str, level: Level, message: impl Into<String>) -> Self {
        Self {
            check,
            level,
            message: message.into(),
            hint: None,
        }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

impl Finding {
    /// For people: what was found, and below it what to do.
    pub(crate) fn lines(&self) -> String {
        let (mark, level) = match self.level {
            Level::Ok => ('✓', "ok"),
            Level::Warning => ('!', "warning"),
            Level::Problem => ('✗', "problem"),
        };
        let message = printable(&self.message);
        let mut lines = format!("{mark} {level:<7}  {:<12}  {message}", self.check);
        if let Some(hint) = &self.hint {
            let hint = printable(hint);
            let _ = write!(lines, "\n{:25}→ {hint}", "");
        }
        lines
    }
}

/// Everything about a daemon that answered.
pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let status = &facts.status;
    let answers = format!("pipeletd at {} answers", facts.server);
    let mut findings = vec![
        Finding::new("daemon", Level::Ok, answers),
        version(env!("CARGO_PKG_VERSION"), &status.version),
        key(status, facts.answered),
        clock(status.now, facts.asked, facts.answered),
        ready(status),
        disk(status.disk_free_bytes, status.disk_size_bytes),
    ];
    findings.extend(certificates(&status.certificates, facts.answered));
    findings.extend(webhooks(&facts.webhooks, facts.more_webhooks));
    findings.push(books(&facts.gaps));
    findings.push(handshakes(status.handshakes_refused));
    let refused = status.refused_handshakes.iter();
    findings.extend(refused.map(|refused| refused_handshake(refused, facts.answered)));
    findings
}

/// What can be said where the daemon told nothing.
pub(crate) fn unanswered(report: &Report, reached: bool, has_key: bool) -> Vec<Finding> {
    let refused = |check| Finding {
        check,
        level: Level::Problem,
        message: report.message.clone(),
        hint: report.hints.first().cloned(),
    };
    if report.status == ExitStatus::NotAuthorised {
        return vec![refused("key")];
    }
    let key = if has_key {
        Finding::new("key", Level::Ok, "there is an API key to show")
    } else {
        Finding::new("key", Level::Problem, "there is no API key")
            .hint("set PIPELET_API_KEY, or name a file with --api-key-file")
    };
    vec![refused(if reached { "call" } else { "daemon" }), key]
}

fn version(ours: &str, theirs: &str) -> Finding {
    if ours == theirs {
        return Finding::new("version", Level::Ok, format!("both are {ours}"));
    }
    let message = format!("pipeletctl is {ours}, pipeletd is {theirs}");
    Finding::new("version", Level::Warning, message).hint("install the same version of both")
}

fn key(status: &v1::GetStatusResponse, now: Timestamp) -> Finding {
    let may = match status.caller_role.as_str() {
        "" => {
            let message = "the daemon does not tell what the key allows";
            return Finding::new("key", Level::Warning, message)
                .hint("update pipeletd: an older one can't tell");
        }
        "read-only" => "read-only: it sees everything and changes nothing",
        "operator" => "operator: it changes everything but keys, and takes no backups",
        role => role,
    };
    let Some(end) = moment(status.caller_expires_at) else {
        return Finding::new("key", Level::Ok, format!("{may}; never expires"));
    };
    let left = end.duration_since(now);
    let message = format!("{may}; expires in {}", days(left));
    if left < SOON {
        return Finding::new("key", Level::Warning, message)
            .hint("an admin makes another: `pipeletctl keys create --name NAME --role ROLE`");
    }
    Finding::new("key", Level::Ok, message)
}

/// The daemon looked at its clock somewhere between our two looks at ours.
fn clock(theirs: Option<prost_types::Timestamp>, asked: Timestamp, answered: Timestamp) -> Finding {
    let Some(theirs) = moment(theirs) else {
        return Finding::new("clock", Level::Warning, "the daemon does not tell its time")
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
        return Finding::new("clock", Level::Ok, "the daemon's clock agrees with ours");
    }
    let level = if skew < SKEW_PROBLEM {
        Level::Warning
    } else {
        Level::Problem
    };
    let message = format!("the daemon's clock is {} s {way} ours", skew.as_secs());
    Finding::new("clock", level, message)
        .hint("see that both machines set their clocks by NTP (`timedatectl`)")
}

fn ready(status: &v1::GetStatusResponse) -> Finding {
    if status.ready {
        return Finding::new("ready", Level::Ok, "events are taken");
    }
    let message = format!("not ready: {}", status.reasons.join("; "));
    Finding::new("ready", Level::Problem, message)
        .hint("chargers keep what they can't tell meanwhile; the daemon's log says more")
}

fn disk(free: Option<u64>, size: Option<u64>) -> Finding {
    let (Some(free), Some(size)) = (free, size) else {
        let message = "the daemon does not tell how much room its disk has";
        return Finding::new("disk", Level::Warning, message)
            .hint("look with `df` where the daemon runs");
    };
    let message = format!(
        "{} of {} are free for the data directory",
        bytes(free),
        bytes(size)
    );
    let level = match free {
        _ if free < DISK_PROBLEM => Level::Problem,
        _ if free < DISK_WARNING => Level::Warning,
        _ => return Finding::new("disk", Level::Ok, message),
    };
    Finding::new("disk", level, message)
        .hint("make room: on a full disk events are refused, though none is lost")
}

fn certificates(shown: &[v1::CertificateStatus], now: Timestamp) -> Vec<Finding> {
    if shown.is_empty() {
        let message = "none is shown: the daemon speaks no TLS itself";
        return vec![Finding::new("certificate", Level::Ok, message)];
    }
    let one = |shown: &v1::CertificateStatus| {
        let to = &shown.shown_to;
        let Some(end) = moment(shown.expires_at) else {
            let message = format!("the one for {to} does not say when it expires");
            return Finding::new("certificate", Level::Warning, message)
                .hint("look at it with `openssl x509 -enddate`");
        };
        let left = end.duration_since(now);
        let (level, message) = if left <= SignedDuration::ZERO {
            (Level::Problem, format!("the one for {to} has expired"))
        } else {
            let level = if left < SOON {
                Level::Warning
            } else {
                Level::Ok
            };
            (level, format!("the one for {to} expires in {}", days(left)))
        };
        let finding = Finding::new("certificate", level, message);
        if level == Level::Ok {
            return finding;
        }
        finding.hint("renew the files, then send pipeletd a SIGHUP: it reads them again")
    };
    shown.iter().map(one).collect()
}

fn webhooks(hooks: &[Hook], more: bool) -> Vec<Finding> {
    let mut findings: Vec<_> = hooks.iter().flat_map(webhook).collect();
    if findings.is_empty() {
        let message = match hooks.len() {
            0 => "there are none".to_owned(),
            count => format!("no failures ({count} looked at)"),
        };
        findings.push(Finding::new("webhooks", Level::Ok, message));
    }
    if more {
        let message = format!("only the first {} were looked at", hooks.len());
        findings.push(
            Finding::new("webhooks", Level::Warning, message)
                .hint("`pipeletctl webhooks list` shows them all"),
        );
    }
    findings
}

fn webhook(hook: &Hook) -> Vec<Finding> {
    let Hook {
        webhook,
        last_failure,
        ..
    } = hook;
    let v1::Webhook {
        id, name, enabled, ..
    } = webhook;
    let stats = webhook.stats.unwrap_or_default();
    let mut findings = Vec::new();
    if !enabled && stats.pending > 0 {
        let deliveries = counted(stats.pending, "delivery waits", "deliveries wait");
        let message = format!("webhook {id} ({name}) is disabled, and {deliveries}");
        findings.push(
            Finding::new("webhooks", Level::Warning, message).hint(format!(
                "`pipeletctl webhooks enable {id}` lets them go out"
            )),
        );
    }
    if hook.fails() {
        let (why, mut hint) = why(webhook, last_failure.as_ref());
        let mut message = format!("webhook {id} ({name}) fails: {why}");
        if stats.retrying > 0 {
            let deliveries = counted(stats.retrying, "delivery waits", "deliveries wait");
            let _ = write!(message, "; {deliveries} to be tried again");
            let _ = write!(hint, ", and `webhooks retry {id}`");
        }
        findings.push(Finding::new("webhooks", Level::Problem, message).hint(hint));
    } else if *enabled && let (1.., Some(last)) = (stats.retrying, last_failure) {
        let (why, _) = why(webhook, Some(last));
        let deliveries = counted(stats.retrying, "delivery waits", "deliveries wait");
        let message = format!(
            "webhook {id} ({name}) takes deliveries; {deliveries} to be tried again, the last \
             failure was: {why}"
        );
        let hint = format!("`pipeletctl webhooks retry {id}` sends them now");
        findings.push(Finding::new("webhooks", Level::Warning, message).hint(hint));
    }
    let dead = dead_letters(&stats);
    if dead > 0 {
        let letters = counted(dead, "dead letter", "dead letters");
        let mut message = format!("webhook {id} ({name}) has {letters}");
        // Otherwise the failures were told already, or are another's.
        if let Some(last) = last_failure.as_ref().filter(|_| !hook.fails()) {
            let (why, _) = why(webhook, Some(last));
            let _ = write!(message, "; the latest: {why}");
        }
        findings.push(
            Finding::new("dead letters", Level::Warning, message).hint(format!(
                "`pipeletctl dlq list --webhook {id}` shows them; `dlq replay --webhook {id}` sends \
                 them again{}",
                if hook.fails() {
                    ", once it takes them"
                } else {
                    ""
                }
            )),
        );
    }
    findings
}

fn books(gaps: &[String]) -> Finding {
    let Some(first) = gaps.first() else {
        return Finding::new("books", Level::Ok, "every delivery is accounted for");
    };
    let mut message = first.clone();
    if gaps.len() > 1 {
        let _ = write!(message, "; and {} more", gaps.len() - 1);
    }
    Finding::new("books", Level::Problem, message).hint(
        "`pipeletctl audit` shows all books; this should never be: keep the data directory and the \
         daemon's log, and report it",
    )
}

/// Why deliveries fail, and what to do about it.
fn why(webhook: &v1::Webhook, last: Option<&v1::Attempt>) -> (String, String) {
    let test = format!("then `pipeletctl webhooks test {}`", webhook.id);
    let Some(last) = last else {
        let hint = format!("`pipeletctl webhooks deliveries {}` says why", webhook.id);
        return (
            "it refuses deliveries, or can't be reached".to_owned(),
            hint,
        );
    };
    let Some(status) = last.status_code else {
        let error = last.error.clone();
        let hint = format!(
            "see that {} can be reached from where the daemon runs; {test}",
            webhook.url
        );
        return (error.unwrap_or_else(|| "no answer".to_owned()), hint);
    };
    let signed = webhook.has_signing_secret;
    let hint = match (status, webhook.secret_header.as_deref()) {
        (401 | 403, None) if signed => {
            "compare the signing secret with the receiver's (webhooks rotate-secret makes a new one)"
                .to_owned()
        }
        (401 | 403, Some(header)) if signed => format!(
            "compare the header's name ({header}), the secret's value and the signing secret with \
             the receiver's"
        ),
        (401 | 403, Some(header)) => format!(
            "compare the header's name ({header}) and the secret's value with the receiver's"
        ),
        (401 | 403, None) => {
            "it has no secret: give it the header and the value that the receiver wants (webhooks \
             update --secret-header --secret-value-file)"
                .to_owned()
        }
        (404 | 405, _) => "check the path of its URL, and that it takes POST".to_owned(),
        (300..=399, _) => "redirects are not followed: give it the final URL".to_owned(),
        (429, _) => "the receiver wants to be asked less often; see its limits".to_owned(),
        (500..=599, _) => "the receiver's own log says why".to_owned(),
        (_, _) => "see the receiver's documentation and log".to_owned(),
    };
    (
        format!("the receiver answers {status}"),
        format!("{hint}; {test}"),
    )
}

fn handshakes(refused: u64) -> Finding {
    if refused == 0 {
        return Finding::new("stations", Level::Ok, "no handshake was refused");
    }
    let message = format!("handshakes refused since the start: {refused}");
    Finding::new("stations", Level::Warning, message)
        .hint("`pipeletctl stations list` shows who is registered; the latest refusals follow")
}

fn refused_handshake(refused: &v1::RefusedHandshake, now: Timestamp) -> Finding {
    let station = refused.station_id.as_deref();
    let who = match (station, refused.path.as_str()) {
        (Some(station), path) => format!("{station} at {path}"),
        (None, "") => "no request".to_owned(),
        (None, path) => path.to_owned(),
    };
    let mut message = format!(
        "{} from {}: {}",
        who, refused.remote_address, refused.detail
    );
    if !refused.subprotocols.is_empty() {
        let _ = write!(message, "; offered: {}", refused.subprotocols.join(", "));
    }
    let _ = write!(message, " ({} times", refused.count);
    if let Some(last) = moment(refused.last_at) {
        let _ = write!(message, ", last {}", ago(now.duration_since(last)));
    }
    message.push(')');
    let finding = Finding::new("stations", Level::Warning, message);
    match refused.reason.as_str() {
        "no_common_subprotocol" => finding.hint("set the charger to OCPP 1.6J (JSON)"),
        "bad_station_id" | "not_found" => {
            finding.hint("the charger's URL is ws://HOST:PORT/ocpp/ and its id")
        }
        "not_registered" => finding.hint("`pipeletctl stations add` registers it"),
        "no_credentials" | "wrong_credentials" | "wrong_security_profile" => {
            finding.hint("`pipeletctl stations set` changes what is asked of it")
        }
        _ => finding,
    }
}

fn ago(since: SignedDuration) -> String {
    match since.as_secs() {
        ..60 => "just now".to_owned(),
        secs @ ..3600 => format!("{} min ago", secs / 60),
        secs @ ..172_800 => format!("{} h ago", secs / 3600),
        secs => format!("{} days ago", secs / 86_400),
    }
}

fn moment(wire: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    Time::from_wire(wire).map(Time::moment)
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
    use super::*;

    const NOW: i64 = 1_776_170_096;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn wire(seconds: i64) -> prost_types::Timestamp {
        prost_types::Timestamp { seconds, nanos: 0 }
    }

    /// The level is as expected, the words are in it, and what is not well has a next step.
    fn check(finding: &Finding, level: Level, words: &str) {
        assert_eq!(finding.level, level, "{finding:?}");
        let text = finding.lines();
        assert!(text.contains(words), "{words:?} is not in {text:?}");
        assert_eq!(finding.hint.is_some(), level != Level::Ok, "{finding:?}");
    }

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
        for (free, level, words) in [
            (Some(50 << 30), Level::Ok, "50 GiB of 100 GiB"),
            (Some(1 << 30), Level::Warning, "1024 MiB of 100 GiB"),
            (Some(64 << 20), Level::Problem, "64 MiB of 100 GiB"),
            (None, Level::Warning, "does not tell"),
        ] {
            check(&disk(free, Some(100 << 30)), level, words);
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
            (Some(-1), Level::Problem, "has expired"),
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
    fn readiness_and_handshakes() {
        let mut status = v1::GetStatusResponse {
            reasons: vec!["the disk is full".to_owned()],
            ..Default::default()
        };
        check(&ready(&status), Level::Problem, "the disk is full");
        status.ready = true;
        check(&ready(&status), Level::Ok, "taken");
        check(&handshakes(0), Level::Ok, "no handshake");
        check(&handshakes(3), Level::Warning, ": 3");
        let now = Timestamp::from_second(1_000_000).unwrap();
        let mut refused = v1::RefusedHandshake {
            reason: "no_common_subprotocol".to_owned(),
            detail: "another one is spoken".to_owned(),
            station_id: Some("CP1".to_owned()),
            path: "/ocpp/CP1".to_owned(),
            subprotocols: vec!["ocpp2.0.1".to_owned(), "ocpp2.1".to_owned()],
            remote_address: "10.0.0.7".to_owned(),
            count: 3,
            last_at: Some(prost_types::Timestamp {
                seconds: 1_000_000 - 300,
                nanos: 0,
            }),
        };
        let expected = "CP1 at /ocpp/CP1 from 10.0.0.7: another one is spoken; \
                        offered: ocpp2.0.1, ocpp2.1 (3 times, last 5 min ago)";
        check(&refused_handshake(&refused, now), Level::Warning, expected);
        refused.station_id = None;
        refused.path.clear();
        refused.subprotocols.clear();
        let expected = "no request from 10.0.0.7: another one is spoken (3 times";
        check(&refused_handshake(&refused, now), Level::Warning, expected);
    }

    #[test]
    fn a_signed_webhook_that_is_refused_is_told_of_its_signature() {
        for header in [None, Some("X-Secret")] {
            let webhook = v1::Webhook {
                secret_header: header.map(str::to_owned),
                has_signing_secret: true,
                ..v1::Webhook::default()
            };
            let last = v1::Attempt {
                status_code: Some(401),
                ..v1::Attempt::default()
            };
            let (_, hint) = why(&webhook, Some(&last));
            assert!(hint.contains("signing secret"), "{hint}");
            assert_eq!(hint.contains("X-Secret"), header.is_some(), "{hint}");
        }
    }

    #[test]
    fn failing_webhooks_are_told_why() {
        for (header, status, error, words) in [
            (
                Some("X-Secret"),
                Some(401),
                None,
                "header's name (X-Secret)",
            ),
            (None, Some(403), None, "it has no secret"),
            (None, Some(404), None, "the path of its URL"),
            (None, Some(307), None, "redirects"),
            (None, Some(503), None, "answers 503"),
            (
                None,
                None,
                Some("no answer within 10s"),
                "no answer within 10s",
            ),
            (
                None,
                None,
                Some("TLS failed: expired"),
                "TLS failed: expired",
            ),
            (
                None,
                None,
                Some("connection refused"),
                "can be reached from",
            ),
        ] {
            let hook = Hook {
                webhook: v1::Webhook {
                    id: 7,
                    enabled: true,
                    secret_header: header.map(str::to_owned),
                    stats: Some(v1::WebhookStats {
                        retrying: 2,
                        pending: 2,
                        ..Default::default()
                    }),
                    ..Default::default()
                },
                last_failure: Some(v1::Attempt {
                    status_code: status,
                    error: error.map(str::to_owned),
                    ..Default::default()
                }),
                ..Hook::default()
            };
            let findings = webhooks(&[hook], false);
            assert_eq!(findings.len(), 1, "{findings:?}");
            check(&findings[0], Level::Problem, words);
        }
    }

    #[test]
    fn backlogs_and_dead_letters_are_warned_of() {
        for (enabled, pending, dead, expected) in [
            (true, 5, 0, (Level::Ok, "no failures")),
            (false, 0, 0, (Level::Ok, "no failures")),
            (false, 5, 0, (Level::Warning, "webhooks enable 7")),
            (true, 0, 3, (Level::Warning, "3 dead letters")),
            (true, 0, 1, (Level::Warning, "1 dead letter")),
        ] {
            let stats = v1::WebhookStats {
                pending,
                dead,
                ..Default::default()
            };
            let webhook = v1::Webhook {
                id: 7,
                enabled,
                stats: Some(stats),
                ..Default::default()
            };
            check(
                &webhooks(&[Hook::new(webhook)], false)[0],
                expected.0,
                expected.1,
            );
        }
        let more = webhooks(&[Hook::default()], true);
        check(&more[1], Level::Warning, "only the first 1");
    }

    /// With few attempts nothing waits for a retry, though nothing is taken.
    #[test]
    fn one_that_takes_nothing_fails_though_nothing_waits() {
        let attempt = |at| {
            Some(v1::Attempt {
                at: Some(wire(at)),
                status_code: Some(503),
                ..v1::Attempt::default()
            })
        };
        for (delivered, fails) in [(None, true), (Some(NOW - 1), true), (Some(NOW + 1), false)] {
            let hook = Hook {
                webhook: v1::Webhook {
                    enabled: true,
                    stats: Some(v1::WebhookStats {
                        dead: 2,
                        ..v1::WebhookStats::default()
                    }),
                    ..v1::Webhook::default()
                },
                last_failure: attempt(NOW),
                last_delivery: delivered.and_then(attempt),
                looked: true,
            };
            let findings = webhooks(&[hook], false);
            let problem = findings.iter().find(|finding| finding.is_problem());
            assert_eq!(problem.is_some(), fails, "{findings:?}");
            let letters = findings.last().unwrap();
            check(letters, Level::Warning, "2 dead letters");
        }
    }

    /// What is sent again by a backfill has not failed; what is mended fails no more.
    #[test]
    fn one_that_takes_deliveries_is_no_problem_though_some_wait() {
        let attempt = |at| v1::Attempt {
            at: Some(wire(at)),
            status_code: Some(503),
            ..v1::Attempt::default()
        };
        for (failure, delivery, level) in [
            (None, None, Level::Ok),
            (Some(NOW), Some(NOW + 1), Level::Warning),
            (Some(NOW), Some(NOW - 1), Level::Problem),
            (Some(NOW), None, Level::Problem),
        ] {
            let hook = Hook {
                webhook: v1::Webhook {
                    enabled: true,
                    stats: Some(v1::WebhookStats {
                        pending: 3,
                        retrying: 3,
                        ..v1::WebhookStats::default()
                    }),
                    ..v1::Webhook::default()
                },
                last_failure: failure.map(attempt),
                last_delivery: delivery.map(attempt),
                looked: true,
            };
            let findings = webhooks(&[hook], false);
            assert_eq!(findings[0].level, level, "{findings:?}");
        }
    }
}
