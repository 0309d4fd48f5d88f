//! What the facts about a daemon mean: findings, each with the next step where there is one.
//!
//! Invariant: pure, `now` included; a level is a word and a mark, never a colour alone. How a
//! delivery failed is told in the daemon's own words, as only an answer's status is a code.

use std::{borrow::Cow, fmt::Write as _};

use jiff::{SignedDuration, Timestamp};
use pipelet_proto::v1;
use serde::Serialize;

use super::{advice::advice, time::Time};
use crate::{
    error::{ExitStatus, Report},
    overview::dead_letters,
    table::{printable, wrapped},
    words::counted,
};

/// Clocks that differ by more are worth a look.
const SKEW_WARNING: SignedDuration = SignedDuration::from_secs(5);
/// Receivers refuse signatures that are older (Standard Webhooks).
const SKEW_PROBLEM: SignedDuration = SignedDuration::from_mins(5);
/// Keys and certificates that end sooner want a new one.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

/// A handshake that was refused longer ago keeps nobody out now.
const LATELY: SignedDuration = SignedDuration::from_mins(10);

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
    /// A word that never changes; what it is about follows.
    code: Cow<'static, str>,
    webhook_id: Option<u64>,
    station_id: Option<String>,
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

    fn state(&self) -> &str {
        let health = self.webhook.health.as_ref();
        health.map_or("", |health| &health.state)
    }
}

impl Finding {
    pub(crate) const fn is_problem(&self) -> bool {
        matches!(self.level, Level::Problem)
    }

    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Level::Ok, "ok", message)
    }

    fn warning(check: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Level::Warning, code, message)
    }

    fn problem(check: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Level::Problem, code, message)
    }

    fn new(
        check: &'static str,
        level: Level,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            check,
            level,
            code: code.into(),
            webhook_id: None,
            station_id: None,
            message: message.into(),
            hint: None,
        }
    }

    fn of_webhook(self, webhook: &v1::Webhook) -> Self {
        Self {
            webhook_id: Some(webhook.id),
            ..self
        }
    }

    fn of_station(self, id: Option<&str>) -> Self {
        Self {
            station_id: id.map(str::to_owned),
            ..self
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
    /// For people: what was found, and below it what to do. Words are not broken at this width.
    pub(crate) fn lines(&self, width: usize) -> String {
        let (mark, level) = match self.level {
            Level::Ok => ('✓', "ok"),
            Level::Warning => ('!', "warning"),
            Level::Problem => ('✗', "problem"),
        };
        let message = wrapped(&printable(&self.message), width, 25);
        let mut lines = format!("{mark} {level:<7}  {:<12}  {message}", self.check);
        if let Some(hint) = &self.hint {
            let hint = wrapped(&printable(hint), width, 27);
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
        Finding::ok("daemon", answers),
        version(env!("CARGO_PKG_VERSION"), &status.version),
        key(status, facts.answered),
        clock(status.now, facts.asked, facts.answered),
        ready(status),
        disk(status),
    ];
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

/// What can be said where the daemon told nothing.
pub(crate) fn unanswered(report: &Report, reached: bool, has_key: bool) -> Vec<Finding> {
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
    vec![refused, key]
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

fn webhooks(hooks: &[Hook], more: bool, now: Timestamp) -> Vec<Finding> {
    let mut findings: Vec<_> = hooks.iter().flat_map(|hook| webhook(hook, now)).collect();
    if findings.is_empty() {
        let message = match hooks.len() {
            0 => "there are none".to_owned(),
            count => format!("no failures ({count} looked at)"),
        };
        findings.push(Finding::ok("webhooks", message));
    }
    if more {
        let message = format!("only the first {} were looked at", hooks.len());
        findings.push(
            Finding::warning("webhooks", "not_all_looked_at", message)
                .hint("`pipeletctl webhooks list --all` shows them all"),
        );
    }
    findings
}

fn webhook(hook: &Hook, now: Timestamp) -> Vec<Finding> {
    let Hook {
        webhook,
        last_failure,
    } = hook;
    let v1::Webhook { id, name, .. } = webhook;
    let stats = webhook.stats.unwrap_or_default();
    let health = webhook.health.clone().unwrap_or_default();
    let since = since(health.since, now);
    let waiting = (stats.retrying > 0).then(|| {
        let deliveries = counted(stats.retrying, "delivery waits", "deliveries wait");
        format!("{deliveries} to be tried again")
    });
    let (why, mut hint) = why(webhook, last_failure.as_ref());
    let last_success = match moment(health.last_success_at) {
        Some(at) => format!("; the last success was {}", ago(now.duration_since(at))),
        None => "; it had no success since the daemon's start".to_owned(),
    };
    let mut findings = Vec::new();
    match hook.state() {
        "disabled" if stats.pending > 0 => {
            let deliveries = counted(stats.pending, "delivery waits", "deliveries wait");
            let message = format!("webhook {id} ({name}) is disabled, and {deliveries}");
            let hint = format!("`pipeletctl webhooks enable {id}` lets them go out");
            let finding = Finding::warning("webhooks", "webhook_disabled", message);
            findings.push(finding.hint(hint));
        }
        "failing" | "flapping" => {
            let (code, does) = match hook.state() {
                "failing" => ("webhook_failing", "fails"),
                _ => ("webhook_flapping", "fails and works by turns"),
            };
            let mut message = format!("webhook {id} ({name}) {does}{since}: {why}{last_success}");
            if let Some(waiting) = waiting {
                let _ = write!(message, "; {waiting}");
                let _ = write!(hint, ", and `pipeletctl webhooks retry {id}`");
            }
            let is_owed = stats.pending > 0 || dead_letters(&stats) > 0;
            let level = if is_owed {
                Level::Problem
            } else {
                // What failed was purged.
                Level::Warning
            };
            findings.push(Finding::new("webhooks", level, code, message).hint(hint));
        }
        "lagging" => {
            let message = format!(
                "webhook {id} ({name}) lags: its oldest event waits{since}, of {}",
                counted(stats.pending, "that is owed", "that are owed"),
            );
            let hint = format!(
                "its receiver is too slow for what comes (`pipeletctl webhooks stats {id}` says how \
                 slow): answer first and work later, or subscribe to less"
            );
            let finding = Finding::warning("webhooks", "webhook_lagging", message);
            findings.push(finding.hint(hint));
        }
        _ => {
            if let (Some(waiting), Some(_)) = (waiting, last_failure) {
                let message = format!(
                    "webhook {id} ({name}) takes deliveries; {waiting}, the last failure was: {why}"
                );
                let hint = format!("`pipeletctl webhooks retry {id}` sends them now");
                let finding = Finding::warning("webhooks", "retries_waiting", message);
                findings.push(finding.hint(hint));
            }
        }
    }
    let dead = dead_letters(&stats);
    if dead > 0 {
        let is_failing = matches!(hook.state(), "failing" | "flapping");
        let letters = counted(dead, "dead letter", "dead letters");
        let mut message = format!("webhook {id} ({name}) has {letters}");
        // Otherwise the failures were told already, or are another's.
        if last_failure.is_some() && !is_failing {
            let _ = write!(message, "; the latest: {why}");
        }
        let once = if is_failing {
            ", once it takes them"
        } else {
            ""
        };
        let hint = format!(
            "`pipeletctl dlq list --webhook {id}` shows them; `pipeletctl dlq replay --webhook {id} \
             --canary --rate 50/s` sends them again{once}"
        );
        findings.push(Finding::warning("dead letters", "dead_letters", message).hint(hint));
    }
    let findings = findings.into_iter();
    findings.map(|it| it.of_webhook(webhook)).collect()
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

/// Why deliveries fail, and what to do about it.
fn why(webhook: &v1::Webhook, last: Option<&v1::Attempt>) -> (String, String) {
    let test = format!("then `pipeletctl webhooks test {}`", webhook.id);
    let Some(last) = last else {
        let health = webhook.health.as_ref();
        let code = health.and_then(|health| health.last_failure_code.as_deref());
        let status = code.and_then(|code| code.strip_prefix("http_")?.parse().ok());
        return match code {
            Some(code) => (
                format!("the last failure was {code}"),
                format!("{}; {test}", advice(webhook, status, Some(code))),
            ),
            None => (
                "it refuses deliveries, or can't be reached".to_owned(),
                format!("`pipeletctl webhooks deliveries {}` says why", webhook.id),
            ),
        };
    };
    let what = match (&last.error, last.status_code) {
        (Some(error), _) => error.clone(),
        (None, Some(status)) => format!("the receiver answers {status}"),
        (None, None) => "no answer".to_owned(),
    };
    let hint = advice(webhook, last.status_code, last.code.as_deref());
    (what, format!("{hint}; {test}"))
}

fn handshakes(refused: u64) -> Finding {
    if refused == 0 {
        return Finding::ok("stations", "no handshake was refused");
    }
    let message = format!("handshakes refused since the start: {refused}");
    Finding::warning("stations", "handshakes_refused", message)
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
    let _ = write!(message, " ({}", counted(refused.count, "time", "times"));
    if refused.count > 1 {
        message.push_str(&since(refused.first_at, now));
    }
    if let Some(last) = moment(refused.last_at) {
        let _ = write!(message, ", last {}", ago(now.duration_since(last)));
    }
    message.push(')');
    let finding = Finding {
        code: refused.reason.clone().into(),
        ..Finding::warning("stations", "handshakes_refused", message).of_station(station)
    };
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

fn unstable(unstable: &v1::UnstableStation, now: Timestamp) -> Finding {
    let id = &unstable.station_id;
    let (code, what) = match unstable.reason.as_str() {
        "boot_loop" => ("boot_loop", "boots again and again"),
        _ => ("reconnect_loop", "connects again and again"),
    };
    let ended = unstable.last_end_reason.as_deref();
    let hint = match (code, ended) {
        ("boot_loop", _) => "look at its power supply and firmware",
        (_, Some("closed_by_station")) => {
            "the station closes it: look at its settings and firmware"
        }
        (_, Some("replaced")) => {
            "it dials anew beside a connection that holds, or two have this id"
        }
        (_, _) => "look at its network",
    };
    let since = since(unstable.since, now);
    let mut message = format!("{id} {what}: {} times{since}", unstable.count);
    if let Some(ended) = ended {
        let _ = write!(message, "; the last connection ended: {ended}");
    }
    let finding = Finding::warning("stations", code, message).of_station(Some(id));
    finding.hint(format!(
        "{hint}; `pipeletctl events list --station {id}` shows what it sends"
    ))
}

/// Since when, and how long that is; nothing where that is not known.
fn since(wire: Option<prost_types::Timestamp>, now: Timestamp) -> String {
    let Some(at) = moment(wire) else {
        return String::new();
    };
    let lasts = span(now.duration_since(at));
    format!(" since {} ({lasts})", Time::at(at))
}

/// What keeps stations from being served, or one of them, a line each.
pub(crate) fn troubled_stations(
    status: &v1::GetStatusResponse,
    only: Option<&str>,
    now: Timestamp,
) -> Vec<String> {
    let lately = |at| moment(at).is_some_and(|at| now.duration_since(at) < LATELY);
    let refused = status.refused_handshakes.iter();
    let refused = refused.filter(|refused| lately(refused.last_at));
    let refused = refused.map(|refused| refused_handshake(refused, now));
    let loops = status.unstable_stations.iter();
    let loops = loops.map(|station| unstable(station, now));
    let all = refused.chain(loops);
    let wanted = all.filter(|it| only.is_none_or(|only| it.station_id.as_deref() == Some(only)));
    wanted
        .map(|finding| format!("! {}", finding.message))
        .collect()
}

fn ago(since: SignedDuration) -> String {
    match since.as_secs() {
        ..60 => "just now".to_owned(),
        _ => format!("{} ago", span(since)),
    }
}

/// Rounded down.
fn span(span: SignedDuration) -> String {
    match span.as_secs() {
        secs @ ..60 => format!("{} s", secs.max(0)),
        secs @ ..3600 => format!("{} min", secs / 60),
        secs @ ..172_800 => format!("{} h", secs / 3600),
        secs => format!("{} days", secs / 86_400),
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
        let text = finding.lines(usize::MAX);
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
            first_at: Some(wire(1_000_000 - 7_200)),
            last_at: Some(wire(1_000_000 - 300)),
        };
        let expected = "CP1 at /ocpp/CP1 from 10.0.0.7: another one is spoken; \
                        offered: ocpp2.0.1, ocpp2.1 (3 times since 1970-01-12T11:46:40Z (2 h), last 5 min \
                        ago)";
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

    /// One in this state, of which two deliveries wait.
    fn hook(state: &str, last: v1::Attempt) -> Hook {
        Hook {
            webhook: v1::Webhook {
                id: 7,
                name: "W".to_owned(),
                stats: Some(v1::WebhookStats {
                    retrying: 2,
                    pending: 2,
                    ..Default::default()
                }),
                health: Some(v1::WebhookHealth {
                    state: state.to_owned(),
                    since: Some(wire(NOW - 600)),
                    last_success_at: Some(wire(NOW - 660)),
                    ..Default::default()
                }),
                ..Default::default()
            },
            last_failure: Some(last),
        }
    }

    #[test]
    fn failing_webhooks_are_told_why() {
        let answered = |status| v1::Attempt {
            status_code: Some(status),
            ..Default::default()
        };
        let failed = |code: &str, error: &str| v1::Attempt {
            code: Some(code.to_owned()),
            error: Some(error.to_owned()),
            ..Default::default()
        };
        let expired = "its certificate expired on 2026-04-01T00:00:00Z";
        for (header, last, words) in [
            (Some("X-Secret"), answered(401), "header's name (X-Secret)"),
            (None, answered(403), "it has no secret"),
            (None, answered(404), "the path of its URL"),
            (None, answered(307), "redirects"),
            (None, answered(503), "answers 503"),
            (
                None,
                failed("timeout", "no answer within 10s"),
                "answer first",
            ),
            (None, failed("certificate_expired", expired), "renewed"),
            (None, failed("certificate_expired", expired), expired),
            (
                None,
                failed("connection_refused", "connection refused"),
                "can be reached from",
            ),
        ] {
            let mut hook = hook("failing", last);
            hook.webhook.secret_header = header.map(str::to_owned);
            let findings = webhooks(&[hook], false, at(NOW));
            assert_eq!(findings.len(), 1, "{findings:?}");
            check(&findings[0], Level::Problem, words);
        }
    }

    #[test]
    fn a_webhook_is_told_of_by_its_state() {
        for (state, level, code, words) in [
            (
                "failing",
                Level::Problem,
                "webhook_failing",
                "webhook 7 (W) fails since 2026-04-14T12:24:56Z (10 min): the receiver answers 503; \
                 the last success was 11 min ago; 2 deliveries wait to be tried again",
            ),
            (
                "flapping",
                Level::Problem,
                "webhook_flapping",
                "webhook 7 (W) fails and works by turns since 2026-04-14T12:24:56Z (10 min)",
            ),
            (
                "lagging",
                Level::Warning,
                "webhook_lagging",
                "its oldest event waits since 2026-04-14T12:24:56Z (10 min)",
            ),
            (
                "disabled",
                Level::Warning,
                "webhook_disabled",
                "webhooks enable 7",
            ),
            (
                "ok",
                Level::Warning,
                "retries_waiting",
                "takes deliveries; 2 deliveries wait",
            ),
        ] {
            let last = v1::Attempt {
                status_code: Some(503),
                ..v1::Attempt::default()
            };
            let findings = webhooks(&[hook(state, last)], false, at(NOW));
            check(&findings[0], level, words);
            assert_eq!(
                (&*findings[0].code, findings[0].webhook_id),
                (code, Some(7))
            );
        }
    }

    #[test]
    fn what_waits_for_nothing_is_well_and_dead_letters_are_warned_of() {
        for (pending, dead, expected) in [
            (5, 0, (Level::Ok, "no failures")),
            (0, 3, (Level::Warning, "3 dead letters")),
            (0, 1, (Level::Warning, "1 dead letter")),
        ] {
            let stats = v1::WebhookStats {
                pending,
                dead,
                ..Default::default()
            };
            let webhook = v1::Webhook {
                stats: Some(stats),
                ..Default::default()
            };
            let findings = webhooks(&[Hook::new(webhook)], false, at(NOW));
            check(&findings[0], expected.0, expected.1);
        }
        let more = webhooks(&[Hook::default()], true, at(NOW));
        check(&more[1], Level::Warning, "only the first 1");
    }

    #[test]
    fn stations_that_cannot_settle_are_named() {
        let station = v1::UnstableStation {
            station_id: "CP1".to_owned(),
            reason: "boot_loop".to_owned(),
            count: 12,
            since: Some(wire(NOW - 60)),
            last_at: Some(wire(NOW)),
            last_end_reason: Some("connection_lost".to_owned()),
        };
        let finding = unstable(&station, at(NOW));
        let words = "CP1 boots again and again: 12 times since 2026-04-14T12:33:56Z (1 min)";
        check(&finding, Level::Warning, words);
        let json = serde_json::to_value(&finding).unwrap();
        assert_eq!(
            (&json["code"], &json["station_id"]),
            (&"boot_loop".into(), &"CP1".into())
        );
    }
}
