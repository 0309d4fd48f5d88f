//! `--limit`, which every listing has.

use clap::Args;

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Limit {
    /// At most this many
    #[arg(id = "limit", long = "limit", value_name = "N")]
    pub(crate) count: Option<u64>,
}
