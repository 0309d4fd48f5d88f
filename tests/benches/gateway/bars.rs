//! The bars that Pipelet is held to, and whether what was measured reaches them.

use self::Bar::{AtLeast, AtMost};
use super::report::{Report, Table};

const MIB: f64 = 1_048_576.0;
const EVENT_BYTES: f64 = 454.0;

/// What a figure must be, and what it is aimed at.
#[derive(Debug, Clone, Copy)]
enum Bar {
    AtLeast(f64, f64),
    AtMost(f64, f64),
}

impl Bar {
    fn holds(self, value: f64) -> bool {
        match self {
            AtLeast(least, _) => value >= least,
            AtMost(most, _) => value <= most,
        }
    }

    fn text(self, unit: &str) -> String {
        let (sign, bar, aim) = match self {
            AtLeast(least, aim) => ('≥', least, aim),
            AtMost(most, aim) => ('≤', most, aim),
        };
        format!("{sign} {bar} {unit}, aim {aim}")
    }
}

/// The bars of what was run.
pub(crate) fn table(report: &Report) -> Table {
    let mut table = Table::new("Bars", &["what", "bar", "seen", "holds"]);
    let seen = Seen(report);
    let judged = throughput(&seen).into_iter().chain(cluster(&seen));
    for (what, unit, bar, value) in judged.chain(the_rest(&seen)) {
        // A section that wasn't run has no say.
        let Some(value) = value else { continue };
        table.row(vec![
            what.to_owned(),
            bar.text(unit),
            format!("{value:.2}"),
            if bar.holds(value) { "yes" } else { "**no**" }.to_owned(),
        ]);
    }
    let faults = report.faults();
    table.note(if faults.is_empty() {
        "Nothing acknowledged was lost, and nothing came twice.".to_owned()
    } else {
        format!("**{} faults**: {}", faults.len(), faults.join("; "))
    });
    table
}

/// What, in which unit, its bar, and what was seen of it.
type Judged = (&'static str, &'static str, Bar, Option<f64>);

fn throughput(seen: &Seen<'_>) -> [Judged; 6] {
    let against = |stations: u32, peer: &str| {
        let ours = format!("ours.{stations}.1.posts_per_s");
        seen.ratio(&ours, &format!("{peer}.{stations}.1.posts_per_s"))
    };
    let four = seen.largest(&["ours.50.4.posts_per_s", "ours.500.4.posts_per_s"]);
    let limit = seen.value("limits.posts_per_s");
    let of_limit = four.zip(limit).map(|(four, limit)| four / limit * 100.0);
    let half = seen.largest(&["half.50.call_p99_ms", "half.500.call_p99_ms"]);
    let written = seen.scaled("ours.500.1.written_bytes", EVENT_BYTES);
    let (node_500, node_50) = (against(500, "node"), against(50, "node"));
    let python = against(500, "python");
    [
        (
            "500 stations, against Node",
            "×",
            AtLeast(2.0, 3.0),
            node_500,
        ),
        (
            "500 stations, against Python",
            "×",
            AtLeast(15.0, 15.0),
            python,
        ),
        ("50 stations, against Node", "×", AtLeast(1.3, 2.0), node_50),
        (
            "POSTs/s to 4 webhooks, of the bare loop",
            "%",
            AtLeast(55.0, 75.0),
            of_limit,
        ),
        ("CALL p99 at half load", "ms", AtMost(10.0, 10.0), half),
        ("written per byte of event", "×", AtMost(3.0, 3.0), written),
    ]
}

/// One node on three servers, beside a daemon on its own store.
fn cluster(seen: &Seen<'_>) -> [Judged; 4] {
    let against = |what: &str| {
        let ours = format!("ours.500.1.{what}");
        seen.ratio(&format!("cluster16.500.1.{what}"), &ours)
    };
    [
        (
            "cluster's events/s, against embedded",
            "×",
            AtLeast(0.5, 0.5),
            against("posts_per_s"),
        ),
        (
            "cluster's CPU/event, against embedded",
            "×",
            AtMost(1.5, 1.5),
            against("cpu_us"),
        ),
        (
            "the same, stations at another node",
            "×",
            AtMost(2.5, 2.5),
            seen.ratio("forwarding.500.1.cpu_us", "ours.500.1.cpu_us"),
        ),
        (
            "cluster's CALL p50 at 200/s",
            "ms",
            AtMost(6.0, 6.0),
            seen.value("cluster16.steady.call_p50_ms"),
        ),
    ]
}

fn the_rest(seen: &Seen<'_>) -> [Judged; 8] {
    let (p50, p99) = (seen.value("steady.p50_ms"), seen.value("steady.p99_ms"));
    let drained = seen.ratio("backlog.drain_per_s", "ours.500.1.posts_per_s");
    let drained = drained.map(|share| share * 100.0);
    let neighbour = seen.ratio("backlog.neighbour_p99_ms", "backlog.alone_p99_ms");
    let memory = seen.scaled("idle.ours.bytes_each", 1e3);
    let backlog = seen.scaled("backlog.peak_rss_bytes", MIB);
    let (rest, start) = (
        seen.value("idle.ours.cpu_percent"),
        seen.value("backlog.start_s"),
    );
    [
        ("frame → POST at 200/s, p50", "ms", AtMost(1.5, 1.5), p50),
        ("frame → POST at 200/s, p99", "ms", AtMost(6.0, 6.0), p99),
        ("memory per idle station", "KB", AtMost(6.0, 5.0), memory),
        ("CPU at rest", "% of a core", AtMost(3.0, 3.0), rest),
        (
            "memory with a backlog",
            "MiB",
            AtMost(256.0, 256.0),
            backlog,
        ),
        ("start with a backlog", "s", AtMost(3.0, 2.0), start),
        (
            "drain, of the steady maximum",
            "%",
            AtLeast(80.0, 80.0),
            drained,
        ),
        (
            "neighbour's p99, against alone",
            "×",
            AtMost(1.3, 1.3),
            neighbour,
        ),
    ]
}

/// The figures, by name.
struct Seen<'a>(&'a Report);

impl Seen<'_> {
    fn value(&self, name: &str) -> Option<f64> {
        self.0.value(name)
    }

    fn scaled(&self, name: &str, unit: f64) -> Option<f64> {
        Some(self.value(name)? / unit)
    }

    fn ratio(&self, of: &str, to: &str) -> Option<f64> {
        Some(self.value(of)? / self.value(to)?)
    }

    /// The largest of those that there are.
    fn largest(&self, names: &[&str]) -> Option<f64> {
        let values = names.iter().filter_map(|name| self.value(name));
        values.reduce(f64::max)
    }
}
