//! TLS as a server: what is shown, and the bytes of a connection with or without it.
//!
//! It knows neither what is spoken on the connections nor who speaks.

mod certificates;
mod client_verifier;
mod stream;

pub use self::{
    certificates::{Certificates, TlsError, TlsFiles},
    client_verifier::accept,
    stream::Stream,
};

/// Certificates, and who sees them.
#[derive(Debug, Clone)]
pub struct Shown {
    pub to: &'static str,
    pub certificates: Certificates,
}

#[derive(Debug, thiserror::Error)]
#[error("another TLS provider is installed already")]
pub struct ProviderTaken;

/// Chooses what does the cryptography, once for the whole process.
pub fn install_provider() -> Result<(), ProviderTaken> {
    let ring = rustls::crypto::ring::default_provider();
    ring.install_default().map_err(|_| ProviderTaken)
}
