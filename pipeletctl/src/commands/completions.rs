//! `completions`: scripts for shells. Knows no daemon.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{
    cli::Cli,
    error::{Error, ExitStatus},
    output::Printer,
};

pub(crate) fn run(shell: Shell, printer: &Printer) -> Result<ExitStatus, Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pipeletctl", &mut script);
    printer.text(&String::from_utf8_lossy(&script))?;
    Ok(ExitStatus::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_has_a_script() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "pipeletctl", &mut script);
            assert!(String::from_utf8(script).unwrap().contains("webhooks"));
        }
    }
}
