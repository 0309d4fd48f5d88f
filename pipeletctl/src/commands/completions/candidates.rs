//! Completes words as they are typed: commands and flags, and what the daemon knows by id.
//!
//! The shell's script (`completions`) runs this program with the words of the line, and
//! `PIPELETCTL_COMPLETE` set. Invariant: whatever goes wrong, and a daemon that does not answer at
//! once, means no completion, and no message either: it would appear amid the words that are typed.

use std::{env, ffi::OsStr, future::Future, process::ExitCode, time::Duration};

use clap::{Arg, Command, CommandFactory as _, FromArgMatches as _};
use clap_complete::{
    CompleteEnv,
    engine::{ArgValueCompleter, CompletionCandidate},
};
use pipelet_printable::{is_unprintable, printable};
use pipelet_proto::v1;
use tonic::Status;

use crate::{
    cli::{Candidates, Cli, Global},
    client::Client,
    settings::{Environment, Settings, contexts::Contexts},
};

pub(crate) const VARIABLE: &str = "PIPELETCTL_COMPLETE";
/// Longer would be felt.
const TIMEOUT: Duration = Duration::from_millis(300);
/// At most this many of a kind are offered.
const MAX_CANDIDATES: u32 = 500;
/// Of events, the latest.
const MAX_EVENTS: u32 = 20;

/// Values with what they mean.
type Found = Result<Vec<(String, String)>, Status>;

/// Answers a shell's script, where it is one that asks.
pub(crate) fn answer() -> Option<ExitCode> {
    let completed = CompleteEnv::with_factory(|| with_completers(Cli::command()))
        .var(VARIABLE)
        .try_complete(env::args_os(), env::current_dir().ok().as_deref());
    match completed {
        Ok(false) => None,
        Ok(true) => Some(ExitCode::SUCCESS),
        Err(_) => Some(ExitCode::FAILURE),
    }
}

/// The command, whose arguments know how their values are completed.
fn with_completers(command: Command) -> Command {
    let completed = |arg: Arg| match arg.get::<Candidates>().copied() {
        Some(candidates) => arg.add(completer(candidates)),
        None => arg,
    };
    command.mut_args(completed).mut_subcommands(with_completers)
}

fn completer(candidates: Candidates) -> ArgValueCompleter {
    match candidates {
        Candidates::ApiKeys => api_keys(),
        Candidates::Commands => commands(),
        Candidates::Contexts => contexts(),
        Candidates::EventTypes => event_types(),
        Candidates::Events => events(),
        Candidates::FailedDeliveries => failed_deliveries(),
        Candidates::IdTags => id_tags(),
        Candidates::Nodes => nodes(),
        Candidates::Stations => stations(),
        Candidates::Webhooks => webhooks(),
    }
}

fn webhooks() -> ArgValueCompleter {
    from_daemon(async |client| {
        let request = v1::ListWebhooksRequest {
            page_size: MAX_CANDIDATES,
            ..v1::ListWebhooksRequest::default()
        };
        let answer = client.webhooks().list_webhooks(request).await?.into_inner();
        let webhooks = answer.webhooks.into_iter();
        Ok(ids_and_names(webhooks.map(|it| (it.id, it.name))))
    })
}

/// Both can be said; a name that is a number would be an id.
fn ids_and_names(named: impl Iterator<Item = (u64, String)>) -> Vec<(String, String)> {
    let both = named.flat_map(|(id, name)| {
        let by_name = name
            .parse::<u64>()
            .is_err()
            .then(|| (name.clone(), id.to_string()));
        [Some((id.to_string(), name)), by_name]
            .into_iter()
            .flatten()
    });
    both.collect()
}

fn stations() -> ArgValueCompleter {
    from_daemon(async |client| {
        let request = v1::ListStationsRequest {
            page_size: MAX_CANDIDATES,
            ..v1::ListStationsRequest::default()
        };
        let answer = client.stations().list_stations(request).await?.into_inner();
        let words = |it: v1::Station| [it.vendor, it.model].into_iter().flatten();
        let stations = answer.stations.into_iter().map(|it| {
            let id = it.id.clone();
            (id, words(it).collect::<Vec<_>>().join(" "))
        });
        Ok(stations.collect())
    })
}

fn failed_deliveries() -> ArgValueCompleter {
    from_daemon(async |client| {
        let request = v1::ListFailedDeliveriesRequest {
            page_size: MAX_CANDIDATES,
            ..v1::ListFailedDeliveriesRequest::default()
        };
        let answer = client.failed_deliveries();
        let answer = { answer }.list_failed_deliveries(request).await?;
        let failed = answer.into_inner().failed_deliveries.into_iter();
        let words = |it: v1::FailedDelivery| {
            let what = format!("{} of {}", it.event, it.station_id);
            (it.id.to_string(), what)
        };
        Ok(failed.map(words).collect())
    })
}

fn event_types() -> ArgValueCompleter {
    from_daemon(async |client| types(&client, |_| true).await)
}

fn commands() -> ArgValueCompleter {
    from_daemon(async |client| types(&client, is_command).await)
}

fn is_command(it: &v1::EventType) -> bool {
    matches!(&*it.direction, "csms_to_station" | "both")
}

async fn types(client: &Client, wanted: impl Fn(&v1::EventType) -> bool) -> Found {
    let request = v1::ListEventTypesRequest {};
    let answer = client.events().list_event_types(request).await?;
    let types = answer.into_inner().event_types.into_iter().filter(wanted);
    Ok(types.map(|it| (it.name, it.profile)).collect())
}

fn events() -> ArgValueCompleter {
    from_daemon(async |client| {
        let request = v1::ListEventsRequest {
            page_size: MAX_EVENTS,
            ..v1::ListEventsRequest::default()
        };
        let answer = client.events().list_events(request).await?.into_inner();
        let words = |it: v1::Event| {
            let what = format!("{} of {}", it.event, it.station_id);
            (it.id, what)
        };
        Ok(answer.events.into_iter().map(words).collect())
    })
}

fn nodes() -> ArgValueCompleter {
    from_daemon(async |client| {
        let asked = v1::GetClusterRequest {};
        let cluster = client.cluster().get_cluster(asked).await?.into_inner();
        let nodes = cluster.nodes.into_iter();
        Ok(nodes.map(|node| (node.name, node.state)).collect())
    })
}

fn id_tags() -> ArgValueCompleter {
    from_daemon(async |client| {
        let request = v1::ListIdTagsRequest {
            page_size: MAX_CANDIDATES,
            ..v1::ListIdTagsRequest::default()
        };
        let answer = client.id_tags().list_id_tags(request).await?.into_inner();
        let tags = answer.id_tags.into_iter();
        Ok(tags.map(|it| (it.id_tag, it.status)).collect())
    })
}

fn api_keys() -> ArgValueCompleter {
    from_daemon(async |client| {
        let request = v1::ListApiKeysRequest {};
        let answer = client.api_keys().list_api_keys(request).await?.into_inner();
        let keys = answer.api_keys.into_iter();
        Ok(ids_and_names(keys.map(|it| (it.id, it.name))))
    })
}

fn contexts() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let file = Environment::read().contexts_file;
        let contexts = Contexts::read(file.as_deref()).unwrap_or_default();
        let found = contexts.contexts.into_iter();
        matching(typed, found.map(|(name, context)| (name, context.server)))
    })
}

/// Asks the daemon that the line up to now is meant for.
fn from_daemon<F, A>(ask: A) -> ArgValueCompleter
where
    A: Fn(Client) -> F + Send + Sync + 'static,
    F: Future<Output = Found>,
{
    ArgValueCompleter::new(move |typed: &OsStr| {
        matching(typed, query(&ask).unwrap_or_default().into_iter())
    })
}

fn query<F: Future<Output = Found>>(ask: impl Fn(Client) -> F) -> Option<Vec<(String, String)>> {
    let settings = Settings::resolve(&global()?, &Environment::read()).ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let found = runtime.ok()?.block_on(async {
        let client = Client::new(&settings).ok()?;
        tokio::time::timeout(TIMEOUT, ask(client)).await.ok()
    });
    found?.ok()
}

/// The global options in the words that were typed, as far as they make sense yet.
fn global() -> Option<Global> {
    let words = env::args_os().skip_while(|word| word != "--").skip(1);
    let command = Cli::command().ignore_errors(true);
    let matches = command.try_get_matches_from(words).ok()?;
    Global::from_arg_matches(&matches).ok()
}

fn matching(
    typed: &OsStr,
    found: impl Iterator<Item = (String, String)>,
) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    found
        .filter(|(value, _)| value.starts_with(&*typed))
        // The shell prints them, and chargers wrote some. An escaped value would be another one.
        .filter(|(value, _)| !value.contains(is_unprintable))
        .map(|(value, meaning)| {
            let meaning = (!meaning.is_empty()).then(|| printable(&meaning).into_owned().into());
            CompletionCandidate::new(value).help(meaning)
        })
        .collect()
}
