//! What only a demo can fail of.

use std::{io, path::PathBuf};

use pipelet_simulator::EndpointError;

use crate::{
    error::{CommandError, Error, ExitStatus},
    settings::SettingsError,
};

#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    #[error("there is no pipeletd at {}, and none on the search path", looked.display())]
    NoDaemon { looked: PathBuf },
    #[error("cannot run {}", program.display())]
    Spawn { program: PathBuf, source: io::Error },
    #[error("cannot make a temporary directory")]
    Directory(#[source] io::Error),
    #[error("pipeletd ended instead of listening; its log is {}", log.display())]
    NotListening { log: PathBuf },
    #[error("pipeletd ended in the middle of the demo; its log is {}", log.display())]
    Died { log: PathBuf },
    #[error("pipeletd does not say where it listens")]
    NoAddress,
    #[error("the demo's receiver failed")]
    Receiver(#[source] io::Error),
    #[error("cannot use the key that pipeletd has made")]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}

impl From<DemoError> for Error {
    fn from(error: DemoError) -> Self {
        let hint = matches!(error, DemoError::NoDaemon { .. })
            .then_some("`cargo build --release` builds both; --pipeletd names another");
        CommandError::new(ExitStatus::Failed, hint, error).into()
    }
}
