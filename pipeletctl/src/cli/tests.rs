//! What is accepted and what is refused.

use clap::{CommandFactory as _, error::ErrorKind};

use super::*;

fn parse(line: &str) -> Result<Cli, ErrorKind> {
    let words = std::iter::once("pipeletctl").chain(line.split_whitespace());
    Cli::try_parse_from(words).map_err(|error| error.kind())
}

#[test]
fn the_definition_holds() {
    Cli::command().debug_assert();
}

#[test]
fn what_is_accepted() {
    for line in [
        "webhooks create --name N --url http://h --event A,B --event C",
        "webhooks create --name N --url http://h --event A --secret-header H --secret-value -v",
        "webhooks create --name N --url http://h --event A --secret-header H --secret-value-file -",
        "webhooks create --name N --url http://h --event * --station A --station B*",
        "webhooks update 7 --secret-value V",
        "webhooks update 7 --all-stations",
        "webhooks update 7 --clear-secret --disabled",
        "webhooks deliveries 7 --limit 3",
        "dlq list",
        "dlq replay 1 2 3",
        "dlq replay --all --webhook 7 --since 2h",
        "dlq replay --all --rate 50/s --canary",
        "dlq purge --station S --yes",
        "deliveries list --status pending --webhook 7 --since 2h --limit 3",
        "events list --event A,B --station S --since 2h --until 1h --limit 3",
        "events show evt_1",
        "events tail --event A --station S --since 10m -o jsonl",
        "stations list --connected",
        "stations call S Reset --param type=Soft --timeout 5s",
        "stations call S Reset --json -",
        "stations disconnect S",
        "transactions list --station S --id-tag T --open --since 2h --limit 3",
        "transactions show 42",
        "id-tags add T --status Blocked --expires 2026-04-14T12:00:00Z --parent P",
        "id-tags set T --no-expiry --no-parent",
        "stations add S --password-file - --security-profile 1 --boot-policy Pending",
        "stations set S --clear-password --clear-security-profile",
        "stations remove S",
        "keys create --name ci --role read-only --expires-in 90d --ca-file ca.pem",
        "keys revoke 1 --server http://localhost:1 --timeout 5s --no-color",
        "simulate --stations 50 --scenario storm --speed 60x --duration 5m --password-file -",
        "simulate --ocpp-url wss://csms.example.com/ocpp --prefix X --connectors 1 --yes",
        "status -o yaml",
        "completions zsh",
    ] {
        assert!(parse(line).is_ok(), "{line}");
    }
}

#[test]
fn what_is_refused() {
    use ErrorKind::{
        ArgumentConflict, InvalidSubcommand, InvalidValue, MissingRequiredArgument, ValueValidation,
    };
    for (line, kind) in [
        (
            "webhooks create --name N --url http://h",
            MissingRequiredArgument,
        ),
        (
            "webhooks create --name N --url http://h --event A --secret-header H",
            MissingRequiredArgument,
        ),
        (
            "webhooks create --name N --url http://h --event A --secret-value V",
            MissingRequiredArgument,
        ),
        (
            "webhooks update 7 --clear-secret --secret-value V",
            ArgumentConflict,
        ),
        ("webhooks update 7 --enabled --disabled", ArgumentConflict),
        (
            "webhooks update 7 --all-stations --station A",
            ArgumentConflict,
        ),
        ("dlq show seven", ValueValidation),
        ("dlq list --limit 0", ValueValidation),
        ("dlq list --limit 5 --all", ArgumentConflict),
        ("transactions list --open --stopped", ArgumentConflict),
        ("id-tags set T --parent P --no-parent", ArgumentConflict),
        ("id-tags add T --expires soon", ValueValidation),
        (
            "stations add S --password P --password-file F",
            ArgumentConflict,
        ),
        (
            "stations set S --password P --clear-password",
            ArgumentConflict,
        ),
        ("dlq replay", MissingRequiredArgument),
        ("dlq purge --yes", MissingRequiredArgument),
        ("dlq replay 1 --all", ArgumentConflict),
        ("dlq replay 1 --webhook 7", ArgumentConflict),
        ("dlq replay --all --rate fast", ValueValidation),
        ("dlq replay --canary", MissingRequiredArgument),
        ("deliveries list --status lost", InvalidValue),
        ("dlq list --since soon", ValueValidation),
        ("stations call S", MissingRequiredArgument),
        ("stations call S Reset --param type", ValueValidation),
        (
            "stations call S Reset --param type=Soft --json {}",
            ArgumentConflict,
        ),
        ("status --server ftp://h", ValueValidation),
        ("status --timeout 0s", ValueValidation),
        ("simulate --stations 0", ValueValidation),
        ("simulate --speed 0x", ValueValidation),
        ("simulate --ocpp-url http://h/ocpp", ValueValidation),
        ("nonsense", InvalidSubcommand),
    ] {
        assert_eq!(parse(line).err(), Some(kind), "{line}");
    }
}

#[test]
fn a_parsed_secret_is_not_in_debug() {
    let line =
        "webhooks create --name N --url http://h --event A --secret-header H --secret-value hush";
    assert!(!format!("{:?}", parse(line).unwrap()).contains("hush"));
}

#[test]
fn each_command_has_examples_that_parse() {
    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        for below in command
            .get_subcommands()
            .filter(|below| !below.is_hide_set())
        {
            let path = format!("{path} {}", below.get_name())
                .trim_start()
                .to_owned();
            if below.has_subcommands() {
                leaves(below, &path, found);
            } else {
                found.push(path);
            }
        }
    }

    let mut commands = Vec::new();
    leaves(&Cli::command(), "", &mut commands);
    assert!(commands.len() > 40, "{commands:?}");
    for command in commands {
        let mut examples = 0;
        for arguments in super::examples(&command) {
            // None of them has a space within quotes.
            let line = format!("{command} {}", arguments.replace('\'', ""));
            let parsed = parse(line.trim_end());
            assert!(
                parsed.is_ok() || parsed.is_err_and(|kind| kind == ErrorKind::DisplayHelp),
                "{line}"
            );
            examples += 1;
        }
        assert!(examples >= 2, "{command}");
    }
}
