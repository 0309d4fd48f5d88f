//! What is spoken with receivers that have TLS, and who is trusted there.

use std::sync::Arc;

use rustls::{ClientConfig, crypto::CryptoProvider, pki_types::CertificateDer};
use rustls_platform_verifier::Verifier;

/// Trusts the system's authorities and these. The process must have a default provider by now.
pub(super) fn client_config(
    roots: Vec<CertificateDer<'static>>,
) -> Result<ClientConfig, rustls::Error> {
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.ok_or_else(|| rustls::Error::General("no provider".to_owned()))?;
    let verifier = Verifier::new_with_extra_roots(roots, Arc::clone(&provider))?;
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = config
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
