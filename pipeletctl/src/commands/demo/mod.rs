//! `demo`: the whole of Pipelet in less than a minute, with nothing but this machine.
//!
//! ```text
//! chargers ──ocpp──> the demo's daemon ──POST──> receiver ── posts ─┐
//!    │ views                └── books ── watch ──> snapshot ────────┤
//!    └──────────────────────────────────────────────────────────> story ──> picture, or lines
//! ```
//!
//! Invariant: whatever ends it, the terminal is as it was, the daemon has ended, and its directory
//! is gone; only a daemon that failed leaves its log.

mod books;
mod daemon;
mod error;
mod picture;
mod receiver;
mod steps;
mod story;

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
    books::Snapshot,
    daemon::Daemon,
    error::DemoError,
    picture::Scene,
    receiver::{Mood, Post},
    steps::Steps,
    story::{Chapter, Seen, Story},
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

/// About how long the story is: the chargers' time has caught up with the wall clock then.
const SPAN: Duration = Duration::from_secs(45);

/// POSTs that are remembered for the screen.
const POSTS: usize = 200;

/// How often the story looks whether it can go on, and is drawn.
const TICK: Duration = Duration::from_millis(100);

/// How long the last deliveries may take where somebody quits.
const FAREWELL: Duration = Duration::from_secs(5);

/// How it is told.
enum Stage {
    Screen(Screen),
    /// To a program, or where there is no terminal.
    Steps,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Told,
    Quit,
    Interrupted,
}

struct Show {
    story: Story,
    began: Instant,
    fleet: Fleet,
    fleet_ended: Option<Instant>,
    client: Client,
    webhook: u64,
    mood: watch::Sender<Mood>,
    snapshot: watch::Receiver<Snapshot>,
    posts: mpsc::Receiver<Post>,
    latest: Vec<(Duration, Post)>,
    /// Replays under way, with how many deliveries each sent again.
    replays: JoinSet<Result<u64, Error>>,
    steps: Steps,
}

pub(crate) async fn run(
    args: Demo,
    environment: &Environment,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let mut interrupts = Interrupts::listen()?;
    let program = daemon::find(args.pipeletd, environment)?;
    let mut daemon = Daemon::start(&program).await?;
    let outcome = perform(&mut daemon, args.headless, &mut interrupts, printer).await;
    daemon.stop().await;
    let (end, steps) = outcome?;
    steps.close(printer)?;
    if printer.format() == Format::Table && end != End::Interrupted {
        printer.text(&further(&program))?;
    }
    Ok(match end {
        End::Told if steps.books_balance() => ExitStatus::Success,
        End::Told => ExitStatus::Failed,
        End::Quit => ExitStatus::Success,
        End::Interrupted => ExitStatus::Interrupted,
    })
}

/// Everything between the daemon's start and its end.
async fn perform(
    daemon: &mut Daemon,
    headless: bool,
    interrupts: &mut Interrupts,
    printer: &Printer,
) -> Result<(End, Steps), Error> {
    let client = Client::new(&daemon.settings().map_err(DemoError::from)?)?;
    let (listener, url) = receiver::listen().await.map_err(DemoError::Receiver)?;
    let secret = format!("demo-{:016x}", fastrand::u64(..));
    let webhook = subscribe(&client, url, &secret).await?;
    let (mood, feels) = watch::channel(Mood::Well);
    let (sender, posts) = mpsc::channel(POSTS);
    let (seen, snapshot) = watch::channel(Snapshot::default());
    let serving = receiver::serve(listener, secret, feels, sender);
    let watching = books::watch(client.clone(), webhook, seen);
    let screen = !headless && printer.format() == Format::Table && Screen::is_possible();
    let mut stage = if screen {
        Stage::Screen(Screen::open()?)
    } else {
        Stage::Steps
    };
    let mut show = Show {
        story: Story::new(!screen),
        began: Instant::now(),
        fleet: fleet(daemon.ocpp())?,
        fleet_ended: None,
        client,
        webhook,
        mood,
        snapshot,
        posts,
        latest: Vec::new(),
        replays: JoinSet::new(),
        steps: Steps::new(screen),
    };
    let end = tokio::select! {
        end = show.play(&mut stage, interrupts, printer) => end?,
        served = serving => {
            let why = served.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
            return Err(DemoError::Receiver(why).into());
        }
        error = watching => return Err(error),
        died = daemon.died() => return Err(died.into()),
    };
    Ok((end, show.steps))
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

fn fleet(ocpp: &str) -> Result<Fleet, DemoError> {
    let url = OcppUrl::of(ocpp, "127.0.0.1").ok_or(DemoError::NoAddress)?;
    Ok(Fleet::start(Options {
        endpoint: Endpoint::new(url, None, None)?,
        ids: CHARGERS.map(str::to_owned).to_vec(),
        connectors: 1,
        arrivals: ArrivalPattern::Brisk,
        outages: Outages::Never,
        clock: Clock::ending_at_wall_time(when::now(), SPAN, SPEED),
        seed: fastrand::u64(..),
    }))
}

impl Show {
    /// Runs to whichever end, and closes the books there: what was sent is in them.
    async fn play(
        &mut self,
        stage: &mut Stage,
        interrupts: &mut Interrupts,
        printer: &Printer,
    ) -> Result<End, Error> {
        let end = self.run(stage, interrupts, printer).await?;
        self.take_all(printer)?;
        let books = timeout(FAREWELL, books::books(&self.client, self.webhook));
        // Who interrupts does not wait for a daemon that hangs.
        if let Ok(books) = books.await {
            self.steps.see(books?);
        }
        Ok(end)
    }

    async fn run(
        &mut self,
        stage: &mut Stage,
        interrupts: &mut Interrupts,
        printer: &Printer,
    ) -> Result<End, Error> {
        self.steps
            .tell(Chapter::Starting, Duration::ZERO, printer)?;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    self.take_all(printer)?;
                    self.turn(printer)?;
                    self.draw(stage)?;
                    if self.story.chapter() == Chapter::Over {
                        return Ok(End::Told);
                    }
                }
                Some(post) = self.posts.recv() => self.take(post, printer)?,
                running = self.fleet.record_next(), if self.fleet_ended.is_none() => {
                    self.fleet_ended = (!running).then(Instant::now);
                }
                Some(replayed) = self.replays.join_next() => {
                    let replayed = replayed.map_err(io::Error::other)??;
                    self.steps.replayed(replayed);
                }
                input = input(stage) => match input? {
                    Input::Key(key) if screen::ends(key) => return self.quit(key, printer).await,
                    Input::Key(KeyEvent { code: KeyCode::Char('r' | 'R'), .. }) => {
                        self.story.replay();
                    }
                    Input::Key(_) => {}
                    Input::Resized => self.draw(stage)?,
                },
                () = interrupts.next() => return Ok(End::Interrupted),
            }
        }
    }

    fn turn(&mut self, printer: &Printer) -> Result<(), Error> {
        let seen = self.seen();
        self.steps.see(seen.books);
        let now = self.began.elapsed();
        let turned = self.story.turn(&seen, now);
        self.mood.send_replace(self.mood_now());
        let Some(chapter) = turned else {
            return Ok(());
        };
        self.steps.tell(chapter, now, printer)?;
        match chapter {
            Chapter::Replaying => {
                let client = self.client.clone();
                self.replays.spawn(replay(client, self.webhook));
            }
            Chapter::Closing => self.fleet.shut_down(),
            _ => {}
        }
        Ok(())
    }

    fn seen(&self) -> Seen {
        let charges = |(_, view): &(&str, StationView)| {
            let mut connectors = view.connectors.iter();
            connectors.any(|connector| connector.status == ChargePointStatus::Charging)
        };
        let snapshot = self.snapshot.borrow();
        Seen {
            posts: self.steps.posts(),
            charging: self.fleet.views().filter(charges).count(),
            silences: self.steps.silences(),
            books: snapshot.books,
            // Books from before may miss its last words.
            fleet_ended: self.fleet_ended.is_some() && self.fleet_ended < snapshot.asked,
        }
    }

    const fn mood_now(&self) -> Mood {
        self.story.chapter().mood(self.steps.silences())
    }

    fn take(&mut self, post: Post, printer: &Printer) -> io::Result<()> {
        let now = self.began.elapsed();
        self.steps.take(&post, now, printer)?;
        self.mood.send_replace(self.mood_now());
        if self.latest.len() == POSTS {
            self.latest.remove(0);
        }
        self.latest.push((now, post));
        Ok(())
    }

    fn take_all(&mut self, printer: &Printer) -> io::Result<()> {
        while let Ok(post) = self.posts.try_recv() {
            self.take(post, printer)?;
        }
        Ok(())
    }

    fn draw(&self, stage: &mut Stage) -> io::Result<()> {
        let Stage::Screen(screen) = stage else {
            return Ok(());
        };
        let snapshot = self.snapshot.borrow().clone();
        let scene = Scene {
            elapsed: self.began.elapsed(),
            now: when::now(),
            chapter: self.story.chapter(),
            mood: self.mood_now(),
            chargers: self.fleet.views().collect(),
            posts: &self.latest,
            snapshot: &snapshot,
        };
        screen.draw(|frame| picture::draw(frame, &scene))
    }

    /// Somebody has seen enough: what is under way may still arrive, so that the books say so.
    async fn quit(&mut self, key: KeyEvent, printer: &Printer) -> Result<End, Error> {
        if key.code == KeyCode::Char('c') {
            return Ok(End::Interrupted);
        }
        self.mood.send_replace(Mood::Well);
        self.fleet.shut_down();
        let settled = async {
            self.fleet.join().await;
            let mut ticks = tokio::time::interval(TICK);
            loop {
                ticks.tick().await;
                let books = books::books(&self.client, self.webhook).await?;
                self.take_all(printer)?;
                if books.pending == 0 {
                    return Ok::<(), Error>(());
                }
            }
        };
        let _ = timeout(FAREWELL, settled).await;
        Ok(End::Quit)
    }
}

/// What is done at the terminal, where there is one.
async fn input(stage: &mut Stage) -> io::Result<Input> {
    match stage {
        Stage::Screen(screen) => screen.input().await,
        Stage::Steps => std::future::pending().await,
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
fn further(daemon: &Path) -> String {
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
