//! What the facts about webhooks mean.

use std::fmt::Write as _;

use jiff::Timestamp;
use pipelet_proto::v1;

use super::finding::{Finding, Level, ago, moment, since};
use crate::{overview::dead_letters, view::advice::advice, words::counted};

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

pub(super) fn webhooks(hooks: &[Hook], more: bool, now: Timestamp) -> Vec<Finding> {
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

#[cfg(test)]
mod tests {
    use super::{
        super::finding::tests::{NOW, at, check, wire},
        *,
    };

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
}
