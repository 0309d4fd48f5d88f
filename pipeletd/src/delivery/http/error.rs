//! Why no whole answer came, told apart by type.

use std::{error::Error, io, iter, time::Duration};

use humantime::format_duration;
use jiff::Timestamp;
use pipelet_domain::webhooks::RefusedTarget;
use rustls::{CertificateError, pki_types::UnixTime};

use super::{lookups::LookupFailed, response_buffer::Interim};

/// Why no whole answer came, in plain words for operators.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttemptError {
    #[error("no answer within {}", format_duration(*.limit))]
    Timeout { limit: Duration },
    #[error("the answer did not end within {}", format_duration(*.limit))]
    AnswerTimeout { limit: Duration },
    #[error("no connection within {}", format_duration(*.limit))]
    ConnectTimeout { limit: Duration },
    #[error("the host name can't be resolved")]
    Dns,
    #[error(transparent)]
    TargetRefused(RefusedTarget),
    #[error("connection refused")]
    Refused,
    #[error("the host or its network can't be reached")]
    Unreachable,
    #[error("the receiver's certificate expired on {0}")]
    CertificateExpired(Timestamp),
    #[error("the receiver's certificate is not valid before {0}")]
    CertificateNotYetValid(Timestamp),
    #[error("the receiver's certificate is from an authority that is not trusted here")]
    CertificateUnknownIssuer,
    #[error("the receiver's certificate is for another name: {0}")]
    CertificateWrongName(String),
    /// What else TLS says about it.
    #[error("TLS failed: {0}")]
    Tls(String),
    #[error("the connection broke off")]
    BrokenOff,
    /// HTTP/2's way to break off an exchange and keep the connection.
    #[error("the receiver reset the stream")]
    StreamReset,
    /// The same, without having done anything with it (RFC 9113, section 8.7).
    #[error("the receiver refused the stream")]
    StreamRefused,
    #[error(
        "more interim answers (1xx) than {}, or than 4 KiB of them",
        Interim::MOST
    )]
    Interim,
    /// Of whatever it was: no answer has so much in it.
    #[error("the receiver sends without end")]
    Endless,
    /// What came was no HTTP, or against its rules.
    #[error("the answer is not valid HTTP")]
    Protocol,
    #[error("can't connect")]
    Connect,
}

impl AttemptError {
    /// For programs and metrics; these never change.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "timeout",
            Self::AnswerTimeout { .. } => "answer_timeout",
            Self::ConnectTimeout { .. } => "connect_timeout",
            Self::Dns => "dns",
            Self::TargetRefused(_) => "private_target",
            Self::Refused => "connection_refused",
            Self::Unreachable => "unreachable",
            Self::CertificateExpired(_) => "certificate_expired",
            Self::CertificateNotYetValid(_) => "certificate_not_yet_valid",
            Self::CertificateUnknownIssuer => "certificate_unknown_issuer",
            Self::CertificateWrongName(_) => "certificate_wrong_name",
            Self::Tls(_) => "tls",
            Self::BrokenOff => "broken_off",
            Self::StreamReset => "stream_reset",
            Self::StreamRefused => "stream_refused",
            Self::Interim => "interim_answers",
            Self::Endless => "endless",
            Self::Protocol => "protocol",
            Self::Connect => "connect",
        }
    }
}

impl From<hyper::Error> for AttemptError {
    fn from(error: hyper::Error) -> Self {
        Self::by_cause(&error).unwrap_or(Self::Protocol)
    }
}

impl AttemptError {
    /// Of an error while connecting, for which this was the limit.
    pub(super) fn connecting(error: &(dyn Error + 'static), limit: Duration) -> Self {
        let timed_out = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
        let timed_out = find::<io::Error>(error).is_some_and(timed_out);
        match Self::by_cause(error) {
            Some(known @ (Self::Dns | Self::TargetRefused(_))) => known,
            _ if timed_out => Self::ConnectTimeout { limit },
            Some(known) => known,
            None => Self::Connect,
        }
    }

    pub(super) fn by_cause(error: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(refused) = find::<RefusedTarget>(error) {
            Some(Self::TargetRefused(refused.clone()))
        } else if find::<LookupFailed>(error).is_some() {
            Some(Self::Dns)
        } else if let Some(tls) = find::<rustls::Error>(error) {
            Some(Self::of_tls(tls))
        } else if let Some(known) = find::<io::Error>(error).and_then(from_io) {
            Some(known)
        } else {
            find(error)
                .is_some_and(is_broken_off)
                .then_some(Self::BrokenOff)
        }
    }
}

impl AttemptError {
    fn of_tls(error: &rustls::Error) -> Self {
        let rustls::Error::InvalidCertificate(reason) = error else {
            return Self::Tls(error.to_string());
        };
        let at = |time: &UnixTime| {
            let seconds = i64::try_from(time.as_secs()).ok()?;
            Timestamp::from_second(seconds).ok()
        };
        let known = match reason {
            CertificateError::ExpiredContext { not_after, .. } => {
                at(not_after).map(Self::CertificateExpired)
            }
            CertificateError::NotValidYetContext { not_before, .. } => {
                at(not_before).map(Self::CertificateNotYetValid)
            }
            CertificateError::UnknownIssuer => Some(Self::CertificateUnknownIssuer),
            CertificateError::NotValidForNameContext { presented, .. } => {
                Some(Self::CertificateWrongName(names(presented)))
            }
            _ => None,
        };
        known.unwrap_or_else(|| Self::Tls(error.to_string()))
    }
}

/// What rustls writes as `DnsName("a.example")` and `IpAddress(10.0.0.1)`.
fn names(presented: &[String]) -> String {
    let bare = presented.iter().map(|name| {
        let inner = name
            .split_once('(')
            .and_then(|(_, rest)| rest.strip_suffix(')'));
        inner.unwrap_or(name).trim_matches('"')
    });
    bare.collect::<Vec<_>>().join(", ")
}

fn from_io(error: &io::Error) -> Option<AttemptError> {
    use io::ErrorKind as K;
    match error.kind() {
        K::ConnectionRefused => Some(AttemptError::Refused),
        K::HostUnreachable | K::NetworkUnreachable | K::TimedOut => Some(AttemptError::Unreachable),
        K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe | K::UnexpectedEof => {
            Some(AttemptError::BrokenOff)
        }
        // What an allowance says that is used up.
        K::QuotaExceeded => Some(AttemptError::Endless),
        _ => None,
    }
}

fn is_broken_off(error: &hyper::Error) -> bool {
    error.is_incomplete_message() || error.is_closed() || error.is_canceled()
}

/// The innermost error of a type among an error and what caused it.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    iter::successors(Some(error), |error| cause(*error))
        .filter_map(|error| error.downcast_ref::<T>())
        .last()
}

/// `io::Error::source` skips the error that it wraps, which is where rustls puts its own.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let wrapped = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    match wrapped {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}
