//! TLS for chargers: an address and its files, all of them or none.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use serde::Deserialize;

use super::ConfigError;
use crate::ocpp::{TlsFiles, TlsOptions};

#[derive(Debug, Default, Args, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct Arguments {
    /// Chargers over TLS, at `wss://ADDRESS/ocpp/{station_id}` [default: none]
    #[arg(long, env = "PIPELETD_OCPP_TLS_LISTEN", value_name = "ADDRESS")]
    ocpp_tls_listen: Option<SocketAddr>,

    /// The certificate chain (PEM) that chargers see; read again at SIGHUP
    #[arg(long, env = "PIPELETD_OCPP_TLS_CERT", value_name = "FILE")]
    ocpp_tls_cert: Option<PathBuf>,

    /// The certificate's key (PEM); read again at SIGHUP
    #[arg(long, env = "PIPELETD_OCPP_TLS_KEY", value_name = "FILE")]
    ocpp_tls_key: Option<PathBuf>,

    /// The authorities (PEM) whose client certificates chargers may show
    #[arg(long, env = "PIPELETD_OCPP_CLIENT_CA", value_name = "FILE")]
    ocpp_client_ca: Option<PathBuf>,
}

pub(super) fn resolve(said: Arguments, file: Arguments) -> Result<Option<TlsOptions>, ConfigError> {
    let listen = said.ocpp_tls_listen.or(file.ocpp_tls_listen);
    let certificate = said.ocpp_tls_cert.or(file.ocpp_tls_cert);
    let key = said.ocpp_tls_key.or(file.ocpp_tls_key);
    let client_ca = said.ocpp_client_ca.or(file.ocpp_client_ca);
    match (listen, certificate, key) {
        (Some(listen), Some(certificate), Some(key)) => Ok(Some(TlsOptions {
            listen,
            files: TlsFiles {
                certificate,
                key,
                client_ca,
            },
        })),
        (None, None, None) if client_ca.is_none() => Ok(None),
        // Whoever names a certificate believes to have TLS.
        _ => Err(ConfigError::Value {
            name: "ocpp-tls-listen",
            why: "it goes together with ocpp-tls-cert and ocpp-tls-key".to_owned(),
        }),
    }
}
