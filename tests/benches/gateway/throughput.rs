//! The closed loops: how much gets through, ours and the peers' in turn.

use std::{collections::BTreeMap, io, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    calls::{Call, METER_VALUES},
    fleet::{Fleet, Load, Pacing},
    gateway::{Gateway, Kind},
    histogram::Histogram,
    ledger::Ledger,
    options::{Options, Section},
    peers::Peer,
    process,
    report::{Report, Table, float, mib, ms, thousands},
    sink::Sink,
};

/// Stations whose latencies are drawn: more lines could not be told apart.
const DRAWN: [usize; 2] = [50, 500];

/// One turn of one gateway.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    pub(crate) calls_per_s: f64,
    pub(crate) posts_per_s: f64,
    pub(crate) calls: Histogram,
    pub(crate) arrivals: Histogram,
    pub(crate) cpu_us: f64,
    pub(crate) written: f64,
    pub(crate) rss: f64,
    /// How much more was owed at the end of the window than at its beginning.
    pub(crate) growth: f64,
}

/// What is measured: the gateway, its stations and its receivers.
pub(crate) struct Scene {
    pub(crate) gateway: Gateway,
    pub(crate) sink: Sink,
    pub(crate) ledger: Ledger,
    pub(crate) receivers: u32,
}

impl Scene {
    pub(crate) async fn new(kind: &Kind, receivers: u32) -> Self {
        let ledger = Ledger::new(receivers as usize);
        let sink = Sink::start(receivers as usize, &ledger).await;
        Self {
            gateway: kind.start(&sink.urls()).await,
            sink,
            ledger,
            receivers,
        }
    }

    /// Stations that send `MeterValues`, which every receiver wants.
    pub(crate) async fn fleet(&self, stations: usize, pacing: Pacing) -> Fleet {
        let calls = vec![(Call::new(METER_VALUES), self.receivers)];
        self.fleet_of(stations, calls, pacing).await
    }

    pub(crate) async fn fleet_of(
        &self,
        stations: usize,
        calls: Vec<(Call, u32)>,
        pacing: Pacing,
    ) -> Fleet {
        let load = Load {
            ocpp: self.gateway.ocpp(),
            name: "BENCH",
            stations,
            calls,
            pacing,
        };
        Fleet::start(load, &self.ledger).await
    }

    /// What happens within the window.
    pub(crate) async fn watch(&self, fleet: &Fleet, window: Duration) -> Turn {
        let pids = self.gateway.pids();
        let cpu = || -> Duration { pids.iter().map(|pid| process::used(*pid).cpu).sum() };
        let pid = pids[0];
        let owed = || float(self.ledger.owed()) - float(self.sink.distinct());
        drop((fleet.take(), self.sink.take()));
        let (began, used, busy, owing) = (Instant::now(), process::used(pid), cpu(), owed());
        sleep(window).await;
        let (calls, arrivals) = (fleet.take(), self.sink.take());
        let (elapsed, now) = (began.elapsed().as_secs_f64(), process::used(pid));
        let events = float(calls.count().max(1));
        Turn {
            calls_per_s: float(calls.count()) / elapsed,
            posts_per_s: float(arrivals.count()) / elapsed,
            calls,
            arrivals,
            cpu_us: cpu().saturating_sub(busy).as_secs_f64() * 1e6 / events,
            written: float(now.written - used.written) / events,
            rss: float(process::rss(pid)),
            growth: owed() - owing,
        }
    }

    /// Waits for all that is owed, and notes what was lost or came twice.
    pub(crate) async fn settle(&self, what: &str, report: &mut Report) {
        let owed = self.ledger.owed();
        let came = self.sink.await_distinct(owed).await;
        if came < owed {
            report.fault(format!("{what}: {} of {owed} POSTs lost", owed - came));
        }
        let again = self.sink.duplicates();
        if again > 0 {
            report.fault(format!("{what}: {again} POSTs came twice"));
        }
        let refused = self.ledger.all_refused();
        if refused > 0 {
            report.fault(format!("{what}: {refused} CALLs refused"));
        }
    }
}

/// A gateway with so many receivers: a line of the table.
#[derive(Debug, Clone)]
struct Entrant {
    kind: Kind,
    receivers: u32,
}

/// The gateways that take part.
pub(crate) async fn peers(report: &mut Table) -> io::Result<Vec<Kind>> {
    let mut installed = Vec::new();
    for peer in Peer::ALL {
        match peer.install().await {
            Ok(ready) => installed.push(Kind::Peer(ready)),
            Err(reason) => {
                let note = format!("**SKIPPED: {}**: {}", peer.made_with(), reason.trim());
                io::Write::write_all(&mut io::stderr(), format!("\n{note}\n\n").as_bytes())?;
                report.note(note);
            }
        }
    }
    Ok(installed)
}

pub(crate) async fn run(options: &Options, report: &mut Report) -> io::Result<()> {
    let mut table = Table::new(
        "Closed loop, end to end",
        &[
            "stations",
            "gateway",
            "webhooks",
            "events/s",
            "POSTs/s",
            "of rounds",
            "CALL p50",
            "p99",
            "frame → POST p50",
            "p99",
            "CPU/event",
            "disk/event",
            "RSS",
            "backlog",
        ],
    );
    let mut entrants = Vec::new();
    if options.wants(Section::Ours) {
        for receivers in [1, 4] {
            let kind = Kind::Ours;
            entrants.push(Entrant { kind, receivers });
        }
    }
    if options.wants(Section::Cluster) {
        for kind in [Kind::Cluster(16), Kind::Cluster(4), Kind::Forwarding(16)] {
            let receivers = 1;
            entrants.push(Entrant { kind, receivers });
        }
    }
    if options.wants(Section::Peers) {
        let peers = peers(&mut table).await?.into_iter();
        entrants.extend(peers.map(|kind| Entrant { kind, receivers: 1 }));
    }
    for stations in options.stations() {
        let mut turns: BTreeMap<usize, Vec<Turn>> = BTreeMap::new();
        for _ in 0..options.rounds() {
            for (number, entrant) in entrants.iter().enumerate() {
                let turn = entrant.take_turn(stations, options, report).await;
                turns.entry(number).or_default().push(turn);
            }
        }
        for (number, entrant) in entrants.iter().enumerate() {
            let turns = turns.remove(&number).unwrap_or_default();
            table.row(entrant.tell(stations, turns, report));
        }
    }
    table.note(
        "The median of the rounds, and their range. Stations wait while more than 4,096 POSTs \
         per receiver are owed; \"backlog\" is what a window added to what is owed.",
    );
    report.add(table)?;
    if options.wants(Section::Ours) {
        half_load(options, report).await?;
    }
    Ok(())
}

impl Entrant {
    async fn take_turn(&self, stations: usize, options: &Options, report: &mut Report) -> Turn {
        let scene = Scene::new(&self.kind, self.receivers).await;
        let fleet = scene.fleet(stations, Pacing::ClosedLoop).await;
        sleep(options.warm_up()).await;
        let turn = scene.watch(&fleet, options.window()).await;
        fleet.stop().await;
        let what = format!("{} with {stations} stations", self.kind.name());
        scene.settle(&what, report).await;
        turn
    }

    fn tell(&self, stations: usize, mut turns: Vec<Turn>, report: &mut Report) -> Vec<String> {
        turns.sort_by(|a, b| a.posts_per_s.total_cmp(&b.posts_per_s));
        let rate = |turn: Option<&Turn>| turn.map_or(0.0, |turn| turn.posts_per_s);
        let (least, most) = (rate(turns.first()), rate(turns.last()));
        let turn = turns.swap_remove(turns.len() / 2);
        let name = format!("{}.{stations}.{}", self.kind.name(), self.receivers);
        let (p99, arrival) = (turn.calls.quantile_ms(0.99), &turn.arrivals);
        for (what, value) in [
            ("events_per_s", turn.calls_per_s),
            ("posts_per_s", turn.posts_per_s),
            ("call_p50_ms", turn.calls.quantile_ms(0.5)),
            ("call_p99_ms", p99),
            ("arrival_p50_ms", arrival.quantile_ms(0.5)),
            ("arrival_p99_ms", arrival.quantile_ms(0.99)),
            ("cpu_us", turn.cpu_us),
            ("written_bytes", turn.written),
            ("rss_bytes", turn.rss),
        ] {
            report.set(format!("{name}.{what}"), value);
        }
        if self.receivers == 1 && DRAWN.contains(&stations) {
            let title = format!("{}, {stations} stations, full load", self.kind.name());
            report.distribution(title, arrival);
        }
        vec![
            stations.to_string(),
            self.kind.title().to_owned(),
            self.receivers.to_string(),
            thousands(turn.calls_per_s),
            thousands(turn.posts_per_s),
            format!("{}–{}", thousands(least), thousands(most)),
            ms(turn.calls.quantile_ms(0.5)),
            ms(p99),
            ms(arrival.quantile_ms(0.5)),
            ms(arrival.quantile_ms(0.99)),
            format!("{:.1} µs", turn.cpu_us),
            format!("{:.0} B", turn.written),
            mib(turn.rss),
            format!("{:+.0}", turn.growth),
        ]
    }
}

/// A CALL's latency where there is room left: at half of what the closed loop reached.
async fn half_load(options: &Options, report: &mut Report) -> io::Result<()> {
    let mut table = Table::new(
        "Half of the maximum load, 1 webhook",
        &[
            "stations",
            "offered",
            "events/s",
            "CALL p50",
            "p99",
            "p99.9",
            "frame → POST p50",
            "p99",
        ],
    );
    for stations in options.stations() {
        let most = report.value(&format!("ours.{stations}.1.posts_per_s"));
        let offered = most.unwrap_or_default() / 2.0;
        let scene = Scene::new(&Kind::Ours, 1).await;
        let fleet = scene.fleet(stations, Pacing::PerSecond(offered)).await;
        sleep(options.warm_up()).await;
        let turn = scene.watch(&fleet, options.window()).await;
        fleet.stop().await;
        let what = format!("ours at half load with {stations} stations");
        scene.settle(&what, report).await;
        let p99 = turn.calls.quantile_ms(0.99);
        report.set(format!("half.{stations}.call_p99_ms"), p99);
        table.row(vec![
            stations.to_string(),
            thousands(offered),
            thousands(turn.calls_per_s),
            ms(turn.calls.quantile_ms(0.5)),
            ms(p99),
            ms(turn.calls.quantile_ms(0.999)),
            ms(turn.arrivals.quantile_ms(0.5)),
            ms(turn.arrivals.quantile_ms(0.99)),
        ]);
    }
    report.add(table)
}
