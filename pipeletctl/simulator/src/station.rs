//! A charger on its connection: dials, sends the charger's frames, hands it those that come, and
//! dials again with growing waits when the connection is lost.
//!
//! Invariant: the charger goes on while there is no connection. The station decides nothing of
//! what the charger sends.

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
    charger::{Charger, ConnectorView, Incoming, Outgoing},
    clock::Clock,
    connection::{Connection, ConnectionError, Endpoint},
    outages::Schedule,
    stats::Observation,
};

/// How long a station waits for the answer to a CALL before it dials anew.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The wait before the second try to connect; it doubles up to the longest.
const INITIAL_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// What is shown of a station.
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
    pub(super) clock: Clock,
    pub(super) outages: Schedule,
    pub(super) rng: Rng,
    pub(super) observations: mpsc::Sender<(usize, Observation)>,
    pub(super) view: watch::Sender<StationView>,
    /// Becomes true when the station has to end.
    pub(super) shut_down: watch::Receiver<bool>,
}

type Dial = Pin<Box<dyn Future<Output = Result<Connection, ConnectionError>> + Send>>;

/// The state of the station's connection.
enum State {
    Disconnected {
        dial_at: Instant,
        failures: u32,
    },
    Connecting {
        dial: Dial,
        failures: u32,
    },
    Connected {
        connection: Connection,
        pending: Option<PendingCall>,
    },
}

/// A CALL that waits for its answer.
struct PendingCall {
    sent_at: Instant,
}

enum Input {
    DialDue,
    Dialled(Result<Connection, ConnectionError>),
    Received(String),
    Closed,
    CallTimedOut,
}

impl Station {
    /// Runs until it is told to shut down, and has sent what it still had to send.
    pub(super) async fn run(mut self, first_dial: Instant) {
        let mut state = State::Disconnected {
            dial_at: first_dial,
            failures: 0,
        };
        while !*self.shut_down.borrow() {
            state = self.send_all(state).await;
            self.publish_view(&state);
            let due = self.clock.instant(self.charger.due());
            let cut = match (&state, self.outages.next_cut()) {
                (State::Connected { .. }, Some(at)) => Some(self.clock.instant(at)),
                _ => None,
            };
            tokio::select! {
                input = state.next() => state = self.handle(input, state).await,
                () = sleep_until(due) => self.charger.tick(self.clock.now()),
                () = sleep_until_some(cut) => state = self.cut(state).await,
                _ = self.shut_down.changed() => {}
            }
        }
        self.shut_down(state).await;
    }

    /// Sends what is left to send, however much that is. Each step has its own limit, so a daemon
    /// that does not answer any more does not hold the end up.
    async fn shut_down(&mut self, mut state: State) {
        self.charger.close(self.clock.now());
        // An offline station connects to send what it still has to send, but tries only once.
        if matches!(state, State::Disconnected { .. }) {
            state = self.handle(Input::DialDue, state).await;
        }
        loop {
            state = self.send_all(state).await;
            self.publish_view(&state);
            match state {
                // All is sent, or the rest may not be sent now: it was refused, or the charger is
                // not accepted.
                State::Connected {
                    connection,
                    pending: None,
                } => {
                    connection.close().await;
                    return;
                }
                State::Disconnected { .. } => return,
                State::Connecting { .. } if self.charger.has_sent_all() => return,
                State::Connected { .. } | State::Connecting { .. } => {}
            }
            let input = state.next().await;
            state = self.handle(input, state).await;
        }
    }

    async fn handle(&mut self, input: Input, state: State) -> State {
        match (input, state) {
            (Input::DialDue, State::Disconnected { failures, .. }) => State::Connecting {
                dial: Box::pin(self.endpoint.clone().dial(self.id.clone())),
                failures,
            },
            (Input::Dialled(Ok(opened)), _) => {
                self.observe(Observation::Connected).await;
                self.charger.connected(self.clock.now());
                State::Connected {
                    connection: opened,
                    pending: None,
                }
            }
            (Input::Dialled(Err(why)), State::Connecting { failures, .. }) => {
                self.observe(Observation::ConnectFailed(why.to_string()))
                    .await;
                self.retry_later(failures + 1)
            }
            (
                Input::Received(text),
                State::Connected {
                    connection,
                    pending,
                },
            ) => self.receive(text, connection, pending).await,
            (Input::Closed | Input::CallTimedOut, State::Connected { pending, .. }) => {
                self.observe(Observation::ConnectionLost).await;
                self.disconnected(pending).await;
                self.retry_later(1)
            }
            (_, state) => state,
        }
    }

    async fn receive(
        &mut self,
        text: String,
        connection: Connection,
        pending: Option<PendingCall>,
    ) -> State {
        self.observe(Observation::Received { bytes: text.len() })
            .await;
        let incoming = self.charger.handle_frame(&text, self.clock.now());
        let took = pending.as_ref().map(|pending| pending.sent_at.elapsed());
        let took = took.unwrap_or_default();
        let pending = match incoming {
            Incoming::CallResult(_) => {
                self.observe(Observation::Answered { took }).await;
                None
            }
            Incoming::CallError(_, code) => {
                self.observe(Observation::Refused { code, took }).await;
                None
            }
            Incoming::Call(_) | Incoming::Ignored => pending,
        };
        State::Connected {
            connection,
            pending,
        }
    }

    /// Sends frames for as long as the charger has some.
    async fn send_all(&mut self, state: State) -> State {
        let State::Connected {
            mut connection,
            mut pending,
        } = state
        else {
            return state;
        };
        while let Some(Outgoing { text, call }) = self.charger.next_frame(self.clock.now()) {
            let bytes = text.len();
            if let Some(action) = call {
                pending = Some(PendingCall {
                    sent_at: Instant::now(),
                });
                self.observe(Observation::Sent { action, bytes }).await;
            } else {
                self.observe(Observation::CommandAnswered { bytes }).await;
            }
            if connection.send(text).await.is_err() {
                self.observe(Observation::ConnectionLost).await;
                self.disconnected(pending).await;
                return self.retry_later(1);
            }
        }
        if self.charger.take_reboot() {
            self.disconnected(pending).await;
            connection.close().await;
            return self.retry_later(1);
        }
        State::Connected {
            connection,
            pending,
        }
    }

    /// The connection is cut as an outage does it: without a close frame.
    async fn cut(&mut self, state: State) -> State {
        let now = self.clock.now();
        let back = self.outages.cut(now);
        if let State::Connected { pending, .. } = state {
            self.disconnected(pending).await;
        }
        State::Disconnected {
            dial_at: self.clock.instant(back),
            failures: 0,
        }
    }

    async fn disconnected(&mut self, pending: Option<PendingCall>) {
        self.charger.disconnected(self.clock.now());
        if pending.is_some() {
            self.observe(Observation::Unanswered).await;
        }
    }

    /// Waits longer after each failure, with jitter, so that stations don't dial in step.
    fn retry_later(&mut self, failures: u32) -> State {
        let wait = INITIAL_BACKOFF * 2_u32.saturating_pow(failures.min(10) - 1);
        let wait = wait.min(MAX_BACKOFF).mul_f64(0.5 + self.rng.f64() / 2.0);
        State::Disconnected {
            dial_at: Instant::now() + wait,
            failures,
        }
    }

    fn publish_view(&self, state: &State) {
        let view = StationView {
            online: matches!(state, State::Connected { .. }),
            connectors: self.charger.view(),
        };
        self.view.send_if_modified(|shown| {
            let changed = *shown != view;
            *shown = view;
            changed
        });
    }

    async fn observe(&self, observation: Observation) {
        // A fleet that was dropped counts no more.
        let _ = self.observations.send((self.index, observation)).await;
    }
}

impl State {
    /// Cancel safe.
    async fn next(&mut self) -> Input {
        match self {
            Self::Disconnected { dial_at, .. } => {
                sleep_until(*dial_at).await;
                Input::DialDue
            }
            Self::Connecting { dial, .. } => Input::Dialled(dial.await),
            Self::Connected {
                connection,
                pending,
            } => {
                let deadline = pending
                    .as_ref()
                    .map(|pending| pending.sent_at + CALL_TIMEOUT);
                tokio::select! {
                    text = connection.next() => text.map_or(Input::Closed, Input::Received),
                    () = sleep_until_some(deadline) => Input::CallTimedOut,
                }
            }
        }
    }
}

async fn sleep_until_some(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
