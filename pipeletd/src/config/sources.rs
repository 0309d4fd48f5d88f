//! Where each setting's value comes from: flag, then variable, then file, then default.
//!
//! The file's entries go through the same parser as the flags, so that nothing is read in two
//! ways. The command line and the variables are read once, because a process can't be given
//! others; the file as often as it is asked for.

use std::{ffi::OsString, fmt, path::PathBuf};

use clap::{
    Arg, ArgAction, ArgMatches, Command, CommandFactory as _, Error, FromArgMatches as _,
    builder::Resettable,
    error::{ContextKind, ContextValue},
    parser::ValueSource,
};

use super::{
    Config, ConfigError, Fault, Surroundings, Task,
    arguments::Arguments,
    file::{self, Entry, Position},
    resolve::resolve,
};

/// What no configuration file has.
const NO_SETTINGS: [&str; 4] = ["config", "check", "help", "version"];

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The command line, by this flag.
    Flag(String),
    Variable(String),
    File(Position),
    /// `--dev`, which changes other settings' defaults.
    Dev,
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "--{flag}"),
            Self::Variable(name) => f.write_str(name),
            Self::File(position) => position.fmt(f),
            Self::Dev => f.write_str("dev"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One setting as it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub name: String,
    pub values: Vec<OsString>,
    /// Whether it may have more than one value.
    pub is_list: bool,
    pub origin: Origin,
}

impl Setting {
    /// Its value for people.
    pub fn shown(&self) -> String {
        let values = self.values.iter().map(|value| value.to_string_lossy());
        match values.collect::<Vec<_>>().join(",") {
            none if none.is_empty() => "(none)".to_owned(),
            shown => shown,
        }
    }
}

/// A configuration, and how it came about.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// In the order of the help. The bootstrap key, which is secret, is none of them.
    pub settings: Vec<Setting>,
}

/// What was said once and for all, and what is to be done.
#[derive(Debug, Clone)]
pub struct Sources {
    said: ArgMatches,
    task: Task,
    file: Option<PathBuf>,
    surroundings: Surroundings,
}

impl Sources {
    /// The process's arguments and environment.
    pub fn of_process() -> Result<Self, ConfigError> {
        Self::new(std::env::args_os(), Surroundings::of_process())
    }

    pub fn new(
        arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
        surroundings: Surroundings,
    ) -> Result<Self, ConfigError> {
        let said = Arguments::command().try_get_matches_from(arguments)?;
        let arguments = Arguments::from_arg_matches(&said)?;
        let task = match arguments.task {
            Some(task) => task,
            None if arguments.check => Task::Check,
            None => Task::Run,
        };
        Ok(Self {
            said,
            task,
            file: arguments.config,
            surroundings,
        })
    }

    pub const fn task(&self) -> &Task {
        &self.task
    }

    pub const fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    /// Reads the file and says what holds, or everything that is wrong.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let read = self.file.as_deref().map(file::read);
        let (entries, faults) = read.unwrap_or_default();
        self.combine(entries, faults)
    }

    pub(super) fn combine(
        &self,
        entries: Vec<Entry>,
        mut faults: Vec<Fault>,
    ) -> Result<Loaded, ConfigError> {
        let command = without_variables();
        let entries: Vec<_> = entries
            .into_iter()
            .filter_map(|entry| {
                check(entry, &command)
                    .map_err(|fault| faults.push(fault))
                    .ok()
            })
            .collect();
        let mut settings: Vec<_> = command
            .get_arguments()
            .filter_map(|argument| self.setting(argument, &entries))
            .collect();
        let words = settings
            .iter()
            .filter(|setting| setting.origin != Origin::Default);
        let words = words.flat_map(|setting| words_of(&setting.name, &setting.values));
        let matches = command.try_get_matches_from(words.fold(program(), |mut all, word| {
            all.push(word);
            all
        }))?;
        let arguments = Arguments::from_arg_matches(&matches)?;
        match resolve(arguments, &self.surroundings, &mut settings) {
            Ok(config) if faults.is_empty() => return Ok(Loaded { config, settings }),
            Ok(_) => {}
            Err(more) => faults.extend(more),
        }
        faults.sort_by_key(Fault::place);
        Err(ConfigError::Faults(faults))
    }

    fn setting(&self, argument: &Arg, entries: &[Entry]) -> Option<Setting> {
        let name = argument.get_long()?;
        if NO_SETTINGS.contains(&name) {
            return None;
        }
        let id = argument.get_id().as_str();
        let raw = self.said.get_raw(id).into_iter().flatten();
        let said = raw.map(OsString::from).collect();
        let variable = || variable_of(name);
        let entry = entries.iter().find(|entry| entry.name == name);
        let (values, origin) = match (self.said.value_source(id), entry) {
            (Some(ValueSource::CommandLine), _) => (said, Origin::Flag(name.to_owned())),
            (Some(ValueSource::EnvVariable), _) => (said, Origin::Variable(variable())),
            (_, Some(entry)) => (entry.values.clone(), Origin::File(entry.at.clone())),
            (_, None) => (said, Origin::Default),
        };
        Some(Setting {
            name: name.to_owned(),
            values,
            is_list: is_list(argument),
            origin,
        })
    }
}

/// The variable that a value came from which clap refuses by its flag's name, as nobody gave the
/// flag.
pub fn variable_at_fault(error: &Error) -> Option<String> {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let flag = flag.split([' ', '=']).next()?;
    let is_given = |word: OsString| word.to_string_lossy().starts_with(flag);
    let variable = variable_of(flag.strip_prefix("--")?);
    let is_at_fault = std::env::var_os(&variable).is_some() && !std::env::args_os().any(is_given);
    is_at_fault.then_some(variable)
}

fn variable_of(name: &str) -> String {
    format!("PIPELETD_{}", name.replace('-', "_").to_uppercase())
}

/// The command line's parser, for values that come from elsewhere.
fn without_variables() -> Command {
    Arguments::command()
        .disable_help_flag(true)
        .disable_version_flag(true)
        .mut_args(|argument| argument.env(Resettable::Reset))
}

fn program() -> Vec<OsString> {
    vec!["pipeletd".into()]
}

fn words_of(name: &str, values: &[OsString]) -> impl Iterator<Item = OsString> {
    values.iter().map(move |value| {
        let mut word = OsString::from(format!("--{name}="));
        word.push(value);
        word
    })
}

fn is_list(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::Append)
}

/// Holds an entry to what its flag would take.
fn check(entry: Entry, command: &Command) -> Result<Entry, Fault> {
    let known = command
        .get_arguments()
        .find(|argument| argument.get_long() == Some(&entry.name))
        .filter(|_| !NO_SETTINGS.contains(&entry.name.as_str()));
    let words = program().into_iter();
    let words = words.chain(words_of(&entry.name, &entry.values));
    let parsed = command.clone().try_get_matches_from(words);
    let Some(argument) = known else {
        let meant = parsed.err().and_then(|error| suggestion(&error));
        return Err(Fault::Unknown {
            at: entry.named_at,
            name: entry.name,
            meant,
        });
    };
    let wrong = |at, why| {
        Err(Fault::Value {
            name: entry.name.clone(),
            origin: Origin::File(at),
            why,
        })
    };
    if entry.is_list && !is_list(argument) {
        return wrong(
            entry.at.clone(),
            "it takes one value, and no list".to_owned(),
        );
    }
    match parsed {
        Ok(_) => Ok(entry),
        Err(error) => wrong(entry.at.clone(), explanation(&error)),
    }
}

/// The setting that may have been meant.
fn suggestion(error: &Error) -> Option<String> {
    let flag = match error.get(ContextKind::SuggestedArg)? {
        ContextValue::String(flag) => flag,
        ContextValue::Strings(flags) => flags.first()?,
        _ => return None,
    };
    let name = flag
        .trim_start_matches("--")
        .split(['=', ' ', '['])
        .next()?;
    (!NO_SETTINGS.contains(&name)).then(|| name.to_owned())
}

/// Why a value can't be read, without the words for a command line around it.
fn explanation(error: &Error) -> String {
    let value = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => format!("{value:?}"),
        _ => "the value".to_owned(),
    };
    let known = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(known)) if !known.is_empty() => {
            Some(format!("it is one of {}", known.join(", ")))
        }
        _ => None,
    };
    let cause = std::error::Error::source(error).map(ToString::to_string);
    match cause.or(known) {
        Some(why) => format!("{value}: {why}"),
        None => format!("{value} can't be read"),
    }
}
