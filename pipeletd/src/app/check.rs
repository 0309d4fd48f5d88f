//! What a start would find wrong, without starting: every file that the settings name is read as a
//! start reads it, and nothing is bound, opened or written.

use std::{error::Error, io, path::Path};

use rustix::fs::{Access, access};
use tokio::runtime::Builder;

use super::runtime_settings;
use crate::{
    config::{Config, Fault, Loaded, Origin},
    delivery::http::Resources,
    store::{self, sled::SledStore},
    system::tls::{self, Certificates, TlsFiles},
    telemetry::Spans,
};

/// All that is wrong.
pub fn faults(loaded: &Loaded) -> Vec<Fault> {
    let config = &loaded.config;
    let found = [
        ("api-tls-cert", certificates(config.api_tls.as_ref())),
        (
            "ocpp-tls-cert",
            certificates(config.ocpp_tls.as_ref().map(|tls| &tls.files)),
        ),
        ("ca-file", authorities(config)),
        ("secrets-key-file", secrets_key(config)),
        ("data-dir", directory(&config.data_dir)),
    ];
    let faults = found.into_iter().filter_map(|(name, found)| {
        let why = found.err()?;
        let setting = loaded.settings.iter().find(|setting| setting.name == name);
        let origin = setting.map_or(Origin::Default, |setting| setting.origin.clone());
        let name = name.to_owned();
        Some(Fault::Value { name, origin, why })
    });
    faults.collect()
}

fn certificates(files: Option<&TlsFiles>) -> Result<(), String> {
    let Some(files) = files else { return Ok(()) };
    let runtime = Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| in_words(&error))?;
    let loaded = runtime.block_on(Certificates::load(files.clone(), &[]));
    loaded.map(|_| ()).map_err(|error| in_words(&error))
}

fn authorities(config: &Config) -> Result<(), String> {
    // One that is installed already, as in a test, is as good.
    let _ = tls::install_provider();
    let settings =
        runtime_settings::delivery_settings(config, &Resources::new(1, 1), &Spans::default());
    settings.map(|_| ()).map_err(|error| in_words(&error))
}

fn secrets_key(config: &Config) -> Result<(), String> {
    let Config {
        data_dir,
        secrets_key_file,
        ..
    } = config;
    let there = SledStore::is_in(data_dir);
    let checked = store::check_key_file(data_dir, secrets_key_file.as_deref(), there);
    checked.map_err(|error| in_words(&error))
}

/// A directory that is not there is made at the start, within the first one above it that is.
fn directory(path: &Path) -> Result<(), String> {
    let there = path.ancestors().find(|path| path.exists());
    let there = there.unwrap_or(Path::new("."));
    if !there.is_dir() {
        return Err(format!("{} is no directory", there.display()));
    }
    let allowed = access(there, Access::WRITE_OK | Access::EXEC_OK);
    allowed.map_err(|error| {
        let cause = io::Error::from(error);
        format!("can't write to {}: {cause}", there.display())
    })
}

/// The error with all that caused it.
fn in_words(error: &(dyn Error + 'static)) -> String {
    let (mut words, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}
