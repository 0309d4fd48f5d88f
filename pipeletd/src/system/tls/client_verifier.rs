//! Holds client certificates against the authorities, and tells which one was refused and why.
//!
//! The alert that the client gets is rustls's, so its error stays as it is. What people are told is
//! left with the task of the handshake, where [`accept`] finds it.

use std::{cell::RefCell, fmt::Display, io, sync::Arc};

use jiff::Timestamp;
use pipelet_printable::printable;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Name, X509Version};

/// Of a name, in characters.
const MAX_NAME: usize = 100;

tokio::task_local! {
    /// Why this handshake's client certificate was refused.
    static REFUSED: RefCell<Option<String>>;
}

/// The TLS handshake with a client. Where it fails by the client's certificate, the error says which
/// one that is.
pub async fn accept(acceptor: TlsAcceptor, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let accepting = async {
        acceptor.accept(stream).await.map_err(|error| {
            let refused = REFUSED.with(RefCell::take);
            refused.map_or(error, |why| io::Error::new(io::ErrorKind::InvalidData, why))
        })
    };
    REFUSED.scope(RefCell::default(), accepting).await
}

/// As the verifier within, but for the words.
#[derive(Debug)]
pub(super) struct ClientVerifier(pub(super) Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(certificate, intermediates, now);
        verified.inspect_err(|error| {
            let chain: Vec<_> = [certificate].into_iter().chain(intermediates).collect();
            let why = in_words(&chain, now, error);
            // Outside of a handshake of ours there is no one to tell.
            let _ = REFUSED.try_with(|refused| refused.replace(Some(why)));
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Which certificate of the chain it is, the client's own first, and what is wrong with it.
fn in_words(chain: &[&CertificateDer<'_>], now: UnixTime, error: &Error) -> String {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let parsed: Result<Vec<_>, _> = chain
        .iter()
        .map(|certificate| X509Certificate::from_der(certificate))
        .collect();
    let Ok(chain) = parsed else {
        return format!("the client's certificate can't be read: {error}");
    };
    let chain = || chain.iter().map(|(_, certificate)| certificate);
    let old = chain().find(|certificate| certificate.version() != X509Version::V3);
    if let Some(old) = old {
        return told(
            old,
            "is no X.509 certificate of version 3, which is asked for",
        );
    }
    let Some(own) = chain().next() else {
        return error.to_string();
    };
    let ended = chain().find(|of| of.validity().not_after.timestamp() < now);
    let early = chain().find(|of| of.validity().not_before.timestamp() > now);
    match error {
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => {
            let of = ended.unwrap_or(own);
            let at = time(of.validity().not_after.timestamp());
            told(of, &format!("expired at {at}"))
        }
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => {
            let of = early.unwrap_or(own);
            let at = time(of.validity().not_before.timestamp());
            told(of, &format!("is not valid before {at}"))
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => told(
            own,
            "comes from none of the authorities that are trusted here",
        ),
        error => told(own, &format!("is refused: {error}")),
    }
}

fn told(certificate: &X509Certificate<'_>, what: &str) -> String {
    let (subject, issuer) = (name(certificate.subject()), name(certificate.issuer()));
    format!("the client's certificate \"{subject}\", issued by \"{issuer}\", {what}")
}

/// With nothing in it that a terminal obeys or hides.
fn name(name: &X509Name<'_>) -> String {
    let name: String = name.to_string().chars().take(MAX_NAME).collect();
    printable(&name).into_owned()
}

fn time(seconds: i64) -> impl Display {
    Timestamp::from_second(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
        ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
    };
    use rustls::{RootCertStore, server::WebPkiClientVerifier};

    use super::*;

    const NOW: u64 = 1_776_170_096;

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// The same without its version, which is then the first; its signature fits no more.
    fn first_version(certificate: &[u8]) -> Vec<u8> {
        let version = [0xa0, 3, 2, 1, 2];
        let at = certificate.windows(5).position(|five| five == version);
        let at = at.unwrap();
        let mut certificate = certificate.to_vec();
        certificate.drain(at..at + 5);
        // The lengths of both sequences that it stood in.
        for length in [certificate[1], certificate[at - 2]] {
            assert!(length == 0x82 || length == 0x81, "{length:x}");
        }
        for end in [3, at - 1] {
            certificate[end] -= 5;
        }
        certificate
    }

    #[tokio::test]
    async fn a_certificate_that_is_refused_is_named_with_the_reason() {
        let ours = authority("Ours");
        let mut roots = RootCertStore::empty();
        roots.add(ours.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = ClientVerifier(verifier.build().unwrap());
        let refused = async |certificate: Vec<u8>| {
            let verify = async {
                let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW));
                let certificate = CertificateDer::from(certificate);
                let refused = verifier.verify_client_cert(&certificate, &[], now);
                (refused.is_err(), REFUSED.with(RefCell::take))
            };
            let (is_refused, why) = REFUSED.scope(RefCell::default(), verify).await;
            assert_eq!(is_refused, why.is_some());
            why
        };
        let issued = |change: &dyn Fn(&mut CertificateParams), by| {
            let mut params = params("CP_1\u{202e}");
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            change(&mut params);
            let key = KeyPair::generate().unwrap();
            params.signed_by(&key, by).unwrap().der().to_vec()
        };
        let good = issued(&|_| {}, &ours);
        assert_eq!(refused(good.clone()).await, None);
        let expired = issued(&|of| of.not_after = date_time_ymd(2025, 1, 2), &ours);
        let early = issued(&|of| of.not_before = date_time_ymd(2030, 1, 2), &ours);
        let theirs = authority("Theirs");
        let strangers = issued(&|_| {}, &theirs);
        let server = ExtendedKeyUsagePurpose::ServerAuth;
        let server = issued(&|of| of.extended_key_usages = vec![server.clone()], &ours);
        for (certificate, words) in [
            (
                expired,
                "issued by \"CN=Ours\", expired at 2025-01-02T00:00:00Z",
            ),
            (early, "is not valid before 2030-01-02T00:00:00Z"),
            (
                strangers,
                "issued by \"CN=Theirs\", comes from none of the authorities",
            ),
            (server, "is refused: "),
            (first_version(&good), "is no X.509 certificate of version 3"),
            (vec![1, 2, 3], "can't be read"),
        ] {
            let told = refused(certificate).await.unwrap();
            assert!(told.contains(words), "{told}");
            assert!(
                told.contains("CP_1\\u{202e}") || words.contains("can't"),
                "{told}"
            );
        }
    }
}
