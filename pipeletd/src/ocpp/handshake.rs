//! The WebSocket handshake (RFC 6455, section 4.2), read by ourselves.
//!
//! Chargers get it wrong in ways that libraries refuse: no subprotocol, no `Connection` header, a
//! doubled slash or a whole URL in the path. What is clear enough is taken. Three steps, of which
//! the first two are pure: parse the request's head, decide, respond.

use std::{io, str};

use pipelet_domain::events::{InvalidStationId, StationId};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::credentials::Credentials;

/// The request's head may take so many bytes.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
const SUBPROTOCOL: &str = "ocpp1.6";

/// A request's head, as far as it matters here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    method: String,
    target: String,
    upgrade: String,
    key: Option<String>,
    version: String,
    /// Of all the headers of that name.
    subprotocols: Vec<String>,
    credentials: Option<Credentials>,
}

/// What a request asks for, to tell it to people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) path: String,
    pub(super) subprotocols: Vec<String>,
}

/// A handshake that can be finished.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Upgrade {
    pub(super) station: StationId,
    pub(super) subprotocol: Subprotocol,
    pub(super) credentials: Option<Credentials>,
    accept_key: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subprotocol {
    /// As the station spelled it.
    Agreed(String),
    /// The station offered none. Some speak OCPP 1.6 without a word about it, so it is served.
    NotOffered,
    /// The station offered others only: the handshake ends well, and the connection ends.
    NoneCommon,
}

/// A request that is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the request is not HTTP/1.1")]
    NotHttp,
    #[error("the request's head is larger than {MAX_HEAD} bytes")]
    TooLarge,
    #[error("the request has more than {MAX_HEADERS} headers")]
    TooManyHeaders,
    #[error("only GET is served here")]
    WrongMethod,
    #[error("stations connect to /ocpp/{{station id}}")]
    NotFound,
    #[error("the station id in the path is not UTF-8")]
    IdNotUtf8,
    #[error("the station id in the path {}", match .0 {
        InvalidStationId::Empty => "is empty",
        InvalidStationId::TooLong => "is longer than 255 bytes",
        InvalidStationId::Control => "has control characters",
    })]
    InvalidId(InvalidStationId),
    #[error("this is a WebSocket endpoint")]
    NotWebSocket,
    #[error("the WebSocket version is not 13")]
    WrongVersion,
    #[error("the Sec-WebSocket-Key is missing, or is not 16 bytes in Base64")]
    NoKey,
    #[error("too many stations are known")]
    Full,
    #[error("this station is not registered")]
    Unregistered,
    #[error("show the station's id and password with HTTP Basic")]
    NoCredentials,
    #[error("the credentials are wrong")]
    WrongCredentials,
    #[error("too many wrong passwords for this station came from this address")]
    TooManyGuesses,
    #[error("the station has another security profile")]
    WrongProfile,
    #[error("the station's client certificate is missing")]
    NoCertificate,
    #[error("the client certificate is another station's")]
    WrongCertificate,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("TLS failed: {0}")]
    Tls(io::Error),
    #[error("the connection ended before the request did")]
    Ended,
    #[error("it took too long")]
    TooLate,
    #[error("it was unfinished when others came, and its address had the most of these")]
    CrowdedOut,
    #[error("{refusal}")]
    Refused {
        refusal: Refusal,
        /// As the request calls it, where it came to that.
        station: Option<StationId>,
        /// None where there was no request.
        asked: Option<Box<Asked>>,
    },
}

impl From<Refusal> for HandshakeError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused {
            refusal,
            station: None,
            asked: None,
        }
    }
}

/// Of a handshake that ends well, and whose connection ends at once.
pub(super) const NO_COMMON_SUBPROTOCOL: &str = "no_common_subprotocol";

/// All that a handshake may be refused for.
pub(super) const REASONS: [&str; 20] = [
    "bad_station_id",
    "crowded_out",
    "head_too_large",
    "no_client_certificate",
    "no_credentials",
    "no_websocket_key",
    "not_found",
    "not_http",
    "not_registered",
    "not_websocket",
    "timeout",
    "tls",
    "too_many_guesses",
    "too_many_stations",
    "wrong_client_certificate",
    "wrong_credentials",
    "wrong_method",
    "wrong_security_profile",
    "wrong_websocket_version",
    NO_COMMON_SUBPROTOCOL,
];

impl HandshakeError {
    /// A word that never changes: it is in metrics. None where the other end gave up.
    pub(super) const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Io(_) | Self::Ended => None,
            Self::Tls(_) => Some("tls"),
            Self::TooLate => Some("timeout"),
            Self::CrowdedOut => Some("crowded_out"),
            Self::Refused { refusal, .. } => Some(refusal.reason()),
        }
    }
}

/// Whether a request's head is there from its first byte to its last one, and nothing need be
/// waited for. Where something is there already, this doesn't wait.
pub(super) async fn is_whole(stream: &TcpStream) -> io::Result<bool> {
    let mut head = vec![0; MAX_HEAD];
    let there = stream.peek(&mut head).await?;
    Ok(head[..there].windows(4).any(|bytes| bytes == b"\r\n\r\n"))
}

/// Reads a request's head. What came after it belongs to the WebSocket.
pub(super) async fn read<S>(stream: &mut S) -> Result<(Request, Vec<u8>), HandshakeError>
where
    S: AsyncRead + Unpin,
{
    let mut head = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(HandshakeError::Ended);
        }
        if let Some((request, length)) = parse(&head)? {
            return Ok((request, head.split_off(length)));
        }
        if head.len() >= MAX_HEAD {
            return Err(Refusal::TooLarge.into());
        }
    }
}

/// Reads what has come so far: the request and its length, once it is complete.
pub(super) fn parse(head: &[u8]) -> Result<Option<(Request, usize)>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let length = match parsed.parse(head) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooManyHeaders),
        Err(_) => return Err(Refusal::NotHttp),
    };
    if parsed.version != Some(1) {
        return Err(Refusal::NotHttp);
    }
    let mut request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        target: parsed.path.unwrap_or_default().to_owned(),
        ..Request::default()
    };
    for header in parsed.headers.iter() {
        request.take_header(header.name, header.value);
    }
    Ok(Some((request, length)))
}

impl Request {
    pub(super) fn asked(&self) -> Asked {
        let path = self.target.split(['?', '#']).next().unwrap_or_default();
        // A whole URL in the path may have a password in it, as a query may.
        let named = |segment: &str| match segment.rsplit_once('@') {
            Some((_, named)) => format!("…@{named}"),
            None => segment.to_owned(),
        };
        Asked {
            path: path.split('/').map(named).collect::<Vec<_>>().join("/"),
            subprotocols: self.subprotocols.clone(),
        }
    }

    fn take_header(&mut self, name: &str, value: &[u8]) {
        if name.eq_ignore_ascii_case("authorization") {
            self.credentials = Some(Credentials::parse(value));
            return;
        }
        let Ok(value) = str::from_utf8(value).map(str::trim) else {
            return;
        };
        match name.to_ascii_lowercase().as_str() {
            "upgrade" => value.clone_into(&mut self.upgrade),
            "sec-websocket-key" => self.key = Some(value.to_owned()),
            "sec-websocket-version" => value.clone_into(&mut self.version),
            "sec-websocket-protocol" => self.subprotocols.extend(listed(value).map(str::to_owned)),
            _ => {}
        }
    }
}

/// Whether the request is a station's, and which one's.
pub(super) fn decide(request: Request) -> Result<Upgrade, Refusal> {
    if request.method != "GET" {
        return Err(Refusal::WrongMethod);
    }
    let station = station_of(&request.target)?;
    if !listed(&request.upgrade).any(|name| name.eq_ignore_ascii_case("websocket")) {
        return Err(Refusal::NotWebSocket);
    }
    if request.version != "13" {
        return Err(Refusal::WrongVersion);
    }
    let key = request.key.as_deref().filter(|key| is_key(key));
    let key = key.ok_or(Refusal::NoKey)?;
    Ok(Upgrade {
        station,
        subprotocol: agree(&request.subprotocols),
        credentials: request.credentials,
        accept_key: derive_accept_key(key.as_bytes()),
    })
}

/// 16 bytes in Base64 (RFC 6455, section 4.1). The bits that the last digit has to spare are not looked
/// at: in the standard's own example they are set.
fn is_key(key: &str) -> bool {
    let digits = key.strip_suffix("==").unwrap_or_default();
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    digits.len() == 22 && digits.bytes().all(is_digit)
}

fn agree(offered: &[String]) -> Subprotocol {
    let ours = |name: &&String| name.eq_ignore_ascii_case(SUBPROTOCOL);
    match offered.iter().find(ours) {
        Some(name) => Subprotocol::Agreed(name.clone()),
        None if offered.is_empty() => Subprotocol::NotOffered,
        None => Subprotocol::NoneCommon,
    }
}

fn listed(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|v| !v.is_empty())
}

/// The last segment of a path below `/ocpp/`, decoded once. Empty segments don't count, and the
/// target may be a whole URL, with or without a slash before it.
fn station_of(target: &str) -> Result<StationId, Refusal> {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    let below = match segments.as_slice() {
        [scheme, _host, below @ ..] if scheme.ends_with(':') => below,
        below => below,
    };
    match below {
        ["ocpp", .., id] => {
            let id = percent_decoded(id).ok_or(Refusal::IdNotUtf8)?;
            StationId::new(&id).map_err(Refusal::InvalidId)
        }
        _ => Err(Refusal::NotFound),
    }
}

/// An escape that is none stays as it is; bytes that are no UTF-8 make no id.
fn percent_decoded(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() {
            &after[2..]
        } else {
            after
        };
    }
    String::from_utf8(bytes).ok()
}

/// Finishes the handshake.
pub(super) async fn accept<S>(stream: &mut S, upgrade: &Upgrade) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    stream.write_all(upgrade.response().as_bytes()).await?;
    stream.flush().await
}

/// Says why not; the connection ends.
pub(super) async fn refuse<S>(stream: &mut S, refusal: Refusal) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    stream.write_all(refusal.response().as_bytes()).await?;
    stream.shutdown().await
}

impl Upgrade {
    pub(super) fn response(&self) -> String {
        let subprotocol = match &self.subprotocol {
            Subprotocol::Agreed(name) => format!("Sec-WebSocket-Protocol: {name}\r\n"),
            Subprotocol::NotOffered | Subprotocol::NoneCommon => String::new(),
        };
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n{subprotocol}\r\n",
            self.accept_key
        )
    }
}

impl Refusal {
    const fn reason(self) -> &'static str {
        match self {
            Self::NotHttp => "not_http",
            Self::TooLarge | Self::TooManyHeaders => "head_too_large",
            Self::WrongMethod => "wrong_method",
            Self::NotFound => "not_found",
            Self::IdNotUtf8 | Self::InvalidId(_) => "bad_station_id",
            Self::NotWebSocket => "not_websocket",
            Self::WrongVersion => "wrong_websocket_version",
            Self::NoKey => "no_websocket_key",
            Self::Full => "too_many_stations",
            Self::Unregistered => "not_registered",
            Self::NoCredentials => "no_credentials",
            Self::WrongCredentials => "wrong_credentials",
            Self::TooManyGuesses => "too_many_guesses",
            Self::WrongProfile => "wrong_security_profile",
            Self::NoCertificate => "no_client_certificate",
            Self::WrongCertificate => "wrong_client_certificate",
        }
    }

    fn response(self) -> String {
        let (status, header) = match self {
            Self::NotHttp | Self::NoKey => ("400 Bad Request", ""),
            Self::TooLarge | Self::TooManyHeaders => ("431 Request Header Fields Too Large", ""),
            Self::WrongMethod => ("405 Method Not Allowed", "Allow: GET\r\n"),
            Self::NotFound | Self::IdNotUtf8 | Self::InvalidId(_) | Self::Unregistered => {
                ("404 Not Found", "")
            }
            Self::NotWebSocket => ("426 Upgrade Required", "Upgrade: websocket\r\n"),
            Self::WrongVersion => (
                "426 Upgrade Required",
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            ),
            Self::NoCredentials | Self::WrongCredentials => (
                "401 Unauthorized",
                "WWW-Authenticate: Basic realm=\"pipelet\"\r\n",
            ),
            Self::TooManyGuesses => ("429 Too Many Requests", "Retry-After: 10\r\n"),
            Self::WrongProfile | Self::NoCertificate | Self::WrongCertificate => {
                ("403 Forbidden", "")
            }
            Self::Full => ("503 Service Unavailable", "Retry-After: 60\r\n"),
        };
        let body = format!("{self}\n");
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\n{header}Content-Type: text/plain\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
