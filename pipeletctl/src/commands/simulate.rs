//! `simulate`: stations on real sockets against any daemon, and how it took them.
//!
//! Invariant: another machine is never loaded without a yes.

use std::{fmt::Write as _, time::Duration};

use pipelet_proto::v1;
use pipelet_simulator::{
    ArrivalPattern, Clock, Endpoint, EndpointError, Fleet, FleetStats, OcppUrl, Options, Outages,
    Speed,
};

use crate::{
    cli::{Scenario, Simulate},
    client::Client,
    error::{CommandError, Error, ExitStatus},
    output::Printer,
    settings::Settings,
    system::{interrupts::Interrupts, secret::Secret, when},
    view::Simulation,
    words::counted,
};

/// How often the connections are cut in a storm, by the wall clock.
const STORM: Duration = Duration::from_secs(10);

/// How long stations are reachable, and how long they are not, by their own time.
const UP: Duration = Duration::from_mins(20);
const DOWN: Duration = Duration::from_mins(30);

const DAY: Duration = Duration::from_hours(24);

/// After so long without a station, the central system is away.
const OUTAGE: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
enum SimulateError {
    #[error("{0} is not on this machine")]
    NotLoopback(OcppUrl),
    #[error("the daemon does not say where stations connect")]
    NoAddress,
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error("no station could connect to {url}: {why}")]
    NoStationConnected { url: OcppUrl, why: String },
}

impl From<SimulateError> for Error {
    fn from(error: SimulateError) -> Self {
        let (status, hint) = match error {
            SimulateError::NotLoopback(_) => (ExitStatus::Usage, "add --yes where you may load it"),
            SimulateError::NoAddress => (ExitStatus::Usage, "name it with --ocpp-url"),
            SimulateError::Endpoint(_) => {
                (ExitStatus::Usage, "--ca-file names the authorities (PEM)")
            }
            SimulateError::NoStationConnected { .. } => (
                ExitStatus::Unreachable,
                "see --ocpp-url, --password-file where stations have passwords, and --ca-file for \
                 wss://",
            ),
        };
        CommandError::new(status, Some(hint), error).into()
    }
}

pub(crate) async fn run(
    args: Simulate,
    settings: &Settings,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let url = match &args.ocpp_url {
        Some(url) => url.clone(),
        None => ocpp_url_of_daemon(client).await?,
    };
    if !url.is_loopback() && !args.yes {
        return Err(SimulateError::NotLoopback(url).into());
    }
    let password = Secret::given(None, args.password_file.clone())?.map(Secret::into_text);
    let endpoint = Endpoint::new(url.clone(), password, settings.authorities.as_deref())
        .map_err(SimulateError::from)?;
    let duration = duration(&args);
    let mut interrupts = Interrupts::listen()?;
    let (seconds, speed) = (duration.as_secs_f64(), args.speed);
    printer.note(&format!(
        "{} at {url} for {seconds} s, at {speed}; Ctrl-C ends",
        counted(args.stations.into(), "station", "stations")
    ));
    let mut fleet = Fleet::start(options(&args, endpoint, duration));
    let began = tokio::time::Instant::now();
    let interrupted = watch(&mut fleet, duration, &mut interrupts, printer).await;
    let took = began.elapsed();
    fleet.shut_down();
    tokio::select! {
        () = fleet.join() => {}
        // A second interrupt ends at once.
        () = interrupts.next() => {}
    }
    if let (0, Some(why)) = (fleet.stats().connects, &fleet.stats().last_failure) {
        let why = why.clone();
        return Err(SimulateError::NoStationConnected { url, why }.into());
    }
    printer.one(&Simulation::new(&args, took, fleet.stats()))?;
    let mut said = fleet.stats().by_action.keys();
    if fleet.stats().answered > 0 && said.all(|action| action.as_str() == "BootNotification") {
        printer.hint("no station was accepted: `pipeletctl stations list` shows their boot policy");
    }
    if fleet.stats().connections_lost > 0 {
        printer.hint(
            "the daemon ended connections: it went away, or another simulation has the same ids \
             (--prefix gives this one others)",
        );
    }
    Ok(status(interrupted, args.stations, fleet.stats()))
}

/// Counts until the time is over; true where it was interrupted before.
async fn watch(
    fleet: &mut Fleet,
    duration: Duration,
    interrupts: &mut Interrupts,
    printer: &Printer,
) -> bool {
    let bar = printer.progress("connecting");
    bar.set_length(duration.as_secs());
    let over = tokio::time::sleep(duration);
    tokio::pin!(over);
    let mut second = tokio::time::interval(Duration::from_millis(250));
    let began = tokio::time::Instant::now();
    let mut reach = ConnectivityMonitor::default();
    loop {
        tokio::select! {
            () = &mut over => return false,
            () = interrupts.next() => return true,
            _ = second.tick() => {
                bar.set_message(progress(fleet));
                bar.set_position(began.elapsed().as_secs());
                if let Some(note) = reach.check(fleet.online(), tokio::time::Instant::now()) {
                    let why = fleet.stats().last_failure.as_deref().filter(|_| fleet.online() == 0);
                    let why = why.map_or_else(String::new, |why| format!(": {why}"));
                    bar.suspend(|| printer.note(&format!("{note}{why}")));
                }
            }
            running = fleet.record_next() => if !running {
                return false;
            },
        }
    }
}

/// Whether stations are connected, for those who see no progress bar.
#[derive(Debug, Default)]
struct ConnectivityMonitor {
    was_online: bool,
    disconnected_since: Option<tokio::time::Instant>,
    outage_reported: bool,
}

impl ConnectivityMonitor {
    /// The remark that is due now. That all stations dial again at once is no outage.
    fn check(&mut self, online: usize, now: tokio::time::Instant) -> Option<&'static str> {
        if online > 0 {
            self.was_online = true;
            self.disconnected_since = None;
            return std::mem::take(&mut self.outage_reported).then_some("stations are connected");
        }
        let disconnected_since = *self.disconnected_since.get_or_insert(now);
        let is_news = !self.outage_reported && now - disconnected_since >= OUTAGE;
        self.outage_reported |= is_news;
        is_news.then_some(if self.was_online {
            "no station is connected any more; they go on dialling"
        } else {
            "no station could connect yet; they go on dialling"
        })
    }
}

fn progress(fleet: &Fleet) -> String {
    let stats = fleet.stats();
    let mut text = format!(
        "{} connected  {} calls  {} answered  {} errors",
        fleet.online(),
        stats.sent,
        stats.answered,
        stats.errors(),
    );
    if let Some(latency) = stats.latency() {
        let _ = write!(text, "  p99 {} ms", latency.p99.as_millis());
    }
    text
}

async fn ocpp_url_of_daemon(client: &Client) -> Result<OcppUrl, Error> {
    let answer = client.daemon().get_status(v1::GetStatusRequest {}).await?;
    let address = answer.into_inner().ocpp_address;
    Ok(OcppUrl::of(&address, client.host()).ok_or(SimulateError::NoAddress)?)
}

fn duration(args: &Simulate) -> Duration {
    args.duration.unwrap_or_else(|| match args.scenario {
        Scenario::Day => args.speed.to_wall_time(DAY),
        Scenario::Storm => Duration::from_mins(1),
        Scenario::Offline => Duration::from_mins(3),
    })
}

fn options(args: &Simulate, endpoint: Endpoint, duration: Duration) -> Options {
    let width = args.stations.to_string().len().max(2);
    let id = |number: u32| format!("{}-{number:0width$}", args.prefix);
    let clock = Clock::ending_at_wall_time(when::now(), duration, args.speed);
    let day = ArrivalPattern::Day {
        began: clock.start(),
    };
    let (arrivals, outages) = match args.scenario {
        Scenario::Day => (day, Outages::Never),
        Scenario::Storm => (ArrivalPattern::Busy, storm(args.speed)),
        Scenario::Offline => (
            ArrivalPattern::Busy,
            Outages::Independent { up: UP, down: DOWN },
        ),
    };
    Options {
        endpoint,
        ids: (1..=args.stations).map(id).collect(),
        connectors: args.connectors,
        arrivals,
        outages,
        clock,
        seed: args.seed,
    }
}

fn storm(speed: Speed) -> Outages {
    Outages::Simultaneous {
        every: speed.to_simulated_time(STORM),
    }
}

fn status(interrupted: bool, stations: u32, stats: &FleetStats) -> ExitStatus {
    let all_came = stats.stations() == usize::try_from(stations).unwrap_or(usize::MAX);
    if interrupted {
        ExitStatus::Interrupted
    } else if all_came && stats.errors() == 0 && stats.connections_lost == 0 {
        ExitStatus::Success
    } else {
        ExitStatus::PartlyFailed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_of_once() {
        let began = tokio::time::Instant::now();
        let mut reach = ConnectivityMonitor::default();
        let gone = Some("no station is connected any more; they go on dialling");
        let not_yet = Some("no station could connect yet; they go on dialling");
        for (second, online, said) in [
            (0, 0, None),
            (5, 0, not_yet),
            (6, 2, Some("stations are connected")),
            (7, 0, None),
            (9, 0, None),
            (10, 0, gone),
            (20, 0, None),
            (21, 1, Some("stations are connected")),
            (22, 2, None),
        ] {
            let now = began + Duration::from_secs(second);
            assert_eq!(reach.check(online, now), said, "after {second} s");
        }
    }
}
