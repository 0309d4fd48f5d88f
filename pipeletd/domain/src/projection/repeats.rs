//! Recognising what a station sends once more because an answer was lost.
//!
//! A station may repeat its last CALL under the same message id, on a new connection or to a
//! daemon that has restarted since, and it may repeat a `StartTransaction` under a new id, until it
//! stops that transaction. Neither happened twice, so neither may become a second event or a second
//! transaction. Everything else is new, whatever its message id: a station has one CALL outstanding
//! at a time (OCPP-J 1.6, section 4.1.1), and some use an id again.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::{Fields, StationState};
use crate::events::{EventType, Payload};

/// The first 128 bits of a SHA-256.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 16]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self::take(Sha256::new_with_prefix(bytes))
    }

    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    fn take(hash: Sha256) -> Self {
        let hash: [u8; 32] = hash.finalize().into();
        let mut first = [0; 16];
        first.copy_from_slice(&hash[..16]);
        Self(first)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// The last CALL that a station made and that became an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastCall {
    pub message_id: String,
    pub kind: EventType,
    /// Of the event's payload, which for a `StartTransaction` has the transaction's id in it.
    pub digest: Digest,
    /// What a `StartTransaction` was answered with.
    pub transaction_id: Option<i64>,
}

/// What makes two `StartTransaction` requests of one station the same transaction: connector,
/// idTag, meterStart and timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartKey(pub Digest);

impl StartKey {
    /// `None` where one of the four is missing: then nothing says that it is the same one.
    pub fn of(fields: &Fields<'_>) -> Option<Self> {
        let mut hash = Sha256::new();
        for name in ["connectorId", "idTag", "meterStart", "timestamp"] {
            let text = fields.raw(name)?;
            hash.update(text.len().to_be_bytes());
            hash.update(text);
        }
        Some(Self(Digest::take(hash)))
    }
}

/// A transaction that was started lately and has not been stopped. Another one that is stopped may
/// begin just like it: a clock that starts in 1970 says the same each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartedTransaction {
    pub key: StartKey,
    pub transaction_id: i64,
}

/// A CALL that has already become an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeat {
    /// Where it is a `StartTransaction`, the id that it was answered with.
    pub transaction_id: Option<i64>,
}

/// How a CALL has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// From the station. No other CALL came since the last one of the state where it `follows`.
    First { follows: bool },
    /// From another node, which has sent the same before and got no answer.
    Again,
}

impl StationState {
    /// Whether this CALL, with the payload as it came, is one that has already become an event.
    pub fn repeat_of(
        &self,
        message_id: &str,
        kind: EventType,
        payload: &Payload,
        arrival: Arrival,
    ) -> Option<Repeat> {
        // Chargers that count from 1 after every start begin with the same words each time, and
        // nothing in these two tells a new one from an old one: better twice than never.
        let is_plain = matches!(kind, EventType::BootNotification | EventType::Heartbeat);
        let may_be = match arrival {
            Arrival::First { follows } => follows && !is_plain,
            Arrival::Again => true,
        };
        self.repeat_of_last_call(message_id, kind, payload)
            .filter(|_| may_be)
            .or_else(|| self.repeat_of_start(kind, payload))
    }

    fn repeat_of_last_call(
        &self,
        message_id: &str,
        kind: EventType,
        payload: &Payload,
    ) -> Option<Repeat> {
        let last = self.last_call.as_ref()?;
        if last.message_id != message_id || last.kind != kind {
            return None;
        }
        let digest = match last.transaction_id {
            Some(id) => Digest::of(payload.with_number("transactionId", id).as_bytes()),
            None => Digest::of(payload.as_bytes()),
        };
        (digest == last.digest).then_some(Repeat {
            transaction_id: last.transaction_id,
        })
    }

    fn repeat_of_start(&self, kind: EventType, payload: &Payload) -> Option<Repeat> {
        if kind != EventType::StartTransaction {
            return None;
        }
        let key = StartKey::of(&Fields::parse(payload.as_bytes()))?;
        let started = self.recent_starts.iter().find(|start| start.key == key)?;
        Some(Repeat {
            transaction_id: Some(started.transaction_id),
        })
    }
}
