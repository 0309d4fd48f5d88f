//! `listen`: what happens at a daemon, sent to an application on this machine.
//!
//! Invariant: each event that the stream brings is sent until the application answers or its time
//! is up, and to one station one at a time, in their order. What is held is bounded: an
//! application that lags holds the stream back. A stream that breaks off is taken up again behind
//! the event that came last.

mod board;
mod lanes;
mod picture;

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
    board::{Board, Counts},
    lanes::{Job, Lanes},
};
use crate::{
    cli::Listen,
    client::{Client, tail::Tail},
    error::{Error, ExitStatus},
    forward::{Attempted, Forwarder, Outcome, Signing},
    output::{Format, Printer},
    system::{
        screen::{self, Input, Screen},
        secret::Secret,
        when,
    },
    view::Forwarded,
    words::counted,
};

/// Events at once in memory.
const MAX_HELD: usize = 256;
const MAX_IN_FLIGHT: usize = 16;
/// Between two tries to reach an application that is away: at first, and at most.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

pub(crate) async fn run(
    verb: Listen,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let secret = Secret::given(verb.secret_value, verb.secret_value_file)?;
    let signing = Secret::given(verb.signing_secret, verb.signing_secret_file)?;
    let signing = Signing::with(signing)?;
    let made = signing.made().map(str::to_owned);
    let target = verb.forward_to.to_string();
    let forwarder = Forwarder::new(verb.forward_to, verb.secret_header.zip(secret), signing)?;
    let request = v1::TailEventsRequest {
        events: verb.events,
        station_ids: verb.stations,
        since: verb
            .since
            .map(|since| when::on_wire(since.resolve(when::now()))),
        ..v1::TailEventsRequest::default()
    };
    let tail = Tail::open(request, client).await?;
    // A stream keeps its place while an answer of the application is looked at.
    let mut events = Box::pin(stream::unfold(tail, |mut tail| async move {
        Some((tail.next(printer).await, tail))
    }));
    let mut shown = if !verb.plain && printer.format() == Format::Table && Screen::is_possible() {
        Shown::Board(Board::new(target, made), Screen::open()?)
    } else {
        if let Some(made) = made {
            printer.note(&format!("signing with {made}, made for this time"));
        }
        // Who waits for this line can be sure that what happens from now on is sent.
        printer.note("waiting for events; Ctrl-C ends");
        Shown::Lines
    };
    let mut lanes = Lanes::default();
    let mut attempts = FuturesUnordered::new();
    let (mut taken, mut sent) = (0, 0);
    let limit = verb.limit.count.unwrap_or(u64::MAX);
    while sent < limit {
        while attempts.len() < MAX_IN_FLIGHT
            && let Some(job) = lanes.take()
        {
            attempts.push(attempt(&forwarder, job, Lane::Own));
        }
        shown.draw()?;
        tokio::select! {
            Some(message) = events.next(), if lanes.held < MAX_HELD && taken < limit => {
                let message = message?;
                if message.missed > 0 {
                    let missed = counted(message.missed, "event was", "events were");
                    shown.note(&format!("{missed} no longer kept"), printer);
                }
                if let Some(event) = message.event {
                    taken += 1;
                    shown.came(&event);
                    lanes.push(Job { event, attempt: 1 });
                }
            }
            Some((job, lane, attempted)) = attempts.next() => {
                let no_answer = matches!(attempted.outcome, Outcome::NoAnswer(_));
                let goes_on = no_answer && lane == Lane::Own;
                let settles = lane == Lane::Own && !no_answer;
                shown.attempted(&job, &attempted, settles, printer)?;
                if goes_on {
                    attempts.push(attempt(&forwarder, job.again(), Lane::Own));
                } else if settles {
                    lanes.done(&job.event.station_id);
                    sent += 1;
                }
            }
            input = shown.input() => match input? {
                Input::Key(key) if screen::ends(key) => {
                    if let Some(counts) = shown.close() {
                        printer.note(&counts.to_string());
                    }
                    return Ok(ExitStatus::Success);
                }
                Input::Key(key) => {
                    if let Some(job) = shown.pressed(key.code) {
                        attempts.push(attempt(&forwarder, job, Lane::Beside));
                    }
                }
                Input::Resized => {}
            },
        }
    }
    Ok(ExitStatus::Success)
}

/// Where what came is shown.
#[expect(clippy::large_enum_variant, reason = "there is one")]
enum Shown {
    Lines,
    Board(Board, Screen),
}

impl Shown {
    fn draw(&mut self) -> Result<(), Error> {
        if let Self::Board(board, screen) = self {
            screen.draw(|frame| picture::draw(frame, board))?;
        }
        Ok(())
    }

    async fn input(&mut self) -> Result<Input, Error> {
        match self {
            Self::Lines => std::future::pending().await,
            Self::Board(_, screen) => Ok(screen.input().await?),
        }
    }

    /// Leaves the screen, and returns what it had counted.
    fn close(self) -> Option<Counts> {
        match self {
            Self::Lines => None,
            Self::Board(board, _) => Some(board.counts),
        }
    }

    fn came(&mut self, event: &v1::Event) {
        if let Self::Board(board, _) = self {
            board.came(event.clone());
        }
    }

    fn attempted(
        &mut self,
        job: &Job,
        attempted: &Attempted,
        settles: bool,
        printer: &Printer,
    ) -> Result<(), Error> {
        let told = Forwarded::new(&job.event, job.attempt, attempted);
        match self {
            Self::Lines => printer.follow(&told, &told.line())?,
            Self::Board(board, _) => board.attempted(told, &attempted.outcome, settles),
        }
        Ok(())
    }

    fn note(&mut self, text: &str, printer: &Printer) {
        match self {
            Self::Lines => printer.note(text),
            Self::Board(board, _) => text.clone_into(&mut board.note),
        }
    }

    /// What is to be sent once more, if that is what the key means.
    fn pressed(&mut self, key: KeyCode) -> Option<Job> {
        match self {
            Self::Lines => None,
            Self::Board(board, _) => board.pressed(key),
        }
    }
}

/// Whether an attempt is its station's turn, or somebody's wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Own,
    Beside,
}

fn attempt(forwarder: &Forwarder, job: Job, lane: Lane) -> BoxFuture<'_, (Job, Lane, Attempted)> {
    Box::pin(async move {
        if job.attempt > 1 && matches!(lane, Lane::Own) {
            sleep(wait(job.attempt - 2)).await;
        }
        let attempted = forwarder.post(&job.event, job.attempt, when::now()).await;
        (job, lane, attempted)
    })
}

/// How long to wait after so many tries but one.
fn wait(tries: u32) -> Duration {
    let longer = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(tries));
    longer.min(LONGEST_WAIT)
}
