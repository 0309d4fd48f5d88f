//! `pipeletctl` drives `pipeletd` over gRPC.
//!
//! The way of a command: `cli` reads the arguments, `settings` resolves them with the environment
//! and the contexts, `client` talks to the daemon, a file of `commands` does the one thing that was
//! asked, `view` turns what came over the wire into what people and programs read, and `output`
//! prints it. Whatever goes wrong becomes a `Report` in `error`, and ends in an `ExitStatus`.
//!
//! Invariant: data goes to stdout and everything else to stderr, so any command can be piped.
//! This crate knows the interface `pipelet.v1` and nothing else of the daemon.

mod cli;
mod client;
mod commands;
mod error;
mod forward;
mod output;
mod overview;
mod settings;
mod system;
mod table;
mod view;
mod words;

use std::process::ExitCode;

use tokio::runtime::{self, Runtime};

use crate::{
    cli::{Cli, Command},
    client::Client,
    error::{Error, ExitStatus, Report},
    output::Printer,
    settings::{Environment, Settings},
};

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    if let Some(done) = commands::completions::answer() {
        return done;
    }
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(refusal) => {
            // Where this can't be printed, there is no other place for it.
            let _ = refusal.print();
            return if refusal.use_stderr() {
                ExitStatus::Usage.into()
            } else {
                ExitStatus::Success.into()
            };
        }
    };
    let printer = Printer::new(cli.global.output, cli.global.no_color);
    match run(cli, &printer) {
        Ok(status) => status.into(),
        Err(report) => {
            printer.report(&report);
            report.status.into()
        }
    }
}

fn run(cli: Cli, printer: &Printer) -> Result<ExitStatus, Report> {
    let environment = Environment::read();
    let when_missing = cli.command.when_missing();
    match cli.command {
        Command::Completions { shell } => {
            finish(commands::completions::run(shell, printer), Report::local)
        }
        Command::Manual { directory } => finish(commands::manual::run(&directory), Report::local),
        Command::Context(verb) => finish(
            commands::contexts::run(verb, &cli.global, &environment, printer),
            Report::local,
        ),
        // It has a daemon of its own, whatever is configured.
        Command::Demo(args) => {
            let runtime = runtime()?;
            let outcome = runtime.block_on(commands::demo::run(args, &environment, printer));
            runtime.shutdown_background();
            finish(outcome, Report::local)
        }
        command => {
            let settings = Settings::resolve(&cli.global, &environment)
                .map_err(|error| Report::settings(&error))?;
            speak(command, &settings, when_missing.as_deref(), printer)
        }
    }
}

fn runtime() -> Result<Runtime, Report> {
    let built = runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| Report::local(&Error::Runtime(error)))
}

/// Runs a command that speaks to the daemon.
fn speak(
    command: Command,
    settings: &Settings,
    when_missing: Option<&str>,
    printer: &Printer,
) -> Result<ExitStatus, Report> {
    let ends_itself = command.ends_itself();
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let client = Client::new(settings)?;
        tokio::select! {
            outcome = dispatch(command, settings, &client, printer) => outcome,
            _ = tokio::signal::ctrl_c(), if !ends_itself => Ok(ExitStatus::Interrupted),
        }
    });
    // An interrupted prompt still reads its line on a thread, which must not hold the end up.
    runtime.shutdown_background();
    finish(outcome, |error| Report::of(error, settings, when_missing))
}

async fn dispatch(
    command: Command,
    settings: &Settings,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    match command {
        Command::Webhooks(verb) => commands::webhooks::run(verb, client, printer).await,
        Command::Dlq(verb) => commands::dlq::run(verb, client, printer).await,
        Command::Deliveries(verb) => commands::deliveries::run(verb, client, printer).await,
        Command::Events(verb) => commands::events::run(verb, client, printer).await,
        Command::Trace { id } => commands::trace::run(id, client, printer).await,
        Command::Trigger(args) => commands::trigger::run(args, client, printer).await,
        Command::Stations(verb) => commands::stations::run(verb, client, printer).await,
        Command::Transactions(verb) => commands::transactions::run(verb, client, printer).await,
        Command::IdTags(verb) => commands::id_tags::run(verb, client, printer).await,
        Command::Keys(verb) => commands::keys::run(verb, client, printer).await,
        Command::Listen(verb) => commands::listen::run(verb, settings, client, printer).await,
        Command::Status => commands::status::run(client, printer).await,
        Command::Top => commands::top::run(settings, client).await,
        Command::Doctor => commands::doctor::run(settings, client, printer).await,
        Command::Audit(args) => commands::audit::run(args, client, printer).await,
        Command::Cluster(verb) => commands::cluster::run(verb, client, printer).await,
        Command::Backup(verb) => commands::backup::run(verb, client, printer).await,
        Command::Simulate(args) => commands::simulate::run(args, settings, client, printer).await,
        // These use no daemon, and were run before.
        Command::Completions { .. }
        | Command::Context(_)
        | Command::Demo(_)
        | Command::Manual { .. } => Ok(ExitStatus::Success),
    }
}

/// A reader that has seen enough (`| head`) is no failure.
fn finish(
    outcome: Result<ExitStatus, Error>,
    report: impl FnOnce(&Error) -> Report,
) -> Result<ExitStatus, Report> {
    match outcome {
        Err(error) if error.is_broken_pipe() => Ok(ExitStatus::Success),
        Err(error) => Err(report(&error)),
        Ok(status) => Ok(status),
    }
}
