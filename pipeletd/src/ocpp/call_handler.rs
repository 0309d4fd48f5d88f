//! What is said between a station and us on one connection, one message at a time.
//!
//! The invariant: a CALLRESULT is made only once the event is durable and in the station's state,
//! and a CALL that became an event once never becomes a second one. Knows texts, not sockets.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use pipelet_domain::{
    events::{Event, EventId, EventType, Payload},
    projection::{Arrival, BootStatus},
    registration::SecurityProfile,
};
use tokio::time::sleep_until;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{
    Services,
    authorize::{self, Authorization},
    commands::{self, Answer, CommandError},
    handler::{self, Refusal},
    journaling::{event, internal_error, random_bytes},
    outbox::Settled,
    stations::ConnectionLease,
    v16,
    wire::{self, Call, ErrorCode, Frame},
};

/// A station that has had nothing to tell for so long is at rest.
const AT_REST: Duration = Duration::from_secs(10);
/// Heartbeats of stations at rest are journaled together, at these intervals. They are all that a
/// resting fleet says, and each by itself would cost a sync with several pages of writing. The price
/// is that such a connection hears of nothing else for so long.
const GATHERING: Duration = Duration::from_millis(100);

/// Why a connection ended whose station has come anew.
pub(super) const REPLACED: &str = "replaced";
/// Why one did that nobody ended, but broke off.
pub(super) const LOST: &str = "connection_lost";

/// What is journaled of a connection when it begins.
#[derive(Debug, Clone)]
pub(super) struct Opening {
    pub(super) peer: SocketAddr,
    /// As the station spelled it; some offer none.
    pub(super) subprotocol: Option<String>,
    pub(super) profile: SecurityProfile,
    /// It was journaled when another node had the station.
    pub(super) resumed: bool,
}

#[derive(Debug)]
pub(super) struct CallHandler {
    lease: ConnectionLease,
    services: Arc<Services>,
    /// A CALL was refused since the last event: what comes next does not follow the last CALL of
    /// the station's state, so it is not that one once more.
    refused_since: bool,
    /// Services live until it is dropped.
    _counted: TaskTrackerToken,
}

/// What a message of the station was.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A CALL, or what can't be understood, with the text to send in return.
    Call(String),
    /// An answer to a CALL of ours.
    Answer {
        message_id: String,
        answer: Result<Answer, CommandError>,
    },
    Nothing,
}

impl CallHandler {
    pub(super) fn new(lease: ConnectionLease, services: Arc<Services>) -> Self {
        Self {
            lease,
            _counted: services.sessions.token(),
            services,
            refused_since: false,
        }
    }

    pub(super) const fn lease(&self) -> &ConnectionLease {
        &self.lease
    }

    /// Any frame shows that the station is alive.
    pub(super) fn seen(&self) {
        self.lease.seen(self.services.clock.now());
    }

    /// Takes in one text message, which another node may have sent before and now does `again`.
    pub(super) async fn receive(&mut self, text: &str, again: bool) -> Incoming {
        match wire::parse(text) {
            Ok(Frame::Call(call)) => {
                let arrival = if again {
                    Arrival::Again
                } else {
                    let follows = !self.refused_since;
                    Arrival::First { follows }
                };
                Incoming::Call(self.answer(call, arrival).await)
            }
            Ok(Frame::CallResult { id, payload }) => Incoming::Answer {
                message_id: id.text().into_owned(),
                answer: Ok(Answer::Result(payload)),
            },
            Ok(Frame::CallError {
                id,
                code,
                description,
                details,
            }) => Incoming::Answer {
                message_id: id.text().into_owned(),
                answer: Ok(Answer::Error {
                    code: code.into_owned(),
                    description: description.into_owned(),
                    details,
                }),
            },
            Ok(Frame::MalformedAnswer { id }) => Incoming::Answer {
                message_id: id.text().into_owned(),
                answer: Err(CommandError::MalformedAnswer(shown(text))),
            },
            Ok(Frame::Ignored { why }) => {
                let station = self.lease.station();
                tracing::debug!(%station, reason = why, "ignored");
                Incoming::Nothing
            }
            Err(bad) => {
                let station = self.lease.station();
                tracing::info!(%station, code = %bad.code, reason = bad.why, "bad frame");
                Incoming::Call(wire::call_error(bad.id, bad.code, bad.why))
            }
        }
    }

    /// Makes the event of a command that is about to be sent. Its id is the CALL's message id too:
    /// 36 characters, as many as the standard has, and no station can have chosen it.
    pub(super) fn begin(&self, action: EventType, payload: Payload) -> Option<Event> {
        let now = self.services.clock.now();
        let id = EventId::new(now, random_bytes().ok()?);
        let message_id = Some(id.to_string().into());
        let station = self.lease.station().clone();
        Some(Event::new(id, action, station, now, message_id, payload))
    }

    /// Journals a command that was sent, and then tells the caller what came of it.
    pub(super) async fn persist(&self, settled: Settled) {
        let Settled {
            event,
            outcome,
            caller,
        } = settled;
        let (station, action, event_id) = (self.lease.station(), event.kind, event.id);
        caller.span().in_scope(|| match &outcome {
            Ok(Answer::Result(_)) => {
                tracing::info!(%station, %action, %event_id, "command answered");
            }
            Ok(Answer::Error { code, .. }) => {
                let code = shown(code);
                tracing::info!(%station, %action, %event_id, %code, "command refused by the station");
            }
            Err(error) => {
                tracing::warn!(%station, %action, %event_id, %error, "command not answered");
            }
        });
        let journaled = self.services.append(self.lease.handle(), event).await;
        caller.notify(match journaled {
            Ok(()) => outcome,
            Err(_) => Err(CommandError::NotKept),
        });
    }

    /// The CALL had its time, or there never was one.
    pub(super) fn unexpected_answer(&self, message_id: &str) {
        let station = self.lease.station();
        tracing::info!(%station, message_id, "an answer that nobody waits for (any more)");
    }

    /// The status that the station was booted with, where it forbids to ask this of it.
    pub(super) fn forbids(&self, action: EventType) -> Option<BootStatus> {
        let status = self.services.registry.boot_policy(self.lease.station());
        commands::forbids(status, action).then_some(status)
    }

    /// Journals that the station is here, and before it the end of the connection that this one
    /// replaces, if that one has not done so yet.
    pub(super) async fn opened(&self, opening: &Opening) {
        let payload = serde_json::json!({
            "remoteAddress": opening.peer.to_string(),
            "subprotocol": opening.subprotocol,
            "securityProfile": opening.profile.number(),
        });
        let _turn = self.lease.turn().await;
        if self.lease.is_replaced() {
            // It was never announced, so its end needn't be either.
            return;
        }
        let (services, handle) = (&self.services, self.lease.handle());
        if opening.resumed && self.lease.resume() {
            return;
        }
        if let Some(before) = self.lease.announce() {
            let reason = if before.is_cut() { LOST } else { REPLACED };
            services.note_end(handle, reason, before.lasted()).await;
        }
        let kind = EventType::StationConnected;
        services.note(handle, kind, &payload).await;
    }

    /// Journals that this connection is over, unless the one that replaced it has done so.
    pub(super) async fn closed(&self, reason: &str) {
        // The lease is released within the turn: what a new connection journals comes after this.
        let _turn = self.lease.turn().await;
        if let Some(lasted) = self.lease.release() {
            let handle = self.lease.handle();
            self.services.note_end(handle, reason, lasted).await;
        }
    }

    async fn answer(&mut self, call: Call<'_>, arrival: Arrival) -> String {
        let id = call.id;
        let result = self.result(call, arrival).await;
        match result {
            Ok(payload) => {
                self.refused_since = false;
                wire::call_result(id, &payload)
            }
            Err(refusal) => {
                // With an InternalError it is to be sent again, and may be an event already.
                self.refused_since |= refusal.code != ErrorCode::InternalError;
                let station = self.lease.station();
                let (code, reason) = (refusal.code, &refusal.description);
                tracing::info!(%station, message_id = id.token(), %code, reason, "refused");
                wire::call_error(id, code, reason)
            }
        }
    }

    async fn result(&self, call: Call<'_>, arrival: Arrival) -> Result<String, Refusal> {
        let kind = handler::recognise(&call.action)?;
        let boot_policy = self.services.registry.boot_policy(self.lease.station());
        handler::refuse_unaccepted(kind, boot_policy)?;
        self.judge(kind, &call.payload)?;
        self.take_in(kind, &call.id.text(), call.payload, boot_policy, arrival)
            .await
    }

    /// Holds the payload against the standard, where somebody wants to know.
    fn judge(&self, kind: EventType, payload: &Payload) -> Result<(), Refusal> {
        let strict = self.services.config.strict;
        if !strict && !tracing::enabled!(tracing::Level::DEBUG) {
            return Ok(());
        }
        let violations = v16::validate(kind, payload);
        let station = self.lease.station();
        for violation in &violations {
            let (pointer, code, reason) = (&violation.pointer, violation.code, &violation.message);
            tracing::debug!(%station, event = %kind, pointer, %code, reason, "violates the standard");
        }
        if !strict {
            return Ok(());
        }
        let boot_status = self.lease.with_state(|state| state.boot_status);
        handler::refuse_strictly(kind, boot_status, &violations)
    }

    async fn take_in(
        &self,
        kind: EventType,
        message_id: &str,
        payload: Payload,
        boot_policy: BootStatus,
        arrival: Arrival,
    ) -> Result<String, Refusal> {
        if kind == EventType::Heartbeat {
            self.gather().await;
        }
        let _turn = self.lease.turn().await;
        if self.lease.is_replaced() {
            // The station sends it again, or has done so, where it listens for the answer.
            return Err(internal_error("a newer connection speaks for the station"));
        }
        let services = &self.services;
        let now = services.clock.now();
        let repeat = self
            .lease
            .with_state(|state| state.repeat_of(message_id, kind, &payload, arrival));
        let transaction_id = match repeat {
            Some(repeat) => repeat.transaction_id,
            None if kind == EventType::StartTransaction => Some(self.new_transaction_id().await?),
            None => None,
        };
        let claim = match services.others.as_deref() {
            Some(others) => {
                let station = self.lease.station();
                authorize::claim(others, &services.id_tags, station, kind, &payload).await
            }
            None => None,
        };
        let authorization = Authorization::of(
            &services.id_tags,
            &services.stations,
            self.lease.station(),
            kind,
            &payload,
            now,
            claim,
        );
        let tag = authorization
            .as_ref()
            .map(|authorization| &authorization.info);
        let interval = services.timing.borrow().heartbeat_interval;
        let answer = if kind == EventType::BootNotification {
            handler::boot_answer(boot_policy, now, interval)
        } else {
            handler::answer(kind, now, interval, transaction_id, tag)
        };
        if repeat.is_none() {
            let payload = handler::event_payload(payload, transaction_id);
            let starts = kind == EventType::StartTransaction;
            let status = authorization.as_ref().filter(|_| starts);
            let status = status.map(Authorization::status);
            let station = self.lease.station();
            let mut event = event(station, kind, now, Some(message_id.into()), payload)?;
            event.authorization = status;
            services.append(self.lease.handle(), event).await?;
        } else {
            let station = self.lease.station();
            tracing::debug!(%station, event = %kind, message_id, "answered again");
        }
        Ok(answer)
    }

    /// Lets a heartbeat of a station at rest wait for others.
    async fn gather(&self) {
        let now = self.services.clock.now();
        let last = self.lease.with_state(|state| state.last_seen_at);
        let silent = last.and_then(|last| Duration::try_from(now.duration_since(last)).ok());
        if silent.is_some_and(|silent| silent >= AT_REST) {
            let began = self.services.began;
            let gatherings = began.elapsed().div_duration_f64(GATHERING).ceil();
            sleep_until(began + GATHERING.mul_f64(gatherings)).await;
        }
    }

    async fn new_transaction_id(&self) -> Result<i64, Refusal> {
        let next = self.services.transaction_ids.next().await;
        next.map(i64::from).map_err(|error| {
            tracing::error!(%error, cause = ?error, "no transaction id");
            internal_error("no transaction id, try again")
        })
    }
}

/// As much of what a station sent as a log line or an error's text has room for; what can't be seen
/// is written as escapes.
fn shown(text: &str) -> String {
    let mut shown = String::new();
    for c in text[..text.floor_char_boundary(255)].chars() {
        match c {
            '"' | '\'' | '\\' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    shown
}
