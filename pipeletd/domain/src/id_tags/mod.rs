//! Id tags: who may charge, until when, and to whom a card belongs.
//!
//! An entry and a time make a verdict. It knows neither stations nor OCPP's messages.

mod draft;

use std::fmt;

use jiff::Timestamp;

pub use self::draft::IdTagDraft;
use crate::events::{AuthorizationStatus, IdTagKey};

/// Whose tags may charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Everybody's: the entries are not looked at.
    AcceptAll,
    /// Those that are registered, as their entries say.
    Registered,
}

/// A tag as its owner wrote it; two that differ in case only are the same.
#[derive(Debug, Clone)]
pub struct IdTag(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdTag {
    #[error("an id tag is not empty")]
    Empty,
    #[error("an id tag has at most {} characters", IdTag::MAX_LEN)]
    TooLong,
    #[error("an id tag has no control characters, and no blanks around it")]
    Characters,
}

impl IdTag {
    /// OCPP's `IdToken` is a `CiString20Type` (OCPP 1.6, section 7.28).
    pub const MAX_LEN: usize = 20;

    pub fn new(text: &str) -> Result<Self, InvalidIdTag> {
        if text.trim().is_empty() {
            Err(InvalidIdTag::Empty)
        } else if text.chars().count() > Self::MAX_LEN {
            Err(InvalidIdTag::TooLong)
        } else if text.contains(char::is_control) || text.trim() != text {
            Err(InvalidIdTag::Characters)
        } else {
            Ok(Self(text.to_owned()))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn key(&self) -> IdTagKey {
        IdTagKey::of(&self.0)
    }
}

impl PartialEq for IdTag {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for IdTag {}

impl fmt::Display for IdTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What an entry says by itself; that it has expired, its date says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagStatus {
    Accepted,
    Blocked,
    Invalid,
}

impl TagStatus {
    pub const ALL: &[Self] = &[Self::Accepted, Self::Blocked, Self::Invalid];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Blocked => "Blocked",
            Self::Invalid => "Invalid",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|status| status.name() == name)
    }
}

/// A registered tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdTagEntry {
    pub id_tag: IdTag,
    pub status: TagStatus,
    /// From then on it has expired.
    pub expiry_date: Option<Timestamp>,
    /// Tags with the same parent may end each other's transactions.
    pub parent_id_tag: Option<IdTag>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The verdict on a tag, as a station is told it (OCPP 1.6, section 7.27).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdTagInfo {
    pub status: AuthorizationStatus,
    pub expiry_date: Option<Timestamp>,
    pub parent_id_tag: Option<IdTag>,
}

impl IdTagInfo {
    pub const fn of(status: AuthorizationStatus) -> Self {
        Self {
            status,
            expiry_date: None,
            parent_id_tag: None,
        }
    }
}

impl IdTagEntry {
    /// What a station is told now; `charges_elsewhere` counts for a tag that could charge.
    pub fn verdict(&self, now: Timestamp, charges_elsewhere: bool) -> IdTagInfo {
        let status = match self.status {
            TagStatus::Blocked => AuthorizationStatus::Blocked,
            TagStatus::Invalid => AuthorizationStatus::Invalid,
            TagStatus::Accepted if self.expiry_date.is_some_and(|expiry| expiry <= now) => {
                AuthorizationStatus::Expired
            }
            TagStatus::Accepted if charges_elsewhere => AuthorizationStatus::ConcurrentTx,
            TagStatus::Accepted => AuthorizationStatus::Accepted,
        };
        IdTagInfo {
            status,
            expiry_date: self.expiry_date,
            parent_id_tag: self.parent_id_tag.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_entry_means_at_a_time() {
        use AuthorizationStatus::{Accepted, Blocked, ConcurrentTx, Expired, Invalid};
        let at = |second| Timestamp::from_second(second).unwrap();
        let check = |status, expiry: Option<i64>, elsewhere, expected| {
            let entry = IdTagEntry {
                id_tag: IdTag::new("A").unwrap(),
                status,
                expiry_date: expiry.map(at),
                parent_id_tag: IdTag::new("P").ok(),
                created_at: at(0),
                updated_at: at(0),
            };
            let verdict = entry.verdict(at(100), elsewhere);
            assert_eq!(verdict.status, expected, "{entry:?} {elsewhere}");
            assert_eq!(verdict.expiry_date, entry.expiry_date);
            assert_eq!(verdict.parent_id_tag, entry.parent_id_tag);
        };
        check(TagStatus::Accepted, None, false, Accepted);
        check(TagStatus::Accepted, Some(101), false, Accepted);
        check(TagStatus::Accepted, Some(100), false, Expired);
        check(TagStatus::Accepted, Some(99), true, Expired);
        check(TagStatus::Accepted, None, true, ConcurrentTx);
        check(TagStatus::Blocked, Some(99), true, Blocked);
        check(TagStatus::Blocked, None, false, Blocked);
        check(TagStatus::Invalid, Some(101), true, Invalid);
    }

    #[test]
    fn tags_that_are_none() {
        let check = |text: &str, expected| assert_eq!(IdTag::new(text), expected, "{text:?}");
        check("", Err(InvalidIdTag::Empty));
        check("  ", Err(InvalidIdTag::Empty));
        check(&"x".repeat(21), Err(InvalidIdTag::TooLong));
        check(" A", Err(InvalidIdTag::Characters));
        check("A\u{1}", Err(InvalidIdTag::Characters));
        check(&"x".repeat(20), Ok(IdTag("X".repeat(20))));
    }
}
