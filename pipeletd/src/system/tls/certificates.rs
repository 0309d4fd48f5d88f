//! What a listener shows to its clients: a certificate chain and its key.
//!
//! TLS 1.2 and 1.3, whatever rustls offers of them. The files are read at the start and again when
//! asked to; files that are wrong change nothing. A client certificate is asked for where there is
//! an authority to hold it against; what it means is for others to say.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use jiff::{SignedDuration, Timestamp};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    server::{VerifierBuilderError, WebPkiClientVerifier},
};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::client_verifier::ClientVerifier;
use crate::system::clock::Clock;

/// All of them PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The chain, our own certificate first.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The authorities that client certificates come from.
    pub client_ca: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("can't read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not the PEM file that it should be")]
    Pem {
        path: PathBuf,
        #[source]
        source: pem::Error,
    },
    #[error("there is no certificate in {0}")]
    NoCertificate(PathBuf),
    #[error("the authorities in {path} can't be used")]
    Authorities {
        path: PathBuf,
        #[source]
        source: VerifierBuilderError,
    },
    #[error("the certificate in {certificate} can't be used with the key in {key}")]
    Unusable {
        certificate: PathBuf,
        key: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("TLS can't be set up")]
    Setup(#[source] rustls::Error),
}

/// A certificate that ends sooner wants a new one; the same as doctor's and the alert's.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

/// What we show at present. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Certificates(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    files: TlsFiles,
    protocols: &'static [&'static [u8]],
    current: RwLock<Current>,
}

#[derive(Debug, Clone)]
struct Current {
    config: Arc<ServerConfig>,
    /// `None` where the certificate does not say it in a way that we understand.
    expires: Option<Timestamp>,
}

impl Certificates {
    /// `protocols` is what is spoken within, by ALPN's names; where there is none, nothing is said.
    pub async fn load(
        files: TlsFiles,
        protocols: &'static [&'static [u8]],
    ) -> Result<Self, TlsError> {
        let current = RwLock::new(read(&files, protocols).await?);
        Ok(Self(Arc::new(Inner {
            files,
            protocols,
            current,
        })))
    }

    /// Reads the files again: handshakes from now on use them, connections stay.
    pub async fn reload(&self) -> Result<(), TlsError> {
        let new = read(&self.0.files, self.0.protocols).await?;
        *self
            .0
            .current
            .write()
            .unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current().config)
    }

    /// Until when our own certificate is valid.
    pub fn expires(&self) -> Option<Timestamp> {
        self.current().expires
    }

    fn current(&self) -> Current {
        let current = self.0.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn read(files: &TlsFiles, protocols: &[&[u8]]) -> Result<Current, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(&files.certificate).await?;
    let expires = chain.first().and_then(expiry);
    if let Some(expires) = expires {
        warn_of_end(&files.certificate, expires, Clock::system().now());
    }
    let key = PrivateKeyDer::from_pem_slice(&bytes(&files.key).await?);
    let key = key.map_err(|source| TlsError::Pem {
        path: files.key.clone(),
        source,
    })?;
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?;
    let config = match &files.client_ca {
        None => config.with_no_client_auth(),
        Some(path) => {
            let mut authorities = RootCertStore::empty();
            let (added, _) = authorities.add_parsable_certificates(certificates(path).await?);
            if added == 0 {
                return Err(TlsError::NoCertificate(path.clone()));
            }
            // Those who show a password instead have none, and come here too.
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|source| TlsError::Authorities {
                        path: path.clone(),
                        source,
                    })?;
            config.with_client_cert_verifier(Arc::new(ClientVerifier(verifier)))
        }
    };
    let mut config = config
        .with_single_cert(chain, key)
        .map_err(|source| TlsError::Unusable {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            source,
        })?;
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let config = Arc::new(config);
    Ok(Current { config, expires })
}

/// Nobody may look before the day on which nobody connects any more.
fn warn_of_end(path: &Path, expires: Timestamp, now: Timestamp) {
    let path = path.display();
    let left = expires.duration_since(now);
    if left <= SignedDuration::ZERO {
        tracing::warn!(%path, %expires, "the certificate has expired: who looks at it won't connect");
    } else if left < SOON {
        tracing::warn!(%path, %expires, "the certificate expires soon");
    }
}

fn expiry(certificate: &CertificateDer<'static>) -> Option<Timestamp> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let not_after = certificate.validity().not_after.timestamp();
    Timestamp::from_second(not_after).ok()
}

async fn bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    let read = tokio::fs::read(path).await;
    read.map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

async fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = bytes(path).await?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|source| TlsError::Pem {
        path: path.to_owned(),
        source,
    })?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate(path.to_owned()));
    }
    Ok(found)
}
