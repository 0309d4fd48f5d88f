//! TLS for stations: profiles 2 and 3 of the security whitepaper.
//!
//! TLS 1.2 and 1.3, whatever rustls offers of them. The whitepaper's two suites with static RSA
//! are not among it, because they keep nothing secret once the key is lost (rustls#209): a
//! station that has no others needs a proxy that ends its TLS.
//!
//! The files are read at the start and again when asked to; files that are wrong change nothing.
//! A client certificate is asked for where there is an authority to hold it against, and it is
//! bound to a station by name: the common name of its subject, or a DNS name among its alternative
//! names, is the station's id, letter by letter.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    server::{VerifierBuilderError, WebPkiClientVerifier},
};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Where stations connect over TLS, and with what.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    pub files: TlsFiles,
}

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

/// What we show to stations at present. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Certificates(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
}

impl Certificates {
    pub(super) async fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let current = RwLock::new(Arc::new(read(&files).await?));
        Ok(Self(Arc::new(Inner { files, current })))
    }

    /// Reads the files again: handshakes from now on use them, connections stay.
    pub async fn reload(&self) -> Result<(), TlsError> {
        let new = Arc::new(read(&self.0.files).await?);
        *self
            .0
            .current
            .write()
            .unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let current = self.0.current.read();
        let current = current.unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&current))
    }
}

async fn read(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(&files.certificate).await?;
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
            // Stations of profile 2 come here too, and have none.
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|source| TlsError::Authorities {
                        path: path.clone(),
                        source,
                    })?;
            config.with_client_cert_verifier(verifier)
        }
    };
    config
        .with_single_cert(chain, key)
        .map_err(|source| TlsError::Unusable {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            source,
        })
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

/// The names that a client certificate speaks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientNames(Vec<String>);

impl ClientNames {
    /// Of a certificate that was verified; one that can't be read speaks for nobody.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return Self(Vec::new());
        };
        let common = certificate.subject().iter_common_name();
        let common = common.filter_map(|name| name.as_str().ok());
        let alternative = certificate.subject_alternative_name().ok().flatten();
        let alternative = alternative
            .iter()
            .flat_map(|extension| &extension.value.general_names);
        let dns = alternative.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        });
        common.chain(dns).collect()
    }

    pub(super) fn contain(&self, id: &str) -> bool {
        self.0.iter().any(|name| name == id)
    }
}

impl<'a> FromIterator<&'a str> for ClientNames {
    fn from_iter<T: IntoIterator<Item = &'a str>>(names: T) -> Self {
        Self(names.into_iter().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    #[test]
    fn a_certificate_speaks_for_its_names() {
        let check = |common: &str, alternative: &[&str], expected: &[&str]| {
            let names: Vec<_> = alternative.iter().map(|&name| name.to_owned()).collect();
            let mut params = CertificateParams::new(names).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            if !common.is_empty() {
                params.distinguished_name.push(DnType::CommonName, common);
            }
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let names = ClientNames::of(certificate.der());
            assert_eq!(names, expected.iter().copied().collect());
        };
        check("CP 1|x", &[], &["CP 1|x"]);
        check("", &["cp1.example.com", "cp1"], &["cp1.example.com", "cp1"]);
        // An address is no station, and a wildcard stands for itself alone.
        check(
            "CP1",
            &["10.0.0.1", "*.example.com"],
            &["CP1", "*.example.com"],
        );
        check("", &[], &[]);
    }

    #[test]
    fn what_is_no_certificate_speaks_for_nobody() {
        assert_eq!(
            ClientNames::of(&CertificateDer::from(vec![1, 2, 3])),
            ClientNames(Vec::new())
        );
        assert!(!ClientNames::from_iter(["CP1"]).contain("cp1"));
    }
}
