//! What the arguments and the environment come to: which daemon, with which key.
//!
//! Invariants: the environment is read here alone; an argument wins over a variable, and that
//! over a file that happens to be there; the local daemon's admin key is sent to this machine
//! only.

use std::{
    env, fmt, fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use tonic::{
    metadata::{Ascii, MetadataValue},
    transport::Uri,
};

use crate::{cli::Global, secret::Secret};

#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) server: ServerUrl,
    /// The authorities (PEM) that vouch for the server; none for the system's.
    pub(crate) authorities: Option<Vec<u8>>,
    pub(crate) key: Key,
    /// For connecting, and again for each answer.
    pub(crate) timeout: Duration,
}

/// Where the daemon's gRPC interface is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerUrl {
    uri: Uri,
    text: String,
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
    /// Where the local daemon keeps its data.
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("cannot read the API key from {}", path.display())]
    KeyFile { path: PathBuf, source: io::Error },
    #[error("cannot read the authorities in {}", path.display())]
    CaFile { path: PathBuf, source: io::Error },
    #[error("{0} holds no API key")]
    NoKey(String),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerUrlError {
    #[error("write it as http://HOST:PORT, or https://HOST:PORT")]
    Malformed,
}

impl Settings {
    pub(crate) fn resolve(
        global: &Global,
        environment: &Environment,
    ) -> Result<Self, SettingsError> {
        Ok(Self {
            key: Key::find(global.api_key_file.as_deref(), environment, &global.server)?,
            server: global.server.clone(),
            authorities: global.ca_file.as_deref().map(authorities).transpose()?,
            timeout: global.timeout,
        })
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self {
            server: "http://127.0.0.1:50051".parse().unwrap(),
            authorities: None,
            key: Key {
                value: None,
                source: KeySource::Environment,
            },
            timeout: Duration::from_secs(5),
        }
    }
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
        // The XDG specification has relative paths ignored.
        let xdg = var("XDG_DATA_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| var("HOME").map(|home| Path::new(&home).join(".local/share")))
            .map(|data| data.join("pipelet"));
        Self {
            api_key: var("PIPELET_API_KEY")
                .and_then(|key| key.to_string_lossy().parse::<Secret>().ok()),
            data_dir: var("PIPELETD_DATA_DIR").map(PathBuf::from).or(xdg),
        }
    }
}

impl Key {
    fn find(
        file: Option<&Path>,
        environment: &Environment,
        server: &ServerUrl,
    ) -> Result<Self, SettingsError> {
        if let Some(path) = file {
            let text = Secret::read(path).map_err(|source| SettingsError::KeyFile {
                path: path.to_owned(),
                source,
            })?;
            let value = ApiKey::parse(&text)
                .ok_or_else(|| SettingsError::NoKey(path.display().to_string()))?;
            return Ok(Self {
                value: Some(value),
                source: KeySource::File(path.to_owned()),
            });
        }
        if let Some(text) = &environment.api_key {
            let value = ApiKey::parse(text)
                .ok_or_else(|| SettingsError::NoKey("PIPELET_API_KEY".to_owned()))?;
            return Ok(Self {
                value: Some(value),
                source: KeySource::Environment,
            });
        }
        Ok(Self::of_local_daemon(
            environment.data_dir.as_deref(),
            server,
        ))
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

impl ServerUrl {
    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    pub(crate) fn speaks_tls(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    fn is_loopback(&self) -> bool {
        let host = self.uri.host().unwrap_or_default();
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost")
            || literal
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for ServerUrl {
    type Err = ServerUrlError;

    fn from_str(text: &str) -> Result<Self, ServerUrlError> {
        let uri: Uri = text.parse().map_err(|_| ServerUrlError::Malformed)?;
        let bare = uri.path_and_query().is_none_or(|path| path == "/");
        match uri.scheme_str() {
            Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) && bare => {
                Ok(Self {
                    uri,
                    text: text.trim_end_matches('/').to_owned(),
                })
            }
            Some(_) | None => Err(ServerUrlError::Malformed),
        }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> ServerUrl {
        text.parse().unwrap()
    }

    #[test]
    fn server_urls() {
        for (text, loopback) in [
            ("http://127.0.0.1:50051", true),
            ("http://localhost:1", true),
            ("http://[::1]:50051/", true),
            ("http://10.0.0.1:50051", false),
            ("https://127.0.0.1:50051", true),
            ("https://example.com:50051", false),
            ("http://localhost.example.com", false),
        ] {
            assert_eq!(url(text).is_loopback(), loopback, "{text}");
        }
        for text in ["", "127.0.0.1:50051", "ftp://h", "http://h/api"] {
            assert!(text.parse::<ServerUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_argument_wins_over_a_variable_and_that_over_the_local_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("admin.key");
        fs::write(&file, "hcpms_live_local\n").unwrap();
        let local = Environment {
            api_key: None,
            data_dir: Some(dir.path().to_owned()),
        };
        let variable = Environment {
            api_key: "hcpms_live_variable".parse().ok(),
            ..Environment::default()
        };
        let here = url("http://127.0.0.1:50051");
        let source = |file, environment| Key::find(file, environment, &here).unwrap().source;
        assert_eq!(
            source(Some(&file), &variable),
            KeySource::File(file.clone())
        );
        assert_eq!(source(None, &variable), KeySource::Environment);
        assert_eq!(source(None, &local), KeySource::File(file.clone()));

        let away = Key::find(None, &local, &url("http://10.0.0.1:50051")).unwrap();
        assert!(away.value.is_none(), "the local key stays on this machine");
    }

    #[test]
    fn a_key_that_no_header_can_carry_is_refused() {
        let environment = Environment {
            api_key: "hcpms\nlive".parse().ok(),
            ..Environment::default()
        };
        let refused = Key::find(None, &environment, &url("http://h:1")).unwrap_err();
        assert_eq!(refused.to_string(), "PIPELET_API_KEY holds no API key");
    }
}
