//! What is asked before something is lost, and the flag that has it go on without.

use clap::Args;

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct AssumeYes {
    /// Don't ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}
