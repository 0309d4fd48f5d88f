//! A steady load with failing receivers and short retention: what the daemon takes levels off.
//!
//! Level is what grows ever less, by the medians of the run's thirds: from the middle one to the
//! last by clearly less than from the first to the middle one. Caches fill; what leaks grows by as
//! much in each.

use std::time::Duration;

use pipelet_tests::process;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    rounds::{Found, Kind, Torture, daemon},
    say,
};

/// What is looked at: its name, the growth that says nothing, and the unit that it is shown in.
const SERIES: [(&str, u64, u64); 4] = [
    ("memory, KiB", 4 << 20, 1 << 10),
    ("descriptors", 10, 1),
    ("threads", 3, 1),
    ("store, KiB", 4 << 20, 1 << 10),
];
const SAMPLES: u32 = 120;
/// With transactions the store takes some ten minutes to come to its size, about 20 MiB: whether it
/// stays there, a shorter soak can't tell.
const TIME_TO_FILL: Duration = Duration::from_mins(30);

pub(crate) async fn run(time: Duration, seed: u64) -> Result<(), Found> {
    let builder = daemon()
        .flag("--retention", "2s")
        .flag("--retention-size", "1MiB")
        .flag("--transaction-retention", "2s");
    let transactions = time >= TIME_TO_FILL;
    let kind = Kind {
        transactions,
        // Stations don't wait for receivers here: on a slow machine even the healthy ones fall behind.
        longest_way: Duration::MAX,
        ..Kind::ONE_DAEMON
    };
    let (torture, mut load) = Torture::begin(builder, None, seed, kind).await;
    let mut ticks = interval(time / SAMPLES);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut series: [Vec<u64>; 4] = Default::default();
    for _ in 0..SAMPLES {
        ticks.tick().await;
        for (series, sample) in series.iter_mut().zip(sample(&torture)) {
            series.push(sample);
        }
    }
    load.end(torture.run()).await;
    torture.check_whole().await;
    let counts = torture.run().oracle().counts();
    say(&format!("soaked for {time:?}: {counts}"));
    for ((name, slack, unit), series) in SERIES.into_iter().zip(series) {
        // sled's file goes up and down by some ten MiB, in its own time: of a minute or two there is
        // one such rise or fall at most.
        let is_short_of_store = name.starts_with("store") && time < TIME_TO_FILL;
        let slack = if is_short_of_store { slack * 4 } else { slack };
        let shown: Vec<_> = series
            .iter()
            .map(|value| (value / unit).to_string())
            .collect();
        say(&format!("{name}: {}", shown.join(" ")));
        if let Err(grown) = level(&series, slack) {
            let fault = format!("{name} doesn't level off: {grown}");
            torture.run().oracle().fault(fault);
        }
    }
    let faults = torture.run().oracle().faults();
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Found { round: 0, faults })
    }
}

/// Whether a series levels off, and where it doesn't, the medians of its thirds.
fn level(series: &[u64], slack: u64) -> Result<(), String> {
    let third = series.len() / 3;
    let thirds = [0, 1, 2].map(|number| {
        let mut third = series[number * third..][..third].to_vec();
        third.sort_unstable();
        third[third.len() / 2]
    });
    let [first, middle, last] = thirds;
    let (before, lately) = (middle.saturating_sub(first), last.saturating_sub(middle));
    if lately > before / 2 + slack {
        Err(format!("{thirds:?}"))
    } else {
        Ok(())
    }
}

fn sample(torture: &Torture) -> [u64; 4] {
    let daemon = torture.daemon();
    let pid = daemon.pid();
    [
        process::rss(pid),
        process::descriptors(pid) as u64,
        process::threads(pid),
        process::disk(daemon.data_dir()),
    ]
}

/// The measure must be able to find fault.
pub(crate) fn check_the_measure() {
    let flat: Vec<_> = (0..120).map(|n| 1_000_000 + n % 7).collect();
    let filling: Vec<_> = (0..120).map(|n: u64| n.min(50) * 20_000).collect();
    let leaking: Vec<_> = (0..120).map(|n| 1_000_000 + n * 5_000).collect();
    assert!(level(&flat, 1000).is_ok());
    assert!(level(&filling, 1000).is_ok());
    assert!(level(&leaking, 1000).is_err());
}
