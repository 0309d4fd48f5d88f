//! `id-tags`, as clap reads it.

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::{assume_yes::AssumeYes, candidates::Candidates, limit::Limit};

#[derive(Debug, Subcommand)]
pub(crate) enum IdTags {
    /// Registers a tag
    Add(AddIdTag),
    /// Shows all registered tags
    List {
        #[command(flatten)]
        limit: Limit,
    },
    /// Shows one tag
    #[command(alias = "get")]
    Show {
        #[arg(add = Candidates::IdTags)]
        tag: String,
    },
    /// Changes what is given and leaves the rest
    Set(SetIdTag),
    /// Ends a tag's registration; asks first
    Remove {
        #[arg(add = Candidates::IdTags)]
        tag: String,
        #[command(flatten)]
        assume: AssumeYes,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AddIdTag {
    /// As it is on the card; upper and lower case are the same
    pub(crate) tag: String,
    /// Accepted, Blocked or Invalid [default: Accepted]
    #[arg(long)]
    pub(crate) status: Option<String>,
    /// When it expires: 2026-04-14T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) expires: Option<Timestamp>,
    /// The tag of the group that it belongs to
    #[arg(long, value_name = "TAG")]
    pub(crate) parent: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SetIdTag {
    #[arg(add = Candidates::IdTags)]
    pub(crate) tag: String,
    /// Accepted, Blocked or Invalid
    #[arg(long)]
    pub(crate) status: Option<String>,
    /// When it expires: 2026-04-14T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) expires: Option<Timestamp>,
    /// It never expires
    #[arg(long, conflicts_with = "expires")]
    pub(crate) no_expiry: bool,
    /// The tag of the group that it belongs to
    #[arg(long, value_name = "TAG")]
    pub(crate) parent: Option<String>,
    /// It belongs to no group
    #[arg(long, conflicts_with = "parent")]
    pub(crate) no_parent: bool,
}
