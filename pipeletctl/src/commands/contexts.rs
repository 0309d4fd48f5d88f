//! `context`: daemons by name. Knows no daemon.

use std::path::{Path, PathBuf, absolute};

use crate::{
    cli::{self, Global},
    contexts::{Context, Contexts},
    error::{Error, ExitStatus},
    output::Printer,
    settings::{Environment, Settings},
    view,
};

pub(crate) fn run(
    verb: cli::Contexts,
    global: &Global,
    environment: &Environment,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let file = environment.contexts_file.as_deref();
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
            let settings = Settings::resolve(global, environment)?;
            printer.one(&view::Target::of(&settings))?;
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
    contexts.add(name, context)?;
    contexts.write(file)?;
    show(name, &contexts, printer)
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
    list.finish(printer)?;
    Ok(ExitStatus::Success)
}
