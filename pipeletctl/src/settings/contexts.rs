//! Daemons by name, in a file of the user's own.
//!
//! Invariants: the file is replaced as a whole, for its owner only; it names files with API keys
//! and never holds a key. Who a command speaks to in the end is `settings`' business.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

const HEAD: &str =
    "# Daemons that pipeletctl knows by name; `pipeletctl context` changes this.\n\n";

/// All that the file has.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    /// The one that holds where nothing else is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) contexts: BTreeMap<String, Context>,
}

/// One daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Context {
    pub(crate) server: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) api_key_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ContextsError {
    #[error("there is no home directory to keep contexts in; set XDG_CONFIG_HOME")]
    NoConfigDirectory,
    #[error("cannot use {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is wrong", path.display())]
    Malformed {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("there is no context {name:?}{}", there_are(.known))]
    NoSuchContext { name: String, known: Vec<String> },
    #[error("there is a context {0:?} already")]
    Exists(String),
}

fn there_are(names: &[String]) -> String {
    if names.is_empty() {
        return "; `pipeletctl context add NAME --server URL` makes one".to_owned();
    }
    let verb = if names.len() == 1 { "is" } else { "are" };
    format!("; there {verb} {}", names.join(", "))
}

impl Contexts {
    /// What the file has; nothing where there is none, or no place for one.
    pub(crate) fn read(file: Option<&Path>) -> Result<Self, ContextsError> {
        let Some(path) = file else {
            return Ok(Self::default());
        };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(failed(path, source)),
        };
        toml::from_str(&text).map_err(|source| ContextsError::Malformed {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }

    pub(crate) fn write(&self, file: Option<&Path>) -> Result<(), ContextsError> {
        let path = file.ok_or(ContextsError::NoConfigDirectory)?;
        let text = toml::to_string(self).expect("texts under names are TOML");
        replace(path, &format!("{HEAD}{text}")).map_err(|source| failed(path, source))
    }

    pub(crate) fn get(&self, name: &str) -> Result<&Context, ContextsError> {
        self.contexts.get(name).ok_or_else(|| self.missing(name))
    }

    /// The first one becomes the current one.
    pub(crate) fn add(&mut self, name: &str, context: Context) -> Result<(), ContextsError> {
        if self.contexts.contains_key(name) {
            return Err(ContextsError::Exists(name.to_owned()));
        }
        self.contexts.insert(name.to_owned(), context);
        self.current.get_or_insert_with(|| name.to_owned());
        Ok(())
    }

    pub(crate) fn choose(&mut self, name: &str) -> Result<(), ContextsError> {
        self.get(name)?;
        self.current = Some(name.to_owned());
        Ok(())
    }

    /// Without a current one, the local daemon is meant again.
    pub(crate) fn remove(&mut self, name: &str) -> Result<(), ContextsError> {
        self.contexts
            .remove(name)
            .ok_or_else(|| self.missing(name))?;
        self.current.take_if(|current| current == name);
        Ok(())
    }

    fn missing(&self, name: &str) -> ContextsError {
        ContextsError::NoSuchContext {
            name: name.to_owned(),
            known: self.contexts.keys().cloned().collect(),
        }
    }
}

fn failed(path: &Path, source: io::Error) -> ContextsError {
    ContextsError::File {
        path: path.to_owned(),
        source,
    }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
    }
    let beside = path.with_extension("toml.new");
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn context(server: &str) -> Context {
        Context {
            server: server.to_owned(),
            api_key_file: Some("/keys/prod".into()),
            ca_file: None,
        }
    }

    #[test]
    fn what_is_written_is_read_by_its_owner_only() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("config/pipelet/config.toml");
        let mut contexts = Contexts::read(Some(&file)).unwrap();
        assert_eq!(contexts, Contexts::default());
        contexts.add("prod", context("https://a:1")).unwrap();
        contexts.add("test \"1\"", context("http://b:1")).unwrap();
        contexts.write(Some(&file)).unwrap();
        assert_eq!(Contexts::read(Some(&file)).unwrap(), contexts);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&file), 0o600);
        assert_eq!(mode(file.parent().unwrap()), 0o700);
    }

    #[test]
    fn the_first_is_current_until_another_is_chosen_or_it_goes() {
        let mut contexts = Contexts::default();
        contexts.add("a", context("http://a:1")).unwrap();
        contexts.add("b", context("http://b:1")).unwrap();
        assert_eq!(contexts.current.as_deref(), Some("a"));
        assert!(contexts.add("a", context("http://c:1")).is_err());
        contexts.choose("b").unwrap();
        contexts.remove("a").unwrap();
        assert_eq!(contexts.current.as_deref(), Some("b"));
        contexts.remove("b").unwrap();
        assert_eq!(contexts, Contexts::default());
        let refused = contexts.choose("b").unwrap_err().to_string();
        assert!(
            refused.starts_with("there is no context \"b\"; "),
            "{refused}"
        );
    }

    #[test]
    fn a_file_that_is_wrong_is_no_empty_one() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("config.toml");
        for text in ["current = 1", "colour = \"red\"", "["] {
            fs::write(&file, text).unwrap();
            let error = Contexts::read(Some(&file)).unwrap_err();
            assert!(matches!(error, ContextsError::Malformed { .. }), "{text}");
        }
    }
}
