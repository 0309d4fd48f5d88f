//! Commands: what an API caller asks of a station.
//!
//! [`Stations::call`] checks the request, waits for its turn at the connection that speaks for the
//! station, hands it over, and waits for what comes of it. Whether a command was sent is never in
//! doubt: a caller that gives up before its turn has sent nothing, and one that gives up after
//! changes nothing any more.

use std::time::Duration;

use pipelet_domain::{
    events::{Direction, EventType, Payload, StationId},
    projection::{BootStatus, Fields},
};
use tokio::time::Instant;

use super::{
    all_stations::Stations,
    v16::{self, Violation},
};

/// How long a caller waits who doesn't say.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a caller may wait; a queue that stands longer helps nobody.
pub const MAX_TIMEOUT: Duration = Duration::from_mins(10);

/// What a station answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A CALLRESULT, as it came.
    Result(Payload),
    /// A CALLERROR. The details are `{}` where the station gave none.
    Error {
        /// As the station spells it.
        code: String,
        description: String,
        details: Payload,
    },
}

/// Why there is no answer. Nothing was sent, unless a variant says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error("{0} is not sent to stations")]
    NotACommand(EventType),
    #[error("the body violates OCPP 1.6 in {} point(s)", .0.len())]
    Invalid(Vec<Violation>),
    #[error("no station {0} has connected yet")]
    NoSuchStation(StationId),
    #[error("station {0} is not connected; nothing was sent")]
    NotConnected(StationId),
    #[error("station {station} is {}, and may not be sent this before it is accepted", .status.name())]
    NotAccepted {
        station: StationId,
        status: BootStatus,
    },
    #[error("station {0} is busy with other things; nothing was sent, try again")]
    Busy(StationId),
    /// It was sent.
    #[error("the station did not answer in time; it may still do what it was asked")]
    TimedOut,
    /// It was sent. This is what came, cut to what is worth showing.
    #[error("the station's answer can't be read; it may have done what it was asked: {0}")]
    MalformedAnswer(String),
    /// It was sent.
    #[error("the connection ended before the answer; the station may have done what it was asked")]
    ConnectionLost,
    /// It was sent, and is no event.
    #[error("the station was asked, but what came of it can't be kept")]
    NotKept,
    #[error("the system gives no random bytes for a message id; nothing was sent")]
    NoMessageId,
}

impl Stations {
    /// Ends a station's connection, soon.
    pub fn disconnect(&self, station: &StationId) -> Result<(), CommandError> {
        match self.dismiss(station) {
            Some(true) => Ok(()),
            Some(false) => Err(CommandError::NotConnected(station.clone())),
            None => Err(CommandError::NoSuchStation(station.clone())),
        }
    }

    /// Sends a CALL to a station and waits for its answer, which is an event by then.
    ///
    /// `wait` covers all of it: commands before this one, and the station's time to answer.
    pub async fn call(
        &self,
        station: &StationId,
        action: EventType,
        payload: Payload,
        wait: Duration,
    ) -> Result<Answer, CommandError> {
        let began = Instant::now();
        let outcome = self.ask(station, action, payload, wait).await;
        self.command_stats()
            .ended(action, &outcome, began.elapsed());
        outcome
    }

    async fn ask(
        &self,
        station: &StationId,
        action: EventType,
        payload: Payload,
        wait: Duration,
    ) -> Result<Answer, CommandError> {
        check(action, &payload)?;
        let queue = self.command_queue(station)?;
        let deadline = Instant::now() + wait;
        let busy = || CommandError::Busy(station.clone());
        let turn = queue.turn(deadline).await.ok_or_else(busy)?;
        let payload = arranged(action, payload);
        let outcome = queue.send(action, payload, deadline, turn).await;
        outcome.unwrap_or_else(|| {
            Err(if Instant::now() < deadline {
                CommandError::NotConnected(station.clone())
            } else {
                busy()
            })
        })
    }
}

fn check(action: EventType, payload: &Payload) -> Result<(), CommandError> {
    match action.direction() {
        Direction::CsmsToStation | Direction::Both => {}
        Direction::StationToCsms | Direction::Connection => {
            return Err(CommandError::NotACommand(action));
        }
    }
    let mut violations = v16::validate(action, payload);
    violations.extend(v16::repeated_keys(payload));
    if violations.is_empty() {
        Ok(())
    } else {
        Err(CommandError::Invalid(violations))
    }
}

/// OCPP 1.6, section 4.2: a rejected station is sent nothing, and one that is pending is not
/// asked to start or stop. One that has never booted in our time may have done so before.
pub(super) fn forbids(status: BootStatus, action: EventType) -> bool {
    let remote = matches!(
        action,
        EventType::RemoteStartTransaction | EventType::RemoteStopTransaction
    );
    match status {
        BootStatus::Rejected => true,
        BootStatus::Pending => remote,
        BootStatus::Accepted => false,
    }
}

/// The payload as it is sent: the caller's bytes, but some chargers read a `SendLocalList` in the
/// order of the standard's table only.
fn arranged(action: EventType, payload: Payload) -> Payload {
    if action != EventType::SendLocalList {
        return payload;
    }
    let fields = Fields::parse(payload.as_bytes());
    let field = |name| Some(format!("\"{name}\":{}", fields.raw(name)?));
    let fields: Vec<String> = ["listVersion", "localAuthorizationList", "updateType"]
        .into_iter()
        .filter_map(field)
        .collect();
    Payload::parse(format!("{{{}}}", fields.join(",")).as_bytes()).unwrap_or(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(text: &str) -> Payload {
        Payload::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn only_a_local_list_is_put_in_order() {
        let check = |action, given: &str, sent: &str| {
            assert_eq!(arranged(action, payload(given)), payload(sent), "{given}");
        };
        let reset = "{ \"type\" :\n\"Soft\"}";
        check(EventType::Reset, reset, reset);
        check(
            EventType::SendLocalList,
            r#"{"updateType":"Full", "localAuthorizationList":[ {"idTag":"B","idTagInfo":{"status":"Accepted"}} ],"listVersion":1}"#,
            r#"{"listVersion":1,"localAuthorizationList":[ {"idTag":"B","idTagInfo":{"status":"Accepted"}} ],"updateType":"Full"}"#,
        );
        check(
            EventType::SendLocalList,
            r#"{"updateType":"Full","listVersion":1}"#,
            r#"{"listVersion":1,"updateType":"Full"}"#,
        );
    }

    #[test]
    fn what_may_not_leave() {
        assert_eq!(check(EventType::ClearCache, &Payload::empty()), Ok(()));
        assert_eq!(
            check(EventType::DataTransfer, &payload(r#"{"vendorId":"V"}"#)),
            Ok(())
        );
        for action in [EventType::Heartbeat, EventType::StationConnected] {
            assert_eq!(
                check(action, &Payload::empty()),
                Err(CommandError::NotACommand(action))
            );
        }
        let faulty = payload(r#"{"connectorId":1,"connectorId":"1","x":1}"#);
        let Err(CommandError::Invalid(violations)) = check(EventType::ReserveNow, &faulty) else {
            panic!("it is invalid");
        };
        let pointers: Vec<&str> = violations.iter().map(|v| v.pointer.as_str()).collect();
        assert_eq!(
            pointers,
            [
                "/connectorId",
                "/expiryDate",
                "/idTag",
                "/reservationId",
                "/x",
                "/connectorId"
            ]
        );
    }

    #[test]
    fn what_a_station_may_be_asked_before_it_is_accepted() {
        let check = |status, action, forbidden: bool| {
            assert_eq!(forbids(status, action), forbidden, "{status:?} {action}");
        };
        let start = EventType::RemoteStartTransaction;
        check(BootStatus::Accepted, start, false);
        check(BootStatus::Pending, start, true);
        check(BootStatus::Pending, EventType::TriggerMessage, false);
        check(BootStatus::Rejected, EventType::TriggerMessage, true);
    }
}
