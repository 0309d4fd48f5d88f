//! `context`, as clap reads it.

use clap::Subcommand;

use super::candidates::Candidates;

#[derive(Debug, Subcommand)]
pub(crate) enum Contexts {
    /// Gives a daemon a name; the first one is used from then on
    ///
    /// What the file keeps is where the API key is, and never the key itself.
    #[command(
        override_usage = "pipeletctl context add <NAME> --server <URL> [--api-key-file <FILE>] \
                          [--ca-file <FILE>]"
    )]
    Add { name: String },
    /// Uses this daemon from now on
    Use {
        #[arg(add = Candidates::Contexts)]
        name: String,
    },
    /// Shows all contexts
    List,
    /// Shows which daemon a command would use, and why
    Show,
    /// Forgets a context
    Remove {
        #[arg(add = Candidates::Contexts)]
        name: String,
    },
}
