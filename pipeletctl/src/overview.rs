//! The daemon at a glance, and what changed between two polls.
//!
//! Pure: rates, shares and quantiles come from the differences of what counts up since the daemon
//! started. It knows no terminal and makes no calls.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use pipelet_proto::v1;

/// One poll.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overview {
    pub(crate) at: Timestamp,
    pub(crate) ready: bool,
    pub(crate) reasons: Vec<String>,
    pub(crate) stations: u64,
    pub(crate) dead: u64,
    /// By type, since the daemon started.
    pub(crate) events: BTreeMap<String, u64>,
    pub(crate) webhooks: Vec<v1::WebhookOverview>,
    /// Stations that can't settle, or are refused, each with what is wrong in a few words.
    pub(crate) troubled: Vec<String>,
    /// In microseconds.
    bounds: Vec<u64>,
}

/// What a webhook's attempts came to over some time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Lately {
    pub(crate) attempts: u64,
    /// Between 0 and 1; none without attempts.
    pub(crate) success: Option<f64>,
    pub(crate) p50: Option<Duration>,
    pub(crate) p99: Option<Duration>,
}

impl From<v1::GetOverviewResponse> for Overview {
    fn from(wire: v1::GetOverviewResponse) -> Self {
        let now = wire.now.unwrap_or_default();
        let events = wire.events.into_iter();
        let unstable = wire.unstable_stations.iter();
        let unstable = unstable.map(|it| {
            let what = it.reason.replace('_', " ");
            format!("{} {what} ×{}", it.station_id, it.count)
        });
        let refused = wire.refused_handshakes.iter();
        let refused = refused.map(|it| {
            let who = it.station_id.as_ref().unwrap_or(&it.remote_address);
            format!(
                "{who} refused: {} ×{}",
                it.reason.replace('_', " "),
                it.count
            )
        });
        Self {
            at: Timestamp::new(now.seconds, now.nanos).unwrap_or_default(),
            ready: wire.ready,
            reasons: wire.reasons,
            stations: wire.stations_connected,
            dead: wire.failed_deliveries,
            events: events.map(|it| (it.event, it.count)).collect(),
            troubled: unstable.chain(refused).collect(),
            webhooks: wire.webhooks,
            bounds: wire.latency_bounds_us,
        }
    }
}

impl Overview {
    /// Events in all, since the daemon started.
    pub(crate) fn all_events(&self) -> u64 {
        self.events.values().sum()
    }

    /// What a webhook's attempts came to since an earlier poll, or since the daemon started.
    pub(crate) fn lately(&self, webhook: &v1::WebhookOverview, earlier: Option<&Self>) -> Lately {
        let before = earlier.and_then(|earlier| earlier.webhook(webhook.id));
        // Counts that went back are those of another process.
        let before = before.filter(|before| before.attempts <= webhook.attempts);
        let count =
            |of: fn(&v1::WebhookOverview) -> u64| of(webhook).saturating_sub(before.map_or(0, of));
        let attempts = count(|it| it.attempts);
        let delivered = count(|it| it.attempts_delivered);
        let buckets = webhook.latency_buckets.iter().enumerate();
        let buckets: Vec<u64> = buckets
            .map(|(at, count)| {
                let before = before.and_then(|before| before.latency_buckets.get(at));
                count.saturating_sub(before.copied().unwrap_or(0))
            })
            .collect();
        Lately {
            attempts,
            success: share(delivered, attempts),
            p50: self.quantile(&buckets, 0.5),
            p99: self.quantile(&buckets, 0.99),
        }
    }

    fn webhook(&self, id: u64) -> Option<&v1::WebhookOverview> {
        self.webhooks.iter().find(|webhook| webhook.id == id)
    }

    /// The upper bound of the bucket that this share of all lies below.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts are far below what a float holds exactly"
    )]
    fn quantile(&self, buckets: &[u64], share: f64) -> Option<Duration> {
        let all: u64 = buckets.iter().sum();
        let rank = ((all as f64) * share).ceil() as u64;
        let mut seen = 0;
        let bucket = buckets.iter().position(|count| {
            seen += count;
            all > 0 && seen >= rank.max(1)
        })?;
        let bound = self.bounds.get(bucket).or(self.bounds.last())?;
        Some(Duration::from_micros(*bound))
    }
}

#[expect(clippy::cast_precision_loss, reason = "as above")]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Those that are there, and not those that were purged.
pub(crate) const fn dead_letters(stats: &v1::WebhookStats) -> u64 {
    stats.dead.saturating_sub(stats.purged)
}

/// How long the oldest event has waited that a webhook is owed.
pub(crate) fn age(webhook: &v1::WebhookOverview, now: Timestamp) -> Option<Duration> {
    let oldest = webhook.health.as_ref()?.oldest_owed_at?;
    let oldest = Timestamp::new(oldest.seconds, oldest.nanos).ok()?;
    Some(Duration::try_from(now.duration_since(oldest)).unwrap_or(Duration::ZERO))
}

/// A span of time in a few characters.
pub(crate) fn short(span: Duration) -> String {
    let seconds = span.as_secs_f64();
    match seconds {
        ..0.000_95 => format!("{:.0}µs", seconds * 1e6),
        ..0.0095 => format!("{:.1}ms", seconds * 1e3),
        ..0.95 => format!("{:.0}ms", seconds * 1e3),
        ..99.5 => format!("{seconds:.1}s"),
        ..5970.0 => format!("{:.0}m", seconds / 60.0),
        ..172_800.0 => format!("{:.0}h", seconds / 3600.0),
        _ => format!("{:.0}d", seconds / 86_400.0),
    }
}

/// A share as a percentage that is whole only where it is all or nothing.
pub(crate) fn percent(share: Option<f64>) -> String {
    match share {
        None => "-".to_owned(),
        Some(1.0) => "100%".to_owned(),
        Some(0.0) => "0%".to_owned(),
        Some(share) => format!("{:.1}%", (share * 100.0).clamp(0.1, 99.9)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A poll of one webhook with these counts, `second` seconds after the first.
    pub(crate) fn overview(
        second: i64,
        attempts: u64,
        delivered: u64,
        buckets: [u64; 4],
    ) -> Overview {
        let at = |second| prost_types::Timestamp {
            seconds: 1_776_170_000 + second,
            nanos: 0,
        };
        v1::GetOverviewResponse {
            now: Some(at(second)),
            ready: true,
            stations_connected: 12,
            failed_deliveries: 3,
            events: vec![v1::EventCount {
                event: "MeterValues".to_owned(),
                count: 10 * second.unsigned_abs(),
            }],
            webhooks: vec![v1::WebhookOverview {
                id: 1,
                name: "Billing".to_owned(),
                url: "https://example.com/hook".to_owned(),
                enabled: true,
                attempts,
                attempts_delivered: delivered,
                latency_buckets: buckets.to_vec(),
                health: Some(v1::WebhookHealth {
                    state: "failing".to_owned(),
                    oldest_owed_at: Some(at(second - 90)),
                    ..v1::WebhookHealth::default()
                }),
                stats: Some(v1::WebhookStats {
                    received: 100,
                    delivered: 60,
                    pending: 37,
                    retrying: 7,
                    dead: 3,
                    cancelled: 0,
                    purged: 0,
                }),
                ..v1::WebhookOverview::default()
            }],
            latency_bounds_us: vec![1000, 10_000, 100_000],
            ..v1::GetOverviewResponse::default()
        }
        .into()
    }

    #[test]
    fn what_changed_is_what_counts() {
        let first = overview(0, 100, 100, [100, 0, 0, 0]);
        let second = overview(10, 110, 105, [100, 5, 4, 1]);
        let of = |now: &Overview, earlier| now.lately(&now.webhooks[0], earlier);
        let lately = of(&second, Some(&first));
        assert_eq!((lately.attempts, lately.success), (10, Some(0.5)));
        assert_eq!(lately.p50, Some(Duration::from_millis(10)));
        // What is above the last bound counts as that.
        assert_eq!(lately.p99, Some(Duration::from_millis(100)));
        assert_eq!(of(&second, None).attempts, 110);
        // Another process counts from the beginning.
        assert_eq!(of(&first, Some(&second)).attempts, 100);
        let nothing = of(&first, Some(&first));
        assert_eq!((nothing.success, nothing.p50), (None, None));
        let waited = age(&second.webhooks[0], second.at);
        assert_eq!(waited, Some(Duration::from_secs(90)));
    }

    #[test]
    fn figures_are_short() {
        for (micros, expected) in [
            (300, "300µs"),
            (1_500, "1.5ms"),
            (30_000, "30ms"),
            (1_500_000, "1.5s"),
            (600_000_000, "10m"),
            (36_000_000_000, "10h"),
            (864_000_000_000, "10d"),
        ] {
            assert_eq!(short(Duration::from_micros(micros)), expected);
        }
        let shares = [None, Some(0.0), Some(0.999_99), Some(1.0), Some(0.5)];
        let expected = ["-", "0%", "99.9%", "100%", "50.0%"];
        assert_eq!(shares.map(percent), expected);
    }
}
