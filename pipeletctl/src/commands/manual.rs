//! `manual`: the pages that `man pipeletctl` shows, for packages. Knows no daemon.

use std::{fs, path::Path};

use clap::CommandFactory as _;

use crate::{
    cli::Cli,
    error::{Error, ExitStatus},
};

pub(crate) fn run(directory: &Path) -> Result<ExitStatus, Error> {
    let written = fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory));
    written.map_err(|source| Error::File {
        path: directory.to_owned(),
        source,
    })?;
    Ok(ExitStatus::Success)
}
