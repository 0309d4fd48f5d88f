//! What a caller says of an id tag, and all that is wrong with it.
//!
//! A draft becomes an entry as a whole or not at all, and every fault is told at once.

use jiff::Timestamp;

use super::{IdTag, IdTagEntry, InvalidIdTag, TagStatus};
use crate::webhooks::{Fault, Field};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdTagDraft {
    /// A new tag is accepted unless told otherwise.
    pub status: Field<String>,
    /// RFC 3339. `Null` means that it never expires.
    pub expiry_date: Field<String>,
    /// `Null` means none.
    pub parent_id_tag: Field<String>,
}

impl IdTagDraft {
    /// A new entry; where the tag is given, it is checked with the rest.
    pub fn create(self, id_tag: Field<String>, now: Timestamp) -> Result<IdTagEntry, Vec<Fault>> {
        let mut faults = Vec::new();
        let id_tag = match id_tag {
            Field::Value(text) => read_tag("/id_tag", &text, &mut faults),
            Field::Absent | Field::Null => {
                faults.push(Fault::new(
                    "/id_tag",
                    "required",
                    "id_tag is required".to_owned(),
                ));
                None
            }
        };
        let read = self.read(&mut faults);
        match (id_tag, faults.is_empty()) {
            (Some(id_tag), true) => {
                let new = IdTagEntry {
                    id_tag,
                    status: TagStatus::Accepted,
                    expiry_date: None,
                    parent_id_tag: None,
                    created_at: now,
                    updated_at: now,
                };
                Ok(read.onto(new))
            }
            _ => Err(faults),
        }
    }

    /// Changes what the draft mentions and leaves the rest.
    pub fn update(self, current: &IdTagEntry, now: Timestamp) -> Result<IdTagEntry, Vec<Fault>> {
        let mut faults = Vec::new();
        let read = self.read(&mut faults);
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(read.onto(IdTagEntry {
            updated_at: now,
            ..current.clone()
        }))
    }

    fn read(self, faults: &mut Vec<Fault>) -> Read {
        let status = match self.status {
            Field::Absent => None,
            Field::Null => {
                let message = "status can't be null; leave it out to keep it".to_owned();
                faults.push(Fault::new("/status", "required", message));
                None
            }
            Field::Value(name) => TagStatus::from_name(&name).or_else(|| {
                faults.push(Fault::new(
                    "/status",
                    "invalid_status",
                    unknown_status(&name),
                ));
                None
            }),
        };
        let expiry_date = read(self.expiry_date, |text| {
            let time = text.parse().map_err(|_| {
                let message =
                    format!("{text:?} is not an RFC 3339 time, as in 2026-04-14T12:00:00Z");
                faults.push(Fault::new("/expiry_date", "invalid_time", message));
            });
            time.ok()
        });
        let parent_id_tag = read(self.parent_id_tag, |text| {
            read_tag("/parent_id_tag", text, faults)
        });
        Read {
            status,
            expiry_date,
            parent_id_tag,
        }
    }
}

/// What a draft mentions, read.
struct Read {
    status: Option<TagStatus>,
    expiry_date: Field<Timestamp>,
    parent_id_tag: Field<IdTag>,
}

impl Read {
    fn onto(self, entry: IdTagEntry) -> IdTagEntry {
        IdTagEntry {
            status: self.status.unwrap_or(entry.status),
            expiry_date: changed(self.expiry_date, entry.expiry_date),
            parent_id_tag: changed(self.parent_id_tag, entry.parent_id_tag),
            ..entry
        }
    }
}

/// What can't be read counts as not mentioned; the fault is told elsewhere.
fn read<T>(field: Field<String>, parse: impl FnOnce(&str) -> Option<T>) -> Field<T> {
    match field {
        Field::Absent => Field::Absent,
        Field::Null => Field::Null,
        Field::Value(text) => parse(&text).map_or(Field::Absent, Field::Value),
    }
}

fn changed<T>(field: Field<T>, current: Option<T>) -> Option<T> {
    match field {
        Field::Absent => current,
        Field::Null => None,
        Field::Value(value) => Some(value),
    }
}

fn unknown_status(name: &str) -> String {
    let hint = if name == "Expired" {
        "; give it an expiry_date in the past instead"
    } else {
        ""
    };
    let names: Vec<_> = TagStatus::ALL.iter().map(|status| status.name()).collect();
    format!("{name:?} is none of {}{hint}", names.join(", "))
}

fn read_tag(pointer: &str, text: &str, faults: &mut Vec<Fault>) -> Option<IdTag> {
    let read = IdTag::new(text).map_err(|error| {
        let code = match error {
            InvalidIdTag::Empty => "required",
            InvalidIdTag::TooLong => "too_long",
            InvalidIdTag::Characters => "invalid_id_tag",
        };
        faults.push(Fault::new(pointer, code, error.to_string()));
    });
    read.ok()
}

#[cfg(test)]
mod tests {
    use super::{
        Field::{Absent, Null, Value},
        *,
    };

    fn text(value: &str) -> Field<String> {
        Value(value.to_owned())
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_new_tag_is_accepted_for_ever() {
        let entry = IdTagDraft::default().create(text("RFID_1"), at(5)).unwrap();
        assert_eq!(entry.status, TagStatus::Accepted);
        assert_eq!((entry.expiry_date, entry.parent_id_tag), (None, None));
    }

    #[test]
    fn an_update_leaves_what_it_does_not_mention() {
        let draft = IdTagDraft {
            status: text("Blocked"),
            expiry_date: text("2026-04-14T14:00:00+02:00"),
            parent_id_tag: text("P"),
        };
        let entry = draft.create(text("A"), at(5)).unwrap();
        assert_eq!(entry.expiry_date, "2026-04-14T12:00:00Z".parse().ok());
        let same = IdTagDraft::default().update(&entry, at(5)).unwrap();
        assert_eq!(same, entry);
        let cleared = IdTagDraft {
            status: Absent,
            expiry_date: Null,
            parent_id_tag: Null,
        };
        let cleared = cleared.update(&entry, at(6)).unwrap();
        assert_eq!(cleared.status, TagStatus::Blocked);
        assert_eq!((cleared.expiry_date, cleared.parent_id_tag), (None, None));
        assert_eq!((cleared.created_at, cleared.updated_at), (at(5), at(6)));
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let draft = IdTagDraft {
            status: text("Expired"),
            expiry_date: text("tomorrow"),
            parent_id_tag: text("a tag of more than 20"),
        };
        let faults = draft.create(Absent, at(5)).unwrap_err();
        let told: Vec<_> = faults
            .iter()
            .map(|f| (f.pointer.as_str(), f.code))
            .collect();
        let expected = [
            ("/id_tag", "required"),
            ("/status", "invalid_status"),
            ("/expiry_date", "invalid_time"),
            ("/parent_id_tag", "too_long"),
        ];
        assert_eq!(told, expected);
    }
}
