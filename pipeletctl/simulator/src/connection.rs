//! The socket between a station and the central system, with or without TLS.
//!
//! Invariant: a connection is open or gone; its owner dials a new one. It knows frames as text only.

use std::{fmt, io, net::IpAddr, str::FromStr, sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures_util::{SinkExt as _, StreamExt as _};
use pipelet_printable::shortened;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        self, Message,
        client::IntoClientRequest as _,
        http::{HeaderValue, Uri, header},
    },
};

/// For connecting, TLS and the handshake together, and again for a frame to leave.
const TIMEOUT: Duration = Duration::from_secs(20);

/// How much of an answer is shown, in characters.
const MAX_SHOWN_ANSWER: usize = 100;

/// Where stations connect: `ws://HOST:PORT/PATH`, to which their ids are added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OcppUrl {
    base: String,
    host: String,
    port: u16,
    tls: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write it as ws://HOST:PORT/PATH, or wss:// for TLS")]
pub struct InvalidUrl;

#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("the system has no authorities that could vouch for a wss:// address")]
    NoAuthorities,
    #[error("the file of authorities holds no certificates")]
    NotPem,
    #[error("cannot set TLS up")]
    Tls(#[from] rustls::Error),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("no connection within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    WebSocket(#[from] Box<tungstenite::Error>),
    #[error("it answers {status}{}", shown_answer(.body))]
    Refused { status: u16, body: String },
    #[error("this host name is none")]
    InvalidHostName,
}

/// What an answer says, as far as it fits into a line.
fn shown_answer(body: &str) -> String {
    match body.trim() {
        "" => String::new(),
        body => format!(": {}", shortened(body, MAX_SHOWN_ANSWER)),
    }
}

/// All that is needed to dial.
#[derive(Clone)]
pub struct Endpoint {
    url: OcppUrl,
    /// Never in a `Debug`.
    password: Option<String>,
    tls: Option<Arc<ClientConfig>>,
}

pub(super) struct Connection(Box<WebSocketStream<Box<dyn Stream>>>);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl OcppUrl {
    /// Of the address that the daemon reports.
    pub fn of(address: &str, host: &str) -> Option<Self> {
        let address: std::net::SocketAddr = address.parse().ok()?;
        let url = if address.ip().is_unspecified() {
            // It listens everywhere: also where it was asked.
            format!("ws://{host}:{}/ocpp", address.port())
        } else {
            format!("ws://{address}/ocpp")
        };
        url.parse().ok()
    }

    pub fn is_loopback(&self) -> bool {
        let literal = self.host.trim_start_matches('[').trim_end_matches(']');
        let ip = literal.parse::<IpAddr>();
        self.host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
    }
}

impl FromStr for OcppUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let base = text.trim_end_matches('/');
        let uri: Uri = base.parse().map_err(|_| InvalidUrl)?;
        let tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            Some(_) | None => return Err(InvalidUrl),
        };
        let host = uri.host().filter(|host| !host.is_empty());
        let plain = uri.query().is_none() && !base.contains('@');
        let host = host.filter(|_| plain).ok_or(InvalidUrl)?;
        Ok(Self {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            base: base.to_owned(),
            tls,
        })
    }
}

impl fmt::Display for OcppUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

impl Endpoint {
    /// `authorities` (PEM) vouch for a `wss://` address; none means the system's.
    pub fn new(
        url: OcppUrl,
        password: Option<String>,
        authorities: Option<&[u8]>,
    ) -> Result<Self, EndpointError> {
        let tls = url.tls.then(|| client(authorities)).transpose()?;
        Ok(Self { url, password, tls })
    }

    pub(super) async fn dial(self, station: String) -> Result<Connection, ConnectionError> {
        let dialled = timeout(TIMEOUT, self.open(&station)).await;
        dialled.map_err(|_| ConnectionError::Timeout)?
    }

    async fn open(&self, station: &str) -> Result<Connection, ConnectionError> {
        let socket = |error: tungstenite::Error| ConnectionError::WebSocket(Box::new(error));
        let url = format!("{}/{station}", self.url.base);
        let mut request = url.into_client_request().map_err(socket)?;
        let headers = request.headers_mut();
        let ocpp = HeaderValue::from_static("ocpp1.6");
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, ocpp);
        if let Some(password) = &self.password {
            let pair = BASE64_STANDARD.encode(format!("{station}:{password}"));
            if let Ok(mut basic) = HeaderValue::try_from(format!("Basic {pair}")) {
                basic.set_sensitive(true);
                headers.insert(header::AUTHORIZATION, basic);
            }
        }
        let host = self.url.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, self.url.port)).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &self.tls {
            Some(config) => {
                let name = ServerName::try_from(host.to_owned())
                    .map_err(|_| ConnectionError::InvalidHostName)?;
                let connector = TlsConnector::from(Arc::clone(config));
                Box::new(connector.connect(name, stream).await?)
            }
            None => Box::new(stream),
        };
        match client_async(request, stream).await {
            Ok((line, _)) => Ok(Connection(Box::new(line))),
            Err(tungstenite::Error::Http(answer)) => Err(ConnectionError::Refused {
                status: answer.status().as_u16(),
                body: answer.into_body().map_or_else(String::new, |body| {
                    String::from_utf8_lossy(&body).into_owned()
                }),
            }),
            Err(error) => Err(socket(error)),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.url)
    }
}

impl Connection {
    pub(super) async fn send(&mut self, text: String) -> Result<(), ConnectionError> {
        let sent = timeout(TIMEOUT, self.0.send(Message::text(text))).await;
        let sent = sent.map_err(|_| ConnectionError::Timeout)?;
        sent.map_err(|error| ConnectionError::WebSocket(Box::new(error)))
    }

    /// The next text frame; none once the connection is gone. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<String> {
        loop {
            match self.0.next().await? {
                Ok(Message::Text(text)) => return Some(text.as_str().to_owned()),
                // Pings are answered while it is read.
                Ok(
                    Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_),
                ) => {}
                Ok(Message::Close(_)) | Err(_) => return None,
            }
        }
    }

    /// Closes properly, as a charger does that is switched off.
    pub(super) async fn close(mut self) {
        // A daemon that does not answer the close frame sees the connection end.
        let _ = timeout(
            Duration::from_secs(1),
            WebSocketStream::close(&mut self.0, None),
        )
        .await;
    }
}

fn client(authorities: Option<&[u8]>) -> Result<Arc<ClientConfig>, EndpointError> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = authorities {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        roots.add_parsable_certificates(certificates.map_err(|_| EndpointError::NotPem)?);
        if roots.is_empty() {
            return Err(EndpointError::NotPem);
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(EndpointError::NoAuthorities);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, loopback) in [
            ("ws://127.0.0.1:9000/ocpp", true),
            ("ws://localhost/ocpp/", true),
            ("wss://[::1]:9443", true),
            ("wss://csms.example.com/ocpp", false),
            ("ws://10.0.0.1:9000/ocpp", false),
        ] {
            let url: OcppUrl = text.parse().unwrap();
            assert_eq!(url.is_loopback(), loopback, "{text}");
        }
        for text in [
            "",
            "127.0.0.1:9000",
            "http://h/ocpp",
            "ws:///ocpp",
            "ws://u:p@h/ocpp",
        ] {
            assert_eq!(text.parse::<OcppUrl>(), Err(InvalidUrl), "{text}");
        }
    }

    #[test]
    fn the_daemons_own_address() {
        for (address, expected) in [
            ("127.0.0.1:9000", Some("ws://127.0.0.1:9000/ocpp")),
            ("0.0.0.0:9000", Some("ws://csms:9000/ocpp")),
            ("[::1]:9000", Some("ws://[::1]:9000/ocpp")),
            ("", None),
        ] {
            let url = OcppUrl::of(address, "csms").map(|url| url.to_string());
            assert_eq!(url.as_deref(), expected, "{address}");
        }
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let url: OcppUrl = "wss://h/ocpp".parse().unwrap();
        let refused = Endpoint::new(url, None, Some(b"no certificate"));
        assert!(matches!(refused, Err(EndpointError::NotPem)));
    }
}
