//! What happens on stations, on its way into the journal and into what is known of them.
//!
//! An event counts once it is durable. That a connection began or ended is only known here, so where
//! the journal does not take that, it waits until it does.

use std::{cell::RefCell, time::Duration};

use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use pipelet_domain::events::{Event, EventId, EventType, Payload, StationId};

use super::{
    Services, call_handler::LOST, handler::Refusal, stations::StationHandle, wire::ErrorCode,
};
use crate::{journal::AppendError, telemetry::Span};

/// So many ends of connections are on their way into the journal at once, after a start.
const ENDS_AT_ONCE: usize = 256;

impl Services {
    /// Journals the ends of connections that the daemon had when it died. A station that comes back
    /// sooner does so itself.
    pub(super) async fn journal_cut_connections(&self, cut: Vec<StationHandle>) {
        if !cut.is_empty() {
            let stations = cut.len();
            let what = "stations were connected when the daemon died: the ends are told now";
            tracing::info!(stations, "{what}");
        }
        let journaling = stream::iter(cut).for_each_concurrent(ENDS_AT_ONCE, async |handle| {
            let _turn = handle.turn().await;
            if let Some(cut) = handle.take_cut() {
                self.note_end(&handle, LOST, cut.lasted()).await;
            }
        });
        journaling.await;
    }

    pub(super) async fn note_end(&self, handle: &StationHandle, reason: &str, lasted: Duration) {
        // Whole milliseconds, in seconds.
        let seconds = (lasted.as_secs_f64() * 1000.0).round() / 1000.0;
        let payload = serde_json::json!({ "reason": reason, "duration": seconds });
        let kind = EventType::StationDisconnected;
        self.note(handle, kind, &payload).await;
    }

    /// Journals what only we know. Must be called within the station's turn.
    pub(super) async fn note(
        &self,
        handle: &StationHandle,
        kind: EventType,
        payload: &serde_json::Value,
    ) {
        let station = handle.station();
        let Ok(payload) = Payload::parse(payload.to_string().as_bytes()) else {
            return;
        };
        let now = self.clock.now();
        match event(station, kind, now, None, payload) {
            Ok(event) => {
                if self.append(handle, event.clone()).await.is_err() {
                    self.deferred_events.add(handle, event);
                }
            }
            Err(refusal) => {
                let reason = refusal.description;
                tracing::warn!(%station, event = %kind, error = reason, "the event is lost");
            }
        }
    }

    /// Returns once the event is durable and in the station's state. What waits of the station
    /// goes first.
    ///
    /// The wait is on the heap: it holds the event several times over, and an idle connection's
    /// task would have the room for that all its life.
    pub(super) fn append(
        &self,
        handle: &StationHandle,
        event: Event,
    ) -> impl Future<Output = Result<(), Refusal>> {
        let (station, kind, event_id) = (handle.station(), event.kind, event.id);
        let time = event.time;
        let is_logged = tracing::enabled!(tracing::Level::DEBUG);
        let message_id = is_logged.then(|| event.message_id.clone()).flatten();
        let Self {
            journals,
            deferred_events,
            registry,
            config,
            clock,
            ..
        } = self;
        let appending = Box::pin(async move {
            let journal = journals.of(station);
            if !journal.takes_strangers() && registry.find(station).is_none() {
                let why = "the rest of the disk is for stations that are registered";
                return Err(AppendError::Failing(why.into()));
            }
            deferred_events.catch_up(handle, journals).await?;
            journal.append(event, handle.apply()).await
        });
        async move {
            appending.await.map_err(|error| {
                // The journal itself tells the log, once and not for each of thousands.
                tracing::debug!(%station, event = %kind, %error, "not journaled");
                internal_error("the event can't be kept now, try again")
            })?;
            tracing::debug!(%station, event = %kind, %event_id, message_id, "journaled");
            let span = || Span::of_event(event_id, kind, station, time, clock.now());
            config.spans.record(span);
            Ok(())
        }
    }
}

pub(super) fn event(
    station: &StationId,
    kind: EventType,
    now: Timestamp,
    message_id: Option<Box<str>>,
    payload: Payload,
) -> Result<Event, Refusal> {
    let id = EventId::new(now, random_bytes()?);
    Ok(Event::new(
        id,
        kind,
        station.clone(),
        now,
        message_id,
        payload,
    ))
}

/// Random bytes of the system, fetched for many events at once: a system call for each event was
/// 0.6 % of the daemon's time under load.
pub(super) fn random_bytes() -> Result<[u8; 10], Refusal> {
    thread_local! {
        /// What is left, used from the end.
        static FETCHED: RefCell<Vec<[u8; 10]>> = const { RefCell::new(Vec::new()) };
    }
    FETCHED
        .with_borrow_mut(|fetched| {
            if fetched.is_empty() {
                fetched.resize(64, [0; 10]);
                if let Err(error) = getrandom::fill(fetched.as_flattened_mut()) {
                    // Zeros are no random bytes.
                    fetched.clear();
                    tracing::error!(%error, "the system gives no random bytes");
                }
            }
            fetched.pop()
        })
        .ok_or_else(|| internal_error("no event id, try again"))
}

/// A station keeps a message that is answered with this, and sends it again.
pub(super) fn internal_error(description: &str) -> Refusal {
    Refusal {
        code: ErrorCode::InternalError,
        description: description.to_owned(),
    }
}
