//! What became of one event, as a waterfall.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use pipelet_proto::{
    json::moment,
    v1::{Attempt, TraceEventResponse, WebhookTrace},
};

use super::{attempt, event::heading, time::Time};
use crate::table::{printable, shortened};

/// What stands before a bar: its indent, number, outcome and duration.
const LABELS: usize = 40;
/// What a line has of the outcome; a longer one stands below it.
const OUTCOME: usize = 12;
/// The shortest bar's room that says anything.
const LEAST_BAR: usize = 10;

/// In so many columns.
pub(crate) fn drawn(trace: &TraceEventResponse, width: usize) -> String {
    let event = trace.event.clone().unwrap_or_default();
    let mut text = heading(&event, width);
    let began = moment(event.timestamp).unwrap_or_default();
    let _ = write!(text, "\n\ntaken in at {began:.3}, which is 0 below\n");
    if let Some(durable) = moment(trace.durable_at) {
        let since = durable.duration_since(began);
        let _ = writeln!(text, "on disk at +{}", shown(since));
    }
    if trace.webhooks.is_empty() {
        text.push_str("\nthere are no webhooks\n");
    }
    let attempts = trace.webhooks.iter().flat_map(|webhook| &webhook.attempts);
    let ends = attempts.filter_map(|attempt| Some(attempt::span(attempt)?.1));
    let whole = ends.map(|end| end.duration_since(began)).max();
    let bars = width.saturating_sub(LABELS).max(LEAST_BAR);
    let scale = Scale {
        began,
        whole: whole
            .unwrap_or_default()
            .max(SignedDuration::from_millis(1)),
        bars,
    };
    for webhook in &trace.webhooks {
        let name = shortened(&webhook.name, 40);
        let _ = write!(
            text,
            "\nwebhook {} ({name}): {}\n",
            webhook.webhook_id,
            sentence(webhook)
        );
        for attempt in &webhook.attempts {
            let _ = writeln!(text, "{}", scale.line(attempt));
            let outcome = attempt::outcome(attempt);
            let cut_off = (outcome.chars().count() > OUTCOME).then(|| printable(&outcome));
            let further: Vec<_> = cut_off.into_iter().chain(attempt::parts(attempt)).collect();
            if !further.is_empty() {
                let _ = writeln!(text, "      {}", further.join(", "));
            }
        }
    }
    text
}

/// Where moments stand in the waterfall.
struct Scale {
    began: Timestamp,
    whole: SignedDuration,
    bars: usize,
}

impl Scale {
    fn line(&self, attempt: &Attempt) -> String {
        let Some((at, end)) = attempt::span(attempt) else {
            return format!("  {}", attempt::outcome(attempt));
        };
        let since = at.duration_since(self.began);
        let whole = attempt::outcome(attempt);
        let fits = whole.chars().count() <= OUTCOME;
        let outcome = if fits { &whole } else { "failed" };
        let label = format!(
            "  {:>2}  {:<12} +{:<8} {:>6} ms",
            attempt.number,
            printable(outcome),
            shown(since),
            attempt.duration_ms,
        );
        let place = |moment: Timestamp| {
            let part = moment.duration_since(self.began).as_secs_f64() / self.whole.as_secs_f64();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_precision_loss,
                clippy::cast_sign_loss,
                reason = "it is a column of a screen"
            )]
            let column = (part.clamp(0.0, 1.0) * (self.bars - 1) as f64) as usize;
            column
        };
        let (from, to) = (place(at), place(end));
        format!(
            "{label:<LABELS$}{}{}",
            " ".repeat(from),
            "█".repeat(to - from + 1)
        )
    }
}

/// A span of time in a few characters.
fn shown(span: SignedDuration) -> String {
    let seconds = span.as_secs_f64();
    match seconds {
        ..1.0 => format!("{:.0}ms", seconds * 1000.0),
        1.0..100.0 => format!("{seconds:.2}s"),
        100.0..6000.0 => format!("{:.1}min", seconds / 60.0),
        _ => format!("{:.1}h", seconds / 3600.0),
    }
}

fn sentence(webhook: &WebhookTrace) -> String {
    let reason = webhook.reason.as_deref();
    match webhook.outcome.as_str() {
        "not_wanted" => {
            let why = match reason {
                Some("created_later") => "it was created later",
                Some("for_another") => "it was triggered for another",
                Some("disabled") => "it was disabled then",
                Some("other_events") => "it is subscribed to other events",
                Some("other_stations") => "it is for other stations",
                other => other.unwrap_or("for no reason"),
            };
            let unless = if webhook.or_sent_again {
                "; a backfill may have sent it all the same, which is no longer known"
            } else {
                ""
            };
            format!("not wanted: {}{unless}", printable(why))
        }
        "waiting" => "waiting for its first attempt, or amid it".to_owned(),
        "retrying" => match Time::from_wire(webhook.next_attempt_at) {
            Some(at) => format!("failed so far; the next attempt is due at {at}"),
            None => "failed so far, and tried again".to_owned(),
        },
        "dead" => format!(
            "dead letter {} ({})",
            webhook.failed_delivery_id.unwrap_or_default(),
            reason.unwrap_or("-")
        ),
        "delivered" if webhook.attempts_kept => "delivered".to_owned(),
        "delivered" => "delivered; the details are no longer kept".to_owned(),
        "purged" => "a dead letter, which was purged".to_owned(),
        "settled" => {
            "delivered, or a dead letter that was purged, which is no longer known".to_owned()
        }
        "forgotten" => "settled or not wanted, which is no longer known".to_owned(),
        other => printable(other),
    }
}

#[cfg(test)]
mod tests {
    use pipelet_proto::v1;

    use super::*;

    fn at(millis: i64) -> prost_types::Timestamp {
        let time = Timestamp::from_millisecond(1_776_170_096_000 + millis).unwrap();
        prost_types::Timestamp {
            seconds: time.as_second(),
            nanos: time.subsec_nanosecond(),
        }
    }

    fn attempt(number: u32, millis: i64, duration_ms: u64, status: Option<u32>) -> v1::Attempt {
        v1::Attempt {
            number,
            at: Some(at(millis)),
            status_code: status,
            error: status.is_none().then(|| "timeout".to_owned()),
            duration_ms,
            connect_us: (number == 1).then_some(1_250),
            first_byte_us: status.map(|_| 700),
            ..v1::Attempt::default()
        }
    }

    #[test]
    fn the_waterfall_shows_when_and_how_long() {
        let event = v1::Event {
            id: "evt_1".to_owned(),
            event: "StartTransaction".to_owned(),
            station_id: "WALLBOX_001".to_owned(),
            timestamp: Some(at(0)),
            payload: "{}".to_owned(),
            synthetic: false,
        };
        let delivered = v1::WebhookTrace {
            webhook_id: 1,
            name: "Billing".to_owned(),
            outcome: "delivered".to_owned(),
            attempts_kept: true,
            attempts: vec![
                attempt(1, 0, 250, None),
                attempt(2, 500, 250, Some(500)),
                attempt(3, 999, 1, Some(204)),
            ],
            ..v1::WebhookTrace::default()
        };
        let other = v1::WebhookTrace {
            webhook_id: 2,
            name: "Other".to_owned(),
            outcome: "not_wanted".to_owned(),
            reason: Some("other_events".to_owned()),
            ..v1::WebhookTrace::default()
        };
        let trace = TraceEventResponse {
            event: Some(event),
            webhooks: vec![delivered, other],
            durable_at: Some(at(2)),
        };
        for width in [80, 200, 10] {
            let drawn = drawn(&trace, width);
            assert!(
                drawn.contains("webhook 1 (Billing): delivered\n"),
                "{drawn}"
            );
            assert!(
                drawn.contains("not wanted: it is subscribed to other events"),
                "{drawn}"
            );
            assert!(drawn.contains("\non disk at +2ms\n"), "{drawn}");
            assert!(drawn.contains("\n      connect 1.2 ms\n"), "{drawn}");
            let kept = "\n      kept connection, first byte 0.7 ms\n";
            assert_eq!(drawn.matches(kept).count(), 2, "{drawn}");
            if width >= 80 {
                assert!(
                    drawn.lines().all(|line| line.chars().count() <= width),
                    "{drawn}"
                );
            }
        }
        let drawn = drawn(&trace, LABELS + 10);
        let bars = drawn.lines().filter(|line| line.contains('█'));
        let bars: Vec<String> = bars
            .map(|line| line.chars().skip(LABELS).collect())
            .collect();
        assert_eq!(bars, ["███", "    ███", "        ██"]);
    }
}
