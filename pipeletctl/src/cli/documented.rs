//! The command line with what helps to use it: examples, exit codes, and global options told once.

use clap::Command;

/// What a process ends with.
pub(crate) const EXIT_STATUS: [(u8, &str); 9] = [
    (0, "success"),
    (1, "failed"),
    (
        2,
        "wrong usage, or a request that must change before it can succeed",
    ),
    (3, "what was asked for does not exist"),
    (
        4,
        "not authorised: no key, a wrong, expired or revoked one, or too low a role",
    ),
    (5, "a conflict with the present state"),
    (6, "partly failed"),
    (69, "the daemon can't be reached, or can't do it now"),
    (130, "interrupted with Ctrl-C"),
];

/// By command, without `pipeletctl`.
#[rustfmt::skip]
const EXAMPLES: &[(&str, &[&str])] = &[
    ("webhooks create", &[
        "--name Orders --url https://my-app.example.com/hooks --event StartTransaction,StopTransaction",
        "--name All --url http://127.0.0.1:3000/hooks --event '*' --sign",
        "--name North --url https://my-app.example.com/hooks --event '*' --station 'NORTH_*'",
    ]),
    ("webhooks list", &["", "-o json"]),
    ("webhooks get", &["1", "Orders"]),
    ("webhooks update", &["Orders --event '*'", "1 --url https://new.example.com/hooks"]),
    ("webhooks delete", &["Orders", "4 --yes"]),
    ("webhooks test", &["1", "Orders --event MeterValues"]),
    ("webhooks retry", &["1", "Orders"]),
    ("webhooks enable", &["1", "Orders"]),
    ("webhooks disable", &["1", "Orders"]),
    ("webhooks rotate-secret", &["Orders", "1 --signing-secret-file new-secret"]),
    ("webhooks backfill", &["Orders --since 2h --dry-run", "1 --since 2026-04-14T12:00:00Z --event StopTransaction"]),
    ("webhooks stats", &["", "Orders --over 10s"]),
    ("webhooks deliveries", &["1", "Orders --limit 10"]),
    ("deliveries list", &["--status failed", "--webhook Orders --since 1h"]),
    ("dlq list", &["--webhook Orders", "--group-by code", "--station WALLBOX_001 --since 24h"]),
    ("dlq show", &["17", "17 -o json"]),
    ("dlq replay", &["17 18", "--webhook Orders --canary --rate 50/s", "--all"]),
    ("dlq purge", &["17", "--webhook Orders --until 24h"]),
    ("events types", &["", "-o json"]),
    ("events list", &["--station WALLBOX_001", "--event StartTransaction --since 1h --all"]),
    ("events show", &["evt_01a22bec3e287bdcb319e47130b2a428", "evt_01a22bec3e287bdcb319e47130b2a428 -o json"]),
    ("events tail", &["", "--event StatusNotification --station WALLBOX_001"]),
    ("trace", &["evt_01a22bec3e287bdcb319e47130b2a428", "evt_01a22bec3e287bdcb319e47130b2a428 -o json"]),
    ("trigger", &["StartTransaction", "MeterValues --webhook Orders --wait"]),
    ("stations list", &["", "--connected"]),
    ("stations show", &["WALLBOX_001", "WALLBOX_001 -o json"]),
    ("stations call", &["WALLBOX_001 Reset --param type=Soft", "WALLBOX_001 GetConfiguration --json {}"]),
    ("stations disconnect", &["WALLBOX_001", "WALLBOX_001 -o json"]),
    ("stations add", &["WALLBOX_001 --password-file password", "WALLBOX_002 --security-profile 3"]),
    ("stations set", &["WALLBOX_001 --boot-policy Rejected", "WALLBOX_001 --clear-password"]),
    ("stations remove", &["WALLBOX_001", "WALLBOX_001 --yes"]),
    ("transactions list", &["--open", "--station WALLBOX_001 --since 24h"]),
    ("transactions show", &["42", "42 -o json"]),
    ("id-tags add", &["RFID_42", "RFID_42 --expires 2027-01-01T00:00:00Z"]),
    ("id-tags list", &["", "-o json"]),
    ("id-tags show", &["RFID_42", "RFID_42 -o json"]),
    ("id-tags set", &["RFID_42 --status Blocked", "RFID_42 --no-parent"]),
    ("id-tags remove", &["RFID_42", "RFID_42 --yes"]),
    ("keys create", &["--name ci --role operator", "--name dashboard --role read-only --expires-in 90d"]),
    ("keys list", &["", "-o json"]),
    ("keys revoke", &["2", "ci --yes"]),
    ("listen", &["", "--forward-to localhost:3000/hooks --event StartTransaction"]),
    ("status", &["", "--context north"]),
    ("top", &["", "--context north"]),
    ("doctor", &["", "-o json"]),
    ("audit", &["", "--webhook Orders --since 24h"]),
    ("backup", &["pipelet.backup", "pipelet.backup --force"]),
    ("context add", &["north --server https://north.example.com:50051 --api-key-file keys/north", "here --server http://127.0.0.1:50051"]),
    ("context use", &["north", "here"]),
    ("context list", &["", "-o json"]),
    ("context show", &["", "-o json"]),
    ("context remove", &["north", "here"]),
    ("demo", &["", "--cluster"]),
    ("cluster status", &["", "-o json"]),
    ("cluster drain", &["n1", "n1 --undo"]),
    ("simulate", &["--stations 3", "--stations 500 --scenario storm --duration 1m"]),
    ("completions", &["bash", "zsh"]),
];

/// The command with its examples; below the first level global options are only pointed at.
pub(super) fn documented(mut command: Command) -> Command {
    // From here on each command has the global options as its own.
    command.build();
    let codes = EXIT_STATUS.map(|(code, meaning)| format!("  {code:<3}  {meaning}"));
    let command = command.after_long_help(format!("Exit codes:\n{}", codes.join("\n")));
    command.mut_subcommands(|command| below(command, ""))
}

fn below(command: Command, path: &str) -> Command {
    let path = format!("{path} {}", command.get_name())
        .trim_start()
        .to_owned();
    let globals =
        "`pipeletctl --help` lists the global options: --server, --context, -o and others";
    let examples = examples(&path).map(|arguments| format!("  pipeletctl {path} {arguments}"));
    let examples: Vec<_> = examples.map(|line| line.trim_end().to_owned()).collect();
    let after = if examples.is_empty() {
        globals.to_owned()
    } else {
        format!("Examples:\n{}\n\n{globals}", examples.join("\n"))
    };
    let command = command.after_help(after);
    let command = command.mut_args(|arg| {
        let is_global = arg.is_global_set();
        arg.hide(is_global)
    });
    command.mut_subcommands(|command| below(command, &path))
}

/// The arguments of a command's examples.
pub(crate) fn examples(path: &str) -> impl Iterator<Item = &'static str> {
    let found = EXAMPLES.iter().find(|(command, _)| *command == path);
    found
        .into_iter()
        .flat_map(|(_, examples)| examples.iter().copied())
}
