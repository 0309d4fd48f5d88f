//! What the arguments, the environment and the contexts come to: which daemon, with which key.
//!
//! Invariants: the environment is read here alone; an argument wins over a variable, that over the
//! current context, and that over a file that happens to be there. What a context has of its own
//! counts as much as its name: `--context`, an argument, brings its key and its authorities. A
//! context's key is sent to its own daemon only, the local admin key to one on this machine, and the
//! variable's key to any but a context that an argument names: that one has a key of its own, or
//! none.

pub(crate) mod contexts;

use std::{
    env,
    ffi::OsString,
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tonic::metadata::{Ascii, MetadataValue};

use self::contexts::{Context, Contexts, ContextsError};
use crate::{
    cli::{Global, ServerUrl, ServerUrlError},
    system::secret::Secret,
};

/// Where a daemon listens by default.
const LOCAL: &str = "http://127.0.0.1:50051";

#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) server: ServerUrl,
    pub(crate) chosen_by: ChosenBy,
    /// The authorities (PEM) that vouch for the server; none for the system's.
    pub(crate) authorities: Option<Vec<u8>>,
    pub(crate) key: Key,
    /// For connecting, and again for each answer.
    pub(crate) timeout: Duration,
    /// Whether systemd knows a daemon on this machine.
    pub(crate) has_unit: bool,
}

/// Why it is this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChosenBy {
    Argument,
    Environment,
    Context { name: String, named_by: NamedBy },
    Default,
}

/// Who says which context it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NamedBy {
    Argument,
    Environment,
    /// `context use`, or that it was the first.
    Current,
}

/// The API key, if there is one, and where it came from.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) value: Option<ApiKey>,
    pub(crate) source: KeySource,
}

#[derive(Clone)]
pub(crate) struct ApiKey(MetadataValue<Ascii>);

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum KeySource {
    File(PathBuf),
    Environment,
    /// Why there is none.
    Nowhere(String),
}

/// The variables that matter.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    pub(crate) api_key: Option<Secret>,
    pub(crate) server: Option<String>,
    pub(crate) context: Option<String>,
    pub(crate) ca_file: Option<PathBuf>,
    /// Where the local daemon keeps its data.
    pub(crate) data_dir: Option<PathBuf>,
    /// Where programs are looked for.
    pub(crate) search_path: Vec<PathBuf>,
    /// Where contexts are kept.
    pub(crate) contexts_file: Option<PathBuf>,
    /// Whether systemd has a unit of the daemon's.
    pub(crate) has_unit: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("cannot read the API key from {}", path.display())]
    KeyFile { path: PathBuf, source: io::Error },
    #[error("cannot read the authorities in {}", path.display())]
    CaFile { path: PathBuf, source: io::Error },
    #[error("{0} holds no API key")]
    NoKey(String),
    #[error("PIPELET_SERVER: {0}")]
    ServerVariable(ServerUrlError),
    #[error("the context {name:?} has no usable server: {source}")]
    ContextServer {
        name: String,
        source: ServerUrlError,
    },
    #[error(transparent)]
    Contexts(#[from] ContextsError),
}

impl Settings {
    pub(crate) fn resolve(
        global: &Global,
        environment: &Environment,
    ) -> Result<Self, SettingsError> {
        let (server, chosen_by, context) = choose(global, environment)?;
        let (named, current) = match &chosen_by {
            ChosenBy::Context {
                named_by: NamedBy::Argument,
                ..
            } => (context.as_ref(), None),
            _ => (None, context.as_ref()),
        };
        let key_of = |context: Option<&Context>| context?.api_key_file.clone();
        let ca_of = |context: Option<&Context>| context?.ca_file.clone();
        let key = Key::find(
            global.api_key_file.clone().or(key_of(named)).as_deref(),
            environment.api_key.as_ref().filter(|_| named.is_none()),
            key_of(current).as_deref(),
            environment.data_dir.as_deref(),
            &server,
        )?;
        let ca_file = global.ca_file.clone().or(ca_of(named));
        let ca_file = ca_file.or(environment.ca_file.clone()).or(ca_of(current));
        Ok(Self {
            key,
            server,
            chosen_by,
            authorities: ca_file.as_deref().map(authorities).transpose()?,
            timeout: global.timeout,
            has_unit: environment.has_unit,
        })
    }

    /// Which server it would be and why, whatever there is of a key.
    pub(crate) fn target(
        global: &Global,
        environment: &Environment,
    ) -> Result<(ServerUrl, ChosenBy), SettingsError> {
        choose(global, environment).map(|(server, chosen_by, _)| (server, chosen_by))
    }

    /// Of a daemon that this very process started: its address, and the key that it made.
    pub(crate) fn of_own_daemon(
        address: &str,
        key_file: &Path,
        timeout: Duration,
    ) -> Result<Self, SettingsError> {
        let server = format!("http://{address}").parse();
        let server = server.map_err(SettingsError::ServerVariable)?;
        let key = Key::find(Some(key_file), None, None, None, &server)?;
        Ok(Self {
            server,
            chosen_by: ChosenBy::Argument,
            authorities: None,
            key,
            timeout,
            has_unit: false,
        })
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self {
            server: LOCAL.parse().unwrap(),
            chosen_by: ChosenBy::Default,
            authorities: None,
            key: Key {
                value: None,
                source: KeySource::Environment,
            },
            timeout: Duration::from_secs(5),
            has_unit: false,
        }
    }
}

/// Which server it is, why, and the context where that has decided.
fn choose(
    global: &Global,
    environment: &Environment,
) -> Result<(ServerUrl, ChosenBy, Option<Context>), SettingsError> {
    if let Some(server) = &global.server {
        return Ok((server.clone(), ChosenBy::Argument, None));
    }
    // An argument goes before both variables.
    if global.context.is_none()
        && let Some(server) = &environment.server
    {
        let server = server.parse().map_err(SettingsError::ServerVariable)?;
        return Ok((server, ChosenBy::Environment, None));
    }
    let contexts = Contexts::read(environment.contexts_file.as_deref())?;
    let names = [
        (&global.context, NamedBy::Argument),
        (&environment.context, NamedBy::Environment),
        (&contexts.current, NamedBy::Current),
    ];
    let mut names = names.into_iter();
    let Some((name, named_by)) = names.find_map(|(name, by)| Some((name.as_ref()?, by))) else {
        let local = LOCAL.parse().expect("the constant is a server's URL");
        return Ok((local, ChosenBy::Default, None));
    };
    let context = contexts.get(name)?.clone();
    let server = context.server.parse();
    let server = server.map_err(|source| SettingsError::ContextServer {
        name: name.clone(),
        source,
    })?;
    let name = name.clone();
    Ok((server, ChosenBy::Context { name, named_by }, Some(context)))
}

fn authorities(path: &Path) -> Result<Vec<u8>, SettingsError> {
    fs::read(path).map_err(|source| SettingsError::CaFile {
        path: path.to_owned(),
        source,
    })
}

impl Environment {
    pub(crate) fn read() -> Self {
        let var = |name| env::var_os(name).filter(|value| !value.is_empty());
        let text = |name| var(name).map(|value| value.to_string_lossy().into_owned());
        // The XDG specification has relative paths ignored.
        let xdg = |name, in_home| {
            var(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
                .or_else(|| var("HOME").map(|home| Path::new(&home).join(in_home)))
                .map(|base: PathBuf| base.join("pipelet"))
        };
        Self {
            server: text("PIPELET_SERVER"),
            context: text("PIPELET_CONTEXT"),
            ca_file: var("PIPELET_CA_FILE").map(PathBuf::from),
            search_path: var("PATH")
                .map_or_else(Vec::new, |path| env::split_paths(&path).collect()),
            contexts_file: xdg("XDG_CONFIG_HOME", ".config").map(|dir| dir.join("config.toml")),
            api_key: var("PIPELET_API_KEY")
                .and_then(|key| key.to_string_lossy().parse::<Secret>().ok()),
            has_unit: has_unit(var("SYSTEMD_UNIT_PATH")),
            data_dir: var("PIPELETD_DATA_DIR")
                .map(PathBuf::from)
                .or_else(|| xdg("XDG_DATA_HOME", ".local/share")),
        }
    }
}

/// Looks where systemd does (systemd.unit(5)), packages' directories last.
fn has_unit(unit_path: Option<OsString>) -> bool {
    const DIRECTORIES: &str = "/etc/systemd/system:/usr/local/lib/systemd/system:/usr/lib/systemd/system:/lib/systemd/system";
    let directories = unit_path.unwrap_or_else(|| DIRECTORIES.into());
    env::split_paths(&directories).any(|directory| directory.join("pipeletd.service").exists())
}

impl Key {
    fn find(
        file: Option<&Path>,
        variable: Option<&Secret>,
        of_context: Option<&Path>,
        data_dir: Option<&Path>,
        server: &ServerUrl,
    ) -> Result<Self, SettingsError> {
        if let Some(path) = file {
            return Self::of_file(path);
        }
        if let Some(text) = variable {
            let value = ApiKey::parse(text)
                .ok_or_else(|| SettingsError::NoKey("PIPELET_API_KEY".to_owned()))?;
            return Ok(Self {
                value: Some(value),
                source: KeySource::Environment,
            });
        }
        if let Some(path) = of_context {
            return Self::of_file(path);
        }
        Ok(Self::of_local_daemon(data_dir, server))
    }

    fn of_file(path: &Path) -> Result<Self, SettingsError> {
        let text = Secret::read(path).map_err(|source| SettingsError::KeyFile {
            path: path.to_owned(),
            source,
        })?;
        let value =
            ApiKey::parse(&text).ok_or_else(|| SettingsError::NoKey(path.display().to_string()))?;
        Ok(Self {
            value: Some(value),
            source: KeySource::File(path.to_owned()),
        })
    }

    /// Without a key the call still goes out: whether the daemon is there matters more.
    fn of_local_daemon(data_dir: Option<&Path>, server: &ServerUrl) -> Self {
        let nowhere = |why| Self {
            value: None,
            source: KeySource::Nowhere(why),
        };
        if !server.is_loopback() {
            return nowhere("the local admin.key is for a daemon on this machine".to_owned());
        }
        let Some(path) = data_dir.map(|dir| dir.join("admin.key")) else {
            return nowhere("there is no home directory to look for admin.key in".to_owned());
        };
        match fs::read_to_string(&path) {
            Ok(text) => match text.parse().ok().and_then(|text| ApiKey::parse(&text)) {
                Some(value) => Self {
                    value: Some(value),
                    source: KeySource::File(path),
                },
                None => nowhere(format!("{} holds none", path.display())),
            },
            Err(error) => nowhere(format!("{}: {error}", path.display())),
        }
    }
}

impl ApiKey {
    pub(crate) fn to_metadata(&self) -> MetadataValue<Ascii> {
        self.0.clone()
    }

    fn parse(text: &Secret) -> Option<Self> {
        let text = text.as_text().trim();
        let mut value = MetadataValue::try_from(text).ok()?;
        value.set_sensitive(true);
        (!text.is_empty()).then_some(Self(value))
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

impl fmt::Display for Settings {
    /// The daemon that is used, for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.chosen_by {
            ChosenBy::Context { name, .. } => write!(f, "{} (context {name})", self.server),
            ChosenBy::Argument | ChosenBy::Environment | ChosenBy::Default => self.server.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> ServerUrl {
        text.parse().unwrap()
    }

    #[test]
    fn an_argument_wins_over_a_variable_and_that_over_the_local_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("admin.key");
        fs::write(&file, "hcpms_live_local\n").unwrap();
        let local = Environment {
            data_dir: Some(dir.path().to_owned()),
            ..Environment::default()
        };
        let variable = Environment {
            api_key: "hcpms_live_variable".parse().ok(),
            ..Environment::default()
        };
        let here = url("http://127.0.0.1:50051");
        let source = |file, environment: &Environment| {
            let (variable, home) = (
                environment.api_key.as_ref(),
                environment.data_dir.as_deref(),
            );
            let key = Key::find(file, variable, None, home, &here);
            key.unwrap().source
        };
        assert_eq!(
            source(Some(&file), &variable),
            KeySource::File(file.clone())
        );
        assert_eq!(source(None, &variable), KeySource::Environment);
        assert_eq!(source(None, &local), KeySource::File(file.clone()));

        let away = url("http://10.0.0.1:50051");
        let away = Key::find(None, None, None, local.data_dir.as_deref(), &away).unwrap();
        assert!(away.value.is_none(), "the local key stays on this machine");
    }

    #[test]
    fn a_key_that_no_header_can_carry_is_refused() {
        let variable = "hcpms\nlive".parse().ok();
        let there = url("http://h:1");
        let refused = Key::find(None, variable.as_ref(), None, None, &there).unwrap_err();
        assert_eq!(refused.to_string(), "PIPELET_API_KEY holds no API key");
    }

    #[test]
    fn the_nearest_word_decides_whom_we_speak_to() {
        use clap::Parser as _;

        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("config.toml");
        let key = home.path().join("prod.key");
        fs::write(&key, "hcpms_live_prod").unwrap();
        let mut contexts = Contexts::default();
        for (name, server) in [("prod", "http://10.0.0.1:1"), ("test", "http://10.0.0.2:2")] {
            let context = Context {
                server: server.to_owned(),
                api_key_file: (name == "prod").then(|| key.clone()),
                ca_file: None,
            };
            contexts.add(name, context).unwrap();
        }
        contexts.write(Some(&file)).unwrap();
        let check =
            |arguments: &str, server: Option<&str>, context: Option<&str>, expected, has_key| {
                let words = format!("pipeletctl {arguments} status");
                let cli = crate::cli::Cli::try_parse_from(words.split_whitespace()).unwrap();
                let environment = Environment {
                    server: server.map(str::to_owned),
                    context: context.map(str::to_owned),
                    contexts_file: Some(file.clone()),
                    ..Environment::default()
                };
                let settings = Settings::resolve(&cli.global, &environment);
                let told = settings
                    .as_ref()
                    .map_or_else(ToString::to_string, ToString::to_string);
                assert_eq!(told, expected, "{arguments} {server:?} {context:?}");
                if let Ok(settings) = settings {
                    assert_eq!(settings.key.value.is_some(), has_key, "{expected}");
                }
            };
        let away = "http://10.9.9.9:9";
        check("", None, None, "http://10.0.0.1:1 (context prod)", true);
        check(
            "",
            None,
            Some("test"),
            "http://10.0.0.2:2 (context test)",
            false,
        );
        check("", Some(away), Some("test"), away, false);
        check(
            "--context prod",
            Some(away),
            None,
            "http://10.0.0.1:1 (context prod)",
            true,
        );
        check(
            "--server http://h:1",
            Some(away),
            Some("prod"),
            "http://h:1",
            false,
        );
        let missing = "there is no context \"dev\"; there are prod, test";
        check("--context dev", None, None, missing, false);
        let wrong = "PIPELET_SERVER: write it as http://HOST:PORT, or https://HOST:PORT";
        check("", Some("localhost"), None, wrong, false);
    }

    #[test]
    fn a_context_that_an_argument_names_brings_its_own_key() {
        use clap::Parser as _;

        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("config.toml");
        let key = home.path().join("prod.key");
        fs::write(&key, "hcpms_live_prod").unwrap();
        let authority = home.path().join("prod.pem");
        fs::write(&authority, "of prod").unwrap();
        let mut contexts = Contexts::default();
        let context = |key: Option<&Path>, authority: Option<&Path>| Context {
            server: "http://10.0.0.1:1".to_owned(),
            api_key_file: key.map(Path::to_owned),
            ca_file: authority.map(Path::to_owned),
        };
        let prod = context(Some(&key), Some(&authority));
        contexts.add("prod", prod).unwrap();
        contexts.add("bare", context(None, None)).unwrap();
        contexts.write(Some(&file)).unwrap();

        let other = home.path().join("other.pem");
        fs::write(&other, "of another").unwrap();
        let resolve = |arguments: &str, named: Option<&str>| {
            let words = format!("pipeletctl {arguments} status");
            let cli = crate::cli::Cli::try_parse_from(words.split_whitespace()).unwrap();
            let environment = Environment {
                api_key: "hcpms_live_variable".parse().ok(),
                context: named.map(str::to_owned),
                ca_file: Some(other.clone()),
                contexts_file: Some(file.clone()),
                ..Environment::default()
            };
            let settings = Settings::resolve(&cli.global, &environment).unwrap();
            (settings.key.source, settings.authorities.unwrap())
        };
        let own = (KeySource::File(key), b"of prod".to_vec());
        let variables = || (KeySource::Environment, b"of another".to_vec());
        assert_eq!(resolve("--context prod", None), own);
        let (source, _) = resolve("--context bare", None);
        assert!(matches!(source, KeySource::Nowhere(_)), "{source:?}");
        assert_eq!(resolve("", Some("prod")), variables());
        assert_eq!(resolve("", None), variables());
    }
}
