//! How a charger connects: its path, its password, TLS.

use std::{io, net::SocketAddr, sync::Arc};

use http::{
    HeaderValue,
    header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL},
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::{self, client::IntoClientRequest};

use crate::{Station, deadline::within, station::Stream};

/// A connection that is about to be made.
#[derive(Debug, Clone)]
pub struct Dial {
    address: SocketAddr,
    path: String,
    subprotocols: Option<String>,
    authorization: Option<String>,
    tls: Option<Arc<ClientConfig>>,
}

impl Dial {
    /// As OCPP 1.6J wants it.
    pub fn new(address: SocketAddr, station_id: &str) -> Self {
        Self::at(address, &format!("/ocpp/{station_id}")).offering(Some("ocpp1.6"))
    }

    /// Any path, and no subprotocol.
    pub fn at(address: SocketAddr, path: &str) -> Self {
        Self {
            address,
            path: path.to_owned(),
            subprotocols: None,
            authorization: None,
            tls: None,
        }
    }

    #[must_use]
    pub fn offering(mut self, subprotocols: Option<&str>) -> Self {
        self.subprotocols = subprotocols.map(str::to_owned);
        self
    }

    /// Shows a password with HTTP Basic; it need not be text.
    #[must_use]
    pub fn basic(mut self, user: &str, password: impl AsRef<[u8]>) -> Self {
        let credentials = [user.as_bytes(), b":", password.as_ref()].concat();
        self.authorization = Some(format!("Basic {}", base64(&credentials)));
        self
    }

    #[must_use]
    pub fn tls(mut self, config: Arc<ClientConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// The status that a handshake without a connection was answered with.
    pub async fn refused(self) -> u16 {
        match self.clone().connect().await {
            Err(tungstenite::Error::Http(answer)) => answer.status().as_u16(),
            other => panic!("{self:?} was not refused: {other:?}"),
        }
    }

    pub async fn connect(self) -> Result<Station, tungstenite::Error> {
        let mut request = format!("ws://{}{}", self.address, self.path).into_client_request()?;
        let headers = request.headers_mut();
        let value = |text: &str| HeaderValue::from_str(text).expect("a header value");
        if let Some(offered) = &self.subprotocols {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, value(offered));
        }
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, value(authorization));
        }
        let stream = within("a connection", self.stream()).await?;
        Station::shake_hands(stream, request).await
    }

    async fn stream(&self) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(self.address).await?;
        Ok(match &self.tls {
            Some(config) => {
                let connector = TlsConnector::from(Arc::clone(config));
                let name = ServerName::from(self.address.ip());
                Box::new(connector.connect(name, stream).await?)
            }
            None => Box::new(stream),
        })
    }
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let byte = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for (index, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let digit = ALPHABET[(bits >> shift & 0x3f) as usize];
            text.push(if index > three.len() {
                '='
            } else {
                char::from(digit)
            });
        }
    }
    text
}
