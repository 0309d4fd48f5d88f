//! `context`: daemons by name. Knows no daemon.

use std::path::{Path, PathBuf, absolute};

use crate::{
    cli::{self, Global},
    error::{Error, ExitStatus},
    output::Printer,
    settings::{
        Environment, Settings,
        contexts::{Context, Contexts},
    },
    system::secret::Secret,
    view,
};

pub(crate) fn run(
    verb: cli::Contexts,
    global: &Global,
    environment: &Environment,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let file = environment.contexts_file.as_deref();
    // It goes before what `context use` chose, which surprises where it was set long ago.
    if environment.server.is_some() && !matches!(verb, cli::Contexts::Remove { .. }) {
        printer.note("PIPELET_SERVER is set, and goes before the current context");
    }
    match verb {
        cli::Contexts::Add { name } => add(&name, global, file, printer),
        cli::Contexts::Use { name } => {
            let mut contexts = Contexts::read(file)?;
            contexts.choose(&name)?;
            contexts.write(file)?;
            show(&name, &contexts, printer)
        }
        cli::Contexts::Remove { name } => {
            let mut contexts = Contexts::read(file)?;
            contexts.remove(&name)?;
            contexts.write(file)?;
            let removed = view::RemovedContext { name: &name };
            printer.done(&removed, &format!("forgot the context {name}"))?;
            Ok(ExitStatus::Success)
        }
        cli::Contexts::List => list(file, printer),
        cli::Contexts::Show => {
            let (server, chosen_by) = Settings::target(global, environment)?;
            // A key that can't be read is shown as that: this is where one looks for it.
            let key = Settings::resolve(global, environment).map(|settings| settings.key.source);
            printer.one(&view::Target::new(&server, &chosen_by, key))?;
            Ok(ExitStatus::Success)
        }
    }
}

fn add(
    name: &str,
    global: &Global,
    file: Option<&Path>,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let server = global.server.as_ref().ok_or(Error::NoServer)?;
    let mut contexts = Contexts::read(file)?;
    let context = Context {
        server: server.to_string(),
        api_key_file: global.api_key_file.as_deref().map(whole).transpose()?,
        ca_file: global.ca_file.as_deref().map(whole).transpose()?,
    };
    let unread = context.api_key_file.as_deref().map(Secret::read);
    contexts.add(name, context)?;
    contexts.write(file)?;
    show(name, &contexts, printer)?;
    if let Some(Err(error)) = unread {
        printer.note(&format!("the key file can't be read: {error}"));
    }
    Ok(ExitStatus::Success)
}

/// As it is found from any directory.
fn whole(path: &Path) -> Result<PathBuf, Error> {
    absolute(path).map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

fn show(name: &str, contexts: &Contexts, printer: &Printer) -> Result<ExitStatus, Error> {
    let context = contexts.get(name)?;
    printer.one(&view::Context::new(name, context, contexts))?;
    Ok(ExitStatus::Success)
}

fn list(file: Option<&Path>, printer: &Printer) -> Result<ExitStatus, Error> {
    let contexts = Contexts::read(file)?;
    let mut list =
        printer.list("no contexts: `pipeletctl context add NAME --server URL` makes one");
    let all = contexts.contexts.iter();
    list.extend(all.map(|(name, context)| view::Context::new(name, context, &contexts)))?;
    list.finish(printer, false)?;
    Ok(ExitStatus::Success)
}
