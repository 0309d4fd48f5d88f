//! Whether a connection may speak for a station. Pure.
//!
//! A station that has no entry shows nothing, and where stations need not be registered nothing
//! is asked of it. Passwords are compared in constant time, and as much is computed for a station
//! without one.

use pipelet_domain::{
    events::StationId,
    registration::{Admission, PasswordHash, Registration, SecurityProfile},
};
use subtle::{Choice, ConstantTimeEq as _};

use super::{client_names::ClientNames, credentials::Credentials, handshake::Refusal};

/// What a connection shows.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    pub(super) station: &'a StationId,
    pub(super) tls: bool,
    /// Of the client certificate, which is one of an authority that we trust.
    pub(super) certificate: Option<&'a ClientNames>,
    pub(super) credentials: Option<&'a Credentials>,
}

/// Whether the answer hangs on a password, so that somebody could guess at it.
pub(super) fn asks_password(entry: Option<&Registration>) -> bool {
    entry.is_some_and(|entry| entry.password.is_some())
}

/// The profile that the connection has, where it may come in.
pub(super) fn admit(
    entry: Option<&Registration>,
    admission: Admission,
    shown: &Shown<'_>,
) -> Result<SecurityProfile, Refusal> {
    // First, so that it takes its time whatever becomes of the rest.
    let password = check_password(entry.and_then(|entry| entry.password.as_ref()), shown);
    let named = shown
        .certificate
        .map(|names| names.contain(shown.station.as_str()));
    if named == Some(false) {
        return Err(Refusal::WrongCertificate);
    }
    let Some(entry) = entry else {
        return match admission {
            Admission::Open => Ok(proven(named)),
            Admission::Registered => Err(Refusal::Unregistered),
        };
    };
    let by_password = || {
        let profile = if shown.tls {
            SecurityProfile::TlsBasic
        } else {
            SecurityProfile::Basic
        };
        password.map(|()| profile)
    };
    match (entry.profile, shown.tls) {
        (Some(SecurityProfile::Unsecured), false) => Ok(SecurityProfile::Unsecured),
        (Some(SecurityProfile::Basic), false) | (Some(SecurityProfile::TlsBasic), true) => {
            by_password()
        }
        (Some(SecurityProfile::MutualTls), true) => match proven(named) {
            SecurityProfile::MutualTls => Ok(SecurityProfile::MutualTls),
            SecurityProfile::Unsecured | SecurityProfile::Basic | SecurityProfile::TlsBasic => {
                Err(Refusal::NoCertificate)
            }
        },
        (Some(SecurityProfile::Unsecured | SecurityProfile::Basic), true)
        | (Some(SecurityProfile::TlsBasic | SecurityProfile::MutualTls), false) => {
            Err(Refusal::WrongProfile)
        }
        (None, _) if entry.password.is_some() => by_password(),
        (None, _) => Ok(proven(named)),
    }
}

/// What is shown without a password.
fn proven(named: Option<bool>) -> SecurityProfile {
    match named {
        Some(true) => SecurityProfile::MutualTls,
        Some(false) | None => SecurityProfile::Unsecured,
    }
}

fn check_password(expected: Option<&PasswordHash>, shown: &Shown<'_>) -> Result<(), Refusal> {
    let Some(credentials) = shown.credentials else {
        return Err(Refusal::NoCredentials);
    };
    let nobodys = PasswordHash::from_parts([0; 16], [0; 32]);
    let known = Choice::from(u8::from(expected.is_some()));
    let password = expected.unwrap_or(&nobodys).matches(&credentials.password);
    let user = shown.station.as_str().as_bytes().ct_eq(&credentials.user);
    if bool::from(known & password & user) {
        Ok(())
    } else {
        Err(Refusal::WrongCredentials)
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
