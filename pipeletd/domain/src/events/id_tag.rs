//! Id tags: who wants to charge, and what a station was told about them.

use std::fmt;

/// An id tag as it is compared: OCPP's `CiString20Type` knows no case, and some chargers pad
/// their tags with blanks or control bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdTagKey(Box<str>);

impl IdTagKey {
    /// Any text has a key, and texts with the same key mean the same tag.
    pub fn of(text: &str) -> Self {
        let padding = |c: char| c.is_whitespace() || c.is_control();
        Self(text.trim_matches(padding).to_lowercase().into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a station is told about an id tag (OCPP 1.6, section 7.2).
///
/// The discriminant is the code in stored records: it is fixed for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AuthorizationStatus {
    Accepted = 1,
    Blocked = 2,
    Expired = 3,
    Invalid = 4,
    /// The tag charges elsewhere; told about a `StartTransaction` only.
    ConcurrentTx = 5,
}

impl AuthorizationStatus {
    pub const ALL: &[Self] = &[
        Self::Accepted,
        Self::Blocked,
        Self::Expired,
        Self::Invalid,
        Self::ConcurrentTx,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Blocked => "Blocked",
            Self::Expired => "Expired",
            Self::Invalid => "Invalid",
            Self::ConcurrentTx => "ConcurrentTx",
        }
    }

    /// The code in stored records.
    pub const fn code(self) -> u8 {
        self as u8
    }

    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|status| status.code() == code)
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|status| status.name() == name)
    }
}

impl fmt::Display for AuthorizationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_padding_make_no_difference() {
        for text in ["RFID_1", "rfid_1", " Rfid_1\u{0}\u{0}", "RFID_1\r\n"] {
            assert_eq!(IdTagKey::of(text), IdTagKey::of("RFID_1"), "{text:?}");
        }
        assert_ne!(IdTagKey::of("RFID_1"), IdTagKey::of("RFID 1"));
        assert_eq!(IdTagKey::of(" \u{1}").as_str(), "");
    }

    #[test]
    fn names_and_codes_lead_back() {
        for status in AuthorizationStatus::ALL {
            assert_eq!(AuthorizationStatus::from_code(status.code()), Some(*status));
            assert_eq!(AuthorizationStatus::from_name(status.name()), Some(*status));
        }
        assert_eq!(AuthorizationStatus::from_code(0), None);
        assert_eq!(AuthorizationStatus::from_name("accepted"), None);
    }
}
