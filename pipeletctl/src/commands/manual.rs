//! `manual`: the pages that `man pipeletctl` shows, for packages. Knows no daemon.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use crate::{
    cli::{Cli, EXIT_STATUS, examples},
    error::{Error, ExitStatus},
};

pub(crate) fn run(directory: &Path) -> Result<ExitStatus, Error> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let written = fs::create_dir_all(directory).and_then(|()| write(&command, "", directory));
    written.map_err(|source| Error::File {
        path: directory.to_owned(),
        source,
    })?;
    Ok(ExitStatus::Success)
}

/// Writes a command's page, and those of the commands below it.
fn write(command: &Command, path: &str, directory: &Path) -> io::Result<()> {
    let man = Man::new(command.clone());
    let mut page = File::create(directory.join(man.get_filename()))?;
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut lines = examples(path).peekable();
    if lines.peek().is_some() {
        writeln!(page, ".SH EXAMPLES\n.nf")?;
        for arguments in lines {
            let line = format!("pipeletctl {path} {arguments}");
            writeln!(
                page,
                "{}",
                line.trim_end().replace('\\', "\\e").replace('-', "\\-")
            )?;
        }
        writeln!(page, ".fi")?;
    }
    writeln!(page, ".SH \"EXIT STATUS\"")?;
    for (code, meaning) in EXIT_STATUS {
        writeln!(page, ".TP\n{code}\n{meaning}")?;
    }
    for below in command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
    {
        let path = format!("{path} {}", below.get_name());
        write(below, path.trim_start(), directory)?;
    }
    Ok(())
}
