//! `completions`: scripts for shells, which ask this program as one types. Knows no daemon.

mod candidates;

use clap_complete::env::{Bash, Elvish, EnvCompleter, Fish, Powershell, Zsh};

use self::candidates::VARIABLE;
pub(crate) use self::candidates::answer;
use crate::{
    cli::Shell,
    error::{Error, ExitStatus},
    output::Printer,
};

const NAME: &str = "pipeletctl";

pub(crate) fn run(shell: Shell, printer: &Printer) -> Result<ExitStatus, Error> {
    printer.text(&script(shell)?)?;
    Ok(ExitStatus::Success)
}

fn script(shell: Shell) -> Result<String, Error> {
    let shell: &dyn EnvCompleter = match shell {
        Shell::Bash => &Bash,
        Shell::Elvish => &Elvish,
        Shell::Fish => &Fish,
        Shell::Powershell => &Powershell,
        Shell::Zsh => &Zsh,
    };
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, NAME, NAME, NAME, &mut script)?;
    Ok(String::from_utf8_lossy(&script).into_owned())
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_has_a_script() {
        for shell in Shell::value_variants() {
            let script = script(*shell).unwrap();
            assert!(script.contains(VARIABLE), "{shell:?}: {script}");
        }
    }
}
