//! Contexts, and whom a command speaks to.

use serde::Serialize;

use crate::{
    cli::ServerUrl,
    error::chain,
    output::{Describe, Row},
    settings::{
        ChosenBy, KeySource, NamedBy, SettingsError,
        contexts::{self, Contexts},
    },
    table::Details,
    words::or_dash,
};

#[derive(Debug, Serialize)]
pub(crate) struct Context {
    name: String,
    current: bool,
    server: String,
    api_key_file: Option<String>,
    ca_file: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct RemovedContext<'a> {
    pub(crate) name: &'a str,
}

/// Whom a command would speak to, and why.
#[derive(Debug, Serialize)]
pub(crate) struct Target {
    server: String,
    context: Option<String>,
    chosen_by: &'static str,
    api_key_from: String,
}

impl Context {
    pub(crate) fn new(name: &str, context: &contexts::Context, all: &Contexts) -> Self {
        let path = |path: &std::path::PathBuf| path.display().to_string();
        Self {
            name: name.to_owned(),
            current: all.current.as_deref() == Some(name),
            server: context.server.clone(),
            api_key_file: context.api_key_file.as_ref().map(path),
            ca_file: context.ca_file.as_ref().map(path),
        }
    }
}

impl Row for Context {
    const HEADERS: &'static [&'static str] = &["", "NAME", "SERVER", "API KEY FILE"];

    fn cells(&self) -> Vec<String> {
        vec![
            if self.current { "*" } else { "" }.to_owned(),
            self.name.clone(),
            self.server.clone(),
            or_dash(self.api_key_file.as_ref()),
        ]
    }
}

impl Describe for Context {
    fn describe(&self) -> Details {
        Details::default()
            .line("name", self.name.as_str())
            .line("current", if self.current { "yes" } else { "no" })
            .line("server", self.server.as_str())
            .line("API key file", or_dash(self.api_key_file.as_ref()))
            .line("CA file", or_dash(self.ca_file.as_ref()))
    }
}

impl Target {
    pub(crate) fn new(
        server: &ServerUrl,
        chosen_by: &ChosenBy,
        key: Result<KeySource, SettingsError>,
    ) -> Self {
        let (chosen_by, context) = match chosen_by {
            ChosenBy::Argument => ("--server", None),
            ChosenBy::Environment => ("PIPELET_SERVER", None),
            ChosenBy::Context { name, named_by } => (of_name(*named_by), Some(name.clone())),
            ChosenBy::Default => ("default", None),
        };
        Self {
            server: server.to_string(),
            context,
            chosen_by,
            api_key_from: match key {
                Ok(KeySource::File(path)) => path.display().to_string(),
                Ok(KeySource::Environment) => "PIPELET_API_KEY".to_owned(),
                Ok(KeySource::Nowhere(why)) => format!("nowhere ({why})"),
                Err(error) => format!("nowhere ({})", chain(&error)),
            },
        }
    }
}

fn of_name(named_by: NamedBy) -> &'static str {
    match named_by {
        NamedBy::Argument => "--context",
        NamedBy::Environment => "PIPELET_CONTEXT",
        NamedBy::Current => "current context",
    }
}

impl Describe for Target {
    fn describe(&self) -> Details {
        Details::default()
            .line("server", self.server.as_str())
            .line("chosen by", self.chosen_by)
            .line("context", or_dash(self.context.as_ref()))
            .line("API key from", self.api_key_from.as_str())
    }
}
