//! A charger on its line: dials, sends what the charger has to say, lets it hear what comes, and
//! dials again with growing waits when the line is cut.
//!
//! Invariant: the charger lives on while there is no line. It decides nothing that the charger
//! says.

use std::{
    future::{Future, pending},
    pin::Pin,
    time::Duration,
};

use fastrand::Rng;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    charger::{Charger, ConnectorView, Heard, Outgoing},
    line::{Endpoint, Line, LineError},
    outages::Schedule,
    pace::Pace,
    tally::Fact,
};

/// How long a station waits for the answer to a CALL before it dials anew.
const ANSWER: Duration = Duration::from_secs(30);

/// The wait before the second try to connect; it doubles up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What a passer-by sees of a station.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StationView {
    pub online: bool,
    pub connectors: Vec<ConnectorView>,
}

pub(super) struct Station {
    pub(super) index: usize,
    pub(super) id: String,
    pub(super) charger: Charger,
    pub(super) endpoint: Endpoint,
    pub(super) pace: Pace,
    pub(super) outages: Schedule,
    pub(super) rng: Rng,
    pub(super) facts: mpsc::Sender<(usize, Fact)>,
    pub(super) view: watch::Sender<StationView>,
    /// Becomes true when it is time to end.
    pub(super) finish: watch::Receiver<bool>,
}

type Dialling = Pin<Box<dyn Future<Output = Result<Line, LineError>> + Send>>;

/// Where the station stands with its line.
enum Link {
    /// It dials at that moment.
    Down {
        until: Instant,
        tries: u32,
    },
    Dialling {
        call: Dialling,
        tries: u32,
    },
    Up {
        line: Line,
        asked: Option<Asked>,
    },
}

/// A CALL that waits for its answer.
struct Asked {
    at: Instant,
}

enum Happened {
    Dials,
    Opened(Result<Line, LineError>),
    Heard(String),
    Cut,
    NoAnswer,
}

impl Station {
    /// Runs until it is told to finish, and has said what was left to say.
    pub(super) async fn run(mut self, first_dial: Instant) {
        let mut link = Link::Down {
            until: first_dial,
            tries: 0,
        };
        while !*self.finish.borrow() {
            link = self.say_all(link).await;
            self.show(&link);
            let due = self.pace.instant(self.charger.due());
            let cut = match (&link, self.outages.next_cut()) {
                (Link::Up { .. }, Some(at)) => Some(self.pace.instant(at)),
                _ => None,
            };
            tokio::select! {
                happened = link.next() => link = self.take(happened, link).await,
                () = sleep_until(due) => self.charger.tick(self.pace.now()),
                () = at(cut) => link = self.cut(link).await,
                _ = self.finish.changed() => {}
            }
        }
        self.finish(link).await;
    }

    /// Says what is left to say, however much that is. Each step has its own limit, so a daemon
    /// that does not answer any more does not hold the end up.
    async fn finish(&mut self, mut link: Link) {
        self.charger.close(self.pace.now());
        // Who is offline comes back to tell what is still to be told, but tries no more than once.
        if matches!(link, Link::Down { .. }) {
            link = self.take(Happened::Dials, link).await;
        }
        loop {
            link = self.say_all(link).await;
            self.show(&link);
            match link {
                // All is said, or the rest may not be said now: it was refused, or the charger is
                // not accepted.
                Link::Up { line, asked: None } => {
                    line.close().await;
                    return;
                }
                Link::Down { .. } => return,
                Link::Dialling { .. } if self.charger.has_said_all() => return,
                Link::Up { .. } | Link::Dialling { .. } => {}
            }
            let happened = link.next().await;
            link = self.take(happened, link).await;
        }
    }

    async fn take(&mut self, happened: Happened, link: Link) -> Link {
        match (happened, link) {
            (Happened::Dials, Link::Down { tries, .. }) => Link::Dialling {
                call: Box::pin(self.endpoint.clone().dial(self.id.clone())),
                tries,
            },
            (Happened::Opened(Ok(opened)), _) => {
                self.tell(Fact::Connected).await;
                self.charger.connected(self.pace.now());
                Link::Up {
                    line: opened,
                    asked: None,
                }
            }
            (Happened::Opened(Err(why)), Link::Dialling { tries, .. }) => {
                self.tell(Fact::NotConnected(why.to_string())).await;
                self.down(tries + 1)
            }
            (Happened::Heard(text), Link::Up { line, asked }) => self.hear(text, line, asked).await,
            (Happened::Cut | Happened::NoAnswer, Link::Up { asked, .. }) => {
                self.tell(Fact::Lost).await;
                self.hang_up(asked).await;
                self.down(1)
            }
            (_, link) => link,
        }
    }

    async fn hear(&mut self, text: String, line: Line, asked: Option<Asked>) -> Link {
        self.tell(Fact::Heard { bytes: text.len() }).await;
        let heard = self.charger.heard(&text, self.pace.now());
        let took = asked.as_ref().map(|asked| asked.at.elapsed());
        let took = took.unwrap_or_default();
        let asked = match heard {
            Heard::Answer(_) => {
                self.tell(Fact::Answered { took }).await;
                None
            }
            Heard::Refusal(_, code) => {
                self.tell(Fact::Refused { code, took }).await;
                None
            }
            Heard::Asked(_) | Heard::Nothing => asked,
        };
        Link::Up { line, asked }
    }

    /// Sends frames for as long as the charger has some.
    async fn say_all(&mut self, link: Link) -> Link {
        let Link::Up {
            mut line,
            mut asked,
        } = link
        else {
            return link;
        };
        while let Some(Outgoing { text, call }) = self.charger.next_frame(self.pace.now()) {
            let bytes = text.len();
            if let Some(action) = call {
                asked = Some(Asked { at: Instant::now() });
                self.tell(Fact::Sent { action, bytes }).await;
            } else {
                self.tell(Fact::Replied { bytes }).await;
            }
            if line.send(text).await.is_err() {
                self.tell(Fact::Lost).await;
                self.hang_up(asked).await;
                return self.down(1);
            }
        }
        if self.charger.reboots() {
            self.hang_up(asked).await;
            line.close().await;
            return self.down(1);
        }
        Link::Up { line, asked }
    }

    /// The line is cut as an outage does it: without a word.
    async fn cut(&mut self, link: Link) -> Link {
        let now = self.pace.now();
        let back = self.outages.cut(now);
        if let Link::Up { asked, .. } = link {
            self.hang_up(asked).await;
        }
        Link::Down {
            until: self.pace.instant(back),
            tries: 0,
        }
    }

    async fn hang_up(&mut self, asked: Option<Asked>) {
        self.charger.disconnected(self.pace.now());
        if asked.is_some() {
            self.tell(Fact::Unanswered).await;
        }
    }

    /// Waits the longer the oftener it has failed, and never as long as its neighbour.
    fn down(&mut self, tries: u32) -> Link {
        let wait = FIRST_WAIT * 2_u32.saturating_pow(tries.min(10) - 1);
        let wait = wait.min(LONGEST_WAIT).mul_f64(0.5 + self.rng.f64() / 2.0);
        Link::Down {
            until: Instant::now() + wait,
            tries,
        }
    }

    fn show(&self, link: &Link) {
        let view = StationView {
            online: matches!(link, Link::Up { .. }),
            connectors: self.charger.view(),
        };
        self.view.send_if_modified(|shown| {
            let changed = *shown != view;
            *shown = view;
            changed
        });
    }

    async fn tell(&self, fact: Fact) {
        // Who has stopped counting needs no more facts.
        let _ = self.facts.send((self.index, fact)).await;
    }
}

impl Link {
    /// Safe to be dropped and asked again.
    async fn next(&mut self) -> Happened {
        match self {
            Self::Down { until, .. } => {
                sleep_until(*until).await;
                Happened::Dials
            }
            Self::Dialling { call, .. } => Happened::Opened(call.await),
            Self::Up { line, asked } => {
                let late = asked.as_ref().map(|asked| asked.at + ANSWER);
                tokio::select! {
                    heard = line.next() => heard.map_or(Happened::Cut, Happened::Heard),
                    () = at(late) => Happened::NoAnswer,
                }
            }
        }
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}
