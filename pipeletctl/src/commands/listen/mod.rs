//! `listen`: what happens at a daemon, sent to an application on this machine, or printed.
//!
//! Invariant: each event that the stream brings is sent until the application answers or its time
//! is up, and to one station one at a time, in their order. What is held is bounded: an
//! application that lags holds the stream back. A stream that breaks off is taken up again behind
//! the event that came last.

mod app;
mod per_station;
mod ui;

use std::time::Duration;

use crossterm::event::KeyCode;
use futures_util::{
    StreamExt as _,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use pipelet_proto::v1;
use tokio::time::sleep;

use self::{
    app::{App, Counts},
    per_station::{Job, PerStationQueues},
};
use crate::{
    cli::Listen,
    client::{Client, tail::Tail},
    commands::events,
    error::{Error, ExitStatus},
    forward::{Attempted, Forwarder, Outcome, Signer},
    output::{Format, Printer},
    settings::Settings,
    system::{
        screen::{self, Input, Screen},
        secret::Secret,
        when,
    },
    view::Forwarded,
    words::counted,
};

/// Events at once in memory.
const MAX_IN_MEMORY: usize = 256;
const MAX_IN_FLIGHT: usize = 16;
/// Between two tries to reach an application that is away: at first, and at most.
const INITIAL_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// What is told once where the application takes the caller for somebody else.
const REFUSED: &str =
    "the application refuses it: does it know the secret that this is signed with?";

pub(crate) async fn run(
    verb: Listen,
    settings: &Settings,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let secret = Secret::given(verb.secret_value, verb.secret_value_file)?;
    let signer = Secret::given(verb.signing_secret, verb.signing_secret_file)?;
    let request = v1::TailEventsRequest {
        events: verb.events,
        station_ids: verb.stations,
        since: verb
            .since
            .map(|since| when::on_wire(since.resolve(when::now()))),
        ..v1::TailEventsRequest::default()
    };
    let Some(forward_to) = verb.forward_to else {
        return events::tail(request, verb.end, client, printer).await;
    };
    let signer = Signer::with(signer, settings.key.value.as_ref())?;
    let generated_secret = signer.generated_secret().map(str::to_owned);
    let target = forward_to.to_string();
    let forwarder = Forwarder::new(forward_to, verb.secret_header.zip(secret), signer)?;
    let tail = Tail::open(request, client).await?;
    // A stream keeps its place while an answer of the application is looked at.
    let mut events = Box::pin(stream::unfold(tail, |mut tail| async move {
        Some((tail.next(printer).await, tail))
    }));
    let mut display = if !verb.plain && printer.format() == Format::Table && Screen::is_available()
    {
        Display::Screen(App::new(target, generated_secret), Screen::open()?)
    } else {
        if let Some(generated_secret) = generated_secret {
            printer.note(&format!(
                "signing with {generated_secret}, always the same for this API key: tell it the application"
            ));
        }
        // Whatever happens after this line is sent.
        printer.note("waiting for events; Ctrl-C ends");
        Display::Lines
    };
    let mut queues = PerStationQueues::default();
    let mut attempts = FuturesUnordered::new();
    let (mut received, mut sent, mut was_refused) = (0, 0, false);
    let limit = verb.end.count.unwrap_or(u64::MAX);
    while sent < limit {
        while attempts.len() < MAX_IN_FLIGHT
            && let Some(job) = queues.take()
        {
            attempts.push(attempt(&forwarder, job, Trigger::InOrder));
        }
        display.draw()?;
        tokio::select! {
            Some(message) = events.next(), if queues.in_memory < MAX_IN_MEMORY && received < limit => {
                let message = message?;
                if message.missed > 0 {
                    let missed = counted(message.missed, "event was", "events were");
                    display.note(&format!("{missed} no longer kept"), printer);
                }
                if let Some(event) = message.event {
                    received += 1;
                    display.received(&event);
                    queues.push(Job { event, attempt: 1 });
                }
            }
            Some((job, trigger, attempted)) = attempts.next() => {
                let no_answer = matches!(attempted.outcome, Outcome::NoAnswer(_));
                let goes_on = no_answer && trigger == Trigger::InOrder;
                let settles = trigger == Trigger::InOrder && !no_answer;
                display.attempted(&job, &attempted, settles, printer)?;
                if matches!(attempted.outcome, Outcome::Answered(401 | 403, _)) && !was_refused {
                    was_refused = true;
                    display.note(REFUSED, printer);
                }
                if goes_on {
                    attempts.push(attempt(&forwarder, job.again(), Trigger::InOrder));
                } else if settles {
                    queues.done(&job.event.station_id);
                    sent += 1;
                }
            }
            input = display.input() => match input? {
                Input::Key(key) if screen::is_quit(key) => {
                    if let Some(counts) = display.close() {
                        printer.note(&counts.to_string());
                    }
                    return Ok(ExitStatus::Success);
                }
                Input::Key(key) => {
                    if let Some(job) = display.handle_key(key.code) {
                        attempts.push(attempt(&forwarder, job, Trigger::Resend));
                    }
                }
                Input::Resized => {}
            },
        }
    }
    Ok(ExitStatus::Success)
}

/// Where events and their outcomes are shown.
#[expect(clippy::large_enum_variant, reason = "there is one")]
enum Display {
    Lines,
    Screen(App, Screen),
}

impl Display {
    fn draw(&mut self) -> Result<(), Error> {
        if let Self::Screen(app, screen) = self {
            screen.draw(|frame| ui::draw(frame, app))?;
        }
        Ok(())
    }

    async fn input(&mut self) -> Result<Input, Error> {
        match self {
            Self::Lines => std::future::pending().await,
            Self::Screen(_, screen) => Ok(screen.input().await?),
        }
    }

    /// Leaves the screen, and returns its counts.
    fn close(self) -> Option<Counts> {
        match self {
            Self::Lines => None,
            Self::Screen(app, _) => Some(app.counts),
        }
    }

    fn received(&mut self, event: &v1::Event) {
        if let Self::Screen(app, _) = self {
            app.received(event.clone());
        }
    }

    fn attempted(
        &mut self,
        job: &Job,
        attempted: &Attempted,
        settles: bool,
        printer: &Printer,
    ) -> Result<(), Error> {
        let forwarded = Forwarded::new(&job.event, job.attempt, attempted);
        match self {
            Self::Lines => printer.follow(&forwarded, &forwarded.line())?,
            Self::Screen(app, _) => app.attempted(forwarded, &attempted.outcome, settles),
        }
        Ok(())
    }

    fn note(&mut self, text: &str, printer: &Printer) {
        match self {
            Self::Lines => printer.note(text),
            Self::Screen(app, _) => text.clone_into(&mut app.note),
        }
    }

    /// What is to be sent once more, where the key means that.
    fn handle_key(&mut self, key: KeyCode) -> Option<Job> {
        match self {
            Self::Lines => None,
            Self::Screen(app, _) => app.handle_key(key),
        }
    }
}

/// Whether an attempt is made in its station's order, or because of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trigger {
    InOrder,
    Resend,
}

fn attempt(
    forwarder: &Forwarder,
    job: Job,
    trigger: Trigger,
) -> BoxFuture<'_, (Job, Trigger, Attempted)> {
    Box::pin(async move {
        if job.attempt > 1 && matches!(trigger, Trigger::InOrder) {
            sleep(backoff(job.attempt - 2)).await;
        }
        let attempted = forwarder.post(&job.event, job.attempt, when::now()).await;
        (job, trigger, attempted)
    })
}

/// How long to wait before a retry, of which the first is number 0.
fn backoff(tries: u32) -> Duration {
    let longer = INITIAL_BACKOFF.saturating_mul(2_u32.saturating_pow(tries));
    longer.min(MAX_BACKOFF)
}
