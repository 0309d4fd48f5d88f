//! `listen`: what happens at a daemon, sent to an application on this machine.
//!
//! Invariant: each event that the stream brings is sent until the application answers or its time
//! is up, and to one station one at a time, in their order. What is held is bounded: an
//! application that lags holds the stream back. A stream that breaks off is taken up again behind
//! the event that came last.

use std::{
    collections::{HashMap, VecDeque},
    error::Error as _,
    time::Duration,
};

use futures_util::{
    StreamExt as _,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use pipelet_proto::v1;
use tokio::time::sleep;
use tonic::{Code, Status, Streaming};

use crate::{
    cli::Listen,
    client::Client,
    commands::counted,
    error::{Error, ExitStatus},
    forward::{Attempted, Forwarder, Outcome},
    output::Printer,
    secret::Secret,
    view::Forwarded,
    when,
};

/// Events at once in memory.
const MAX_HELD: usize = 256;
const MAX_IN_FLIGHT: usize = 16;
/// Between two tries to reach who is away: at first, and at most.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

pub(crate) async fn run(
    verb: Listen,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let secret = Secret::given(verb.secret_value, verb.secret_value_file)?;
    let forwarder = Forwarder::new(verb.forward_to, verb.secret_header.zip(secret))?;
    let request = v1::TailEventsRequest {
        events: verb.events,
        station_ids: verb.stations,
        after: String::new(),
        since: verb
            .since
            .map(|since| when::on_wire(since.resolve(when::now()))),
    };
    let source = Source::open(request, client, printer).await?;
    // A stream keeps its place while an answer of the application is looked at.
    let mut events = Box::pin(stream::unfold(source, |mut source| async {
        Some((source.next().await, source))
    }));
    // Who waits for this line can be sure that what happens from now on is sent.
    printer.note("waiting for events; Ctrl-C ends");
    let mut lanes = Lanes::default();
    let mut attempts = FuturesUnordered::new();
    let (mut taken, mut sent) = (0, 0);
    let limit = verb.limit.count.unwrap_or(u64::MAX);
    while sent < limit {
        while attempts.len() < MAX_IN_FLIGHT
            && let Some(job) = lanes.take()
        {
            attempts.push(attempt(&forwarder, job));
        }
        tokio::select! {
            Some(event) = events.next(), if lanes.held < MAX_HELD && taken < limit => {
                taken += 1;
                lanes.push(Job { event: event?, attempt: 1 });
            }
            Some((job, attempted)) = attempts.next() => {
                let shown = Forwarded::new(&job.event, job.attempt, &attempted);
                printer.follow(&shown, &shown.line())?;
                if let Outcome::NoAnswer(_) = attempted.outcome {
                    attempts.push(attempt(&forwarder, job.again()));
                } else {
                    lanes.done(&job.event.station_id);
                    sent += 1;
                }
            }
        }
    }
    Ok(ExitStatus::Success)
}

struct Job {
    event: v1::Event,
    attempt: u32,
}

impl Job {
    fn again(self) -> Self {
        Self {
            attempt: self.attempt.saturating_add(1),
            ..self
        }
    }
}

fn attempt(forwarder: &Forwarder, job: Job) -> BoxFuture<'_, (Job, Attempted)> {
    Box::pin(async move {
        if job.attempt > 1 {
            sleep(wait(job.attempt - 2)).await;
        }
        let attempted = forwarder.post(&job.event, job.attempt, when::now()).await;
        (job, attempted)
    })
}

/// How long to wait after so many tries but one.
fn wait(tries: u32) -> Duration {
    let longer = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(tries));
    longer.min(LONGEST_WAIT)
}

/// Jobs by station, of which each has one in flight at most.
#[derive(Default)]
struct Lanes {
    /// A station is here while it has a job that is ready or in flight.
    waiting: HashMap<String, VecDeque<Job>>,
    ready: VecDeque<Job>,
    /// Waiting, ready or in flight.
    held: usize,
}

impl Lanes {
    fn push(&mut self, job: Job) {
        self.held += 1;
        let station = job.event.station_id.clone();
        if let Some(lane) = self.waiting.get_mut(&station) {
            lane.push_back(job);
        } else {
            self.waiting.insert(station, VecDeque::new());
            self.ready.push_back(job);
        }
    }

    fn take(&mut self) -> Option<Job> {
        self.ready.pop_front()
    }

    fn done(&mut self, station: &str) {
        self.held -= 1;
        match self.waiting.get_mut(station).and_then(VecDeque::pop_front) {
            Some(next) => self.ready.push_back(next),
            None => drop(self.waiting.remove(station)),
        }
    }
}

/// The events of a daemon that may go away and come back.
struct Source<'a> {
    client: &'a Client,
    printer: &'a Printer,
    /// Asks for what comes behind what has come.
    request: v1::TailEventsRequest,
    stream: Option<Streaming<v1::TailEventsResponse>>,
    tries: u32,
}

impl<'a> Source<'a> {
    async fn open(
        mut request: v1::TailEventsRequest,
        client: &'a Client,
        printer: &'a Printer,
    ) -> Result<Self, Error> {
        let latest = latest(client).await?;
        let stream = client.events().tail_events(request.clone()).await?;
        // Until an event has brought a cursor, a new stream begins where this one did.
        request.since = request.since.or(latest);
        Ok(Self {
            client,
            printer,
            request,
            stream: Some(stream.into_inner()),
            tries: 0,
        })
    }

    async fn next(&mut self) -> Result<v1::Event, Error> {
        loop {
            let came = match &mut self.stream {
                Some(stream) => stream.message().await,
                None => match self.open_again().await {
                    Ok(()) => continue,
                    Err(status) => Err(status),
                },
            };
            match came {
                Ok(Some(message)) => {
                    self.tries = 0;
                    if message.missed > 0 {
                        let missed = counted(message.missed, "event was", "events were");
                        self.printer.note(&format!("{missed} no longer kept"));
                    }
                    self.request.after = message.cursor;
                    return message.event.ok_or(Error::Incomplete("event"));
                }
                Ok(None) => self.lost(),
                Err(status) if may_pass(&status) => self.lost(),
                Err(status) => return Err(status.into()),
            }
        }
    }

    async fn open_again(&mut self) -> Result<(), Status> {
        sleep(wait(self.tries.saturating_sub(1))).await;
        let request = self.request.clone();
        let stream = self.client.events().tail_events(request).await?;
        self.printer
            .note("the daemon is back; going on where it was");
        self.stream = Some(stream.into_inner());
        Ok(())
    }

    fn lost(&mut self) {
        if self.stream.take().is_some() {
            self.printer.note("lost the daemon; trying again");
        }
        self.tries = self.tries.saturating_add(1);
    }
}

/// Just behind the latest event, by the daemon's clock.
async fn latest(client: &Client) -> Result<Option<prost_types::Timestamp>, Error> {
    let request = v1::ListEventsRequest {
        page_size: 1,
        ..v1::ListEventsRequest::default()
    };
    let events = client.events().list_events(request).await?.into_inner();
    let time = events
        .events
        .into_iter()
        .next()
        .and_then(|event| event.timestamp);
    Ok(Some(time.map_or_else(
        prost_types::Timestamp::default,
        |time| {
            let nanos = time.nanos + 1_000_000;
            prost_types::Timestamp {
                seconds: time.seconds + i64::from(nanos / 1_000_000_000),
                nanos: nanos % 1_000_000_000,
            }
        },
    )))
}

/// Whether the same call may succeed later. What failed on this side of the wire has a source.
fn may_pass(status: &Status) -> bool {
    status.source().is_some() || matches!(status.code(), Code::Unavailable | Code::Cancelled)
}
