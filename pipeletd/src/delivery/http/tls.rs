//! What reqwest speaks TLS with: as it would by itself, but that the beginning of each handshake is
//! noticed, which nothing else tells.

use std::sync::Arc;

use rustls::{
    ClientConfig, NamedGroup,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
        Tls13ClientSessionValue,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName},
};
use rustls_platform_verifier::Verifier;

use super::phases;

/// Sessions that can be resumed, as rustls keeps them by default.
const SESSIONS: usize = 256;

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
    let sessions = NotedSessions(ClientSessionMemoryCache::new(SESSIONS));
    config.resumption = Resumption::store(Arc::new(sessions));
    Ok(config)
}

/// The sessions that can be resumed. What a handshake begins with is to ask for one.
#[derive(Debug)]
struct NotedSessions(ClientSessionMemoryCache);

impl ClientSessionStore for NotedSessions {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(server, group);
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        phases::handshake_begins();
        self.0.kx_hint(server)
    }

    fn set_tls12_session(&self, server: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(server, value);
    }

    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(server)
    }

    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        self.0.remove_tls12_session(server);
    }

    fn insert_tls13_ticket(&self, server: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(server, value);
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(server)
    }
}
