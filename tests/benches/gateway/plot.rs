//! The plots of RESULTS.md, as SVG by hand: what is drawn is little, and it must look the same
//! wherever it is shown.

use std::fmt::Write as _;

use super::report::{Report, float};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
/// The drawing's own space: left, right, top, bottom.
const FRAME: (f64, f64, f64, f64) = (70.0, 500.0, 50.0, 340.0);
/// Told apart without colours too: each line has a dash of its own.
const INKS: [(&str, &str); 8] = [
    ("#0b6e4f", "none"),
    ("#c1440e", "7 3"),
    ("#3b5ba5", "2 3"),
    ("#8a6d00", "9 3 2 3"),
    ("#6b3fa0", "4 2"),
    ("#00788a", "12 4"),
    ("#a0306a", "1 2"),
    ("#555555", "6 2 1 2"),
];

struct Series {
    name: String,
    /// In the drawing's own units.
    points: Vec<(f64, f64)>,
}

/// Events per second over stations.
pub(crate) fn throughput(report: &Report) -> Option<String> {
    let names = [
        ("pipeletd, 1 webhook, durable", "ours", 1),
        ("pipeletd, 4 webhooks: POSTs", "ours", 4),
        ("ocpp-rpc (Node), not durable", "node", 1),
        ("ocpp (Python), not durable", "python", 1),
    ];
    let rates = names.map(|(name, who, receivers)| (name, rates(report, who, receivers)));
    let all = || rates.iter().flat_map(|(_, rates)| rates);
    let most = all().map(|(_, rate)| *rate).reduce(f64::max)?;
    let top = nice_above(most);
    let (fewest, largest) = (
        all()
            .map(|(stations, _)| *stations)
            .reduce(f64::min)?
            .log10()
            - 0.2,
        all()
            .map(|(stations, _)| *stations)
            .reduce(f64::max)?
            .log10()
            + 0.2,
    );
    let x = |stations: f64| across((stations.log10() - fewest) / (largest - fewest));
    let y = |rate: f64| up(rate / top);
    let mut svg = begin(
        "Events end to end, closed loop",
        "stations",
        "POSTs per second",
    );
    for step in 0..=4_u32 {
        let rate = top * f64::from(step) / 4.0;
        rule(&mut svg, y(rate), &format!("{:.0} k", rate / 1e3));
    }
    let mut marks: Vec<_> = all().map(|(stations, _)| *stations).collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    for stations in marks {
        mark(&mut svg, x(stations), &format!("{stations:.0}"));
    }
    let series = rates.iter().map(|(name, rates)| Series {
        name: (*name).to_owned(),
        points: rates.iter().map(|(at, rate)| (x(*at), y(*rate))).collect(),
    });
    Some(finish(svg, series))
}

/// How long frames travel: the share of them on a scale of nines, milliseconds on one of tens.
pub(crate) fn latency(report: &Report) -> Option<String> {
    let distributions = report.distributions();
    let points = || distributions.iter().flat_map(|one| &one.points);
    let most = points().map(|(_, ms)| *ms).reduce(f64::max)?;
    let decades = most.max(1.0).log10().ceil();
    let x = |share: f64| across(-(1.0 - share).log10() / 4.0);
    let y = |ms: f64| up((ms.max(0.1).log10() + 1.0) / (decades + 1.0));
    let mut svg = begin("Frame to POST", "share of events", "milliseconds");
    let mut ms = 0.1;
    while ms <= 10_f64.powf(decades) * 1.01 {
        rule(&mut svg, y(ms), &format!("{ms}"));
        ms *= 10.0;
    }
    for (share, name) in [
        (0.0, "0"),
        (0.5, "50 %"),
        (0.9, "90 %"),
        (0.99, "99 %"),
        (0.999, "99.9 %"),
        (0.9999, "99.99 %"),
    ] {
        mark(&mut svg, x(share), name);
    }
    let series = distributions.iter().map(|one| Series {
        name: one.name.clone(),
        points: one
            .points
            .iter()
            .map(|(share, ms)| (x(*share), y(*ms)))
            .collect(),
    });
    Some(finish(svg, series))
}

/// By ascending number of stations.
fn rates(report: &Report, who: &str, receivers: u32) -> Vec<(f64, f64)> {
    let mut rates: Vec<_> = report
        .values()
        .filter_map(|(name, rate)| {
            let mut parts = name.split('.');
            let ours = parts.next()? == who;
            let stations: u32 = parts.next()?.parse().ok()?;
            let same = parts.next()? == receivers.to_string();
            (ours && same && parts.next()? == "posts_per_s").then_some((f64::from(stations), rate))
        })
        .collect();
    rates.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    rates
}

/// The next of 1, 2, 4, 8 × 10ⁿ.
fn nice_above(value: f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 4.0, 8.0].map(|step| step * decade);
    let above = steps.into_iter().find(|step| *step >= value);
    above.unwrap_or(decade * 10.0)
}

fn across(share: f64) -> f64 {
    FRAME.0 + share * (FRAME.1 - FRAME.0)
}

fn up(share: f64) -> f64 {
    FRAME.3 - share * (FRAME.3 - FRAME.2)
}

fn begin(title: &str, below: &str, beside: &str) -> String {
    let (left, right, top, bottom) = FRAME;
    let (middle, centre) = (f64::midpoint(left, right), f64::midpoint(top, bottom));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"{left}\" y=\"28\" font-size=\"16\">{title}</text>\n\
         <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{below}</text>\n\
         <text transform=\"translate(16 {centre}) rotate(-90)\" text-anchor=\"middle\">\
         {beside}</text>\n",
        bottom + 40.0
    )
}

/// A line across, with its value.
fn rule(svg: &mut String, y: f64, text: &str) {
    let (left, right, ..) = FRAME;
    let _ = writeln!(
        svg,
        "<path d=\"M{left} {y:.1}H{right}\" stroke=\"#ddd\"/>\
         <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
        left - 8.0,
        y + 4.0
    );
}

/// A value below.
fn mark(svg: &mut String, x: f64, text: &str) {
    let bottom = FRAME.3;
    let _ = writeln!(
        svg,
        "<path d=\"M{x:.1} {bottom}v5\" stroke=\"#222\"/>\
         <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
        bottom + 20.0
    );
}

/// The lines, and their names on the right.
fn finish(mut svg: String, series: impl Iterator<Item = Series>) -> String {
    let drawn = series.filter(|series| !series.points.is_empty());
    for (number, (series, (ink, dash))) in drawn.zip(INKS.into_iter().cycle()).enumerate() {
        let points = series.points.iter();
        let line: Vec<_> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let pen = format!("stroke=\"{ink}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"");
        let (x, y) = (FRAME.1 + 20.0, FRAME.2 + 20.0 * float(number as u64));
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" {pen}/>\
             <path d=\"M{x} {y}h24\" {pen}/><text x=\"{}\" y=\"{}\">{}</text>",
            line.join(" "),
            x + 30.0,
            y + 4.0,
            series.name
        );
        for (x, y) in &series.points {
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{ink}\"/>"
            );
        }
    }
    svg + "</svg>\n"
}
