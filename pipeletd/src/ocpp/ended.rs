//! Why a connection of a station ended, and what the station is told of it.

use tokio_tungstenite::tungstenite::{
    self,
    error::ProtocolError,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::{
    call_handler::{LOST, REPLACED},
    command_queue::End,
    frame_scanner::TooMuchUnfinished,
};

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the station closed it with {}", .0.as_ref().map_or(1005, |frame| frame.code.into()))]
    ByStation(Option<CloseFrame>),
    #[error("the daemon is going down")]
    Shutdown,
    #[error("another node goes on with it")]
    HandedOver,
    #[error("too many stations are known")]
    Full,
    #[error("at its gateway: {detail}")]
    AtGateway {
        reason: &'static str,
        detail: String,
    },
    #[error("a newer connection of the station has come")]
    Replaced,
    #[error("an operator ended it")]
    Dismissed,
    #[error("the station is no longer registered")]
    Unregistered,
    #[error("nothing came for so long that nobody can be there")]
    Silent,
    #[error("a message is larger than the limit")]
    TooLarge,
    #[error("{TooMuchUnfinished}")]
    TooMuchUnfinished,
    #[error("a text message is not UTF-8")]
    NotUtf8,
    #[error("{0}")]
    Violation(ProtocolError),
    #[error("the station offered other subprotocols only")]
    NoSubprotocol,
    #[error("the station does not read what we write")]
    Stalled,
    #[error("the connection broke off")]
    BrokenOff,
    #[error("{0}")]
    Failed(tungstenite::Error),
}

impl Ended {
    /// All that a connection may end for that was journaled.
    pub(super) const REASONS: [&str; 12] = [
        "closed_by_station",
        "connection_lost",
        "disconnected_by_operator",
        "frame_too_large",
        "not_utf8",
        "protocol_violation",
        "replaced",
        "shutdown",
        "silent",
        "stalled",
        "too_much_unfinished",
        "unregistered",
    ];

    /// What an owner has ended another node's connection for.
    pub(super) fn of_owner(reason: &str) -> Self {
        let ends = [
            Self::Shutdown,
            Self::Replaced,
            Self::Dismissed,
            Self::Unregistered,
        ];
        let mut ends = ends.into_iter();
        let found = ends.find(|ended| ended.reason() == reason);
        found.unwrap_or(Self::BrokenOff)
    }

    /// Why a gateway's connection has ended.
    pub(super) fn at_gateway(reason: &str, detail: String) -> Self {
        let known = Self::REASONS.into_iter().find(|known| *known == reason);
        Self::AtGateway {
            reason: known.unwrap_or(LOST),
            detail,
        }
    }

    /// A word that never changes: it is in the disconnection's event.
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::ByStation(_) => "closed_by_station",
            Self::Shutdown => "shutdown",
            // These are in no event.
            Self::HandedOver => "handed_over",
            Self::Full => "too_many_stations",
            Self::AtGateway { reason, .. } => reason,
            Self::Replaced => REPLACED,
            Self::Dismissed => "disconnected_by_operator",
            Self::Unregistered => "unregistered",
            Self::Silent => "silent",
            Self::TooLarge => "frame_too_large",
            Self::TooMuchUnfinished => "too_much_unfinished",
            Self::NotUtf8 => "not_utf8",
            Self::Violation(_) => "protocol_violation",
            Self::NoSubprotocol => "no_common_subprotocol",
            Self::Stalled => "stalled",
            Self::BrokenOff | Self::Failed(_) => LOST,
        }
    }

    /// Whether the rest of a message may still be coming, of which nothing is wanted: what was read
    /// of it is let go at once, because a station can take its time to go.
    pub(super) const fn is_within_message(&self) -> bool {
        match self {
            Self::TooLarge | Self::TooMuchUnfinished | Self::NotUtf8 | Self::Violation(_) => true,
            Self::ByStation(_)
            | Self::Shutdown
            | Self::HandedOver
            | Self::Full
            | Self::AtGateway { .. }
            | Self::Replaced
            | Self::Dismissed
            | Self::Unregistered
            | Self::Silent
            | Self::NoSubprotocol
            | Self::Stalled
            | Self::BrokenOff
            | Self::Failed(_) => false,
        }
    }

    pub(super) fn close_frame(&self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Self::Shutdown => (CloseCode::Away, "the central system is going down"),
            Self::Full => (CloseCode::Again, "too many stations are known"),
            Self::Replaced => (CloseCode::Normal, "a newer connection has come"),
            Self::Dismissed => (CloseCode::Normal, "an operator ended the connection"),
            Self::Unregistered => (CloseCode::Policy, "the station is not registered"),
            Self::Silent => (CloseCode::Away, "nothing was heard for too long"),
            Self::TooLarge => (CloseCode::Size, "the message is too large"),
            Self::TooMuchUnfinished => (CloseCode::Again, "too many unfinished messages"),
            Self::NotUtf8 => (CloseCode::Invalid, "the message is not UTF-8"),
            Self::Violation(_) => (CloseCode::Protocol, "not a valid WebSocket frame"),
            Self::NoSubprotocol => (CloseCode::Protocol, "only ocpp1.6 is spoken here"),
            Self::ByStation(_)
            | Self::HandedOver
            | Self::AtGateway { .. }
            | Self::Stalled
            | Self::BrokenOff
            | Self::Failed(_) => return None,
        };
        Some(CloseFrame {
            code,
            reason: reason.into(),
        })
    }
}

impl From<End> for Ended {
    fn from(end: End) -> Self {
        match end {
            End::Dismissed => Self::Dismissed,
            End::Replaced => Self::Replaced,
            End::Shutdown => Self::Shutdown,
            End::HandedOver => Self::HandedOver,
        }
    }
}

impl From<tungstenite::Error> for Ended {
    fn from(error: tungstenite::Error) -> Self {
        use tungstenite::Error;
        match error {
            Error::Capacity(_) => Self::TooLarge,
            Error::Utf8(_) => Self::NotUtf8,
            Error::Io(error) if error.get_ref().is_some_and(TooMuchUnfinished::is_cause) => {
                Self::TooMuchUnfinished
            }
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::BrokenOff,
            Error::Protocol(violation) => Self::Violation(violation),
            error => Self::Failed(error),
        }
    }
}
