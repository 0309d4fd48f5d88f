//! How much a listing shows.

use clap::Args;

/// People see so many where they say nothing.
const FOR_PEOPLE: u64 = 50;

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Limit {
    /// At most this many [default: 50 on a terminal, and of events; all otherwise]
    #[arg(id = "limit", long = "limit", value_name = "N", value_parser = parse_count)]
    count: Option<u64>,
    /// All there are
    #[arg(id = "all_of_them", long = "all", conflicts_with = "limit")]
    all: bool,
}

/// Of what comes without end.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct EndAfter {
    /// Ends after this many
    #[arg(id = "limit", long = "limit", value_name = "N", value_parser = parse_count)]
    pub(crate) count: Option<u64>,
}

impl Limit {
    /// None: all there are. `for_people`: they look at it.
    pub(crate) fn count(self, for_people: bool) -> Option<u64> {
        let default = for_people.then_some(FOR_PEOPLE);
        self.count.or(default.filter(|_| !self.all))
    }
}

fn parse_count(text: &str) -> Result<u64, &'static str> {
    match text.parse() {
        Ok(0) | Err(_) => Err("write a number, from 1 on"),
        Ok(count) => Ok(count),
    }
}
