//! Things that go by a number or by a name.

use std::{convert::Infallible, str::FromStr};

/// A webhook or a key, as the command line has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    Id(u64),
    /// Only the daemon knows whose it is.
    Name(String),
}

impl FromStr for Named {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.parse() {
            Ok(id) => Self::Id(id),
            Err(_) => Self::Name(text.to_owned()),
        })
    }
}

/// The number of something that has no name.
pub(crate) fn parse_id(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "an id is a number")
}
