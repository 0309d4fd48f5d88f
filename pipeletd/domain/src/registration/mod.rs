//! Which stations are expected, and what is asked of each.
//!
//! An entry says how a station shows who it is and what its boot is answered with. What has been
//! constructed is right, and no password can be read back from it. Nothing here knows sockets,
//! OCPP frames, REST or gRPC.

mod draft;
mod password;

use jiff::Timestamp;

pub use self::{
    draft::RegistrationDraft,
    password::{InvalidPassword, PasswordHash, Salt},
};
use crate::{events::StationId, projection::BootStatus};

/// What was agreed on with a station beforehand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    pub station: StationId,
    pub password: Option<PasswordHash>,
    /// Where there is one, the station is refused on every other.
    pub profile: Option<SecurityProfile>,
    /// What a `BootNotification` is answered with.
    pub boot_policy: BootStatus,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// How a station and we show each other who we are (OCPP 1.6 security whitepaper, section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityProfile {
    /// Nothing but the station's word.
    Unsecured,
    /// HTTP Basic on a plain connection.
    Basic,
    /// HTTP Basic within TLS.
    TlsBasic,
    /// TLS, and a client certificate with the station's id.
    MutualTls,
}

impl SecurityProfile {
    const ALL: [Self; 4] = [
        Self::Unsecured,
        Self::Basic,
        Self::TlsBasic,
        Self::MutualTls,
    ];

    /// The whitepaper's number; 0 stands for none of its profiles.
    pub const fn number(self) -> u8 {
        match self {
            Self::Unsecured => 0,
            Self::Basic => 1,
            Self::TlsBasic => 2,
            Self::MutualTls => 3,
        }
    }

    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|profile| u64::from(profile.number()) == number)
    }

    pub const fn has_password(self) -> bool {
        match self {
            Self::Basic | Self::TlsBasic => true,
            Self::Unsecured | Self::MutualTls => false,
        }
    }
}

/// Which stations may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Any; an entry, where there is one, holds for its station.
    Open,
    /// Those that have an entry.
    Registered,
}
