//! A certificate authority for TLS in tests: servers of 127.0.0.1, and clients by name.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};

#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
#[derive(Debug)]
pub struct Identity {
    pub certificate_pem: String,
    pub key_pem: String,
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Identity {
    /// A server that shows this certificate, and speaks one of these protocols where it is asked
    /// for any.
    pub fn server_config(&self, protocols: &[&str]) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider's protocol versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate()], self.key())
            .expect("a certificate and its key");
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        Arc::new(config)
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()))
    }
}

impl Authority {
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        let name = format!("authority {:016x}", fastrand::u64(..));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// For a server of 127.0.0.1.
    pub fn server(&self) -> Identity {
        self.server_of(&["127.0.0.1"])
    }

    /// For a server of these names or addresses.
    pub fn server_of(&self, names: &[&str]) -> Identity {
        self.sign(
            "server",
            Self::params(names, ExtendedKeyUsagePurpose::ServerAuth),
        )
    }

    /// For a server of 127.0.0.1, until some years ago.
    pub fn expired_server(&self) -> Identity {
        let mut params = Self::params(&["127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth);
        params.not_after = date_time_ymd(2020, 1, 1);
        self.sign("server", params)
    }

    /// For a client with this common name and these DNS names.
    pub fn client(&self, common_name: &str, dns_names: &[&str]) -> Identity {
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        self.sign(common_name, Self::params(dns_names, usage))
    }

    /// The same of one whose certificate was good until the second of January 2025.
    pub fn expired_client(&self, common_name: &str) -> Identity {
        let mut params = Self::params(&[], ExtendedKeyUsagePurpose::ClientAuth);
        params.not_after = date_time_ymd(2025, 1, 2);
        self.sign(common_name, params)
    }

    fn params(names: &[&str], usage: ExtendedKeyUsagePurpose) -> CertificateParams {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("valid names");
        params.extended_key_usages = vec![usage];
        params
    }

    fn sign(&self, common_name: &str, mut params: CertificateParams) -> Identity {
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Identity {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            certificate: certificate.der().clone(),
            key: key.serialize_der(),
        }
    }

    /// A client that trusts this authority alone, and shows who it is where it can.
    pub fn trusting(&self, identity: Option<&Identity>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider's protocol versions")
            .with_root_certificates(roots);
        let config = match identity {
            Some(identity) => config
                .with_client_auth_cert(vec![identity.certificate()], identity.key())
                .expect("a certificate and its key"),
            None => config.with_no_client_auth(),
        };
        Arc::new(config)
    }
}
