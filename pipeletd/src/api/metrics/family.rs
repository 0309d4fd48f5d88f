//! A family of metrics: a name, what it means, and a value for each combination of labels.

use pipelet_printable::printable;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use crate::system::latencies::LatencySnapshot;

/// The bounds that are shown of a latency's, in microseconds: enough to see where a delay begins,
/// and few enough for a thousand webhooks.
const SHOWN: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// The labels of one metric, with their values.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

#[derive(Debug)]
pub(super) struct Family(MetricFamily);

impl Family {
    pub(super) fn counter(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::COUNTER)
    }

    pub(super) fn gauge(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::GAUGE)
    }

    pub(super) fn histogram(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::HISTOGRAM)
    }

    fn new(name: &str, help: &str, kind: MetricType) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        Self(family)
    }

    /// The value for these labels.
    pub(super) fn add(&mut self, labels: Labels<'_>, value: impl Value) {
        let value = value.float();
        let mut metric = labelled(labels);
        if self.0.get_field_type() == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.0.mut_metric().push(metric);
    }

    pub(super) fn add_latencies(&mut self, labels: Labels<'_>, latencies: &LatencySnapshot) {
        let mut histogram = Histogram::default();
        histogram.set_sample_count(latencies.count());
        histogram.set_sample_sum(latencies.sum().as_secs_f64());
        let buckets = SHOWN.map(|micros| {
            let mut bucket = Bucket::default();
            // Divided and not multiplied: 2.5 and not 2.4999999999999996.
            bucket.set_upper_bound(micros.float() / 1e6);
            bucket.set_cumulative_count(latencies.at_most(micros));
            bucket
        });
        histogram.set_bucket(buckets.to_vec());
        let mut metric = labelled(labels);
        metric.set_histogram(histogram);
        self.0.mut_metric().push(metric);
    }

    /// With the one value.
    pub(super) fn of(mut self, value: impl Value) -> MetricFamily {
        self.add(&[], value);
        self.0
    }

    pub(super) fn of_latencies(mut self, latencies: &LatencySnapshot) -> MetricFamily {
        self.add_latencies(&[], latencies);
        self.0
    }

    /// With what was added.
    pub(super) fn done(self) -> MetricFamily {
        self.0
    }
}

fn labelled(labels: Labels<'_>) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(printable(value).into_owned());
        pair
    });
    Metric::from_label(pairs.collect())
}

/// What can be the value of a metric.
pub(super) trait Value {
    fn float(self) -> f64;
}

impl Value for f64 {
    fn float(self) -> f64 {
        self
    }
}

impl Value for bool {
    fn float(self) -> f64 {
        f64::from(u8::from(self))
    }
}

impl Value for u64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "Prometheus has floats only, and what counts up to 2^53 has time"
    )]
    fn float(self) -> f64 {
        self as f64
    }
}

impl Value for usize {
    fn float(self) -> f64 {
        (self as u64).float()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::TextEncoder;

    use super::*;
    use crate::system::latencies::{BOUNDS, Latencies};

    #[test]
    fn what_is_shown_is_exact() {
        for bound in SHOWN {
            assert!(BOUNDS.contains(&bound), "{bound}");
        }
    }

    #[test]
    fn the_text() {
        let latencies = Latencies::default();
        latencies.record(Duration::from_millis(2));
        latencies.record(Duration::from_mins(1));
        let mut named = Family::gauge("named", "Somebody's \\ name.");
        named.add(&[("name", "a \"b\"\n\\\u{202e}"), ("id", "1")], true);
        let took =
            Family::histogram("took_seconds", "How long.").of_latencies(&latencies.snapshot());
        let count = Family::counter("count_total", "So many.").of(7_u64);
        let text = TextEncoder::new().encode_to_string(&[named.done(), count, took]);
        let text = text.unwrap();
        let expected = [
            "# HELP named Somebody's \\\\ name.\n# TYPE named gauge\n",
            "named{name=\"a \\\"b\\\"\\\\n\\\\\\\\u{202e}\",id=\"1\"} 1\n",
            "# TYPE count_total counter\ncount_total 7\n",
            "took_seconds_bucket{le=\"0.001\"} 0\ntook_seconds_bucket{le=\"0.0025\"} 1\n",
            "took_seconds_bucket{le=\"10\"} 1\ntook_seconds_bucket{le=\"+Inf\"} 2\n",
            "took_seconds_sum 60.002\ntook_seconds_count 2\n",
        ];
        for part in expected {
            assert!(text.contains(part), "{part}\nis not in\n{text}");
        }
    }
}
