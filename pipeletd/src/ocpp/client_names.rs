//! The names that a client certificate speaks for.
//!
//! It is bound to a station by name: the common name of its subject, or a DNS name among its
//! alternative names, is the station's id, letter by letter.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

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
