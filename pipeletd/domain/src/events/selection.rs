//! Which event types a subscription wants.

use super::{EventType, Group, UnknownEventType, UnknownGroup};

/// A choice of event types, as the subscriber wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventSelection {
    /// In the order given, without repetitions.
    names: Vec<String>,
    /// One bit for each code.
    bits: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    #[error("name at least one event type, or \"*\" for all")]
    Empty,
    #[error(
        "name at most {} event types; \"*\" stands for all",
        EventSelection::MAX_NAMES
    )]
    TooMany,
    #[error(transparent)]
    Unknown(#[from] UnknownEventType),
    #[error(transparent)]
    UnknownGroup(#[from] UnknownGroup),
}

impl EventSelection {
    /// Every event, future types included.
    pub const ALL: &str = "*";
    /// Stands before a group's name, and means every type of the group, future ones included.
    pub const GROUP: &str = "group:";
    /// More than there are, so that nobody who lists them all has to count.
    pub const MAX_NAMES: usize = 100;

    /// Reads a list of names; on failure, all faults with their positions in the list.
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<Self, Vec<(usize, SelectionError)>> {
        if names.is_empty() {
            return Err(vec![(0, SelectionError::Empty)]);
        }
        if names.len() > Self::MAX_NAMES {
            return Err(vec![(Self::MAX_NAMES, SelectionError::TooMany)]);
        }
        let mut selection = Self {
            names: Vec::new(),
            bits: 0,
        };
        let mut faults = Vec::new();
        for (index, name) in names.iter().map(AsRef::as_ref).enumerate() {
            match bits(name) {
                Ok(bits) => selection.bits |= bits,
                Err(unknown) => faults.push((index, unknown)),
            }
            if !selection.names.iter().any(|known| known == name) {
                selection.names.push(name.to_owned());
            }
        }
        if faults.is_empty() {
            Ok(selection)
        } else {
            Err(faults)
        }
    }

    pub const fn contains(&self, kind: EventType) -> bool {
        self.bits & (1 << kind.code()) != 0
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The first type that was named; where many were meant at once, the contract's own example
    /// if it is among them, and else the first of the catalogue that is.
    pub fn first(&self) -> EventType {
        let named = self.names.first().and_then(|name| name.parse().ok());
        let mut contained = [EventType::StartTransaction]
            .into_iter()
            .chain(EventType::ALL.iter().copied())
            .filter(|kind| self.contains(*kind));
        named
            .or_else(|| contained.next())
            .unwrap_or(EventType::StartTransaction)
    }
}

fn bits(name: &str) -> Result<u64, SelectionError> {
    if name == EventSelection::ALL {
        return Ok(u64::MAX);
    }
    let Some(group) = name.strip_prefix(EventSelection::GROUP) else {
        return Ok(1 << name.parse::<EventType>()?.code());
    };
    let group: Group = group.parse()?;
    let members = EventType::ALL.iter().filter(|kind| kind.group() == group);
    Ok(members.fold(0, |bits, kind| bits | 1 << kind.code()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_contains_what_was_named() {
        let some = EventSelection::parse(&["MeterValues", "Heartbeat", "MeterValues"]).unwrap();
        assert_eq!(some.names(), ["MeterValues", "Heartbeat"]);
        assert!(some.contains(EventType::MeterValues));
        assert!(!some.contains(EventType::Authorize));
        assert_eq!(some.first(), EventType::MeterValues);

        let all = EventSelection::parse(&["*"]).unwrap();
        assert!(EventType::ALL.iter().all(|kind| all.contains(*kind)));
        assert_eq!(all.first(), EventType::StartTransaction);
    }

    #[test]
    fn a_group_stands_for_its_types() {
        let check = |group: Group, first| {
            let name = format!("group:{}", group.name());
            let selection = EventSelection::parse(&[name.as_str()]).unwrap();
            for kind in EventType::ALL {
                assert_eq!(selection.contains(*kind), kind.group() == group, "{kind}");
            }
            assert_eq!(selection.first(), first);
            assert_eq!(selection.names(), [name]);
        };
        check(Group::Standard, EventType::StartTransaction);
        check(Group::Extended, EventType::CancelReservation);
        check(Group::Security, EventType::SecurityEventNotification);
        check(Group::Connection, EventType::StationConnected);

        let mixed = EventSelection::parse(&["group:connection", "Reset"]).unwrap();
        assert!(mixed.contains(EventType::Reset) && !mixed.contains(EventType::Heartbeat));
    }

    #[test]
    fn an_unknown_group_is_told_with_what_is_near() {
        let check = |name: &str, message: &str| {
            let faults = EventSelection::parse(&[name]).unwrap_err();
            assert_eq!(faults[0].1.to_string(), message);
        };
        check(
            "group:standart",
            "unknown event group \"standart\", did you mean \"group:standard\"?",
        );
        check(
            "group:",
            "unknown event group \"\"; there are standard, extended, security, connection",
        );
        check("Group:standard", "unknown event type \"Group:standard\"");
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let faults = EventSelection::parse(&["Bogus", "MeterValues", "Hearbeat"]).unwrap_err();
        assert_eq!(
            faults.iter().map(|(index, _)| *index).collect::<Vec<_>>(),
            [0, 2]
        );
        assert_eq!(
            EventSelection::parse::<&str>(&[]).unwrap_err(),
            [(0, SelectionError::Empty)]
        );
        assert_eq!(
            EventSelection::parse(&["Bogus"; EventSelection::MAX_NAMES + 1]).unwrap_err(),
            [(EventSelection::MAX_NAMES, SelectionError::TooMany)]
        );
        let all: Vec<&str> = EventType::ALL.iter().map(|kind| kind.name()).collect();
        assert!(EventSelection::parse(&all).is_ok());
    }
}
