//! The pages that `man pipeletd` shows: all that may be said, out of the one place that has it.

use std::{fs, io, path::Path};

use clap::CommandFactory as _;

use super::arguments::Arguments;

/// Writes a page for the daemon, and one for each of its commands.
pub fn write(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    clap_mangen::generate_to(Arguments::command(), directory)
}
