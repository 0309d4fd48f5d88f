//! Which stations a subscription wants.

use super::StationId;

/// A choice of stations, as the subscriber wrote it; without patterns it is all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StationSelection {
    /// In the order given, without repetitions.
    patterns: Vec<String>,
    /// Whole ids, sorted.
    exact: Vec<String>,
    /// Beginnings of ids, sorted; none is the beginning of another one.
    prefixes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StationPatternError {
    #[error(
        "name at most {} stations; a pattern such as \"WALLBOX_*\" stands for many",
        StationSelection::MAX_PATTERNS
    )]
    TooMany,
    #[error("a station's id is empty; leave the list out to mean all stations")]
    Empty,
    #[error("a station's id has at most {} bytes", StationId::MAX_LEN)]
    TooLong,
    #[error("a \"*\" stands at the end only, as in \"WALLBOX_*\"")]
    StarNotLast,
    #[error("a station's id has no control characters")]
    Control,
}

impl StationSelection {
    pub const MAX_PATTERNS: usize = 1000;

    /// Reads a list of ids and patterns; on failure, all faults with their positions in the
    /// list, and one without a position where the list itself is wrong.
    pub fn parse<S: AsRef<str>>(
        patterns: &[S],
    ) -> Result<Self, Vec<(Option<usize>, StationPatternError)>> {
        if patterns.len() > Self::MAX_PATTERNS {
            return Err(vec![(None, StationPatternError::TooMany)]);
        }
        let mut selection = Self::default();
        let mut faults = Vec::new();
        for (index, pattern) in patterns.iter().map(AsRef::as_ref).enumerate() {
            if let Err(error) = check(pattern) {
                faults.push((Some(index), error));
            } else if !selection.patterns.iter().any(|known| known == pattern) {
                selection.patterns.push(pattern.to_owned());
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        for pattern in &selection.patterns {
            match pattern.strip_suffix('*') {
                Some(prefix) => selection.prefixes.push(prefix.to_owned()),
                None => selection.exact.push(pattern.clone()),
            }
        }
        selection.exact.sort_unstable();
        selection.prefixes.sort_unstable();
        // Sorted, a prefix stands before everything that begins with it.
        selection
            .prefixes
            .dedup_by(|later, kept| later.starts_with(kept.as_str()));
        Ok(selection)
    }

    /// Takes two binary searches, however long the list is.
    pub fn contains(&self, station: &StationId) -> bool {
        if self.patterns.is_empty() {
            return true;
        }
        let id = station.as_str();
        // No prefix begins another one, so only the last that does not sort after the id can be
        // its beginning.
        let after = self
            .prefixes
            .partition_point(|prefix| prefix.as_str() <= id);
        let nearest = after.checked_sub(1).map(|index| &self.prefixes[index]);
        nearest.is_some_and(|prefix| id.starts_with(prefix.as_str()))
            || self
                .exact
                .binary_search_by(|known| known.as_str().cmp(id))
                .is_ok()
    }

    /// Empty where all stations are meant.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }
}

fn check(pattern: &str) -> Result<(), StationPatternError> {
    if pattern.is_empty() {
        Err(StationPatternError::Empty)
    } else if pattern.len() > StationId::MAX_LEN {
        Err(StationPatternError::TooLong)
    } else if pattern.find('*').is_some_and(|at| at + 1 < pattern.len()) {
        Err(StationPatternError::StarNotLast)
    } else if pattern.contains(char::is_control) {
        Err(StationPatternError::Control)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(id: &str) -> StationId {
        StationId::new(id).unwrap()
    }

    #[test]
    fn what_the_patterns_contain() {
        let check = |patterns: &[&str], inside: &[&str], outside: &[&str]| {
            let selection = StationSelection::parse(patterns).unwrap();
            for station in inside {
                assert!(selection.contains(&id(station)), "{patterns:?} {station}");
            }
            for station in outside {
                assert!(!selection.contains(&id(station)), "{patterns:?} {station}");
            }
        };
        check(&[], &["A", "anything"], &[]);
        check(&["*"], &["A", "anything"], &[]);
        check(&["A"], &["A"], &["a", "AB", "B"]);
        check(
            &["WALLBOX_*", "WALLBOX_0*", "B", "A*"],
            &["WALLBOX_", "WALLBOX_001", "WALLBOX_9", "B", "A", "AB"],
            &["WALLBOX", "WALLBOY", "wallbox_1", "BA", "Z"],
        );
    }

    #[test]
    fn it_is_shown_as_written() {
        let selection = StationSelection::parse(&["b*", "a", "b*", "bc*"]).unwrap();
        assert_eq!(selection.patterns(), ["b*", "a", "bc*"]);
    }

    #[test]
    fn all_faults_are_told_at_once() {
        use StationPatternError::{Control, Empty, StarNotLast, TooLong, TooMany};
        let long = "x".repeat(256);
        let faults = StationSelection::parse(&["", "A", "A*B", "**", &long, "a\nb"]).unwrap_err();
        let expected = [
            (Some(0), Empty),
            (Some(2), StarNotLast),
            (Some(3), StarNotLast),
            (Some(4), TooLong),
            (Some(5), Control),
        ];
        assert_eq!(faults, expected);
        assert!(StationSelection::parse(&vec!["A"; 1000]).is_ok());
        assert_eq!(
            StationSelection::parse(&vec!["A"; 1001]).unwrap_err(),
            [(None, TooMany)]
        );
    }

    proptest! {
        #[test]
        fn the_search_finds_what_trying_each_would(
            patterns in prop::collection::vec("[ab]{0,4}\\*|[ab]{1,4}", 1..8),
            station in "[ab]{1,5}",
        ) {
            let selection = StationSelection::parse(&patterns).unwrap();
            let one_by_one = patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => station.starts_with(prefix),
                None => *pattern == station,
            });
            prop_assert_eq!(selection.contains(&id(&station)), one_by_one);
        }
    }
}
