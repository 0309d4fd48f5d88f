//! What an argument's value names, so that a shell can be offered those that there are.

use clap::builder::ArgExt;

/// Stands in an argument's definition; `commands::completions` finds it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Candidates {
    ApiKeys,
    /// What a station can be asked.
    Commands,
    Contexts,
    EventTypes,
    /// The latest.
    Events,
    FailedDeliveries,
    IdTags,
    Nodes,
    Stations,
    Webhooks,
}

impl ArgExt for Candidates {}
