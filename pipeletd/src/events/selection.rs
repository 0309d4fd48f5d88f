//! Which event types a subscription wants.

use super::{EventType, UnknownEventType};

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
    #[error(transparent)]
    Unknown(#[from] UnknownEventType),
}

impl EventSelection {
    /// Every event, future types included.
    pub const ALL: &str = "*";

    /// Reads a list of names; on failure, all faults with their positions in the list.
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<Self, Vec<(usize, SelectionError)>> {
        if names.is_empty() {
            return Err(vec![(0, SelectionError::Empty)]);
        }
        let mut selection = Self {
            names: Vec::new(),
            bits: 0,
        };
        let mut faults = Vec::new();
        for (index, name) in names.iter().map(AsRef::as_ref).enumerate() {
            if name == Self::ALL {
                selection.bits = u64::MAX;
            } else {
                match name.parse::<EventType>() {
                    Ok(kind) => selection.bits |= 1 << kind.code(),
                    Err(unknown) => faults.push((index, unknown.into())),
                }
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

    /// The first type that was named, and where all were meant, the contract's own example.
    pub fn first(&self) -> EventType {
        let named = self.names.first().and_then(|name| name.parse().ok());
        named.unwrap_or(EventType::StartTransaction)
    }
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
    }
}
