//! `demo`: the whole of Pipelet in less than a minute, with nothing but this machine.
//!
//! ```text
//! chargers ──ocpp──> the demo's daemon ──POST──> receiver ── posts ─┐
//!    │ views                └── deliveries ── watch ──> snapshot ───┤
//!    └───────────────────────────────────────────────────────────> tour ──> ui, or transcript
//! ```
//!
//! Invariant: whatever ends it, the terminal is as it was, the daemon has ended, and its directory
//! is gone; only a daemon that failed leaves its log.

mod cluster;
mod daemon;
mod deliveries;
mod error;
mod process;
mod receiver;
mod tour;
mod transcript;
mod ui;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use crossterm::event::{KeyCode, KeyEvent};
use pipelet_proto::v1;
use pipelet_simulator::{
    ArrivalPattern, ChargePointStatus, Clock, Endpoint, Fleet, OcppUrl, Options, Outages, Speed,
    StationView,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, timeout},
};

use self::{
    daemon::Daemon,
    deliveries::Snapshot,
    error::DemoError,
    receiver::{Post, ReceiverMode},
    tour::{Phase, Progress, Tour},
    transcript::Transcript,
    ui::UiState,
};
use crate::{
    cli::Demo,
    client::Client,
    error::{Error, ExitStatus},
    output::{Format, Printer},
    settings::Environment,
    system::{
        interrupts::Interrupts,
        screen::{self, Input, Screen},
        when,
    },
};

const CHARGERS: [&str; 3] = ["DEMO-01", "DEMO-02", "DEMO-03"];

/// A minute of the demo is two hours for its chargers.
const SPEED: Speed = Speed::fixed(120);

/// About how long the tour is: the chargers' time has caught up with the wall clock then.
const SPAN: Duration = Duration::from_secs(45);

/// POSTs that are remembered for the screen.
const POSTS: usize = 200;

/// How often the tour may go on, and is drawn.
const TICK: Duration = Duration::from_millis(100);

/// How long the last deliveries may take after a quit.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where it is shown.
enum Display {
    Screen(Screen),
    /// To a program, or where there is no terminal.
    Transcript,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Completed,
    Quit,
    Interrupted,
}

struct Run {
    tour: Tour,
    began: Instant,
    fleet: Fleet,
    fleet_ended: Option<Instant>,
    client: Client,
    webhook: u64,
    mode: watch::Sender<ReceiverMode>,
    snapshot: watch::Receiver<Snapshot>,
    posts: mpsc::Receiver<Post>,
    latest: Vec<(Duration, Post)>,
    /// Replays under way, with how many deliveries each sent again.
    replays: JoinSet<Result<u64, Error>>,
    transcript: Transcript,
}

pub(crate) async fn run(
    args: Demo,
    environment: &Environment,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let mut interrupts = Interrupts::listen()?;
    let program = daemon::find(args.pipeletd, environment)?;
    if args.cluster {
        let nats = cluster::find_nats(args.nats_server, environment)?;
        return cluster::run(&program, &nats, &mut interrupts, printer).await;
    }
    let mut daemon = Daemon::start(&program).await?;
    let outcome = run_tour(&mut daemon, args.headless, &mut interrupts, printer).await;
    daemon.stop().await;
    let (end, transcript) = outcome?;
    transcript.finish(printer)?;
    if printer.format() == Format::Table && end != Ending::Interrupted {
        printer.text(&next_steps(&program))?;
    }
    Ok(match end {
        Ending::Completed if transcript.is_balanced() => ExitStatus::Success,
        Ending::Completed => ExitStatus::Failed,
        Ending::Quit => ExitStatus::Success,
        Ending::Interrupted => ExitStatus::Interrupted,
    })
}

/// Everything between the daemon's start and its end.
async fn run_tour(
    daemon: &mut Daemon,
    headless: bool,
    interrupts: &mut Interrupts,
    printer: &Printer,
) -> Result<(Ending, Transcript), Error> {
    let client = Client::new(&daemon.settings().map_err(DemoError::from)?)?;
    let (listener, url) = receiver::listen().await.map_err(DemoError::Receiver)?;
    let secret = format!("demo-{:016x}", fastrand::u64(..));
    let webhook = subscribe(&client, url, &secret).await?;
    let (mode, receiver_mode) = watch::channel(ReceiverMode::Healthy);
    let (sender, posts) = mpsc::channel(POSTS);
    let (progress, snapshot) = watch::channel(Snapshot::default());
    let serving = receiver::serve(listener, secret, receiver_mode, sender);
    let watching = deliveries::watch(client.clone(), webhook, progress);
    let screen = !headless && printer.format() == Format::Table && Screen::is_available();
    let mut display = if screen {
        Display::Screen(Screen::open()?)
    } else {
        Display::Transcript
    };
    let mut run_state = Run {
        tour: Tour::new(!screen),
        began: Instant::now(),
        fleet: fleet(daemon.ocpp(), &CHARGERS)?,
        fleet_ended: None,
        client,
        webhook,
        mode,
        snapshot,
        posts,
        latest: Vec::new(),
        replays: JoinSet::new(),
        transcript: Transcript::new(screen),
    };
    let end = tokio::select! {
        end = run_state.play(&mut display, interrupts, printer) => end?,
        served = serving => {
            let why = served.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
            return Err(DemoError::Receiver(why).into());
        }
        error = watching => return Err(error),
        died = daemon.died() => return Err(died.into()),
    };
    Ok((end, run_state.transcript))
}

async fn subscribe(client: &Client, url: String, secret: &str) -> Result<u64, Error> {
    let request = v1::CreateWebhookRequest {
        webhook: Some(v1::WebhookSpec {
            name: "Demo".to_owned(),
            url,
            events: vec!["group:standard".to_owned()],
            secret_header: Some(receiver::SECRET_HEADER.to_owned()),
            secret_value: Some(secret.to_owned()),
            ..v1::WebhookSpec::default()
        }),
    };
    let answer = client.webhooks().create_webhook(request).await?;
    let webhook = answer.into_inner().webhook;
    Ok(webhook.ok_or(Error::Incomplete("webhook"))?.id)
}

fn fleet(ocpp: &str, ids: &[&str]) -> Result<Fleet, DemoError> {
    let url = OcppUrl::of(ocpp, "127.0.0.1").ok_or(DemoError::NoAddress)?;
    Ok(Fleet::start(Options {
        endpoint: Endpoint::new(url, None, None)?,
        ids: ids.iter().map(|&id| id.to_owned()).collect(),
        connectors: 1,
        arrivals: ArrivalPattern::Brisk,
        outages: Outages::Never,
        clock: Clock::ending_at_wall_time(when::now(), SPAN, SPEED),
        seed: fastrand::u64(..),
    }))
}

impl Run {
    /// Runs to whichever end, and takes the final counts there.
    async fn play(
        &mut self,
        display: &mut Display,
        interrupts: &mut Interrupts,
        printer: &Printer,
    ) -> Result<Ending, Error> {
        let end = self.run(display, interrupts, printer).await?;
        self.record_posts(printer)?;
        let delivery_counts = timeout(
            SETTLE_TIMEOUT,
            deliveries::counts(&self.client, self.webhook),
        );
        // An interrupt does not wait for a daemon that hangs.
        if let Ok(delivery_counts) = delivery_counts.await {
            self.transcript.update(delivery_counts?);
        }
        Ok(end)
    }

    async fn run(
        &mut self,
        display: &mut Display,
        interrupts: &mut Interrupts,
        printer: &Printer,
    ) -> Result<Ending, Error> {
        self.transcript
            .begin_phase(Phase::Starting, Duration::ZERO, printer)?;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    self.record_posts(printer)?;
                    self.advance(printer)?;
                    self.draw(display)?;
                    if self.tour.phase() == Phase::Done {
                        return Ok(Ending::Completed);
                    }
                }
                Some(post) = self.posts.recv() => self.record_post(post, printer)?,
                running = self.fleet.record_next(), if self.fleet_ended.is_none() => {
                    self.fleet_ended = (!running).then(Instant::now);
                }
                Some(replayed) = self.replays.join_next() => {
                    let replayed = replayed.map_err(io::Error::other)??;
                    self.transcript.replayed(replayed);
                }
                input = input(display) => match input? {
                    Input::Key(key) if screen::is_quit(key) => return self.quit(key, printer).await,
                    Input::Key(KeyEvent { code: KeyCode::Char('r' | 'R'), .. }) => {
                        self.tour.replay();
                    }
                    Input::Key(_) => {}
                    Input::Resized => self.draw(display)?,
                },
                () = interrupts.next() => return Ok(Ending::Interrupted),
            }
        }
    }

    fn advance(&mut self, printer: &Printer) -> Result<(), Error> {
        let progress = self.progress();
        self.transcript.update(progress.delivery_counts);
        let now = self.began.elapsed();
        let next = self.tour.advance(&progress, now);
        self.mode.send_replace(self.mode_now());
        let Some(phase) = next else {
            return Ok(());
        };
        self.transcript.begin_phase(phase, now, printer)?;
        match phase {
            Phase::Replaying => {
                let client = self.client.clone();
                self.replays.spawn(replay(client, self.webhook));
            }
            Phase::Closing => self.fleet.shut_down(),
            _ => {}
        }
        Ok(())
    }

    fn progress(&self) -> Progress {
        let charges = |(_, view): &(&str, StationView)| {
            let mut connectors = view.connectors.iter();
            connectors.any(|connector| connector.status == ChargePointStatus::Charging)
        };
        let snapshot = self.snapshot.borrow();
        Progress {
            posts: self.transcript.posts(),
            charging: self.fleet.views().filter(charges).count(),
            timeouts: self.transcript.timeouts(),
            delivery_counts: snapshot.delivery_counts,
            // Counts from before may miss its last messages.
            fleet_ended: self.fleet_ended.is_some() && self.fleet_ended < snapshot.asked,
        }
    }

    const fn mode_now(&self) -> ReceiverMode {
        self.tour.phase().mode(self.transcript.timeouts())
    }

    fn record_post(&mut self, post: Post, printer: &Printer) -> io::Result<()> {
        let now = self.began.elapsed();
        self.transcript.record_post(&post, now, printer)?;
        self.mode.send_replace(self.mode_now());
        if self.latest.len() == POSTS {
            self.latest.remove(0);
        }
        self.latest.push((now, post));
        Ok(())
    }

    fn record_posts(&mut self, printer: &Printer) -> io::Result<()> {
        while let Ok(post) = self.posts.try_recv() {
            self.record_post(post, printer)?;
        }
        Ok(())
    }

    fn draw(&self, display: &mut Display) -> io::Result<()> {
        let Display::Screen(screen) = display else {
            return Ok(());
        };
        let snapshot = self.snapshot.borrow().clone();
        let state = UiState {
            elapsed: self.began.elapsed(),
            now: when::now(),
            phase: self.tour.phase(),
            mode: self.mode_now(),
            chargers: self.fleet.views().collect(),
            posts: &self.latest,
            snapshot: &snapshot,
        };
        screen.draw(|frame| ui::draw(frame, &state))
    }

    /// What is under way may still arrive, so that the final counts have it.
    async fn quit(&mut self, key: KeyEvent, printer: &Printer) -> Result<Ending, Error> {
        if key.code == KeyCode::Char('c') {
            return Ok(Ending::Interrupted);
        }
        self.mode.send_replace(ReceiverMode::Healthy);
        self.fleet.shut_down();
        let settled = async {
            self.fleet.join().await;
            let mut ticks = tokio::time::interval(TICK);
            loop {
                ticks.tick().await;
                let delivery_counts = deliveries::counts(&self.client, self.webhook).await?;
                self.record_posts(printer)?;
                if delivery_counts.pending == 0 {
                    return Ok::<(), Error>(());
                }
            }
        };
        let _ = timeout(SETTLE_TIMEOUT, settled).await;
        Ok(Ending::Quit)
    }
}

/// What is done at the terminal, where there is one.
async fn input(display: &mut Display) -> io::Result<Input> {
    match display {
        Display::Screen(screen) => screen.input().await,
        Display::Transcript => std::future::pending().await,
    }
}

/// Sends all dead letters again, and returns how many.
async fn replay(client: Client, webhook: u64) -> Result<u64, Error> {
    let filter = v1::FailedDeliveryFilter {
        webhook_id: Some(webhook),
        ..v1::FailedDeliveryFilter::default()
    };
    let request = v1::ReplayRequest {
        which: Some(v1::replay_request::Which::Filter(filter)),
        unwatched: false,
    };
    let mut stream = client
        .failed_deliveries()
        .replay(request)
        .await?
        .into_inner();
    let mut replayed = 0;
    while let Some(progress) = stream.message().await? {
        replayed = progress.replayed;
        if progress.done {
            break;
        }
    }
    Ok(replayed)
}

/// What to do next, with the programs as this one was found.
fn next_steps(daemon: &Path) -> String {
    let called = std::env::args_os().next().map(PathBuf::from);
    let own = called.unwrap_or_else(|| "pipeletctl".into());
    let beside = std::env::current_exe().is_ok_and(|path| path.parent() == daemon.parent());
    let on_search_path = own.components().count() == 1;
    let daemon = match daemon.file_name() {
        Some(name) if beside && on_search_path => name.as_ref(),
        _ => daemon,
    };
    let here = std::env::current_dir().unwrap_or_default();
    let shown = |path: &Path| match path.strip_prefix(&here) {
        // A bare name would be looked for on the search path.
        Ok(near) if near.components().count() == 1 => format!("./{}", near.display()),
        Ok(near) => near.display().to_string(),
        Err(_) => path.display().to_string(),
    };
    let (daemon, own) = (shown(daemon), shown(&own));
    format!(
        "\nGo on in two terminals; the README has a receiver for port 3000:\n  {daemon} --dev\n  \
         {own} webhooks create --name Mine --event '*' \\\n    --url \
         http://127.0.0.1:3000/webhooks/ocpp\n  {own} simulate --stations 50 --scenario day"
    )
}
